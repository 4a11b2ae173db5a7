//! Commands of operators (`groundplan exec`) on connected nodes: no part of any plan, and not in any ledger.
//!
//! A handshake, because a message may be late by any time: the agent answers an order with a nonce ([`ExecReady`]) and runs nothing; the
//! planner answers the nonce with a go, once, and only while the operator waits; the agent runs the command if it has the nonce in memory
//! and [`READY_LIMIT`] has not passed. So what got no go never runs, however long anything was kept back, and by whom. A go that is late
//! by less than the limit does run: a planner that has sent one reports "may have run" until it receives more.
//!
//! In: an order, for one connection of one agent: on a later connection order and nonce are refused. Out: output as it comes, and how the
//! command ended. At most once: an agent never runs the same order a second time.

use std::{collections::BTreeMap, fmt};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    duration::Span,
    envelope::Message,
    ids::{ExecId, NodeId, Nonce, SessionId, SiteName},
    kinds::Run,
};

/// Most output of one command on one node that is passed on if the operator gives no limit, in bytes.
pub const OUTPUT_LIMIT: u64 = 1024 * 1024;
/// Longest time that a command may take; an agent enforces it even if the order gives more.
pub const TIMEOUT_MAX: Span = Span::secs(24 * 60 * 60);
/// How long an agent waits for the go to an order that it is ready to run, by a clock that goes on while the host is suspended.
pub const READY_LIMIT: Span = Span::secs(15);
/// Most text of one message of output, in bytes.
pub const PIECE_LIMIT: usize = 64 * 1024;

/// An order to a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Exec {
    /// Format version; [`VERSION`](crate::VERSION) of the sender.
    pub version: u32,
    /// The site; any other refuses it.
    pub site: SiteName,
    /// The node that it is for; any other refuses it.
    pub node: NodeId,
    /// Id of the command: the same on all its nodes, and never used again.
    pub id: ExecId,
    /// What the agent is to do.
    pub order: Order,
}

impl Message for Exec {
    const TYPE: &'static str = "application/vnd.groundplan.exec+json";
    const ENCRYPTED: bool = true;
    fn version(&self) -> u32 {
        self.version
    }
    fn site(&self) -> &SiteName {
        &self.site
    }
}

/// What the agent is to do with a command.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Order {
    /// Make ready to run it: answer with [`ExecReady`], or how it ended if it is refused.
    Run(Box<RunOrder>),
    /// Run it, if it has not been run, the nonce is the one of its [`ExecReady`], and [`READY_LIMIT`] has not passed. An agent that does not
    /// know the command answers with [`ExecOutcome::Unknown`].
    Go {
        /// The nonce that the agent answered the order with.
        nonce: Nonce,
    },
    /// Stop it, if it still runs: TERM, then KILL. One that comes before its `Run` or its `Go` prevents it.
    Stop,
}

/// What to run, and within which limits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RunOrder {
    /// The connection that it is for, from the agent's presence; on any other it is refused.
    pub session: SessionId,
    /// A shell line, or a program with its arguments.
    pub run: Run,
    /// The user who runs it; the agent's own if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// The directory it runs in: an absolute path; `/` if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cwd: Option<String>,
    /// Environment variables beside the agent's `PATH`, `HOME` and `LANG`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
    /// How long it may take; then it gets TERM, and KILL after a grace period.
    pub timeout: Span,
    /// Most output that is passed on, in bytes; the rest is counted.
    pub output_limit: u64,
}

/// An agent's answer to an order: it waits for the go. Repeated when the order is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ExecReady {
    /// Format version; [`VERSION`](crate::VERSION) of the sender.
    pub version: u32,
    /// The site; any other refuses it.
    pub site: SiteName,
    /// The node that is ready.
    pub node: NodeId,
    /// The command that the order named.
    pub id: ExecId,
    /// What the go has to name. Kept in memory only: an agent that was started again knows none of its predecessor's.
    pub nonce: Nonce,
}

impl Message for ExecReady {
    const TYPE: &'static str = "application/vnd.groundplan.exec-ready+json";
    fn version(&self) -> u32 {
        self.version
    }
    fn site(&self) -> &SiteName {
        &self.site
    }
}

/// Output of a command on a node. Numbered from 0 without gaps for one command on one node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ExecOutput {
    /// Format version; [`VERSION`](crate::VERSION) of the sender.
    pub version: u32,
    /// The site; any other refuses it.
    pub site: SiteName,
    /// The node that it ran on.
    pub node: NodeId,
    /// The command that the order named.
    pub id: ExecId,
    /// Number of this message.
    pub number: u64,
    /// What it printed since the last message, in the order in which it came; bytes that are not UTF-8 are replaced.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub pieces: Vec<Piece>,
    /// How it ended; no message follows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end: Option<ExecEnd>,
}

impl Message for ExecOutput {
    const TYPE: &'static str = "application/vnd.groundplan.output+json";
    const ENCRYPTED: bool = true;
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
    /// The stream that it was printed to.
    pub stream: Stream,
    /// The text, cut between characters.
    pub text: String,
}

/// An output stream of a command.
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
    /// How it ended; an order that was refused ends at once.
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
    /// It ended by itself.
    Exited {
        /// Its exit code.
        code: i32,
    },
    /// A signal ended it that did not come from the agent.
    Killed {
        /// The signal's name, or its number if it has none.
        signal: String,
    },
    /// It took too long, and was ended.
    TimedOut,
    /// An operator stopped it.
    Stopped,
    /// It was not run, and never will be.
    Refused {
        /// Why, as a message for the operator.
        reason: String,
    },
    /// The agent knows nothing of it: it was started again after the one that was ready for it, which may have run it.
    Unknown,
    /// It could not be run, or not be followed to its end.
    Failed {
        /// Why, as a message for the operator.
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
            Self::Unknown => f.write_str("unknown: the agent was started again meanwhile"),
            Self::Failed { error } => write!(f, "failed: {error}"),
        }
    }
}
