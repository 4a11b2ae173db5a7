//! Rollouts and their instances, as `status`, `show` and `history` give them.

use groundplan_core::plan::ReasonReport;
use groundplan_protocol::{
    effect::Action,
    ids::{CommitId, Generation, InstanceId},
    report::{Outcome, Output},
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A commit of the site's repository.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Commit {
    /// Its full object id in hexadecimal.
    pub id: CommitId,
    /// The first line of its message.
    pub subject: String,
    /// The name of its author, as git records it.
    pub author: String,
    /// When it was committed, in seconds since the Unix epoch.
    pub time: i64,
    /// What it takes back of the commit that was active before; absent if it is a fast-forward of that one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rewinds: Option<Rewind>,
}

/// What a commit that is no fast-forward takes back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Rewind {
    /// The commit that was active before.
    pub from: CommitId,
    /// How many commits of its history the new one lacks; absent if they cannot be counted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub commits: Option<usize>,
}

/// Instances of a rollout, counted by state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub struct Counts {
    /// Not started yet: behind others on their node, or their node is away.
    pub pending: usize,
    /// Behind a gate that is not open.
    pub waiting: usize,
    /// Running at this moment.
    pub running: usize,
    /// Done, and something was changed, restarted, reloaded or run.
    pub changed: usize,
    /// Done with nothing to do, or not needed.
    pub unchanged: usize,
    /// Failed, or interrupted for good.
    pub failed: usize,
    /// Not tried, because of a failure.
    pub blocked: usize,
    /// Given up for a newer plan, or left to it.
    pub superseded: usize,
}

impl Counts {
    /// The number of all instances, whatever their state.
    pub fn total(&self) -> usize {
        self.open() + self.changed + self.unchanged + self.failed + self.blocked + self.superseded
    }

    /// The number of instances that have not ended.
    pub fn open(&self) -> usize {
        self.pending + self.waiting + self.running
    }

    /// Adds one instance of that state.
    pub fn add(&mut self, state: &InstanceState) {
        let slot = match state {
            InstanceState::Pending => &mut self.pending,
            InstanceState::Waiting { .. } => &mut self.waiting,
            InstanceState::Running => &mut self.running,
            InstanceState::Finished { outcome } => match outcome {
                Outcome::Done { changed: true, .. } => &mut self.changed,
                Outcome::Done { .. } | Outcome::Skipped => &mut self.unchanged,
                Outcome::Failed { .. } | Outcome::Interrupted => &mut self.failed,
                Outcome::Blocked { .. } => &mut self.blocked,
                Outcome::Superseded => &mut self.superseded,
            },
        };
        *slot += 1;
    }
}

/// The state of an instance in a rollout.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum InstanceState {
    /// Not started yet.
    Pending,
    /// Behind instances on other nodes that are not done, or behind a value that no node has reported yet.
    Waiting {
        /// The first of the instances, by name.
        #[serde(rename = "for")]
        on: Vec<InstanceId>,
        /// How many instances it waits for beside those that `for` lists; absent if there are no others.
        #[serde(default, skip_serializing_if = "is_zero")]
        others: usize,
        /// Values that no node has reported yet, such as `facts of node n1`.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        unknown: Vec<String>,
    },
    /// Running at this moment.
    Running,
    /// It has ended, for good.
    Finished {
        /// How it ended.
        outcome: Outcome,
    },
}

/// A rollout, or `GET /v1/history?limit=N`: the latest ones, newest first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RolloutSummary {
    /// Its id: the generation of its plan.
    pub generation: Generation,
    /// The commit that it leads to.
    pub commit: Commit,
    /// Whether it runs, or how it ended.
    pub result: RolloutResult,
    /// Its instances, counted by state.
    pub counts: Counts,
    /// Nodes that have a part in it.
    pub nodes: usize,
    /// Declared nodes that are connected and not planned for yet, and those whose state the broker may have and has not sent; it is not over
    /// before they are planned for. Only of the latest.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub unplanned: usize,
    /// Instances that it has carried out and that do not work at this moment. Only of the latest.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub degraded: usize,
    /// When it began, in milliseconds since the Unix epoch.
    pub started_ms: u64,
    /// When it ended, in milliseconds since the Unix epoch; none while it runs.
    pub finished_ms: Option<u64>,
    /// The records that nodes drop in it because an operator asked for it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub forgotten: Vec<Forgotten>,
}

/// Whether there is nothing to list.
#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_zero(number: &usize) -> bool {
    *number == 0
}

/// A record of a task on a node that is dropped upon a [`ForgetRequest`](super::types::ForgetRequest).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Forgotten {
    /// The task and the node.
    pub instance: InstanceId,
    /// Who asked for it.
    pub by: String,
    /// Why, in their words; absent if they gave no reason.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub why: String,
}

/// The state of a rollout.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RolloutResult {
    /// Something of it is still open.
    Running,
    /// All that is left waits for values that no node has reported yet.
    Waiting,
    /// All of it succeeded.
    Succeeded,
    /// Something failed.
    Failed,
    /// A newer one replaced it.
    Superseded,
}

/// `GET /v1/rollouts/{generation|latest}`: one rollout in full.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct RolloutDetail {
    /// The version of the API; a client refuses any other.
    pub version: u32,
    /// The rollout as `history` lists it.
    #[serde(flatten)]
    pub summary: RolloutSummary,
    /// Its instances in an execution order.
    pub instances: Vec<InstanceRecord>,
    /// What it could not plan, because no node has reported a value that it needs.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub pending: Vec<PendingRecord>,
}

/// An instance that could not be planned.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PendingRecord {
    /// The task and the node that need a missing value.
    pub instance: InstanceId,
    /// What is missing, such as `export db.address of db-0`.
    pub waits_for: Vec<String>,
}

/// An instance of a rollout.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct InstanceRecord {
    /// The task and the node that it is on.
    pub instance: InstanceId,
    /// What is done to it.
    pub action: Action,
    /// Why: each is the cause of the one before it.
    pub reasons: Vec<ReasonReport>,
    /// Its state in the rollout.
    #[serde(flatten)]
    pub state: InstanceState,
    /// When it started by its node's clock, in milliseconds since the Unix epoch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_ms: Option<u64>,
    /// How long it took, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub duration_ms: Option<u64>,
    /// What it printed; in the history only the end of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output: Option<Output>,
}
