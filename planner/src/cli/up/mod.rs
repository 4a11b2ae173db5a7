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
    path::{Path, PathBuf},
    process::ExitCode,
};

use nix::unistd::geteuid;

use self::{
    layout::{DEFAULT_DIR, DIR_VARIABLE, Layout},
    ports::Ports,
};
use crate::{
    embedded::NodePasswords,
    launch,
    repository::Repository,
    terminal::{Failure, Output, progress::Progress},
};

/// Run broker, planner and one agent per node of a site on this machine, without root, below one directory.
///
/// Without SITE it runs the site of the current directory, if that has a `site.toml`; else it creates a sample site as a git repository and
/// prints what to try next. It then shows the progress and follows the
/// commits of the repository until Ctrl-C, which stops everything, supervised processes included. Started again in the same
/// directory, it resumes. What acts on a host as a whole is skipped, unless `--real` is given.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  groundplan up                     the site here if there is a site.toml, else the sample site, below ./groundplan-up
  groundplan up my-site             your own site: a git repository; commits on its branch are deployed
  groundplan up --dir /tmp/try      in another directory

While it runs, `groundplan status`, `why`, `history` and `show` find it from the same directory.
Each node's files lie below <dir>/nodes/<node>/root, its agent's log is <dir>/nodes/<node>/agent.log.")]
pub(super) struct Args {
    /// The site's git repository [default: `.` if it has a site.toml, else the sample site in <dir>/site].
    #[arg(value_name = "SITE")]
    site: Option<PathBuf>,

    /// The directory for all state; created if missing.
    #[arg(long, value_name = "DIR", default_value = DEFAULT_DIR, env = DIR_VARIABLE)]
    dir: PathBuf,

    /// Act on this machine itself, as root, for a site with one node. Without it, each node's files lie below a directory of its own, and
    /// tasks that act on a host as a whole (packages, units, users, mounts, …) are skipped.
    #[arg(long)]
    real: bool,

    /// The loopback port of the broker; 0 means any free port.
    #[arg(long, value_name = "PORT", default_value_t = 0)]
    broker_port: u16,
}

/// Runs until a signal.
///
/// # Errors
/// It cannot start, or the planner stopped by itself.
pub(super) fn run(args: Args, out: &mut Output) -> Result<ExitCode, Failure> {
    if args.real && !geteuid().is_root() {
        return Err(Failure::new("only root may act on this machine as a whole")
            .hint("run it as root, or leave out --real: what acts on the host as a whole is then skipped"));
    }
    let agent = agents::find_program()?;
    let (layout, _lock) = Layout::open(&args.dir)?;
    layout.log_to_file()?;
    let here = Path::new("site.toml").is_file().then(|| PathBuf::from("."));
    // Shown as it can be typed; the layout has absolute paths.
    let (site, shown, try_next) = match args.site.clone().or(here) {
        Some(site) => (site.clone(), site, None),
        None => {
            sample::create(&layout.site())?;
            let ports = sample::ports(&layout.site());
            if ports != ports::USUAL {
                let Ports { database, app, front } = ports;
                out.print(&format!(
                    "ports of the sample site: database {database}, application {app}, front end {front}\n"
                ))?;
            }
            (layout.site(), args.dir.join(layout::SITE), Some(sample::try_next(&args.dir, ports)))
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
            shown.display()
        ))?;
    }
    out.print(&format!(
        "site {}, branch {branch}; everything else is below {}\n",
        shown.display(),
        args.dir.display()
    ))?;
    let progress = Progress::new(out.color(), io::stdout().is_terminal(), try_next);
    let passwords = NodePasswords::random().map_err(|e| Failure::because("cannot make passwords for the broker", e))?;
    let shell = shell::Shell { layout, agent, site, branch, broker_port: args.broker_port, passwords, real: args.real };
    launch::runtime()?.block_on(shell.run(progress))?;
    Ok(ExitCode::SUCCESS)
}
