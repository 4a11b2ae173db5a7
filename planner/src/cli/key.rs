//! `groundplan key`: the public key that agents are to trust.

use std::{fs, path::PathBuf, process::ExitCode};

use groundplan_protocol::envelope::SigningKey;

use super::{Failure, Output, ask::STATE_DIR};

/// Print the planner's public key, for the `planner_keys` of its agents.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  groundplan key\n  groundplan key --state /var/lib/groundplan")]
pub(super) struct Args {
    /// The planner's state directory, in which `planner.key` lies.
    #[arg(long, value_name = "DIR", env = "GROUNDPLAN_STATE", default_value = STATE_DIR)]
    state: PathBuf,

    /// The key file, if it is elsewhere.
    #[arg(long, value_name = "PATH")]
    key: Option<PathBuf>,
}

pub(super) fn run(args: &Args, out: &mut Output) -> Result<ExitCode, Failure> {
    let path = args.key.clone().unwrap_or_else(|| args.state.join("planner.key"));
    let text = fs::read_to_string(&path).map_err(|e| {
        Failure::because(format!("cannot read the planner's key {}", path.display()), e)
            .hint("`groundplan serve` makes one at its first start; --state or --key says where it is")
    })?;
    let key: SigningKey =
        text.parse().map_err(|e| Failure::because(format!("{} holds no signing key", path.display()), e))?;
    out.print(&format!("{}\n", key.public()))?;
    Ok(ExitCode::SUCCESS)
}
