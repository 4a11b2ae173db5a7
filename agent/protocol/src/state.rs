//! A node's state: what its agent has applied, what it still owes, and what it refused. Retained.
//!
//! Together with git this is all that a planner without a store needs to go on.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{
    digest::Fingerprint,
    effect::Effect,
    envelope::Message,
    ids::{CommitId, Generation, LedgerId, NodeId, Sequence, SiteName, TaskId},
    plan::{Edges, TriggerSource},
};

/// Most that the facts of a node make up, in bytes of their JSON.
pub const FACTS_LIMIT: usize = 64 * 1024;

/// What an agent says of its node.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct NodeState {
    /// Format version.
    pub version: u32,
    /// The site.
    pub site: SiteName,
    /// The node.
    pub node: NodeId,
    /// The ledger it comes from.
    pub ledger: LedgerId,
    /// Grows with every state of that ledger; a planner ignores an older one.
    pub revision: u64,
    /// The generation of the last plan that was accepted; 0 before the first.
    pub generation: Generation,
    /// The commit of that plan.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub commit: Option<CommitId>,
    /// What it is doing.
    pub phase: Phase,
    /// The last report whose effect is contained in this state.
    pub sequence: Sequence,
    /// What is applied.
    #[serde(default)]
    pub applied: BTreeMap<TaskId, Applied>,
    /// What is owed.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub obligations: BTreeMap<TaskId, Obligation>,
    /// What the host is, by name: `os`, `arch`, `kernel`, … and `local`, what its own programs say. Empty while the agent has not
    /// read them since it started: what was told before still counts.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub facts: BTreeMap<String, Value>,
    /// What its `export` tasks have published, by task; each at most [`EXPORT_LIMIT`](crate::kinds::EXPORT_LIMIT) long.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub exports: BTreeMap<TaskId, String>,
    /// The agent's program version.
    pub agent: String,
    /// The last message that it refused, if any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused: Option<Refused>,
    /// How many payloads it has ignored, since it started, because they were not ours.
    #[serde(default)]
    pub ignored: u64,
}

impl Message for NodeState {
    const TYPE: &'static str = "application/vnd.groundplan.state+json";
    fn version(&self) -> u32 {
        self.version
    }
    fn site(&self) -> &SiteName {
        &self.site
    }
}

/// What an agent is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Nothing left to do in its plan.
    Idle,
    /// It fetches blobs before it starts.
    Fetching,
    /// It carries out its plan, or waits for a gate.
    Running,
}

/// An applied task.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Applied {
    /// Fingerprint of what was applied.
    pub fingerprint: Fingerprint,
    /// Short digests of its inputs, as the plan named them.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub inputs: BTreeMap<String, String>,
    /// Its declared edges, as the plan named them.
    #[serde(default, skip_serializing_if = "Edges::is_empty")]
    pub edges: Edges,
}

/// A restart, reload or run that is owed, or will be if a source that is still open fires.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Obligation {
    /// What is owed.
    pub effect: Effect,
    /// Whether a trigger has fired. If not, it depends on `open`.
    pub fired: bool,
    /// Sources of its triggers that are not decided yet.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub open: Vec<TriggerSource>,
}

/// A message that was refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Refused {
    /// What it was about: `plan`, `gates`, or `blob` for content that could not be had.
    pub topic: String,
    /// Its generation, where it could be read and was signed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generation: Option<Generation>,
    /// Why, in words for the operator.
    pub reason: String,
    /// When, by the node's clock, in milliseconds since the Unix epoch.
    pub at_ms: u64,
}
