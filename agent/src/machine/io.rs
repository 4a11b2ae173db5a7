//! What goes into the machine and what comes out of it: plain values, with what the ledger holds among them.

use std::collections::BTreeMap;

use groundplan_protocol::{
    blob::BlobRef,
    digest::{Digest, Fingerprint},
    effect,
    ids::{CommitId, Generation, LedgerId, NodeId, Sequence, SiteName, TaskId},
    plan::{Edges, Gates, NodePlan, NodePlanRef, TaskSpec, TriggerSource},
    report::{Ack, Outcome, Output, TaskReport},
    state::NodeState,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;

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
    BlobTrouble {
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
    CutOff(Box<JobDone>),
    /// Start nothing more and come to an end.
    Stop,
}

/// What a job came to.
#[derive(Debug, Clone)]
pub struct JobDone {
    /// Its task.
    pub task: TaskId,
    /// What it did, or why it failed.
    pub result: Result<Did, String>,
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

/// What a successful job did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Did {
    /// Whether anything was changed, restarted, reloaded or run.
    pub changed: bool,
    /// The effect that was carried out.
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

/// A change of the ledger.
#[derive(Debug, Clone)]
pub enum Write {
    /// A new plan: replaces the one before, and forgets what became of its tasks.
    Plan(Box<StoredPlan>),
    /// The plan is carried out: its tasks need not be kept.
    PlanFinished,
    /// What finally became of a task of the current plan.
    Done(TaskId, Outcome),
    /// What is applied of a task.
    Applied(TaskId, Option<Box<Record>>),
    /// What a task owes.
    Owed(TaskId, Option<Owed>),
    /// A report to deliver.
    Report(Sequence, Box<TaskReport>),
    /// The planner has all reports up to this one.
    Forget(Sequence),
    /// Deliver the report without its output: the outbox is full.
    DropOutput(Sequence),
    /// How often the ledger has been opened.
    Epoch(u32),
    /// The boot under which it is written now.
    Boot(String),
}

/// A plan as the ledger keeps it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StoredPlan {
    /// Its generation.
    pub generation: Generation,
    /// The commit that it leads to.
    pub commit: CommitId,
    /// Digest of its JSON.
    pub digest: Digest,
    /// Its JSON; kept apart from the rest, and not after it is carried out.
    #[serde(skip)]
    pub json: Option<Vec<u8>>,
}

/// What is applied of a task.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// What was applied; of what it ships, digest and size. Older ledgers lack these.
    pub spec: TaskSpec,
    /// Its fingerprint.
    pub fingerprint: Fingerprint,
    /// Short digests of its inputs.
    #[serde(default)]
    pub inputs: BTreeMap<String, String>,
    /// Its declared edges.
    #[serde(default)]
    pub edges: Edges,
    /// Whether something else was begun since and not brought to a good end, so that nobody knows what is really there.
    ///
    /// Its fingerprint is then told as one that no plan has, and the next success counts as a change.
    #[serde(default)]
    pub in_doubt: bool,
    /// What the task noted for its own use, such as how it found things.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<Value>,
    /// What it has published to the planner.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub export: Option<String>,
}

/// What a task owes, or will owe if an open source fires.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Owed {
    /// The greatest effect that has fired.
    #[serde(default)]
    pub fired: Option<effect::Effect>,
    /// Sources not decided yet, each with what it would fire.
    #[serde(default)]
    pub open: Vec<(TriggerSource, effect::Effect)>,
}

impl Owed {
    /// Whether nothing is owed and nothing can come to be.
    pub fn is_empty(&self) -> bool {
        self.fired.is_none() && self.open.is_empty()
    }
}

/// All that the ledger and its journal hold.
#[derive(Debug, Clone)]
pub struct Snapshot {
    /// Its id.
    pub ledger: LedgerId,
    /// How often it was opened before.
    pub epoch: u32,
    /// The boot under which it was written last.
    pub boot: Option<String>,
    /// The current plan.
    pub plan: Option<StoredPlan>,
    /// What became of its tasks.
    pub done: BTreeMap<TaskId, Outcome>,
    /// What is applied.
    pub applied: BTreeMap<TaskId, Record>,
    /// What is owed.
    pub owed: BTreeMap<TaskId, Owed>,
    /// Number of the last report.
    pub sequence: Sequence,
    /// Number of the last report that was acknowledged.
    pub acked: Sequence,
    /// Waiting reports that have an output, and how long it is.
    pub outputs: Vec<(Sequence, usize)>,
    /// What the journal says was started, for which generation.
    pub started: Vec<(Generation, TaskId)>,
}
