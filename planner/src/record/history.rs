//! A rollout of the history: its numbers, and every instance with its reasons and the end of its output.

use groundplan_core::plan::ReasonReport;
use groundplan_machine::rollout::{
    Counts, Forgotten, InstanceDetail, InstanceState, PlannedReasons, RolloutDetail, RolloutResult, RolloutSummary,
};
use groundplan_protocol::{
    effect::Action,
    ids::{Generation, InstanceId},
    report::{Outcome, Output},
};
use serde::{Deserialize, Serialize};

use super::meta::CommitRow;

/// A rollout in full. Written when it begins, when it ends, and when a newer one takes its place; each replaces the one before.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct HistoryRow {
    /// The rollout. Its fields stand beside the others.
    #[serde(flatten)]
    pub summary: SummaryRow,
    /// Its instances in an execution order.
    pub instances: Vec<InstanceRow>,
    /// Instances that could not be planned.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub pending: Vec<PendingRow>,
}

/// A rollout in a few numbers. Read by itself from a [`HistoryRow`], it passes over the instances.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SummaryRow {
    /// Its id: the generation of its plan.
    pub generation: Generation,
    /// The commit that it leads to.
    pub commit: CommitRow,
    /// Whether it runs, or how it ended.
    pub result: ResultRow,
    /// Its instances, counted by state.
    pub counts: CountsRow,
    /// How many nodes have a part in it.
    pub nodes: usize,
    /// When it began, in milliseconds since the Unix epoch.
    pub started_ms: u64,
    /// When it ended, in milliseconds since the Unix epoch; none while it runs.
    pub finished_ms: Option<u64>,
    /// The records that it drops because an operator asked for it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub forgotten: Vec<ForgottenRow>,
}

/// A record of a task on a node that is dropped.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ForgottenRow {
    /// The task and the node.
    pub instance: InstanceId,
    /// Who asked for it.
    pub by: String,
    /// Why, in their words; may be empty.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub why: String,
}

/// The state of a rollout.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ResultRow {
    /// Something of it is still open.
    Running,
    /// All that is left waits for values that no node has reported yet.
    Waiting,
    /// All of it was carried out.
    Succeeded,
    /// Something failed.
    Failed,
    /// A newer one replaced it.
    Superseded,
}

/// Instances of a rollout by their state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct CountsRow {
    /// Not started yet: behind others on their node, or their node is offline.
    pub pending: usize,
    /// Behind a gate that is not open.
    pub waiting: usize,
    /// Running at that moment.
    pub running: usize,
    /// Done, and something was changed, restarted, reloaded or run.
    pub changed: usize,
    /// Done with nothing to do, or not needed.
    pub unchanged: usize,
    /// Failed, or interrupted for good.
    pub failed: usize,
    /// Not tried, because of a failure.
    pub blocked: usize,
    /// Given up for a newer plan.
    pub superseded: usize,
}

/// An instance of a rollout.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct InstanceRow {
    /// The task and the node that it is on.
    pub instance: InstanceId,
    /// What is done to it.
    pub action: Action,
    /// Why: each is the cause of the one before it.
    pub reasons: Vec<ReasonReport>,
    /// What has become of it. Its fields stand beside the others.
    #[serde(flatten)]
    pub state: StateRow,
    /// When it started by its node's clock, in milliseconds since the Unix epoch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_ms: Option<u64>,
    /// How long it took, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub duration_ms: Option<u64>,
    /// The end of what it printed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output: Option<Output>,
}

/// What has become of an instance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum StateRow {
    /// Not started yet.
    Pending,
    /// Behind instances on other nodes that are not done, or behind values that no node has reported yet.
    Waiting {
        /// The first of the instances, by name.
        #[serde(rename = "for")]
        on: Vec<InstanceId>,
        /// How many it waits for beside those.
        #[serde(default, skip_serializing_if = "is_zero")]
        others: usize,
        /// The first of the values, such as `facts of node n1`.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        unknown: Vec<String>,
    },
    /// Running at that moment.
    Running,
    /// Ended.
    Finished {
        /// How.
        outcome: Outcome,
    },
}

/// Whether there is nothing to write down.
#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_zero(number: &usize) -> bool {
    *number == 0
}

/// An instance that could not be planned.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PendingRow {
    /// The task and the node that need a missing value.
    pub instance: InstanceId,
    /// What is missing, such as `export db.address of db-0`.
    pub waits_for: Vec<String>,
}

