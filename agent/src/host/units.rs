//! Units that applied tasks keep running: whether they still do.
//!
//! In: tasks with their units. Out: for each, why its unit does not run as it should. One `systemctl show` for all of them; changes nothing.

use std::collections::BTreeMap;

use groundplan_protocol::{
    ids::TaskId,
    kinds::{TaskParams, UnitState},
};

use super::{
    cancel::Cancel,
    kinds::{context::Context, watch::unit_health},
    shared::Host,
};

impl Host {
    /// The unit that a task with these parameters keeps running on this host; none if it keeps none.
    pub fn watched_unit(&self, params: &TaskParams) -> Option<String> {
        if self.is_beyond(params) {
            return None;
        }
        match params {
            TaskParams::Systemd(unit) => {
                (unit.state() == UnitState::Started && !unit.is_template()).then(|| unit.unit.clone())
            }
            TaskParams::Container(container) => Some(container.unit()),
            TaskParams::Pod(pod) => Some(pod.unit()),
            _ => None,
        }
    }

    /// Asks systemd for the units of these tasks; why each does not work. Empty if systemd does not answer.
    pub async fn check_units(&self, units: Vec<(TaskId, String)>, cancel: &Cancel) -> Vec<(TaskId, Option<String>)> {
        let Some((task, _)) = units.first() else { return Vec::new() };
        let cx = Context::new(self, task, cancel);
        let names = units.iter().map(|(_, unit)| unit.clone()).collect();
        let Ok(health) = unit_health(&cx, &names).await else { return Vec::new() };
        let mut found = Vec::new();
        for (task, name) in units {
            if let Some(unit) = health.iter().find(|unit| unit.name == name) {
                let why = self.unit_ends.take(&task, unit.restarts, unit.fault.clone());
                found.push((task, why));
            }
        }
        found
    }

    /// Takes the result of a check for the node's state.
    pub fn report_unit(&self, task: &TaskId, why: Option<&str>) {
        match why {
            Some(why) => self.health.fails(task, why),
            None => self.health.works(task),
        }
    }

    /// A job of the task has ended: what was seen of its unit is over.
    pub fn unit_job_ended(&self, task: &TaskId) {
        if self.unit_ends.forget(task) {
            self.health.works(task);
        }
    }

    /// Waits until other tasks than before do not work; all of them, each with the reason.
    pub async fn degraded_changed(&self) -> BTreeMap<TaskId, String> {
        self.health.changed().await
    }
}
