//! `groundplan trust`: the key that a node's agent signs with.

use std::process::ExitCode;

use groundplan_protocol::{envelope::PublicKey, ids::NodeId};

use super::{
    format::{Format, FormatArg},
    planner::Planner,
};
use crate::{
    api::hosts::{TrustRequest, Trusted},
    terminal::{Failure, Output},
};

/// Trust the key that a node's agent signs with.
///
/// For agents that were not installed by `groundplan bootstrap`, which does this itself. The agent's host prints its key with
/// `groundplan-agent --print-key`; an agent that has no plan yet also logs it at its start. Compare it over a channel that you trust: who
/// has the key speaks for the node. Takes effect at once, without a restart of planner or agent.
///
/// The first `key` that the inventory names for a node is trusted. One that a later commit puts in its place is held: the former stays
/// trusted until an operator confirms the other with `groundplan trust NODE`, or with the key itself.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  groundplan trust ctl-0 ed25519:BMhkrm4VZMP3Ru7eW9JkUkBUmuLvbmyAuzTvzNb6ho0=
  groundplan trust ctl-0                 the key that the inventory names for it now
  groundplan trust ctl-0 \"$(ssh root@ctl-0 groundplan-agent --print-key)\" --replace-key

Exit codes: 0 the key is trusted, 1 on errors, such as a node that is not declared, or another key that is trusted for it")]
pub(super) struct Args {
    /// The node, which the inventory declares.
    #[arg(value_name = "NODE")]
    node: NodeId,

    /// The public key of its agent [default: the one that the inventory names and that is held].
    #[arg(value_name = "KEY")]
    key: Option<PublicKey>,

    /// Trust it instead of the key that is trusted for the node, for example after a reinstallation.
    #[arg(long)]
    replace_key: bool,

    #[command(flatten)]
    planner: Planner,

    #[command(flatten)]
    format: FormatArg,
}

pub(super) fn run(args: &Args, out: &mut Output) -> Result<ExitCode, Failure> {
    let Args { node, key, replace_key, .. } = args;
    let request = TrustRequest { node: node.clone(), key: *key, replace: *replace_key };
    let trusted: Trusted = args.planner.query(async |mut client| client.ask(&request).await)?;
    let key = &trusted.key;
    match (args.format.format, trusted.changed) {
        (Format::Json, _) => out.json(&trusted)?,
        (Format::Text, true) => {
            let before = trusted.before.map(|before| format!(", and {before} no longer")).unwrap_or_default();
            out.print(&format!("{key} is trusted for node {node}{before}\n"))?;
        }
        (Format::Text, false) => out.print(&format!("{key} was trusted for node {node} already\n"))?,
    }
    Ok(ExitCode::SUCCESS)
}
