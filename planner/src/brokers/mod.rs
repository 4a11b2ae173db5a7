//! Configurations of brokers that people have: TLS, access rights from the topic table, sizes and queues.
//!
//! In: the site's name and nodes, and where files will be. Out: the texts of the configuration's files. Each lets a client do what
//! [`TOPICS`] says and nothing else, and binds its client id to the name in its certificate, or says where the broker cannot. No IO.

mod emqx;
mod mosquitto;
mod nats;
mod rabbitmq;
mod wanted;

pub(crate) use self::wanted::{ConfigFile, Proof, Unsupported, Wanted};

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

#[cfg(test)]
mod tests {
    use groundplan_protocol::{
        ids::{NodeId, SiteName},
        topic::TOPICS,
    };

    use super::{
        wanted::{node_reads, node_writes},
        *,
    };

    fn wanted() -> Wanted {
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
