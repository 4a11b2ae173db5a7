//! What the machine holds in memory: the active plan, running jobs, and what the ledger does not have yet.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use groundplan_protocol::{
    digest::Digest,
    effect::Effect,
    envelope::PlanReceipt,
    ids::{CommitId, Generation, LedgerId, TaskId},
    plan::{Gates, PlannedTask},
    report::Outcome,
    state::Refused,
};

use super::{
    found::Found,
    io::{Facts, Settings},
    outbox::Outbox,
    queue::Queue,
    snapshot::{Record, StoredObligation, Taking},
};

/// The active plan: the last one that was accepted.
#[derive(Debug)]
pub(super) struct ActivePlan {
    pub(super) generation: Generation,
    pub(super) commit: CommitId,
    /// Its id: the digest of its JSON.
    pub(super) digest: Digest,
    /// When it was offered, by the planner's clock, in milliseconds since the Unix epoch.
    pub(super) issued_ms: u64,
    pub(super) receipt: Option<PlanReceipt>,
    pub(super) queue: Queue,
    /// Blobs that are not in the store yet; no task starts before all are.
    pub(super) missing: BTreeSet<Digest>,
    /// Whether the ledger still holds its tasks.
    pub(super) in_ledger: bool,
}

/// A job that runs.
#[derive(Debug)]
pub(super) struct Running {
    pub(super) generation: Generation,
    pub(super) planned: PlannedTask,
    /// Whether it applies nothing and only carries out an effect.
    pub(super) only_effect: bool,
    pub(super) effect: Option<Effect>,
    /// The greatest effect that became an obligation since it began: its end does not fulfil that.
    pub(super) fired_since: Option<Effect>,
    /// Whether the task's record was in doubt before it began.
    pub(super) in_doubt: bool,
    /// Whether an earlier run of the task may have changed anything on the host.
    pub(super) touched: bool,
    /// Whether an earlier run was to make the same of it.
    pub(super) attempted: bool,
    /// Its place in the queue; none if a newer plan came.
    pub(super) at: Option<usize>,
    /// Tasks of the newer plan that wait for its end.
    pub(super) waiting: Vec<usize>,
}

/// What is in memory and not in the ledger yet; the values themselves are in [`Machine`].
#[derive(Debug, Default)]
pub(super) struct Unsaved {
    pub(super) done: Vec<(TaskId, Outcome)>,
    pub(super) applied: BTreeSet<TaskId>,
    pub(super) takings: BTreeSet<TaskId>,
    pub(super) obligations: BTreeSet<TaskId>,
    pub(super) found: BTreeSet<String>,
}

/// When something is due, by the monotonic clock.
#[derive(Debug, Default)]
pub(super) struct Due {
    pub(super) flush: Option<Duration>,
    pub(super) state: Option<Duration>,
    pub(super) announce: Option<Duration>,
}

/// The agent's machine; see the module `machine`.
#[derive(Debug)]
pub struct Machine {
    pub(super) settings: Settings,
    pub(super) ledger: LedgerId,
    /// How often the ledger has been opened, this time included.
    pub(super) epoch: u32,
    /// Counts the states published by this process.
    pub(super) revision: u32,
    pub(super) active: Option<ActivePlan>,
    /// Gates that came before their plan.
    pub(super) early_gates: Option<Gates>,
    pub(super) applied: BTreeMap<TaskId, Record>,
    /// What tasks are about to take over, of one task the latest last.
    pub(super) takings: BTreeMap<TaskId, Vec<Taking>>,
    /// Whether the host does not know of them as they are.
    pub(super) takings_changed: bool,
    pub(super) obligations: BTreeMap<TaskId, StoredObligation>,
    /// What was found before tasks took it, by the key of the claim.
    pub(super) found: BTreeMap<String, Found>,
    pub(super) running: BTreeMap<TaskId, Running>,
    pub(super) unsaved: Unsaved,
    /// Whether the journal of started tasks holds anything.
    pub(super) journal_used: bool,
    pub(super) outbox: Outbox,
    /// The running tasks as they were last announced.
    pub(super) announced: Vec<TaskId>,
    pub(super) due: Due,
    /// When the state was last published, by the monotonic clock.
    pub(super) last_state: Option<Duration>,
    pub(super) connected: bool,
    /// Whether this process has published a state.
    pub(super) state_published: bool,
    pub(super) stopping: bool,
    pub(super) stopped: bool,
    pub(super) refused: Option<Refused>,
    /// How many payloads of others were ignored.
    pub(super) ignored: u64,
    /// Tasks that do not work, each with the reason.
    pub(super) degraded: BTreeMap<TaskId, String>,
    /// Facts of the host; empty until they were read.
    pub(super) facts: Facts,
}
