//! `groundplan exec`: runs a command on many nodes now.

use std::{
    collections::BTreeMap,
    io::IsTerminal as _,
    process::ExitCode,
    time::{Duration, Instant},
};

use groundplan_protocol::{duration::Span, exec::OUTPUT_LIMIT, ids::ExecId, kinds::Run};
use tokio::signal::unix::{SignalKind, signal};

use super::{
    format::Format,
    planner::{Planner, runtime},
};
use crate::{
    api::{
        Client, ClientError,
        client::Events,
        exec::{ExecEvent, ExecRequest, Standing, TIMEOUT},
        requests::StopExec,
    },
    clock::wall_ms,
    select::{self, Selector},
    terminal::{
        self, Failure, Output,
        exec_live::{Live, Shown},
    },
};

/// The exit code after Ctrl-C: 128 and the number of SIGINT.
const INTERRUPTED: u8 = 130;

/// The interval of redrawing the status line, and of finding out whether the output is still read.
const DRAW: Duration = Duration::from_millis(250);

/// Run a command on nodes now, and show its output as it arrives.
///
/// The command is not part of a plan, and no node runs it later: a node that is offline is skipped and reported. Each line of output
/// has its node's name. Ctrl-C stops the command everywhere and waits until it has ended; a second Ctrl-C exits at once. It is stopped as
/// well once its output is not read any more, as with `… | head -1`.
/// The result is kept: `groundplan history` and `groundplan show ID`.
#[derive(Debug, clap::Args)]
#[command(after_help = format!("\
Examples:
  groundplan exec 'uptime' --on all
  groundplan exec 'journalctl -u keystone -n 3 | cat' --on service:keystone
  groundplan exec --on 'ctl-*&!rack=a1' --at-once 2 --max-failures 1 'apt-get -qq update'
  groundplan exec --on web --user www-data --cwd /srv/www --env DEBUG=1 -- ./manage.py check

{}

Exit codes; if several apply, the greatest:
  0    the command exited with 0 on every node
  1    it was not run: the selector matches nothing, there is no planner, a usage error
  2    on some node it exited with another code, was killed, refused or could not be run
  3    on some node it exceeded the time limit, or was stopped
  4    some node was offline or lost its connection, or its result is unknown
  130  Ctrl-C", select::HELP))]
#[command(override_usage = "groundplan exec [OPTIONS] --on <SELECTOR> <LINE>\n       \
                            groundplan exec [OPTIONS] --on <SELECTOR> -- <PROGRAM> [ARGUMENT]...")]
pub(super) struct Args {
    /// A line for `/bin/sh -c`, as one argument: quote it.
    #[arg(value_name = "LINE", required_unless_present = "program")]
    line: Option<String>,

    /// After `--`: a program and its arguments, without a shell.
    #[arg(last = true, value_name = "PROGRAM", conflicts_with = "line")]
    program: Vec<String>,

    /// The nodes to run it on.
    #[arg(long, value_name = "SELECTOR")]
    on: Selector,

    /// The time limit on each node, after which the command is killed. At most 24h.
    #[arg(long, value_name = "SPAN", default_value_t = TIMEOUT)]
    timeout: Span,

    /// How many nodes run it at a time [default: all].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    at_once: Option<u32>,

    /// Start on no further nodes once the command has failed on this many.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    max_failures: Option<u32>,

    /// Run it as this user of the node [default: the agent's own].
    #[arg(long, value_name = "NAME")]
    user: Option<String>,

    /// Run it in this directory of the node [default: /].
    #[arg(long, value_name = "DIR")]
    cwd: Option<String>,

    /// Set an environment variable; may be given more than once.
    #[arg(long, value_name = "NAME=VALUE", value_parser = parse_env)]
    env: Vec<(String, String)>,

    /// How much output of each node is shown, in bytes; the rest is only counted.
    #[arg(long, value_name = "BYTES", default_value_t = OUTPUT_LIMIT)]
    output_limit: u64,

    /// Show the output of a node together, when the command has ended there.
    #[arg(long, conflicts_with = "quiet")]
    group: bool,

    /// Show only the summary.
    #[arg(long)]
    quiet: bool,

    /// Write the output to a terminal as it is, control characters and escape sequences included; files and pipes always get it so.
    #[arg(long)]
    raw: bool,

    #[command(flatten)]
    planner: Planner,

    /// Text for people, or the events as they arrive, one JSON object on each line; the last one is `finished`.
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
}

fn parse_env(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("an environment variable is NAME=VALUE".to_owned()),
    }
}

