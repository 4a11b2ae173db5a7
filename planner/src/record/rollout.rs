//! The latest rollout: its head beside the core's own snapshot from its start, and the log of what happened to it since.

use std::{borrow::Cow, collections::BTreeMap};

use groundplan_core::plan::ReasonReport;
use groundplan_machine::{
    record::LogEntry,
    rollout::{PlannedReasons, RolloutHead},
};
use groundplan_protocol::{
    effect::Action,
    ids::{Generation, InstanceId, LedgerId, NodeId, Sequence, TaskId},
    report::TaskReport,
};
use serde::{Deserialize, Serialize};

use super::meta::CommitRow;

/// What a rollout is, apart from its progress. Written once, when it begins.
///
/// Borrows its actions when it is written: a plan for a large fleet has a great many.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct HeadRow<'a> {
    /// The generation of its plan, which is also its id.
    pub generation: Generation,
    /// The commit that it leads to.
    pub commit: CommitRow,
    /// When it began, in milliseconds since the Unix epoch.
    pub started_ms: u64,
    /// Its actions in an execution order, with their reasons.
    pub actions: Vec<PlannedRow<'a>>,
    /// When it ended, if that was known when it was written. Its end, if it came later, is in the history only.
    #[serde(default)]
    pub ended_ms: Option<u64>,
    /// Nodes to which the very same plan was on its way already, and its generation.
    #[serde(default)]
    pub kept: BTreeMap<NodeId, Generation>,
}

/// An action and its reasons.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PlannedRow<'a> {
    /// What it is done to.
    pub instance: Cow<'a, InstanceId>,
    /// What the plan asks of the agent.
    pub action: Action,
    /// Why: each is the cause of the one before it.
    pub reasons: Cow<'a, [ReasonReport]>,
}

/// What happened to a rollout. Written before reports are acknowledged and before gates are published.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogRow {
    /// Reports came.
    Reports {
        /// From this node.
        node: NodeId,
        /// Its ledger.
        ledger: LedgerId,
        /// Number of the first.
        first: Sequence,
        /// The reports.
        reports: Vec<TaskReport>,
    },
    /// An agent connected or left.
    Presence {
        /// Its node.
        node: NodeId,
        /// Whether it is connected.
        online: bool,
    },
    /// A turn of a rollout before has ended.
    Accepted {
        /// The node.
        node: NodeId,
        /// The generation that it is at.
        generation: Generation,
        /// What it still runs.
        running: Vec<TaskId>,
    },
    /// An agent refused its part of the plan.
    Refused {
        /// Its node.
        node: NodeId,
        /// The generation of the plan.
        generation: Generation,
        /// The agent's reason.
        reason: String,
        /// When the planner received it, in milliseconds since the Unix epoch.
        at_ms: u64,
    },
    /// Gates were opened.
    Advance,
}

impl<'a> From<&'a RolloutHead> for HeadRow<'a> {
    fn from(head: &'a RolloutHead) -> Self {
        let RolloutHead { generation, commit, started_ms, actions, ended_ms, kept } = head;
        Self {
            generation: *generation,
            commit: commit.clone().into(),
            started_ms: *started_ms,
            actions: actions.iter().map(Into::into).collect(),
            ended_ms: *ended_ms,
            kept: kept.clone(),
        }
    }
}

impl From<HeadRow<'_>> for RolloutHead {
    fn from(row: HeadRow<'_>) -> Self {
        let HeadRow { generation, commit, started_ms, actions, ended_ms, kept } = row;
        let actions = actions.into_iter().map(Into::into).collect();
        Self { generation, commit: commit.into(), started_ms, actions, ended_ms, kept }
    }
}

impl<'a> From<&'a PlannedReasons> for PlannedRow<'a> {
    fn from(planned: &'a PlannedReasons) -> Self {
        let PlannedReasons { instance, action, reasons } = planned;
        Self { instance: Cow::Borrowed(instance), action: *action, reasons: Cow::Borrowed(reasons) }
    }
}

impl From<PlannedRow<'_>> for PlannedReasons {
    fn from(row: PlannedRow<'_>) -> Self {
        let PlannedRow { instance, action, reasons } = row;
        Self { instance: instance.into_owned(), action, reasons: reasons.into_owned() }
    }
}

impl From<LogEntry> for LogRow {
    fn from(entry: LogEntry) -> Self {
        match entry {
            LogEntry::Reports { node, ledger, first, reports } => Self::Reports { node, ledger, first, reports },
            LogEntry::Presence { node, online } => Self::Presence { node, online },
            LogEntry::Accepted { node, generation, running } => Self::Accepted { node, generation, running },
            LogEntry::Refused { node, generation, reason, at_ms } => Self::Refused { node, generation, reason, at_ms },
            LogEntry::Advance => Self::Advance,
        }
    }
}

impl From<LogRow> for LogEntry {
    fn from(row: LogRow) -> Self {
        match row {
            LogRow::Reports { node, ledger, first, reports } => Self::Reports { node, ledger, first, reports },
            LogRow::Presence { node, online } => Self::Presence { node, online },
            LogRow::Accepted { node, generation, running } => Self::Accepted { node, generation, running },
            LogRow::Refused { node, generation, reason, at_ms } => Self::Refused { node, generation, reason, at_ms },
            LogRow::Advance => Self::Advance,
        }
    }
}
