//! What the store keeps, apart from rollouts and commands: plain values, which the shell turns into rows and back.

use std::collections::BTreeMap;

use groundplan_core::{Belief, applied::Forget};
use groundplan_protocol::{
    digest::Digest,
    ids::{Generation, InstanceId, LedgerId, NodeId, Sequence, SiteName, TaskId},
    report::TaskReport,
    state::NodeState,
};

use crate::{
    commit::{Commit, RefusedCommit},
    damping::Damping,
};

/// What there is one of in the store.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Meta {
    /// The site that the good commits are of; none before the first.
    pub site: Option<SiteName>,
    /// This planner's id, chosen at its first start.
    pub planner: String,
    /// The generation of the latest plan.
    pub generation: Generation,
    /// The last term that this planner has claimed.
    pub term: u64,
    /// The active commit.
    pub active: Option<Commit>,
    /// The branch's tip, if it was refused.
    pub refused: Option<RefusedCommit>,
    /// Instances whose records are to be dropped, until their nodes have reported that they are.
    pub forget: BTreeMap<InstanceId, Forget>,
    /// The nodes that tasks with `once` were planned on.
    pub elected: BTreeMap<TaskId, NodeId>,
    /// Nodes that operators have parked.
    pub parked: BTreeMap<NodeId, Park>,
}

/// An operator's request that nothing on other nodes wait for a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Park {
    /// The operator, as the API knows them.
    pub by: String,
    /// Why, in the operator's words.
    pub reason: String,
    /// Since when, in milliseconds since the Unix epoch.
    pub since_ms: u64,
    /// Until when; none until an operator takes it back.
    pub until_ms: Option<u64>,
}

/// What the store keeps of a node.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct StoredNode {
    /// What it has applied, and its obligations.
    pub belief: Belief,
    /// Ledgers that it had before, the latest last: what comes from them is a replay.
    pub past: Vec<PastLedger>,
    /// When its last message came, in milliseconds since the Unix epoch; 0 if none has.
    pub seen_ms: u64,
    /// Its last state without what is applied and its obligations.
    pub state: Option<NodeState>,
    /// That it contradicts itself, and what is acted on meanwhile.
    pub damping: Damping,
}

/// A ledger that a node had before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PastLedger {
    /// Its id.
    pub ledger: LedgerId,
    /// The revision of the last state from it.
    pub revision: u64,
}

/// A node's plan, as it is written down: the shell offers it in the term of the time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredPlan {
    /// What is remembered of it.
    pub note: PlanNote,
    /// Its JSON.
    pub json: Vec<u8>,
}

/// What is remembered of the last plan of a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlanNote {
    /// Its generation.
    pub generation: Generation,
    /// Digest of what it asks of which ledger, whatever its generation and commit; empty for a plan that must never count as the same.
    pub asks: Vec<u8>,
    /// Its id: the digest of its JSON.
    pub id: Digest,
}

/// What happened to a rollout, in order: replayed on its snapshot it gives what it was, turns in rolling restarts included.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LogEntry {
    /// Reports came.
    Reports {
        /// From this node.
        node: NodeId,
        /// Its ledger.
        ledger: LedgerId,
        /// Number of the first.
        first: Sequence,
        /// The reports.
        reports: Vec<TaskReport>,
    },
    /// An agent connected or left.
    Presence {
        /// Its node.
        node: NodeId,
        /// Whether it is connected.
        online: bool,
    },
    /// A turn of a rollout before has ended, because a node is at this one and no longer runs the task.
    Accepted {
        /// The node.
        node: NodeId,
        /// The generation that it is at.
        generation: Generation,
        /// What it still runs.
        running: Vec<TaskId>,
    },
    /// An agent refused its part of the plan, and will refuse it again.
    Refused {
        /// Its node.
        node: NodeId,
        /// The generation of the plan.
        generation: Generation,
        /// The agent's reason.
        reason: String,
        /// When the planner received it, in milliseconds since the Unix epoch.
        at_ms: u64,
    },
    /// Gates were opened.
    Advance,
}
