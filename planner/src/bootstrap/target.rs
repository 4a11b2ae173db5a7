//! The desired state of one host.

use std::sync::Arc;

use groundplan_protocol::{
    broker::BrokerAddress,
    envelope::PublicKey,
    ids::{NodeId, SiteName},
};

use super::program::Program;

/// The content of a file; shared, because all hosts get the same program.
pub type Bytes = Arc<[u8]>;

/// What one host should have, and what bootstrap may do to get there.
#[derive(Debug, Clone)]
pub struct Target {
    /// The node that the host is to be.
    pub node: NodeId,
    /// The site that the node belongs to.
    pub site: SiteName,
    /// The planner's public key, which the agent is to trust.
    pub planner_key: PublicKey,
    /// The host's name or address, as `ssh` takes it.
    pub address: String,
    /// The available agents, at most one for each machine.
    pub programs: Arc<[Program]>,
    /// The broker of `--broker`, which replaces the one that the host has.
    pub broker: Option<BrokerAddress>,
    /// The broker for a host that has none yet: the planner's own.
    pub default_broker: String,
    /// The certificate of the broker's authority, in PEM.
    pub ca: Option<Bytes>,
    /// The node's certificate and its private key, in PEM.
    pub certificate: Option<(Bytes, Bytes)>,
    /// The key that the planner trusts for the node.
    pub key: Option<PublicKey>,
    /// Whether another key of the host may replace that one.
    pub replace_key: bool,
    /// Whether an agent of another site, node or planner may be replaced.
    pub take_over: bool,
}
