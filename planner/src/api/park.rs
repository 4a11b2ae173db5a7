//! Parked nodes: nothing on other nodes waits for them.

use groundplan_protocol::{
    duration::Span,
    ids::{Generation, NodeId},
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// `POST /v1/park`: let nothing on other nodes wait for a node. It still gets its part of each plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ParkRequest {
    /// The node.
    pub node: NodeId,
    /// For how long, such as `4h`, from one second to a year; without it until it is taken back.
    #[serde(default, rename = "for", skip_serializing_if = "Option::is_none")]
    pub span: Option<Span>,
    /// Why, in one line, for those who look at the status.
    pub reason: String,
}

/// `POST /v1/unpark`: let what comes after a node's tasks wait for it again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct UnparkRequest {
    /// The node.
    pub node: NodeId,
}

/// What was planned upon a [`ParkRequest`] or an [`UnparkRequest`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ParkPlanned {
    /// The version of the API; a client refuses any other.
    pub version: u32,
    /// The node.
    pub node: NodeId,
    /// The rollout that follows from it; none if it makes no difference now.
    pub generation: Option<Generation>,
    /// Why nothing on other nodes waits for the node from now on; absent if it is waited for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parked: Option<Parked>,
}

/// Why nothing on other nodes waits for a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "by", rename_all = "snake_case")]
pub enum Parked {
    /// The inventory has `state = "parked"` for it.
    Inventory,
    /// An operator has parked it.
    Operator {
        /// The operator.
        operator: String,
        /// Why.
        reason: String,
        /// Since when, in milliseconds since the Unix epoch.
        since_ms: u64,
        /// Until when, in milliseconds since the Unix epoch; absent until it is taken back.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        until_ms: Option<u64>,
    },
}
