//! What the ledger holds, as values: the writes that change it, and all of it as a restart finds it.
//!
//! In: writes. Out: the snapshot after them ([`Snapshot::apply`]), as `ledger` reads it back from its file. So tests and the
//! simulator need no disk. Field names are those of the file: a release reads what the one before it wrote.

use std::collections::BTreeMap;

use groundplan_protocol::{
    digest::{Digest, Fingerprint},
    effect::Effect,
    ids::{CommitId, Generation, LedgerId, Sequence, TaskId},
    plan::{Edges, TaskSpec, TriggerSource},
    report::{Outcome, TaskReport},
};
use serde::{Deserialize, Serialize};
use serde_json::Value;

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
    Obligation(TaskId, Option<StoredObligation>),
    /// A report to deliver.
    Report(Sequence, Box<TaskReport>),
    /// The planner has all reports up to this one.
    Acknowledged(Sequence),
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
pub struct StoredObligation {
    /// The greatest effect that has fired.
    #[serde(default)]
    pub fired: Option<Effect>,
    /// Sources not decided yet, each with what it would fire.
    #[serde(default)]
    pub open: Vec<(TriggerSource, Effect)>,
}

impl StoredObligation {
    /// Whether nothing is owed and nothing can come to be.
    pub fn is_empty(&self) -> bool {
        self.fired.is_none() && self.open.is_empty()
    }
}

/// All that the ledger and its journal hold.
#[derive(Debug, Clone, PartialEq)]
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
    pub obligations: BTreeMap<TaskId, StoredObligation>,
    /// Number of the last report.
    pub sequence: Sequence,
    /// Number of the last report that was acknowledged.
    pub acked: Sequence,
    /// Waiting reports that have an output, and how long it is.
    pub outputs: Vec<(Sequence, usize)>,
    /// What the journal says was started, for which generation.
    pub started: Vec<(Generation, TaskId)>,
}

impl Snapshot {
    /// A new ledger: never opened, nothing applied, no plan.
    pub fn empty(ledger: LedgerId) -> Self {
        Self {
            ledger,
            epoch: 0,
            boot: None,
            plan: None,
            done: BTreeMap::new(),
            applied: BTreeMap::new(),
            obligations: BTreeMap::new(),
            sequence: Sequence(0),
            acked: Sequence(0),
            outputs: Vec::new(),
            started: Vec::new(),
        }
    }

    /// What the ledger holds after `write`. The reports themselves are not part of a snapshot, and neither does a write touch
    /// the journal (`started`).
    pub fn apply(&mut self, write: &Write) {
        match write {
            Write::Plan(plan) => {
                self.plan = Some((**plan).clone());
                self.done.clear();
            }
            Write::PlanFinished => {
                if let Some(plan) = &mut self.plan {
                    plan.json = None;
                }
            }
            Write::Done(task, outcome) => {
                self.done.insert(task.clone(), outcome.clone());
            }
            Write::Applied(task, record) => set(&mut self.applied, task, record.as_deref()),
            Write::Obligation(task, obligation) => set(&mut self.obligations, task, obligation.as_ref()),
            Write::Report(number, report) => {
                self.sequence = *number;
                let length = report.output.as_ref().map(|output| output.head.len() + output.tail.len());
                self.outputs.extend(length.map(|length| (*number, length)));
            }
            Write::Acknowledged(to) => {
                self.acked = *to;
                self.outputs.retain(|(number, _)| number > to);
            }
            Write::DropOutput(dropped) => self.outputs.retain(|(number, _)| number != dropped),
            Write::Epoch(epoch) => self.epoch = *epoch,
            Write::Boot(boot) => self.boot = Some(boot.clone()),
        }
    }
}

fn set<T: Clone>(map: &mut BTreeMap<TaskId, T>, task: &TaskId, value: Option<&T>) {
    match value {
        Some(value) => drop(map.insert(task.clone(), value.clone())),
        None => drop(map.remove(task)),
    }
}
