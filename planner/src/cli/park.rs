//! `groundplan park` and `groundplan unpark`: nothing on other nodes waits for a node, and takes that back.

use std::process::ExitCode;

use groundplan_protocol::{duration::Span, ids::NodeId};

use super::{
    format::{Format, FormatArg},
    planner::Planner,
};
use crate::{
    api::park::{ParkPlanned, ParkRequest, UnparkRequest},
    terminal::{Failure, Output},
};

/// Let nothing on other nodes wait for a node.
///
/// For a node that is away for a while: what comes after its tasks on other nodes goes on without it, rolling limits do not count it, and a
/// rollout is over without it. It still gets its part of each plan, and carries it out when it is there; if what it changes then calls for
/// a restart elsewhere, that follows. `state = "parked"` in the inventory does the same for a node that is away for long.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  groundplan park ctl-2 --reason 'waits for a new disk'
  groundplan park ctl-2 --for 4h --reason 'the rack moves'
  groundplan unpark ctl-2

Exit codes: 0 the node is parked, 1 on errors")]
pub(super) struct Args {
    /// The node.
    #[arg(value_name = "NODE")]
    node: NodeId,

    /// For how long, such as `30m` or `4h` [default: until `groundplan unpark`].
    #[arg(long = "for", value_name = "SPAN")]
    span: Option<Span>,

    /// Why; the status shows it.
    #[arg(long, value_name = "TEXT")]
    reason: String,

    #[command(flatten)]
    planner: Planner,

    #[command(flatten)]
    format: FormatArg,
}

/// Let what comes after a node's tasks wait for it again.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  groundplan unpark ctl-2

Exit codes: 0 the node is parked no longer, 1 on errors, such as a node that is not parked")]
pub(super) struct UnparkArgs {
    /// The node.
    #[arg(value_name = "NODE")]
    node: NodeId,

    #[command(flatten)]
    planner: Planner,

    #[command(flatten)]
    format: FormatArg,
}

pub(super) fn run(args: &Args, out: &mut Output) -> Result<ExitCode, Failure> {
    let Args { node, span, reason, .. } = args;
    let request = ParkRequest { node: node.clone(), span: *span, reason: reason.clone() };
    let planned: ParkPlanned = args.planner.query(async |mut client| client.ask(&request).await)?;
    let until = span.map_or(String::new(), |span| format!(" for {span}"));
    print(args.format.format, &planned, &format!("{node} is parked{until}: nothing on other nodes waits for it"), out)
}

pub(super) fn unpark(args: &UnparkArgs, out: &mut Output) -> Result<ExitCode, Failure> {
    let node = &args.node;
    let request = UnparkRequest { node: node.clone() };
    let planned: ParkPlanned = args.planner.query(async |mut client| client.ask(&request).await)?;
    let text = match &planned.parked {
        Some(_) => format!("the request is withdrawn; {node} stays parked, because the inventory has it as parked"),
        None => format!("{node} is parked no longer"),
    };
    print(args.format.format, &planned, &text, out)
}

fn print(format: Format, planned: &ParkPlanned, text: &str, out: &mut Output) -> Result<ExitCode, Failure> {
    match (format, planned.generation) {
        (Format::Json, _) => out.json(planned)?,
        (Format::Text, None) => out.print(&format!("{text}\n"))?,
        (Format::Text, Some(generation)) => {
            out.print(&format!("{text}; `groundplan show {generation}` shows what follows\n"))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}
