//! Obligations: what a task owes because a trigger fired, and what it will owe if one does.
//!
//! In: triggers of a plan, decided sources, ends of tasks. Out: changes to what is owed, marked for the next transaction:
//! the one that also holds the end which caused them. A fired obligation goes only when its task ends well after it.

use groundplan_protocol::{
    effect::Effect,
    ids::{GateId, TaskId},
    plan::{Gates, PlannedTask, TriggerSource},
    time::Now,
};

use super::{Machine, StoredObligation};

impl Machine {
    /// The effect that `task` is to carry out when it starts.
    pub(super) fn fired(&self, task: &TaskId) -> Option<Effect> {
        self.obligations.get(task)?.fired
    }

    /// `task` owes what `planned` says, beside what it owes already; sources that are still open from before stay only if
    /// `keep` says so.
    pub(super) fn owe(
        &mut self,
        planned: &PlannedTask,
        owed_now: Option<Effect>,
        keep: impl Fn(&TriggerSource) -> bool,
    ) {
        let owed = self.obligations.entry(planned.task.clone()).or_default();
        owed.open.retain(|(source, _)| keep(source));
        for trigger in &planned.triggers {
            let entry = (trigger.on.clone(), trigger.effect);
            if !owed.open.contains(&entry) {
                owed.open.push(entry);
            }
        }
        owed.fired = owed.fired.max(owed_now);
        self.touch_owed(&planned.task);
    }

    /// A source of triggers on `task` is decided.
    pub(super) fn decide(&mut self, task: &TaskId, source: &TriggerSource, fires: bool) {
        let Some(owed) = self.obligations.get_mut(task) else { return };
        let (decided, open) = std::mem::take(&mut owed.open).into_iter().partition(|(open, _)| open == source);
        owed.open = open;
        let decided: Vec<(TriggerSource, Effect)> = decided;
        if decided.is_empty() {
            return;
        }
        if let Some(effect) = decided.iter().map(|(_, effect)| *effect).max().filter(|_| fires) {
            self.fire(task, effect);
        }
        self.touch_owed(task);
    }

    /// A source changed something in a run for an earlier plan, and may run once more: fires, and stays open.
    pub(super) fn fire_early(&mut self, source: &TriggerSource) {
        let effect = |owed: &StoredObligation| {
            owed.open.iter().filter(|(open, _)| open == source).map(|(_, effect)| *effect).max()
        };
        let fired: Vec<(TaskId, Effect)> =
            self.obligations.iter().filter_map(|(task, owed)| Some((task.clone(), effect(owed)?))).collect();
        for (task, effect) in fired {
            self.fire(&task, effect);
            self.dirty.obligations.insert(task);
        }
    }

    /// `task` owes `effect` from now on. A run of it that is under way, for an earlier plan, began before and does not meet it.
    fn fire(&mut self, task: &TaskId, effect: Effect) {
        if let Some(owed) = self.obligations.get_mut(task) {
            owed.fired = owed.fired.max(Some(effect));
        }
        if let Some(run) = self.running.get_mut(task) {
            run.again = run.again.max(Some(effect));
        }
    }

    /// `task` ended well after `effect`: what fired is met; `again` was owed anew meanwhile.
    pub(super) fn met(&mut self, task: &TaskId, effect: Option<Effect>, again: Option<Effect>) {
        let Some(owed) = self.obligations.get_mut(task) else { return };
        if owed.fired.is_some() && owed.fired <= effect {
            owed.fired = again;
            self.touch_owed(task);
        }
    }

    /// `task` is no more, or owes nothing any more.
    pub(super) fn forget_owed(&mut self, task: &TaskId) {
        if self.obligations.remove(task).is_some() {
            self.dirty.obligations.insert(task.clone());
        }
    }

    fn touch_owed(&mut self, task: &TaskId) {
        if self.obligations.get(task).is_some_and(StoredObligation::is_empty) {
            self.obligations.remove(task);
        }
        self.dirty.obligations.insert(task.clone());
    }

    /// Takes a set of open gates.
    pub(super) fn open_gates(&mut self, gates: Gates, now: Now, out: &mut Vec<super::Effect>) {
        if gates.node != self.settings.node {
            let reason = format!("is for node `{}`", gates.node);
            return self.refuse("gates", Some(gates.generation), reason, now, out);
        }
        let generation = self.generation();
        if gates.generation == generation {
            self.apply_gates(&gates);
        } else if gates.generation > generation {
            self.early = Some(gates);
        }
    }

    /// Opens those that are still closed.
    pub(super) fn apply_gates(&mut self, gates: &Gates) {
        for (gate, open) in &gates.open {
            self.open_gate(gate, open.fired);
        }
    }

    fn open_gate(&mut self, gate: &GateId, fired: bool) {
        let Some(current) = &mut self.current else { return };
        let source = TriggerSource::Gate(gate.clone());
        for at in current.queue.open(gate) {
            let Some(current) = &self.current else { return };
            let task = current.queue.get(at).planned.task.clone();
            self.decide(&task, &source, fired);
        }
    }
}
