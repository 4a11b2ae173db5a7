//! Drift checks: starts the checks of single tasks, and publishes one report of each round.
//!
//! In: what the [`DriftMonitor`](crate::drift::DriftMonitor) decides. Out: checks that run beside the loop, and the report. A
//! cancelled check continues until the programs that it started have ended; nothing waits for it, and its result is dropped.

use std::sync::Arc;

use groundplan_protocol::{
    VERSION,
    blob::Content,
    digest::Fingerprint,
    drift::{CheckRequest, DriftReport},
    envelope::seal_for,
};

use super::{drift_checks::Ended, state::Shell};
use crate::{
    drift::{CheckResult, Findings, Step, TaskCheck},
    host::cancel::Canceller,
    log,
};

impl Shell {
    /// Takes the planner's request, if it is for this node.
    pub(super) fn request_drift_check(&mut self, request: &CheckRequest) {
        if request.node == self.config.node {
            self.drift.monitor.request(request);
        }
    }

    /// Starts, continues, cancels or reports a round, as is due.
    pub(super) fn check_drift(&mut self) {
        let (now, generation) = (self.clock.now(), self.machine.generation());
        match self.drift.monitor.step(self.machine.is_idle(), generation, now) {
            Step::Nothing => {}
            Step::Cancel => {
                self.drift.canceller.cancel();
                self.drift.canceller = Canceller::new();
            }
            Step::Begin => {
                // A task that was begun and did not end well is in doubt; the planner already has that from the state.
                let (known, in_doubt): (Vec<_>, Vec<_>) = self
                    .machine
                    .applied()
                    .map(|(task, _)| task.clone())
                    .partition(|task| self.machine.recorded(task).is_some_and(|record| !record.is_doubtful()));
                self.drift.monitor.begin(known.into_iter(), in_doubt.len() as u64, generation, now);
            }
        }
        while let Some(check) = self.drift.monitor.next_task() {
            self.start_check(check);
        }
        if let Some(findings) = self.drift.monitor.finish(now) {
            self.publish_drift(findings);
        }
    }

    fn start_check(&mut self, check: TaskCheck) {
        let Some(record) = self.machine.recorded(&check.task) else {
            self.drift.monitor.checked(check, CheckResult::LeftOut, None);
            return;
        };
        let (host, cancel) = (Arc::clone(&self.host), self.drift.canceller.listen());
        let (spec, memory, fingerprint) = (record.spec.clone(), record.memory.clone(), record.fingerprint);
        self.drift.spawn(Box::pin(async move {
            let result = host.check(&check.task, &spec, memory.as_ref(), &cancel).await;
            Ended::Task(check, fingerprint, result)
        }));
    }

    /// Takes the result of a check.
    pub(super) fn checked(&mut self, ended: Ended) {
        match ended {
            Ended::Task(check, fingerprint, result) => self.task_checked(check, fingerprint, result),
            Ended::Units(found) => self.units_checked(found),
        }
    }

    /// Takes the result of a check, unless the task's record has changed meanwhile.
    fn task_checked(&mut self, check: TaskCheck, fingerprint: Fingerprint, result: CheckResult) {
        let record = self.machine.recorded(&check.task);
        let same = record.is_some_and(|record| record.fingerprint == fingerprint && !record.is_doubtful());
        self.drift.monitor.checked(check, result, same.then_some(fingerprint));
    }

    /// Publishes the findings.
    fn publish_drift(&mut self, findings: Findings) {
        if !findings.drifted.is_empty() {
            let (drifted, checked) = (findings.drifted.len(), findings.checked);
            log::info(format_args!("{drifted} of {checked} tasks have drifted from what was applied"));
        }
        let report = DriftReport {
            version: VERSION,
            site: self.config.site.clone(),
            node: self.config.node.clone(),
            ledger: self.machine.ledger().clone(),
            revision: self.machine.numbered(findings.round),
            asked: findings.asked,
            generation: findings.generation,
            at_ms: findings.began.wall_ms,
            duration_ms: u64::try_from(findings.duration.as_millis()).unwrap_or(u64::MAX),
            checked: findings.checked,
            left_out: findings.left_out,
            drifted: findings.drifted,
            failed: findings.failed,
        };
        self.send_drift(report);
    }

    /// Sends the last report that waited for the planners' key, if there is one by now.
    pub(super) fn send_unsent_drift(&mut self) {
        if let Some(report) = self.drift.unsent.take() {
            self.send_drift(*report);
        }
    }

    /// Sends a report, without content or without differences if it would exceed the largest message.
    fn send_drift(&mut self, mut report: DriftReport) {
        let Some(planners) = self.freshness.encryption_key() else {
            self.drift.unsent = Some(Box::new(report));
            return;
        };
        let mut fits = |report: &DriftReport| {
            let sealed = seal_for(&self.config.key, &planners, report);
            sealed.is_ok_and(|sealed| self.outlet.drift(sealed))
        };
        if fits(&report) {
            return;
        }
        log::warn("the drift report is too large for one message; leaving out content");
        let differences = report.drifted.values_mut().flat_map(|drifted| &mut drifted.differences);
        differences.filter_map(|difference| difference.content.as_mut()).for_each(Content::replace_by_name);
        if fits(&report) {
            return;
        }
        log::warn("the drift report is still too large; leaving out the differences");
        report.drifted.values_mut().for_each(|drifted| drifted.differences.clear());
        report.failed.values_mut().for_each(|reason| "see the agent's log".clone_into(reason));
        if !fits(&report) {
            log::warn("the drift report is still too large, and is not sent");
        }
    }
}
