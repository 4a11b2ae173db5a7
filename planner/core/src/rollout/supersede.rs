//! What a newer plan has to know of the one that it supersedes.
//!
//! A node's own obligations are on its disk and told in its state. What fired *across* nodes only the planner knows: it is owed
//! from the moment that the source reported a change, whether or not the gate was opened, or the target has ever seen the plan.

use groundplan_protocol::{
    ids::NodeId,
    plan::{Action, Effect, TriggerSource},
    report::{Outcome, TaskReport},
    state::Obligation,
};

use super::{Entry, Held, On, Opens, Rollout};
use crate::plan::AppliedState;

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
            let obligation = known.obligations.entry(entry.instance.task.clone());
            let obligation = obligation.or_insert(Obligation { effect, fired: true, open: Vec::new() });
            obligation.effect = obligation.effect.max(effect);
            obligation.fired = true;
        }
    }

    /// Takes over the turns that nodes have in the rollout that this one supersedes: an agent finishes what it has begun, and a
    /// node where a task failed is out of service until this plan mends it.
    pub fn take_over_turns(&mut self, earlier: &Rollout) {
        let turns = earlier.gates.iter().filter(|gate| gate.open.is_some()).filter_map(|gate| match &gate.opens {
            Opens::Turn { service } => Some((service, gate.targets.iter().map(|i| &earlier.entries[*i as usize]))),
            Opens::Done { .. } => None,
        });
        let unfinished = turns.flat_map(|(service, entries)| entries.map(move |entry| (service, entry)));
        let unfinished = unfinished.filter(|(_, entry)| !ends(entry.outcome.as_ref()));
        let own = unfinished.map(|(service, entry)| Held {
            service: service.clone(),
            node: entry.instance.node.clone(),
            task: entry.instance.task.clone(),
            generation: earlier.generation,
        });
        let held: Vec<_> = earlier.held.iter().cloned().chain(own).collect();
        let failed = |held: &Held| {
            let entry = earlier.find(&held.node, &held.task).map(|i| &earlier.entries[i as usize]);
            entry.is_some_and(|entry| entry.outcome.is_some())
        };
        self.held = held.into_iter().filter(|held| self.limits.contains_key(&held.service)).collect();
        let mended = |held: &Held| self.find(&held.node, &held.task).is_none() && failed(held);
        let mended: Vec<bool> = self.held.iter().map(mended).collect();
        let mut mended = mended.into_iter();
        self.held.retain(|_| !mended.next().unwrap_or(false));
    }

    /// A report ends what its task holds of an earlier rollout: if it is done, or given up, or failed and no longer asked for.
    pub(super) fn release(&mut self, node: &NodeId, report: &TaskReport) {
        let asked_for = self.find(node, &report.task).is_some();
        self.held.retain(|held| {
            let same = held.node == *node && held.task == report.task && report.generation >= held.generation;
            !same || !ends(Some(&report.outcome)) && asked_for
        });
    }

    /// The greatest effect that is owed to an entry by this plan or by what fired across nodes.
    fn still_owed(&self, entry: &Entry) -> Option<Effect> {
        let fired = entry.triggers.iter().filter_map(|(effect, on)| match on {
            On::Gate(gate) => self.gate_fired(*gate).then_some(*effect),
            On::Entry(_) => None,
        });
        match &entry.outcome {
            Some(Outcome::Done { .. }) => None,
            // It was passed over before its source's word came.
            Some(Outcome::Skipped) => fired.max(),
            _ => fired.chain(entry.owed).max(),
        }
    }
}

/// Whether an outcome gives a turn back.
fn ends(outcome: Option<&Outcome>) -> bool {
    outcome.is_some_and(|outcome| outcome.is_success() || *outcome == Outcome::Superseded)
}
