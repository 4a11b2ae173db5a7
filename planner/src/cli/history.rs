//! `groundplan history`: the latest rollouts and commands.

use std::process::ExitCode;

use super::{
    format::{Format, FormatArg},
    planner::{Planner, now_ms},
};
use crate::{
    api::{history::History, requests::GetHistory},
    terminal::{self, Failure, Output},
};

/// Show the latest rollouts and commands, newest first.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  groundplan history\n  groundplan history --kind commands\n  groundplan history --limit 3 --format json"
)]
pub(super) struct Args {
    /// The greatest number of entries.
    #[arg(long, default_value_t = 20, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    limit: u32,

    /// Show only entries of this kind.
    #[arg(long, value_enum, value_name = "KIND")]
    kind: Option<Kind>,

    #[command(flatten)]
    planner: Planner,

    #[command(flatten)]
    format: FormatArg,
}

// The kinds of entries. No doc comments on the variants: clap would spread one line of help over five.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Kind {
    Rollouts,
    Commands,
}

pub(super) fn run(args: &Args, out: &mut Output) -> Result<ExitCode, Failure> {
    let mut history =
        args.planner.query(async |mut client| client.ask(&GetHistory { limit: args.limit as usize }).await)?;
    match args.kind {
        Some(Kind::Rollouts) => history.execs.clear(),
        Some(Kind::Commands) => history.rollouts.clear(),
        None => trim(&mut history, args.limit as usize),
    }
    match args.format.format {
        Format::Json => out.json(&history)?,
        Format::Text if history.rollouts.is_empty() && history.execs.is_empty() => {
            let what = if args.kind == Some(Kind::Commands) { "command" } else { "rollout" };
            out.print(&format!("no {what} yet\n"))?;
        }
        Format::Text => out.print(&terminal::history::text(&history, now_ms(), out.color()))?,
    }
    Ok(ExitCode::SUCCESS)
}

/// Keeps the newest `limit` entries of both kinds together.
fn trim(history: &mut History, limit: usize) {
    let rollouts = history.rollouts.iter().map(|rollout| rollout.started_ms);
    // The planner returns up to `limit` of each kind: the start of the entry at the limit separates what stays.
    let mut times: Vec<u64> = rollouts.chain(history.execs.iter().map(|exec| exec.started_ms)).collect();
    times.sort_unstable_by(|a, b| b.cmp(a));
    if let Some(oldest) = limit.checked_sub(1).and_then(|last| times.get(last)) {
        history.rollouts.retain(|rollout| rollout.started_ms >= *oldest);
        history.execs.retain(|exec| exec.started_ms >= *oldest);
    }
}
