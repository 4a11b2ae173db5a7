//! `groundplan bootstrap`: installs agents on hosts over `ssh`.
//!
//! In: arguments, agents and certificates as files, and the site's nodes from the planner. Out: progress, a line for each host when it is
//! finished, and a table. The work is done by `crate::bootstrap`.

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
    time::Duration,
};

use groundplan_protocol::{broker::BrokerAddress, duration::Span, ids::NodeId};
use serde::Serialize;
use tokio::sync::{mpsc, watch};

use super::{
    format::{Format, FormatArg},
    planner::{Planner, runtime},
};
use crate::{
    api::{
        hosts::{Host, Hosts, HostsRequest},
        requests::GetStatus,
    },
    bootstrap::{self, Bytes, HostResult, HostState, Settings, Ssh, Target, program::Program},
    select::{self, Selector},
    terminal::{
        Failure, Output,
        bootstrap::{Progress, text},
    },
};

/// The directory in which packages install agents for other hosts.
const INSTALLED: &str = "/usr/lib/groundplan";
const AGENT: &str = "groundplan-agent";

/// Install or upgrade agents on hosts over ssh.
///
/// Runs on the planner's machine. Each host gets the static agent, its systemd unit, its configuration and, if given, certificates.
/// The agent creates its key on the host, where the key stays, and the planner registers the public half. Then the agent is started,
/// and must connect to the planner. What is up to date is not touched, so the command can be run again at any time. An agent that is
/// upgraded finishes its running tasks first, keeps pending restarts in its ledger, and leaves supervised processes running. Either
/// all files are replaced or none; if the new agent does not come up, the previous files are restored. Host keys are checked according
/// to your ssh configuration, and passwords are never entered.
#[derive(Debug, clap::Args)]
#[command(after_help = format!("\
Examples:
  groundplan bootstrap all                                    every node of the site
  groundplan bootstrap ctl-0 ctl-1 --dry-run                  show what would be done
  groundplan bootstrap 'rack=a1' --ssh-user op --sudo         with a user who has sudo without password
  groundplan bootstrap all --broker mqtts://broker.example.org --broker-ca ca.pem --broker-certs certs/
  groundplan bootstrap all --agent agent-x86_64 --agent agent-aarch64

{}

Exit codes: 0 all hosts are up to date now, 1 a host is not, or the planner cannot be reached", select::HELP))]
pub(super) struct Args {
    /// The nodes whose hosts get agents.
    #[arg(value_name = "NODE|SELECTOR", required = true)]
    nodes: Vec<Selector>,

    /// A static agent; may be given more than once, for different machines [default: the one beside this program, else those in /usr/lib/groundplan].
    #[arg(long, value_name = "FILE")]
    agent: Vec<PathBuf>,

    /// The address by which the hosts reach the broker [default: the one that a host has already, else that of the planner].
    #[arg(long, value_name = "mqtt[s]://HOST[:PORT]")]
    broker: Option<BrokerAddress>,

    /// The certificate of the broker's authority, in PEM.
    #[arg(long, value_name = "FILE")]
    broker_ca: Option<PathBuf>,

    /// For mutual TLS: a directory with `<node>.pem` and `<node>-key.pem` for each node.
    #[arg(long, value_name = "DIR")]
    broker_certs: Option<PathBuf>,

    /// Log in as this user.
    #[arg(long, value_name = "USER", default_value = "root")]
    ssh_user: String,

    /// The port of sshd.
    #[arg(long, value_name = "PORT")]
    ssh_port: Option<u16>,

    /// A further option for ssh, as in ssh_config(5); may be given more than once.
    #[arg(long, value_name = "KEY=VALUE")]
    ssh_option: Vec<String>,

    /// An ssh configuration file that replaces your own.
    #[arg(long, value_name = "FILE")]
    ssh_config: Option<PathBuf>,

    /// Become root on the host with sudo.
    #[arg(long)]
    sudo: bool,

    /// Replace the agent of another site, node or planner.
    #[arg(long)]
    take_over: bool,

    /// Trust the host's key instead of the one that is trusted for the node, for example after a reinstallation.
    #[arg(long)]
    replace_key: bool,

    /// How many hosts are in progress at a time.
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..))]
    at_once: u16,

    /// The time limit of each host.
    #[arg(long, value_name = "SPAN", default_value = "3m")]
    timeout: Span,

    /// Probe the hosts and show what would be done, without doing it.
    #[arg(long)]
    dry_run: bool,

    #[command(flatten)]
    planner: Planner,

    #[command(flatten)]
    format: FormatArg,
}

/// The JSON result.
#[derive(Debug, Serialize)]
struct Bootstrapped {
    /// Whether every host ended well.
    good: bool,
    nodes: Vec<HostResult>,
}

