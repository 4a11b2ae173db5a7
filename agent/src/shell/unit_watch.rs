//! Checks of units under way, and when the next is due.

use std::{collections::BTreeMap, time::Duration};

use groundplan_protocol::{ids::TaskId, time::Now};
use tokio::task::{JoinError, JoinSet};

/// How long after one check the next begins.
const EVERY: Duration = Duration::from_secs(5);

/// What was found, and the number of jobs that had ended when the check began.
pub(super) type Found = (u64, BTreeMap<TaskId, Option<String>>);

/// See the module.
pub(super) struct UnitWatch {
    due: Duration,
    /// Whether no task kept a unit at the last check, and no job has ended since.
    pub(super) nothing: bool,
    pub(super) checks: JoinSet<Found>,
    /// How many jobs have ended: what a check found before is about another unit than the one after.
    pub(super) jobs: u64,
}

impl UnitWatch {
    pub(super) fn new(now: Now) -> Self {
        Self { due: now.mono + EVERY, nothing: false, checks: JoinSet::new(), jobs: 0 }
    }

    /// When the next check is due, by the monotonic clock; none while one is under way, or nothing is to be checked.
    pub(super) fn due(&self) -> Option<Duration> {
        (self.checks.is_empty() && !self.nothing).then_some(self.due)
    }

    /// Whether a check is due; then the next one is later.
    pub(super) fn begins(&mut self, now: Now) -> bool {
        let begins = self.due().is_some_and(|due| due <= now.mono);
        if begins {
            self.due = now.mono + EVERY;
        }
        begins
    }

    /// The check that has ended; `None` at once if none is under way.
    pub(super) async fn ended(&mut self) -> Option<Result<Found, JoinError>> {
        self.checks.join_next().await
    }

    pub(super) fn job_ended(&mut self) {
        self.jobs += 1;
        self.nothing = false;
    }
}
