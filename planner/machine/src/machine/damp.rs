//! Nodes that contradict themselves: what they report otherwise than before is acted on more and more rarely, see `damping`.

use groundplan_protocol::{
    ids::{NodeId, TaskId},
    report::TaskReport,
    state::Applied,
    time::Now,
};

use super::Machine;
use crate::fleet::{StateFolded, StateNews};

impl Machine {
    /// What a node has applied of a task, if that is what the active commit asks for.
    pub(super) fn agreed(&self, node: &NodeId, task: &TaskId) -> Option<Applied> {
        let desired = self.deployment.active()?.desired.instance(&task.at(node))?.resolved.fingerprint;
        let applied = self.fleet.get(node)?.belief.applied.tasks.get(task)?;
        (applied.fingerprint == desired).then(|| applied.clone())
    }

    /// Takes that a state brought something else than before. Returns whether there is to be a plan; `plan`: whether there would be.
    pub(super) fn damp_state(&mut self, node: &NodeId, folded: &StateFolded, plan: bool, now: Now) -> bool {
        let (Some(active), Some(known)) = (self.deployment.active(), self.fleet.get(node)) else { return plan };
        let (before, applied) = (&folded.before, &known.belief.applied);
        let mut tasks = Vec::new();
        // Most states confirm what is believed, which is then still the very same.
        if !std::sync::Arc::ptr_eq(&before.tasks, &applied.tasks) {
            for (task, agreed) in &*before.tasks {
                let desired = active.desired.instance(&task.at(node));
                let was_as_desired = desired.is_some_and(|d| d.resolved.fingerprint == agreed.fingerprint);
                if was_as_desired && applied.tasks.get(task).map(|now| now.fingerprint) != Some(agreed.fingerprint) {
                    tasks.push((task.clone(), agreed.clone()));
                }
            }
        }
        let unexplained = folded.news == StateNews::Unexplained;
        let new = |task: &&TaskId| unexplained && !before.obligations.contains_key(*task);
        let obligations: Vec<TaskId> = applied.obligations.keys().filter(new).cloned().collect();
        // One of which nothing was known contradicts nothing; and one that is at another planner's plan is planned for whatever it has.
        if !tasks.is_empty() || plan && folded.news != StateNews::Unplanned {
            self.damp(node, tasks, obligations, now);
        }
        plan && !self.is_damped(node)
    }

    /// Takes that a task is otherwise than before after a report. Returns whether there is to be a plan; `plan`: whether there would be.
    pub(super) fn damp_report(
        &mut self,
        node: &NodeId,
        report: &TaskReport,
        agreed: Option<Applied>,
        plan: bool,
        now: Now,
    ) -> bool {
        let fingerprint = self.fleet.get(node).and_then(|known| known.fingerprint(&report.task));
        let lost = agreed.filter(|agreed| fingerprint != Some(agreed.fingerprint));
        // What a plan has had checked, and what failed at it, is no contradiction.
        let planned = self.rollout.as_ref().is_some_and(|rollout| rollout.planned(node, report).is_some());
        let failed = planned && !report.outcome.is_success();
        if let Some(agreed) = lost.filter(|_| !failed) {
            self.damp(node, vec![(report.task.clone(), agreed)], Vec::new(), now);
        }
        plan && !self.is_damped(node)
    }

    /// Takes another value of an export than `before`.
    pub(super) fn take_export(&mut self, node: &NodeId, task: &TaskId, before: Option<String>, now: Now) {
        let rollout = self.meta.generation;
        let acted_on = self.fleet.get_mut(node).is_none_or(|known| known.damping.publishes(task, before, rollout, now));
        self.fleet.note_damped(node);
        if acted_on {
            self.deployment.export_changed(task, now);
        }
    }

    fn damp(&mut self, node: &NodeId, tasks: Vec<(TaskId, Applied)>, obligations: Vec<TaskId>, now: Now) {
        let rollout = self.meta.generation;
        let Some(known) = self.fleet.get_mut(node) else { return };
        let was_waiting = known.damping.is_waiting();
        known.damping.contradicts(tasks, obligations, rollout, now);
        if known.damping.is_waiting() && !was_waiting {
            self.fleet.note_damped(node);
            let times = self.fleet.get(node).map_or(0, |known| known.damping.times);
            let line =
                format!("node {node} contradicts itself, {times} times in a row: what it reports otherwise waits");
            self.log_of(node, crate::io::Level::Warn, line, now);
        }
    }

    fn is_damped(&self, node: &NodeId) -> bool {
        self.fleet.get(node).is_some_and(|known| known.damping.is_waiting())
    }

    /// Acts on what nodes reported whose wait is over.
    pub(super) fn release_damped(&mut self, now: Now) {
        for (_, exports) in self.fleet.release(now) {
            exports.iter().for_each(|task| self.deployment.export_changed(task, now));
            if self.leadership.plans() {
                self.deployment.plan_soon(now, false);
            }
        }
        self.release_at = self.fleet.release_at(now);
    }
}
