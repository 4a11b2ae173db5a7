//! What goes into the machine and what comes out of it: plain values, with what the ledger holds among them.

use std::collections::BTreeMap;

use groundplan_protocol::{
    blob::BlobRef,
    digest::Digest,
    effect,
    ids::{Generation, NodeId, Sequence, SiteName, TaskId},
    plan::{Gates, NodePlan, NodePlanRef, TaskSpec},
    report::{Ack, Output},
    state::NodeState,
};
use serde_json::Value;

use super::snapshot::Write;

/// What the host is, by name.
pub type Facts = BTreeMap<String, Value>;

/// What the machine is told once, when it is made.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The site that it belongs to.
    pub site: SiteName,
    /// The node that it is.
    pub node: NodeId,
    /// The agent's program version.
    pub agent: String,
    /// How many tasks may run at a time; at least 1.
    pub max_parallel: usize,
    /// Largest blob that a plan may name, in bytes.
    pub max_blob: u64,
    /// Most that the blobs of a plan may make up together, in bytes.
    pub max_blobs: u64,
    /// The kernel's random name of this boot; what was written without fsync under another one may be lost.
    pub boot: String,
}

/// What happens to the agent.
#[derive(Debug, Clone)]
pub enum Event {
    /// The broker is there.
    Connected {
        /// Whether it still knows our subscriptions and what is retained has been told in this process before.
        session_present: bool,
    },
    /// The broker is gone.
    Disconnected,
    /// A node plan whose envelope a planner signed for this site.
    Plan(Box<NodePlan>),
    /// A reference to a node plan, signed likewise.
    PlanRef(NodePlanRef),
    /// Open gates, signed likewise.
    Gates(Gates),
    /// The planner has reports on its disk.
    Ack(Ack),
    /// A blob lies in the store, complete and checked.
    BlobReady(Digest),
    /// A blob could not be had; it will be tried again.
    BlobFailed {
        /// Which.
        blob: Digest,
        /// Why, for the operator.
        reason: String,
    },
    /// A job that was started has ended.
    Finished(Box<JobDone>),
    /// A message was refused before it came here.
    Refused {
        /// The topic's last segment.
        topic: &'static str,
        /// Its generation, where it was signed.
        generation: Option<Generation>,
        /// Why, for the operator.
        reason: String,
    },
    /// A payload was not ours.
    Ignored,
    /// What the host is was read anew.
    Facts(Facts),
    /// The deadline has come.
    Tick,
    /// A job was ended because the agent stops: what it left to be kept. It runs again at the next start.
    Aborted(Box<JobDone>),
    /// Start nothing more and come to an end.
    Stop,
}

/// What a job came to.
#[derive(Debug, Clone)]
pub struct JobDone {
    /// Its task.
    pub task: TaskId,
    /// What it did, or why it failed.
    pub result: Result<JobOutcome, String>,
    /// What it printed.
    pub output: Option<Output>,
    /// What the task is to remember; `None`: what it remembers already.
    pub memory: Option<Value>,
    /// What it publishes; `None`: what it has published already.
    pub export: Option<String>,
    /// When it started, in milliseconds since the Unix epoch.
    pub started_ms: u64,
    /// How long it took, in milliseconds.
    pub duration_ms: u64,
}

/// What a successful job did to the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct JobOutcome {
    /// Whether anything was changed, restarted, reloaded or run: only then do its triggers fire.
    pub changed: bool,
    /// The effect that was carried out; `None` also where applying made it needless, as a fresh start does for a restart.
    pub effect: Option<effect::Effect>,
}

/// What the shell is to do, in this order; each is complete before the next begins.
#[derive(Debug, Clone)]
pub enum Effect {
    /// One transaction.
    Persist {
        /// What it holds.
        writes: Vec<Write>,
        /// Whether it must be on the disk before anything that follows.
        durable: bool,
    },
    /// The ledger holds all that the journal says: empty it.
    ResetJournal,
    /// Note them in the journal as started for this generation, then start them.
    Start(Generation, Vec<Start>),
    /// Publish this state, in place of any that is not yet sent.
    State(Box<NodeState>),
    /// Send stored reports `from..=to` in batches; with `from > to` only what runs.
    Reports {
        /// The first.
        from: Sequence,
        /// The last.
        to: Sequence,
    },
    /// Have these blobs, and tell of each.
    Fetch(Vec<BlobRef>),
    /// Have the plan itself.
    FetchPlan(NodePlanRef),
    /// No blob but these (and a plan that is being fetched) is needed any more.
    KeepBlobs(Vec<Digest>),
    /// Say it in the log.
    Log(String),
    /// All has ended: nothing runs, everything is on disk.
    Stopped,
}

/// A job to start.
#[derive(Debug, Clone, PartialEq)]
pub struct Start {
    /// Its task; no other job of it runs.
    pub task: TaskId,
    /// What to do.
    pub work: Work,
    /// The effect that is owed.
    pub effect: Option<effect::Effect>,
    /// What the task remembers.
    pub memory: Option<Value>,
}

/// What a job is to do.
#[derive(Debug, Clone, PartialEq)]
pub enum Work {
    /// Make it so.
    Apply {
        /// What it is to be, with its content.
        spec: TaskSpec,
        /// What was applied before, without bytes.
        previous: Option<Box<TaskSpec>>,
    },
    /// Take it away.
    Remove {
        /// What was applied, without bytes.
        spec: TaskSpec,
    },
    /// Only the effect.
    Trigger {
        /// What is applied, without bytes.
        spec: TaskSpec,
    },
}
