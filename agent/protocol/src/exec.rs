//! Commands that somebody wants run now, on nodes that are there: no part of any plan, and remembered by no ledger.
//!
//! In: an order, for one connection of one agent: what reaches it later, because the broker kept it, is refused. Out: output as it
//! comes, and how the command ended. At most once: an agent runs an order that it knows already no second time.

use std::{collections::BTreeMap, fmt};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    duration::Span,
    envelope::Message,
    ids::{ExecId, NodeId, SessionId, SiteName},
    kinds::Run,
};

/// Most output of one command on one node that is passed on if nothing else is said, in bytes.
pub const OUTPUT_LIMIT: u64 = 1024 * 1024;
/// Longest time that a command may take; an agent gives it no more, whatever the order says.
pub const TIMEOUT_MAX: Span = Span::secs(24 * 60 * 60);
/// Most text of one message of output, in bytes.
pub const PIECE_LIMIT: usize = 64 * 1024;

/// An order to a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Exec {
    /// Format version.
    pub version: u32,
    /// The site.
    pub site: SiteName,
    /// The node that it is for; any other refuses it.
    pub node: NodeId,
    /// Which command: the same on all its nodes, and never used again.
    pub id: ExecId,
    /// What is to be done.
    pub order: Order,
}

impl Message for Exec {
    const TYPE: &'static str = "application/vnd.groundplan.exec+json";
    fn version(&self) -> u32 {
        self.version
    }
    fn site(&self) -> &SiteName {
        &self.site
    }
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Order {
    /// Run it.
    Run(Box<RunOrder>),
    /// Stop it, if it still runs: TERM, then KILL. Holds whenever it comes.
    Stop,
}

/// What to run, and within which limits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RunOrder {
    /// The connection that it is for, by the agent's presence; on any other it is refused.
    pub session: SessionId,
    /// A shell line, or a program with its arguments.
    pub run: Run,
    /// Who runs it; the agent's own user if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// Where; `/` if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cwd: Option<String>,
    /// Further environment variables.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
    /// How long it may take; then it gets TERM, and KILL after a grace period.
    pub timeout: Span,
    /// Most output that is passed on, in bytes; the rest is counted.
    pub output_limit: u64,
}

/// A node's word on a command. Numbered from 0 without gaps for one command on one node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ExecOutput {
    /// Format version.
    pub version: u32,
    /// The site.
    pub site: SiteName,
    /// The node.
    pub node: NodeId,
    /// Which command.
    pub id: ExecId,
    /// Number of this word.
    pub number: u64,
    /// What it printed since the last, in the order in which it came; bytes that are no UTF-8 are replaced.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub pieces: Vec<Piece>,
    /// How it ended; then nothing follows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end: Option<ExecEnd>,
}

impl Message for ExecOutput {
    const TYPE: &'static str = "application/vnd.groundplan.output+json";
    fn version(&self) -> u32 {
        self.version
    }
    fn site(&self) -> &SiteName {
        &self.site
    }
}

/// Something that a command printed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Piece {
    /// Where.
    pub stream: Stream,
    /// What.
    pub text: String,
}

/// Where a command prints.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Stream {
    /// Standard output.
    Out,
    /// Standard error.
    Err,
}

/// The end of a command on a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ExecEnd {
    /// How it ended.
    pub outcome: ExecOutcome,
    /// How long it ran, in milliseconds.
    pub duration_ms: u64,
    /// How many bytes of output were left out because of the limit.
    #[serde(default)]
    pub omitted: u64,
}

/// How a command ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "is", rename_all = "snake_case")]
pub enum ExecOutcome {
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
    /// Somebody stopped it.
    Stopped,
    /// It was never run.
    Refused {
        /// Why, in words for the operator.
        reason: String,
    },
    /// It could not be run, or not be followed to its end.
    Failed {
        /// Why, in words for the operator.
        error: String,
    },
}

impl ExecOutcome {
    /// Whether it ended by itself with 0.
    pub fn is_success(&self) -> bool {
        matches!(self, Self::Exited { code: 0 })
    }
}

impl fmt::Display for ExecOutcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exited { code } => write!(f, "exited with {code}"),
            Self::Killed { signal } => write!(f, "killed by {signal}"),
            Self::TimedOut => f.write_str("timed out"),
            Self::Stopped => f.write_str("stopped"),
            Self::Refused { reason } => write!(f, "refused: {reason}"),
            Self::Failed { error } => write!(f, "failed: {error}"),
        }
    }
}
