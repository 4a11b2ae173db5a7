//! `groundplan up`: everything on this machine, to try it out.

use std::{path::PathBuf, process::ExitCode};

use super::{Failure, Output};
use crate::up;

/// Run broker, planner and one agent per node of a site on this machine, unprivileged, below one directory.
///
/// Without SITE it lays out a sample site as a git repository and says what to try next. It then shows what happens, live, and
/// follows the repository's commits until Ctrl-C, which stops everything, the supervised processes too. Run it again in the same
/// place, and it goes on where it was.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  groundplan up                     the sample site, below ./groundplan-up
  groundplan up my-site             your own site: a git repository; commits on its branch are deployed
  groundplan up --dir /tmp/try      elsewhere

While it runs, `groundplan status`, `why`, `history` and `show` find it from the same directory.
Each node's files lie below <dir>/nodes/<node>/root, its agent's log is <dir>/nodes/<node>/agent.log.")]
pub(super) struct Args {
    /// The site's git repository; the sample site in <dir>/site if not given.
    #[arg(value_name = "SITE")]
    site: Option<PathBuf>,

    /// Where everything lies; made if missing.
    #[arg(long, value_name = "DIR", default_value = up::DEFAULT_DIR, env = "GROUNDPLAN_UP_DIR")]
    dir: PathBuf,

    /// The loopback port that the broker listens on; 0 takes a free one.
    #[arg(long, value_name = "PORT", default_value_t = 0)]
    broker_port: u16,
}

pub(super) fn run(args: Args, out: &mut Output) -> Result<ExitCode, Failure> {
    up::run(up::Options { site: args.site, dir: args.dir, broker_port: args.broker_port, color: out.color() }, out)
}
