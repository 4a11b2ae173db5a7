//! Obligations: the restarts, reloads and runs that are due because a trigger fired, and those that will be if one does.
//!
//! In: triggers of a plan, decided sources, ends of tasks. Out: changes to the obligations, marked for the next transaction:
//! the one that also holds the end which caused them. A fired obligation is cleared only when its task ends well after it.

use groundplan_protocol::{
    effect::Effect,
    ids::{GateId, TaskId},
    plan::{Gates, PlannedTask, TriggerSource},
    time::Now,
};

use super::{io, snapshot::StoredObligation, state::Machine};

impl Machine {
    /// The effect that `task` is to carry out when it starts.
    pub(super) fn fired(&self, task: &TaskId) -> Option<Effect> {
        self.obligations.get(task)?.fired
    }

    /// Adds the triggers of `planned` to the obligations of its task, and `fired`, which an earlier plan left. Sources that
    /// are still open from before stay only if `keep` returns true for them.
    pub(super) fn oblige(
        &mut self,
        planned: &PlannedTask,
        fired: Option<Effect>,
        keep: impl Fn(&TriggerSource) -> bool,
    ) {
        let obligation = self.obligations.entry(planned.task.clone()).or_default();
        obligation.open.retain(|(source, _)| keep(source));
        for trigger in &planned.triggers {
            let entry = (trigger.on.clone(), trigger.effect);
            if !obligation.open.contains(&entry) {
                obligation.open.push(entry);
            }
        }
        obligation.fired = obligation.fired.max(fired);
        self.touch_obligation(&planned.task);
    }

    /// A source of triggers on `task` is decided: it fires, or it never will in this plan.
    pub(super) fn decide(&mut self, task: &TaskId, source: &TriggerSource, fires: bool) {
        let Some(obligation) = self.obligations.get_mut(task) else { return };
        let (decided, open) = std::mem::take(&mut obligation.open).into_iter().partition(|(open, _)| open == source);
        obligation.open = open;
        let decided: Vec<(TriggerSource, Effect)> = decided;
        if decided.is_empty() {
            return;
        }
        if let Some(effect) = decided.iter().map(|(_, effect)| *effect).max().filter(|_| fires) {
            self.fire(task, effect);
        }
        self.touch_obligation(task);
    }

    /// As [`Machine::decide`], for everything that the source is open for: also for what does not come after it in this plan, because the
    /// edge is one of an earlier plan.
    pub(super) fn decide_all(&mut self, source: &TriggerSource, fires: bool) {
        let is_open = |obligation: &StoredObligation| obligation.open.iter().any(|(open, _)| open == source);
        let targets = self.obligations.iter().filter(|(_, obligation)| is_open(obligation));
        let targets: Vec<TaskId> = targets.map(|(task, _)| task.clone()).collect();
        targets.iter().for_each(|task| self.decide(task, source, fires));
    }

    /// A source changed something in a run for an earlier plan, and may run once more in this one: it fires, and stays open.
    pub(super) fn fire_early(&mut self, source: &TriggerSource) {
        let effect = |obligation: &StoredObligation| {
            obligation.open.iter().filter(|(open, _)| open == source).map(|(_, effect)| *effect).max()
        };
        let fired: Vec<(TaskId, Effect)> = self
            .obligations
            .iter()
            .filter_map(|(task, obligation)| Some((task.clone(), effect(obligation)?)))
            .collect();
        for (task, effect) in fired {
            self.fire(&task, effect);
            self.unsaved.obligations.insert(task);
        }
    }

    /// From now on `task` has the obligation `effect`. A run of it that is under way, for an earlier plan, began before and does
    /// not fulfil it.
    fn fire(&mut self, task: &TaskId, effect: Effect) {
        if let Some(obligation) = self.obligations.get_mut(task) {
            obligation.fired = obligation.fired.max(Some(effect));
        }
        if let Some(run) = self.running.get_mut(task) {
            run.fired_since = run.fired_since.max(Some(effect));
        }
    }

    /// `task` ended well after it carried out `effect`: what had fired is fulfilled, except what fired since it began.
    pub(super) fn fulfil(&mut self, task: &TaskId, effect: Option<Effect>, fired_since: Option<Effect>) {
        let Some(obligation) = self.obligations.get_mut(task) else { return };
        // A reload does not fulfil a restart.
        if obligation.fired.is_some() && obligation.fired <= effect {
            obligation.fired = fired_since;
            self.touch_obligation(task);
        }
    }

    /// `task` is removed, or has no obligation any more.
    pub(super) fn forget_obligation(&mut self, task: &TaskId) {
        if self.obligations.remove(task).is_some() {
            self.unsaved.obligations.insert(task.clone());
        }
    }

    fn touch_obligation(&mut self, task: &TaskId) {
        if self.obligations.get(task).is_some_and(StoredObligation::is_empty) {
            self.obligations.remove(task);
        }
        self.unsaved.obligations.insert(task.clone());
    }

    /// Takes a set of open gates.
    pub(super) fn open_gates(&mut self, gates: Gates, now: Now, out: &mut Vec<io::Effect>) {
        if gates.node != self.settings.node {
            let reason = format!("is for node `{}`", gates.node);
            return self.refuse("gates", Some(gates.generation), reason, now, out);
        }
        let generation = self.generation();
        if gates.generation == generation {
            // Those of another planner, which used the same generation, are for a plan that this node does not have.
            if self.active.as_ref().is_some_and(|active| active.digest == gates.plan) {
                self.apply_gates(&gates);
            }
        } else if gates.generation > generation {
            // Retained messages of two topics come in any order: they wait for their plan.
            self.early_gates = Some(gates);
        }
    }

    /// Opens those that are still closed.
    pub(super) fn apply_gates(&mut self, gates: &Gates) {
        for (gate, open) in &gates.open {
            self.open_gate(gate, open.fired);
        }
    }

    fn open_gate(&mut self, gate: &GateId, fired: bool) {
        let Some(active) = &mut self.active else { return };
        let source = TriggerSource::Gate(gate.clone());
        for at in active.queue.open(gate) {
            let Some(active) = &self.active else { return };
            let task = active.queue.get(at).planned.task.clone();
            self.decide(&task, &source, fired);
        }
    }
}
