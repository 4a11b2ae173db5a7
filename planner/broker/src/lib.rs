//! The embedded MQTT 3.1.1 broker, for `groundplan up` and small sites.
//!
//! In: [`Config`] and a [`Policy`]. Out: listeners that serve MQTT 3.1.1 (OASIS, 2014) at QoS 0 and 1: retained
//! messages, persistent sessions, last wills, mutual TLS with the certificate's name bound to the client id.
//! All state is in memory and goes with the process: **the broker is a cache** (DESIGN §5), clients see no session and
//! bring everything back. Queues are bounded; a full one ends its session, so that the client notices: nothing that
//! was promised is ever dropped silently. Overlapping subscriptions deliver once, with the greatest QoS granted.
//! A QoS 2 publish, a refused publish (3.1.1 has no word for it) and whatever breaks the protocol close the connection.
//! Never: QoS 2, MQTT 5, bridges, `$SYS`, passwords, anything on disk.
//! The same conformance suite (`tests/suite/broker`) runs against it and Mosquitto.

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

/// Where the broker listens, and within which bounds it works.
#[derive(Debug, Clone, Default)]
pub struct Config {
    /// At least one, to be of use.
    pub listeners: Vec<Listener>,
    /// The bounds.
    pub limits: Limits,
}

/// One address to listen on.
#[derive(Debug, Clone)]
pub struct Listener {
    /// The address; port 0 takes a free one, see [`Broker::addresses`].
    pub address: SocketAddr,
    /// Mutual TLS, made by [`server_config`]. `None` is plain TCP, where a client id is believed: loopback only.
    pub tls: Option<Arc<ServerConfig>>,
}

/// What a client may cost. A cap that is reached is logged with its client; none of them drops a message silently.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Largest packet from a client, in bytes after its fixed header. A larger one closes the connection.
    pub max_packet: usize,
    /// Connections at a time, those that have not said who they are included. One more is closed at once.
    pub max_connections: usize,
    /// Sessions, connected or kept. For one more, the kept one that is away for longest is ended.
    pub max_sessions: usize,
    /// Sessions of one identity: the first name of its certificate, or else its client id. As with `max_sessions`.
    pub max_sessions_per_identity: usize,
    /// Subscriptions of a session. One more is refused in the SUBACK.
    pub max_subscriptions: usize,
    /// Messages that wait for a client, in flight or not. One more ends its session. More than `max_retained_messages`,
    /// or nobody could subscribe to all of these.
    pub max_queued_messages: usize,
    /// Their bytes, topic and payload. Messages of the retained store that a new subscription brings do not count.
    pub max_queued_bytes: usize,
    /// QoS 1 messages that a client may have in flight, unacknowledged; at most 65 534, for want of packet ids.
    pub max_in_flight: usize,
    /// Retained messages. One more closes its publisher's connection.
    pub max_retained_messages: usize,
    /// Their bytes, topic and payload. As above.
    pub max_retained_bytes: usize,
    /// From the TCP connection to the end of CONNECT, TLS included.
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

/// What the broker holds, and has done since its start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stats {
    /// TCP connections, those without a session included.
    pub connections: usize,
    /// Sessions, connected or kept.
    pub sessions: usize,
    /// Sessions with a connection.
    pub connected: usize,
    /// Subscriptions of all sessions.
    pub subscriptions: usize,
    /// Messages that wait for clients or are in flight to them.
    pub queued_messages: usize,
    /// Their bytes, as far as they count for the limits.
    pub queued_bytes: usize,
    /// Retained messages.
    pub retained_messages: usize,
    /// Their bytes.
    pub retained_bytes: usize,
    /// Messages published to the broker since its start, wills not counted.
    pub received: u64,
    /// Messages sent to clients since its start, each redelivery counted.
    pub sent: u64,
    /// Refusals by the policy, since its start.
    pub refused: u64,
    /// Sessions ended because their queue was full, since its start.
    pub sessions_ended_full: u64,
}

/// Why the broker could not start.
#[derive(Debug, thiserror::Error)]
pub enum BrokerError {
    /// An address is taken, or not of this machine.
    #[error("cannot listen on {address}")]
    Listen {
        /// Which.
        address: SocketAddr,
        /// Why not.
        #[source]
        source: io::Error,
    },
}

/// What all connections share.
struct Shared {
    state: Mutex<state::State>,
    limits: Arc<Limits>,
    policy: Arc<dyn Policy>,
    connections: AtomicUsize,
    anonymous: AtomicU64,
    refused: AtomicU64,
}

/// A running broker. Dropped, it stops as well, without waiting for the end.
pub struct Broker {
    shared: Arc<Shared>,
    addresses: Vec<SocketAddr>,
    /// Its value is of no matter: listeners and connections end when it is gone.
    stop: watch::Sender<()>,
    listeners: JoinSet<()>,
}

impl Broker {
    /// Listens on every address of `config`. Once this returns, clients can connect.
    ///
    /// # Errors
    /// An address that cannot be listened on; then none is.
    pub async fn start(config: Config, policy: Arc<dyn Policy>) -> Result<Self, BrokerError> {
        // What MQTT has packet ids for.
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

    /// The addresses that it listens on, in the order of the configuration, with the ports that were taken.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Counts what there is. Walks all sessions: for status and tests, not for every message.
    pub fn stats(&self) -> Stats {
        let stats = connection::lock(&self.shared.state).stats();
        Stats {
            connections: self.shared.connections.load(Ordering::Relaxed),
            refused: self.shared.refused.load(Ordering::Relaxed),
            ..stats
        }
    }

    /// Closes all listeners and connections, and waits until they are closed. The state is gone with it.
    pub async fn stop(self) {
        let Self { stop, mut listeners, .. } = self;
        drop(stop);
        while listeners.join_next().await.is_some() {}
    }
}
