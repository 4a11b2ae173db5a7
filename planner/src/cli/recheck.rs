//! `groundplan recheck`: nodes check what they have applied, and repair what differs.

use std::{io::IsTerminal as _, process::ExitCode, time::Duration};

use groundplan_protocol::ids::{Generation, InstanceId};
use serde::Serialize;

use super::{
    format::{Format, FormatArg},
    planner::Planner,
    what::{What, Whats},
};
use crate::{
    api::{
        Client, ClientError,
        types::{RecheckPlanned, RecheckRequest, RolloutDetail, RolloutResult},
    },
    clock::wall_ms,
    select::{self, Selector},
    terminal::{self, Failure, Output, format::count, redraw},
};

/// The interval of polling the rollout.
const POLL: Duration = Duration::from_millis(100);

/// Check what nodes have applied, and repair what is out of sync.
///
/// Each named task is checked on every node that runs it. A task that is out of sync is applied again, and what must restart after it
/// restarts. Commands without a guard (`creates`, `unless`, `only_if`) cannot be checked and are skipped. Waits for the end of the
/// rollout; Ctrl-C stops the waiting, not the rollout. A node that is offline is checked when it is back, unless this planner has been
/// restarted by then.
#[derive(Debug, clap::Args)]
#[command(after_help = format!("\
Examples:
  groundplan recheck                          everything
  groundplan recheck --on ctl-0               one node
  groundplan recheck --on 'ctl-*&!rack=a1'    the nodes of a selector
  groundplan recheck keystone mariadb.config  a service and a task, wherever they run

{}

Exit codes: 0 everything is in sync, 1 a task failed or the planner cannot be reached", select::HELP))]
pub(super) struct Args {
    /// Services (`keystone`) or tasks (`keystone.config`); everything if none is named.
    #[arg(value_name = "WHAT")]
    what: Vec<What>,

    /// Only on these nodes; given more than once, on the nodes of any of them.
    #[arg(long, value_name = "SELECTOR")]
    on: Vec<Selector>,

    /// Do not wait for the end of the rollout.
    #[arg(long)]
    no_wait: bool,

    #[command(flatten)]
    planner: Planner,

    #[command(flatten)]
    format: FormatArg,
}

/// The JSON result.
#[derive(Debug, Serialize)]
struct Rechecked {
    left_out: Vec<InstanceId>,
    rollout: Option<RolloutDetail>,
}

pub(super) fn run(args: &Args, out: &mut Output) -> Result<ExitCode, Failure> {
    let Whats { services, tasks } = Whats::new(&args.what);
    let request = RecheckRequest { on: args.on.clone(), services, tasks };
    let RecheckPlanned { generation, left_out, .. } =
        args.planner.query(async |mut client| client.ask(&request).await)?;
    if args.format.format == Format::Text {
        note_left_out(&left_out, out);
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
            Format::Text => out.print(&started(generation))?,
        }
        return Ok(ExitCode::SUCCESS);
    }
    let detail = wait(&args.planner, generation, args.format.format == Format::Text)?;
    let good = is_good(&detail);
    match args.format.format {
        Format::Json => out.json(&Rechecked { left_out, rollout: Some(detail) })?,
        Format::Text => print(&detail, out)?,
    }
    Ok(if good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// That a rollout has started, and how to follow it.
pub(super) fn started(generation: Generation) -> String {
    format!("rollout {generation} has started; `groundplan show {generation}` shows its progress\n")
}

/// Waits for the end of a rollout, with its progress on a terminal if `progress`.
pub(super) fn wait(planner: &Planner, generation: Generation, progress: bool) -> Result<RolloutDetail, Failure> {
    let show = progress && std::io::stderr().is_terminal();
    let line = |detail: &RolloutDetail| {
        if show {
            redraw(&terminal::rollout::line(&detail.summary, wall_ms(), false));
        }
    };
    let detail = planner.query(async |client| follow(client, line, generation).await)?;
    if show {
        redraw("");
    }
    Ok(detail)
}

/// Whether nothing of it has failed. It also has instances that wait for facts or offline nodes: that is no failure of what was asked for.
pub(super) fn is_good(detail: &RolloutDetail) -> bool {
    let counts = &detail.summary.counts;
    match detail.summary.result {
        RolloutResult::Succeeded => true,
        RolloutResult::Waiting => counts.failed + counts.blocked == 0,
        _ => false,
    }
}

/// Prints a rollout with its tasks.
pub(super) fn print(detail: &RolloutDetail, out: &mut Output) -> Result<(), Failure> {
    out.print(&terminal::rollout::detail(detail, wall_ms(), out.color()))
}

/// Names the tasks that are skipped, the first five of them.
fn note_left_out(left_out: &[InstanceId], out: &mut Output) {
    if left_out.is_empty() {
        return;
    }
    let names: Vec<String> = left_out.iter().take(5).map(ToString::to_string).collect();
    let more = if left_out.len() > names.len() { ", …" } else { "" };
    let tasks = count(left_out.len(), "task");
    let are = if left_out.len() == 1 { "is" } else { "are" };
    out.note(&format!("{tasks} cannot be checked and {are} skipped: {}{more}\n", names.join(", ")));
}

/// Polls a rollout until it is no longer running.
async fn follow(
    mut client: Client,
    show: impl Fn(&RolloutDetail),
    generation: Generation,
) -> Result<RolloutDetail, ClientError> {
    loop {
        let detail = client.rollout(Some(generation)).await?;
        if detail.summary.result != RolloutResult::Running {
            return Ok(detail);
        }
        show(&detail);
        tokio::time::sleep(POLL).await;
    }
}
