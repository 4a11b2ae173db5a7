//! The watch of units: asks systemd every few seconds whether what tasks keep running still runs.
//!
//! In: applied tasks. Out: which of them do not work, for the node's state. It polls, with one `systemctl show` for all units, and only
//! while a task keeps a unit: docs/status.md has the reasons.

use std::{collections::BTreeMap, sync::Arc};

use groundplan_protocol::ids::TaskId;

use super::{state::Shell, unit_watch::Found};

impl Shell {
    /// The units that tasks keep running, but for those that a job is at work on.
    fn watched_units(&self) -> BTreeMap<TaskId, String> {
        let running = self.machine.running();
        let watched = self.machine.applied().filter(|(task, _)| !running.contains(task));
        watched.filter_map(|(task, spec)| Some((task.clone(), self.host.watched_unit(&spec.params)?))).collect()
    }

    /// Starts a check, if one is due.
    pub(super) fn check_units(&mut self) {
        if !self.units.begins(self.clock.now()) {
            return;
        }
        let units = self.watched_units();
        self.units.nothing = units.is_empty() && self.machine.running().is_empty();
        if !units.is_empty() {
            let (host, cancel, jobs) = (Arc::clone(&self.host), self.drift.canceller.listen(), self.units.jobs);
            self.units.checks.spawn(async move { (jobs, host.check_units(&units, &cancel).await) });
        }
    }

    /// Takes what a check found, unless a job has ended meanwhile.
    pub(super) fn units_checked(&mut self, (jobs, found): Found) {
        let running = self.machine.running();
        if jobs == self.units.jobs {
            for (task, why) in found.iter().filter(|(task, _)| !running.contains(task)) {
                self.host.report_unit(task, why.as_deref());
            }
        }
    }
}
