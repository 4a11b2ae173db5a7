//! The planner's connection to the broker: MQTT 3.1.1, QoS 1, a persistent session.
//!
//! In: messages to publish, receipts of what is on the disk. Out: messages of the site, and whether there is a connection. Publishing
//! never blocks and never fails: the outbox holds one message a topic, the latest, so it is bounded by the number of topics and of the
//! orders of which each counts. Only `urgent` messages leave before the loop opens the outbox: it first makes sure that no other planner
//! has taken over. A client of rumqttc is used for one connection; what it had in flight is kept here.

mod access;
mod connection;
mod messages;
mod outbox;

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use bytes::Bytes;
use groundplan_protocol::{
    ids::{NodeId, SiteName},
    topic::{TOPICS, Topic, TopicKind, planner_filters},
};
use rumqttc::{LastWill, MqttOptions, QoS, Transport as RumqttTransport};
use tokio::sync::mpsc;

pub(crate) use self::access::prove;
use self::messages::Command;
pub use self::messages::{Incoming, Receipt};
use self::outbox::{Counts, Outgoing};
use crate::config::{BrokerLogin, BrokerTls, ServeConfig};

/// Why no connection can even be tried.
#[derive(Debug, thiserror::Error)]
pub enum TransportError {
    /// A file for TLS cannot be read.
    #[error("cannot read {}", path.display())]
    File {
        /// The file.
        path: std::path::PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// `mqtts://` without, or `mqtt://` with, files for TLS.
    #[error("an `mqtts://` broker needs the certificate of its authority, and only such a broker takes one")]
    Tls,
    /// The broker's password cannot be read.
    #[error("cannot read the broker's password")]
    Password(#[source] std::io::Error),
}

/// The handle that the loop holds.
#[derive(Clone)]
pub struct Transport {
    commands: mpsc::UnboundedSender<Command>,
    backlog: Arc<AtomicUsize>,
}

impl Transport {
    /// Bytes of payload that have not arrived at the broker.
    pub fn backlog(&self) -> usize {
        self.backlog.load(Ordering::Relaxed)
    }

    /// Publishes when the connection is open; a later message on the same topic replaces one that has not left.
    pub fn publish(&self, topic: String, payload: impl Into<Bytes>, retain: bool) {
        let message = Outgoing { topic, payload: payload.into(), retain, counts: Counts::Latest };
        self.send(Command::Publish { message, urgent: false });
    }

    /// Publishes when the connection is open, in the order given, and in place of nothing; unless it may be `late`, on this connection
    /// or not at all.
    pub fn publish_each(&self, topic: String, payload: impl Into<Bytes>, late: bool) {
        let counts = if late { Counts::Each } else { Counts::Now };
        let message = Outgoing { topic, payload: payload.into(), retain: false, counts };
        self.send(Command::Publish { message, urgent: false });
    }

    /// Publishes as soon as there is a connection, open or not; lost with it.
    pub fn publish_urgent(&self, topic: String, payload: impl Into<Bytes>, retain: bool) {
        let message = Outgoing { topic, payload: payload.into(), retain, counts: Counts::Latest };
        self.send(Command::Publish { message, urgent: true });
    }

    /// Acknowledges a message to the broker.
    pub fn acknowledge(&self, receipt: Receipt) {
        self.send(Command::Acknowledge(receipt));
    }

    /// Has the broker send the retained messages of a node again, if there is a connection: a new one brings them in any case, or comes with
    /// a session in which they wait.
    pub fn replay(&self, site: &SiteName, node: &NodeId) {
        let retained = TOPICS.iter().filter(|spec| spec.is_retained() && spec.direction.is_to_planners());
        let topics = retained.filter_map(|spec| match spec.kind {
            TopicKind::Node(topic) => Some(Topic::Node(node.clone(), topic).name(site)),
            TopicKind::Planner | TopicKind::Blob => None,
        });
        self.send(Command::Replay(topics.collect()));
    }

    /// Lets the outbox flow on the connection that there is.
    pub fn open(&self) {
        self.send(Command::Open);
    }

    /// Sends what is urgent, disconnects and ends; what is left in the outbox is dropped.
    pub fn stop(&self) {
        self.send(Command::Stop);
    }

    fn send(&self, command: Command) {
        // The task ends only after `Stop`, when nothing matters any more.
        let _ = self.commands.send(command);
    }
}

/// Where to connect to, as whom, and what to leave behind.
pub struct Settings {
    /// Without certificates and password, which each connection reads from their files.
    options: MqttOptions,
    /// Whether the address is `mqtts://`.
    wants_tls: bool,
    tls: Option<BrokerTls>,
    login: Option<BrokerLogin>,
    filters: Vec<String>,
}

impl Settings {
    /// Settings of this planner for its site.
    ///
    /// # Errors
    /// Files for TLS or the password are missing.
    pub fn new(config: &ServeConfig, site: &SiteName, client: String, will: Vec<u8>) -> Result<Self, TransportError> {
        let mut options = match &config.embedded {
            // For a unix socket, the client takes its path for the host.
            Some(embedded) => MqttOptions::new(client, embedded.socket.to_string_lossy(), config.broker.port),
            None => MqttOptions::new(client, config.broker.host.clone(), config.broker.port),
        };
        options
            .set_clean_session(false)
            .set_keep_alive(connection::KEEP_ALIVE)
            .set_max_packet_size(groundplan_protocol::MAX_PACKET, groundplan_protocol::MAX_PACKET)
            .set_inflight(connection::IN_FLIGHT)
            .set_manual_acks(true)
            .set_last_will(LastWill::new(Topic::Planner.name(site), will, QoS::AtLeastOnce, true));
        let settings = match &config.embedded {
            Some(_) => {
                options.set_transport(RumqttTransport::unix());
                Self { options, wants_tls: false, tls: None, login: None, filters: planner_filters(site) }
            }
            None => Self {
                options,
                wants_tls: config.broker.tls,
                tls: config.tls.clone(),
                login: config.login.clone(),
                filters: planner_filters(site),
            },
        };
        settings.options()?;
        Ok(settings)
    }

    /// The options of the next connection.
    fn options(&self) -> Result<MqttOptions, TransportError> {
        let mut options = self.options.clone();
        prove(&mut options, self.wants_tls, self.tls.as_ref(), self.login.as_ref())?;
        Ok(options)
    }
}

/// Starts the task that keeps the connection. What comes in waits in `incoming`, which holds back the broker when it is full.
pub fn start(settings: Settings, incoming: mpsc::Sender<Incoming>) -> (Transport, tokio::task::JoinHandle<()>) {
    let (commands, receiver) = mpsc::unbounded_channel();
    let backlog = Arc::new(AtomicUsize::new(0));
    let run = connection::run(settings, receiver, incoming, backlog.clone());
    (Transport { commands, backlog }, tokio::spawn(run))
}
