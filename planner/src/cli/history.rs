//! `groundplan history`: the latest rollouts, refused commits and commands.

use std::process::ExitCode;

use super::{
    format::{Format, FormatArg},
    planner::Planner,
};
use crate::{
    api::{history::History, requests::GetHistory},
    clock::wall_ms,
    terminal::{self, Failure, Output},
};

/// Show the latest rollouts, refused commits and commands, newest first.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  groundplan history\n  groundplan history --kind commands\n  groundplan history --kind refused\n  groundplan history --limit 3 --format json"
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
    Refused,
}

pub(super) fn run(args: &Args, out: &mut Output) -> Result<ExitCode, Failure> {
    let mut history =
        args.planner.query(async |mut client| client.ask(&GetHistory { limit: args.limit as usize }).await)?;
    match args.kind {
        Some(kind) => keep(&mut history, kind),
        None => trim(&mut history, args.limit as usize),
    }
    match args.format.format {
        Format::Json => out.json(&history)?,
        Format::Text if times(&history).next().is_none() => {
            let what = match args.kind {
                Some(Kind::Commands) => "command",
                Some(Kind::Refused) => "refused commit",
                Some(Kind::Rollouts) | None => "rollout",
            };
            out.print(&format!("no {what} yet\n"))?;
        }
        Format::Text => out.print(&terminal::history::text(&history, wall_ms(), out.color()))?,
    }
    Ok(ExitCode::SUCCESS)
}

/// Keeps the entries of one kind.
fn keep(history: &mut History, kind: Kind) {
    if kind != Kind::Rollouts {
        history.rollouts.clear();
    }
    if kind != Kind::Commands {
        history.execs.clear();
    }
    if kind != Kind::Refused {
        history.refusals.clear();
    }
}

/// When each entry began.
fn times(history: &History) -> impl Iterator<Item = u64> {
    let rollouts = history.rollouts.iter().map(|rollout| rollout.started_ms);
    let execs = history.execs.iter().map(|exec| exec.started_ms);
    rollouts.chain(execs).chain(history.refusals.iter().map(|refusal| refusal.at_ms))
}

/// Keeps the newest `limit` entries of all kinds together.
fn trim(history: &mut History, limit: usize) {
    // The planner returns up to `limit` of each kind: the start of the entry at the limit separates what stays.
    let mut times: Vec<u64> = times(history).collect();
    times.sort_unstable_by(|a, b| b.cmp(a));
    if let Some(oldest) = limit.checked_sub(1).and_then(|last| times.get(last)) {
        history.rollouts.retain(|rollout| rollout.started_ms >= *oldest);
        history.execs.retain(|exec| exec.started_ms >= *oldest);
        history.refusals.retain(|refusal| refusal.at_ms >= *oldest);
    }
}
