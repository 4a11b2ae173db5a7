//! What the local API says of commands: the request, the stream of what comes of it, and the record that is kept.
//!
//! `POST /v1/exec` answers with one JSON object a line, from `started` to `finished`; whoever closes the connection before stops the
//! command. `POST /v1/exec/{id}/stop` stops it and lets the stream come to its end. `GET /v1/exec/{id}` is the record.

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

/// How long a command may take if nothing is said.
pub const TIMEOUT: Span = Span::secs(5 * 60);

/// `POST /v1/exec`: run a command on nodes, now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ExecRequest {
    /// On which nodes.
    pub on: Selector,
    /// A shell line, or a program with its arguments.
    pub run: Run,
    /// Who runs it; the agent's own user if absent.
    #[serde(default)]
    pub user: Option<String>,
    /// Where; `/` if absent.
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

/// What comes of a command, as it comes. What was said last of a node counts: one that was cut off may come back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum ExecEvent {
    /// First of every stream.
    Started {
        /// Format version.
        version: u32,
        /// The command.
        id: ExecId,
        /// The nodes that it is for, and whether each is there.
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
        /// Where.
        stream: Stream,
        /// What.
        text: String,
    },
    /// This client read too slowly: output of a node was left out here.
    Missed {
        /// The node.
        node: NodeId,
        /// How much, in bytes.
        bytes: u64,
    },
    /// How it ended on a node.
    NodeEnded {
        /// The node.
        node: NodeId,
        /// How.
        outcome: NodeOutcome,
        /// How long it ran, in milliseconds, where that is known.
        duration_ms: Option<u64>,
        /// How many bytes of output its agent left out.
        omitted: u64,
    },
    /// Last of every stream.
    Finished {
        /// All of it, but for what was printed.
        record: Box<ExecRecord>,
    },
}

/// How a command ended on a node, or how it stands there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "is", rename_all = "snake_case")]
pub enum NodeOutcome {
    /// Its turn has not come, or it has not begun.
    Waiting,
    /// It runs.
    Running,
    /// By itself.
    Exited {
        /// With this code.
        code: i32,
    },
    /// By a signal that nobody here sent.
    Killed {
        /// Its name or number.
        signal: String,
    },
    /// It took too long, and was ended.
    TimedOut,
    /// Somebody stopped it, or its turn never came.
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
    /// The node was not there: nothing was sent.
    Offline,
    /// The connection to the node was lost, or it gave no answer.
    CutOff {
        /// Whether it had begun.
        began: bool,
    },
    /// It is long past its time, and no word of its end has come.
    Lost,
    /// The planner ended before it did.
    Interrupted,
}

/// What an outcome comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Standing {
    /// Not ended.
    Open,
    /// Exited with 0.
    Good,
    /// Ended otherwise by itself, or could not be run.
    Bad,
    /// Ended by its time limit or by somebody.
    Ended,
    /// Not known: the node was not there, or is not any more.
    Unknown,
}

impl NodeOutcome {
    /// What it comes to.
    pub fn standing(&self) -> Standing {
        match self {
            Self::Waiting | Self::Running => Standing::Open,
            Self::Exited { code: 0 } => Standing::Good,
            Self::Exited { .. } | Self::Killed { .. } | Self::Refused { .. } | Self::Failed { .. } => Standing::Bad,
            Self::TimedOut | Self::Stopped => Standing::Ended,
            Self::Offline | Self::CutOff { .. } | Self::Lost | Self::Interrupted => Standing::Unknown,
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
            Self::CutOff { began: false } => f.write_str("cut off: no answer"),
            Self::Lost => f.write_str("lost: no word of its end"),
            Self::Interrupted => f.write_str("interrupted: the planner ended first"),
        }
    }
}

/// `GET /v1/exec/{id}`: a command, and what came of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ExecRecord {
    /// Format version.
    pub version: u32,
    /// Which.
    pub id: ExecId,
    /// The user who asked for it, on the planner's host.
    pub by: String,
    /// The selector.
    pub on: String,
    /// What is run.
    pub run: Run,
    /// Who runs it, if not the agent's own user.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// Where, if not in `/`.
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
    /// How it stands as a whole.
    pub result: ExecResult,
    /// How it stands on each node.
    pub nodes: BTreeMap<NodeId, ExecNode>,
}

/// How a command stands as a whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ExecResult {
    /// It is not at its end on every node.
    Running,
    /// It came to its end, good or bad.
    Finished,
    /// Somebody stopped it.
    Stopped,
    /// The planner ended first.
    Interrupted,
}

/// How a command stands on a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ExecNode {
    /// How it ended, or how it stands.
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
