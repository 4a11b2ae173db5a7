//! Starting sockets (systemd.socket(5)).
//!
//! systemd starts no socket while the service that it hands its file descriptors to runs. So that service is stopped with the
//! socket and started after it, and no connection comes to a service with the former descriptors.

use super::{
    error::SystemdError,
    unit::{Unit, show, show_all, systemctl},
};
use crate::host::kinds::context::Context;

/// Starts a socket with `verb`, or restarts it; services of it that run are restarted with it.
pub(super) async fn start(cx: &Context<'_>, socket: &str, verb: &str) -> Result<(), SystemdError> {
    let services = running(cx, socket).await?;
    let services: Vec<&str> = services.iter().map(Unit::name).collect();
    if services.is_empty() {
        return systemctl(cx, &[verb, socket]).await.map(drop);
    }
    // In one request: between two, a connection could start the service again.
    systemctl(cx, &[&["stop", socket], services.as_slice()].concat()).await?;
    let started = systemctl(cx, &["start", socket]).await;
    // What ran goes on, also without its socket.
    let again = systemctl(cx, &[&["start"], services.as_slice()].concat()).await;
    cx.report(&format!(
        "restarted with it: {}, because systemd starts no socket whose service runs",
        services.join(", ")
    ));
    started.and(again).map(drop)
}

/// The services of a socket that run.
async fn running(cx: &Context<'_>, socket: &str) -> Result<Vec<Unit>, SystemdError> {
    let socket = show(cx, socket).await?;
    // With `Accept=yes`, each connection has a service of its own, which the socket does not wait for.
    if socket.is("Accept", "yes") {
        return Ok(Vec::new());
    }
    let services = show_all(cx, &socket.names("Triggers").into_iter().collect()).await?;
    Ok(services.into_iter().filter(|service| service.is_up()).collect())
}
