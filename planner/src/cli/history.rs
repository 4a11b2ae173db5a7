//! `groundplan history`: the latest rollouts and commands.

use std::process::ExitCode;

use super::{
    Failure, Format, Output,
    ask::{Planner, now_ms},
    exec_text,
    output::FormatArg,
    rollout_text,
    table::{Cell, Table, ago, count, took},
};
use crate::api::types::History;

/// Show the latest rollouts and commands, newest first.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  groundplan history\n  groundplan history --kind commands\n  groundplan history --limit 3 --format json"
)]
pub(super) struct Args {
    /// How many at most.
    #[arg(long, default_value_t = 20, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    limit: u32,

    /// Only these.
    #[arg(long, value_enum, value_name = "KIND")]
    kind: Option<Kind>,

    #[command(flatten)]
    planner: Planner,

    #[command(flatten)]
    format: FormatArg,
}

// What there is of. No doc comments here: clap would spread one line of help over five.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Kind {
    Rollouts,
    Commands,
}

pub(super) fn run(args: &Args, out: &mut Output) -> Result<ExitCode, Failure> {
    let mut history = args.planner.ask(async |mut client| client.history(args.limit as usize).await)?;
    match args.kind {
        Some(Kind::Rollouts) => history.execs.clear(),
        Some(Kind::Commands) => history.rollouts.clear(),
        None => trim(&mut history, args.limit as usize),
    }
    match args.format.format {
        Format::Json => out.json(&history)?,
        Format::Text => out.print(&text(&history, args.kind, now_ms(), out.color()))?,
    }
    Ok(ExitCode::SUCCESS)
}

/// Leaves as many of both together as are asked for.
fn trim(history: &mut History, limit: usize) {
    let rollouts = history.rollouts.iter().map(|rollout| rollout.started_ms);
    let mut times: Vec<u64> = rollouts.chain(history.execs.iter().map(|exec| exec.started_ms)).collect();
    times.sort_unstable_by(|a, b| b.cmp(a));
    if let Some(oldest) = limit.checked_sub(1).and_then(|last| times.get(last)) {
        history.rollouts.retain(|rollout| rollout.started_ms >= *oldest);
        history.execs.retain(|exec| exec.started_ms >= *oldest);
    }
}

fn text(history: &History, kind: Option<Kind>, now_ms: u64, color: bool) -> String {
    let mut rows: Vec<(u64, Vec<Cell>)> = Vec::new();
    for rollout in &history.rollouts {
        let (word, style) = rollout_text::result(rollout.result);
        let cells = [
            rollout.generation.to_string().into(),
            Cell::styled(word, style),
            ago(rollout.started_ms, now_ms).into(),
            took(rollout.finished_ms.unwrap_or(now_ms).saturating_sub(rollout.started_ms)).into(),
            count(rollout.nodes, "node").into(),
            rollout_text::counts(&rollout.counts).into(),
            rollout_text::commit(&rollout.commit).into(),
        ];
        rows.push((rollout.started_ms, cells.into()));
    }
    for exec in &history.execs {
        let (word, style) = exec_text::result(exec);
        let cells = [
            exec.id.to_string().into(),
            Cell::styled(word, style),
            ago(exec.started_ms, now_ms).into(),
            took(exec.finished_ms.unwrap_or(now_ms).saturating_sub(exec.started_ms)).into(),
            count(exec.nodes.len(), "node").into(),
            exec_text::counts(exec).into(),
            exec_text::what(exec).into(),
        ];
        rows.push((exec.started_ms, cells.into()));
    }
    if rows.is_empty() {
        let what = if kind == Some(Kind::Commands) { "command" } else { "rollout" };
        return format!("no {what} yet\n");
    }
    rows.sort_by_key(|(started, _)| std::cmp::Reverse(*started));
    let (first, tasks, last) = match (history.rollouts.is_empty(), history.execs.is_empty()) {
        (false, true) => ("ROLLOUT", "TASKS", "COMMIT"),
        (true, false) => ("COMMAND", "ON NODES", "WHAT"),
        _ => ("ID", "TASKS OR NODES", "COMMIT OR COMMAND"),
    };
    let mut table = Table::new(&[first, "RESULT", "STARTED", "TOOK", "NODES", tasks, last]);
    rows.into_iter().for_each(|(_, cells)| table.row(cells));
    table.render(color)
}
