//! `groundplan key`: the planner's public key, which agents must trust.

use std::{path::PathBuf, process::ExitCode};

use super::planner::find_state;
use crate::{
    config::STATE_DIR,
    terminal::{Failure, Output},
    trust,
};

/// Print the planner's public key, for the `planner_keys` of its agents.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  groundplan key\n  groundplan key --state /var/lib/groundplan")]
pub(super) struct Args {
    /// The planner's state directory, which contains `planner.key` [default: that of `groundplan up` in this directory or above, else /var/lib/groundplan].
    #[arg(long, value_name = "DIR", env = "GROUNDPLAN_STATE")]
    state: Option<PathBuf>,

    /// The key file, if it is not in the state directory.
    #[arg(long, value_name = "PATH")]
    key: Option<PathBuf>,
}

pub(super) fn run(args: &Args, out: &mut Output) -> Result<ExitCode, Failure> {
    let path = args.key.clone().unwrap_or_else(|| {
        let state = args.state.clone().or_else(find_state).unwrap_or_else(|| STATE_DIR.into());
        state.join("planner.key")
    });
    let key = trust::read_key(&path).map_err(|e| {
        Failure::because("cannot read the planner's key", e)
            .hint("`groundplan serve` creates it at its first start; give its place with --state or --key")
    })?;
    out.print(&format!("{}\n", key.public()))?;
    Ok(ExitCode::SUCCESS)
}
