//! Why bootstrap leaves a host as it is, and the next step.

use groundplan_protocol::envelope::PublicKey;

use super::{paths::CONFIG, program::machine};

/// A condition under which nothing is changed on a host.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The login user, after `sudo` if that was requested, has this uid.
    #[error("the login user on the host is not root (uid {0})")]
    NotRoot(u32),
    /// No systemd is running.
    #[error("the host does not run systemd, which starts the agent and restarts it")]
    NoSystemd,
    /// None of the given agents is for the host's machine.
    #[error("the host is {host}, and the given agents are for {}", have.join(", "))]
    Machine {
        /// The host's machine, from `uname -m`.
        host: String,
        /// The machines of the agents.
        have: Vec<String>,
    },
    /// The host has an agent of another site, node or planner.
    #[error("the host already has an agent, of {0}")]
    Other(String),
    /// The existing configuration is unusable.
    #[error("cannot read {CONFIG} on the host: {0}")]
    Config(String),
    /// The broker's address is one that only this machine can reach.
    #[error("the broker {0} is a loopback address, which on the host means the host itself")]
    Loopback(String),
    /// A broker with TLS, and no certificate to check it with.
    #[error("the broker {0} uses TLS, and the host has no certificate of its authority")]
    NoCa(String),
    /// Settings for TLS, and a broker without TLS.
    #[error("{CONFIG} would have settings for TLS, and the broker {0} does not use TLS")]
    NotTls(String),
    /// A file system is too full.
    #[error("{dir} on the host has not enough space: {need} KiB are needed, {free} KiB are free")]
    Space {
        /// A directory on that file system.
        dir: String,
        /// KiB for all files on it.
        need: u64,
        /// KiB that are free.
        free: u64,
    },
    /// The planner trusts another key for the node.
    #[error("the planner trusts the key {known} for this node, and {}", found.map_or("the host has none".to_owned(), |key| format!("the host has {key}")))]
    Key {
        /// The key that the planner trusts.
        known: PublicKey,
        /// The key of the host's agent.
        found: Option<PublicKey>,
    },
}

impl Refusal {
    /// What the user can do before trying again.
    pub fn hint(&self) -> String {
        match self {
            Self::NotRoot(_) => "log in as root (--ssh-user root), or let that user become root with --sudo".to_owned(),
            Self::NoSystemd => {
                "groundplan-agent runs under any supervisor: install it by hand there, see docs/bootstrap.md".to_owned()
            }
            Self::Machine { host, .. } => {
                format!("add a groundplan-agent for {}: --agent FILE may be given more than once", machine(host))
            }
            Self::Other(_) => {
                "if the host is to become this node: --take-over; what the other site put there stays unchanged"
                    .to_owned()
            }
            Self::Config(_) => "fix or remove that file".to_owned(),
            Self::Loopback(_) => "give the address that hosts reach it by: --broker mqtts://HOST:PORT".to_owned(),
            Self::NoCa(_) => "give the PEM file of the authority with --broker-ca FILE".to_owned(),
            Self::NotTls(_) => "give an mqtts:// broker, or remove the table `tls` from that file".to_owned(),
            Self::Space { .. } => "free some space there; nothing was written".to_owned(),
            Self::Key { .. } => "if the host was reinstalled, and it is the right one: --replace-key".to_owned(),
        }
    }
}
