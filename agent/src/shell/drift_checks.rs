//! Drift checks under way, and the monitor that decides about them.

use groundplan_protocol::{
    digest::Fingerprint,
    ids::{NodeId, TaskId},
    time::Now,
};
use tokio::task::{JoinError, JoinSet};

use super::limits::CANCEL_LIMIT;
use crate::{
    drift::{CheckResult, DriftMonitor, TaskCheck},
    host::cancel::Canceller,
};

/// A finished check: of which task and round, at which fingerprint, and what it found.
pub(super) type Ended = (TaskCheck, Fingerprint, CheckResult);

/// The monitor, and the checks of single tasks that run.
pub(super) struct DriftChecks {
    pub(super) monitor: DriftMonitor,
    pub(super) checks: JoinSet<Ended>,
    pub(super) canceller: Canceller,
}

impl DriftChecks {
    pub(super) fn new(node: &NodeId, now: Now) -> Self {
        Self { monitor: DriftMonitor::new(node, now), checks: JoinSet::new(), canceller: Canceller::new() }
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
