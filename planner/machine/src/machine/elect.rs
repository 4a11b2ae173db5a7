//! Tasks with `once`: which node each stays on, and when another one takes over.
//!
//! In: what the active commit asks for, who is connected since when, what nodes have applied, the time. Out: the elections that the next
//! resolution obeys. One is on record, in the store, before a plan with it is published. It ends only when its node has acknowledged a plan
//! without it, or can run it no more as far as operators and the site say: left out of the inventory, away and parked, or away for longer
//! than `failover`. In the last cases the task is carried out at least once, and not exactly once.

use std::time::Duration;

use groundplan_core::desired::{Elected, NodeIx, Once};
use groundplan_protocol::{
    effect::Effect::Run,
    ids::{NodeId, TaskId},
    time::Now,
};

use super::Machine;
use crate::{commit::ActiveCommit, io::Level};

/// What becomes of an election.
enum Turn {
    /// The node stays.
    Stays,
    /// It ends: the next resolution elects again.
    Ends,
    /// Another node takes over, for this reason.
    Moves(NodeId, String),
}

impl Machine {
    /// Whether a node can be elected: it is connected, and no operator has parked it.
    pub(super) fn is_present(&self, node: &NodeId) -> bool {
        !self.meta.parked.contains_key(node) && self.fleet.get(node).is_some_and(|known| known.is_online())
    }

    /// Looks whether elections have another outcome by now, and has the active commit resolved with it.
    pub(super) fn elect(&mut self, now: Now) {
        let Some(active) = self.deployment.active().filter(|active| !active.desired.once.is_empty()).cloned() else {
            return;
        };
        // What is being resolved or planned is of the elections as they are: its answer comes first.
        if !self.leadership.plans() || self.deployment.is_resolving() || self.deployment.planning().is_some() {
            return;
        }
        let mut changed = false;
        for (task, once) in &active.desired.once {
            match self.meta.elected.get(task).cloned() {
                Some(node) => match self.turn(&active, task, once, &node, now) {
                    Turn::Stays => {}
                    Turn::Ends => {
                        self.meta.elected.remove(task);
                        changed = true;
                    }
                    Turn::Moves(to, why) => {
                        self.log(Level::Warn, format!("{task} runs once, and moves from node {node} to {to}: {why}"));
                        self.meta.elected.insert(task.clone(), to);
                        changed = true;
                    }
                },
                // It is on record with its plan. Before that, as after a lost store, what nodes have applied shows where it is.
                None => {
                    if let Some(node) = self.has_applied(&active, task, once) {
                        self.meta.elected.insert(task.clone(), node);
                        changed = true;
                    }
                }
            }
        }
        changed |= self.end_other_elections(&active, now);
        if changed {
            self.write_meta();
        }
        let outcome = |(task, once): (&TaskId, &Once)| {
            let held = self.meta.elected.get(task).and_then(|node| active.desired.node(node));
            let present = |node: NodeIx| {
                let node = &active.desired.nodes[node.0 as usize];
                self.is_present(node) && !active.desired.is_parked(node)
            };
            Elected::of(&once.candidates, held, present).unwrap_or(once.elected)
        };
        let outcomes: Vec<Elected> = active.desired.once.iter().map(outcome).collect();
        // With what was asked for before, and is still not active, the commit has faults: asking again would not help.
        if outcomes.iter().ne(active.desired.once.values().map(|once| &once.elected)) && self.asked != outcomes {
            self.asked = outcomes;
            self.deployment.elected(now);
        }
    }

    /// When an election is to be looked at again, by the monotonic clock.
    pub(super) fn election_deadline(&self) -> Option<Duration> {
        let active = self.deployment.active().filter(|_| self.leadership.plans())?;
        let ends = |(task, once): (&TaskId, &Once)| {
            let failover = Duration::from(once.failover?);
            let node = self.meta.elected.get(task)?;
            // One that is over already is waited for by something else.
            self.fleet.get(node)?.away_since.map(|since| since + failover).filter(|at| *at > self.looked_at)
        };
        active.desired.once.iter().filter_map(ends).min()
    }

    /// Notes the elections of a plan that is about to be published.
    pub(super) fn note_elections(&mut self, active: &ActiveCommit) {
        for (task, once) in &active.desired.once {
            let node = &active.desired.nodes[once.elected.node.0 as usize];
            // Until the node before has given it up, it stays on record; and a node that is not known is sent nothing.
            if once.elected.after.is_none() && self.fleet.get(node).is_some_and(|known| known.is_known()) {
                self.meta.elected.insert(task.clone(), node.clone());
            }
        }
    }

