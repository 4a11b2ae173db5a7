//! `groundplan show`: one rollout, task by task, with reasons; a command, node by node; or a node, with what it has told.

use std::{fmt::Write as _, process::ExitCode};

use groundplan_inventory::hint;
use groundplan_protocol::{
    ids::{ExecId, Generation, NodeId},
    report::{Outcome, Output as TaskOutput},
};

use super::{
    Failure, Format, Output,
    ask::{Planner, now_ms},
    exec_text,
    output::{FormatArg, Style},
    reason, rollout_text,
    table::{Cell, Table, ago, took},
};
use crate::api::{
    ClientError,
    types::{InstanceRecord, InstanceState, NodeStatus, RolloutDetail},
};

/// Show one rollout: what was done, why, and what came of it; a command; or a node's facts and exports.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  groundplan show             the latest\n  groundplan show 17          as `groundplan history` numbers them\n  groundplan show 3f2a91c0    a command, and what it printed\n  groundplan show db-0        what a node has told: its facts and exports"
)]
pub(super) struct Args {
    /// The rollout's number, or `latest`; a command's id; or a node's name.
    #[arg(default_value = "latest", value_name = "ROLLOUT|COMMAND|NODE")]
    rollout: String,

    #[command(flatten)]
    planner: Planner,

    #[command(flatten)]
    format: FormatArg,
}

pub(super) fn run(args: &Args, out: &mut Output) -> Result<ExitCode, Failure> {
    if let Ok(id) = ExecId::new(&*args.rollout)
        && show_exec(&id, args, out)?
    {
        return Ok(ExitCode::SUCCESS);
    }
    let rollout = match &*args.rollout {
        "latest" => None,
        number => match (number.parse(), NodeId::new(number)) {
            (Ok(number), _) => Some(Generation(number)),
            (Err(_), Ok(node)) => return show_node(&node, args, out),
            (Err(_), Err(_)) => {
                return Err(Failure::new(format!("`{number}` is neither a rollout, a command nor a node"))
                    .hint("give a number or an id as `groundplan history` shows them, `latest`, or a node's name"));
            }
        },
    };
    let detail = args.planner.ask(async |mut client| client.rollout(rollout).await)?;
    match args.format.format {
        Format::Json => out.json(&detail)?,
        Format::Text => out.print(&text(&detail, now_ms(), out.color()))?,
    }
    Ok(ExitCode::SUCCESS)
}

/// Shows a command. Returns whether there is one: its id may as well be a number or a node's name.
fn show_exec(id: &ExecId, args: &Args, out: &mut Output) -> Result<bool, Failure> {
    let record = args.planner.ask(async |mut client| match client.exec_record(id).await {
        Err(ClientError::Refused { .. }) => Ok(None),
        record => record.map(Some),
    })?;
    let Some(record) = record else { return Ok(false) };
    match args.format.format {
        Format::Json => out.json(&record)?,
        Format::Text => out.print(&exec_text::text(&record, now_ms(), out.color()))?,
    }
    Ok(true)
}

fn show_node(node: &NodeId, args: &Args, out: &mut Output) -> Result<ExitCode, Failure> {
    let status = args.planner.ask(async |mut client| client.status().await)?;
    let Some(found) = status.nodes.iter().find(|known| known.node == *node) else {
        let names: Vec<_> = status.nodes.iter().map(|known| known.node.as_str()).collect();
        return Err(Failure::new(format!("there is no node `{node}`")).hint(hint::choose(node.as_str(), &names)));
    };
    match args.format.format {
        Format::Json => out.json(found)?,
        Format::Text => out.print(&node_text(found, now_ms(), out.color()))?,
    }
    Ok(ExitCode::SUCCESS)
}

fn node_text(node: &NodeStatus, now_ms: u64, color: bool) -> String {
    let seen = node.last_seen_ms.map_or("never heard of".to_owned(), |ms| format!("heard of {}", ago(ms, now_ms)));
    let mut out = format!("{}  {seen}\n", Style::Bold.paint(node.node.as_str(), color));
    let mut section = |title: &str, lines: &[(String, String)]| {
        if !lines.is_empty() {
            let _ = writeln!(out, "\n{}", Style::Dim.paint(title, color));
            let width = lines.iter().map(|(name, _)| name.len()).max().unwrap_or_default();
            lines.iter().for_each(|(name, value)| {
                let _ = writeln!(out, "  {name:width$}  {value}");
            });
        }
    };
    let mut facts = Vec::new();
    node.facts.iter().for_each(|(name, value)| flat(name.clone(), value, &mut facts));
    section("facts", &facts);
    let exports: Vec<_> = node.exports.iter().map(|(task, value)| (task.to_string(), first_line(value))).collect();
    section("exports", &exports);
    if node.facts.is_empty() {
        out.push_str("\nit has told no facts yet\n");
    }
    out
}

/// Facts as templates name them, one a line.
fn flat(name: String, value: &serde_json::Value, out: &mut Vec<(String, String)>) {
    match value {
        serde_json::Value::Object(parts) => {
            parts.iter().for_each(|(part, value)| flat(format!("{name}.{part}"), value, out));
        }
        serde_json::Value::String(text) => out.push((name, first_line(text))),
        value => out.push((name, value.to_string())),
    }
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
    for pending in &detail.pending {
        table.row([
            pending.instance.node.to_string().into(),
            pending.instance.task.to_string().into(),
            "?".into(),
            Cell::styled(format!("waits for {}", pending.waits_for.join(", ")), Style::Warn),
            String::new().into(),
            String::new().into(),
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
