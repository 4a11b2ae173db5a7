//! What a newer plan takes over from the rollout that it supersedes: obligations, late changes, turns.
//!
//! Obligations on one node are on that node's disk and in its state. What fired *across* nodes only the planner knows: it is due from
//! the moment at which the source reported a change, whether or not the gate was opened, or the target ever got the plan.

use std::collections::{BTreeSet, HashMap};

use groundplan_protocol::{
    effect::{Action, Effect},
    ids::{NodeId, TaskId},
    plan::TriggerSource,
    report::{Outcome, TaskReport},
};

use super::{
    kept::Tally,
    model::{Entry, HeldTurn, On, Opens, Rollout},
};
use crate::{
    applied::{AppliedState, Due},
    desired::{DesiredState, Scope, TaskVertex},
};

/// What is the same for all entries of a rollout, and worked out once.
struct Known {
    /// See [`Rollout::is_outdated`].
    outdated: bool,
    /// By gate: whether one of its sources was reported to have changed something.
    fired: Vec<bool>,
}

impl Rollout {
    /// Puts what this rollout knows of gates into the base of the plan that supersedes it: what fired across nodes and is not carried
    /// out yet becomes an obligation.
    ///
    /// `follows`: whether a node has a plan of this planner. Of any other, this rollout knows nothing of its gates, and those that it lists
    /// as open count as fired; as they do for a planner that lost its store, and so has no such rollout at all.
    pub fn carry_obligations(&self, applied: &mut AppliedState, follows: impl Fn(&NodeId) -> bool) {
        // A node lists a gate as open that may still fire. This rollout knows whether it did, so the node's entry adds nothing: if it
        // fired, the obligation is added below; if its source is still to act, the new plan has the source and its trigger.
        for (_, known) in applied.nodes.iter_mut().filter(|(node, _)| follows(node)) {
            known.obligations.retain(|_, obligation| {
                obligation.open.retain(|open| matches!(open, TriggerSource::Task(_)));
                obligation.fired || !obligation.open.is_empty()
            });
        }
        let known = Known {
            outdated: self.is_outdated(),
            fired: (0..self.gates.len() as u32).map(|gate| self.gate_fired(gate)).collect(),
        };
        for entry in self.entries.iter().filter(|entry| !matches!(entry.action, Action::Remove | Action::Forget)) {
            if let Some(due) =
                self.still_due(entry, &known).filter(|_| applied.nodes.contains_key(&entry.instance.node))
            {
                applied.fired.insert(entry.instance.clone(), due);
            }
        }
    }

    /// Adds obligations for changes that were reported too late for this plan, of instances that are not in it (see
    /// [`Rollout::is_outdated`]): for everything that the trigger edges of `desired`, the newer plan's state, reach from there.
    pub fn carry_late_changes(&self, desired: &DesiredState, applied: &mut AppliedState) {
        let tasks = &desired.graph.tasks;
        // By source: the triggers that lead to other nodes. On one node the agent itself has the obligation on its disk.
        let mut leads: HashMap<u32, Vec<(&TaskVertex, Scope, Effect)>> = HashMap::new();
        for (task, edge) in tasks.iter().flat_map(|task| task.edges.iter().map(move |edge| (task, edge))) {
            if let Some(effect) = edge.trigger.filter(|_| edge.scope != Scope::SameNode && !self.late.is_empty()) {
                leads.entry(edge.from.0).or_default().push((task, edge.scope, effect));
            }
        }
        // A change on each node of a task leads by a barrier to the same targets: once is enough.
        let mut followed: BTreeSet<&TaskId> = BTreeSet::new();
        for late in &self.late {
            // If the node is no longer declared, no edge of the newer state comes from there.
            let (Some(at), Some(from)) = (desired.node(&late.node), desired.graph.by_id.get(&late.task)) else {
                continue;
            };
            let first = followed.insert(&late.task);
            for (task, scope, effect) in leads.get(&from.0).into_iter().flatten().copied() {
                let leads = match scope {
                    Scope::AllNodes => first,
                    Scope::OneNode(only) => at == only,
                    Scope::SameNode => false,
                };
                let nodes = task.instances.iter().map(|instance| instance.node);
                let nodes = nodes.chain(task.pending.iter().map(|pending| pending.node)).filter(|_| leads);
                for node in nodes.filter(|node| scope == Scope::AllNodes || *node != at) {
                    let instance = task.id.at(&desired.nodes[node.0 as usize]);
                    let known = applied.nodes.get(&instance.node);
                    // What is not applied yet is created, and needs no restart; unless this rollout has it created: it may have been, before
                    // the change.
                    let is_applied = known.is_some_and(|known| known.tasks.contains_key(&task.id));
                    if is_applied || known.is_some() && self.find(&instance.node, &task.id).is_some() {
                        let late = Due { effect, since: None };
                        let due = applied.fired.get(&instance).map_or(late, |due| due.and(late));
                        applied.fired.insert(instance, due);
                    }
                }
            }
        }
    }

