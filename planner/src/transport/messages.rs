//! What goes between the handle and the connection's task.

use bytes::Bytes;
use tokio::sync::OwnedSemaphorePermit;

use super::outbox::Outgoing;

/// What comes from the broker.
#[derive(Debug)]
pub enum Incoming {
    /// Connected and subscribed. Nothing but what is urgent leaves before the outbox is opened.
    Ready {
        /// Whether the broker has lost this planner's session: everything has to be published again.
        fresh: bool,
        /// Whether retained messages are on their way.
        replay: bool,
    },
    /// The connection has ended, or could not be made; the next attempt follows.
    Lost {
        /// The client's error, as text for people.
        error: String,
    },
    /// A message on one of the subscribed topics.
    Message {
        /// The full topic name, not checked yet.
        topic: String,
        /// The sealed envelope, not verified yet.
        payload: Bytes,
        /// To be given back when its effect is on the disk.
        receipt: Receipt,
        /// What it takes of the memory for messages; dropped with it.
        room: Room,
    },
}

/// A share of the memory for messages that are not dealt with yet.
#[derive(Debug)]
pub struct Room(#[expect(dead_code, reason = "given back when it is dropped")] pub(super) OwnedSemaphorePermit);

/// Entitles to acknowledge one message on the connection that it came on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Receipt {
    pub(super) connection: u64,
    pub(super) packet: u16,
}

/// What is to be done on the connection.
pub(super) enum Command {
    Publish {
        message: Outgoing,
        urgent: bool,
    },
    Acknowledge(Receipt),
    /// Has the broker send the retained messages of these topics again.
    Replay(Vec<String>),
    Open,
    Stop,
}
