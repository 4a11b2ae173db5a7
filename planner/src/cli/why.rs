//! `groundplan why`: the state of a task on a node, and the reasons.

use std::process::ExitCode;

use groundplan_protocol::ids::{NodeId, TaskId};

use super::{
    format::{Format, FormatArg},
    planner::Planner,
};
use crate::{
    api::requests::GetWhy,
    clock::wall_ms,
    terminal::{self, Failure, Output},
};

/// Show why a task ran, waits, is blocked or was not touched.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  groundplan why beta app.server\n  groundplan why beta app.server --format json")]
pub(super) struct Args {
    /// The node that the task runs on.
    #[arg(value_name = "NODE")]
    node: NodeId,

    /// The task, with its service.
    #[arg(value_name = "SERVICE.TASK")]
    task: TaskId,

    #[command(flatten)]
    planner: Planner,

    #[command(flatten)]
    format: FormatArg,
}

pub(super) fn run(args: &Args, out: &mut Output) -> Result<ExitCode, Failure> {
    let instance = args.task.at(&args.node);
    let why = args.planner.query(async |mut client| {
        client.ask(&GetWhy { node: instance.node.clone(), task: instance.task.clone() }).await
    })?;
    match args.format.format {
        Format::Json => out.json(&why)?,
        Format::Text => out.print(&terminal::why::text(&why, wall_ms(), out.color()))?,
    }
    Ok(ExitCode::SUCCESS)
}
