//! Cancelling work: one side cancels, any number of jobs and checks wait for it.

use tokio::sync::watch;

/// Cancels the jobs that hold a [`Cancel`] of it. Dropping it cancels nothing.
#[derive(Debug)]
pub struct Canceller(watch::Sender<bool>);

/// A job's side of a [`Canceller`].
#[derive(Debug, Clone)]
pub struct Cancel(watch::Receiver<bool>);

impl Canceller {
    /// A canceller that has cancelled nothing yet.
    #[expect(clippy::new_without_default, reason = "a canceller that no job listens to is not a useful default")]
    pub fn new() -> Self {
        Self(watch::Sender::new(false))
    }

    /// The other side, for a job; any number may be made.
    pub fn listen(&self) -> Cancel {
        Cancel(self.0.subscribe())
    }

    /// Cancels the jobs: their commands get TERM, then KILL, and the jobs fail.
    pub fn cancel(&self) {
        self.0.send_replace(true);
    }
}

impl Cancel {
    /// A side that is never cancelled.
    pub fn never() -> Self {
        Canceller::new().listen()
    }

    /// Whether the canceller has been used.
    pub fn is_cancelled(&self) -> bool {
        *self.0.borrow()
    }

    /// Returns once the work is cancelled; never, if the canceller has been dropped without that.
    pub async fn cancelled(&self) {
        if self.0.clone().wait_for(|cancelled| *cancelled).await.is_err() {
            std::future::pending().await
        }
    }
}
