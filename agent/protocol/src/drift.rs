//! Drift: the host is no longer as a task was applied. The planner requests checks; the agent checks without changing anything,
//! and reports.
//!
//! In: the planner's request. Out: what differs, and how. The agent decides nothing about it: whether drift is repaired is for the
//! planner, whose plan then has the task checked and applied again like any other.

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

/// Most bytes of content that a report holds; any more is given by its digest alone.
pub const CONTENTS_LIMIT: usize = 256 * 1024;

/// When a node is to check for drift. Retained: valid until another one comes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct CheckRequest {
    /// Format version; [`VERSION`](crate::VERSION) of the sender.
    pub version: u32,
    /// The site; any other refuses it.
    pub site: SiteName,
    /// The node that it is for; any other ignores it.
    pub node: NodeId,
    /// Grows with every request to the node; an older one is ignored.
    pub revision: u64,
    /// How long after the end of one round of checks the next one starts; absent: only when an operator asks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interval: Option<Span>,
    /// The revision with which an operator last asked for a check: if the agent has not answered it yet, a round is due at once.
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

/// What a round of drift checks found. Retained: a planner that was away gets the latest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DriftReport {
    /// Format version; [`VERSION`](crate::VERSION) of the sender.
    pub version: u32,
    /// The site; any other refuses it.
    pub site: SiteName,
    /// The node that was checked.
    pub node: NodeId,
    /// The ledger whose tasks these are.
    pub ledger: LedgerId,
    /// Grows with every report of that ledger; an older one is ignored.
    pub revision: u64,
    /// The `asked` of the [`CheckRequest`] that it answers, or the last that was answered.
    pub asked: u64,
    /// The generation of the active plan during the round.
    pub generation: Generation,
    /// When the round began by the node's clock, in milliseconds since the Unix epoch.
    pub at_ms: u64,
    /// How long the round took, in milliseconds.
    pub duration_ms: u64,
    /// How many tasks were checked, drifted ones included.
    pub checked: u64,
    /// How many tasks were not checked: their kind has no check, or a job of them was under way or in doubt.
    pub left_out: u64,
    /// Tasks that are no longer as they were applied.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub drifted: BTreeMap<TaskId, Drifted>,
    /// Tasks whose check failed, each with the reason as a message for the operator.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub failed: BTreeMap<TaskId, String>,
}

impl Message for DriftReport {
    const TYPE: &'static str = "application/vnd.groundplan.drift+json";
    const ENCRYPTED: bool = true;
    fn version(&self) -> u32 {
        self.version
    }
    fn site(&self) -> &SiteName {
        &self.site
    }
}

/// A task that is no longer as it was applied.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Drifted {
    /// Fingerprint of what was applied.
    pub fingerprint: Fingerprint,
    /// When it was first found drifted, by the node's clock, in milliseconds since the Unix epoch.
    pub since_ms: u64,
    /// What differs; empty where the kind can only find out that something does.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub differences: Vec<Difference>,
}

/// One difference between what was applied and what is on the host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Difference {
    /// What differs, such as `mode`, `content`, `package nginx`, `unit`.
    pub what: String,
    /// What was applied, as short text; absent where the task itself shows it, as for content.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expected: Option<String>,
    /// What was found, as short text; absent where there is nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub found: Option<String>,
    /// For content that the task ships: the content on the host; only digest and size where it is too long, or private to its
    /// owner.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content: Option<Content>,
}
