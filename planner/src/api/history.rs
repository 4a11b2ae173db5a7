//! Past rollouts and commands, as the local API lists them.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{exec::ExecRecord, types::RolloutSummary};

/// `GET /v1/history`: the latest rollouts and the latest commands, newest first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct History {
    /// The version of the API; a client refuses any other.
    pub version: u32,
    /// The latest rollouts, newest first, without their instances.
    pub rollouts: Vec<RolloutSummary>,
    /// The latest commands, newest first, without what they printed.
    #[serde(default)]
    pub execs: Vec<ExecRecord>,
}
