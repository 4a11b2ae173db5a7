//! What the ledger holds, as values: the writes that change it, and all of it as a restart finds it.
//!
//! In: writes. Out: the snapshot after them ([`Snapshot::apply`]), as `ledger` reads it back from its file. So tests and the
//! simulator need no disk. Field names are those of the file: a release reads what the one before it wrote.

use std::collections::BTreeMap;

use groundplan_protocol::{
    blob::Content,
    digest::{Digest, Fingerprint},
    effect::{Action, Effect},
    envelope::PlanReceipt,
    ids::{CommitId, Generation, LedgerId, Sequence, TaskId},
    plan::{Edges, PlannedTask, TaskSpec, TriggerSource},
    report::{Outcome, TaskReport},
};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::found::Found;

/// One change of the ledger.
#[derive(Debug, Clone)]
pub enum Write {
    /// A new plan: replaces the one before and the outcomes of its tasks.
    Plan(Box<StoredPlan>),
    /// The plan is carried out: its tasks need not be kept any more.
    PlanFinished,
    /// The final outcome of a task of the active plan.
    Done(TaskId, Outcome),
    /// The record of an applied task; `None` once nothing is applied.
    Applied(TaskId, Option<Box<Record>>),
    /// What a task is about to take over from others; `None` once it has.
    Taking(TaskId, Option<Vec<Taking>>),
    /// The obligation of a task; `None` once it has none.
    Obligation(TaskId, Option<StoredObligation>),
    /// What was found of a claim before a task took it; `None` once no task has the claim.
    Found(String, Option<Box<Found>>),
    /// A report to deliver. Numbers have no gaps.
    Report(Sequence, Box<TaskReport>),
    /// The planner has all reports up to this one: they are dropped.
    Acknowledged(Sequence),
    /// Drop the output of a waiting report: the outbox is full.
    DropOutput(Sequence),
    /// How often the ledger has been opened, this time included.
    Epoch(u32),
    /// The boot in which it is written now.
    Boot(String),
}

/// A plan as the ledger keeps it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StoredPlan {
    /// Generation of the plan.
    pub generation: Generation,
    /// The commit that it leads to.
    pub commit: CommitId,
    /// The plan's id, the digest of its JSON: another plan of the same generation is refused.
    pub digest: Digest,
    /// When it was offered, by the planner's clock, in milliseconds since the Unix epoch. Ledgers of older agents lack it.
    #[serde(default)]
    pub issued_ms: u64,
    /// Its receipt, to be returned with every state. Ledgers of older agents lack it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub receipt: Option<PlanReceipt>,
    /// The plan's JSON; kept apart from the rest, and only until the plan is carried out.
    #[serde(skip)]
    pub json: Option<Vec<u8>>,
}

/// What is applied by a task.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// The spec that was applied; content by digest and size, which ledgers of older agents lack.
    pub spec: TaskSpec,
    /// Fingerprint of that spec.
    pub fingerprint: Fingerprint,
    /// Short digests of the inputs behind the fingerprint, by name.
    #[serde(default)]
    pub inputs: BTreeMap<String, String>,
    /// The edges that the site declares to the task.
    #[serde(default)]
    pub edges: Edges,
    /// Whether a job was begun since and did not end well, so that nothing shows what is on the host.
    ///
    /// The state then has a fingerprint that no plan has, and the next success counts as a change.
    #[serde(default)]
    pub in_doubt: bool,
    /// Whether another task has changed what this one has, to take it over: what is on the host is not what was applied. As long as this
    /// one has not given it up, the state has a fingerprint that no plan has.
    #[serde(default, skip_serializing_if = "is_false")]
    pub overtaken: bool,
    /// Whether the task may have changed anything on the host; its removal does nothing otherwise. Ledgers of older agents lack it.
    #[serde(default = "yes", skip_serializing_if = "is_true")]
    pub touched: bool,
    /// What the kind noted for its own use, such as how it found things.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<Value>,
    /// The value that an `export` has published.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub export: Option<String>,
    /// The last effect that was carried out on it: it meets obligations that were known when that plan was made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fulfilled: Option<Fulfilled>,
}

