//! Starts a planner in this process, for `groundplan serve` and `groundplan up`.
//!
//! In: a configuration. Out: a running planner, or a failure with a hint for the command line.

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
