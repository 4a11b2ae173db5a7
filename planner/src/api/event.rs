//! Events of the planner, as its API streams them. `VERSION` of the API covers them.

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
    /// A commit became active; what has to be done for it follows, if anything.
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
    /// A task ended, for good.
    TaskFinished {
        /// The instance.
        instance: InstanceId,
        /// What was asked for.
        action: Action,
        /// How it ended.
        outcome: Outcome,
        /// How long it took, in milliseconds.
        duration_ms: u64,
        /// Whether its agent has left it out, because it acts on the host as a whole, as under `groundplan up`; its output says why. Absent
        /// if not.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        skipped: bool,
        /// What the rollout's instances were reported to be so far. One that has not ended and is not reported to run counts as pending,
        /// whatever it waits for.
        counts: Counts,
    },
    /// A rollout ended.
    RolloutFinished {
        /// The rollout.
        rollout: RolloutSummary,
    },
    /// An agent connected or disconnected.
    Node {
        /// The node.
        node: NodeId,
        /// Whether it is connected now.
        presence: NodePresence,
    },
    /// An applied task does not work any more, or works again.
    Degraded {
        /// The task and its node.
        instance: InstanceId,
        /// Why it does not work; absent if it works again.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        why: Option<String>,
    },
    /// The planner began to plan, or stands by.
    Role {
        /// Its role.
        role: Role,
    },
    /// Nothing is open: every connected node has what the active commit asks for, or has failed to apply it.
    Idle,
    /// This client read too slowly and missed some events.
    Missed {
        /// How many events.
        count: u64,
    },
}
