//! Where a broker listens, and how clients prove their names there.

use std::{net::SocketAddr, path::PathBuf, sync::Arc};

use super::{limits::Limits, policy::Passwords, tls::ServerTls};

/// Listeners and limits of a broker.
#[derive(Debug, Clone, Default)]
pub struct Config {
    /// Addresses to listen on; without any, no client can connect.
    pub listeners: Vec<Listener>,
    /// A unix socket for processes of this user, which counts for no limit of connections.
    pub socket: Option<LocalSocket>,
    /// What clients may use.
    pub limits: Limits,
}

/// One address to listen on.
#[derive(Debug, Clone)]
pub struct Listener {
    /// The address; port 0 stands for a free one, see [`Broker::addresses`].
    pub address: SocketAddr,
    /// How clients prove their names.
    pub access: Access,
}

/// How the clients of a listener prove their names.
#[derive(Debug, Clone)]
pub enum Access {
    /// Not at all: client ids are not verified. For tests.
    Open,
    /// By a certificate, over TLS.
    Certificates(Arc<ServerTls>),
    /// By a password, in clear: for loopback addresses.
    Passwords(Arc<dyn Passwords>),
}

/// A unix socket for processes of this user.
#[derive(Debug, Clone)]
pub struct LocalSocket {
    /// Its path; what is there is replaced.
    pub path: PathBuf,
    /// The name that its clients have, such as `planner`.
    pub name: String,
}
