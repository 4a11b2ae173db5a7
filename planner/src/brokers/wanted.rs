//! What all configurations have in common: what they depend on, and the rights of the topic table.

use std::net::SocketAddr;

use groundplan_protocol::{
    ids::{NodeId, SiteName},
    topic::{TOPICS, TopicKind, TopicSpec},
};

/// How clients prove their names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Proof {
    /// By a certificate of the authority.
    Certificates,
    /// By user name and password, over TLS.
    Passwords,
}

/// What a configuration depends on.
#[derive(Debug, Clone)]
pub(crate) struct Wanted {
    pub(crate) site: SiteName,
    /// For brokers that list their users.
    pub(crate) nodes: Vec<NodeId>,
    /// Names in the planners' certificates: each planner has its own.
    pub(crate) planners: Vec<String>,
    /// Names in the observers' certificates.
    pub(crate) observers: Vec<String>,
    pub(crate) listen: SocketAddr,
    pub(crate) proof: Proof,
    /// Where the files are on the broker's machine.
    pub(crate) directory: String,
    /// Where the broker keeps its data.
    pub(crate) data: String,
    /// The authority of the clients' certificates, the broker's certificate and its key, on the broker's machine.
    pub(crate) ca: String,
    pub(crate) cert: String,
    pub(crate) key: String,
}

/// A file of a configuration.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct ConfigFile {
    pub(crate) name: &'static str,
    pub(crate) text: String,
}

/// Why there is no such configuration.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Unsupported {
    #[error("NATS cannot serve the node `{0}`: NATS 2.9 refuses topics with a `.`")]
    Dot(NodeId),
    #[error("passwords are supported for Mosquitto only")]
    Passwords,
}

/// What a node publishes: rows of its own.
pub(super) fn node_writes() -> impl Iterator<Item = &'static TopicSpec> {
    TOPICS.iter().filter(|spec| spec.direction.is_from_agent())
}

/// What a node reads: rows of its own, and of all.
pub(super) fn node_reads() -> impl Iterator<Item = &'static TopicSpec> {
    TOPICS.iter().filter(|spec| spec.direction.is_to_agents())
}

/// A topic of the table below the site, with the broker's own text for the node's name, and for the levels of content.
pub(super) fn topic(site: &SiteName, spec: &TopicSpec, node: &str, any: &str) -> String {
    let below = match spec.kind {
        TopicKind::Blob => format!("blob/{any}/{any}"),
        TopicKind::Node(_) | TopicKind::Planner | TopicKind::Heartbeat => spec.pattern.replace("<node>", node),
    };
    format!("{}/{below}", groundplan_protocol::topic::prefix(site))
}

/// The first lines of a file, in comments.
pub(super) fn head(comment: &str, wanted: &Wanted) -> String {
    let Wanted { site, .. } = wanted;
    format!(
        "{comment} The broker of the groundplan site `{site}`. Written by `groundplan broker config`; run it again instead of editing this.\n"
    )
}
