//! `groundplan status`: how things are, by the planner's word or straight from the broker.

use crate::api::requests::GetStatus;
use std::{io::IsTerminal as _, path::PathBuf, process::ExitCode, thread, time::Duration};

use groundplan_protocol::ids::SiteName;

use super::{
    ask::{Planner, now_ms, runtime},
    format::{Format, FormatArg},
    observe,
};
use crate::terminal::{self, Failure, Output};
use groundplan_protocol::broker::BrokerAddress;

/// Show how the nodes are: who is there, what each has applied, and what is under way.
///
/// Asks the planner on this machine, or reads what the broker retains, which needs no planner at all.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  groundplan status
  groundplan status --watch
  groundplan status --format json | jq -r '.nodes[] | select(.presence != \"online\") | .node'
  groundplan status --broker mqtt://broker.example.org --site cloud-1 --trusted /etc/groundplan/trusted")]
pub(super) struct Args {
    /// Show it again every second until Ctrl-C.
    #[arg(long)]
    watch: bool,

    #[command(flatten)]
    planner: Planner,

    /// Read this broker's retained messages instead of asking the planner.
    #[arg(long, value_name = "mqtt://HOST[:PORT]", requires = "site", conflicts_with_all = ["state", "socket"])]
    broker: Option<BrokerAddress>,

    /// The site to look for at the broker.
    #[arg(long, value_name = "NAME", requires = "broker")]
    site: Option<SiteName>,

    /// Keys to check the broker's messages with: a directory of `<node>.pub` and `planner.pub`. Without it all is unverified.
    #[arg(long, value_name = "DIR", requires = "broker")]
    trusted: Option<PathBuf>,

    #[command(flatten)]
    format: FormatArg,
}

/// Clears the terminal and goes to its top left (ECMA-48: ED, CUP).
const CLEAR: &str = "\x1b[H\x1b[2J";

pub(super) fn run(args: &Args, out: &mut Output) -> Result<ExitCode, Failure> {
    loop {
        let text = look(args, out)?;
        let clear = if args.watch && std::io::stdout().is_terminal() { CLEAR } else { "" };
        out.print(&format!("{clear}{text}"))?;
        if !args.watch {
            return Ok(ExitCode::SUCCESS);
        }
        thread::sleep(Duration::from_secs(1));
    }
}

fn look(args: &Args, out: &Output) -> Result<String, Failure> {
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
    let status = args.planner.ask(async |mut client| client.ask(&GetStatus {}).await)?;
    match args.format.format {
        Format::Json => json(serde_json::to_string_pretty(&status)),
        Format::Text => Ok(terminal::status::text(&status, now_ms(), out.color())),
    }
}
