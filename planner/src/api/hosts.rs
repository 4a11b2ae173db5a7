//! Nodes' hosts in the local API, and the keys that their agents sign with: all that `groundplan bootstrap` asks for.

use groundplan_protocol::{
    envelope::PublicKey,
    ids::{NodeId, SiteName},
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::select::Selector;

/// `POST /v1/hosts`: which nodes are meant.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HostsRequest {
    /// The nodes that any of these means.
    pub select: Vec<Selector>,
}

/// What is to be known before a host is given its agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Hosts {
    /// The version of the API; a client refuses any other.
    pub version: u32,
    /// The name of the site that the planner serves.
    pub site: SiteName,
    /// The public key that agents are to trust.
    pub planner_key: PublicKey,
    /// The broker, as the planner reaches it.
    pub broker: String,
    /// The nodes, in name order.
    pub hosts: Vec<Host>,
}

/// A declared node, as far as bootstrap needs it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Host {
    /// The node's id in the inventory.
    pub node: NodeId,
    /// Its address, if the inventory gives one.
    pub address: Option<String>,
    /// The key that its agent must sign with, if one is known.
    pub key: Option<PublicKey>,
}

/// `POST /v1/trust`: the key that a node's agent signs with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TrustRequest {
    /// The node whose agent has the key.
    pub node: NodeId,
    /// The public key that its agent signs with; without it, the one that the inventory names and that is held.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<PublicKey>,
    /// Whether it may replace another key that is trusted for the node.
    #[serde(default)]
    pub replace: bool,
}

/// The key is trusted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Trusted {
    /// The version of the API; a client refuses any other.
    pub version: u32,
    /// Whether it was not trusted before.
    pub changed: bool,
    /// The key that is trusted.
    pub key: PublicKey,
    /// The key that was trusted before, if another one was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<PublicKey>,
}
