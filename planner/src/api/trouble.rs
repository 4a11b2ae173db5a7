//! What is wrong with a site at the moment, each with its evidence: what `groundplan status --exit-code` reports by its exit code.
//!
//! Nothing here is about what merely takes time: a rollout under way, a node that is away, a value that is not known yet.

use std::fmt;

use groundplan_protocol::ids::{CommitId, Generation};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// One thing that is wrong and does not pass by itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "is", rename_all = "snake_case")]
pub enum Trouble {
    /// The branch's tip is refused; the commit before it stays active.
    RefusedCommit {
        /// The commit.
        commit: CommitId,
        /// How many faults it has.
        errors: usize,
    },
    /// The latest rollout has failed.
    FailedRollout {
        /// Its id.
        generation: Generation,
        /// How many of its tasks have failed.
        failed: usize,
        /// How many were not tried because of that.
        blocked: usize,
    },
    /// Commits may be missing: the repository cannot be read, or not be fetched.
    Repository {
        /// Why.
        error: String,
    },
    /// There is no connection to the broker.
    Broker {
        /// Why.
        error: String,
    },
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::RefusedCommit { commit, errors } => write!(f, "commit {commit} is refused: {errors} errors"),
            Self::FailedRollout { generation, failed, blocked } => {
                write!(f, "rollout {generation} failed: {failed} failed, {blocked} blocked")
            }
            Self::Repository { error } => write!(f, "the repository: {error}"),
            Self::Broker { error } => write!(f, "no connection to the broker: {error}"),
        }
    }
}
