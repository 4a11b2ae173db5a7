//! `groundplan up`: broker, planner and one agent per node of a site on this machine, unprivileged, below one directory.
//!
//! In: a site's repository, or none for the sample. Out: what happens, live, until Ctrl-C. Broker and planner run in this
//! process, agents as its children, which end when their standard input does: nothing survives it, however it ends. Looks at the
//! planner through its local API only, as `status` does, and never at a site's files.

mod agents;
pub(super) mod layout;
mod sample;
mod shell;

use std::{
    io::{self, IsTerminal as _},
    path::PathBuf,
    process::ExitCode,
};

use self::layout::{DEFAULT_DIR, Layout};
use crate::{
    repository::Repository,
    terminal::{Failure, Output, progress::Progress},
};

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
    #[arg(long, value_name = "DIR", default_value = DEFAULT_DIR, env = "GROUNDPLAN_UP_DIR")]
    dir: PathBuf,

    /// The loopback port that the broker listens on; 0 takes a free one.
    #[arg(long, value_name = "PORT", default_value_t = 0)]
    broker_port: u16,
}

/// Runs until it is told to stop.
///
/// # Errors
/// What keeps it from starting, or a planner that stopped by itself.
pub(super) fn run(args: Args, out: &mut Output) -> Result<ExitCode, Failure> {
    let agent = agents::find_program()?;
    let (layout, _lock) = Layout::open(&args.dir)?;
    layout.log_to_file()?;
    let (site, try_next) = match &args.site {
        Some(site) => (site.clone(), None),
        None => {
            sample::lay_out(&layout.site())?;
            (layout.site(), Some(sample::try_next(&args.dir)))
        }
    };
    let repository = Repository::open(&site).map_err(|e| {
        let hint = e.hint();
        let failure = Failure::because(format!("cannot use the site {}", site.display()), e);
        match hint {
            Some(hint) => failure.hint(hint),
            None => failure,
        }
    })?;
    let branch = repository
        .default_branch()
        .map_err(|e| Failure::because(format!("{} has no current branch", site.display()), e))?;
    if repository.branch(&branch).is_err() {
        out.print(&format!(
            "{} has no commit on {branch} yet: waiting for the first one (git add -A && git commit)\n",
            site.display()
        ))?;
    }
    out.print(&format!("site {}, branch {branch}; everything else is below {}\n", site.display(), args.dir.display()))?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(|e| Failure::because("cannot start the asynchronous runtime", e))?;
    let progress = Progress::new(out.color(), io::stdout().is_terminal(), try_next);
    let shell = shell::Shell { layout, agent, site, branch, broker_port: args.broker_port };
    runtime.block_on(shell.run(progress))?;
    Ok(ExitCode::SUCCESS)
}
