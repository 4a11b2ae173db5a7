//! `groundplan exec`: a command on many nodes, now.

use crate::api::requests::StopExec;
use std::{
    collections::BTreeMap,
    io::IsTerminal as _,
    process::ExitCode,
    time::{Duration, Instant},
};

use groundplan_protocol::{duration::Span, exec::OUTPUT_LIMIT, ids::ExecId, kinds::Run};
use tokio::signal::unix::{SignalKind, signal};

use super::{
    ask::{Planner, now_ms, runtime},
    format::Format,
};
use crate::{
    api::{
        Client, ClientError,
        client::Events,
        exec::{ExecEvent, ExecRequest, Standing, TIMEOUT},
    },
    select::{self, Selector},
    terminal::{
        self, Failure, Output,
        exec_live::{Live, Shown},
    },
};

/// How often the line of what still runs is drawn.
const DRAW: Duration = Duration::from_millis(250);

/// Run a command on nodes now, and show what it prints as it comes.
///
/// Nothing of it is part of a plan, and no node runs it later: one that is not there is left out and told. Each line is shown
/// with its node's name. Ctrl-C stops what still runs and waits for the ends; a second one leaves at once.
/// What became of it is kept: `groundplan history` and `groundplan show ID`.
#[derive(Debug, clap::Args)]
#[command(after_help = format!("\
Examples:
  groundplan exec 'uptime' --on all
  groundplan exec 'journalctl -u keystone -n 3 | cat' --on service:keystone
  groundplan exec --on 'ctl-*&!rack=a1' --at-once 2 --max-failures 1 'apt-get -qq update'
  groundplan exec --on web --user www-data --cwd /srv/www --env DEBUG=1 -- ./manage.py check

{}

Exit codes, of which the greatest applies:
  0    it exited with 0 on every node
  1    it was not run: the selector matches nothing, there is no planner, a usage error
  2    on some node it exited otherwise, was killed, refused or could not be run
  3    on some node it took too long, or was stopped
  4    some node was offline or cut off, or no word of its end came
  130  Ctrl-C", select::HELP))]
#[command(override_usage = "groundplan exec [OPTIONS] --on <SELECTOR> <LINE>\n       \
                            groundplan exec [OPTIONS] --on <SELECTOR> -- <PROGRAM> [ARGUMENT]...")]
pub(super) struct Args {
    /// A line for `/bin/sh -c`: one word, so quote it.
    #[arg(value_name = "LINE", required_unless_present = "program")]
    line: Option<String>,

    /// After `--`: a program and its arguments, without a shell.
    #[arg(last = true, value_name = "PROGRAM", conflicts_with = "line")]
    program: Vec<String>,

    /// On which nodes.
    #[arg(long, value_name = "SELECTOR")]
    on: Selector,

    /// How long it may take on a node; then it is ended. At most 24h.
    #[arg(long, value_name = "SPAN", default_value_t = TIMEOUT)]
    timeout: Span,

    /// On how many nodes at a time [default: all].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    at_once: Option<u32>,

    /// Begin on no further nodes once it did not succeed on this many.
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

    /// Most output to pass on of each node, in bytes; the rest is counted.
    #[arg(long, value_name = "BYTES", default_value_t = OUTPUT_LIMIT)]
    output_limit: u64,

    /// Show a node's output in one piece, when it has ended.
    #[arg(long, conflicts_with = "quiet")]
    group: bool,

    /// Show only how it ended.
    #[arg(long)]
    quiet: bool,

    #[command(flatten)]
    planner: Planner,

    /// How to write the result: for people, or events as they come, one JSON object a line; the last is `finished`.
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
    let mut live = Live::new(args.shown(), now_ms(), out);
    let (interrupted, broken) = runtime()?.block_on(async {
        let client = Client::connect(&socket).await.map_err(|e| args.planner.failure(e))?;
        let events = client.follow(&args.request()).await.map_err(|e| args.planner.failure(e))?;
        follow(events, &socket, &mut live).await
    })?;
    let record = live.close(now_ms())?;
    if let Some(error) = broken {
        out.failure(&args.planner.failure(error).hint("what still ran is stopped as soon as a planner is back"));
    }
    if args.format == Format::Text {
        out.print(&terminal::exec::summary(&record, out.color()))?;
    }
    if interrupted {
        return Ok(ExitCode::from(130));
    }
    let worst = record.nodes.values().map(|node| node.outcome.standing()).max();
    Ok(ExitCode::from(match worst {
        None | Some(Standing::Good) => 0,
        Some(Standing::Bad) => 2,
        Some(Standing::Ended) => 3,
        // What is open here will never be told.
        Some(Standing::Unknown | Standing::Open) => 4,
    }))
}

/// Shows events to the last. Returns whether somebody stopped it here, and why the planner is gone, if it is.
async fn follow(
    mut events: Events<ExecEvent>,
    socket: &std::path::Path,
    live: &mut Live<'_>,
) -> Result<(bool, Option<ClientError>), Failure> {
    let listen = |kind| signal(kind).map_err(|e| Failure::because("cannot listen to signals", e));
    let (mut interrupt, mut terminate) = (listen(SignalKind::interrupt())?, listen(SignalKind::terminate())?);
    let mut draw = tokio::time::interval(DRAW);
    let mut stopping = false;
    loop {
        let wish = tokio::select! {
            event = events.next() => {
                match event {
                    Ok(Some(event)) => {
                        let last = matches!(event, ExecEvent::Finished { .. });
                        live.take(event)?;
                        if last {
                            return Ok((stopping, None));
                        }
                    }
                    Ok(None) => return Ok((stopping, None)),
                    Err(error) => return Ok((stopping, Some(error))),
                }
                false
            }
            _ = interrupt.recv() => true,
            _ = terminate.recv() => true,
            _ = draw.tick(), if std::io::stderr().is_terminal() => {
                live.draw(Instant::now());
                false
            }
        };
        if wish && stopping {
            live.note("left; what does not end is ended by its agent\n");
            return Ok((true, None));
        }
        if wish {
            stopping = true;
            live.note("stopping what still runs; Ctrl-C again leaves at once\n");
            if let Some(id) = live.id()
                && let Err(error) = stop(socket, id).await
            {
                live.note(&format!("the planner cannot be told: {error}\n"));
                // Closing the stream tells it as well.
                return Ok((true, None));
            }
        }
    }
}

async fn stop(socket: &std::path::Path, id: &ExecId) -> Result<(), ClientError> {
    match Client::connect(socket).await?.ask(&StopExec { id: id.clone() }).await {
        // It has just ended.
        Err(ClientError::Refused { .. }) => Ok(()),
        answer => answer.map(|_| ()),
    }
}
