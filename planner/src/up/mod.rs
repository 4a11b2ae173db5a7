//! `groundplan up`: broker, planner and one agent per node of a site on this machine, unprivileged, below one directory.
//!
//! In: a site's repository, or none for the sample. Out: what happens, live, until Ctrl-C. Broker and planner run in this
//! process, agents as its children, which end when their standard input does: nothing survives it, however it ends. Looks at the
//! planner through its local API only, as `status` does, and never at a site's files.

mod agents;
mod layout;
mod progress;
mod sample;
mod shell;

use std::{
    io::{self, IsTerminal as _},
    path::{Path, PathBuf},
    process::ExitCode,
};

use self::layout::Layout;
use crate::{
    cli::{Failure, Output},
    repository::Repository,
};

/// Where everything lies when nothing is said.
pub(crate) const DEFAULT_DIR: &str = "groundplan-up";

/// What to run, and where.
#[derive(Debug)]
pub(crate) struct Options {
    /// The site's repository; the sample site if not given.
    pub(crate) site: Option<PathBuf>,
    /// Where everything lies.
    pub(crate) dir: PathBuf,
    /// The broker's loopback port; 0 takes a free one.
    pub(crate) broker_port: u16,
    /// Whether to use colour.
    pub(crate) color: bool,
}

/// The planner's state directory below a directory of `groundplan up`, if it is one.
pub(crate) fn planner_state(dir: &Path) -> Option<PathBuf> {
    let layout = Layout::at(dir);
    layout.lock().exists().then(|| layout.planner())
}

/// Runs until it is told to stop.
///
/// # Errors
/// What keeps it from starting, or a planner that stopped by itself.
pub(crate) fn run(options: Options, out: &mut Output) -> Result<ExitCode, Failure> {
    let agent = agents::find_program()?;
    let (layout, _lock) = Layout::open(&options.dir)?;
    layout.log_to_file()?;
    let (site, try_next) = match &options.site {
        Some(site) => (site.clone(), None),
        None => {
            sample::lay_out(&layout.site())?;
            (layout.site(), Some(sample::try_next(&options.dir)))
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
    out.print(&format!(
        "site {}, branch {branch}; everything else is below {}\n",
        site.display(),
        options.dir.display()
    ))?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(|e| Failure::because("cannot start the asynchronous runtime", e))?;
    let progress = progress::Progress::new(options.color, io::stdout().is_terminal(), try_next);
    let shell = shell::Shell { layout, agent, site, branch, broker_port: options.broker_port };
    runtime.block_on(shell.run(progress))?;
    Ok(ExitCode::SUCCESS)
}
