//! Being alone on the host: a job that is to bring the host down waits until no other runs, and lets none begin.
//!
//! In: jobs that begin, and one that wants to be alone. Every other job holds its turn to its end; who waits to be alone
//! comes before all who would begin after. Whether the host is going down is told to whoever stops the agent.

use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::{RwLock, RwLockReadGuard, RwLockWriteGuard};

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Quiet {
    jobs: RwLock<()>,
    going_down: AtomicBool,
}

/// Nothing else runs while this lives.
#[derive(Debug)]
pub(crate) struct Alone<'a> {
    quiet: &'a Quiet,
    _jobs: RwLockWriteGuard<'a, ()>,
}

/// The host is going down while this lives.
#[derive(Debug)]
pub(crate) struct GoingDown<'a>(Alone<'a>);

impl Quiet {
    /// A turn among others; it is waited for while one job is alone.
    pub(crate) async fn turn(&self) -> RwLockReadGuard<'_, ()> {
        self.jobs.read().await
    }

    /// Waits until no job has a turn.
    pub(crate) async fn alone(&self) -> Alone<'_> {
        Alone { quiet: self, _jobs: self.jobs.write().await }
    }

    /// Whether the host has been asked to go down and nothing runs but who asked.
    pub(crate) fn is_going_down(&self) -> bool {
        self.going_down.load(Ordering::Relaxed)
    }
}

impl<'a> Alone<'a> {
    /// Notes that the host is being asked.
    pub(crate) fn going_down(self) -> GoingDown<'a> {
        self.quiet.going_down.store(true, Ordering::Relaxed);
        GoingDown(self)
    }
}

impl Drop for GoingDown<'_> {
    fn drop(&mut self) {
        self.0.quiet.going_down.store(false, Ordering::Relaxed);
    }
}
