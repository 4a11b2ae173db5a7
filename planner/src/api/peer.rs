//! Which user is at the other end of the socket, as the kernel reports it.

use axum::{extract::connect_info::Connected, serve::IncomingStream};
use nix::unistd::{Uid, User};
use tokio::net::UnixListener;

/// A client's user, by name where there is one.
#[derive(Debug, Clone)]
pub(super) struct Peer(pub(super) String);

impl Connected<IncomingStream<'_, UnixListener>> for Peer {
    fn connect_info(stream: IncomingStream<'_, UnixListener>) -> Self {
        let Ok(peer) = stream.io().peer_cred() else { return Self("an unknown user".to_owned()) };
        let user = User::from_uid(Uid::from_raw(peer.uid())).ok().flatten();
        Self(user.map_or_else(|| format!("user {}", peer.uid()), |user| user.name))
    }
}
