//! `groundplan up`: broker, planner and one agent for each node of a site on this machine, without root, below one directory.
//!
//! In: a site's repository, or none for the sample site. Out: live progress until Ctrl-C. Broker and planner run in this process; the
//! agents are child processes that exit when their standard input is closed, so that nothing survives this process, however it ends.
//! Uses the planner only through its local API, as `status` does, and never reads a site's files.

mod agents;
pub(super) mod layout;
mod ports;
mod sample;
mod shell;

use std::{
    io::{self, IsTerminal as _},
    path::PathBuf,
    process::ExitCode,
};

use self::{
    layout::{DEFAULT_DIR, Layout},
    ports::Ports,
};
use crate::{
    launch,
    repository::Repository,
    terminal::{Failure, Output, progress::Progress},
};

/// Run broker, planner and one agent per node of a site on this machine, without root, below one directory.
///
/// Without SITE it creates a sample site as a git repository and prints what to try next. It then shows the progress and follows the
/// commits of the repository until Ctrl-C, which stops everything, supervised processes included. Started again in the same
/// directory, it resumes.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  groundplan up                     the sample site, below ./groundplan-up
  groundplan up my-site             your own site: a git repository; commits on its branch are deployed
  groundplan up --dir /tmp/try      in another directory

While it runs, `groundplan status`, `why`, `history` and `show` find it from the same directory.
Each node's files lie below <dir>/nodes/<node>/root, its agent's log is <dir>/nodes/<node>/agent.log.")]
pub(super) struct Args {
    /// The site's git repository [default: the sample site in <dir>/site].
    #[arg(value_name = "SITE")]
    site: Option<PathBuf>,

    /// The directory for all state; created if missing.
    #[arg(long, value_name = "DIR", default_value = DEFAULT_DIR, env = "GROUNDPLAN_UP_DIR")]
    dir: PathBuf,

    /// The loopback port of the broker; 0 means any free port.
    #[arg(long, value_name = "PORT", default_value_t = 0)]
    broker_port: u16,
}

/// Runs until a signal.
///
/// # Errors
/// It cannot start, or the planner stopped by itself.
pub(super) fn run(args: Args, out: &mut Output) -> Result<ExitCode, Failure> {
    let agent = agents::find_program()?;
    let (layout, _lock) = Layout::open(&args.dir)?;
    layout.log_to_file()?;
    let (site, try_next) = match &args.site {
        Some(site) => (site.clone(), None),
        None => {
            sample::create(&layout.site())?;
            let ports = sample::ports(&layout.site());
            if ports != ports::USUAL {
                let Ports { database, app, front } = ports;
                out.print(&format!(
                    "ports of the sample site: database {database}, application {app}, front end {front}\n"
                ))?;
            }
            (layout.site(), Some(sample::try_next(&args.dir, ports)))
        }
    };
    let repository = Repository::open(&site).map_err(|e| {
        let hint = e.hint();
        Failure::because(format!("cannot use the site {}", site.display()), e).maybe_hint(hint)
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
    let progress = Progress::new(out.color(), io::stdout().is_terminal(), try_next);
    let shell = shell::Shell { layout, agent, site, branch, broker_port: args.broker_port };
    launch::runtime()?.block_on(shell.run(progress))?;
    Ok(ExitCode::SUCCESS)
}
