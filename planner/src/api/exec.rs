//! Commands in the local API: the request, the stream of events that answers it, and the record that is kept.
//!
//! `POST /v1/exec` answers with one JSON object a line, from `started` to `finished`; a client that closes the connection before that
//! stops the command. `POST /v1/exec/{id}/stop` stops it and lets the stream come to its end. `GET /v1/exec/{id}` is the record.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use groundplan_protocol::{
    duration::Span,
    exec::{ExecOutcome, OUTPUT_LIMIT, Stream},
    ids::{ExecId, NodeId},
    kinds::Run,
    report::Output,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::types::NodePresence;
use crate::select::Selector;

/// How long a command may take on a node if the request does not limit it.
pub const TIMEOUT: Span = Span::secs(5 * 60);

/// `POST /v1/exec`: run a command on nodes, now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ExecRequest {
    /// The nodes to run it on, as a selector.
    pub on: Selector,
    /// A shell line, or a program with its arguments.
    pub run: Run,
    /// The user that runs it; the agent's own user if absent.
    #[serde(default)]
    pub user: Option<String>,
    /// The working directory; `/` if absent.
    #[serde(default)]
    pub cwd: Option<String>,
    /// Further environment variables. Their values are not recorded.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// How long it may take on a node, at most a day.
    #[serde(default = "timeout")]
    pub timeout: Span,
    /// On how many nodes at a time; on all if absent.
    #[serde(default)]
    pub at_once: Option<u32>,
    /// Most output of a node that is passed on, in bytes; the rest is counted.
    #[serde(default = "output_limit")]
    pub output_limit: u64,
    /// Begin on no more nodes once this many did not succeed.
    #[serde(default)]
    pub max_failures: Option<u32>,
}

fn timeout() -> Span {
    TIMEOUT
}

fn output_limit() -> u64 {
    OUTPUT_LIMIT
}

/// An event of a command. The last event of a node counts: a node that was cut off may report again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum ExecEvent {
    /// First of every stream.
    Started {
        /// Format version.
        version: u32,
        /// The command.
        id: ExecId,
        /// The nodes that it is for, and whether each is connected.
        nodes: BTreeMap<NodeId, NodePresence>,
    },
    /// It has begun on a node.
    Begun {
        /// The node.
        node: NodeId,
    },
    /// A node's command printed something.
    Output {
        /// The node.
        node: NodeId,
        /// Standard output or standard error.
        stream: Stream,
        /// A piece of it, in which other encodings than UTF-8 are replaced.
        text: String,
    },
    /// This client read too slowly: output of a node was left out here.
    Missed {
        /// The node.
        node: NodeId,
        /// The length of what was left out, in bytes.
        bytes: u64,
    },
    /// How it ended on a node.
    NodeEnded {
        /// The node.
        node: NodeId,
        /// How it ended there.
        outcome: NodeOutcome,
        /// How long it ran, in milliseconds, where that is known.
        duration_ms: Option<u64>,
        /// How many bytes of output its agent left out.
        omitted: u64,
    },
    /// Last of every stream.
    Finished {
        /// The whole record, without the output.
        record: Box<ExecRecord>,
    },
}

/// The state of a command on a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "is", rename_all = "snake_case")]
pub enum NodeOutcome {
    /// Its turn has not come, or it has not begun.
    Waiting,
    /// It runs.
    Running,
    /// It ended by itself.
    Exited {
        /// With this code.
        code: i32,
    },
    /// It was ended by a signal that neither the agent nor an operator of groundplan sent.
    Killed {
        /// Its name or number.
        signal: String,
    },
    /// It took longer than its limit, and was ended.
    TimedOut,
    /// An operator stopped it, or its turn never came.
    Stopped,
    /// The agent did not run it, and never will.
    Refused {
        /// Why.
        reason: String,
    },
    /// It could not be run, or not be followed to its end.
    Failed {
        /// Why.
        error: String,
    },
    /// The node was not connected: nothing was sent.
    Offline,
    /// The connection to the node was lost, or it gave no answer, before it was to begin: then it never runs it. Or while it ran.
    CutOff {
        /// Whether it had begun.
        began: bool,
    },
    /// It was to begin, and then the connection to the node was lost, or it gave no answer.
    MayHaveRun,
    /// It is long past its limit, and no report of its end has come.
    Lost,
    /// The planner ended before it did.
    Interrupted,
}

