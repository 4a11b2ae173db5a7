//! What happens, as the planner tells it to those who listen. `VERSION` of the API guards it.

use groundplan_protocol::{
    effect::Action,
    ids::{InstanceId, NodeId},
    report::Outcome,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::types::{Commit, Counts, NodePresence, RefusedCommit, Role, RolloutSummary};

/// `GET /v1/events`: one JSON object a line, from now on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// First of every stream.
    Hello {
        /// Format version.
        version: u32,
    },
    /// A commit was refused.
    Refused {
        /// The commit and its faults.
        refused: RefusedCommit,
    },
    /// A commit came into force; what has to be done for it follows, if anything.
    Commit {
        /// The commit.
        commit: Commit,
    },
    /// A rollout began.
    RolloutStarted {
        /// The rollout.
        rollout: RolloutSummary,
    },
    /// A task began.
    TaskStarted {
        /// The instance.
        instance: InstanceId,
    },
    /// The last word on a task.
    TaskFinished {
        /// The instance.
        instance: InstanceId,
        /// What was asked for.
        action: Action,
        /// What became of it.
        outcome: Outcome,
        /// How long it took, in milliseconds.
        duration_ms: u64,
        /// Its part of the rollout's progress so far.
        counts: Counts,
    },
    /// A rollout ended.
    RolloutFinished {
        /// The rollout.
        rollout: RolloutSummary,
    },
    /// An agent came or went.
    Node {
        /// The node.
        node: NodeId,
        /// Whether it is there.
        presence: NodePresence,
    },
    /// The planner began to plan, or stands by.
    Role {
        /// Its role.
        role: Role,
    },
    /// Nothing is open: every node that is there has what the commit in force asks for, or has failed at it.
    Idle,
    /// This client read too slowly and missed some.
    Missed {
        /// How many.
        count: u64,
    },
}