    /// Takes over the turns that nodes hold in the rollout that this one supersedes: an agent finishes what it has begun, and a node on
    /// which a task failed is unavailable until this plan repairs it. Otherwise more nodes than the limit could be disturbed at once.
    ///
    /// A node that `desired`, the state that this rollout leads to, does not declare finishes nothing that this rollout waits for: its
    /// turns are kept, but limit no other node, until a rollout takes them over in which it is declared again. Its agent has not stopped
    /// meanwhile, and may have failed.
    pub fn take_over_turns(&mut self, earlier: &Rollout, desired: &DesiredState) {
        let turns = earlier.gates.iter().filter(|gate| gate.open.is_some()).filter_map(|gate| match &gate.opens {
            Opens::Turn { service } => Some((service, gate.targets.iter().map(|i| &earlier.entries[*i as usize]))),
            Opens::Done { .. } | Opens::Unknown => None,
        });
        let unfinished = turns.flat_map(|(service, entries)| entries.map(move |entry| (service, entry)));
        let unfinished = unfinished.filter(|(_, entry)| !ends(entry.outcome.as_ref()));
        let own = unfinished.map(|(service, entry)| HeldTurn {
            service: service.clone(),
            node: entry.instance.node.clone(),
            task: entry.instance.task.clone(),
            generation: earlier.generation,
            failed: entry.outcome.is_some(),
            desired: false,
        });
        let all = earlier.held.iter().chain(&earlier.dormant).cloned().chain(own);
        let all = all.map(|held| HeldTurn { desired: is_desired(desired, &held.node, &held.task), ..held });
        let (mut held, dormant): (Vec<_>, Vec<_>) = all.partition(|held| desired.node(&held.node).is_some());
        // A failed task that this plan does not have is no longer desired: nothing would ever give its turn back.
        held.retain(|held| !held.failed || self.find(&held.node, &held.task).is_some());
        // Another node has taken over what runs once from one that is away: what that one had begun of it must not keep it from being done.
        let taken_over = |held: &HeldTurn| {
            let once = desired.once.get(&held.task).filter(|once| once.failover.is_some());
            once.zip(desired.node(&held.node))
                .is_some_and(|(once, at)| once.elected.node != at && once.candidates.binary_search(&at).is_ok())
        };
        held.retain(|held| !taken_over(held));
        (self.held, self.dormant) = (held, dormant);
        self.tally = Tally::default();
    }

    /// Ends a turn of an earlier rollout, if the report is of its task: when that is done, was given up, or failed and is not desired. What
    /// is desired and not in this plan was taken to be in sync: the node is unavailable until a newer plan repairs it.
    /// What an undeclared node failed at is in no plan; it is decided when the node is declared again.
    pub(super) fn release(&mut self, node: &NodeId, report: &TaskReport) {
        let planned = self.find(node, &report.task).is_some();
        let stays = |held: &mut HeldTurn, failed_counts: bool| {
            if held.node != *node || held.task != report.task || report.generation < held.generation {
                return true;
            }
            // What is given up of a newer plan had not begun: what the node began for the older one goes on, and is reported for that.
            if report.outcome == Outcome::Superseded && report.generation > held.generation {
                return true;
            }
            // An effect that was not needed repairs nothing: the run for the older plan has failed, and its task is in doubt.
            let ended = ends(Some(&report.outcome)) && !(held.failed && report.outcome == Outcome::Skipped);
            held.failed |= !ended;
            !ended && (failed_counts || held.desired)
        };
        let (before, mut has_failed) = (self.held.len(), false);
        self.held.retain_mut(|held| {
            let had_failed = held.failed;
            let stays = stays(held, planned);
            has_failed |= held.failed && !had_failed;
            stays
        });
        if has_failed || self.held.len() < before {
            self.note_held(node, has_failed);
        }
        self.dormant.retain_mut(|held| stays(held, true));
    }

    /// Whether a source was reported late to have changed something, by an edge on which the agent itself does not decide.
    fn fired_late(&self, on: On) -> bool {
        matches!(on, On::Barrier(i) if self.entries[i as usize].late)
    }

    /// What is still due to an entry: because of earlier plans, or because of what fired across nodes in this one.
    fn still_due(&self, entry: &Entry, known: &Known) -> Option<Due> {
        let fired = entry.triggers.iter().filter_map(|(effect, on)| match on {
            // For this plan the node acts after the gate has opened: after the change, unless that was reported later still.
            On::Gate(gate) => known.fired[*gate as usize].then(|| {
                let open = self.gates[*gate as usize].open.as_ref();
                Due { effect: *effect, since: open.is_none_or(|open| open.fired).then_some(self.generation) }
            }),
            On::Barrier(_) => self.fired_late(*on).then_some(Due { effect: *effect, since: None }),
            On::Entry(_) => None,
        });
        let left = entry.obligation.map(|effect| Due { effect, since: entry.since });
        match &entry.outcome {
            // Done without an effect: its triggers had not fired for the agent. One that fired late is still due.
            Some(Outcome::Done { effect: None, .. }) => fired.filter(|_| known.outdated).reduce(Due::and),
            Some(Outcome::Skipped) => fired.reduce(Due::and),
            Some(Outcome::Done { .. }) => None,
            // Not done: what earlier plans left is still due as well.
            _ => fired.chain(left).reduce(Due::and),
        }
    }
}

/// Whether a task is desired on a node. Not where it is pending: it may wait for a value of a node that needs the turn.
fn is_desired(desired: &DesiredState, node: &NodeId, task: &TaskId) -> bool {
    desired.node(node).zip(desired.graph.task(task)).is_some_and(|(at, task)| task.on(at).is_some())
}

/// Whether an outcome gives a turn back.
fn ends(outcome: Option<&Outcome>) -> bool {
    outcome.is_some_and(|outcome| outcome.is_success() || *outcome == Outcome::Superseded)
}
