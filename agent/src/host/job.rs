//! The seam between the agent's machine and the host: a job goes in, what became of it comes out.
//!
//! A job is complete: it names the task, what the task is to be (or was), its content, and the effect that is owed.
//! Nothing here knows plans, generations or the ledger.

use std::{
    path::PathBuf,
    time::{Duration, SystemTime},
};

use groundplan_protocol::{
    effect::Effect,
    ids::{Generation, TaskId},
    plan::TaskSpec,
    report::Output,
};
use serde_json::Value;

use crate::machine::JobOutcome;

/// One task to carry out.
#[derive(Debug, Clone)]
pub struct Job {
    /// The task; at most one job of a task runs at a time.
    pub task: TaskId,
    /// What to do.
    pub work: Work,
    /// The greatest effect that is owed or that a trigger fired.
    pub effect: Option<Effect>,
    /// What the task noted when it was last applied.
    pub memory: Option<Value>,
    /// The plan that it is carried out for: told apart from others, and nothing more.
    pub plan: Generation,
}

/// What a job does.
#[derive(Debug, Clone)]
#[expect(clippy::large_enum_variant, reason = "there are as many as jobs run at a time: a handful")]
pub enum Work {
    /// Make it so: the actions `create` and `update`.
    Apply {
        /// What it is to be.
        spec: TaskSpec,
        /// What it ships, verified; may be left out where `spec` itself carries the bytes.
        content: Option<Content>,
        /// What the ledger holds as applied, so that a file that moved leaves nothing at its old path.
        previous: Option<TaskSpec>,
    },
    /// Take it away.
    Remove {
        /// What the ledger holds as applied.
        spec: TaskSpec,
    },
    /// Nothing of its own; only the effect.
    Trigger {
        /// What it is.
        spec: TaskSpec,
    },
}

impl Work {
    /// What the task is to be, or was.
    pub fn spec(&self) -> &TaskSpec {
        match self {
            Self::Apply { spec, .. } | Self::Remove { spec } | Self::Trigger { spec } => spec,
        }
    }
}

/// What a task ships, with its digest already verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// In memory: what came in the plan.
    Bytes(Vec<u8>),
    /// A file of the agent's blob store; it is copied in pieces and never read as a whole.
    File(PathBuf),
}

/// What became of a job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finished {
    /// What was done, or why it did not come about, in words for the operator: what, where, and the cause.
    pub result: Result<JobOutcome, String>,
    /// Whether it came to begin; one that did not has done nothing, and has failed.
    pub begun: bool,
    /// What it printed.
    pub output: Option<Output>,
    /// What is to be kept of it, however it ended.
    pub notes: Notes,
    /// When it started.
    pub started: SystemTime,
    /// How long it took.
    pub duration: Duration,
}

/// What a job leaves to be kept; what is `None` stays as it was.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Notes {
    /// What the task is to remember until it is removed.
    pub memory: Option<Value>,
    /// What it publishes to the planner.
    pub export: Option<String>,
}
