//! The watch of units: asks systemd every few seconds whether what tasks keep running still runs.
//!
//! In: applied tasks. Out: which of them do not work, for the node's state. It polls, with one `systemctl show` for all units, and only
//! while a task keeps a unit: docs/status.md has the reasons.

use std::sync::Arc;

use groundplan_protocol::ids::TaskId;

use super::{drift_checks::Ended, state::Shell, unit_watch::Found};

impl Shell {
    /// The units that tasks keep running, but for those that a job is at work on.
    fn watched_units(&self) -> Vec<(TaskId, String)> {
        let running = self.machine.running();
        let mut units = Vec::new();
        for (task, spec) in self.machine.applied() {
            if !running.contains(task)
                && let Some(unit) = self.host.watched_unit(&spec.params)
            {
                units.push((task.clone(), unit));
            }
        }
        units
    }

    /// Starts a check, if one is due.
    pub(super) fn check_units(&mut self) {
        if !self.units.begins(self.clock.now()) {
            return;
        }
        let units = self.watched_units();
        self.units.nothing = units.is_empty() && self.machine.running().is_empty();
        if !units.is_empty() {
            self.units.under_way = true;
            let (host, cancel, jobs) = (Arc::clone(&self.host), self.drift.canceller.listen(), self.units.jobs);
            self.drift.spawn(Box::pin(async move { Ended::Units((jobs, host.check_units(units, &cancel).await)) }));
        }
    }

    /// Takes what a check found, unless a job has ended meanwhile.
    pub(super) fn units_checked(&mut self, (jobs, found): Found) {
        self.units.under_way = false;
        if jobs != self.units.jobs {
            return;
        }
        let running = self.machine.running();
        for (task, why) in &found {
            if !running.contains(task) {
                self.host.report_unit(task, why.as_deref());
            }
        }
    }
}
