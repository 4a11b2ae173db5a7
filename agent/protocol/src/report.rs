//! Reports: the outcome of each task, numbered, batched, and repeated until the planner has them on its disk.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    digest::Fingerprint,
    effect::{Action, Effect},
    envelope::Message,
    ids::{Generation, LedgerId, NodeId, Sequence, SiteName, TaskId},
    kinds::ClaimKey,
};

/// Most output of one task that a report carries, in bytes; the head and the tail are kept, the middle is left out.
pub const OUTPUT_LIMIT: usize = 16 * 1024;

/// Reports in the order of their numbers. `reports[0]` has number `first`, and so on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ReportBatch {
    /// Format version; [`VERSION`](crate::VERSION) of the sender.
    pub version: u32,
    /// The site; a message for any other is refused.
    pub site: SiteName,
    /// The node that the reports come from.
    pub node: NodeId,
    /// The ledger whose numbers these are.
    pub ledger: LedgerId,
    /// Number of the first report; meaningless if there are none.
    pub first: Sequence,
    /// The generation of the agent's active plan; 0 before the first.
    pub generation: Generation,
    /// At least one, except in a message that only announces `running`.
    pub reports: Vec<TaskReport>,
    /// The tasks that run at this moment.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub running: Vec<TaskId>,
    /// Number of the node's last report, sent or not: a task that is not `running` has ended, or was never begun, only for a planner
    /// that has every report up to this one. 0 from agents that do not send it.
    #[serde(default)]
    pub last: Sequence,
    /// Number of the last report that a planner has acknowledged: those up to it are not sent again. 0 before the first.
    #[serde(default)]
    pub acked: Sequence,
}

impl Message for ReportBatch {
    const TYPE: &'static str = "application/vnd.groundplan.report+json";
    const ENCRYPTED: bool = true;
    fn version(&self) -> u32 {
        self.version
    }
    fn site(&self) -> &SiteName {
        &self.site
    }
}

/// The outcome of one task of a plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TaskReport {
    /// The generation of the plan that it was carried out for.
    pub generation: Generation,
    /// The beginning of that plan's id, [`Digest::short`](crate::digest::Digest::short): two planners may have used one generation. Absent
    /// from agents that do not send it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plan: Option<String>,
    /// The task, which ran on the node of the batch.
    pub task: TaskId,
    /// What the plan asked for.
    pub action: Action,
    /// How it ended, once and for good: a report is never corrected.
    pub outcome: Outcome,
    /// The fingerprint now applied; absent when nothing is, as after a removal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fingerprint: Option<Fingerprint>,
    /// Digests of what is now applied claims, as in the node's state: by them a later plan knows what changes hands.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub claims: Vec<ClaimKey>,
    /// Digests of what else it contends for, as in the node's state.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub contends: Vec<ClaimKey>,
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

/// How a task ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "is", rename_all = "snake_case")]
pub enum Outcome {
    /// It is as the plan wants it.
    Done {
        /// Whether anything was changed, restarted, reloaded or run: only then do its triggers fire.
        changed: bool,
        /// The effect that was carried out, if one was.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        effect: Option<Effect>,
    },
    /// It failed.
    Failed {
        /// Why, as a message for the operator: what, where, and the cause.
        error: String,
    },
    /// The agent was killed while it ran. Final only where its policy is `fail`; otherwise it runs again.
    Interrupted,
    /// There was nothing to do: no trigger fired.
    Skipped,
    /// Not run, because a task that it comes after failed or was itself blocked.
    Blocked {
        /// The task that failed or was blocked.
        by: TaskId,
    },
    /// Not run, because a newer plan came.
    Superseded,
}

/// How the output of a task begins that an agent has left out because it acts on the host as a whole, as under `groundplan up`.
pub const SKIPPED: &str = "skipped";

impl Outcome {
    /// Whether tasks that come after it may run.
    pub fn is_success(&self) -> bool {
        matches!(self, Self::Done { .. } | Self::Skipped)
    }

    /// Whether it fires the triggers whose source it is.
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

/// What a task printed, cut to `OUTPUT_LIMIT`; bytes that are not UTF-8 are replaced.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub struct Output {
    /// The beginning, or all of it if nothing was left out.
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

/// The planner has all reports up to this one on its disk; the agent may drop them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Ack {
    /// Format version; [`VERSION`](crate::VERSION) of the sender.
    pub version: u32,
    /// The site; a message for any other is refused.
    pub site: SiteName,
    /// The node whose reports these are.
    pub node: NodeId,
    /// The ledger whose numbers these are; an agent with another ledger ignores the message.
    pub ledger: LedgerId,
    /// Number of the last of them.
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
