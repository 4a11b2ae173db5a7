//! What the API says of nodes' hosts and of the keys that their agents sign with: all that `groundplan bootstrap` asks for.

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
    /// Format version.
    pub version: u32,
    /// The site.
    pub site: SiteName,
    /// The public key that agents are to trust.
    pub planner_key: PublicKey,
    /// The broker, as the planner reaches it.
    pub broker: String,
    /// The nodes, in name order.
    pub hosts: Vec<Host>,
}

/// A declared node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Host {
    /// Its name.
    pub node: NodeId,
    /// Its address, if the inventory says one.
    pub address: Option<String>,
    /// The key that its agent must sign with, if one is known.
    pub key: Option<PublicKey>,
}

/// `POST /v1/trust`: the key that a node's agent signs with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TrustRequest {
    /// The node.
    pub node: NodeId,
    /// Its key.
    pub key: PublicKey,
    /// Whether it may take the place of another one.
    #[serde(default)]
    pub replace: bool,
}

/// The key is trusted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Trusted {
    /// Format version.
    pub version: u32,
    /// Whether it was not before.
    pub changed: bool,
}
