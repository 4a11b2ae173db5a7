//! What a host is to be.

use std::sync::Arc;

use groundplan_protocol::{
    envelope::PublicKey,
    ids::{NodeId, SiteName},
};

use super::program::Program;
use groundplan_protocol::broker::BrokerAddress;

/// What is in a file.
pub type Bytes = Arc<[u8]>;

/// What a host is to be.
#[derive(Debug, Clone)]
pub struct Target {
    /// The node.
    pub node: NodeId,
    /// Its site.
    pub site: SiteName,
    /// The key of its planner.
    pub planner_key: PublicKey,
    /// The host's address, as `ssh` takes it.
    pub address: String,
    /// Agents to choose from, for one machine each.
    pub programs: Arc<[Program]>,
    /// The broker, if it was given.
    pub broker: Option<BrokerAddress>,
    /// The planner's own, where nobody has said one.
    pub default_broker: String,
    /// The certificate of the broker's authority.
    pub ca: Option<Bytes>,
    /// The node's own certificate and its key.
    pub certificate: Option<(Bytes, Bytes)>,
    /// The key that the planner knows the node by.
    pub key: Option<PublicKey>,
    /// Whether another may take its place.
    pub replace_key: bool,
    /// Whether an agent of another site or node gives way.
    pub take_over: bool,
}
