//! A plan being carried out: reports are folded in, gates open, rolling limits hold, and what came of it all can be told.
//!
//! In: a plan, reports, who is online. Out: which gates are open for whom. Values in, values out: the planner's daemon stores,
//! publishes and calls. Folding is idempotent and nothing depends on the order in which reports of different nodes come, so a
//! rollout is restored from its snapshot, or from the plan and the reports told again.

mod belief;
mod course;
mod standing;
mod supersede;
mod turns;

use std::collections::{BTreeMap, BTreeSet};

use groundplan_protocol::{
    effect::{Action, Effect},
    ids::{GateId, Generation, InstanceId, NodeId, ServiceId, TaskId},
    plan::OpenGate,
    report::{Outcome, TaskReport},
};
use serde::{Deserialize, Serialize};

pub use self::belief::{Belief, StateFold};
use crate::{knowledge::Unknown, plan::PendingInstance};

/// One plan being carried out. Serialized, it is its own snapshot.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Rollout {
    generation: Generation,
    /// In the plan's order, so that each comes after all that it waits for.
    entries: Vec<Entry>,
    gates: Vec<GateEntry>,
    nodes: BTreeMap<NodeId, NodeEntry>,
    limits: BTreeMap<ServiceId, Limit>,
    /// Gates whose time has come.
    ripe: Vec<u32>,
    /// Turns that nodes have from rollouts before this one.
    held: Vec<Held>,
    /// Instances of which too little is known to plan them.
    #[serde(default)]
    pending: Vec<PendingInstance>,
    /// Instances that are not in this plan and of which an older one reports late that something changed.
    late: BTreeSet<InstanceId>,
}

/// An instance of the plan. Others are named by their numbers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Entry {
    instance: InstanceId,
    action: Action,
    after: Vec<u32>,
    gates: Vec<u32>,
    /// Effects with the entry or gate that fires them.
    triggers: Vec<(Effect, On)>,
    owed: Option<Effect>,
    /// What nobody knows and it waits for.
    #[serde(default)]
    unknown: Vec<Unknown>,
    /// Gates that wait for it.
    feeds: Vec<u32>,
    outcome: Option<Outcome>,
    /// Whether it is known to have changed something, for this plan or for an older one that wanted the same.
    fired: bool,
    /// Whether it was an older one.
    late: bool,
    /// Whether the agent says that it runs.
    running: bool,
    /// Whether it runs again by itself where it was interrupted.
    #[serde(default)]
    reruns: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
enum On {
    Entry(u32),
    /// An entry on the same node, the only one of a barrier that is in this plan: in an older one it may have been a gate.
    Barrier(u32),
    Gate(u32),
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct GateEntry {
    id: GateId,
    opens: Opens,
    /// Who waits for it.
    targets: Vec<u32>,
    open: Option<OpenGate>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
enum Opens {
    /// When these are done; `left` of them are not.
    Done { waits_for: Vec<u32>, fires_on: Option<TaskId>, left: u32 },
    /// When its node has a turn.
    Turn { service: ServiceId },
    /// Not in this rollout.
    Unknown,
}

#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
struct NodeEntry {
    online: bool,
    /// Its entries by task.
    tasks: BTreeMap<TaskId, u32>,
    /// Its entries in the plan's order.
    order: Vec<u32>,
}

/// A service with a rolling limit.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Limit {
    at_once: u32,
    /// Nodes with turns still to be given.
    pending: BTreeSet<NodeId>,
    /// Nodes that are in the midst of theirs.
    holders: BTreeSet<NodeId>,
}

/// A task that was let go in an earlier rollout and of which no final word has come.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Held {
    service: ServiceId,
    node: NodeId,
    task: TaskId,
    generation: Generation,
    /// Whether it failed: then the node is out of service until the task is done or no longer asked for.
    failed: bool,
}

impl Entry {
    fn succeeded(&self) -> bool {
        self.outcome.as_ref().is_some_and(Outcome::is_success)
    }

    /// Whether it failed, and its agent does not try again.
    fn failed(&self) -> bool {
        match &self.outcome {
            Some(Outcome::Failed { .. }) => !self.running,
            Some(Outcome::Interrupted) => !self.running && !self.reruns,
            _ => false,
        }
    }
}

impl Rollout {
    /// The generation.
    pub fn generation(&self) -> Generation {
        self.generation
    }

    /// Takes a report, of this generation or of an older one. Returns whether it was news.
    ///
    /// What is done stays done; anything else may be followed by another try. A change that is reported late, for an older
    /// generation, still fires: so a report of an older generation must not be folded twice.
    pub fn fold(&mut self, node: &NodeId, report: &TaskReport) -> bool {
        self.release(node, report);
        let Some(i) = self.find(node, &report.task) else {
            let late = report.generation < self.generation && report.outcome.fires();
            return late && self.late.insert(report.task.at(node));
        };
        let entry = &mut self.entries[i as usize];
        let mut news = false;
        if report.outcome.fires() && report.generation <= self.generation {
            news |= !std::mem::replace(&mut entry.fired, true);
            entry.late |= report.generation < self.generation;
        }
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
        true
    }

    /// The instances that it could not plan, with what is missing.
    pub fn pending(&self) -> &[PendingInstance] {
        &self.pending
    }

