//! `groundplan accept`: a commit that is no fast-forward is meant.

use std::process::ExitCode;

use super::{
    format::{Format, FormatArg},
    planner::Planner,
};
use crate::{
    api::requests::{AcceptCommit, GetStatus},
    terminal::{Failure, Output},
};

/// Accept a commit that is refused because it is no fast-forward.
///
/// Where a planner accepts fast-forwards only (`groundplan serve --fast-forward-only`, or `fast_forward_only` in `[source]` of site.toml), it
/// refuses the branch's tip after a force-push: what the active commit had brought would be taken back. This is for the case that it
/// was meant. It holds for that one commit, while it is the tip.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  groundplan plan main..origin/main      what it would do
  groundplan accept 4fe2c81

Exit codes: 0 it is being loaded, 1 on errors, such as a commit that is not refused for this")]
pub(super) struct Args {
    /// The commit that `groundplan status` shows as refused, or the beginning of its id.
    #[arg(value_name = "COMMIT")]
    commit: String,

    #[command(flatten)]
    planner: Planner,

    #[command(flatten)]
    format: FormatArg,
}

/// The shortest beginning of an id that is taken.
const SHORTEST: usize = 7;

pub(super) fn run(args: &Args, out: &mut Output) -> Result<ExitCode, Failure> {
    let refused = args.planner.query(async |mut client| client.ask(&GetStatus {}).await)?.refused;
    let given = args.commit.to_ascii_lowercase();
    let commit = refused
        .map(|refused| refused.commit.id)
        .filter(|id| given.len() >= SHORTEST && id.as_str().starts_with(&given));
    let Some(commit) = commit else {
        let error = format!("no commit is refused whose id begins with `{}`", args.commit.escape_debug());
        return Err(Failure::new(error).hint("`groundplan status` shows what is refused, and why"));
    };
    let request = AcceptCommit { commit: commit.clone() };
    let done = args.planner.query(async |mut client| client.ask(&request).await)?;
    match args.format.format {
        Format::Json => out.json(&done)?,
        Format::Text => {
            out.print(&format!("commit {commit} is accepted; `groundplan status` shows what becomes of it\n"))?
        }
    }
    Ok(ExitCode::SUCCESS)
}
