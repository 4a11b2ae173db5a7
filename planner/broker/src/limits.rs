//! What clients may use, and what they do use.

use std::time::Duration;

/// What clients may use. A limit that is reached is logged with its client; none of them drops a message silently.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Largest packet from a client, in bytes after its fixed header. A larger one closes the connection.
    pub max_packet: usize,
    /// Connections at a time over TCP, including those without a CONNECT yet. One more is closed at once.
    pub max_connections: usize,
    /// Of those, connections whose CONNECT was not accepted yet. One more closes the oldest of them, if that is older than
    /// [`Limits::grace`]; if not, it is closed itself.
    pub max_pending: usize,
    /// Of those, connections from one address. One more closes the oldest of that address.
    pub max_pending_per_address: usize,
    /// How long a connection may take to its CONNECT before one of another address may take its place.
    pub grace: Duration,
    /// Sessions, with or without a connection. One more ends the session that has been without one for longest.
    pub max_sessions: usize,
    /// Sessions of one identity: the first name that it has proved, or else its client id. One more acts as for
    /// `max_sessions`. Several planners may share a name.
    pub max_sessions_per_identity: usize,
    /// Subscriptions of a session. One more is refused in the SUBACK.
    pub max_subscriptions: usize,
    /// Messages that wait for a client, in flight or not. One more ends its session. Must exceed
    /// `max_retained_messages`, or no client could subscribe to all retained messages.
    pub max_queued_messages: usize,
    /// Bytes of those messages, topic and payload. Retained messages that a new subscription delivers do not count.
    pub max_queued_bytes: usize,
    /// Unacknowledged QoS 1 messages in flight to a client; at most 65 534, the number of packet ids.
    pub max_in_flight: usize,
    /// Retained messages. One more closes its publisher's connection.
    pub max_retained_messages: usize,
    /// Bytes of the retained messages, topic and payload. One more closes its publisher's connection.
    pub max_retained_bytes: usize,
    /// Time from the TCP connection to the end of CONNECT, including TLS.
    pub connect_timeout: Duration,
}

impl Limits {
    /// The default limits, for a process that may have that many file descriptors: a quarter of them, at least 128, is left to others, such
    /// as the planner's store and its `git`.
    pub fn within(descriptors: usize) -> Self {
        let limits = Self::default();
        let max_connections = limits.max_connections.min(descriptors.saturating_sub((descriptors / 4).max(128)).max(8));
        Self {
            max_connections,
            max_pending: max_connections / 4,
            max_pending_per_address: max_connections / 8,
            max_sessions: limits.max_sessions,
            ..limits
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_packet: 4 << 20,
            max_connections: 20_000,
            max_pending: 5_000,
            max_pending_per_address: 2_500,
            grace: Duration::from_secs(1),
            max_sessions: 20_000,
            max_sessions_per_identity: 16,
            max_subscriptions: 256,
            max_queued_messages: 200_000,
            max_queued_bytes: 128 << 20,
            max_in_flight: 256,
            max_retained_messages: 100_000,
            max_retained_bytes: 512 << 20,
            connect_timeout: Duration::from_secs(10),
        }
    }
}

/// Counts of what the broker holds, and of what it has done since its start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stats {
    /// TCP connections, including those without a session.
    pub connections: usize,
    /// Sessions, with or without a connection.
    pub sessions: usize,
    /// Sessions with a connection.
    pub connected: usize,
    /// Subscriptions of all sessions.
    pub subscriptions: usize,
    /// Messages that wait for clients or are in flight to them.
    pub queued_messages: usize,
    /// Bytes of those messages, as far as they count for the limits.
    pub queued_bytes: usize,
    /// How many topics have a retained message.
    pub retained_messages: usize,
    /// Bytes of the retained messages, topic and payload.
    pub retained_bytes: usize,
    /// Messages published to the broker since its start, without wills.
    pub received: u64,
    /// Messages sent to clients since its start, including redeliveries.
    pub sent: u64,
    /// Refusals by the policy since its start.
    pub refused: u64,
    /// Sessions ended because of a full queue since its start.
    pub sessions_ended_full: u64,
}
