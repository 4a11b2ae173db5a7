//! Starting a planner or an embedded broker in this process, for `groundplan serve` and `groundplan up`.

use std::{net::SocketAddr, sync::Arc};

use groundplan_broker::{self as broker, Broker};

use crate::{config::ServeConfig, serve, terminal::Failure};

/// The planner, until `stop` resolves.
pub(crate) async fn planner(
    config: ServeConfig,
    stop: impl Future<Output = ()> + Send + 'static,
) -> Result<(), Failure> {
    serve::run(config, stop).await.map_err(|e| {
        let hint = e.hint();
        let failure = Failure::because("the planner cannot go on", e);
        match hint {
            Some(hint) => failure.hint(hint),
            None => failure,
        }
    })
}

/// The embedded broker on one address, open to all who reach it.
pub(crate) async fn embedded_broker(address: SocketAddr) -> Result<Broker, Failure> {
    if !address.ip().is_loopback() {
        return Err(Failure::new(format!("{address} is not a loopback address"))
            .hint("the embedded broker has no TLS here: listen on 127.0.0.1, or use a broker of its own with --broker mqtts://"));
    }
    let listener = broker::Listener { address, tls: None };
    let config = broker::Config { listeners: vec![listener], ..Default::default() };
    Broker::start(config, Arc::new(broker::AllowAll)).await.map_err(|e| {
        Failure::because("cannot start the embedded broker", e).hint("take another port; 0 takes a free one")
    })
}
