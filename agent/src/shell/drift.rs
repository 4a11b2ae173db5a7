//! Looking for drift: tasks of the host's, one report for the outlet.
//!
//! In: what [`Watch`] decides. Out: looks that run beside the loop, and the report. A look that is cancelled runs on until what
//! it started has ended; nobody waits for it, and nothing is made of it.

use std::sync::Arc;

use groundplan_protocol::{
    VERSION,
    digest::Fingerprint,
    drift::{CheckRequest, DriftReport},
    envelope::seal,
    ids::{NodeId, TaskId},
    time::Now,
};
use tokio::task::{JoinError, JoinSet};

use super::{CANCELLED, Shell};
use crate::{
    drift::{Due, Findings, Step, Watch, by_name},
    host::{Looked, job::Canceller},
    log,
};

/// What ended: which task of which look, at which fingerprint, and what was found.
type Ended = (Due, Fingerprint, Looked);

/// See the module.
pub(super) struct Looking {
    watch: Watch,
    looks: JoinSet<Ended>,
    canceller: Canceller,
}

impl Looking {
    pub(super) fn new(node: &NodeId, now: Now) -> Self {
        Self { watch: Watch::new(node, now), looks: JoinSet::new(), canceller: Canceller::new() }
    }

    /// When something is due, by the monotonic clock.
    pub(super) fn deadline(&self) -> Option<std::time::Duration> {
        self.watch.deadline()
    }

    /// A job of `task` has ended.
    pub(super) fn ran(&mut self, task: &TaskId) {
        self.watch.ran(task);
    }

    /// What of it ends next; `None` at once if there is nothing.
    pub(super) async fn ended(&mut self) -> Option<Result<Ended, JoinError>> {
        self.looks.join_next().await
    }

    /// Ends all that goes on: what it runs gets TERM, then KILL.
    pub(super) async fn end(&mut self) {
        self.canceller.cancel();
        let ended = async { while self.looks.join_next().await.is_some() {} };
        if tokio::time::timeout(CANCELLED, ended).await.is_err() {
            self.looks.abort_all();
        }
    }
}

impl Shell {
    /// Takes the planner's wish.
    pub(super) fn wish(&mut self, look: &CheckRequest) {
        if look.node == self.config.node {
            self.looking.watch.wish(look);
        }
    }

    /// Begins, goes on with, ends or tells of a look, as is due.
    pub(super) fn look_for_drift(&mut self) {
        let (now, generation) = (self.clock.now(), self.machine.generation());
        match self.looking.watch.step(self.machine.is_idle(), generation, now) {
            Step::Nothing => {}
            Step::Stop => {
                self.looking.canceller.cancel();
                self.looking.canceller = Canceller::new();
            }
            Step::Begin => {
                // What was begun and not brought to a good end is in doubt, and the planner knows.
                let (known, in_doubt): (Vec<_>, Vec<_>) = self
                    .machine
                    .applied()
                    .map(|(task, _)| task.clone())
                    .partition(|task| self.machine.recorded(task).is_some_and(|record| !record.in_doubt));
                self.looking.watch.begin(known.into_iter(), in_doubt.len() as u64, generation, now);
            }
        }
        while let Some(due) = self.looking.watch.next_task() {
            self.look_at(due);
        }
        if let Some(findings) = self.looking.watch.finish(now) {
            self.publish_drift(findings);
        }
    }

    fn look_at(&mut self, due: Due) {
        let Some(record) = self.machine.recorded(&due.task) else {
            self.looking.watch.looked(due, Looked::LeftOut, None);
            return;
        };
        let (host, cancel) = (Arc::clone(&self.host), self.looking.canceller.listen());
        let (spec, memory, fingerprint) = (record.spec.clone(), record.memory.clone(), record.fingerprint);
        self.looking.looks.spawn(async move {
            let looked = host.look(&due.task, &spec, memory.as_ref(), &cancel).await;
            (due, fingerprint, looked)
        });
    }

    /// Takes what a look at a task found, unless its record has changed meanwhile.
    pub(super) fn looked(&mut self, (due, fingerprint, looked): Ended) {
        let record = self.machine.recorded(&due.task);
        let same = record.is_some_and(|record| record.fingerprint == fingerprint && !record.in_doubt);
        self.looking.watch.looked(due, looked, same.then_some(fingerprint));
    }

    /// Publishes what a look found, whole if one message holds it.
    fn publish_drift(&mut self, findings: Findings) {
        if !findings.drifted.is_empty() {
            let (drifted, checked) = (findings.drifted.len(), findings.checked);
            log::info(format_args!("{drifted} of {checked} tasks are otherwise than they were applied"));
        }
        let mut report = DriftReport {
            version: VERSION,
            site: self.config.site.clone(),
            node: self.config.node.clone(),
            ledger: self.machine.ledger().clone(),
            revision: self.machine.numbered(findings.count),
            asked: findings.asked,
            generation: findings.generation,
            at_ms: findings.began.wall_ms,
            duration_ms: u64::try_from(findings.duration.as_millis()).unwrap_or(u64::MAX),
            checked: findings.checked,
            left_out: findings.left_out,
            drifted: findings.drifted,
            failed: findings.failed,
        };
        if self.outlet.drift(seal(&self.config.key, &report)) {
            return;
        }
        log::warn("what was found of drift is too large for one message; leaving out content");
        let differences = report.drifted.values_mut().flat_map(|drifted| &mut drifted.differences);
        differences.filter_map(|difference| difference.content.as_mut()).for_each(by_name);
        if self.outlet.drift(seal(&self.config.key, &report)) {
            return;
        }
        log::warn("it is too large even so; leaving out what differs");
        report.drifted.values_mut().for_each(|drifted| drifted.differences.clear());
        report.failed.values_mut().for_each(|reason| "see the agent's log".clone_into(reason));
        if !self.outlet.drift(seal(&self.config.key, &report)) {
            log::warn("it is too large even so: it cannot be told");
        }
    }
}
