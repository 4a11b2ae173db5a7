//! How many bytes have not arrived at the broker: those that wait for the connection's task, and those in its outbox.
//!
//! Counted where they are made. The task may wait itself, while the planner is busy, and would count nothing then.

use std::sync::atomic::{AtomicUsize, Ordering};

/// Shared by the handles and the connection's task.
#[derive(Debug, Default)]
pub(super) struct Backlog {
    queued: AtomicUsize,
    outbox: AtomicUsize,
}

impl Backlog {
    /// All of them.
    pub(super) fn bytes(&self) -> usize {
        self.queued.load(Ordering::Relaxed) + self.outbox.load(Ordering::Relaxed)
    }

    /// A message is on its way to the task.
    pub(super) fn queued(&self, bytes: usize) {
        self.queued.fetch_add(bytes, Ordering::Relaxed);
    }

    /// The task has taken a message of that many bytes, and its outbox holds so many now.
    pub(super) fn taken(&self, bytes: usize, outbox: usize) {
        // In this order: what is counted twice for a moment does no harm.
        self.outbox(outbox);
        self.queued.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// The outbox holds so many.
    pub(super) fn outbox(&self, bytes: usize) {
        self.outbox.store(bytes, Ordering::Relaxed);
    }
}
