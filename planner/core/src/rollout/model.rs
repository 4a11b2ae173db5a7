//! A rollout's state, and what can be told of an instance in it.

use std::collections::{BTreeMap, BTreeSet};

use groundplan_protocol::{
    effect::{Action, Effect},
    ids::{GateId, Generation, InstanceId, NodeId, ServiceId, TaskId},
    plan::OpenGate,
    report::Outcome,
};
use serde::{Deserialize, Serialize};

use crate::{knowledge::Unknown, plan::PendingInstance};

/// One plan being carried out. Serialized, it is its own snapshot.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Rollout {
    pub(super) generation: Generation,
    /// In the plan's order, so that each comes after all that it waits for.
    pub(super) entries: Vec<Entry>,
    pub(super) gates: Vec<GateEntry>,
    pub(super) nodes: BTreeMap<NodeId, NodeEntry>,
    pub(super) limits: BTreeMap<ServiceId, Limit>,
    /// Gates whose time has come.
    pub(super) ripe: Vec<u32>,
    /// Turns that nodes have from rollouts before this one.
    pub(super) held: Vec<Held>,
    /// Instances of which too little is known to plan them.
    #[serde(default)]
    pub(super) pending: Vec<PendingInstance>,
    /// Instances that are not in this plan and of which an older one reports late that something changed.
    pub(super) late: BTreeSet<InstanceId>,
}

/// An instance of the plan. Others are named by their numbers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Entry {
    pub(super) instance: InstanceId,
    pub(super) action: Action,
    pub(super) after: Vec<u32>,
    pub(super) gates: Vec<u32>,
    /// Effects with the entry or gate that fires them.
    pub(super) triggers: Vec<(Effect, On)>,
    pub(super) owed: Option<Effect>,
    /// What nobody knows and it waits for.
    #[serde(default)]
    pub(super) unknown: Vec<Unknown>,
    /// Gates that wait for it.
    pub(super) feeds: Vec<u32>,
    pub(super) outcome: Option<Outcome>,
    /// Whether it is known to have changed something, for this plan or for an older one that wanted the same.
    pub(super) fired: bool,
    /// Whether it was an older one.
    pub(super) late: bool,
    /// Whether the agent says that it runs.
    pub(super) running: bool,
    /// Whether it runs again by itself where it was interrupted.
    #[serde(default)]
    pub(super) reruns: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum On {
    Entry(u32),
    /// An entry on the same node, the only one of a barrier that is in this plan: in an older one it may have been a gate.
    Barrier(u32),
    Gate(u32),
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct GateEntry {
    pub(super) id: GateId,
    pub(super) opens: Opens,
    /// Who waits for it.
    pub(super) targets: Vec<u32>,
    pub(super) open: Option<OpenGate>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) enum Opens {
    /// When these are done; `left` of them are not.
    Done { waits_for: Vec<u32>, fires_on: Option<TaskId>, left: u32 },
    /// When its node has a turn.
    Turn { service: ServiceId },
    /// Not in this rollout.
    Unknown,
}

#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub(super) struct NodeEntry {
    pub(super) online: bool,
    /// Its entries by task.
    pub(super) tasks: BTreeMap<TaskId, u32>,
    /// Its entries in the plan's order.
    pub(super) order: Vec<u32>,
}

/// A service with a rolling limit.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Limit {
    pub(super) at_once: u32,
    /// Nodes with turns still to be given.
    pub(super) pending: BTreeSet<NodeId>,
    /// Nodes that are in the midst of theirs.
    pub(super) holders: BTreeSet<NodeId>,
}

/// A task that was let go in an earlier rollout and of which no final word has come.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Held {
    pub(super) service: ServiceId,
    pub(super) node: NodeId,
    pub(super) task: TaskId,
    pub(super) generation: Generation,
    /// Whether it failed: then the node is out of service until the task is done or no longer asked for.
    pub(super) failed: bool,
}

impl Entry {
    pub(super) fn succeeded(&self) -> bool {
        self.outcome.as_ref().is_some_and(Outcome::is_success)
    }

    /// Whether it failed, and its agent does not try again.
    pub(super) fn failed(&self) -> bool {
        match &self.outcome {
            Some(Outcome::Failed { .. }) => !self.running,
            Some(Outcome::Interrupted) => !self.running && !self.reruns,
            _ => false,
        }
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