impl From<RolloutDetail> for HistoryRow {
    fn from(detail: RolloutDetail) -> Self {
        let RolloutDetail { summary, instances, pending } = detail;
        let pending = pending.into_iter().map(|(instance, waits_for)| PendingRow { instance, waits_for });
        Self {
            summary: summary.into(),
            instances: instances.into_iter().map(Into::into).collect(),
            pending: pending.collect(),
        }
    }
}

impl From<HistoryRow> for RolloutDetail {
    fn from(row: HistoryRow) -> Self {
        let HistoryRow { summary, instances, pending } = row;
        let pending = pending.into_iter().map(|pending| (pending.instance, pending.waits_for));
        let mut detail = Self {
            summary: summary.into(),
            instances: instances.into_iter().map(Into::into).collect(),
            pending: pending.collect(),
        };
        detail.leave_to_newer();
        detail
    }
}

impl From<RolloutSummary> for SummaryRow {
    fn from(summary: RolloutSummary) -> Self {
        let RolloutSummary { generation, commit, result, counts, nodes, started_ms, finished_ms, forgotten } = summary;
        let (commit, result, counts) = (commit.into(), result.into(), counts.into());
        let row = |Forgotten { instance, by, why }| ForgottenRow { instance, by, why };
        let forgotten = forgotten.into_iter().map(row).collect();
        Self { generation, commit, result, counts, nodes, started_ms, finished_ms, forgotten }
    }
}

impl From<SummaryRow> for RolloutSummary {
    fn from(row: SummaryRow) -> Self {
        let SummaryRow { generation, commit, result, counts, nodes, started_ms, finished_ms, forgotten } = row;
        let (commit, result, counts) = (commit.into(), result.into(), counts.into());
        let value = |ForgottenRow { instance, by, why }| Forgotten { instance, by, why };
        let forgotten = forgotten.into_iter().map(value).collect();
        let mut summary = Self { generation, commit, result, counts, nodes, started_ms, finished_ms, forgotten };
        // Rows of older versions have what was open when the newer one came.
        summary.leave_to_newer();
        summary
    }
}

impl From<RolloutResult> for ResultRow {
    fn from(result: RolloutResult) -> Self {
        match result {
            RolloutResult::Running => Self::Running,
            RolloutResult::Waiting => Self::Waiting,
            RolloutResult::Succeeded => Self::Succeeded,
            RolloutResult::Failed => Self::Failed,
            RolloutResult::Superseded => Self::Superseded,
        }
    }
}

impl From<ResultRow> for RolloutResult {
    fn from(row: ResultRow) -> Self {
        match row {
            ResultRow::Running => Self::Running,
            ResultRow::Waiting => Self::Waiting,
            ResultRow::Succeeded => Self::Succeeded,
            ResultRow::Failed => Self::Failed,
            ResultRow::Superseded => Self::Superseded,
        }
    }
}

impl From<Counts> for CountsRow {
    fn from(counts: Counts) -> Self {
        let Counts { pending, waiting, running, changed, unchanged, failed, blocked, superseded } = counts;
        Self { pending, waiting, running, changed, unchanged, failed, blocked, superseded }
    }
}

impl From<CountsRow> for Counts {
    fn from(row: CountsRow) -> Self {
        let CountsRow { pending, waiting, running, changed, unchanged, failed, blocked, superseded } = row;
        Self { pending, waiting, running, changed, unchanged, failed, blocked, superseded }
    }
}

impl From<InstanceDetail> for InstanceRow {
    fn from(detail: InstanceDetail) -> Self {
        let InstanceDetail { planned, state, started_ms, duration_ms, output } = detail;
        let PlannedReasons { instance, action, reasons } = planned;
        Self { instance, action, reasons, state: state.into(), started_ms, duration_ms, output }
    }
}

impl From<InstanceRow> for InstanceDetail {
    fn from(row: InstanceRow) -> Self {
        let InstanceRow { instance, action, reasons, state, started_ms, duration_ms, output } = row;
        let planned = PlannedReasons { instance, action, reasons };
        Self { planned, state: state.into(), started_ms, duration_ms, output }
    }
}

impl From<InstanceState> for StateRow {
    fn from(state: InstanceState) -> Self {
        match state {
            InstanceState::Pending => Self::Pending,
            InstanceState::Waiting { on, others, unknown } => Self::Waiting { on, others, unknown },
            InstanceState::Running => Self::Running,
            InstanceState::Finished(outcome) => Self::Finished { outcome },
        }
    }
}

impl From<StateRow> for InstanceState {
    fn from(row: StateRow) -> Self {
        match row {
            StateRow::Pending => Self::Pending,
            StateRow::Waiting { on, others, unknown } => Self::Waiting { on, others, unknown },
            StateRow::Running => Self::Running,
            StateRow::Finished { outcome } => Self::Finished(outcome),
        }
    }
}
