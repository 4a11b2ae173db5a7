//! Reports, presence and states folded into a rollout, and the gates that open because of them.

use std::collections::{BTreeMap, BTreeSet};

use groundplan_protocol::{
    effect::{Action, Effect},
    ids::{GateId, Generation, NodeId, TaskId},
    plan::OpenGate,
    report::{Outcome, TaskReport},
};

use super::model::{Entry, HeldTurn, On, Opens, Rollout};
use crate::plan::PendingInstance;

impl Rollout {
    /// The generation of the plan.
    pub fn generation(&self) -> Generation {
        self.generation
    }

    /// Takes a report, of this generation or of an older one. Returns whether it changed anything here.
    ///
    /// What is done stays done; any other outcome may be followed by another try. A change that is reported late, for an older
    /// generation, still fires, and so does a second success: the node was rebuilt and has taken the same plan again. So no report
    /// must be folded twice.
    pub fn fold(&mut self, node: &NodeId, report: &TaskReport) -> bool {
        self.release(node, report);
        let Some(i) = self.find(node, &report.task) else {
            // Not in this plan. If it changed something for an older one, or by itself at this one because of what an older one left due,
            // this plan was made without knowing it: what its triggers reach is missing here, see `is_outdated`.
            let late = report.generation <= self.generation && report.outcome.fires();
            return late && self.late.insert(report.task.at(node));
        };
        let entry = &mut self.entries[i as usize];
        let before = entry.reported();
        if report.generation == self.generation && entry.succeeded() && report.outcome.fires() {
            // What it triggers on other nodes has acted on the first one, perhaps before this one.
            return self.late.insert(entry.instance.clone());
        }
        let mut news = false;
        if report.outcome.fires() && report.generation <= self.generation {
            news |= !std::mem::replace(&mut entry.fired, true);
            let is_late = report.generation < self.generation && !std::mem::replace(&mut entry.late, true);
            // What it triggers on other nodes has not waited for it: a newer plan has these effects.
            if self.detached.contains(&entry.instance) {
                news |= self.late.insert(entry.instance.clone());
            }
            if is_late {
                self.note_late(i);
            }
        }
        let entry = &mut self.entries[i as usize];
        // An outcome for an older plan is none for this one. A success is final: a repeated report must not count down gates twice.
        if report.generation != self.generation || entry.succeeded() || entry.outcome.as_ref() == Some(&report.outcome)
        {
            return news;
        }
        entry.outcome = Some(report.outcome.clone());
        entry.running = false;
        if entry.succeeded() {
            for gate in entry.feeds.clone() {
                let Opens::Done { left, .. } = &mut self.gates[gate as usize].opens else { continue };
                *left -= 1;
                if *left == 0 {
                    self.ripe.push(gate);
                }
            }
        }
        self.note(i, before);
        true
    }

    /// Whether anything is done to a task on a node.
    pub fn plans(&self, node: &NodeId, task: &TaskId) -> bool {
        self.find(node, task).is_some()
    }

    /// The number of an instance in the plan's order; none if it is not in this plan.
    pub fn number(&self, node: &NodeId, task: &TaskId) -> Option<usize> {
        self.find(node, task).map(|i| i as usize)
    }

    /// What is done to a task on a node.
    pub fn action(&self, node: &NodeId, task: &TaskId) -> Option<Action> {
        self.find(node, task).map(|i| self.entries[i as usize].action)
    }

    /// The place of a task among those of its node's part.
    pub fn position(&self, node: &NodeId, task: &TaskId) -> Option<usize> {
        let at = self.nodes.get(node)?;
        at.order.binary_search(at.tasks.get(task)?).ok()
    }

    /// The tasks of a node that have neither succeeded nor failed, with what is done to them, in the plan's order.
    pub fn left_on(&self, node: &NodeId) -> impl Iterator<Item = (&TaskId, Action)> {
        let order = self.nodes.get(node).into_iter().flat_map(|at| at.order.iter());
        let left = order.map(|i| &self.entries[*i as usize]).filter(|entry| !entry.succeeded() && !entry.failed());
        left.map(|entry| (&entry.instance.task, entry.action))
    }

    /// The instances that could not be planned, with what is missing.
    pub fn pending(&self) -> &[PendingInstance] {
        &self.pending
    }

