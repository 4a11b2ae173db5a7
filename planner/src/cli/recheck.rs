//! `groundplan recheck`: has nodes look again at what they have applied, and put right what is not so.

use std::{io::IsTerminal as _, process::ExitCode, time::Duration};

use groundplan_protocol::ids::InstanceId;
use serde::Serialize;

use super::{
    ask::{Planner, now_ms},
    format::{Format, FormatArg},
    what::{What, Whats},
};
use crate::{
    api::{
        Client, ClientError,
        types::{RecheckPlanned, RecheckRequest, RolloutDetail, RolloutResult},
    },
    select::{self, Selector},
    terminal::{self, Failure, Output, format::count},
};

/// How often the rollout is looked at.
const POLL: Duration = Duration::from_millis(100);

/// Have nodes check what they have applied, and put right what is not so.
///
/// Each task that is named is checked where it runs; one that is found otherwise is applied again, and what must restart after
/// it restarts. Commands without a guard (`creates`, `unless`, `only_if`) cannot be checked and are left out.
/// Waits for the end; Ctrl-C leaves the rollout to itself. What is asked of a node that is away waits for its return, as long as this
/// planner runs.
#[derive(Debug, clap::Args)]
#[command(after_help = format!("\
Examples:
  groundplan recheck                          everything
  groundplan recheck --on ctl-0               one node
  groundplan recheck --on 'ctl-*&!rack=a1'    what a selector means
  groundplan recheck keystone mariadb.config  a service and a task, wherever they run

{}

Exit codes: 0 all is as it should be, 1 something failed or the planner cannot be asked", select::HELP))]
pub(super) struct Args {
    /// Services (`keystone`) or tasks (`keystone.config`); everything if none is named.
    #[arg(value_name = "WHAT")]
    what: Vec<What>,

    /// On these nodes only; given more than once, on the nodes of any.
    #[arg(long, value_name = "SELECTOR")]
    on: Vec<Selector>,

    /// Do not wait for the end.
    #[arg(long)]
    no_wait: bool,

    #[command(flatten)]
    planner: Planner,

    #[command(flatten)]
    format: FormatArg,
}

/// What is printed as JSON.
#[derive(Debug, Serialize)]
struct Rechecked {
    left_out: Vec<InstanceId>,
    rollout: Option<RolloutDetail>,
}

pub(super) fn run(args: &Args, out: &mut Output) -> Result<ExitCode, Failure> {
    let Whats { services, tasks } = Whats::new(&args.what);
    let request = RecheckRequest { on: args.on.clone(), services, tasks };
    let RecheckPlanned { generation, left_out, .. } =
        args.planner.ask(async |mut client| client.ask(&request).await)?;
    if !left_out.is_empty() && args.format.format == Format::Text {
        let names: Vec<String> = left_out.iter().take(5).map(ToString::to_string).collect();
        let more = if left_out.len() > names.len() { ", …" } else { "" };
        let tasks = count(left_out.len(), "task");
        out.note(&format!("{tasks} cannot be checked and are left out: {}{more}", names.join(", ")));
    }
    let Some(generation) = generation else {
        match args.format.format {
            Format::Json => out.json(&Rechecked { left_out, rollout: None })?,
            Format::Text => out.print("nothing to check\n")?,
        }
        return Ok(ExitCode::SUCCESS);
    };
    if args.no_wait {
        match args.format.format {
            Format::Json => out.json(&RecheckPlanned {
                version: crate::api::types::VERSION,
                generation: Some(generation),
                left_out,
            })?,
            Format::Text => {
                out.print(&format!("rollout {generation} checks; `groundplan show {generation}` follows it\n"))?
            }
        }
        return Ok(ExitCode::SUCCESS);
    }
    let talk = args.format.format == Format::Text && std::io::stderr().is_terminal();
    let detail = args.planner.ask(async |client| {
        follow(
            client,
            |detail| {
                if talk {
                    eprint!("\r\x1b[K{}", terminal::rollout::line(&detail.summary, now_ms(), false));
                }
            },
            generation,
        )
        .await
    })?;
    if talk {
        eprint!("\r\x1b[K");
    }
    // What else the site waits for is not what was asked.
    let counts = &detail.summary.counts;
    let good = match detail.summary.result {
        RolloutResult::Succeeded => true,
        RolloutResult::Waiting => counts.failed + counts.blocked == 0,
        _ => false,
    };
    match args.format.format {
        Format::Json => out.json(&Rechecked { left_out, rollout: Some(detail) })?,
        Format::Text => out.print(&terminal::rollout::detail(&detail, now_ms(), out.color()))?,
    }
    Ok(if good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Waits for the end of a rollout.
async fn follow(
    mut client: Client,
    tell: impl Fn(&RolloutDetail),
    generation: groundplan_protocol::ids::Generation,
) -> Result<RolloutDetail, ClientError> {
    loop {
        let detail = client.rollout(Some(generation)).await?;
        if detail.summary.result != RolloutResult::Running {
            return Ok(detail);
        }
        tell(&detail);
        tokio::time::sleep(POLL).await;
    }
}
