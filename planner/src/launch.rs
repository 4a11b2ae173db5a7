//! Starts a planner or an embedded broker in this process, for `groundplan serve` and `groundplan up`.
//!
//! In: a configuration or an address. Out: a running part, or a failure with a hint for the command line.

use std::{net::SocketAddr, sync::Arc};

use groundplan_broker::{self as broker, Broker};

use crate::{config::ServeConfig, serve, terminal::Failure};

/// The runtime of a planner and what runs beside it: two threads, so that the broker is served while the planner is busy.
///
/// # Errors
/// The system has no threads or descriptors left.
pub(crate) fn runtime() -> Result<tokio::runtime::Runtime, Failure> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(|e| Failure::because("cannot start the asynchronous runtime", e))
}

/// Runs a planner until `stop` resolves.
///
/// # Errors
/// It cannot start with this configuration, or it failed later.
pub(crate) async fn planner(
    config: ServeConfig,
    stop: impl Future<Output = ()> + Send + 'static,
) -> Result<(), Failure> {
    serve::run(config, stop).await.map_err(|e| {
        let hint = e.hint();
        Failure::because("the planner has stopped", e).maybe_hint(hint)
    })
}

/// Starts the embedded broker on one loopback address, without authentication.
///
/// # Errors
/// The address is not loopback, or cannot be bound.
pub(crate) async fn embedded_broker(address: SocketAddr) -> Result<Broker, Failure> {
    if !address.ip().is_loopback() {
        return Err(Failure::new(format!("{address} is not a loopback address")).hint(
            "the embedded broker has no TLS: listen on 127.0.0.1, or run a separate broker and use --broker mqtts://",
        ));
    }
    let listener = broker::Listener { address, tls: None };
    let config = broker::Config { listeners: vec![listener], ..Default::default() };
    Broker::start(config, Arc::new(broker::AllowAll)).await.map_err(|e| {
        Failure::because("cannot start the embedded broker", e).hint("choose another port; 0 means any free port")
    })
}
