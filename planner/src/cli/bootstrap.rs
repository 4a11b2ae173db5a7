//! `groundplan bootstrap`: gives hosts their agents over `ssh`.
//!
//! In: arguments, agents and certificates as files, and what the planner says of the nodes. Out: progress, a line for each host as it
//! is done, and a table. The work is `crate::bootstrap`'s.

use crate::api::requests::GetStatus;
use std::{
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
    time::Duration,
};

use groundplan_protocol::{duration::Span, ids::NodeId};
use serde::Serialize;
use tokio::sync::{mpsc, watch};

use super::{
    ask::{Planner, runtime},
    format::{Format, FormatArg},
};
use crate::{
    api::hosts::{Host, Hosts, HostsRequest},
    bootstrap::{self, Bytes, Done, Settings, Ssh, State, Target, program::Program},
    select::{self, Selector},
    terminal::{
        Failure, Output,
        bootstrap::{Progress, text},
    },
};
use groundplan_protocol::broker::BrokerAddress;

/// Where packages put the agent.
const INSTALLED: &str = "/usr/lib/groundplan";
const AGENT: &str = "groundplan-agent";

/// Give hosts their agents over ssh, or bring those that they have up to date.
///
/// Runs on the planner's machine. Each host gets the static agent, its systemd unit, its configuration and, if given, certificates;
/// its key is made there and never leaves it, and the planner is told to trust it. Then the agent is started, and waited for.
/// What is as it should be is left alone, so the same may be run again at any time, and it upgrades: an agent ends its running tasks
/// before it gives way, what it owes is in its ledger, and what it supervises runs on. Files are put in place all at once or not at
/// all; an agent that does not come up is taken back. Host keys are checked as your ssh configuration says, and passwords are not typed.
#[derive(Debug, clap::Args)]
#[command(after_help = format!("\
Examples:
  groundplan bootstrap all                                    every node that the site declares
  groundplan bootstrap ctl-0 ctl-1 --dry-run                  what would be done
  groundplan bootstrap 'rack=a1' --ssh-user op --sudo         as a user who may use sudo without a password
  groundplan bootstrap all --broker mqtts://broker.example.org --broker-ca ca.pem --broker-certs certs/
  groundplan bootstrap all --agent agent-x86_64 --agent agent-aarch64

{}

Exit codes: 0 all hosts are as they should be, 1 one is not, or the planner cannot be asked", select::HELP))]
pub(super) struct Args {
    /// Which nodes.
    #[arg(value_name = "NODE|SELECTOR", required = true)]
    nodes: Vec<Selector>,

    /// A static agent; may be given again, for other machines [default: the one beside this program, else those in /usr/lib/groundplan].
    #[arg(long, value_name = "FILE")]
    agent: Vec<PathBuf>,

    /// The broker as the hosts reach it [default: what a host has already, else the planner's own].
    #[arg(long, value_name = "mqtt[s]://HOST[:PORT]")]
    broker: Option<BrokerAddress>,

    /// The authority of the broker's certificate, in PEM.
    #[arg(long, value_name = "FILE")]
    broker_ca: Option<PathBuf>,

    /// For mutual TLS: a folder with `<node>.pem` and `<node>-key.pem` for each node.
    #[arg(long, value_name = "DIR")]
    broker_certs: Option<PathBuf>,

    /// Log in as this user.
    #[arg(long, value_name = "USER", default_value = "root")]
    ssh_user: String,

    /// Where sshd listens.
    #[arg(long, value_name = "PORT")]
    ssh_port: Option<u16>,

    /// A further option for ssh, as in ssh_config(5); may be given again.
    #[arg(long, value_name = "KEY=VALUE")]
    ssh_option: Vec<String>,

    /// A configuration for ssh in place of your own.
    #[arg(long, value_name = "FILE")]
    ssh_config: Option<PathBuf>,

    /// Become root there by sudo.
    #[arg(long)]
    sudo: bool,

    /// Take a host over from another site, node or planner.
    #[arg(long)]
    take_over: bool,

    /// Trust the host's key in place of the one that the node had, as after a host was set up anew.
    #[arg(long)]
    replace_key: bool,

    /// How many hosts at a time.
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..))]
    at_once: u16,

    /// How long one host may take.
    #[arg(long, value_name = "SPAN", default_value = "3m")]
    timeout: Span,

    /// Look, say what would be done, and do nothing.
    #[arg(long)]
    dry_run: bool,

    #[command(flatten)]
    planner: Planner,

    #[command(flatten)]
    format: FormatArg,
}

