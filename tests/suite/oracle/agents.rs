//! A simple agent: follows its plan and its gates, keeps its obligations, reports in order.

use std::collections::BTreeMap;

use groundplan_protocol::{
    effect::{Action, Effect},
    ids::{GateId, Generation, InstanceId, LedgerId, NodeId, Sequence, TaskId},
    plan::{NodePlan, OpenGate, PlannedTask, TriggerSource},
    report::{Outcome, TaskReport},
    state::{Applied, NodeState, Obligation},
};

use super::world::Dice;

/// Something that was really done to a node.
#[derive(Debug, Clone)]
pub(super) struct Done {
    pub(super) instance: InstanceId,
    pub(super) generation: Generation,
    pub(super) changed: bool,
    pub(super) effect: Option<Effect>,
}

pub(super) struct Agent {
    pub(super) node: NodeId,
    pub(super) online: bool,
    pub(super) generation: Generation,
    pub(super) applied: BTreeMap<TaskId, Applied>,
    pub(super) obligations: BTreeMap<TaskId, Obligation>,
    pub(super) tasks: Vec<PlannedTask>,
    pub(super) gates: BTreeMap<GateId, OpenGate>,
    pub(super) outcomes: BTreeMap<TaskId, Outcome>,
    pub(super) running: Vec<(Generation, PlannedTask)>,
    pub(super) reports: Vec<TaskReport>,
    /// The obligations when the plan came.
    carried: BTreeMap<TaskId, Effect>,
    revision: u64,
}

impl Agent {
    pub(super) fn new(node: NodeId, applied: BTreeMap<TaskId, Applied>) -> Self {
        Self {
            node,
            online: true,
            generation: Generation(0),
            applied,
            obligations: BTreeMap::new(),
            tasks: Vec::new(),
            gates: BTreeMap::new(),
            outcomes: BTreeMap::new(),
            running: Vec::new(),
            reports: Vec::new(),
            carried: BTreeMap::new(),
            revision: 0,
        }
    }

    pub(super) fn ledger(&self) -> LedgerId {
        "0123456789abcdef0123456789abcdef".parse().unwrap()
    }

    pub(super) fn state(&mut self) -> NodeState {
        self.revision += 1;
        NodeState {
            revision: self.revision,
            generation: self.generation,
            sequence: Sequence(self.reports.len() as u64),
            applied: self.applied.clone(),
            obligations: self.obligations.clone(),
            ..NodeState::empty("made-up".parse().unwrap(), self.node.clone(), self.ledger())
        }
    }

    pub(super) fn accept(&mut self, plan: &NodePlan) {
        if plan.generation <= self.generation {
            return;
        }
        for task in std::mem::take(&mut self.tasks) {
            let begun = self.running.iter().any(|(_, running)| running.task == task.task);
            if !begun && !self.outcomes.contains_key(&task.task) {
                self.report(self.generation, &task, Outcome::Superseded);
            }
        }
        self.generation = plan.generation;
        self.tasks = plan.tasks.clone();
        self.outcomes.clear();
        self.gates.clear();
        for (task, edges) in &plan.edges {
            self.applied.get_mut(task).unwrap().edges = edges.clone();
        }
        let running = |on: &TriggerSource| self.running.iter().any(|(_, t)| *on == TriggerSource::Task(t.task.clone()));
        for obligation in self.obligations.values_mut() {
            obligation.open.retain(running);
        }
        self.obligations.retain(|_, obligation| obligation.fired || !obligation.open.is_empty());
        self.carried =
            self.obligations.iter().filter(|(_, o)| o.fired).map(|(task, o)| (task.clone(), o.effect)).collect();
        for task in &self.tasks {
            let effects = task.triggers.iter().map(|t| t.effect).chain(task.obligation);
            let Some(effect) = effects.max() else { continue };
            let obligation = Obligation { effect, fired: false, open: Vec::new() };
            let obligation = self.obligations.entry(task.task.clone()).or_insert(obligation);
            obligation.effect = obligation.effect.max(effect);
            obligation.fired |= task.obligation.is_some();
            obligation.open.extend(task.triggers.iter().map(|t| t.on.clone()));
        }
    }