    /// Ends the elections of tasks that the active commit does not have, as soon as no node can run them any more.
    fn end_other_elections(&mut self, active: &ActiveCommit, now: Now) -> bool {
        let others = self.meta.elected.iter().filter(|(task, _)| !active.desired.once.contains_key(task));
        let over = others.filter(|(task, node)| self.has_given_up(active, task, node, None, now));
        let over: Vec<TaskId> = over.map(|(task, _)| task.clone()).collect();
        over.iter().for_each(|task| drop(self.meta.elected.remove(task)));
        !over.is_empty()
    }

    fn turn(&self, active: &ActiveCommit, task: &TaskId, once: &Once, node: &NodeId, now: Now) -> Turn {
        let desired = &active.desired;
        let at = desired.node(node).filter(|at| once.candidates.binary_search(at).is_ok());
        let Some(at) = at else {
            return match self.has_given_up(active, task, node, Some(once), now) {
                true => Turn::Ends,
                false => Turn::Stays,
            };
        };
        let (parked, away) = (self.is_out(active, node), self.away_for(node, now));
        let why = match (parked, away.zip(once.failover.map(Duration::from))) {
            (true, _) => "it is away and parked".to_owned(),
            (false, Some((away, failover))) if away >= failover => format!("it has been away for {} s", away.as_secs()),
            _ => return Turn::Stays,
        };
        let vertex = desired.graph.task(task);
        let instance = vertex.and_then(|vertex| vertex.on(at));
        let is_done = match instance {
            Some(instance) => {
                let applied = self.fleet.get(node).and_then(|known| known.fingerprint(task));
                applied == Some(instance.resolved.fingerprint)
            }
            // Where its `when` is false there is nothing to do.
            None => vertex.is_some_and(|vertex| vertex.off_on(at).is_some()),
        };
        // What is run, such as a command, is done once it has been, wherever that was. And who parks a node wants it back: what is applied
        // there stays there.
        let is_run = instance.is_none_or(|instance| instance.resolved.spec.params.effects().contains(&Run));
        // And what the site protects is not removed there, so it cannot move.
        let applied = self.fleet.get(node).and_then(|known| known.belief.applied.tasks.get(task));
        let is_protected = applied.is_some_and(|applied| applied.edges.prevent_destroy);
        if is_protected || is_done && (parked || is_run) {
            return Turn::Stays;
        }
        let candidates = once.candidates.iter().map(|node| &desired.nodes[node.0 as usize]);
        let mut others =
            candidates.filter(|other| *other != node && self.is_present(other) && !desired.is_parked(other));
        match others.next() {
            Some(other) => Turn::Moves(other.clone(), why),
            None => Turn::Stays,
        }
    }

    /// Whether a node that is no candidate any more can no longer run a task.
    fn has_given_up(&self, active: &ActiveCommit, task: &TaskId, node: &NodeId, once: Option<&Once>, now: Now) -> bool {
        if !active.declares(node) || self.is_out(active, node) {
            return true;
        }
        let failover = once.and_then(|once| once.failover).map(Duration::from);
        if failover.zip(self.away_for(node, now)).is_some_and(|(failover, away)| away >= failover) {
            return true;
        }
        let Some(known) = self.fleet.get(node).filter(|known| known.is_known()) else { return true };
        // The plan that takes it away is out, and the node is at it, or at the one before if that has nothing to do for it.
        let planned =
            self.deployment.planned_commit.as_ref() == Some(&active.commit.id) && !self.deployment.plan_is_due();
        // Its own word: a report of a later plan may overtake it, and says nothing of what still runs for an earlier one.
        let state = known.state.as_ref().filter(|state| state.generation >= known.planned_generation());
        planned && known.fingerprint(task).is_none() && state.is_some_and(|state| !state.running.contains(task))
    }

    /// Whether a node is away, and an operator or the site has parked it.
    fn is_out(&self, active: &ActiveCommit, node: &NodeId) -> bool {
        let parked = self.meta.parked.contains_key(node) || active.desired.is_parked(node);
        parked && self.fleet.get(node).is_none_or(|known| !known.is_online())
    }

    /// For how long a node has been away.
    fn away_for(&self, node: &NodeId, now: Now) -> Option<Duration> {
        Some(now.mono.saturating_sub(self.fleet.get(node)?.away_since?))
    }

    /// The candidate that has a task applied: of several one that is connected, and the first of these.
    fn has_applied(&self, active: &ActiveCommit, task: &TaskId, once: &Once) -> Option<NodeId> {
        let candidates = once.candidates.iter().map(|node| &active.desired.nodes[node.0 as usize]);
        let has = candidates.filter(|node| self.fleet.get(node).is_some_and(|known| known.fingerprint(task).is_some()));
        has.min_by_key(|node| !self.is_present(node)).cloned()
    }
}
