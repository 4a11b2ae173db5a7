//! What the store holds of each node.

use std::collections::{BTreeMap, BTreeSet};

use groundplan_core::Belief;
use groundplan_machine::{
    damping::Damping,
    record::{PastLedger, StoredNode},
};
use groundplan_protocol::{
    ids::{Generation, LedgerId, TaskId},
    state::{Applied, NodeState},
};
use serde::{Deserialize, Serialize};

/// What is known of a node. Written after its messages, every few seconds: what is lost of it the node reports again.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct NodeRow {
    /// What it has applied, and its obligations.
    pub belief: Belief,
    /// Ledgers that it had before, the latest last: what comes from them is a replay, unless it is newer than all before.
    #[serde(default)]
    pub past: Vec<PastRow>,
    /// When its last message came, in milliseconds since the Unix epoch; 0 if none has.
    #[serde(default)]
    pub seen_ms: u64,
    /// Its last state, without what is in `belief`.
    #[serde(default)]
    pub state: Option<NodeState>,
    /// That it contradicts itself.
    #[serde(default, skip_serializing_if = "DampingRow::is_empty")]
    pub damping: DampingRow,
}

/// A ledger that a node had before, and the revision of the last state from it. Rows of releases before 0.2 lack that.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum PastRow {
    /// Both.
    Seen(LedgerId, u64),
    /// Without the revision.
    Id(LedgerId),
}

impl From<PastRow> for PastLedger {
    fn from(row: PastRow) -> Self {
        match row {
            PastRow::Seen(ledger, revision) => Self { ledger, revision },
            PastRow::Id(ledger) => Self { ledger, revision: u64::MAX },
        }
    }
}

impl From<PastLedger> for PastRow {
    fn from(PastLedger { ledger, revision }: PastLedger) -> Self {
        Self::Seen(ledger, revision)
    }
}

/// A node that contradicts itself: the fields of [`Damping`].
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct DampingRow {
    times: u32,
    last_ms: u64,
    until_ms: Option<u64>,
    agreed: BTreeMap<TaskId, Applied>,
    obligations: BTreeSet<TaskId>,
    exports: BTreeMap<TaskId, Option<String>>,
    changes: BTreeMap<TaskId, u32>,
    counted: Option<Generation>,
}

impl DampingRow {
    fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

impl From<Damping> for DampingRow {
    fn from(damping: Damping) -> Self {
        let Damping { times, last_ms, until_ms, agreed, obligations, exports, changes, counted } = damping;
        Self { times, last_ms, until_ms, agreed, obligations, exports, changes, counted }
    }
}

impl From<DampingRow> for Damping {
    fn from(row: DampingRow) -> Self {
        let DampingRow { times, last_ms, until_ms, agreed, obligations, exports, changes, counted } = row;
        Self { times, last_ms, until_ms, agreed, obligations, exports, changes, counted }
    }
}

impl From<StoredNode> for NodeRow {
    fn from(node: StoredNode) -> Self {
        let StoredNode { belief, past, seen_ms, state, damping } = node;
        let past = past.into_iter().map(Into::into).collect();
        Self { belief, past, seen_ms, state, damping: damping.into() }
    }
}

impl From<NodeRow> for StoredNode {
    fn from(row: NodeRow) -> Self {
        let NodeRow { belief, past, seen_ms, state, damping } = row;
        let past = past.into_iter().map(Into::into).collect();
        Self { belief, past, seen_ms, state, damping: damping.into() }
    }
}
