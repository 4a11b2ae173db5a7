//! `groundplan serve`: the planner daemon, with the embedded broker if asked for.

use std::{net::SocketAddr, path::PathBuf, process::ExitCode, time::Duration};

use tracing_subscriber::EnvFilter;

use crate::{
    config::{BrokerTls, STATE_DIR, ServeConfig},
    launch::{embedded_broker, planner},
    terminal::{Failure, Output},
};
use groundplan_protocol::broker::BrokerAddress;

/// Run the planner: follow a repository, and bring its nodes to what it asks for.
///
/// Stops on SIGTERM and Ctrl-C and goes on where it was when it is started again. Logs to standard error; RUST_LOG chooses
/// how much.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  groundplan serve --repo /srv/site.git --broker mqtt://127.0.0.1:1883 --state /var/lib/groundplan
  groundplan serve --repo https://git.example.org/site.git --branch production --broker mqtts://broker.example.org \\
      --broker-ca ca.pem --broker-cert planner.pem --broker-key planner-key.pem
  groundplan serve --repo ./site --embedded-broker 127.0.0.1:1883 --state ./state")]
pub(super) struct Args {
    /// The site's repository: a path, or a URL as `git fetch` takes it.
    #[arg(long, value_name = "PATH|URL", env = "GROUNDPLAN_REPO")]
    repo: String,

    /// The branch to follow; the one that the repository's HEAD names if not given.
    #[arg(long, value_name = "BRANCH", env = "GROUNDPLAN_BRANCH")]
    branch: Option<String>,

    /// The broker; either this or --embedded-broker is needed.
    #[arg(
        long,
        value_name = "mqtt[s]://HOST[:PORT]",
        env = "GROUNDPLAN_BROKER",
        required_unless_present = "embedded_broker"
    )]
    broker: Option<BrokerAddress>,

    /// In place of --broker: run the embedded one on this address; without TLS, so loopback only.
    #[arg(long, value_name = "ADDR:PORT", env = "GROUNDPLAN_EMBEDDED_BROKER", conflicts_with = "broker")]
    embedded_broker: Option<SocketAddr>,

    /// Certificates of the authorities that the broker's certificate must come from, in PEM.
    #[arg(long, value_name = "PATH", env = "GROUNDPLAN_BROKER_CA", requires_all = ["broker_cert", "broker_key"])]
    broker_ca: Option<PathBuf>,

    /// The planner's certificate for the broker, in PEM.
    #[arg(long, value_name = "PATH", env = "GROUNDPLAN_BROKER_CERT", requires = "broker_ca")]
    broker_cert: Option<PathBuf>,

    /// The key of that certificate, in PEM.
    #[arg(long, value_name = "PATH", env = "GROUNDPLAN_BROKER_KEY", requires = "broker_ca")]
    broker_key: Option<PathBuf>,

    /// Where its store, keys and socket lie; made if missing.
    #[arg(long, value_name = "DIR", env = "GROUNDPLAN_STATE", default_value = STATE_DIR)]
    state: PathBuf,

    /// The key that signs plans; `planner.key` in the state directory, made at the first start, if not given.
    #[arg(long, value_name = "PATH", env = "GROUNDPLAN_KEY")]
    key: Option<PathBuf>,

    /// How often to look at a local repository, whatever the file system says, in seconds.
    #[arg(long, value_name = "SECONDS", env = "GROUNDPLAN_POLL", default_value_t = 2, value_parser = clap::value_parser!(u64).range(1..))]
    poll: u64,

    /// How often to fetch from a remote repository, in seconds.
    #[arg(long, value_name = "SECONDS", env = "GROUNDPLAN_FETCH", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..))]
    fetch: u64,
}

pub(super) fn run(args: Args, out: &mut Output) -> Result<ExitCode, Failure> {
    log(out);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(|e| Failure::because("cannot start the asynchronous runtime", e))?;
    runtime.block_on(serve(args))?;
    Ok(ExitCode::SUCCESS)
}

async fn serve(args: Args) -> Result<(), Failure> {
    let (address, embedded) = match (args.broker, args.embedded_broker) {
        (Some(address), _) => (address, None),
        (None, Some(address)) => {
            let broker = embedded_broker(address).await?;
            let bound = broker.addresses()[0];
            let address = BrokerAddress { host: bound.ip().to_string(), port: bound.port(), tls: false };
            (address, Some(broker))
        }
        (None, None) => return Err(Failure::new("no broker is given").hint("--broker or --embedded-broker")),
    };
    let mut config = ServeConfig::new(args.repo, address, args.state);
    config.branch = args.branch;
    config.key = args.key;
    config.poll = Duration::from_secs(args.poll);
    config.fetch = Duration::from_secs(args.fetch);
    if let (Some(ca), Some(cert), Some(key)) = (args.broker_ca, args.broker_cert, args.broker_key) {
        config.tls = Some(BrokerTls { ca, cert, key });
    }
    let stop = stop_signal()?;
    let result = planner(config, stop).await;
    if let Some(broker) = embedded {
        broker.stop().await;
    }
    result
}

/// Resolves at SIGTERM or Ctrl-C.
fn stop_signal() -> Result<impl Future<Output = ()> + Send + 'static, Failure> {
    use tokio::signal::unix::{SignalKind, signal};
    let listen = |kind| signal(kind).map_err(|e| Failure::because("cannot wait for signals", e));
    let (mut terminate, mut interrupt) = (listen(SignalKind::terminate())?, listen(SignalKind::interrupt())?);
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}

/// Logs to standard error.
fn log(out: &Output) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt().with_env_filter(filter).with_ansi(out.error_color()).with_writer(std::io::stderr).init();
}
