//! `groundplan show`: one rollout, task by task, with reasons.

use std::{fmt::Write as _, process::ExitCode};

use groundplan_protocol::{
    ids::Generation,
    report::{Outcome, Output as TaskOutput},
};

use super::{
    Failure, Format, Output,
    ask::{Planner, now_ms},
    output::{FormatArg, Style},
    reason, rollout_text,
    table::{Cell, Table, took},
};
use crate::api::types::{InstanceRecord, InstanceState, RolloutDetail};

/// Show one rollout: what was done, why, and what came of it.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  groundplan show             the latest\n  groundplan show 17          as `groundplan history` numbers them"
)]
pub(super) struct Args {
    /// The rollout's number, or `latest`.
    #[arg(default_value = "latest", value_name = "ROLLOUT")]
    rollout: String,

    #[command(flatten)]
    planner: Planner,

    #[command(flatten)]
    format: FormatArg,
}

pub(super) fn run(args: &Args, out: &mut Output) -> Result<ExitCode, Failure> {
    let rollout = match &*args.rollout {
        "latest" => None,
        number => Some(Generation(number.parse().map_err(|_| {
            Failure::new(format!("`{number}` is no rollout"))
                .hint("give a number as `groundplan history` shows them, or `latest`")
        })?)),
    };
    let detail = args.planner.ask(async |mut client| client.rollout(rollout).await)?;
    match args.format.format {
        Format::Json => out.json(&detail)?,
        Format::Text => out.print(&text(&detail, now_ms(), out.color()))?,
    }
    Ok(ExitCode::SUCCESS)
}

pub(super) fn text(detail: &RolloutDetail, now_ms: u64, color: bool) -> String {
    let summary = &detail.summary;
    let mut out = format!(
        "rollout {}  {}\n{}  {}\n\n",
        summary.generation,
        rollout_text::line(summary, now_ms, color),
        Style::Dim.paint("commit", color),
        rollout_text::commit(&summary.commit),
    );
    let mut table = Table::new(&["NODE", "TASK", "ACTION", "OUTCOME", "TOOK", "BECAUSE"]);
    for record in &detail.instances {
        let (words, style) = rollout_text::state(&record.state);
        table.row([
            record.instance.node.to_string().into(),
            record.instance.task.to_string().into(),
            record.action.to_string().into(),
            Cell::styled(first_line(&words), style),
            record.duration_ms.map(took).unwrap_or_default().into(),
            Cell::styled(reason::chain(&record.reasons, reason::record), Style::Dim),
        ]);
    }
    out.push_str(&table.render(color));
    for record in &detail.instances {
        if let Some(text) = trouble(record) {
            let _ = write!(out, "\n{}\n{text}", Style::Bad.paint(&record.instance.to_string(), color));
        }
    }
    out
}

fn first_line(text: &str) -> String {
    text.lines().next().unwrap_or_default().to_owned()
}

/// The whole error of an instance that failed, and what it printed.
fn trouble(record: &InstanceRecord) -> Option<String> {
    let InstanceState::Finished { outcome } = &record.state else { return None };
    let printed = record.output.as_ref().map(printed).unwrap_or_default();
    let failed = matches!(outcome, Outcome::Failed { .. });
    failed.then(|| indent(&format!("{outcome}\n{printed}")))
}

/// What a task printed, with a word on what is left out.
pub(crate) fn printed(output: &TaskOutput) -> String {
    match output.omitted {
        0 => format!("{}{}", output.head, output.tail),
        n => format!("{}\n… {n} bytes left out …\n{}", output.head, output.tail),
    }
}

/// Lines set in below what they belong to.
pub(crate) fn indent(text: &str) -> String {
    text.lines().map(|line| format!("  {line}\n")).collect()
}