impl Args {
    fn request(&self) -> ExecRequest {
        ExecRequest {
            on: self.on.clone(),
            run: match &self.line {
                Some(line) => Run::Shell(line.clone()),
                None => Run::Args(self.program.clone()),
            },
            user: self.user.clone(),
            cwd: self.cwd.clone(),
            env: self.env.iter().cloned().collect::<BTreeMap<_, _>>(),
            timeout: self.timeout,
            at_once: self.at_once,
            output_limit: self.output_limit,
            max_failures: self.max_failures,
        }
    }

    fn shown(&self) -> Shown {
        match (self.format, self.quiet, self.group) {
            (Format::Json, quiet, _) => Shown::Events { quiet },
            (Format::Text, true, _) => Shown::Nothing,
            (Format::Text, false, true) => Shown::Grouped,
            (Format::Text, false, false) => Shown::Lines,
        }
    }
}

pub(super) fn run(args: &Args, out: &mut Output) -> Result<ExitCode, Failure> {
    let socket = args.planner.socket();
    let mut live = Live::new(args.shown(), args.raw, wall_ms(), out);
    let (interrupted, broken) = runtime()?.block_on(async {
        let client = Client::connect(&socket).await.map_err(|e| args.planner.failure(e))?;
        let events = client.follow(&args.request()).await.map_err(|e| args.planner.failure(e))?;
        follow(events, &socket, &mut live).await
    })?;
    let record = live.close(wall_ms())?;
    if let Some(error) = broken {
        out.failure(&args.planner.failure(error).hint("what still runs is stopped as soon as a planner is back"));
    }
    if args.format == Format::Text {
        out.print(&terminal::exec::summary(&record, out.color()))?;
    }
    if interrupted {
        return Ok(ExitCode::from(INTERRUPTED));
    }
    // `Standing` is ordered: the greatest decides.
    let worst = record.nodes.values().map(|node| node.outcome.standing()).max();
    Ok(ExitCode::from(match worst {
        None | Some(Standing::Good) => 0,
        Some(Standing::Bad) => 2,
        Some(Standing::Ended) => 3,
        // A node without an end: its result will never be known here.
        Some(Standing::Unknown | Standing::Open) => 4,
    }))
}

/// Shows events until the last. Returns whether the operator stopped the command, and the error if the connection to the planner was lost.
async fn follow(
    mut events: Events<ExecEvent>,
    socket: &std::path::Path,
    live: &mut Live<'_>,
) -> Result<(bool, Option<ClientError>), Failure> {
    let listen = |kind| signal(kind).map_err(|e| Failure::because("cannot wait for signals", e));
    let (mut interrupt, mut terminate) = (listen(SignalKind::interrupt())?, listen(SignalKind::terminate())?);
    let mut draw = tokio::time::interval(DRAW);
    // Whether it is being stopped, and whether by a signal.
    let (mut stopping, mut interrupted) = (false, false);
    loop {
        let stop_requested = tokio::select! {
            event = events.next() => {
                match event {
                    Ok(Some(event)) => {
                        let last = matches!(event, ExecEvent::Finished { .. });
                        live.take(event)?;
                        if last {
                            return Ok((interrupted, None));
                        }
                    }
                    Ok(None) => return Ok((interrupted, None)),
                    Err(error) => return Ok((interrupted, Some(error))),
                }
                false
            }
            _ = interrupt.recv() => { interrupted = true; true }
            _ = terminate.recv() => { interrupted = true; true }
            _ = draw.tick() => {
                if std::io::stderr().is_terminal() {
                    live.draw(Instant::now());
                }
                // As at the end of `… | head -1`, also where the command prints nothing more.
                !stopping && live.is_unread()
            }
        };
        if stop_requested && stopping {
            live.note("exiting; what does not stop is killed by its agent\n");
            return Ok((true, None));
        }
        if stop_requested {
            stopping = true;
            live.note(if live.is_unread() {
                "the output is not read any more: stopping the command\n"
            } else {
                "stopping the command; Ctrl-C again exits at once\n"
            });
            if let Some(id) = live.id()
                && let Err(error) = stop(socket, id).await
            {
                live.note(&format!("cannot send the stop request to the planner: {error}\n"));
                // The planner also stops the command when the event stream is closed.
                return Ok((interrupted, None));
            }
        }
    }
}

async fn stop(socket: &std::path::Path, id: &ExecId) -> Result<(), ClientError> {
    match Client::connect(socket).await?.ask(&StopExec { id: id.clone() }).await {
        // The command has just ended.
        Err(ClientError::Refused { .. }) => Ok(()),
        answer => answer.map(|_| ()),
    }
}
