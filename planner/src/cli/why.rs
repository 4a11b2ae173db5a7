//! `groundplan why`: what is to become of a task on a node, and why.

use crate::api::requests::GetWhy;
use std::process::ExitCode;

use groundplan_protocol::ids::{NodeId, TaskId};

use super::{
    ask::{Planner, now_ms},
    format::{Format, FormatArg},
};
use crate::terminal::{self, Failure, Output};

/// Tell why a task ran, waits, is blocked or was left alone.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  groundplan why beta app.server\n  groundplan why beta app.server --format json")]
pub(super) struct Args {
    /// The node.
    #[arg(value_name = "NODE")]
    node: NodeId,

    /// The task.
    #[arg(value_name = "SERVICE.TASK")]
    task: TaskId,

    #[command(flatten)]
    planner: Planner,

    #[command(flatten)]
    format: FormatArg,
}

pub(super) fn run(args: &Args, out: &mut Output) -> Result<ExitCode, Failure> {
    let instance = args.task.at(&args.node);
    let why = args.planner.ask(async |mut client| {
        client.ask(&GetWhy { node: instance.node.clone(), task: instance.task.clone() }).await
    })?;
    match args.format.format {
        Format::Json => out.json(&why)?,
        Format::Text => out.print(&terminal::why::text(&why, now_ms(), out.color()))?,
    }
    Ok(ExitCode::SUCCESS)
}
