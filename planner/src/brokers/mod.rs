//! Configurations of brokers that people have: TLS, access rights from the topic table, sizes and queues.
//!
//! In: the site's name and nodes, and where files will be. Out: the texts of the configuration's files. Each lets a client do what
//! [`TOPICS`] says and nothing else, and binds its client id to the name in its certificate, or says where the broker cannot. No IO.

mod emqx;
mod mosquitto;
mod nats;
mod rabbitmq;

use std::net::SocketAddr;

use groundplan_protocol::{
    ids::{NodeId, SiteName},
    topic::{TOPICS, TopicKind, TopicSpec},
};

/// Which broker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Kind {
    /// Eclipse Mosquitto 2.0.
    Mosquitto,
    /// NATS 2.9 or later, with JetStream.
    Nats,
    /// RabbitMQ 3.10 or later, with its MQTT plugin.
    Rabbitmq,
    /// EMQX 5.
    Emqx,
}

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

impl Kind {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Mosquitto => "mosquitto",
            Self::Nats => "nats",
            Self::Rabbitmq => "rabbitmq",
            Self::Emqx => "emqx",
        }
    }

    /// Where its packages keep data.
    pub(crate) fn data(self) -> &'static str {
        match self {
            Self::Mosquitto => "/var/lib/mosquitto",
            Self::Nats => "/var/lib/nats",
            Self::Rabbitmq => "/var/lib/rabbitmq",
            Self::Emqx => "/var/lib/emqx",
        }
    }

    /// How it is started with these files.
    pub(crate) fn start(self, directory: &str) -> String {
        match self {
            Self::Mosquitto => format!("mosquitto -c {directory}/mosquitto.conf"),
            Self::Nats => format!("nats-server -c {directory}/nats.conf"),
            Self::Rabbitmq => format!(
                "RABBITMQ_CONFIG_FILE={directory}/rabbitmq.conf RABBITMQ_ENABLED_PLUGINS_FILE={directory}/enabled_plugins rabbitmq-server"
            ),
            Self::Emqx => format!("copy {directory}/emqx.conf and acl.conf to EMQX's etc folder, and start emqx"),
        }
    }
}

/// The files of a broker's configuration.
///
/// # Errors
/// The broker cannot serve this site, or not in this way.
pub(crate) fn config(kind: Kind, wanted: &Wanted) -> Result<Vec<ConfigFile>, Unsupported> {
    if wanted.proof == Proof::Passwords && kind != Kind::Mosquitto {
        return Err(Unsupported::Passwords);
    }
    match kind {
        Kind::Mosquitto => Ok(mosquitto::files(wanted)),
        Kind::Nats => nats::files(wanted),
        Kind::Rabbitmq => Ok(rabbitmq::files(wanted)),
        Kind::Emqx => Ok(emqx::files(wanted)),
    }
}

/// What a node publishes: rows of its own.
fn node_writes() -> impl Iterator<Item = &'static TopicSpec> {
    TOPICS.iter().filter(|spec| spec.direction.is_from_agent())
}

/// What a node reads: rows of its own, and of all.
fn node_reads() -> impl Iterator<Item = &'static TopicSpec> {
    TOPICS.iter().filter(|spec| spec.direction.is_to_agents())
}

/// A topic of the table below the site, with the broker's own text for the node's name, and for the levels of content.
fn topic(site: &SiteName, spec: &TopicSpec, node: &str, any: &str) -> String {
    let below = match spec.kind {
        TopicKind::Blob => format!("blob/{any}/{any}"),
        TopicKind::Node(_) | TopicKind::Planner => spec.pattern.replace("<node>", node),
    };
    format!("{}/{below}", groundplan_protocol::topic::prefix(site))
}

/// The first lines of a file, in comments.
fn head(comment: &str, wanted: &Wanted) -> String {
    let Wanted { site, .. } = wanted;
    format!(
        "{comment} The broker of the groundplan site `{site}`. Written by `groundplan broker config`; run it again instead of editing this.\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(super) fn wanted() -> Wanted {
        Wanted {
            site: SiteName::new("cloud-1").unwrap(),
            nodes: ["db", "web-0"].map(|node| NodeId::new(node).unwrap()).to_vec(),
            planners: vec!["planner".to_owned()],
            observers: vec!["observer".to_owned()],
            listen: ([0, 0, 0, 0], 8883).into(),
            proof: Proof::Certificates,
            directory: "/etc/groundplan-broker".to_owned(),
            data: "/var/lib/broker".to_owned(),
            ca: "/etc/groundplan-broker/ca.pem".to_owned(),
            cert: "/etc/groundplan-broker/broker.pem".to_owned(),
            key: "/etc/groundplan-broker/broker-key.pem".to_owned(),
        }
    }

    fn shown(kind: Kind, wanted: &Wanted) -> String {
        let files = config(kind, wanted).unwrap();
        files.iter().map(|file| format!("=== {}\n{}", file.name, file.text)).collect()
    }

    #[test]
    fn each_broker_s_files() {
        for kind in [Kind::Mosquitto, Kind::Nats, Kind::Rabbitmq, Kind::Emqx] {
            insta::assert_snapshot!(kind.name(), shown(kind, &wanted()));
        }
        let passwords = Wanted { proof: Proof::Passwords, ..wanted() };
        insta::assert_snapshot!("mosquitto_passwords", shown(Kind::Mosquitto, &passwords));
    }

    #[test]
    fn every_topic_of_a_node_is_granted_once() {
        assert_eq!(node_writes().count() + node_reads().count(), TOPICS.len());
    }

    #[test]
    fn what_a_broker_cannot_do_is_said() {
        let dotted = Wanted { nodes: vec![NodeId::new("db.example.org").unwrap()], ..wanted() };
        assert!(matches!(config(Kind::Nats, &dotted), Err(Unsupported::Dot(_))));
        let passwords = Wanted { proof: Proof::Passwords, ..wanted() };
        assert_eq!(config(Kind::Emqx, &passwords), Err(Unsupported::Passwords));
    }
}