impl Record {
    /// Of a task once it is applied as planned; none if the plan applies nothing. Nothing is remembered of it.
    pub(super) fn of(planned: &PlannedTask) -> Option<Self> {
        matches!(planned.action, Action::Create | Action::Update).then_some(())?;
        Some(Self {
            spec: without_bytes(planned.spec.as_ref()?),
            fingerprint: planned.fingerprint?,
            inputs: planned.inputs.clone(),
            edges: planned.edges.clone(),
            in_doubt: false,
            overtaken: false,
            touched: true,
            memory: None,
            export: None,
            fulfilled: None,
        })
    }

    /// Whether nothing shows that the host is as it was applied.
    pub fn is_doubtful(&self) -> bool {
        self.in_doubt || self.overtaken
    }
}

/// `spec` as the ledger keeps it: content by digest and size alone.
pub(super) fn without_bytes(spec: &TaskSpec) -> TaskSpec {
    TaskSpec {
        params: spec.params.clone(),
        content: spec.content.as_ref().and_then(Content::name).map(Content::Blob),
        ready: spec.ready.clone(),
        external: spec.external.clone(),
        on_interrupt: spec.on_interrupt,
    }
}

/// What a task is about to be, besides what its record has. What it takes over from tasks that go on and give it up is its own from the
/// moment the plan is accepted, so that it is never without an owner: whichever of the tasks is carried out first, fails, or is given up by
/// a later plan. What a job makes of it elsewhere is its own once that may have begun.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Taking {
    /// As the task's record will be once it is applied, with the memory of those that hand over; in doubt.
    pub record: Record,
    /// The tasks that hand over; none if it is what a job that did not end well was to make.
    pub from: Vec<TaskId>,
    /// Of the plan with which it was accepted.
    pub generation: Generation,
}

/// An effect that was carried out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fulfilled {
    /// The generation of the plan that it was carried out for.
    pub generation: Generation,
    /// The effect.
    pub effect: Effect,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_false(flag: &bool) -> bool {
    !*flag
}

fn yes() -> bool {
    true
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_true(flag: &bool) -> bool {
    *flag
}

/// The obligation of a task: an effect that is due, or will be if an open source fires.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct StoredObligation {
    /// The greatest effect that has fired and is due.
    #[serde(default)]
    pub fired: Option<Effect>,
    /// Sources that are not decided yet, each with the effect that it would fire.
    #[serde(default)]
    pub open: Vec<(TriggerSource, Effect)>,
}

impl StoredObligation {
    /// Whether nothing is due and nothing can become due.
    pub fn is_empty(&self) -> bool {
        self.fired.is_none() && self.open.is_empty()
    }
}

/// All that the ledger and its journal hold.
#[derive(Debug, Clone, PartialEq)]
pub struct Snapshot {
    /// The ledger's id, drawn when it was made.
    pub ledger: LedgerId,
    /// How often it has been opened before.
    pub epoch: u32,
    /// The boot in which it was last written.
    pub boot: Option<String>,
    /// The plan that was accepted last; none before the first.
    pub plan: Option<StoredPlan>,
    /// Outcomes of its tasks.
    pub done: BTreeMap<TaskId, Outcome>,
    /// Records of what is applied.
    pub applied: BTreeMap<TaskId, Record>,
    /// What tasks are about to take over, of one task the latest last.
    pub takings: BTreeMap<TaskId, Vec<Taking>>,
    /// Obligations that are due or may become so.
    pub obligations: BTreeMap<TaskId, StoredObligation>,
    /// What was found before tasks took it, by the key of the claim.
    pub found: BTreeMap<String, Found>,
    /// The same of jobs whose end the ledger does not have: from the notes beside the contents, the latest last.
    pub noted: Vec<(String, Found)>,
    /// Number of the last report.
    pub sequence: Sequence,
    /// Number of the last report that was acknowledged.
    pub acked: Sequence,
    /// Waiting reports that have an output, and its length in bytes.
    pub outputs: Vec<(Sequence, usize)>,
    /// The tasks that the journal has as started, each with the generation of its plan.
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
            takings: BTreeMap::new(),
            obligations: BTreeMap::new(),
            found: BTreeMap::new(),
            noted: Vec::new(),
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
            Write::Taking(task, takings) => set(&mut self.takings, task, takings.as_ref()),
            Write::Obligation(task, obligation) => set(&mut self.obligations, task, obligation.as_ref()),
            Write::Found(key, Some(found)) => drop(self.found.insert(key.clone(), (**found).clone())),
            Write::Found(key, None) => drop(self.found.remove(key)),
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
