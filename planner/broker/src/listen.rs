//! Listeners: one task each, which accepts connections.
//!
//! In: TCP connections. Out: a task per connection, which does the TLS handshake and waits for CONNECT under one
//! deadline, so that a silent or slow client delays no other. Ends, with its connections, when the broker stops.

use std::{
    error::Error,
    net::SocketAddr,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use tokio::{
    net::{TcpListener, TcpSocket, TcpStream},
    sync::watch,
    task::{JoinSet, unconstrained, yield_now},
    time::{Instant, sleep, timeout_at},
};
use tokio_rustls::{TlsAcceptor, rustls::ServerConfig};

use super::{
    connection::{End, Served, serve},
    policy::Peer,
    shared::Shared,
    tls,
};

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
        source: std::io::Error,
    },
}

/// Pause after a failed accept: the usual cause, too few file descriptors, lasts for a while.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Connections that the kernel queues until they are accepted, if `net.core.somaxconn` allows. Beyond it the client
/// repeats its SYN after a second, which would slow down a fleet that reconnects.
const BACKLOG: u32 = 4096;
/// Connections to accept or to reap before the task yields.
const TURN: usize = 256;

/// Binds an address. Returns the listener and its actual address.
pub(crate) fn bind(address: SocketAddr) -> Result<(TcpListener, SocketAddr), BrokerError> {
    let listen = || {
        let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        // A restart must not wait for the connections of the last run to time out.
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        let listener = socket.listen(BACKLOG)?;
        let address = listener.local_addr()?;
        Ok((listener, address))
    };
    listen().map_err(|source| BrokerError::Listen { address, source })
}

/// Accepts until the broker stops.
///
/// Runs without tokio's budget: beside thousands of busy connections, the task would be scheduled too rarely to keep up
/// with a fleet that reconnects. It yields after each [`TURN`] instead.
pub(crate) async fn accept(
    shared: Arc<Shared>,
    listener: TcpListener,
    tls: Option<Arc<ServerConfig>>,
    stopped: watch::Receiver<()>,
) {
    unconstrained(accept_in_turns(shared, listener, tls, stopped)).await;
}

async fn accept_in_turns(
    shared: Arc<Shared>,
    listener: TcpListener,
    tls: Option<Arc<ServerConfig>>,
    mut stopped: watch::Receiver<()>,
) {
    let tls = tls.map(TlsAcceptor::from);
    let (mut connections, mut turn) = (JoinSet::new(), 0);
    loop {
        turn += 1;
        if turn % TURN == 0 {
            yield_now().await;
        }
        tokio::select! {
            // Resolves only with the error that the sender was dropped: no value is ever sent.
            _ = stopped.changed() => break,
            Some(_) = connections.join_next() => {}
            accepted = listener.accept() => match accepted {
                Ok((stream, address)) => {
                    let slot = Slot::new(&shared);
                    if slot.taken > shared.limits.max_connections {
                        tracing::warn!(%address, "connection refused: too many connections");
                        continue;
                    }
                    connections.spawn(connection(slot, stream, address, tls.clone(), stopped.clone()));
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection");
                    sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }
    drop(listener);
    while connections.join_next().await.is_some() {}
}

/// Counts one connection for as long as it lives.
struct Slot {
    shared: Arc<Shared>,
    /// The number of connections, including this one.
    taken: usize,
}

impl Slot {
    fn new(shared: &Arc<Shared>) -> Self {
        let taken = shared.connections.fetch_add(1, Ordering::Relaxed) + 1;
        Self { shared: Arc::clone(shared), taken }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.shared.connections.fetch_sub(1, Ordering::Relaxed);
    }
}

async fn connection(
    slot: Slot,
    stream: TcpStream,
    address: SocketAddr,
    tls: Option<TlsAcceptor>,
    mut stopped: watch::Receiver<()>,
) {
    let shared = &slot.shared;
    let deadline = Instant::now() + shared.limits.connect_timeout;
    // Most clients wait for small answers. Without the option they arrive a little later, which is no error.
    drop(stream.set_nodelay(true));
    let served = async {
        let Some(tls) = tls else {
            return serve(shared, stream, Peer { address, certificate: None }, deadline).await;
        };
        match timeout_at(deadline, tls.accept(stream)).await {
            Err(_) => Served { client: None, end: End::NoConnect },
            Ok(Err(error)) => Served { client: None, end: End::Io(error) },
            Ok(Ok(stream)) => {
                let certificates = stream.get_ref().1.peer_certificates().unwrap_or_default();
                let names = certificates.first().map(tls::names).unwrap_or_default();
                serve(shared, stream, Peer { address, certificate: Some(names) }, deadline).await
            }
        }
    };
    let Served { client, end } = tokio::select! {
        served = served => served,
        _ = stopped.changed() => return,
    };
    let client = client.as_deref().unwrap_or("(not connected)");
    let cause = causes(&end);
    match end {
        End::Disconnect | End::Closed | End::Io(_) | End::KeepAlive(_) => {
            tracing::debug!(client, %address, "connection ended: {cause}");
        }
        End::Refused { .. } => {
            shared.refused.fetch_add(1, Ordering::Relaxed);
            tracing::warn!(client, %address, "connection closed: {cause}");
        }
        End::NoConnect | End::Protocol(_) | End::Ended(_) | End::NoClientId => {
            tracing::warn!(client, %address, "connection closed: {cause}");
        }
    }
}

/// An error and its chain of causes, on one line.
fn causes(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}