    pub(super) fn ready(&self) -> Vec<usize> {
        let ready = |task: &PlannedTask| {
            !self.outcomes.contains_key(&task.task)
                && !self.running.iter().any(|(_, running)| running.task == task.task)
                && task.after.iter().all(|t| self.outcomes.get(t).is_some_and(Outcome::is_success))
                && task.gates.iter().all(|gate| self.gates.contains_key(gate))
        };
        (0..self.tasks.len()).filter(|i| ready(&self.tasks[*i])).collect()
    }

    pub(super) fn start(&mut self, i: usize) {
        self.running.push((self.generation, self.tasks[i].clone()));
    }

    /// Ends a running task, well or badly.
    pub(super) fn finish(&mut self, i: usize, dice: &mut Dice<'_>, failures: usize) -> Option<Done> {
        let (generation, task) = self.running.remove(i);
        let current = generation == self.generation;
        if dice.chance(failures) {
            self.end(generation, &task, Outcome::Failed { error: "made up".into() });
            let mut bad = vec![task.task.clone()];
            for other in self.tasks.clone().into_iter().filter(|_| current) {
                if let Some(by) = other.after.iter().find(|t| bad.contains(t)) {
                    self.end(generation, &other, Outcome::Blocked { by: by.clone() });
                    bad.push(other.task);
                }
            }
            return None;
        }
        let before = self.applied.get(&task.task).map(|a| a.fingerprint);
        let changed = match task.action {
            Action::Remove => before.is_some(),
            _ => before != task.fingerprint && !dice.chance(20),
        };
        let fired = |on: &TriggerSource| match on {
            TriggerSource::Task(t) => current && self.outcomes.get(t).is_some_and(Outcome::fires),
            TriggerSource::Gate(gate) => current && self.gates.get(gate).is_some_and(|gate| gate.fired),
        };
        let late = || self.obligations.get(&task.task).filter(|o| !current && o.fired).map(|o| o.effect);
        let carried = self.carried.remove(&task.task).or_else(late);
        let fired = task.triggers.iter().filter(|t| fired(&t.on)).map(|t| t.effect);
        let effect = fired.chain(carried).chain(task.obligation).max();
        match task.fingerprint {
            None => drop(self.applied.remove(&task.task)),
            Some(fingerprint) => {
                let applied = Applied {
                    fingerprint,
                    inputs: task.inputs.clone(),
                    edges: task.edges.clone(),
                    claims: task.spec.iter().flat_map(|spec| spec.identity(&task.task)).collect(),
                    contends: task.spec.iter().flat_map(|spec| spec.contends(&task.task)).collect(),
                    on_remove: None,
                    destroys: None,
                };
                self.applied.insert(task.task.clone(), applied);
            }
        }
        // What ran for an older plan does not satisfy a newer one.
        if current {
            self.obligations.remove(&task.task);
        }
        let outcome = match (task.action, effect) {
            (Action::Restart | Action::Reload | Action::Run, None) => Outcome::Skipped,
            _ => Outcome::Done { changed: changed || effect.is_some(), effect },
        };
        let fires = outcome.fires();
        for (target, obligation) in &mut self.obligations {
            let on = TriggerSource::Task(task.task.clone());
            if obligation.open.contains(&on) {
                // The newer plan may let it run once more.
                if current || !self.tasks.iter().any(|t| t.task == task.task) {
                    obligation.open.retain(|open| *open != on);
                }
                obligation.fired |= fires;
                if fires && !current {
                    self.carried.insert(target.clone(), obligation.effect);
                }
            }
        }
        self.obligations.retain(|_, o| o.fired || !o.open.is_empty());
        self.end(generation, &task, outcome);
        Some(Done { instance: task.task.at(&self.node), generation, changed: fires, effect })
    }

    fn end(&mut self, generation: Generation, task: &PlannedTask, outcome: Outcome) {
        if generation == self.generation {
            self.outcomes.insert(task.task.clone(), outcome.clone());
        }
        self.report(generation, task, outcome);
    }

    fn report(&mut self, generation: Generation, task: &PlannedTask, outcome: Outcome) {
        let fingerprint = self.applied.get(&task.task).map(|a| a.fingerprint);
        self.reports.push(TaskReport {
            generation,
            plan: None,
            task: task.task.clone(),
            action: task.action,
            outcome,
            fingerprint,
            claims: Vec::new(),
            contends: Vec::new(),
            started_ms: 0,
            duration_ms: 0,
            output: None,
            export: None,
        });
    }
}
