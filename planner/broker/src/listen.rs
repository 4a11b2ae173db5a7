//! Listeners: one task each, which accepts connections.
//!
//! In: TCP connections. Out: a task per connection, which does the TLS handshake and waits for CONNECT under one
//! deadline, so that a silent or slow client delays no other. Ends, with its connections, when the broker stops.

use std::{
    error::Error,
    fs, io,
    net::SocketAddr,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use tokio::{
    net::{TcpListener, TcpSocket, TcpStream, UnixListener},
    sync::{Notify, watch},
    task::{JoinSet, unconstrained, yield_now},
    time::{Instant, sleep, timeout_at},
};
use tokio_rustls::TlsAcceptor;

use super::{
    access::Access,
    connection::{End, Proof, Served, serve},
    log_limit::warn_limited,
    policy::Peer,
    shared::{Place, Shared, lock},
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
        source: io::Error,
    },
    /// The unix socket cannot be made.
    #[error("cannot listen on the unix socket {}", path.display())]
    Socket {
        /// Its path.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
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

/// Binds a unix socket that only this user can connect to.
pub(crate) fn bind_socket(path: &Path) -> Result<UnixListener, BrokerError> {
    let listen = || {
        // One that an earlier process left.
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let listener = UnixListener::bind(path)?;
        // Whoever connects before this is checked all the same: see `accept_local`.
        fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
        Ok(listener)
    };
    listen().map_err(|source| BrokerError::Socket { path: path.to_owned(), source })
}

/// Accepts until the broker stops.
///
/// Runs without tokio's budget: beside thousands of busy connections, the task would be scheduled too rarely to keep up
/// with a fleet that reconnects. It yields after each [`TURN`] instead.
pub(crate) async fn accept(shared: Arc<Shared>, listener: TcpListener, access: Access, stopped: watch::Receiver<()>) {
    unconstrained(accept_in_turns(shared, listener, access, stopped)).await;
}

async fn accept_in_turns(shared: Arc<Shared>, listener: TcpListener, access: Access, mut stopped: watch::Receiver<()>) {
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
                        warn_limited!(shared.log, %address, "connection refused: too many connections");
                        continue;
                    }
                    let Ok((number, displaced)) = lock(&shared.pending).enter(address.ip(), Instant::now().into_std()) else {
                        warn_limited!(shared.log, %address, "connection refused: too many without a CONNECT yet");
                        continue;
                    };
                    let place = Place { shared: Arc::clone(&shared), number };
                    let slot = (slot, place, displaced);
                    connections.spawn(connection(slot, stream, address, access.clone(), stopped.clone()));
                }
                Err(error) => {
                    warn_limited!(shared.log, %error, "cannot accept a connection");
                    sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }
    drop(listener);
    while connections.join_next().await.is_some() {}
}

/// Accepts on a unix socket until the broker stops: only processes of this user, which all have this name. They count for no limit of
/// connections, so that no flood on another listener keeps them out.
pub(crate) async fn accept_local(
    shared: Arc<Shared>,
    listener: UnixListener,
    name: Arc<str>,
    mut stopped: watch::Receiver<()>,
) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            _ = stopped.changed() => break,
            Some(_) = connections.join_next() => {}
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    // The kernel's word, whatever the modes of the path are.
                    let own = stream.peer_cred().is_ok_and(|peer| peer.uid() == own_uid());
                    if !own {
                        warn_limited!(shared.log, "connection to the unix socket refused: another user's");
                        continue;
                    }
                    let (shared, name, mut stopped) = (Arc::clone(&shared), Arc::clone(&name), stopped.clone());
                    connections.spawn(async move {
                        let deadline = Instant::now() + shared.limits.connect_timeout;
                        let peer = Peer { address: None, names: Some([name.to_string()].into()) };
                        let served = tokio::select! {
                            served = serve(&shared, stream, peer, Proof::Given, deadline, None) => served,
                            _ = stopped.changed() => return,
                        };
                        report(&shared, served, "unix socket");
                    });
                }
                Err(error) => {
                    warn_limited!(shared.log, %error, "cannot accept a connection to the unix socket");
                    sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }
    drop(listener);
    while connections.join_next().await.is_some() {}
}

/// This process's effective user.
fn own_uid() -> u32 {
    nix::unistd::geteuid().as_raw()
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
    (slot, place, displaced): (Slot, Place, Arc<Notify>),
    stream: TcpStream,
    address: SocketAddr,
    access: Access,
    mut stopped: watch::Receiver<()>,
) {
    let shared = &slot.shared;
    let deadline = Instant::now() + shared.limits.connect_timeout;
    // Most clients wait for small answers. Without the option they arrive a little later, which is no error.
    drop(stream.set_nodelay(true));
    let place = Some(place);
    let served = async {
        let address = Some(address);
        let (tls, proof) = match access {
            Access::Open => (None, Proof::Given),
            Access::Passwords(passwords) => (None, Proof::Password(passwords)),
            Access::Certificates(tls) => (Some(tls), Proof::Given),
        };
        let Some(tls) = tls else {
            return serve(shared, stream, Peer { address, names: None }, proof, deadline, place).await;
        };
        match timeout_at(deadline, TlsAcceptor::from(tls.config()).accept(stream)).await {
            Err(_) => Served { client: None, end: End::NoConnect },
            Ok(Err(error)) => Served { client: None, end: End::Io(error) },
            Ok(Ok(stream)) => {
                let certificates = stream.get_ref().1.peer_certificates().unwrap_or_default();
                let names = certificates.first().map(tls::names).unwrap_or_default();
                serve(shared, stream, Peer { address, names: Some(names) }, proof, deadline, place).await
            }
        }
    };
    let served = tokio::select! {
        served = served => served,
        // Given only before the client is admitted: with its place, it leaves the list.
        () = displaced.notified() => Served { client: None, end: End::Displaced },
        _ = stopped.changed() => return,
    };
    report(shared, served, &address.to_string());
}

/// Logs how a connection ended, if an operator may want to know it.
fn report(shared: &Shared, Served { client, end }: Served, address: &str) {
    let client = client.as_deref().unwrap_or("(not connected)");
    let cause = causes(&end);
    match end {
        End::Disconnect | End::Closed | End::Io(_) | End::KeepAlive(_) => {
            tracing::debug!(client, %address, "connection ended: {cause}");
        }
        End::Refused { .. } => {
            shared.refused.fetch_add(1, Ordering::Relaxed);
            warn_limited!(shared.log, client, %address, "connection closed: {cause}");
        }
        End::NoConnect | End::Displaced | End::Protocol(_) | End::Ended(_) | End::NoClientId => {
            warn_limited!(shared.log, client, %address, "connection closed: {cause}");
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
