//! What all connections of a broker share.

use std::sync::{
    Arc, Mutex, MutexGuard, PoisonError,
    atomic::{AtomicU64, AtomicUsize},
};

use super::{limits::Limits, policy::Policy, state::State};

/// State that all connections share.
pub(crate) struct Shared {
    pub(crate) state: Mutex<State>,
    pub(crate) limits: Arc<Limits>,
    pub(crate) policy: Arc<dyn Policy>,
    pub(crate) connections: AtomicUsize,
    pub(crate) anonymous: AtomicU64,
    pub(crate) refused: AtomicU64,
}

/// No code under the lock panics by design. If it does all the same, the other clients go on with the state as it is.
pub(crate) fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}