    /// Whether a change was reported, for an older generation, that this plan does not pass on to everything that it triggers. Then plan
    /// again, from what [`Rollout::carry_late_changes`] adds.
    pub fn is_outdated(&self) -> bool {
        // A target whose source was a gate in the older plan, and is an entry on its own node in this one: the agent decides by what
        // the source did for this plan, and does not know that it changed something for the older one.
        let passed_over = |entry: &Entry| {
            let done = matches!(entry.outcome, Some(Outcome::Done { effect: Some(_), .. }));
            let late = |(_, on): &(Effect, On)| matches!(on, On::Barrier(i) if self.entries[*i as usize].late);
            !done && entry.triggers.iter().any(late)
        };
        !self.late.is_empty()
            || match self.late_targets() {
                Some(mut targets) => targets.any(passed_over),
                None => self.entries.iter().any(passed_over),
            }
    }

    /// Takes whether a node is online.
    pub fn presence(&mut self, node: &NodeId, online: bool) {
        if let Some(entry) = self.nodes.get_mut(node)
            && std::mem::replace(&mut entry.online, online) != online
        {
            self.note_presence(node);
        }
    }

    /// Takes which tasks a node reported as running at the moment.
    pub fn running(&mut self, node: &NodeId, tasks: &[TaskId]) {
        let Some(at) = self.nodes.get(node) else { return };
        let now: Vec<u32> = tasks.iter().filter_map(|task| at.tasks.get(task).copied()).collect();
        for i in self.replace_running(node, now.clone()) {
            let entry = &mut self.entries[i as usize];
            let before = entry.reported();
            entry.running = now.contains(&i);
            self.note(i, before);
        }
    }

    /// Takes which generation a node is at, and what it still runs: from its reports; nothing if its state is idle. A turn that it held
    /// from an earlier rollout ends when it is at a newer one, or at this one, and no longer runs the task. It may never have been at the plan
    /// of that turn, and then reports nothing for it.
    ///
    /// Returns whether a turn has ended: then the call is to be replayed where the rollout is restored.
    pub fn accepted(&mut self, node: &NodeId, generation: Generation, running: &[TaskId]) -> bool {
        let before = self.held.len();
        let rollout = self.generation;
        let is_past = |held: &HeldTurn| generation >= rollout || generation > held.generation;
        self.held.retain(|held| held.node != *node || held.failed || !is_past(held) || running.contains(&held.task));
        let ended = self.held.len() < before;
        if ended {
            self.note_held(node, false);
        }
        ended
    }

    /// Opens every gate that can be opened. Returns the nodes whose set of open gates has grown, to be published to them; none if nothing
    /// has changed at all, otherwise the call is to be replayed where the rollout is restored.
    ///
    /// A turn that was given back opens no gate, and yet decides who has the next one: so a call that returns an empty set counts.
    pub fn advance(&mut self) -> Option<BTreeSet<NodeId>> {
        let mut grown = BTreeSet::new();
        let mut changed = !self.ripe.is_empty();
        // First these: a node gets a turn only when its tasks wait for nothing else.
        for gate in std::mem::take(&mut self.ripe) {
            let fired = self.gate_fired(gate);
            self.open(gate, fired, &mut grown);
        }
        changed |= self.give_turns(&mut grown);
        changed.then_some(grown)
    }

    /// All gates that are open on a node. The whole set is published each time, so that a lost or repeated message does no harm.
    pub fn open_gates(&self, node: &NodeId) -> BTreeMap<GateId, OpenGate> {
        let entries = self.nodes.get(node).into_iter().flat_map(|at| at.order.iter());
        let gates = entries.flat_map(|i| &self.entries[*i as usize].gates).map(|g| &self.gates[*g as usize]);
        gates.filter_map(|gate| Some((gate.id.clone(), gate.open?))).collect()
    }

    pub(super) fn open(&mut self, gate: u32, fired: bool, grown: &mut BTreeSet<NodeId>) {
        let gate = &mut self.gates[gate as usize];
        gate.open = Some(OpenGate { fired });
        let nodes: Vec<NodeId> = gate.targets.iter().map(|i| self.entries[*i as usize].instance.node.clone()).collect();
        for node in nodes {
            self.note_node(&node);
            grown.insert(node);
        }
    }

    /// Whether one of a gate's sources was reported to have changed something. Only instances of the task that it fires on count: others
    /// are in the set because they come before those.
    pub(super) fn gate_fired(&self, gate: u32) -> bool {
        let Opens::Done { waits_for, fires_on: Some(task), .. } = &self.gates[gate as usize].opens else {
            return false;
        };
        waits_for.iter().map(|i| &self.entries[*i as usize]).any(|entry| entry.fired && entry.instance.task == *task)
    }

    pub(super) fn find(&self, node: &NodeId, task: &TaskId) -> Option<u32> {
        self.nodes.get(node)?.tasks.get(task).copied()
    }
}
