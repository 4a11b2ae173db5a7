//! Why a host is left as it is, with the next step.

use groundplan_protocol::envelope::PublicKey;

use super::{paths::CONFIG, program::machine};

/// Why nothing is done.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Not root.
    #[error("the user there is not root (user id {0})")]
    NotRoot(u32),
    /// No systemd.
    #[error("the host does not run systemd, which is to start the agent and start it again")]
    NoSystemd,
    /// No agent for that machine.
    #[error("the host is {host}, and the agents at hand are for {}", have.join(", "))]
    Machine {
        /// The host's.
        host: String,
        /// What there is.
        have: Vec<String>,
    },
    /// An agent of another site or node is there.
    #[error("an agent is there already, of {0}")]
    Other(String),
    /// The configuration there cannot be read.
    #[error("its {CONFIG} cannot be read: {0}")]
    Config(String),
    /// The broker is this machine's own.
    #[error("the broker {0} is a loopback address, which on the host means the host itself")]
    Loopback(String),
    /// TLS without an authority.
    #[error("the broker {0} speaks TLS, and no authority of its certificate is known on the host")]
    NoCa(String),
    /// TLS settings for a broker without.
    #[error("{CONFIG} would have settings for TLS, and the broker {0} speaks none")]
    NotTls(String),
    /// Not enough room.
    #[error("{dir} has not enough room: {need} KiB are needed, {free} KiB are free")]
    Space {
        /// Where.
        dir: String,
        /// How much is needed.
        need: u64,
        /// How much there is.
        free: u64,
    },
    /// The node was known by another key.
    #[error("the planner knows the node by the key {known}, and {}", found.map_or("this host has none".to_owned(), |key| format!("this host has {key}")))]
    Key {
        /// The planner's.
        known: PublicKey,
        /// The host's.
        found: Option<PublicKey>,
    },
}

impl Refusal {
    /// What to do about it.
    pub fn hint(&self) -> String {
        match self {
            Self::NotRoot(_) => "log in as root (--ssh-user root), or let that user become root with --sudo".to_owned(),
            Self::NoSystemd => {
                "groundplan-agent runs under any supervisor: install it by hand there, see docs/bootstrap.md".to_owned()
            }
            Self::Machine { host, .. } => {
                format!(
                    "name a groundplan-agent for {} as well: --agent FILE may be given more than once",
                    machine(host)
                )
            }
            Self::Other(_) => {
                "if that host is to be this node from now on: --take-over; what the other site put there stays as it is"
                    .to_owned()
            }
            Self::Config(_) => "mend or remove that file".to_owned(),
            Self::Loopback(_) => "name it as hosts reach it: --broker mqtts://HOST:PORT".to_owned(),
            Self::NoCa(_) => "give the PEM file of the authority with --broker-ca FILE".to_owned(),
            Self::NotTls(_) => "give an mqtts:// broker, or take the table `tls` out of that file".to_owned(),
            Self::Space { .. } => "make room there; nothing was written".to_owned(),
            Self::Key { .. } => "if the host was set up anew, and it is the right one: --replace-key".to_owned(),
        }
    }
}
