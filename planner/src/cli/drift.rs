//! `groundplan drift`: what has changed on nodes since it was applied, and how it differs.

use std::{
    io::IsTerminal as _,
    process::ExitCode,
    time::{Duration, Instant},
};

use groundplan_protocol::ids::NodeId;

use super::{
    format::{Format, FormatArg},
    planner::Planner,
    what::{What, Whats},
};
use crate::{
    api::{
        Client, ClientError,
        drift::{Drift, DriftAnswer, DriftCheckRequest},
        requests::GetDriftAnswers,
        types::NodePresence,
    },
    clock::wall_ms,
    select::{self, Selector},
    terminal::{self, Failure, Output, format::count, redraw},
};

/// The interval of polling for the nodes' answers.
const POLL: Duration = Duration::from_millis(100);
/// The exit code for drift.
const DRIFTED: u8 = 2;

/// Show what was changed on nodes out of band, and how it differs from what was applied.
///
/// Requests a drift check from the nodes that are online, which changes nothing, and waits for the results; for the other nodes it
/// shows the last result. `[drift]` in site.toml and service.toml sets the policy: `report` changes nothing, `heal` repairs drift, with
/// the restarts that follow. `groundplan recheck` repairs the tasks that are named.
#[derive(Debug, clap::Args)]
#[command(after_help = format!("\
Examples:
  groundplan drift                          all nodes
  groundplan drift --on ctl-0 keystone      one service on one node
  groundplan drift --last                   the last results, without a new check
  groundplan drift --format json | jq -r '.nodes[] | select(.drifted) | .node'

{}

Exit codes: 0 nothing has drifted, 2 something has, 1 not all nodes that are online could be checked", select::HELP))]
pub(super) struct Args {
    /// Services (`keystone`) or tasks (`keystone.config`) to show; everything if none is named.
    #[arg(value_name = "WHAT")]
    what: Vec<What>,

    /// Only on these nodes; given more than once, on the nodes of any of them.
    #[arg(long, value_name = "SELECTOR")]
    on: Vec<Selector>,

    /// Show the last results, without a new check.
    #[arg(long)]
    last: bool,

    /// How long to wait for the nodes that are online, in seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 120, value_parser = clap::value_parser!(u64).range(1..))]
    timeout: u64,

    #[command(flatten)]
    planner: Planner,

    #[command(flatten)]
    format: FormatArg,
}

pub(super) fn run(args: &Args, out: &mut Output) -> Result<ExitCode, Failure> {
    let whats = Whats::new(&args.what);
    let (services, tasks) = (whats.services.clone(), whats.tasks.clone());
    let request = DriftCheckRequest { on: args.on.clone(), services, tasks, name_only: args.last };
    let limit = Duration::from_secs(args.timeout);
    let show = args.format.format == Format::Text && std::io::stderr().is_terminal();
    let (mut drift, missing) = args.planner.query(async |client| check(client, &request, limit, show).await)?;
    for node in &mut drift.nodes {
        node.drifted.retain(|task, _| whats.includes(task));
        node.failed.retain(|task, _| whats.includes(task));
    }
    match args.format.format {
        Format::Json => out.json(&drift)?,
        Format::Text => out.print(&terminal::drift::text(&drift, wall_ms(), out.color()))?,
    }
    if !missing.is_empty() {
        let names = missing.iter().map(NodeId::as_str).collect::<Vec<_>>().join(", ");
        return Err(Failure::new(format!("no result within {} s from {names}", args.timeout)).hint(
            "a node checks when it has nothing else to do: `groundplan status` shows its current work\n\
                   set a longer limit with --timeout, or show the last results with --last",
        ));
    }
    let drifted = drift.nodes.iter().any(|node| !node.drifted.is_empty());
    let failed = drift.nodes.iter().any(|node| !node.failed.is_empty());
    Ok(match (failed, drifted) {
        (true, _) => ExitCode::FAILURE,
        (false, true) => DRIFTED.into(),
        (false, false) => ExitCode::SUCCESS,
    })
}

/// Requests a drift check and waits for the nodes that are online. Returns what has drifted, and the nodes without a result.
async fn check(
    mut client: Client,
    request: &DriftCheckRequest,
    limit: Duration,
    show: bool,
) -> Result<(Drift, Vec<NodeId>), ClientError> {
    let asked = client.ask(request).await?.asked;
    let until = Instant::now() + limit;
    loop {
        let answered = client.ask(&GetDriftAnswers {}).await?;
        let awaited = |(node, answered): &(&NodeId, &DriftAnswer)| is_awaited(answered, asked.get(*node));
        let missing: Vec<NodeId> = answered.nodes.iter().filter(awaited).map(|(node, _)| node.clone()).collect();
        if show {
            redraw(&format!("checking: {} of {} left", missing.len(), count(asked.len(), "node")));
        }
        if missing.is_empty() || Instant::now() >= until {
            if show {
                redraw("");
            }
            let mut drift = client.drift(&asked.keys().cloned().collect()).await?;
            drift.nodes.retain(|node| asked.contains_key(&node.node));
            return Ok((drift, missing));
        }
        tokio::time::sleep(POLL).await;
    }
}

/// Whether a node is online and has not answered the request with this number.
fn is_awaited(answered: &DriftAnswer, asked: Option<&u64>) -> bool {
    answered.presence == NodePresence::Online && asked.is_some_and(|asked| answered.asked < *asked)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn online_nodes_are_awaited_until_they_answer() {
        let at = |presence, asked| DriftAnswer { presence, asked };
        assert!(is_awaited(&at(NodePresence::Online, 7), Some(&8)));
        assert!(!is_awaited(&at(NodePresence::Online, 8), Some(&8)));
        assert!(!is_awaited(&at(NodePresence::Online, 0), None), "the request did not include it");
        assert!(!is_awaited(&at(NodePresence::Offline, 0), Some(&8)));
    }
}
