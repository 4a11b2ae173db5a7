//! The state of a rollout, and the status of an instance in it.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Deref,
    sync::Arc,
};

use groundplan_protocol::{
    effect::{Action, Effect},
    ids::{GateId, Generation, InstanceId, NodeId, ServiceId, TaskId},
    plan::OpenGate,
    report::Outcome,
};
use serde::{Deserialize, Serialize};

use super::kept::Tally;
use crate::{knowledge::Unknown, plan::PendingInstance};

/// One plan being carried out. Serialized, it is its own snapshot.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Rollout {
    pub(super) generation: Generation,
    /// In the plan's order, so that each comes after all that it waits for. Named by index elsewhere.
    pub(super) entries: Vec<Entry>,
    pub(super) gates: Vec<GateEntry>,
    pub(super) nodes: BTreeMap<NodeId, NodeEntry>,
    pub(super) limits: BTreeMap<ServiceId, Limit>,
    /// Gates of which everything that they wait for is done, to be opened by the next `advance`.
    pub(super) ripe: Vec<u32>,
    /// Turns that declared nodes still hold from rollouts before this one.
    pub(super) held: Vec<HeldTurn>,
    /// Turns of nodes that are not declared. They limit no other node, and count again when their node is declared again.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) dormant: Vec<HeldTurn>,
    /// Instances that could not be planned.
    #[serde(default)]
    pub(super) pending: Vec<PendingInstance>,
    /// Instances that are not in this plan, and of which a report has a change, for an older plan or because of what one left due.
    pub(super) late: BTreeSet<InstanceId>,
    /// The parked nodes of the plan: the rollout is over without them, and they hold no turns.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub(super) parked: BTreeSet<NodeId>,
    /// See [`Plan::detached`](crate::plan::Plan::detached).
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub(super) detached: BTreeSet<InstanceId>,
    #[serde(skip)]
    pub(super) tally: Tally,
}

/// An instance of the plan, and what was reported of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Entry {
    /// Shared by all clones of the rollout, which are taken for those who read while reports come.
    #[serde(flatten)]
    planned: Arc<PlannedEntry>,
    /// The last outcome that was reported for this plan.
    pub(super) outcome: Option<Outcome>,
    /// Whether it was reported to have changed something, for this plan or for an older one.
    pub(super) fired: bool,
    /// Whether such a report was for an older plan.
    pub(super) late: bool,
    /// Whether the agent reported that it runs at the moment.
    pub(super) running: bool,
}

/// What the plan has of an instance. Other entries and gates are named by index.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct PlannedEntry {
    pub(super) instance: InstanceId,
    pub(super) action: Action,
    /// Entries on the same node that must be done first.
    pub(super) after: Vec<u32>,
    /// Gates that must be open first.
    pub(super) gates: Vec<u32>,
    /// Effects with the entry or gate that fires them.
    pub(super) triggers: Vec<(Effect, On)>,
    /// An effect that is due because of earlier plans, and of which its node may not know.
    pub(super) obligation: Option<Effect>,
    /// See [`Due::since`](crate::applied::Due::since).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) since: Option<Generation>,
    /// Unknown values that it waits for.
    #[serde(default)]
    pub(super) unknown: Vec<Unknown>,
    /// Gates that wait for it.
    pub(super) feeds: Vec<u32>,
    /// Whether the agent runs it again by itself after an interruption.
    #[serde(default)]
    pub(super) reruns: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum On {
    /// An entry on the same node, by an edge on the node. The agent itself knows when it fired, also for an older plan.
    Entry(u32),
    /// An entry on the same node that stands for a whole barrier, because no other instance of that is in this plan. In an older plan
    /// it may have been behind a gate, of which the agent does not know whether it fired.
    Barrier(u32),
    Gate(u32),
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct GateEntry {
    pub(super) id: GateId,
    pub(super) opens: Opens,
    /// Entries that wait for it.
    pub(super) targets: Arc<[u32]>,
    /// As it was opened; none while it is closed.
    pub(super) open: Option<OpenGate>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) enum Opens {
    /// When these entries are done; `left` of them are not yet.
    Done { waits_for: Arc<[u32]>, fires_on: Option<TaskId>, left: u32 },
    /// When its node has a turn of that service.
    Turn { service: ServiceId },
    /// Not in this rollout.
    Unknown,
}

#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub(super) struct NodeEntry {
    pub(super) online: bool,
    /// Its entries by task.
    pub(super) tasks: Arc<BTreeMap<TaskId, u32>>,
    /// Its entries in the plan's order.
    pub(super) order: Arc<[u32]>,
}