    /// Whether a change was reported, for an older generation, that this plan does not pass on to all that it triggers: plan
    /// again, and let the newer plan know by [`Rollout::carry_late_changes`].
    pub fn is_outdated(&self) -> bool {
        let passed_over = |entry: &Entry| {
            let done = matches!(entry.outcome, Some(Outcome::Done { effect: Some(_), .. }));
            let late = |(_, on): &(Effect, On)| matches!(on, On::Barrier(i) if self.entries[*i as usize].late);
            !done && entry.triggers.iter().any(late)
        };
        !self.late.is_empty() || self.entries.iter().any(passed_over)
    }

    /// Takes a node's presence.
    pub fn presence(&mut self, node: &NodeId, online: bool) {
        if let Some(entry) = self.nodes.get_mut(node) {
            entry.online = online;
        }
    }

    /// Takes what a node says that it runs at this moment: for people to watch.
    pub fn running(&mut self, node: &NodeId, tasks: &[TaskId]) {
        let Some(at) = self.nodes.get(node) else { return };
        for i in &at.order {
            self.entries[*i as usize].running = false;
        }
        for i in tasks.iter().filter_map(|task| at.tasks.get(task)) {
            self.entries[*i as usize].running = true;
        }
    }

    /// Takes which generation a node is at, and what it still runs: from its reports, or nothing where its state says that it is
    /// idle. A turn that it had in an earlier rollout ends when it is at this one and runs nothing of that any more.
    pub fn accepted(&mut self, node: &NodeId, generation: Generation, running: &[TaskId]) {
        if generation >= self.generation {
            self.held.retain(|held| held.node != *node || held.failed || running.contains(&held.task));
        }
    }

    /// Opens every gate whose time has come. Returns the nodes whose set of open gates has grown: publish it to them.
    pub fn advance(&mut self) -> BTreeSet<NodeId> {
        let mut told = BTreeSet::new();
        for gate in std::mem::take(&mut self.ripe) {
            let fired = self.gate_fired(gate);
            self.open(gate, fired, &mut told);
        }
        self.give_turns(&mut told);
        told
    }

    /// The whole set of open gates of one node.
    pub fn open_gates(&self, node: &NodeId) -> BTreeMap<GateId, OpenGate> {
        let entries = self.nodes.get(node).into_iter().flat_map(|at| &at.order);
        let gates = entries.flat_map(|i| &self.entries[*i as usize].gates).map(|g| &self.gates[*g as usize]);
        gates.filter_map(|gate| Some((gate.id.clone(), gate.open?))).collect()
    }

    fn open(&mut self, gate: u32, fired: bool, told: &mut BTreeSet<NodeId>) {
        let gate = &mut self.gates[gate as usize];
        gate.open = Some(OpenGate { fired });
        told.extend(gate.targets.iter().map(|i| self.entries[*i as usize].instance.node.clone()));
    }

    /// Whether one of a gate's sources changed something, as far as is known.
    fn gate_fired(&self, gate: u32) -> bool {
        let Opens::Done { waits_for, fires_on: Some(task), .. } = &self.gates[gate as usize].opens else {
            return false;
        };
        waits_for.iter().map(|i| &self.entries[*i as usize]).any(|entry| entry.fired && entry.instance.task == *task)
    }

    fn find(&self, node: &NodeId, task: &TaskId) -> Option<u32> {
        self.nodes.get(node)?.tasks.get(task).copied()
    }
}

/// What became of an instance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Status {
    /// It waits.
    Waiting(Vec<Wait>),
    /// It runs, or nothing holds it back.
    Running,
    /// As the plan wants it.
    Done {
        /// Whether anything changed.
        changed: bool,
        /// The effect that was carried out.
        effect: Option<Effect>,
    },
    /// Nothing to be done after all: no trigger fired.
    Skipped,
    /// It did not come about.
    Failed {
        /// The agent's words.
        error: String,
    },
    /// Never tried, because this one failed, which it comes after.
    Blocked {
        /// The failed one.
        by: InstanceId,
    },
    /// Not tried, because a newer plan came.
    Superseded,
}

/// What an instance waits for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Wait {
    /// Its own node is offline.
    Offline,
    /// Another instance of this plan that is not done.
    Instance {
        /// That instance.
        instance: InstanceId,
        /// Whether its node is offline.
        offline: bool,
    },
    /// Something that no node has told.
    Unknown(Unknown),
    /// A turn in a rolling restart, which these nodes have now.
    Turn {
        /// The nodes.
        holders: Vec<NodeId>,
    },
}

/// Numbers of instances.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Summary {
    /// In the plan.
    pub total: usize,
    /// Waiting.
    pub waiting: usize,
    /// Running or about to.
    pub running: usize,
    /// Done and something changed.
    pub changed: usize,
    /// Done, nothing had to be changed.
    pub unchanged: usize,
    /// Not needed: no trigger fired.
    pub skipped: usize,
    /// Failed.
    pub failed: usize,
    /// Never tried because of a failure.
    pub blocked: usize,
    /// Never tried because of a newer plan.
    pub superseded: usize,
}

/// How a rollout stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Verdict {
    /// Under way.
    Running,
    /// All that is left waits for these nodes, which are offline.
    Offline(Vec<NodeId>),
    /// All that is left waits for what no node has told: a newer plan takes its place when one does.
    Waiting,
    /// Everything is done.
    Succeeded,
    /// Something failed, and all that can go on without it is done.
    Failed,
}
