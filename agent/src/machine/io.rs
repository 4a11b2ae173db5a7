//! What goes into the machine and what comes out of it: plain values.

use std::collections::BTreeMap;

use groundplan_protocol::{
    blob::BlobRef,
    digest::Digest,
    effect,
    encryption::EncryptionKey,
    ids::{Generation, NodeId, Sequence, SiteName, TaskId},
    kinds::TaskParams,
    plan::{Gates, OnRemove, PlanOffer, TaskSpec},
    report::{Ack, Output},
    state::NodeState,
};
use serde_json::Value;

use super::{found::Found, snapshot::Write};

/// Facts of the host by name, such as `os` or `memory`.
pub type Facts = BTreeMap<String, Value>;

/// Settings of the machine, given once.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The site that this agent belongs to.
    pub site: SiteName,
    /// The node that this agent runs on.
    pub node: NodeId,
    /// The agent's program version.
    pub agent: String,
    /// The key that others encrypt to this node with.
    pub encryption_key: EncryptionKey,
    /// How many tasks may run at a time; at least 1.
    pub max_parallel: usize,
    /// Largest blob that a plan may name, in bytes.
    pub max_blob: u64,
    /// Most that the blobs of a plan may make up together, in bytes.
    pub max_blobs: u64,
    /// The kernel's random name of this boot; what was written without fsync in another boot may be lost.
    pub boot: String,
}

/// What happens to the agent.
#[derive(Debug, Clone)]
pub enum Event {
    /// A connection to the broker was made.
    Connected {
        /// Whether the broker kept the session, and this process has published its retained messages before.
        session_present: bool,
    },
    /// The connection to the broker was lost.
    Disconnected,
    /// A node plan that is offered, in an envelope that a planner signed for this site.
    Plan(Box<PlanOffer>),
    /// Open gates, signed likewise.
    Gates(Gates),
    /// The planner has reports on its disk.
    Ack(Ack),
    /// A blob is in the store, complete and verified.
    BlobReady(Digest),
    /// A blob could not be fetched; it will be tried again.
    BlobFailed {
        /// Its digest.
        blob: Digest,
        /// Why, as a message for the operator.
        reason: String,
    },
    /// A job that was started has ended.
    Finished(Box<JobDone>),
    /// A message was refused before it came here.
    Refused {
        /// The topic's last segment.
        topic: &'static str,
        /// The message's generation, where a trusted planner signed it.
        generation: Option<Generation>,
        /// Why, as a message for the operator.
        reason: String,
    },
    /// A payload came that no trusted planner signed for this site.
    Ignored,
    /// Other tasks than before do not work: all that do not, each with the reason.
    Degraded(BTreeMap<TaskId, String>),
    /// The facts of the host were read.
    Facts(Facts),
    /// The time of [`Machine::deadline`](super::Machine::deadline) has come.
    Tick,
    /// A job was ended because the agent stops: only its memory is kept. The task runs again at the next start.
    Aborted(Box<JobDone>),
    /// Start nothing more; [`Effect::Stopped`] follows when the running jobs have ended.
    Stop,
}

/// A job that has ended.
#[derive(Debug, Clone)]
pub struct JobDone {
    /// The task that the job was started for.
    pub task: TaskId,
    /// What it did, or why it failed, as a message for the operator.
    pub result: Result<JobOutcome, String>,
    /// Whether it may have changed anything on the host, however it ended.
    pub touched: bool,
    /// What it printed, bounded by `OUTPUT_LIMIT`.
    pub output: Option<Output>,
    /// What the task remembers from now on; `None` leaves it as it is.
    pub memory: Option<Value>,
    /// What the task publishes from now on; `None` leaves it as it is.
    pub export: Option<String>,
    /// What it found before it changed anything, by the key of the claim; `None` for a claim that no task has any more.
    pub found: Vec<(String, Option<Found>)>,
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
    /// Empty the journal of started tasks: the ledger holds the outcome of each.
    ResetJournal,
    /// These tasks claim what these parameters state, before any job of theirs, in place of all that was promised before.
    Promise(Vec<Promise>),
    /// Append them to the journal as started for this generation, then start them.
    Start(Generation, Vec<Start>),
    /// Publish this state, in place of any that is not yet sent.
    State(Box<NodeState>),
    /// Send stored reports `from..=to` in batches; with `from > to` only the running tasks.
    Reports {
        /// Number of the first.
        from: Sequence,
        /// Number of the last.
        to: Sequence,
    },
    /// Fetch these blobs; [`Event::BlobReady`] follows for each.
    Fetch(Vec<BlobRef>),
    /// Fetch the blob that is the plan itself; [`Event::Plan`] follows, with the plan in it.
    FetchPlan(Box<PlanOffer>),
    /// Drop all blobs but these, and a plan that is being fetched.
    KeepBlobs(Vec<Digest>),
    /// Write it to the log.
    Log(String),
    /// The machine has stopped: nothing runs, everything is on disk.
    Stopped,
}

/// A job to start.
#[derive(Debug, Clone, PartialEq)]
pub struct Start {
    /// Its task; no other job of it runs.
    pub task: TaskId,
    /// Whether to apply, remove, or only carry out an effect.
    pub work: Work,
    /// The obligation to fulfil, if one has fired.
    pub effect: Option<effect::Effect>,
    /// What the task noted when it was last applied, or took over from those that noted it.
    pub memory: Option<Value>,
    /// What else the task claims on the host, which is not what it is to be any more.
    pub earlier: Vec<Earlier>,
    /// Tasks that still claim what this one took from them, and are about to go as well: what is there is this one's to give back.
    pub yielding: Vec<TaskId>,
    /// What happens to what is removed: of the task itself, or of what an update leaves behind.
    pub on_remove: OnRemove,
    /// Whether an earlier job of the task may have changed anything on the host: otherwise there is nothing to remove.
    pub touched: bool,
}

/// That a task is about to take over what another one gives up.
#[derive(Debug, Clone, PartialEq)]
pub struct Promise {
    /// The task that takes it over.
    pub task: TaskId,
    /// What states it.
    pub params: TaskParams,
    /// The plan by which it does: a job of an older one does not end the promise.
    pub plan: Generation,
}

/// Something that a task claims by a plan that was not carried out, or had before it took over something else.
#[derive(Debug, Clone, PartialEq)]
pub struct Earlier {
    /// What states it.
    pub params: TaskParams,
    /// What was noted of it.
    pub memory: Option<Value>,
}

/// What a job is to do.
#[derive(Debug, Clone, PartialEq)]
pub enum Work {
    /// Bring the host in sync with the spec.
    Apply {
        /// The spec, with its content.
        spec: TaskSpec,
        /// The spec that was applied before, without the bytes that it ships.
        previous: Option<Box<TaskSpec>>,
        /// Applied tasks that hand over to it.
        from: Vec<TaskId>,
    },
    /// Take away what was applied, and leave what other tasks took over.
    Remove {
        /// The spec that was applied, without the bytes that it ships.
        spec: TaskSpec,
        /// Applied tasks that took over from it.
        into: Vec<TaskId>,
    },
    /// Give up what is kept of it, and leave the host as it is.
    Forget {
        /// The spec that was applied, without the bytes that it ships.
        spec: TaskSpec,
    },
    /// Only carry out the effect.
    Trigger {
        /// The spec that is applied, without the bytes that it ships.
        spec: TaskSpec,
    },
}
