//! What the store holds of each node.

use groundplan_core::Belief;
use groundplan_machine::record::StoredNode;
use groundplan_protocol::{ids::LedgerId, state::NodeState};
use serde::{Deserialize, Serialize};

/// What is known of a node. Written after its messages, every few seconds: what is lost of it the node reports again.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct NodeRow {
    /// What it has applied, and its obligations.
    pub belief: Belief,
    /// Ledgers that it had before, the latest last: what comes from them is a replay.
    #[serde(default)]
    pub past: Vec<LedgerId>,
    /// When its last message came, in milliseconds since the Unix epoch; 0 if none has.
    #[serde(default)]
    pub seen_ms: u64,
    /// Its last state, without what is in `belief`.
    #[serde(default)]
    pub state: Option<NodeState>,
}

impl From<StoredNode> for NodeRow {
    fn from(node: StoredNode) -> Self {
        let StoredNode { belief, past, seen_ms, state } = node;
        Self { belief, past, seen_ms, state }
    }
}

impl From<NodeRow> for StoredNode {
    fn from(row: NodeRow) -> Self {
        let NodeRow { belief, past, seen_ms, state } = row;
        Self { belief, past, seen_ms, state }
    }
}
