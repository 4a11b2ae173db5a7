//! What is wrong with a site at the moment, each with its evidence: what `groundplan status --exit-code` reports by its exit code.
//!
//! Nothing here is about what merely takes time: a rollout under way, a node that is away, a value that is not known yet.

use std::fmt;

use groundplan_protocol::ids::{CommitId, Generation, NodeId, TaskId};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::unsteady::Unsteady;
use crate::trust::HeldKey;

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
    /// There is no connection to the broker, or it refuses what the planner needs.
    Broker {
        /// Why.
        error: String,
    },
    /// The planner's store cannot be written, as on a full disk: nothing is published until it can.
    Store {
        /// Why.
        error: String,
        /// Since when, in milliseconds since the Unix epoch.
        since_ms: u64,
    },
    /// An agent is connected and cannot go on: it cannot write its ledger, or the broker refuses what it needs.
    Agent {
        /// Its node.
        node: NodeId,
        /// Why, in the agent's words.
        error: String,
    },
    /// The inventory names another key for a node than the trusted one: an operator has to confirm it, or the commit is to be taken back.
    HeldKey {
        /// The node.
        node: NodeId,
        /// Both keys.
        #[serde(flatten)]
        keys: HeldKey,
    },
    /// A node contradicts itself again and again: it is faulty, or its key is in other hands.
    Unsteady {
        /// The node.
        node: NodeId,
        /// How often, until when, and which tasks.
        #[serde(flatten)]
        unsteady: Unsteady,
    },
    /// Tasks were applied on a node, and do not work any more.
    Degraded {
        /// The node.
        node: NodeId,
        /// The tasks; why is in the node's entry.
        tasks: Vec<TaskId>,
    },
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::RefusedCommit { commit, errors } => {
                let plural = if *errors == 1 { "" } else { "s" };
                write!(f, "commit {commit} is refused: {errors} error{plural}")
            }
            Self::FailedRollout { generation, failed, blocked } => {
                write!(f, "rollout {generation} failed: {failed} failed, {blocked} blocked")
            }
            Self::Repository { error } => write!(f, "the repository: {error}"),
            Self::Broker { error } => write!(f, "no connection to the broker: {error}"),
            Self::Store { error, .. } => {
                write!(f, "the planner's store cannot be written; nothing is published until it can: {error}")
            }
            Self::Agent { node, error } => write!(f, "{node}: its agent cannot go on: {error}"),
            Self::HeldKey { node, keys } => write!(f, "{node}: {keys}"),
            Self::Unsteady { node, unsteady } => write!(f, "{node}: it {unsteady}"),
            Self::Degraded { node, tasks } => {
                let tasks: Vec<String> = tasks.iter().map(ToString::to_string).collect();
                write!(f, "{node}: degraded: {}", tasks.join(", "))
            }
        }
    }
}
