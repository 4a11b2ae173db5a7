//! What a newer plan has to know of the one that it supersedes.
//!
//! A node's own obligations are on its disk and told in its state. What fired *across* nodes only the planner knows: it is owed
//! from the moment that the source reported a change, whether or not the gate was opened, or the target has ever seen the plan.

use groundplan_protocol::{
    effect::{Action, Effect},
    ids::{NodeId, TaskId},
    plan::TriggerSource,
    report::{Outcome, TaskReport},
    state::Obligation,
};

use super::model::{Entry, Held, On, Opens, Rollout};
use crate::{
    applied::{AppliedState, NodeApplied},
    desired::{DesiredState, Scope},
};

impl Rollout {
    /// Puts the planner's own knowledge of gates into the base of the plan that supersedes this rollout.
    ///
    /// What fired across nodes and is not carried out yet becomes an obligation. That a gate is open in a node's own
    /// obligations says no more than this rollout knows, so it is dropped: if its source is still to act, the new plan's triggers see
    /// to it. Not to be called by a planner that lost its store: then open gates count as fired.
    pub fn carry_obligations(&self, applied: &mut AppliedState) {
        for known in applied.nodes.values_mut() {
            known.obligations.retain(|_, obligation| {
                obligation.open.retain(|open| matches!(open, TriggerSource::Task(_)));
                obligation.fired || !obligation.open.is_empty()
            });
        }
        for entry in self.entries.iter().filter(|entry| entry.action != Action::Remove) {
            let Some(known) = applied.nodes.get_mut(&entry.instance.node) else { continue };
            let Some(effect) = self.still_owed(entry) else { continue };
            owe(known, &entry.instance.task, effect);
        }
    }

    /// Puts in what was reported too late for this plan, of instances that it leaves alone (see [`Rollout::is_outdated`]): what the
    /// trigger edges of the newer plan's desired state reach from there is owed.
    pub fn carry_late_changes(&self, desired: &DesiredState, applied: &mut AppliedState) {
        let tasks = &desired.graph.tasks;
        for late in &self.late {
            let at = desired.node(&late.node);
            let edges = tasks.iter().flat_map(|task| task.edges.iter().map(move |edge| (task, edge)));
            for (task, edge) in edges.filter(|(_, edge)| tasks[edge.from.0 as usize].id == late.task) {
                let Some(effect) = edge.trigger else { continue };
                let nodes = task.instances.iter().map(|instance| instance.node);
                for node in
                    nodes.chain(task.pending.iter().map(|pending| pending.node)).filter(|node| match edge.scope {
                        Scope::AllNodes => at.is_some(),
                        Scope::OneNode(only) => at == Some(only) && *node != only,
                        // That is on the node's own disk.
                        Scope::SameNode => false,
                    })
                {
                    let known = applied.nodes.get_mut(&desired.nodes[node.0 as usize]);
                    if let Some(known) = known.filter(|known| known.tasks.contains_key(&task.id)) {
                        owe(known, &task.id, effect);
                    }
                }
            }
        }
    }

    /// Takes over the turns that nodes have in the rollout that this one supersedes: an agent finishes what it has begun, and a
    /// node where a task failed is out of service until this plan mends it.
    pub fn take_over_turns(&mut self, earlier: &Rollout) {
        let turns = earlier.gates.iter().filter(|gate| gate.open.is_some()).filter_map(|gate| match &gate.opens {
            Opens::Turn { service } => Some((service, gate.targets.iter().map(|i| &earlier.entries[*i as usize]))),
            Opens::Done { .. } | Opens::Unknown => None,
        });
        let unfinished = turns.flat_map(|(service, entries)| entries.map(move |entry| (service, entry)));
        let unfinished = unfinished.filter(|(_, entry)| !ends(entry.outcome.as_ref()));
        let own = unfinished.map(|(service, entry)| Held {
            service: service.clone(),
            node: entry.instance.node.clone(),
            task: entry.instance.task.clone(),
            generation: earlier.generation,
            failed: entry.outcome.is_some(),
        });
        let held: Vec<_> = earlier.held.iter().cloned().chain(own).collect();
        let keep = |held: &Held| !held.failed || self.find(&held.node, &held.task).is_some();
        self.held = held.into_iter().filter(keep).collect();
    }

    /// Gives back the turns of a node that is no longer declared: nobody waits for its return.
    pub fn forget(&mut self, node: &NodeId) {
        self.held.retain(|held| held.node != *node);
    }

    /// A report ends what its task holds of an earlier rollout: if it is done, or given up, or failed and no longer asked for.
    pub(super) fn release(&mut self, node: &NodeId, report: &TaskReport) {
        let asked_for = self.find(node, &report.task).is_some();
        self.held.retain_mut(|held| {
            let same = held.node == *node && held.task == report.task && report.generation >= held.generation;
            held.failed |= same && !ends(Some(&report.outcome));
            !same || held.failed && asked_for && !ends(Some(&report.outcome))
        });
    }

    /// The greatest effect that is owed to an entry by this plan or by what fired across nodes.
    fn still_owed(&self, entry: &Entry) -> Option<Effect> {
        let fired = entry.triggers.iter().filter_map(|(effect, on)| match on {
            On::Gate(gate) => self.gate_fired(*gate).then_some(*effect),
            On::Barrier(i) => self.entries[*i as usize].late.then_some(*effect),
            On::Entry(_) => None,
        });
        match &entry.outcome {
            // It was passed over before its source's word came.
            Some(Outcome::Done { effect: None, .. }) => fired.filter(|_| self.is_outdated()).max(),
            Some(Outcome::Skipped) => fired.max(),
            Some(Outcome::Done { .. }) => None,
            _ => fired.chain(entry.owed).max(),
        }
    }
}

fn owe(known: &mut NodeApplied, task: &TaskId, effect: Effect) {
    let obligation = Obligation { effect, fired: true, open: Vec::new() };
    let obligation = known.obligations.entry(task.clone()).or_insert(obligation);
    obligation.effect = obligation.effect.max(effect);
    obligation.fired = true;
}

/// Whether an outcome gives a turn back.
fn ends(outcome: Option<&Outcome>) -> bool {
    outcome.is_some_and(|outcome| outcome.is_success() || *outcome == Outcome::Superseded)
}
