//! `groundplan history`: the latest rollouts.

use std::process::ExitCode;

use super::{
    Failure, Format, Output,
    ask::{Planner, now_ms},
    output::FormatArg,
    rollout_text,
    table::{Cell, Table, ago, count, took},
};
use crate::api::types::History;

/// Show the latest rollouts, newest first.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  groundplan history\n  groundplan history --limit 3 --format json")]
pub(super) struct Args {
    /// How many at most.
    #[arg(long, default_value_t = 20, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    limit: u32,

    #[command(flatten)]
    planner: Planner,

    #[command(flatten)]
    format: FormatArg,
}

pub(super) fn run(args: &Args, out: &mut Output) -> Result<ExitCode, Failure> {
    let history = args.planner.ask(async |mut client| client.history(args.limit as usize).await)?;
    match args.format.format {
        Format::Json => out.json(&history)?,
        Format::Text => out.print(&text(&history, now_ms(), out.color()))?,
    }
    Ok(ExitCode::SUCCESS)
}

fn text(history: &History, now_ms: u64, color: bool) -> String {
    if history.rollouts.is_empty() {
        return "no rollout yet\n".to_owned();
    }
    let mut table = Table::new(&["ROLLOUT", "RESULT", "STARTED", "TOOK", "NODES", "TASKS", "COMMIT"]);
    for rollout in &history.rollouts {
        let (word, style) = rollout_text::result(rollout.result);
        table.row([
            rollout.generation.to_string().into(),
            Cell::styled(word, style),
            ago(rollout.started_ms, now_ms).into(),
            took(rollout.finished_ms.unwrap_or(now_ms).saturating_sub(rollout.started_ms)).into(),
            count(rollout.nodes, "node").into(),
            rollout_text::counts(&rollout.counts).into(),
            rollout_text::commit(&rollout.commit).into(),
        ]);
    }
    table.render(color)
}
