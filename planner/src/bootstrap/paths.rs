//! Where the agent's files lie on a host, as the packages place them too.

/// The agent's program on the host.
pub(super) const PROGRAM: &str = "/usr/bin/groundplan-agent";
/// The agent's configuration file on the host.
pub(super) const CONFIG: &str = "/etc/groundplan/agent.toml";
/// The agent's unit, in the host's directory of packaged units.
pub(super) const UNIT: &str = "groundplan-agent.service";
/// The certificate of the broker's authority.
pub(super) const CA: &str = "/etc/groundplan/ca.pem";
/// The node's certificate for mutual TLS.
pub(super) const CERT: &str = "/etc/groundplan/node.pem";
/// The private key of that certificate.
pub(super) const KEY: &str = "/etc/groundplan/node-key.pem";
/// The agent's state directory, unless its configuration names another.
pub(super) const STATE: &str = "/var/lib/groundplan";
