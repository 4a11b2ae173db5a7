//! `groundplan forget`: a node drops the record of a task, and leaves its host as it is.

use std::process::ExitCode;

use groundplan_protocol::ids::{NodeId, TaskId};

use super::{
    format::{Format, FormatArg},
    planner::Planner,
};
use crate::{
    api::types::{ForgetPlanned, ForgetRequest},
    terminal::{Failure, Output},
};

/// Drop a node's record of a task that the site no longer has, without touching the host.
///
/// For a removal that cannot succeed, such as that of a task whose file was damaged. What the task made or changed stays on the host
/// as it is, and belongs to no task from then on; a restart or reload that was pending for it is dropped as well. A task that the active
/// commit wants cannot be forgotten. The request is recorded: a node that is offline drops the record when it is back. The history shows
/// who asked, and why.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  groundplan forget ctl-0 nginx.tune
  groundplan forget ctl-0 nginx.tune --reason 'its file was rewritten by hand'

Exit codes: 0 the record is dropped, or will be when the node is back, 1 on errors, such as a record that is in use")]
pub(super) struct Args {
    /// The node that has the record.
    #[arg(value_name = "NODE")]
    node: NodeId,

    /// The task, with its service.
    #[arg(value_name = "SERVICE.TASK")]
    task: TaskId,

    /// Why, for the history.
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    reason: String,

    #[command(flatten)]
    planner: Planner,

    #[command(flatten)]
    format: FormatArg,
}

pub(super) fn run(args: &Args, out: &mut Output) -> Result<ExitCode, Failure> {
    let Args { node, task, reason, .. } = args;
    let request = ForgetRequest { node: node.clone(), task: task.clone(), reason: reason.clone() };
    let planned: ForgetPlanned = args.planner.query(async |mut client| client.ask(&request).await)?;
    match (args.format.format, planned.generation) {
        (Format::Json, _) => out.json(&planned)?,
        (Format::Text, None) => out.print(&format!("{node} has no record of {task} any more\n"))?,
        (Format::Text, Some(generation)) => {
            let when = if planned.online { "drops" } else { "is offline; when it is back, it drops" };
            out.print(&format!(
                "{node} {when} its record of {task}, and leaves the host as it is; `groundplan show {generation}` shows it\n"
            ))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}