pub(super) fn run(args: &Args, out: &mut Output) -> Result<ExitCode, Failure> {
    let programs = programs(&args.agent)?;
    let ca = args.broker_ca.as_deref().map(pem).transpose()?;
    let request = HostsRequest { select: args.nodes.clone() };
    let (hosts, status) =
        args.planner.query(async |mut client| Ok((client.ask(&request).await?, client.ask(&GetStatus {}).await?)))?;
    // Without the broker the planner sees no agent connect: agents that work would be replaced by the previous ones.
    if !status.planner.broker.connected && !args.dry_run {
        let why = status.planner.broker.error.unwrap_or_else(|| "it is connecting".to_owned());
        return Err(Failure::new(format!("the planner is not connected to its broker: {why}")).hint(
            "run it again when `groundplan status` shows the connection: before that, no agent can reach the planner",
        ));
    }
    let Hosts { site, planner_key, broker: default_broker, hosts, .. } = hosts;
    let target = |host: Host| {
        let certificate = args.broker_certs.as_deref().map(|dir| certificate(dir, &host.node)).transpose()?;
        Ok(Target {
            address: host.address.unwrap_or_else(|| host.node.to_string()),
            node: host.node,
            site: site.clone(),
            planner_key,
            programs: programs.clone(),
            broker: args.broker.clone(),
            default_broker: default_broker.clone(),
            ca: ca.clone(),
            certificate,
            key: host.key,
            replace_key: args.replace_key,
            take_over: args.take_over,
        })
    };
    // All files are read before any host is touched: a missing certificate must not leave some hosts changed.
    let targets: Vec<Target> = hosts.into_iter().map(target).collect::<Result<_, Failure>>()?;
    let settings = Settings {
        ssh: Ssh {
            user: Some(args.ssh_user.clone()),
            port: args.ssh_port,
            options: args.ssh_option.clone(),
            config: args.ssh_config.clone(),
            sudo: args.sudo,
            connect: Duration::from_secs(10),
        },
        socket: args.planner.socket(),
        at_once: usize::from(args.at_once),
        timeout: args.timeout.into(),
        dry_run: args.dry_run,
    };
    let mut progress = Progress::new(targets.len(), args.format.format == Format::Text, out.error_color());
    let nodes = runtime()?.block_on(work(settings, targets, &mut progress))?;
    progress.end();
    let good = nodes.iter().all(|result| result.state.is_good());
    let interrupted = nodes.iter().any(|result| result.state == HostState::Interrupted);
    match args.format.format {
        Format::Json => out.json(&Bootstrapped { good, nodes })?,
        Format::Text => out.print(&text(&nodes, out.color()))?,
    }
    if interrupted {
        out.note("interrupted; run the same command again to continue\n");
    }
    Ok(if good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Runs bootstrap and shows its progress; Ctrl-C or SIGTERM interrupts it.
async fn work(settings: Settings, targets: Vec<Target>, progress: &mut Progress) -> Result<Vec<HostResult>, Failure> {
    let (sender, mut events) = mpsc::unbounded_channel();
    let (stop, stopped) = watch::channel(false);
    let mut interrupt = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::interrupt())
        .map_err(|e| Failure::because("cannot wait for Ctrl-C", e))?;
    let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())
        .map_err(|e| Failure::because("cannot wait for SIGTERM", e))?;
    let mut run = std::pin::pin!(bootstrap::run(settings, targets, sender, stopped));
    let all = loop {
        tokio::select! {
            biased;
            Some(event) = events.recv() => progress.show(event),
            _ = interrupt.recv() => drop(stop.send(true)),
            _ = terminate.recv() => drop(stop.send(true)),
            all = &mut run => break all,
        }
    };
    while let Ok(event) = events.try_recv() {
        progress.show(event);
    }
    Ok(all)
}

/// Reads the agents, at most one for each machine.
fn programs(given: &[PathBuf]) -> Result<Arc<[Program]>, Failure> {
    let read = |path: &PathBuf| {
        Program::read(path).map_err(|e| {
            let hint = e.hint();
            Failure::because("cannot use the agent", e).maybe_hint(hint)
        })
    };
    let mut programs: Vec<Program> = Vec::new();
    for path in if given.is_empty() { found() } else { given.to_vec() } {
        let program = read(&path)?;
        if let Some(same) = programs.iter().find(|known| known.machine == program.machine) {
            let (one, other) = (same.path.display(), program.path.display());
            return Err(
                Failure::new(format!("{one} and {other} are both for {}", program.machine)).hint("give one of them")
            );
        }
        programs.push(program);
    }
    if programs.is_empty() {
        return Err(Failure::new(format!("there is no {AGENT} beside this program or in {INSTALLED}")).hint(
            "name a released static agent with --agent FILE; in a source tree, packaging/build-agent builds one",
        ));
    }
    Ok(programs.into())
}

/// The agent beside this program; else those that are installed for hosts: `groundplan-agent` or `groundplan-agent-<machine>`.
fn found() -> Vec<PathBuf> {
    let beside = std::env::current_exe().ok().and_then(|exe| Some(exe.parent()?.join(AGENT)));
    if let Some(beside) = beside.filter(|path| path.is_file()) {
        return vec![beside];
    }
    let installed = std::fs::read_dir(INSTALLED).into_iter().flatten().flatten().map(|entry| entry.path());
    let ours = |path: &PathBuf| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(AGENT));
    let mut found: Vec<PathBuf> = installed.filter(ours).collect();
    found.sort();
    found
}

/// Reads a file, which must be in PEM.
fn pem(path: &Path) -> Result<Bytes, Failure> {
    let bytes = std::fs::read(path).map_err(|e| Failure::because(format!("cannot read {}", path.display()), e))?;
    if !bytes.windows(11).any(|window| window == b"-----BEGIN ") {
        return Err(Failure::new(format!("{} is not a PEM file", path.display())).hint(
            "a PEM file contains `-----BEGIN …-----`; `openssl x509 -inform der -in FILE -out FILE.pem` converts a certificate",
        ));
    }
    Ok(bytes.into())
}

/// Reads a node's certificate and its key.
fn certificate(dir: &Path, node: &NodeId) -> Result<(Bytes, Bytes), Failure> {
    let read = |name: String| {
        pem(&dir.join(name))
            .map_err(|e| e.hint(format!("the directory of --broker-certs must have `{node}.pem` and `{node}-key.pem`")))
    };
    Ok((read(format!("{node}.pem"))?, read(format!("{node}-key.pem"))?))
}
