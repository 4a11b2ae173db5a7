//! What all connections of a broker share.

use std::sync::{
    Arc, Mutex, MutexGuard, PoisonError,
    atomic::{AtomicU64, AtomicUsize},
};

use super::{
    limits::Limits,
    log_limit::LogLimit,
    pending::{Number, Pending},
    policy::Policy,
    state::State,
};

/// State that all connections share.
pub(crate) struct Shared {
    pub(crate) state: Mutex<State>,
    pub(crate) limits: Arc<Limits>,
    pub(crate) policy: Arc<dyn Policy>,
    pub(crate) pending: Mutex<Pending>,
    pub(crate) log: Arc<LogLimit>,
    pub(crate) connections: AtomicUsize,
    pub(crate) anonymous: AtomicU64,
    pub(crate) refused: AtomicU64,
}

/// No code under the lock panics by design. If it does all the same, the other clients go on with the state as it is.
pub(crate) fn lock<T>(state: &Mutex<T>) -> MutexGuard<'_, T> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A place among the connections that have not proved who they are; dropped when they have, or end.
pub(crate) struct Place {
    pub(crate) shared: Arc<Shared>,
    pub(crate) number: Number,
}

impl Place {
    /// The client is refused, and only reads why.
    pub(crate) fn refused(&self) {
        lock(&self.shared.pending).refuse(self.number);
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        lock(&self.shared.pending).leave(self.number);
    }
}
