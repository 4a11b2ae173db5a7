//! Listeners: one task each, which accepts and hands over.
//!
//! In: TCP connections. Out: a task per connection, which does the TLS handshake and everything after it under one
//! deadline: whoever is silent or slow holds up nobody else. Ends, and ends its connections, when the broker stops.

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
    BrokerError, Shared,
    connection::{End, Served, serve},
    policy::Peer,
    tls,
};

/// Pause after a failed accept: the usual cause, no file descriptors left, does not pass at once.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Connections that the kernel holds until they are accepted, as far as it lets us: a SYN too many is retried after a
/// second, which a fleet that reconnects would feel.
const BACKLOG: u32 = 4096;
/// Connections to accept, or to see gone, at one go.
const TURN: usize = 256;

/// Binds an address. Returns it with the port that was taken.
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
/// Without tokio's budget: with thousands of connections at work, it would have its turn too seldom to keep up with a
/// fleet that reconnects. It yields after each [`TURN`] instead.
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
            // An error is the only thing that ever comes: the sender is gone.
            _ = stopped.changed() => break,
            Some(_) = connections.join_next() => {}
            accepted = listener.accept() => match accepted {
                Ok((stream, address)) => {
                    let slot = Slot::new(&shared);
                    if slot.taken > shared.limits.max_connections {
                        tracing::warn!(%address, "connection refused: there are too many");
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

/// One of the connections that are counted.
struct Slot {
    shared: Arc<Shared>,
    /// How many there were with this one.
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
    // Small answers are all that most clients wait for. If it cannot be set, they wait a little longer.
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
    let client = client.as_deref().unwrap_or("(nobody yet)");
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

/// An error and what caused it, for one line of the log.
fn causes(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}
