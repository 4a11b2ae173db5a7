//! `groundplan drift`: what nodes find otherwise than it was applied, and how it differs.

use crate::api::requests::GetDriftAnswers;
use std::{
    io::IsTerminal as _,
    process::ExitCode,
    time::{Duration, Instant},
};

use groundplan_protocol::ids::NodeId;

use super::{
    ask::{Planner, now_ms},
    format::{Format, FormatArg},
    what::{What, Whats},
};
use crate::{
    api::{
        Client, ClientError,
        drift::{Drift, DriftAnswer, DriftCheckRequest},
        types::NodePresence,
    },
    select::{self, Selector},
    terminal::{self, Failure, Output, format::count},
};

/// How often the nodes' answers are looked for.
const POLL: Duration = Duration::from_millis(100);
/// The exit code that says that something has drifted.
const DRIFTED: u8 = 2;

/// Show what was changed behind the agents' backs, and how it differs from what was applied.
///
/// Has the nodes that are there look now, without changing anything, and waits for their answers; of the others it shows what
/// they found last. What becomes of drift says `[drift]` in site.toml and service.toml: `report` leaves it alone, `heal` puts it right with
/// the restarts that follow. `groundplan recheck` puts right what is named.
#[derive(Debug, clap::Args)]
#[command(after_help = format!("\
Examples:
  groundplan drift                          all nodes
  groundplan drift --on ctl-0 keystone      one service on one node
  groundplan drift --last                   what is known, without asking
  groundplan drift --format json | jq -r '.nodes[] | select(.drifted) | .node'

{}

Exit codes: 0 nothing has drifted, 2 something has, 1 it could not be told of all nodes that are there", select::HELP))]
pub(super) struct Args {
    /// Services (`keystone`) or tasks (`keystone.config`) to show; everything if none is named.
    #[arg(value_name = "WHAT")]
    what: Vec<What>,

    /// On these nodes only; given more than once, on the nodes of any.
    #[arg(long, value_name = "SELECTOR")]
    on: Vec<Selector>,

    /// Show what nodes found last, and have none look now.
    #[arg(long)]
    last: bool,

    /// How long to wait for nodes that are there, in seconds.
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
    let patience = Duration::from_secs(args.timeout);
    let talk = args.format.format == Format::Text && std::io::stderr().is_terminal();
    let (mut drift, silent) = args.planner.ask(async |client| look(client, &request, patience, talk).await)?;
    for node in &mut drift.nodes {
        node.drifted.retain(|task, _| whats.name(task));
        node.failed.retain(|task, _| whats.name(task));
    }
    match args.format.format {
        Format::Json => out.json(&drift)?,
        Format::Text => out.print(&terminal::drift::text(&drift, now_ms(), out.color()))?,
    }
    if !silent.is_empty() {
        let names = silent.iter().map(NodeId::as_str).collect::<Vec<_>>().join(", ");
        return Err(Failure::new(format!("no answer within {} s from {names}", args.timeout)).hint(
            "a node looks once it has nothing else to do: `groundplan status` shows what it is about\n\
                   give it longer with --timeout, or show what it found last with --last",
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

/// Has nodes look, and waits for those that are there. Returns those that did not answer.
async fn look(
    mut client: Client,
    request: &DriftCheckRequest,
    patience: Duration,
    talk: bool,
) -> Result<(Drift, Vec<NodeId>), ClientError> {
    let asked = client.ask(request).await?.asked;
    let until = Instant::now() + patience;
    loop {
        let answered = client.ask(&GetDriftAnswers {}).await?;
        let awaited = |(node, answered): &(&NodeId, &DriftAnswer)| is_awaited(answered, asked.get(*node));
        let silent: Vec<NodeId> = answered.nodes.iter().filter(awaited).map(|(node, _)| node.clone()).collect();
        if talk {
            eprint!("\r\x1b[K{} of {} still look", silent.len(), count(asked.len(), "node"));
        }
        if silent.is_empty() || Instant::now() >= until {
            if talk {
                eprint!("\r\x1b[K");
            }
            let mut drift = client.drift(&asked.keys().cloned().collect()).await?;
            drift.nodes.retain(|node| asked.contains_key(&node.node));
            return Ok((drift, silent));
        }
        tokio::time::sleep(POLL).await;
    }
}

/// Whether a node is there and has not answered.
fn is_awaited(answered: &DriftAnswer, asked: Option<&u64>) -> bool {
    answered.presence == NodePresence::Online && asked.is_some_and(|asked| answered.asked < *asked)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_there_is_waited_for_until_it_answers() {
        let at = |presence, asked| DriftAnswer { presence, asked };
        assert!(is_awaited(&at(NodePresence::Online, 7), Some(&8)));
        assert!(!is_awaited(&at(NodePresence::Online, 8), Some(&8)));
        assert!(!is_awaited(&at(NodePresence::Online, 0), None), "it was not asked");
        assert!(!is_awaited(&at(NodePresence::Offline, 0), Some(&8)));
    }
}
