//! A command of `groundplan exec`: what was asked for, and what came of it on each node.

use std::collections::{BTreeMap, BTreeSet};

use groundplan_machine::command::{CommandNode, CommandRecord, CommandResult, NodeOutcome};
use groundplan_protocol::{
    duration::Span,
    ids::{ExecId, NodeId},
    kinds::Run,
    report::Output,
};
use serde::{Deserialize, Serialize};

/// A command. Written when it begins, every few seconds while it runs, and when it ends; each replaces the one before.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommandRow {
    /// The command's random id, part of the row's key.
    pub id: ExecId,
    /// The user who asked for it, on the planner's host.
    pub by: String,
    /// The selector of its nodes, as it was written.
    pub on: String,
    /// A shell line, or a program with its arguments.
    pub run: Run,
    /// The user that runs it, if not the agent's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// The directory it runs in, if not `/`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cwd: Option<String>,
    /// The names of further environment variables; their values are not kept.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub env: BTreeSet<String>,
    /// How long it may take on a node.
    pub timeout: Span,
    /// When it began, in milliseconds since the Unix epoch.
    pub started_ms: u64,
    /// When it ended, if it has.
    pub finished_ms: Option<u64>,
    /// Its state as a whole. One that is running when a planner starts was interrupted.
    pub result: CommandResultRow,
    /// Its state on each node.
    pub nodes: BTreeMap<NodeId, CommandNodeRow>,
}

/// The state of a command as a whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CommandResultRow {
    /// It has not ended on every node.
    Running,
    /// It ended on every node, well or not.
    Finished,
    /// An operator stopped it.
    Stopped,
    /// The planner ended first.
    Interrupted,
}

/// The state of a command on a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommandNodeRow {
    /// How it ended, or its state.
    pub outcome: NodeOutcomeRow,
    /// How long it ran, in milliseconds, where that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub duration_ms: Option<u64>,
    /// How many bytes of output its agent left out.
    #[serde(default)]
    pub omitted: u64,
    /// The beginning and the end of what it printed, both streams.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output: Option<Output>,
}

/// How a command ended on a node, or its state there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "is", rename_all = "snake_case")]
pub enum NodeOutcomeRow {
    /// Its turn has not come, or it has not begun.
    Waiting,
    /// It runs.
    Running,
    /// It exited by itself.
    Exited {
        /// With this code.
        code: i32,
    },
    /// It was ended by a signal that the agent did not send.
    Killed {
        /// The signal's name or number.
        signal: String,
    },
    /// It took too long, and was ended.
    TimedOut,
    /// An operator stopped it, or its turn never came.
    Stopped,
    /// The agent did not run it.
    Refused {
        /// Why.
        reason: String,
    },
    /// It could not be run, or not be followed to its end.
    Failed {
        /// Why.
        error: String,
    },
    /// The node was not online: nothing was sent.
    Offline,
    /// The connection to the node was lost, or it gave no answer, before it was to begin: then it never runs it. Or while it ran.
    CutOff {
        /// Whether it had begun.
        began: bool,
    },
    /// It was to begin, and then the connection to the node was lost, or it gave no answer.
    MayHaveRun,
    /// It is long past its time limit, and its end was not reported.
    Lost,
    /// The planner ended before it did.
    Interrupted,
}

impl From<CommandRecord> for CommandRow {
    fn from(record: CommandRecord) -> Self {
        let CommandRecord { id, by, on, run, user, cwd, env, timeout, started_ms, finished_ms, result, nodes } = record;
        let nodes = nodes.into_iter().map(|(node, state)| (node, state.into())).collect();
        let result = result.into();
        Self { id, by, on, run, user, cwd, env, timeout, started_ms, finished_ms, result, nodes }
    }
}

impl From<CommandRow> for CommandRecord {
    fn from(row: CommandRow) -> Self {
        let CommandRow { id, by, on, run, user, cwd, env, timeout, started_ms, finished_ms, result, nodes } = row;
        let nodes = nodes.into_iter().map(|(node, state)| (node, state.into())).collect();
        let result = result.into();
        Self { id, by, on, run, user, cwd, env, timeout, started_ms, finished_ms, result, nodes }
    }
}

impl From<CommandResult> for CommandResultRow {
    fn from(result: CommandResult) -> Self {
        match result {
            CommandResult::Running => Self::Running,
            CommandResult::Finished => Self::Finished,
            CommandResult::Stopped => Self::Stopped,
            CommandResult::Interrupted => Self::Interrupted,
        }
    }
}

impl From<CommandResultRow> for CommandResult {
    fn from(row: CommandResultRow) -> Self {
        match row {
            CommandResultRow::Running => Self::Running,
            CommandResultRow::Finished => Self::Finished,
            CommandResultRow::Stopped => Self::Stopped,
            CommandResultRow::Interrupted => Self::Interrupted,
        }
    }
}

impl From<CommandNode> for CommandNodeRow {
    fn from(node: CommandNode) -> Self {
        let CommandNode { outcome, duration_ms, omitted, output } = node;
        Self { outcome: outcome.into(), duration_ms, omitted, output }
    }
}

impl From<CommandNodeRow> for CommandNode {
    fn from(row: CommandNodeRow) -> Self {
        let CommandNodeRow { outcome, duration_ms, omitted, output } = row;
        Self { outcome: outcome.into(), duration_ms, omitted, output }
    }
}

impl From<NodeOutcome> for NodeOutcomeRow {
    fn from(outcome: NodeOutcome) -> Self {
        match outcome {
            NodeOutcome::Waiting => Self::Waiting,
            NodeOutcome::Running => Self::Running,
            NodeOutcome::Exited { code } => Self::Exited { code },
            NodeOutcome::Killed { signal } => Self::Killed { signal },
            NodeOutcome::TimedOut => Self::TimedOut,
            NodeOutcome::Stopped => Self::Stopped,
            NodeOutcome::Refused { reason } => Self::Refused { reason },
            NodeOutcome::Failed { error } => Self::Failed { error },
            NodeOutcome::Offline => Self::Offline,
            NodeOutcome::CutOff { began } => Self::CutOff { began },
            NodeOutcome::MayHaveRun => Self::MayHaveRun,
            NodeOutcome::Lost => Self::Lost,
            NodeOutcome::Interrupted => Self::Interrupted,
        }
    }
}

impl From<NodeOutcomeRow> for NodeOutcome {
    fn from(row: NodeOutcomeRow) -> Self {
        match row {
            NodeOutcomeRow::Waiting => Self::Waiting,
            NodeOutcomeRow::Running => Self::Running,
            NodeOutcomeRow::Exited { code } => Self::Exited { code },
            NodeOutcomeRow::Killed { signal } => Self::Killed { signal },
            NodeOutcomeRow::TimedOut => Self::TimedOut,
            NodeOutcomeRow::Stopped => Self::Stopped,
            NodeOutcomeRow::Refused { reason } => Self::Refused { reason },
            NodeOutcomeRow::Failed { error } => Self::Failed { error },
            NodeOutcomeRow::Offline => Self::Offline,
            NodeOutcomeRow::CutOff { began } => Self::CutOff { began },
            NodeOutcomeRow::MayHaveRun => Self::MayHaveRun,
            NodeOutcomeRow::Lost => Self::Lost,
            NodeOutcomeRow::Interrupted => Self::Interrupted,
        }
    }
}
