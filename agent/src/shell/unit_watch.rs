//! When the next check of units is due, and how many jobs have ended since one began.

use std::time::Duration;

use groundplan_protocol::{ids::TaskId, time::Now};

/// How long after one check the next begins.
const EVERY: Duration = Duration::from_secs(5);

/// The number of jobs that had ended when the check began, and what it found.
pub(super) type Found = (u64, Vec<(TaskId, Option<String>)>);

/// See the module.
pub(super) struct UnitWatch {
    due: Duration,
    /// Whether no task kept a unit at the last check, and no job has ended since.
    pub(super) nothing: bool,
    /// Whether a check is under way.
    pub(super) under_way: bool,
    /// How many jobs have ended: what a check found before is about another unit than the one after.
    pub(super) jobs: u64,
}

impl UnitWatch {
    pub(super) fn new(now: Now) -> Self {
        Self { due: now.mono + EVERY, nothing: false, under_way: false, jobs: 0 }
    }

    /// When the next check is due, by the monotonic clock; none while one is under way, or nothing is to be checked.
    pub(super) fn due(&self) -> Option<Duration> {
        (!self.under_way && !self.nothing).then_some(self.due)
    }

    /// Whether a check is due; then the next one is later.
    pub(super) fn begins(&mut self, now: Now) -> bool {
        let begins = self.due().is_some_and(|due| due <= now.mono);
        if begins {
            self.due = now.mono + EVERY;
        }
        begins
    }

    pub(super) fn job_ended(&mut self) {
        self.jobs += 1;
        self.nothing = false;
    }
}
