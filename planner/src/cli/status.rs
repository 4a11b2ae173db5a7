//! `groundplan status`: the state of a site, from the planner or directly from the broker.

use std::{io::IsTerminal as _, path::PathBuf, process::ExitCode, thread, time::Duration};

use groundplan_protocol::{broker::BrokerAddress, ids::SiteName};

use super::{
    format::{Format, FormatArg},
    observe,
    planner::{Planner, now_ms, runtime},
};
use crate::{
    api::requests::GetStatus,
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
  groundplan status --format json | jq -r '.nodes[] | select(.presence != \"online\") | .node'
  groundplan status --broker mqtt://broker.example.org --site cloud-1 --trusted /etc/groundplan/trusted")]
pub(super) struct Args {
    /// Refresh every second until Ctrl-C.
    #[arg(long)]
    watch: bool,

    #[command(flatten)]
    planner: Planner,

    /// Read the retained messages of this broker instead of querying the planner.
    #[arg(long, value_name = "mqtt://HOST[:PORT]", requires = "site", conflicts_with_all = ["state", "socket"])]
    broker: Option<BrokerAddress>,

    /// The site whose messages are read.
    #[arg(long, value_name = "NAME", requires = "broker")]
    site: Option<SiteName>,

    /// Public keys that verify the messages: a directory with `<node>.pub` and `planner.pub`. Without it, all messages are unverified.
    #[arg(long, value_name = "DIR", requires = "broker")]
    trusted: Option<PathBuf>,

    #[command(flatten)]
    format: FormatArg,
}

/// Clears the terminal and moves to its top left (ECMA-48: ED, CUP).
const CLEAR: &str = "\x1b[H\x1b[2J";

pub(super) fn run(args: &Args, out: &mut Output) -> Result<ExitCode, Failure> {
    loop {
        let text = read(args, out)?;
        let clear = if args.watch && std::io::stdout().is_terminal() { CLEAR } else { "" };
        out.print(&format!("{clear}{text}"))?;
        if !args.watch {
            return Ok(ExitCode::SUCCESS);
        }
        thread::sleep(Duration::from_secs(1));
    }
}

fn read(args: &Args, out: &Output) -> Result<String, Failure> {
    let json = |value: Result<String, serde_json::Error>| {
        value.map(|text| text + "\n").map_err(|e| Failure::because("cannot write JSON", e))
    };
    if let (Some(broker), Some(site)) = (&args.broker, &args.site) {
        let seen = runtime()?.block_on(observe::observe(broker, site, args.trusted.as_deref()))?;
        return match args.format.format {
            Format::Json => json(serde_json::to_string_pretty(&seen)),
            Format::Text => Ok(observe::text(&seen, out.color())),
        };
    }
    let status = args.planner.query(async |mut client| client.ask(&GetStatus {}).await)?;
    match args.format.format {
        Format::Json => json(serde_json::to_string_pretty(&status)),
        Format::Text => Ok(terminal::status::text(&status, now_ms(), out.color())),
    }
}
