//! Drift: what is applied and no longer so. The planner says when to look; the agent looks without changing anything, and tells.
//!
//! In: the planner's wish. Out: what differs, and how. An agent decides nothing about it: whether it is put right is for the planner,
//! whose plan then has the task checked and applied again like any other.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    blob::Content,
    digest::Fingerprint,
    duration::Span,
    envelope::Message,
    ids::{Generation, LedgerId, NodeId, SiteName, TaskId},
};

/// Most text of `expected` and `found` of one difference, in bytes.
pub const TEXT_LIMIT: usize = 1024;

/// When a node is to look for drift. Retained: it holds until another one comes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct CheckRequest {
    /// Format version.
    pub version: u32,
    /// The site.
    pub site: SiteName,
    /// The node that it is for; any other ignores it.
    pub node: NodeId,
    /// Grows with every one; an older one is ignored.
    pub revision: u64,
    /// How long after one look the next begins; absent: only when asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interval: Option<Span>,
    /// The revision with which somebody last asked for a look: one that the agent has not looked for yet is due at once.
    #[serde(default)]
    pub asked: u64,
}

impl Message for CheckRequest {
    const TYPE: &'static str = "application/vnd.groundplan.check+json";
    fn version(&self) -> u32 {
        self.version
    }
    fn site(&self) -> &SiteName {
        &self.site
    }
}

/// What a look has found. Retained: the latest holds, also for a planner that was away.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DriftReport {
    /// Format version.
    pub version: u32,
    /// The site.
    pub site: SiteName,
    /// The node.
    pub node: NodeId,
    /// The ledger whose tasks these are.
    pub ledger: LedgerId,
    /// Grows with every report of that ledger; an older one is ignored.
    pub revision: u64,
    /// The `asked` of the `CheckRequest` that it answers, or the last that was answered.
    pub asked: u64,
    /// The generation of the plan in force while it looked.
    pub generation: Generation,
    /// When it began to look by the node's clock, in milliseconds since the Unix epoch.
    pub at_ms: u64,
    /// How long that took, in milliseconds.
    pub duration_ms: u64,
    /// How many tasks were checked.
    pub checked: u64,
    /// How many cannot be checked, or were at work.
    pub left_out: u64,
    /// Those that are otherwise than they were applied.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub drifted: BTreeMap<TaskId, Drifted>,
    /// Those that could not be checked, with the reason in words for the operator.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub failed: BTreeMap<TaskId, String>,
}

impl Message for DriftReport {
    const TYPE: &'static str = "application/vnd.groundplan.drift+json";
    fn version(&self) -> u32 {
        self.version
    }
    fn site(&self) -> &SiteName {
        &self.site
    }
}

/// An applied task that is no longer so.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Drifted {
    /// Fingerprint of what was applied.
    pub fingerprint: Fingerprint,
    /// When it was first found so, by the node's clock, in milliseconds since the Unix epoch.
    pub since_ms: u64,
    /// What differs; none where the kind can only tell that something does.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub differences: Vec<Difference>,
}

/// One thing that differs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Difference {
    /// What, such as `mode`, `content`, `package nginx`, `unit`.
    pub what: String,
    /// How it was applied, in short words; absent where the task says it itself, as content does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expected: Option<String>,
    /// How it is now, likewise; absent where there is nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub found: Option<String>,
    /// For content that the task ships: what is there now; a blob's name only, where it is too long to be told, or not for all eyes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content: Option<Content>,
}
