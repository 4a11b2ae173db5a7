//! `groundplan broker password`: a node's password at the embedded broker.

use std::{path::PathBuf, process::ExitCode};

use groundplan_protocol::ids::NodeId;

use crate::{
    config::STATE_DIR,
    embedded::NodePasswords,
    terminal::{Failure, Output},
};

/// Print the password of a node, or of `observer`, at a planner's embedded broker on a loopback address.
///
/// It follows from `broker.secret` in the planner's state directory, which is made if it is not there; whoever may read that may print it.
/// Put it into a file that only the agent's user may read, and name that as `password_file` in the agent's configuration.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  (umask 077; groundplan broker password web > /etc/groundplan/broker.password)
  groundplan broker password observer --state ./state")]
pub(super) struct Args {
    /// The node.
    #[arg(value_name = "NODE")]
    node: NodeId,

    /// The planner's state directory.
    #[arg(long, value_name = "DIR", env = "GROUNDPLAN_STATE", default_value = STATE_DIR)]
    state: PathBuf,
}

pub(super) fn run(args: &Args, out: &mut Output) -> Result<ExitCode, Failure> {
    let passwords = NodePasswords::open(&args.state).map_err(|e| {
        Failure::because("cannot read the broker's secret", e)
            .hint("run it as the user of the planner, and give its state directory with --state")
    })?;
    out.print(&format!("{}\n", passwords.password(args.node.as_str())))?;
    Ok(ExitCode::SUCCESS)
}
