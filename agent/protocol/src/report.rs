//! Reports: an agent's word on each task, numbered, batched, and repeated until the planner has them on its disk.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    digest::Fingerprint,
    effect::{Action, Effect},
    envelope::Message,
    ids::{Generation, LedgerId, NodeId, Sequence, SiteName, TaskId},
};

/// Most output of one task that a report carries, in bytes; the head and the tail are kept, the middle is left out.
pub const OUTPUT_LIMIT: usize = 16 * 1024;

/// Reports in the order in which they came about. `reports[0]` has number `first`, and so on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ReportBatch {
    /// Format version.
    pub version: u32,
    /// The site.
    pub site: SiteName,
    /// The node.
    pub node: NodeId,
    /// The ledger whose numbers these are.
    pub ledger: LedgerId,
    /// Number of the first report; meaningless if there are none.
    pub first: Sequence,
    /// The generation that the agent is at.
    pub generation: Generation,
    /// The reports.
    pub reports: Vec<TaskReport>,
    /// What runs at this moment: for people to watch, kept nowhere.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub running: Vec<TaskId>,
}

impl Message for ReportBatch {
    const TYPE: &'static str = "application/vnd.groundplan.report+json";
    fn version(&self) -> u32 {
        self.version
    }
    fn site(&self) -> &SiteName {
        &self.site
    }
}

/// What became of one task of a plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TaskReport {
    /// The generation of the plan that it was carried out for.
    pub generation: Generation,
    /// The task.
    pub task: TaskId,
    /// What the plan asked for.
    pub action: Action,
    /// What became of it.
    pub outcome: Outcome,
    /// The fingerprint now applied; absent when nothing is, as after a removal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fingerprint: Option<Fingerprint>,
    /// When it started by the node's clock, in milliseconds since the Unix epoch.
    pub started_ms: u64,
    /// How long it took, in milliseconds.
    pub duration_ms: u64,
    /// What it printed, standard output and standard error as they came.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output: Option<Output>,
    /// What an `export` has published, at most [`EXPORT_LIMIT`](crate::kinds::EXPORT_LIMIT) long.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub export: Option<String>,
}

/// What became of a task.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "is", rename_all = "snake_case")]
pub enum Outcome {
    /// As the plan wants it.
    Done {
        /// Whether anything was changed, restarted, reloaded or run: only then do its triggers fire.
        changed: bool,
        /// The effect that was carried out, if one was.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        effect: Option<Effect>,
    },
    /// It did not come about.
    Failed {
        /// Why, in words for the operator: what, where, and the cause.
        error: String,
    },
    /// The agent was killed while it ran. A final word only where its policy is `fail`; else it runs again.
    Interrupted,
    /// Nothing to be done after all: no trigger fired.
    Skipped,
    /// Not tried, because a task it comes after failed or was itself blocked.
    Blocked {
        /// That task.
        by: TaskId,
    },
    /// Not tried, because a newer plan came.
    Superseded,
}

impl Outcome {
    /// Whether what comes after it may go on.
    pub fn is_success(&self) -> bool {
        matches!(self, Self::Done { .. } | Self::Skipped)
    }

    /// Whether it fires the triggers that hang on it.
    pub fn fires(&self) -> bool {
        matches!(self, Self::Done { changed: true, .. })
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Done { changed: false, .. } => f.write_str("unchanged"),
            Self::Done { effect: None, .. } => f.write_str("changed"),
            Self::Done { effect: Some(Effect::Restart), .. } => f.write_str("restarted"),
            Self::Done { effect: Some(Effect::Reload), .. } => f.write_str("reloaded"),
            Self::Done { effect: Some(Effect::Run), .. } => f.write_str("run"),
            Self::Failed { error } => write!(f, "failed: {error}"),
            Self::Interrupted => f.write_str("interrupted"),
            Self::Skipped => f.write_str("not needed"),
            Self::Blocked { by } => write!(f, "blocked by {by}"),
            Self::Superseded => f.write_str("superseded"),
        }
    }
}

/// What a task printed, cut to `OUTPUT_LIMIT`; bytes that are no UTF-8 are replaced.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub struct Output {
    /// The beginning.
    pub head: String,
    /// How many bytes were left out between `head` and `tail`.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub omitted: u64,
    /// The end, where something was left out.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub tail: String,
}

fn is_zero(n: &u64) -> bool {
    *n == 0
}

/// The planner has all reports up to this one on its disk; the agent may forget them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Ack {
    /// Format version.
    pub version: u32,
    /// The site.
    pub site: SiteName,
    /// The node.
    pub node: NodeId,
    /// The ledger whose numbers these are; for any other it means nothing.
    pub ledger: LedgerId,
    /// The last one.
    pub sequence: Sequence,
}

impl Message for Ack {
    const TYPE: &'static str = "application/vnd.groundplan.ack+json";
    fn version(&self) -> u32 {
        self.version
    }
    fn site(&self) -> &SiteName {
        &self.site
    }
}