/// A service with a rolling limit.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Limit {
    pub(super) at_once: u32,
    /// Nodes with gates of this service that are still closed.
    pub(super) pending: BTreeSet<NodeId>,
    /// Nodes that hold a turn.
    pub(super) holders: BTreeSet<NodeId>,
}

/// A turn from an earlier rollout: a task whose gate was opened there and whose final report is missing, or that failed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct HeldTurn {
    pub(super) service: ServiceId,
    pub(super) node: NodeId,
    pub(super) task: TaskId,
    pub(super) generation: Generation,
    /// Whether it failed: then the node counts as unavailable until the task succeeds or is no longer desired.
    pub(super) failed: bool,
    /// Whether the task is desired on its node. It need not be in the plan: what was taken to be in sync may fail for an older one.
    #[serde(default)]
    pub(super) desired: bool,
}

impl Deref for Entry {
    type Target = PlannedEntry;

    fn deref(&self) -> &PlannedEntry {
        &self.planned
    }
}

impl Entry {
    /// Of which nothing has been reported.
    pub(super) fn new(planned: PlannedEntry) -> Self {
        Self { planned: Arc::new(planned), outcome: None, fired: false, late: false, running: false }
    }

    pub(super) fn succeeded(&self) -> bool {
        self.outcome.as_ref().is_some_and(Outcome::is_success)
    }

    /// Whether it failed, and its agent is not trying again.
    pub(super) fn failed(&self) -> bool {
        match &self.outcome {
            Some(Outcome::Failed { .. }) => !self.running,
            Some(Outcome::Interrupted) => !self.running && !self.reruns,
            _ => false,
        }
    }
}

impl GateEntry {
    /// The service that it gives a turn of, if it does.
    pub(super) fn turn_of(&self) -> Option<&ServiceId> {
        match &self.opens {
            Opens::Turn { service } => Some(service),
            Opens::Done { .. } | Opens::Unknown => None,
        }
    }
}

/// The status of an instance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Status {
    /// It cannot start yet, for these reasons; at least one.
    Waiting(Vec<Wait>),
    /// It runs, or nothing prevents it from running.
    Running,
    /// It is as the plan wants it.
    Done {
        /// Whether anything changed.
        changed: bool,
        /// The effect that was carried out, if any.
        effect: Option<Effect>,
    },
    /// Nothing had to be done: no trigger fired.
    Skipped,
    /// It failed, and the agent is not trying again.
    Failed {
        /// The agent's message.
        error: String,
    },
    /// It was not tried, because an instance that it comes after failed.
    Blocked {
        /// The failed instance, which may be several steps away.
        by: InstanceId,
    },
    /// It was not tried, because a newer plan came.
    Superseded,
}

/// A [`Status`] without its evidence, which costs nothing to make.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// [`Status::Waiting`].
    Waiting,
    /// [`Status::Running`].
    Running,
    /// [`Status::Done`].
    Done {
        /// Whether anything changed.
        changed: bool,
    },
    /// [`Status::Skipped`].
    Skipped,
    /// [`Status::Failed`].
    Failed,
    /// [`Status::Blocked`].
    Blocked,
    /// [`Status::Superseded`].
    Superseded,
}

/// What an instance waits for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Wait {
    /// Its own node is offline.
    Offline,
    /// Another instance of this plan that is not done.
    Instance {
        /// The other instance.
        instance: InstanceId,
        /// Whether its node is offline.
        offline: bool,
    },
    /// Further instances of this plan that are not done: only the first few are listed, by name.
    Others {
        /// How many.
        count: usize,
    },
    /// A value that no node has reported.
    Unknown(Unknown),
    /// A turn in a rolling restart.
    Turn {
        /// The nodes that hold the turns now.
        holders: Vec<NodeId>,
    },
}

/// Numbers of instances by status.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Summary {
    /// All instances of the plan; the sum of the others.
    pub total: usize,
    /// [`Status::Waiting`].
    pub waiting: usize,
    /// [`Status::Running`].
    pub running: usize,
    /// [`Status::Done`], and something changed.
    pub changed: usize,
    /// [`Status::Done`], and nothing had to be changed.
    pub unchanged: usize,
    /// [`Status::Skipped`].
    pub skipped: usize,
    /// [`Status::Failed`].
    pub failed: usize,
    /// [`Status::Blocked`].
    pub blocked: usize,
    /// [`Status::Superseded`].
    pub superseded: usize,
}

/// The state of a rollout as a whole.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Verdict {
    /// Some instance can still go on.
    Running,
    /// Everything that is left waits for these nodes, which are offline.
    Offline(Vec<NodeId>),
    /// Everything that is left waits for values that no node has reported: a newer plan takes its place when one is.
    Waiting,
    /// Everything is done.
    Succeeded,
    /// Some instance failed, and everything that can go on without it is done.
    Failed,
}
