//! `groundplan serve`: the planner daemon, with the embedded broker if asked for.

use std::{net::SocketAddr, path::PathBuf, process::ExitCode, time::Duration};

use groundplan_broker::Limits;
use groundplan_protocol::{broker::BrokerAddress, ids::Generation};
use tracing_subscriber::EnvFilter;

use super::access::BrokerAccess;
use crate::{
    config::{STATE_DIR, ServeConfig},
    embedded::{self, NodePasswords, Proof, ServerFiles},
    launch::{planner, runtime},
    serve::make_state_dir,
    terminal::{Failure, LogWriter, Output},
};

/// Run the planner: follow a repository and keep its nodes in the state that it declares.
///
/// Stops on SIGTERM and Ctrl-C, and resumes when it is started again. Fetches the repository at once on SIGHUP, and on
/// `POST /v1/fetch` to its socket. Logs to standard error; RUST_LOG sets the log level.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  groundplan serve --repo /srv/site.git --broker mqtt://127.0.0.1:1883 --state /var/lib/groundplan
  groundplan serve --repo https://git.example.org/site.git --branch production --broker mqtts://broker.example.org \\
      --broker-ca ca.pem --broker-cert planner.pem --broker-key planner-key.pem
  groundplan serve --repo /srv/site.git --embedded-broker 0.0.0.0:8883 --embedded-broker-ca ca.pem \\
      --embedded-broker-cert broker.pem --embedded-broker-key broker-key.pem
  groundplan serve --repo ./site --embedded-broker 127.0.0.1:1883 --state ./state")]
pub(super) struct Args {
    /// The site's repository: a path, or a URL as `git fetch` takes it.
    #[arg(long, value_name = "PATH|URL", env = "GROUNDPLAN_REPO")]
    repo: String,

    /// The branch to follow [default: the one that HEAD of the repository names].
    #[arg(long, value_name = "BRANCH", env = "GROUNDPLAN_BRANCH")]
    branch: Option<String>,

    /// The broker; either this or --embedded-broker is required.
    #[arg(
        long,
        value_name = "mqtt[s]://HOST[:PORT]",
        env = "GROUNDPLAN_BROKER",
        required_unless_present = "embedded_broker"
    )]
    broker: Option<BrokerAddress>,

    /// Instead of --broker: run the embedded broker on this address. On a loopback address agents need the password that
    /// `groundplan broker password` prints; any other address needs the certificates below.
    #[arg(long, value_name = "ADDR:PORT", env = "GROUNDPLAN_EMBEDDED_BROKER", conflicts_with = "broker")]
    embedded_broker: Option<SocketAddr>,

    /// For the embedded broker with mutual TLS: certificates of the authorities that issue the agents' certificates, in PEM.
    #[arg(long, value_name = "PATH", env = "GROUNDPLAN_EMBEDDED_BROKER_CA", requires_all = ["embedded_broker", "embedded_broker_cert", "embedded_broker_key"])]
    embedded_broker_ca: Option<PathBuf>,

    /// The embedded broker's certificate, in PEM.
    #[arg(long, value_name = "PATH", env = "GROUNDPLAN_EMBEDDED_BROKER_CERT", requires = "embedded_broker_ca")]
    embedded_broker_cert: Option<PathBuf>,

    /// The private key of that certificate, in PEM.
    #[arg(long, value_name = "PATH", env = "GROUNDPLAN_EMBEDDED_BROKER_KEY", requires = "embedded_broker_ca")]
    embedded_broker_key: Option<PathBuf>,

    #[command(flatten)]
    access: BrokerAccess,

    /// The directory of its store, keys and socket; created if missing.
    #[arg(long, value_name = "DIR", env = "GROUNDPLAN_STATE", default_value = STATE_DIR)]
    state: PathBuf,

    /// The key that signs plans [default: `planner.key` in the state directory, created at the first start].
    #[arg(long, value_name = "PATH", env = "GROUNDPLAN_KEY")]
    key: Option<PathBuf>,

    /// The interval of polling a local repository, in addition to events of the file system, in seconds.
    #[arg(long, value_name = "SECONDS", env = "GROUNDPLAN_POLL", default_value_t = 2, value_parser = clap::value_parser!(u64).range(1..))]
    poll: u64,

    /// The interval of fetching from a remote repository, in seconds.
    #[arg(long, value_name = "SECONDS", env = "GROUNDPLAN_FETCH", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..))]
    fetch: u64,

    /// How long the server of a remote repository may send nothing before a fetch is ended and tried again later, in seconds.
    #[arg(long, value_name = "SECONDS", env = "GROUNDPLAN_FETCH_TIMEOUT", default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..))]
    fetch_timeout: u64,

    /// Number plans above N. Needed once if this planner has lost its store and agents of a release without receipts have plans of it:
    /// their states name the generation (`groundplan show NODE`), and do not prove it.
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = clap::value_parser!(u64).range(..Generation::LIMIT.0 / 2))]
    generation: u64,

    /// Refuse commits that do not have the active one in their history, as after a force-push, until an operator accepts them with
    /// `groundplan accept`. `fast_forward_only` in `[source]` of site.toml does the same, and a commit may change that.
    #[arg(long, env = "GROUNDPLAN_FAST_FORWARD_ONLY")]
    fast_forward_only: bool,
}

pub(super) fn run(args: Args, out: &mut Output) -> Result<ExitCode, Failure> {
    log(out);
    runtime()?.block_on(serve(args))?;
    Ok(ExitCode::SUCCESS)
}

async fn serve(args: Args) -> Result<(), Failure> {
    let (address, embedded) = match (args.broker, args.embedded_broker) {
        (Some(address), _) => (address, None),
        (None, Some(listen)) => {
            make_state_dir(&args.state).map_err(|e| {
                let hint = e.hint();
                Failure::because("cannot start the embedded broker", e).maybe_hint(hint)
            })?;
            let files = (args.embedded_broker_ca, args.embedded_broker_cert, args.embedded_broker_key);
            let (proof, tls) = match files {
                (Some(ca), Some(cert), Some(key)) => (Proof::Certificates(ServerFiles { ca, cert, key }), true),
                _ => {
                    let passwords = NodePasswords::open(&args.state);
                    (
                        Proof::Passwords(
                            passwords.map_err(|e| Failure::because("cannot make the broker's secret", e))?,
                        ),
                        false,
                    )
                }
            };
            let limits = Limits::within(embedded::raise_descriptors());
            let (broker, embedded) = embedded::start(listen, proof, &args.state, limits).await?;
            let bound = broker.addresses()[0];
            let address = BrokerAddress { host: bound.ip().to_string(), port: bound.port(), tls };
            (address, Some((broker, embedded)))
        }
        (None, None) => return Err(Failure::new("no broker is given").hint("use --broker or --embedded-broker")),
    };
    let (embedded, config_embedded) = embedded.unzip();
    let mut config = ServeConfig::new(args.repo, address, args.state);
    config.branch = args.branch;
    config.key = args.key;
    config.poll = Duration::from_secs(args.poll);
    config.fetch = Duration::from_secs(args.fetch);
    config.fetch_timeout = Duration::from_secs(args.fetch_timeout);
    config.generation = Generation(args.generation);
    config.fast_forward_only = args.fast_forward_only;
    config.fetch_on_hangup = true;
    config.tls = args.access.tls();
    config.login = args.access.login("planner");
    config.embedded = config_embedded;
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
    let color = out.error_color();
    tracing_subscriber::fmt().with_env_filter(filter).with_ansi(color).with_writer(|| LogWriter).init();
}
