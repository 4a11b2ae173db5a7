//! Exclusive use of the host: a job that brings the host down waits until no other job runs, and no other starts meanwhile.
//!
//! In: jobs that start, and one that asks for exclusive use. Every other job holds a turn until it ends; the job that waits
//! for exclusive use comes before all that would start after it. Whether the host is going down is known to whatever stops
//! the agent.

use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::{RwLock, RwLockReadGuard, RwLockWriteGuard};

/// Hands out turns: many jobs at a time, or one that has the host for itself.
#[derive(Debug, Default)]
pub(crate) struct Exclusive {
    jobs: RwLock<()>,
    going_down: AtomicBool,
}

/// A job's turn; while one lives, no job has exclusive use.
pub(crate) type Turn<'a> = RwLockReadGuard<'a, ()>;

/// Exclusive use: no other job runs while this lives.
#[derive(Debug)]
pub(crate) struct Alone<'a> {
    exclusive: &'a Exclusive,
    _jobs: RwLockWriteGuard<'a, ()>,
}

/// The host is going down while this lives.
#[derive(Debug)]
pub(crate) struct GoingDown<'a>(Alone<'a>);

impl Exclusive {
    /// Waits for a turn, as long as a job has exclusive use or waits for it.
    pub(crate) async fn turn(&self) -> Turn<'_> {
        self.jobs.read().await
    }

    /// Waits until no job has a turn.
    pub(crate) async fn alone(&self) -> Alone<'_> {
        Alone { exclusive: self, _jobs: self.jobs.write().await }
    }

    /// Whether the host has been asked to go down, and nothing runs but the job that asked.
    pub(crate) fn is_going_down(&self) -> bool {
        self.going_down.load(Ordering::Relaxed)
    }
}

impl<'a> Alone<'a> {
    /// Notes that the host is being asked to go down.
    pub(crate) fn going_down(self) -> GoingDown<'a> {
        self.exclusive.going_down.store(true, Ordering::Relaxed);
        GoingDown(self)
    }
}

impl Drop for GoingDown<'_> {
    fn drop(&mut self) {
        self.0.exclusive.going_down.store(false, Ordering::Relaxed);
    }
}
