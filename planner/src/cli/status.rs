//! `groundplan status`: the state of a site, from the planner or directly from the broker.

use std::{path::PathBuf, process::ExitCode, thread, time::Duration};

use groundplan_protocol::{broker::BrokerAddress, ids::SiteName};
use serde::Serialize;

use super::{
    access::BrokerAccess,
    format::{Format, FormatArg},
    observe,
    planner::{Planner, runtime},
};
use crate::{
    api::requests::GetStatus,
    clock::wall_ms,
    terminal::{self, Failure, Output},
};

/// Show the state of the site: which nodes are online, what each has applied, and what is in progress.
///
/// Queries the planner on this machine, or reads the retained messages of a broker, which needs no planner.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  groundplan status
  groundplan status --watch
  groundplan status --exit-code --format json | jq '.troubles'
  groundplan status --format json | jq -r '.nodes[] | select(.presence != \"online\") | .node'
  groundplan status --broker mqtt://broker.example.org --site cloud-1 --trusted /etc/groundplan/trusted")]
pub(super) struct Args {
    /// Refresh every second until Ctrl-C.
    #[arg(long)]
    watch: bool,

    /// Exit with 2 while something is wrong: a refused commit, a failed rollout, tasks that do not work any more, a full disk,
    /// a broker or a repository that cannot be reached.
    #[arg(long, conflicts_with_all = ["watch", "broker"])]
    exit_code: bool,

    #[command(flatten)]
    planner: Planner,

    /// Read the retained messages of this broker instead of querying the planner.
    #[arg(long, value_name = "mqtt[s]://HOST[:PORT]", requires = "site", conflicts_with_all = ["state", "socket"])]
    broker: Option<BrokerAddress>,

    /// The site whose messages are read.
    #[arg(long, value_name = "NAME", requires = "broker")]
    site: Option<SiteName>,

    /// Public keys that verify the messages: a directory with `<node>.pub` and `planner.pub`. Without it, all messages are unverified.
    #[arg(long, value_name = "DIR", requires = "broker")]
    trusted: Option<PathBuf>,

    #[command(flatten)]
    access: BrokerAccess,

    #[command(flatten)]
    format: FormatArg,
}

/// The exit code while something is wrong; 1 is for a planner that does not answer.
const TROUBLE: u8 = 2;

pub(super) fn run(args: &Args, out: &mut Output) -> Result<ExitCode, Failure> {
    loop {
        if let (Some(broker), Some(site)) = (&args.broker, &args.site) {
            let seen = runtime()?.block_on(observe::observe(broker, &args.access, site, args.trusted.as_deref()))?;
            show(args, out, &seen, observe::text)?;
        } else {
            let status = args.planner.query(async |mut client| client.ask(&GetStatus {}).await)?;
            show(args, out, &status, |status, color| terminal::status::text(status, wall_ms(), color))?;
            if args.exit_code && !status.troubles.is_empty() {
                return Ok(ExitCode::from(TROUBLE));
            }
        }
        if !args.watch {
            return Ok(ExitCode::SUCCESS);
        }
        thread::sleep(Duration::from_secs(1));
    }
}

fn show<T: Serialize>(
    args: &Args,
    out: &mut Output,
    value: &T,
    text: impl FnOnce(&T, bool) -> String,
) -> Result<(), Failure> {
    match args.format.format {
        Format::Json => out.json(value),
        Format::Text if args.watch => out.repaint(&text(value, out.color())),
        Format::Text => out.print(&text(value, out.color())),
    }
}
