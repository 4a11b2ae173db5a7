//! `groundplan retry`: what has failed is tried again.

use std::process::ExitCode;

use super::{
    format::{Format, FormatArg},
    planner::Planner,
    recheck,
};
use crate::{
    api::types::{RetryPlanned, RetryRequest, VERSION},
    terminal::{Failure, Output},
};

/// Try again now what has failed.
///
/// Tasks that failed in the latest rollout are tried once more, and what was blocked by them follows; so are those that wait for their
/// next attempt (`retry`). A new commit does the same: this is for when the cause was outside of the site, such as a mirror that was
/// away. Waits for the end of the rollout; Ctrl-C stops the waiting, not the rollout.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  groundplan retry
  groundplan retry --no-wait

Tasks are tried again without being asked where the site, a service or a task says so:
  [rollout]
  retry = { attempts = 3, backoff = \"30s\" }

Exit codes: 0 nothing has failed any more, 1 a task failed, a newer rollout took its place, or the planner cannot be reached")]
pub(super) struct Args {
    /// Do not wait for the end of the rollout.
    #[arg(long)]
    no_wait: bool,

    #[command(flatten)]
    planner: Planner,

    #[command(flatten)]
    format: FormatArg,
}

pub(super) fn run(args: &Args, out: &mut Output) -> Result<ExitCode, Failure> {
    let RetryPlanned { generation, .. } = args.planner.query(async |mut client| client.ask(&RetryRequest {}).await)?;
    let json = args.format.format == Format::Json;
    let Some(rollout) = generation.filter(|_| !args.no_wait) else {
        match generation {
            _ if json => out.json(&RetryPlanned { version: VERSION, generation })?,
            None => out.print(
                "nothing has failed: there is nothing to try again; `groundplan recheck` checks what is applied\n",
            )?,
            Some(rollout) => out.print(&recheck::started(rollout))?,
        }
        return Ok(ExitCode::SUCCESS);
    };
    let detail = recheck::wait(&args.planner, rollout, !json)?;
    match args.format.format {
        Format::Json => out.json(&detail)?,
        Format::Text => recheck::print(&detail, out)?,
    }
    Ok(if recheck::is_good(&detail) { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
