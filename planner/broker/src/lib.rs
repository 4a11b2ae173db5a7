//! The embedded MQTT 3.1.1 broker, for `groundplan up` and small sites.
//!
//! In: [`Config`] and a [`Policy`]. Out: listeners that serve MQTT 3.1.1 (OASIS, 2014) at QoS 0 and 1: retained
//! messages, persistent sessions, last wills; mutual TLS, user names with passwords, or a unix socket for processes of the same user, each
//! of which proves a name that the policy binds to the client id.
//! All state is in memory and ends with the process: **the broker is a cache**; after a restart, clients find no session
//! and publish everything again. Queues are bounded. A full one ends its session, so that the client notices: no QoS 1
//! message is dropped silently. Overlapping subscriptions deliver once, with the greatest QoS granted. A QoS 2 publish,
//! a refused publish (3.1.1 has no negative PUBACK) and any protocol error close the connection.
//! Never: QoS 2, MQTT 5, bridges, `$SYS`, files other than those of its certificates. `tests/suite/broker` tests it and Mosquitto alike.

mod access;
mod codec;
mod connection;
mod filter;
mod limits;
mod listen;
mod log_limit;
mod pending;
mod policy;
mod retained;
mod session;
mod shared;
mod state;
mod subscriptions;
mod tls;

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
};

use self::shared::{Shared, lock};
pub use self::{
    access::{Access, Config, Listener, LocalSocket},
    filter::{Filter, MAX_LEVELS, Malformed, Topic},
    limits::{Limits, Stats},
    listen::BrokerError,
    policy::{AllowAll, Client, Passwords, Peer, Policy, Publication, Refusal, SitePolicy},
    tls::{ServerTls, TlsError},
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::watch,
    task::JoinSet,
    time::Instant,
};

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
        let log = Arc::new(log_limit::LogLimit::default());
        let shared = Arc::new(Shared {
            state: Mutex::new(state::State::new(Arc::clone(&limits), Arc::clone(&log))),
            pending: Mutex::new(pending::Pending::new(&limits)),
            log,
            limits,
            policy,
            connections: AtomicUsize::new(0),
            anonymous: AtomicU64::new(1),
            refused: AtomicU64::new(0),
        });
        let mut bound = Vec::new();
        for Listener { address, access } in config.listeners {
            bound.push((listen::bind(address)?, access));
        }
        let socket = match config.socket {
            Some(socket) => Some((listen::bind_socket(&socket.path)?, socket.name)),
            None => None,
        };
        let (stop, stopped) = watch::channel(());
        let (mut listeners, mut addresses) = (JoinSet::new(), Vec::new());
        for ((listener, address), access) in bound {
            tracing::info!(%address, ?access, "broker listens");
            addresses.push(address);
            listeners.spawn(listen::accept(Arc::clone(&shared), listener, access, stopped.clone()));
        }
        if let Some((listener, name)) = socket {
            listeners.spawn(listen::accept_local(Arc::clone(&shared), listener, name.into(), stopped.clone()));
        }
        Ok(Self { shared, addresses, stop, listeners })
    }

    /// The addresses that it listens on, in the order of the configuration, with their actual ports.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Current counts. Walks all sessions: for status and tests, not for every message.
    pub fn stats(&self) -> Stats {
        let stats = lock(&self.shared.state).stats();
        Stats {
            connections: self.shared.connections.load(Ordering::Relaxed),
            refused: self.shared.refused.load(Ordering::Relaxed),
            ..stats
        }
    }

    /// Serves a client whose bytes come from `stream`, until its connection ends. For fuzzing: without a listener, nothing bounds the
    /// number of these connections.
    #[doc(hidden)]
    pub async fn serve_stream<S: AsyncRead + AsyncWrite + Unpin>(&self, stream: S, peer: Peer) {
        let deadline = Instant::now() + self.shared.limits.connect_timeout;
        connection::serve(&self.shared, stream, peer, connection::Proof::Given, deadline, None).await;
    }

    /// Closes all listeners and connections and waits until they are closed. The state is lost.
    pub async fn stop(self) {
        let Self { stop, mut listeners, .. } = self;
        drop(stop);
        while listeners.join_next().await.is_some() {}
    }
}
