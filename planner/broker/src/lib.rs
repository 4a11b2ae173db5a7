//! The embedded MQTT 3.1.1 broker, for `groundplan up` and small sites.
//!
//! In: [`Config`] and a [`Policy`]. Out: listeners that serve MQTT 3.1.1 (OASIS, 2014) at QoS 0 and 1: retained
//! messages, persistent sessions, last wills, mutual TLS with the certificate's name bound to the client id.
//! All state is in memory and ends with the process: **the broker is a cache**; after a restart, clients find no session
//! and publish everything again. Queues are bounded. A full one ends its session, so that the client notices: no QoS 1
//! message is dropped silently. Overlapping subscriptions deliver once, with the greatest QoS granted. A QoS 2 publish,
//! a refused publish (3.1.1 has no negative PUBACK) and any protocol error close the connection.
//! Never: QoS 2, MQTT 5, bridges, `$SYS`, passwords, files. `tests/suite/broker` tests it and Mosquitto alike.

mod codec;
mod connection;
mod filter;
mod listen;
mod policy;
mod retained;
mod session;
mod state;
mod subscriptions;
mod tls;

use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::{sync::watch, task::JoinSet};
use tokio_rustls::rustls::ServerConfig;

pub use self::{
    filter::{Filter, MAX_LEVELS, Malformed, Topic},
    policy::{AllowAll, Client, Peer, Policy, Refusal, SitePolicy},
    tls::{TlsError, server_config},
};

/// Listeners and limits of a broker.
#[derive(Debug, Clone, Default)]
pub struct Config {
    /// Addresses to listen on; without any, no client can connect.
    pub listeners: Vec<Listener>,
    /// What clients may use.
    pub limits: Limits,
}

/// One address to listen on.
#[derive(Debug, Clone)]
pub struct Listener {
    /// The address; port 0 stands for a free one, see [`Broker::addresses`].
    pub address: SocketAddr,
    /// Mutual TLS, from [`server_config`]. `None` is plain TCP, where client ids are not verified: loopback only.
    pub tls: Option<Arc<ServerConfig>>,
}

/// What clients may use. A limit that is reached is logged with its client; none of them drops a message silently.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Largest packet from a client, in bytes after its fixed header. A larger one closes the connection.
    pub max_packet: usize,
    /// Connections at a time, including those without a CONNECT yet. One more is closed at once.
    pub max_connections: usize,
    /// Sessions, with or without a connection. One more ends the session that has been without one for longest.
    pub max_sessions: usize,
    /// Sessions of one identity: the first name of its certificate, or else its client id. One more acts as for
    /// `max_sessions`.
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

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_packet: 4 << 20,
            max_connections: 20_000,
            max_sessions: 20_000,
            max_sessions_per_identity: 64,
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
    /// Retained messages.
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

/// Why the broker could not start.
#[derive(Debug, thiserror::Error)]
pub enum BrokerError {
    /// The address is in use, or not one of this machine.
    #[error("cannot listen on {address}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// The cause.
        #[source]
        source: io::Error,
    },
}

/// State that all connections share.
struct Shared {
    state: Mutex<state::State>,
    limits: Arc<Limits>,
    policy: Arc<dyn Policy>,
    connections: AtomicUsize,
    anonymous: AtomicU64,
    refused: AtomicU64,
}

/// A running broker. Dropping it stops it without waiting for its connections to close.
pub struct Broker {
    shared: Arc<Shared>,
    addresses: Vec<SocketAddr>,
    /// Carries no value: listeners and connections end when it is dropped.
    stop: watch::Sender<()>,
    listeners: JoinSet<()>,
}

impl Broker {
    /// Listens on every address of `config`. Once this returns, clients can connect.
    ///
    /// # Errors
    /// One of the addresses cannot be bound; then the broker listens on none.
    pub async fn start(config: Config, policy: Arc<dyn Policy>) -> Result<Self, BrokerError> {
        // A packet id is 1 to 65 535 (`[MQTT-2.3.1-1]`); more messages in flight than ids would stall the session.
        let max_in_flight = config.limits.max_in_flight.clamp(1, 65_534);
        let limits = Arc::new(Limits { max_in_flight, ..config.limits });
        let shared = Arc::new(Shared {
            state: Mutex::new(state::State::new(Arc::clone(&limits))),
            limits,
            policy,
            connections: AtomicUsize::new(0),
            anonymous: AtomicU64::new(1),
            refused: AtomicU64::new(0),
        });
        let mut bound = Vec::new();
        for Listener { address, tls } in config.listeners {
            bound.push((listen::bind(address)?, tls));
        }
        let (stop, stopped) = watch::channel(());
        let (mut listeners, mut addresses) = (JoinSet::new(), Vec::new());
        for ((listener, address), tls) in bound {
            tracing::info!(%address, tls = tls.is_some(), "broker listens");
            addresses.push(address);
            listeners.spawn(listen::accept(Arc::clone(&shared), listener, tls, stopped.clone()));
        }
        Ok(Self { shared, addresses, stop, listeners })
    }

    /// The addresses that it listens on, in the order of the configuration, with their actual ports.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Current counts. Walks all sessions: for status and tests, not for every message.
    pub fn stats(&self) -> Stats {
        let stats = connection::lock(&self.shared.state).stats();
        Stats {
            connections: self.shared.connections.load(Ordering::Relaxed),
            refused: self.shared.refused.load(Ordering::Relaxed),
            ..stats
        }
    }

    /// Closes all listeners and connections and waits until they are closed. The state is lost.
    pub async fn stop(self) {
        let Self { stop, mut listeners, .. } = self;
        drop(stop);
        while listeners.join_next().await.is_some() {}
    }
}
