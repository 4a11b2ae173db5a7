//! The planner's connection to the broker: MQTT 3.1.1, QoS 1, a persistent session.
//!
//! In: messages to publish, receipts of what is on the disk. Out: messages of the site, and whether there is a connection. Publishing
//! never blocks and never fails: the outbox holds one message a topic, the latest, so it is bounded by the number of topics and of the
//! orders of which each counts. Only `urgent` messages leave before the loop opens the outbox: it first makes sure that no other planner
//! has taken over. A client of rumqttc is used for one connection; what it had in flight is kept here.

mod access;
mod backlog;
mod connection;
mod messages;
mod outbox;
mod settings;

use std::sync::Arc;

use bytes::Bytes;
use groundplan_protocol::{
    ids::{NodeId, SiteName},
    topic::{TOPICS, Topic, TopicKind},
};
use tokio::sync::mpsc;

pub(crate) use self::access::prove;
pub use self::messages::{Incoming, Receipt, Room};
use self::outbox::{Counts, Outgoing};
pub use self::{access::TransportError, settings::Settings};
use self::{backlog::Backlog, messages::Command};

/// The handle that the loop holds.
#[derive(Clone)]
pub struct Transport {
    commands: mpsc::UnboundedSender<Command>,
    backlog: Arc<Backlog>,
}

impl Transport {
    /// Bytes of payload that have not arrived at the broker, counted from the call that publishes them.
    pub fn backlog(&self) -> usize {
        self.backlog.bytes()
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
            TopicKind::Planner | TopicKind::Heartbeat | TopicKind::Blob => None,
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
        if let Command::Publish { message, .. } = &command {
            self.backlog.queued(message.payload.len());
        }
        // The task ends only after `Stop`, when nothing matters any more.
        let _ = self.commands.send(command);
    }
}

/// Starts the task that keeps the connection. What comes in waits in `incoming`, which holds back the broker when it is full.
pub fn start(settings: Settings, incoming: mpsc::Sender<Incoming>) -> (Transport, tokio::task::JoinHandle<()>) {
    let (commands, receiver) = mpsc::unbounded_channel();
    let backlog = Arc::new(Backlog::default());
    let run = connection::run(settings, receiver, incoming, backlog.clone());
    (Transport { commands, backlog }, tokio::spawn(run))
}
