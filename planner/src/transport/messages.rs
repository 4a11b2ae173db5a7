//! What goes between the handle and the connection's task.

use bytes::Bytes;

use super::outbox::Outgoing;

/// What comes from the broker.
#[derive(Debug)]
pub enum Incoming {
    /// Connected and subscribed. Nothing but what is urgent leaves before the outbox is opened.
    Ready {
        /// Whether the broker has lost what it knew of us: everything has to be published again.
        fresh: bool,
        /// Whether retained messages are on their way.
        replay: bool,
    },
    /// The connection is gone, or could not be made; the next attempt follows.
    Lost {
        /// Why.
        error: String,
    },
    /// A message.
    Message {
        /// Its topic.
        topic: String,
        /// Its payload.
        payload: Bytes,
        /// To be given back when its effect is on the disk.
        receipt: Receipt,
    },
}

/// Entitles to acknowledge one message on the connection that it came on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Receipt {
    pub(super) connection: u64,
    pub(super) packet: u16,
}

/// What is to be done on the connection.
pub(super) enum Command {
    Publish { message: Outgoing, urgent: bool },
    Acknowledge(Receipt),
    Open,
    Stop,
}