/// An outcome, as far as the result of the command as a whole depends on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Standing {
    /// Not ended.
    Open,
    /// Exited with 0.
    Good,
    /// Ended otherwise by itself, or could not be run.
    Bad,
    /// Ended by its time limit or by an operator.
    Ended,
    /// Not known: the node was not connected, or is not any more.
    Unknown,
}

impl NodeOutcome {
    /// How it counts for the result of the command as a whole.
    pub fn standing(&self) -> Standing {
        match self {
            Self::Waiting | Self::Running => Standing::Open,
            Self::Exited { code: 0 } => Standing::Good,
            Self::Exited { .. } | Self::Killed { .. } | Self::Refused { .. } | Self::Failed { .. } => Standing::Bad,
            Self::TimedOut | Self::Stopped => Standing::Ended,
            Self::Offline | Self::CutOff { .. } | Self::MayHaveRun | Self::Lost | Self::Interrupted => {
                Standing::Unknown
            }
        }
    }
}

impl From<ExecOutcome> for NodeOutcome {
    fn from(outcome: ExecOutcome) -> Self {
        match outcome {
            ExecOutcome::Exited { code } => Self::Exited { code },
            ExecOutcome::Killed { signal } => Self::Killed { signal },
            ExecOutcome::TimedOut => Self::TimedOut,
            ExecOutcome::Stopped => Self::Stopped,
            ExecOutcome::Refused { reason } => Self::Refused { reason },
            ExecOutcome::Failed { error } => Self::Failed { error },
            ExecOutcome::Unknown => Self::MayHaveRun,
        }
    }
}

impl fmt::Display for NodeOutcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Waiting => f.write_str("waiting"),
            Self::Running => f.write_str("running"),
            Self::Exited { code } => write!(f, "exited with {code}"),
            Self::Killed { signal } => write!(f, "killed by {signal}"),
            Self::TimedOut => f.write_str("timed out"),
            Self::Stopped => f.write_str("stopped"),
            Self::Refused { reason } => write!(f, "refused: {reason}"),
            Self::Failed { error } => write!(f, "failed: {error}"),
            Self::Offline => f.write_str("offline: never reached"),
            Self::CutOff { began: true } => f.write_str("cut off while it ran"),
            Self::CutOff { began: false } => f.write_str("cut off: not run"),
            Self::MayHaveRun => f.write_str("cut off: may have run"),
            Self::Lost => f.write_str("lost: its end was never reported"),
            Self::Interrupted => f.write_str("interrupted: the planner ended first"),
        }
    }
}

/// `GET /v1/exec/{id}`: a command, and what came of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ExecRecord {
    /// The version of the API; a client refuses any other.
    pub version: u32,
    /// The random id of this command.
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
    /// The working directory, if not `/`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cwd: Option<String>,
    /// The names of further environment variables.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub env: BTreeSet<String>,
    /// How long it may take on a node.
    pub timeout: Span,
    /// When it began, in milliseconds since the Unix epoch.
    pub started_ms: u64,
    /// When it ended, if it has.
    pub finished_ms: Option<u64>,
    /// Its state as a whole.
    pub result: ExecResult,
    /// Its state on each node.
    pub nodes: BTreeMap<NodeId, ExecNode>,
}

/// The state of a command as a whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ExecResult {
    /// It has not ended on every node.
    Running,
    /// It has ended on every node, whether or not it succeeded.
    Finished,
    /// An operator stopped it.
    Stopped,
    /// The planner ended before the command did.
    Interrupted,
}

/// A command on one node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ExecNode {
    /// Its state there; final once it has ended.
    pub outcome: NodeOutcome,
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

impl ExecRecord {
    /// The same without what was printed.
    #[must_use]
    pub fn without_output(&self) -> Self {
        let mut record = self.clone();
        record.nodes.values_mut().for_each(|node| node.output = None);
        record
    }

    /// How many nodes stand so.
    pub fn count(&self, standing: Standing) -> usize {
        self.nodes.values().filter(|node| node.outcome.standing() == standing).count()
    }
}
