//! `groundplan key`: the public key that agents are to trust.

use std::{path::PathBuf, process::ExitCode};

use super::ask::around_here;
use crate::{
    config::STATE_DIR,
    terminal::{Failure, Output},
    trust,
};

/// Print the planner's public key, for the `planner_keys` of its agents.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  groundplan key\n  groundplan key --state /var/lib/groundplan")]
pub(super) struct Args {
    /// The planner's state directory, in which `planner.key` lies; that of a `groundplan up` around here, or /var/lib/groundplan.
    #[arg(long, value_name = "DIR", env = "GROUNDPLAN_STATE")]
    state: Option<PathBuf>,

    /// The key file, if it is elsewhere.
    #[arg(long, value_name = "PATH")]
    key: Option<PathBuf>,
}

pub(super) fn run(args: &Args, out: &mut Output) -> Result<ExitCode, Failure> {
    let path = args.key.clone().unwrap_or_else(|| {
        let state = args.state.clone().or_else(around_here).unwrap_or_else(|| STATE_DIR.into());
        state.join("planner.key")
    });
    let key = trust::read_key(&path).map_err(|e| {
        Failure::because("there is no planner's key", e)
            .hint("`groundplan serve` makes one at its first start; --state or --key says where it is")
    })?;
    out.print(&format!("{}\n", key.public()))?;
    Ok(ExitCode::SUCCESS)
}
