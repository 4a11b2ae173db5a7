//! `groundplan show`: one rollout by task, with reasons; one command by node; or one node with its degraded tasks, facts and exports.

use std::process::ExitCode;

use groundplan_inventory::hint;
use groundplan_protocol::ids::{ExecId, Generation, NodeId};

use super::{
    format::{Format, FormatArg},
    planner::Planner,
};
use crate::{
    api::{
        ClientError,
        requests::{GetExec, GetStatus},
    },
    clock::wall_ms,
    terminal::{self, Failure, Output},
};

/// Show one rollout with its actions, reasons and outcomes; a command; or a node's degraded tasks, facts and exports.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  groundplan show             the latest rollout\n  groundplan show 17          a number from `groundplan history`\n  groundplan show 3f2a91c0    a command with its output\n  groundplan show db-0        the degraded tasks, facts and exports of a node"
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
    let detail = args.planner.query(async |mut client| client.rollout(rollout).await)?;
    match args.format.format {
        Format::Json => out.json(&detail)?,
        Format::Text => out.print(&terminal::rollout::detail(&detail, wall_ms(), out.color()))?,
    }
    Ok(ExitCode::SUCCESS)
}

/// Shows a command. Returns whether it exists: text that looks like its id may also be a number or a node's name.
fn show_exec(id: &ExecId, args: &Args, out: &mut Output) -> Result<bool, Failure> {
    let record = args.planner.query(async |mut client| match client.ask(&GetExec { id: id.clone() }).await {
        Err(ClientError::Refused { .. }) => Ok(None),
        record => record.map(Some),
    })?;
    let Some(record) = record else { return Ok(false) };
    match args.format.format {
        Format::Json => out.json(&record)?,
        Format::Text => out.print(&terminal::exec::text(&record, wall_ms(), out.color()))?,
    }
    Ok(true)
}

fn show_node(node: &NodeId, args: &Args, out: &mut Output) -> Result<ExitCode, Failure> {
    let status = args.planner.query(async |mut client| client.ask(&GetStatus {}).await)?;
    let Some(found) = status.nodes.iter().find(|known| known.node == *node) else {
        let names: Vec<_> = status.nodes.iter().map(|known| known.node.as_str()).collect();
        return Err(Failure::new(format!("there is no node `{node}`")).hint(hint::choose(node.as_str(), &names)));
    };
    match args.format.format {
        Format::Json => out.json(found)?,
        Format::Text => out.print(&terminal::node::text(found, wall_ms(), out.color()))?,
    }
    Ok(ExitCode::SUCCESS)
}