/// What is printed as JSON.
#[derive(Debug, Serialize)]
struct Bootstrapped {
    /// Whether all are as they should be.
    good: bool,
    nodes: Vec<Done>,
}

pub(super) fn run(args: &Args, out: &mut Output) -> Result<ExitCode, Failure> {
    let programs = programs(&args.agent)?;
    let ca = args.broker_ca.as_deref().map(pem).transpose()?;
    let request = HostsRequest { select: args.nodes.clone() };
    let (hosts, status) =
        args.planner.ask(async |mut client| Ok((client.ask(&request).await?, client.ask(&GetStatus {}).await?)))?;
    // Nobody would hear of an agent, and a good one would be taken back.
    if !status.planner.broker.connected && !args.dry_run {
        let why = status.planner.broker.error.unwrap_or_else(|| "it is about to connect".to_owned());
        return Err(Failure::new(format!("the planner has no connection to its broker: {why}"))
            .hint("`groundplan status` shows when it has; agents could not be heard of before"));
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
    // All of it is read before any host is touched.
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
    let mut show = Progress::new(targets.len(), args.format.format == Format::Text, out.error_color());
    let nodes = runtime()?.block_on(work(settings, targets, &mut show))?;
    show.end();
    let good = nodes.iter().all(|done| done.state.is_good());
    let interrupted = nodes.iter().any(|done| done.state == State::Interrupted);
    match args.format.format {
        Format::Json => out.json(&Bootstrapped { good, nodes })?,
        Format::Text => out.print(&text(&nodes, out.color()))?,
    }
    if interrupted {
        out.note("broken off; the same again goes on where it stopped\n");
    }
    Ok(if good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Does it, and shows what happens; Ctrl-C breaks it off.
async fn work(settings: Settings, targets: Vec<Target>, show: &mut Progress) -> Result<Vec<Done>, Failure> {
    let (tell, mut told) = mpsc::unbounded_channel();
    let (stop, stopped) = watch::channel(false);
    let mut interrupt = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::interrupt())
        .map_err(|e| Failure::because("cannot wait for Ctrl-C", e))?;
    let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())
        .map_err(|e| Failure::because("cannot wait for SIGTERM", e))?;
    let mut run = std::pin::pin!(bootstrap::run(settings, targets, tell, stopped));
    let all = loop {
        tokio::select! {
            biased;
            Some(told) = told.recv() => show.tell(told),
            _ = interrupt.recv() => drop(stop.send(true)),
            _ = terminate.recv() => drop(stop.send(true)),
            all = &mut run => break all,
        }
    };
    while let Ok(last) = told.try_recv() {
        show.tell(last);
    }
    Ok(all)
}

/// The agents to choose from, one for each machine.
fn programs(given: &[PathBuf]) -> Result<Arc<[Program]>, Failure> {
    let read = |path: &PathBuf| {
        Program::read(path).map_err(|e| {
            let hint = e.hint();
            let failure = Failure::because("there is no agent to put on hosts", e);
            hint.into_iter().fold(failure, Failure::hint)
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
            "name the released, static one with --agent FILE; in a source tree packaging/build-agent builds it",
        ));
    }
    Ok(programs.into())
}

/// The agent beside this program; else what is installed for hosts, `groundplan-agent` or `groundplan-agent-<machine>`.
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

/// A file in PEM.
fn pem(path: &Path) -> Result<Bytes, Failure> {
    let bytes = std::fs::read(path).map_err(|e| Failure::because(format!("cannot read {}", path.display()), e))?;
    if !bytes.windows(11).any(|window| window == b"-----BEGIN ") {
        return Err(Failure::new(format!("{} is not in PEM", path.display())).hint(
            "it holds `-----BEGIN …-----`; `openssl x509 -inform der -in FILE -out FILE.pem` converts a certificate",
        ));
    }
    Ok(bytes.into())
}

/// A node's certificate and its key.
fn certificate(dir: &Path, node: &NodeId) -> Result<(Bytes, Bytes), Failure> {
    let read = |name: String| {
        pem(&dir.join(name)).map_err(|e| e.hint(format!("--broker-certs DIR holds `{node}.pem` and `{node}-key.pem`")))
    };
    Ok((read(format!("{node}.pem"))?, read(format!("{node}-key.pem"))?))
}
