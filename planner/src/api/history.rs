//! Past rollouts and commands, as the local API lists them.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    exec::ExecRecord,
    types::{RefusedCommit, RolloutSummary},
};

/// `GET /v1/history`: the latest rollouts, refused commits and commands, each newest first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct History {
    /// The version of the API; a client refuses any other.
    pub version: u32,
    /// The latest rollouts, newest first, without their instances.
    pub rollouts: Vec<RolloutSummary>,
    /// The latest commands, newest first, without what they printed.
    #[serde(default)]
    pub execs: Vec<ExecRecord>,
    /// The latest refused commits, newest first; one that is refused again for other faults is there again.
    #[serde(default)]
    pub refusals: Vec<Refusal>,
}

/// A commit that was refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Refusal {
    /// When the planner refused it, in milliseconds since the Unix epoch.
    pub at_ms: u64,
    /// The commit with its faults. Its fields stand beside the other.
    #[serde(flatten)]
    pub refused: RefusedCommit,
}
