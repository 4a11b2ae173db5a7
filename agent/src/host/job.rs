//! The interface between the agent's machine and the host: a job goes in, its result comes out.
//!
//! A job is complete: it has the task, the spec to apply (or that was applied), its content, and the effect that is due. It does
//! not depend on plans or the ledger.

use std::{
    path::PathBuf,
    time::{Duration, SystemTime},
};

use groundplan_protocol::{
    effect::Effect,
    ids::{Generation, TaskId},
    plan::{OnRemove, TaskSpec},
    report::Output,
};
use serde_json::Value;

use crate::machine::{Earlier, Found, JobOutcome};

/// A task to carry out.
#[derive(Debug, Clone)]
pub struct Job {
    /// The task; at most one job of a task runs at a time.
    pub task: TaskId,
    /// What to do with it.
    pub work: Work,
    /// The greatest effect that is due.
    pub effect: Option<Effect>,
    /// What the task noted when it was last applied.
    pub memory: Option<Value>,
    /// What else the task claims on the host, which is not what it is to be any more: it goes after what is new is in place.
    pub earlier: Vec<Earlier>,
    /// Tasks that hand over to it, or, for a removal, that took over from it.
    pub others: Vec<TaskId>,
    /// Tasks that still claim what this one took from them, and are about to go as well: for a removal, they do not count.
    pub yielding: Vec<TaskId>,
    /// What happens to what is removed: of the task itself, or of what an update leaves behind.
    pub on_remove: OnRemove,
    /// Whether an earlier job of the task may have changed anything on the host: otherwise there is nothing to remove.
    pub touched: bool,
    /// Generation of the plan that it is carried out for; only compared with others.
    pub plan: Generation,
}

/// What a job does.
#[derive(Debug, Clone)]
#[expect(clippy::large_enum_variant, reason = "there are as many as jobs run at a time: a handful")]
pub enum Work {
    /// Bring the host in sync: the actions `create` and `update`.
    Apply {
        /// The spec to apply.
        spec: TaskSpec,
        /// The content, verified; may be left out where `spec` itself has the bytes.
        content: Option<Content>,
        /// The spec that the ledger has as applied: a file that moved must be removed from its old path.
        previous: Option<TaskSpec>,
    },
    /// Take away what was applied.
    Remove {
        /// The spec that the ledger has as applied.
        spec: TaskSpec,
    },
    /// Give up what is kept of it, and leave the host as it is.
    Forget {
        /// The spec that the ledger has as applied.
        spec: TaskSpec,
    },
    /// Apply nothing; only carry out the effect.
    Trigger {
        /// The spec that is applied.
        spec: TaskSpec,
    },
}

impl Work {
    /// The spec to apply, or that was applied.
    pub fn spec(&self) -> &TaskSpec {
        match self {
            Self::Apply { spec, .. } | Self::Remove { spec } | Self::Forget { spec } | Self::Trigger { spec } => spec,
        }
    }
}

/// The content that a task ships, with its digest already verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// Bytes in memory, from the plan.
    Bytes(Vec<u8>),
    /// A file of the agent's blob store; copied in pieces, never read as a whole.
    File(PathBuf),
}

/// The result of a job.
#[derive(Debug, Clone, PartialEq)]
pub struct Finished {
    /// What was done, or why it failed, as a message for the operator: what, where, and the cause.
    pub result: Result<JobOutcome, String>,
    /// Whether it began; one that was cancelled before has done nothing, and has failed.
    pub begun: bool,
    /// Whether it may have changed anything on the host.
    pub touched: bool,
    /// What its programs printed, bounded by `OUTPUT_LIMIT`; none if they printed nothing.
    pub output: Option<Output>,
    /// What is to be kept in the ledger, however it ended.
    pub notes: Notes,
    /// When it started, by the wall clock.
    pub started: SystemTime,
    /// How long it took.
    pub duration: Duration,
}

/// What a job leaves to be kept; `None` leaves the earlier value.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Notes {
    /// What the task remembers until it is removed.
    pub memory: Option<Value>,
    /// What it publishes to the planner.
    pub export: Option<String>,
    /// What was found before anything was changed, by the key of the claim; `None` for a claim that no task has any more.
    pub found: Vec<(String, Option<Found>)>,
}
