//! What the store's rows hold. Their JSON is the file's layout: a field that is new has a default.

use std::collections::BTreeMap;

use groundplan_core::Belief;
use groundplan_protocol::{
    effect::Action,
    ids::{Generation, InstanceId, LedgerId, NodeId, Sequence, SiteName},
    report::TaskReport,
    state::NodeState,
};
use serde::{Deserialize, Serialize};

use crate::api::types::{Commit, ReasonRecord, RefusedCommit};

/// What there is one of.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Meta {
    /// The site that the good commits are of.
    pub site: Option<SiteName>,
    /// This planner's name.
    pub planner: String,
    /// The generation of the latest plan.
    pub generation: Generation,
    /// The term of the last time that it planned.
    pub term: u64,
    /// The commit in force.
    pub good: Option<Commit>,
    /// The commit that was refused, if it is the branch's tip.
    pub refused: Option<RefusedCommit>,
}

/// What is known of a node.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct StoredNode {
    /// What it has applied and owes.
    pub belief: Belief,
    /// Ledgers that it had before, the latest last: what comes from them is a replay.
    #[serde(default)]
    pub past: Vec<LedgerId>,
    /// When it was last heard of, in milliseconds since the Unix epoch.
    #[serde(default)]
    pub seen_ms: u64,
    /// Its last state without what is applied and owed.
    #[serde(default)]
    pub state: Option<NodeState>,
}

/// A plan as published.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredPlan {
    /// Its generation.
    pub generation: Generation,
    /// Digest of what it asks for, whatever its generation and commit; empty for a plan that must never count as the same.
    pub digest: Vec<u8>,
    /// The sealed message.
    pub sealed: Vec<u8>,
    /// JSON of the plan, where the message only refers to it; else empty.
    pub body: Vec<u8>,
}

/// What happened to a rollout, in order: told again to its snapshot, it is what it was, turns in rolling restarts included.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
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
    /// A node came or went.
    Presence {
        /// The node.
        node: NodeId,
        /// Whether it is there.
        online: bool,
    },
    /// Gates were opened.
    Advance,
}

/// What a rollout is of, apart from how it goes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RolloutHead {
    /// Its generation.
    pub generation: Generation,
    /// The commit that it leads to.
    pub commit: Commit,
    /// When it began, in milliseconds since the Unix epoch.
    pub started_ms: u64,
    /// Its actions in an execution order, with their reasons.
    pub actions: Vec<PlannedReasons>,
    /// When it ended, if it has.
    #[serde(default)]
    pub ended_ms: Option<u64>,
    /// Nodes to which the very same plan was on its way already, and its generation.
    #[serde(default)]
    pub kept: BTreeMap<NodeId, Generation>,
}

/// An action and its reasons.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PlannedReasons {
    /// What it is done to.
    pub instance: InstanceId,
    /// What is done.
    pub action: Action,
    /// Why.
    pub reasons: Vec<ReasonRecord>,
}
