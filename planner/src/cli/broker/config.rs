//! `groundplan broker config`: the configuration of a broker for a site.

use std::{fs, io::Write as _, net::SocketAddr, os::unix::fs::OpenOptionsExt as _, path::PathBuf, process::ExitCode};

use groundplan_core::Knowledge;
use groundplan_protocol::topic::ClientRole;

use crate::{
    brokers::{self, ConfigFile, Kind, Proof, Wanted},
    cli::source::Source,
    site::Cache,
    terminal::{Failure, Output},
};

/// Write a broker's configuration for a site: TLS, access rights, client ids, sizes and queues.
///
/// A node may publish its own topics and read what it needs; planners may do everything, observers read everything. Certificates bear the
/// node's name, or `planner` or `observer`, as their common name and as a DNS name. A broker may take that name for the client id: then
/// each planner needs one of its own, such as `a.planner`. docs/brokers.md has the details, and what each broker cannot do.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  groundplan broker config mosquitto --out /etc/mosquitto/groundplan
  groundplan broker config nats -C my-site --listen 0.0.0.0:8883
  groundplan broker config mosquitto --proof passwords --planner a.planner --planner b.planner")]
pub(super) struct Args {
    /// The broker.
    #[arg(value_name = "BROKER", value_enum)]
    broker: Kind,

    /// The site's directory. RabbitMQ and NATS list its nodes: run this again when there are others.
    #[arg(short = 'C', value_name = "DIR", default_value = ".")]
    directory: PathBuf,

    /// The directory to write to; created if missing [default: groundplan-<BROKER>].
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,

    /// Where the files will be on the broker's machine [default: where they are written].
    #[arg(long, value_name = "DIR")]
    installed: Option<PathBuf>,

    /// The address that the broker listens on.
    #[arg(long, value_name = "ADDR:PORT", default_value = "0.0.0.0:8883")]
    listen: SocketAddr,

    /// How clients prove their names.
    #[arg(long, value_enum, default_value_t = Proof::Certificates)]
    proof: Proof,

    /// The name in a planner's certificate, or its user name: `planner` or `<any>.planner`; may be given more than once.
    #[arg(long, value_name = "NAME", default_value = "planner")]
    planner: Vec<String>,

    /// The same for observers.
    #[arg(long, value_name = "NAME", default_value = "observer")]
    observer: Vec<String>,

    /// The authority of the clients' certificates, on the broker's machine [default: ca.pem beside the configuration].
    #[arg(long, value_name = "PATH")]
    ca: Option<PathBuf>,

    /// The broker's certificate there [default: broker.pem].
    #[arg(long, value_name = "PATH")]
    cert: Option<PathBuf>,

    /// The key of that certificate [default: broker-key.pem].
    #[arg(long, value_name = "PATH")]
    key: Option<PathBuf>,

    /// The broker's data directory [default: that of its packages].
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
}

pub(super) fn run(args: &Args, out: &mut Output) -> Result<ExitCode, Failure> {
    for (names, role, word) in
        [(&args.planner, ClientRole::Planner, "planner"), (&args.observer, ClientRole::Observer, "observer")]
    {
        if let Some(name) = names.iter().find(|name| !role.has_name(name) || name.contains(['/', '+', '#', '"', ' '])) {
            return Err(Failure::new(format!("`{name}` is no name of a {word}"))
                .hint(format!("call it `{word}`, or `<any>.{word}`: no node can have such a name")));
        }
    }
    let source = Source::folder(&args.directory)?;
    let site = source.load_or_report(&Knowledge::default(), &mut Cache::default(), out)?;
    let to = args.out.clone().unwrap_or_else(|| format!("groundplan-{}", args.broker.name()).into());
    let failed = |e| Failure::because(format!("cannot write to {}", to.display()), e);
    fs::create_dir_all(&to).map_err(failed)?;
    let there = match &args.installed {
        Some(dir) => dir.clone(),
        None => to.canonicalize().map_err(failed)?,
    };
    let path = |given: &Option<PathBuf>, name: &str| {
        given.clone().unwrap_or_else(|| there.join(name)).to_string_lossy().into_owned()
    };
    let wanted = Wanted {
        site: site.site.name.clone(),
        nodes: site.inventory.nodes.keys().cloned().collect(),
        planners: args.planner.clone(),
        observers: args.observer.clone(),
        listen: args.listen,
        proof: args.proof,
        ca: path(&args.ca, "ca.pem"),
        cert: path(&args.cert, "broker.pem"),
        key: path(&args.key, "broker-key.pem"),
        data: args
            .data
            .as_ref()
            .map_or_else(|| args.broker.data().to_owned(), |dir| dir.to_string_lossy().into_owned()),
        directory: there.to_string_lossy().into_owned(),
    };
    let files =
        brokers::config(args.broker, &wanted).map_err(|e| Failure::because("cannot write this configuration", e))?;
    for ConfigFile { name, text } in &files {
        let path = to.join(name);
        let file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o644).open(&path);
        file.and_then(|mut file| file.write_all(text.as_bytes())).map_err(failed)?;
        out.print(&format!("wrote {}\n", path.display()))?;
    }
    out.print(&format!("start it: {}\n", args.broker.start(&wanted.directory)))?;
    Ok(ExitCode::SUCCESS)
}
