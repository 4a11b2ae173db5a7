//! Checks under way, of single tasks for drift and of all units, and the monitor that decides about the former.

use std::pin::Pin;

use groundplan_protocol::{
    digest::Fingerprint,
    drift::DriftReport,
    ids::{NodeId, TaskId},
    time::Now,
};
use tokio::task::{JoinError, JoinSet};

use super::{limits::CANCEL_LIMIT, unit_watch::Found};
use crate::{
    drift::{CheckResult, DriftMonitor, TaskCheck},
    host::cancel::Canceller,
};

/// A finished check.
pub(super) enum Ended {
    /// Of which task and round, at which fingerprint, and what it found.
    Task(TaskCheck, Fingerprint, CheckResult),
    /// Of all units that tasks keep running.
    Units(Found),
}

/// A check that runs. Of one type, so that the code that runs it is in the program once.
type Check = Pin<Box<dyn Future<Output = Ended> + Send>>;

/// The monitor, and the checks that run.
pub(super) struct DriftChecks {
    pub(super) monitor: DriftMonitor,
    checks: JoinSet<Ended>,
    pub(super) canceller: Canceller,
    /// A report that cannot be sent before a planner has announced the key to encrypt to it with.
    pub(super) unsent: Option<Box<DriftReport>>,
}

impl DriftChecks {
    pub(super) fn new(node: &NodeId, now: Now) -> Self {
        Self {
            monitor: DriftMonitor::new(node, now),
            checks: JoinSet::new(),
            canceller: Canceller::new(),
            unsent: None,
        }
    }

    /// Runs a check beside the loop.
    pub(super) fn spawn(&mut self, check: Check) {
        self.checks.spawn(check);
    }

    /// When the next round is due, by the monotonic clock.
    pub(super) fn deadline(&self) -> Option<std::time::Duration> {
        self.monitor.deadline()
    }

    /// A job of `task` has ended.
    pub(super) fn task_ran(&mut self, task: &TaskId) {
        self.monitor.task_ran(task);
    }

    /// The next finished check; `None` at once if none is under way.
    pub(super) async fn ended(&mut self) -> Option<Result<Ended, JoinError>> {
        self.checks.join_next().await
    }

    /// Ends all checks: the programs that they run get TERM, then KILL.
    pub(super) async fn end(&mut self) {
        self.canceller.cancel();
        let ended = async { while self.checks.join_next().await.is_some() {} };
        if tokio::time::timeout(CANCEL_LIMIT, ended).await.is_err() {
            self.checks.abort_all();
        }
    }
}
