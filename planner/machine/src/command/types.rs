//! Commands as values: what an operator asks for, what happens to it on each node, and the record that is kept.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use groundplan_protocol::{
    duration::Span,
    exec::{ExecOutcome, Stream},
    ids::{ExecId, NodeId},
    kinds::Run,
    report::Output,
};

use crate::fleet::NodePresence;

/// A command to run on nodes, now. Its values were checked by the shell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommandRequest {
    /// Its id; no other command of this site has it.
    pub id: ExecId,
    /// The user who asks, on the planner's host.
    pub by: String,
    /// The selector, as it was written.
    pub on: String,
    /// The nodes that it selects.
    pub nodes: BTreeSet<NodeId>,
    /// A shell line, or a program with its arguments.
    pub run: Run,
    /// The user that runs it; the agent's own if none.
    pub user: Option<String>,
    /// The directory it runs in; `/` if none.
    pub cwd: Option<String>,
    /// Further environment variables. Their values are not recorded.
    pub env: BTreeMap<String, String>,
    /// How long it may take on a node.
    pub timeout: Span,
    /// On how many nodes at a time; on all if none.
    pub at_once: Option<u32>,
    /// Most output of a node that is passed on, in bytes; the rest is counted.
    pub output_limit: u64,
    /// Begin on no more nodes once this many did not succeed.
    pub max_failures: Option<u32>,
}

/// What happens to a command, as it happens. The last event of a node counts: one that was cut off may come back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CommandEvent {
    /// First of all.
    Started {
        /// The nodes that it is for, and whether each is online.
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
        /// The text.
        text: String,
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
    /// Last of all.
    Finished {
        /// All of it, but for what was printed.
        record: Box<CommandRecord>,
    },
}

/// How a command ended on a node, or its state there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NodeOutcome {
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

impl NodeOutcome {
    /// Whether it ended other than with exit code 0. False as well while it is open.
    pub fn is_failure(&self) -> bool {
        !matches!(self, Self::Waiting | Self::Running | Self::Exited { code: 0 })
    }
}

/// What an agent reports of its own command; that it does not know it is to be judged by what was reported before.
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
            Self::Lost => f.write_str("lost: its end was not reported"),
            Self::Interrupted => f.write_str("interrupted: the planner ended first"),
        }
    }
}

/// A command, and what came of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommandRecord {
    /// Its id.
    pub id: ExecId,
    /// The user who asked for it, on the planner's host.
    pub by: String,
    /// The selector.
    pub on: String,
    /// What is run.
    pub run: Run,
    /// The user that runs it, if not the agent's own.
    pub user: Option<String>,
    /// The directory it runs in, if not `/`.
    pub cwd: Option<String>,
    /// The names of further environment variables.
    pub env: BTreeSet<String>,
    /// How long it may take on a node.
    pub timeout: Span,
    /// When it began, in milliseconds since the Unix epoch.
    pub started_ms: u64,
    /// When it ended, if it has.
    pub finished_ms: Option<u64>,
    /// Its state as a whole.
    pub result: CommandResult,
    /// Its state on each node.
    pub nodes: BTreeMap<NodeId, CommandNode>,
}

/// The state of a command as a whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CommandResult {
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
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommandNode {
    /// How it ended, or its state.
    pub outcome: NodeOutcome,
    /// How long it ran, in milliseconds, where that is known.
    pub duration_ms: Option<u64>,
    /// How many bytes of output its agent left out.
    pub omitted: u64,
    /// The beginning and the end of what it printed, both streams.
    pub output: Option<Output>,
}

impl CommandRecord {
    /// The same without what was printed.
    #[must_use]
    pub fn without_output(&self) -> Self {
        let mut record = self.clone();
        record.nodes.values_mut().for_each(|node| node.output = None);
        record
    }
}
