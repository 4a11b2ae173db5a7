//! The agent's machine: decides all that the agent does, and does none of it.
//!
//! In: events and the time, as values. Out: effects, to be carried out in their order, each before the next. No IO, no
//! clock, no randomness, no async: it can be simulated, and is. It keeps the promises of docs/architecture.md on fencing,
//! obligations and reports: whatever a task may come to owe is persisted with the plan, before the task starts, and goes
//! only with the record that it was met. What it holds in memory may run ahead of the ledger by one group of completions;
//! the journal of started tasks tells after a crash which tasks that group may have held.

mod accept;
mod finish;
mod io;
mod obligations;
mod queue;
mod reports;
mod restore;
mod run;
mod snapshot;
mod state;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use groundplan_protocol::{
    digest::Digest,
    effect,
    ids::{CommitId, Generation, LedgerId, TaskId},
    plan::{self, Gates, PlannedTask},
    report::Outcome,
    state::{Phase, Refused},
    time::Now,
};

pub use self::{
    io::{Effect, Event, Facts, JobDone, JobOutcome, Settings, Start, Work},
    restore::{SYNCED, UnreadablePlan},
    snapshot::{Record, Snapshot, StoredObligation, StoredPlan, Write},
};
use self::{queue::Queue, reports::Reports};

/// While tasks run, completions wait this long for others to share a transaction and a message with.
const GROUP: Duration = Duration::from_millis(30);
/// Most completions in a group.
const GROUP_MAX: usize = 256;
/// The state is published at most this often, but where it tells something new of the plan itself.
const STATE_EVERY: Duration = Duration::from_secs(1);
/// And for each applied task this much more seldom: a state names them all.
const STATE_PER_TASK: Duration = Duration::from_millis(2);
/// A task that runs longer is told to whoever watches.
const ANNOUNCE: Duration = Duration::from_millis(250);

/// The plan that is in force.
#[derive(Debug)]
struct Current {
    generation: Generation,
    commit: CommitId,
    digest: Digest,
    queue: Queue,
    /// Blobs that are not there yet.
    missing: BTreeSet<Digest>,
    /// Effects that it has carried out, for a newer plan that still owes them.
    met: BTreeMap<TaskId, effect::Effect>,
    /// The ledger still holds its tasks.
    kept: bool,
}

/// A job that runs.
#[derive(Debug)]
struct Running {
    generation: Generation,
    planned: PlannedTask,
    /// Nothing is applied, only an effect carried out.
    only_effect: bool,
    effect: Option<effect::Effect>,
    /// What has come to be owed since it began: its end does not meet that.
    again: Option<effect::Effect>,
    /// Whether its record was in doubt before it began.
    in_doubt: bool,
    /// Its place in the queue; none if a newer plan came.
    at: Option<usize>,
    /// Tasks of the newer plan that wait for its end.
    waiting: Vec<usize>,
}

/// What is in memory and not yet in the ledger.
#[derive(Debug, Default)]
struct Dirty {
    done: Vec<(TaskId, Outcome)>,
    applied: BTreeSet<TaskId>,
    obligations: BTreeSet<TaskId>,
}

/// When something is due, by the monotonic clock.
#[derive(Debug, Default)]
struct Due {
    flush: Option<Duration>,
    state: Option<Duration>,
    announce: Option<Duration>,
}

/// See the module.
#[derive(Debug)]
pub struct Machine {
    settings: Settings,
    ledger: LedgerId,
    epoch: u32,
    revision: u32,
    current: Option<Current>,
    /// Gates that came before their plan.
    early: Option<Gates>,
    applied: BTreeMap<TaskId, Record>,
    obligations: BTreeMap<TaskId, StoredObligation>,
    running: BTreeMap<TaskId, Running>,
    dirty: Dirty,
    /// Whether the journal holds anything.
    journal: bool,
    reports: Reports,
    /// Which running tasks were told last.
    announced: Vec<TaskId>,
    due: Due,
    last_state: Option<Duration>,
    connected: bool,
    told: bool,
    stopping: bool,
    stopped: bool,
    refused: Option<Refused>,
    ignored: u64,
    /// What the host is; empty until it was read.
    facts: Facts,
}

impl Machine {
    /// Takes what has happened; returns what to do about it.
    pub fn handle(&mut self, event: Event, now: Now) -> Vec<Effect> {
        let mut out = Vec::new();
        match event {
            Event::Connected { session_present } => self.connect(session_present, now, &mut out),
            Event::Disconnected => {
                self.connected = false;
                self.reports.disconnected();
            }
            Event::Plan(plan) => self.offer(*plan, now, &mut out),
            Event::PlanRef(reference) => self.offer_reference(reference, now, &mut out),
            Event::Gates(gates) => self.open_gates(gates, now, &mut out),
            Event::Ack(ack) => {
                if ack.node == self.settings.node && ack.ledger == self.ledger {
                    self.reports.acknowledge(ack.sequence, now, &mut out);
                }
            }
            Event::BlobReady(digest) => {
                if let Some(current) = &mut self.current {
                    current.missing.remove(&digest);
                }
            }
            Event::BlobFailed { blob, reason } => {
                let generation = self.current.as_ref().map(|c| c.generation);
                self.refuse("blob", generation, format!("{blob}: {reason}"), now, &mut out);
            }
            Event::Finished(done) => self.finished(*done, now),
            Event::Refused { topic, generation, reason } => {
                self.ignored += u64::from(generation.is_none());
                self.refuse(topic, generation, reason, now, &mut out);
            }
            Event::Ignored => {
                self.ignored += 1;
                self.wish_state(now);
            }
            Event::Facts(facts) => {
                if self.facts.is_empty() {
                    // The planner waits for the first ones.
                    self.due.state = Some(now.mono);
                } else if self.facts != facts {
                    self.wish_state(now);
                }
                self.facts = facts;
            }
            Event::Tick => {}
            Event::Aborted(done) => {
                self.cut_off(*done);
                self.flush(now, &mut out);
            }
            Event::Stop => {
                self.stopping = true;
                // Whoever stops us may not wait for what still runs.
                self.flush(now, &mut out);
            }
        }
        self.settle(now, &mut out);
        out
    }

    /// When the next `Tick` is due, by the monotonic clock.
    pub fn deadline(&self) -> Option<Duration> {
        let due = [self.due.flush, self.due.state, self.due.announce, self.reports.resend_at()];
        due.into_iter().flatten().min()
    }

    /// The generation of the plan in force; 0 before the first.
    pub fn generation(&self) -> Generation {
        self.current.as_ref().map_or(Generation(0), |c| c.generation)
    }

    /// The ledger's id.
    pub fn ledger(&self) -> &LedgerId {
        &self.ledger
    }

    /// What runs, for whoever watches.
    pub fn running(&self) -> Vec<TaskId> {
        self.running.keys().cloned().collect()
    }

    /// The specs that are applied, without the bytes that they ship.
    pub fn applied(&self) -> impl Iterator<Item = (&TaskId, &plan::TaskSpec)> {
        self.applied.iter().map(|(task, record)| (task, &record.spec))
    }

    /// What is applied of a task.
    pub fn recorded(&self, task: &TaskId) -> Option<&Record> {
        self.applied.get(task)
    }

    /// Whether there is nothing to do but to wait for a message.
    pub fn is_idle(&self) -> bool {
        !self.stopping && self.phase() == Phase::Idle
    }

    /// A number that grows with `count`, also over restarts: its upper half counts the openings of the ledger.
    pub fn numbered(&self, count: u32) -> u64 {
        u64::from(self.epoch) << 32 | u64::from(count)
    }

    fn connect(&mut self, session_present: bool, now: Now, out: &mut Vec<Effect>) {
        self.connected = true;
        if !(session_present && self.told) {
            self.told = true;
            self.due.state = Some(now.mono);
        }
        self.reports.connected(now, out);
    }

    fn refuse(&mut self, topic: &str, generation: Option<Generation>, reason: String, now: Now, out: &mut Vec<Effect>) {
        let same = self.refused.as_ref().is_some_and(|r| r.topic == topic && r.reason == reason);
        if !same {
            let of = generation.map(|g| format!(" of generation {g}")).unwrap_or_default();
            out.push(Effect::Log(format!("refused {topic}{of}: {reason}")));
        }
        self.refused = Some(Refused { topic: topic.to_owned(), generation, reason, at_ms: now.wall_ms });
        self.wish_state(now);
    }

    /// Whatever follows from what just happened: tasks to start, a group to persist, a state to publish.
    fn settle(&mut self, now: Now, out: &mut Vec<Effect>) {
        self.start_ready(now, out);
        self.settle_group(now, out);
        self.settle_plan(now, out);
        if self.due.state.is_some_and(|at| at <= now.mono) {
            self.due.state = None;
            if self.connected {
                self.flush(now, out);
                self.publish_state(now, out);
            }
        }
        self.reports.tick(now, out);
        self.settle_announcement(now, out);
        if self.stopping && !self.stopped && self.running.is_empty() {
            self.flush(now, out);
            self.stopped = true;
            out.push(Effect::Stopped);
        }
    }

    /// Persists the completions when nothing else is at work, when there are many, or when they have waited long enough.
    fn settle_group(&mut self, now: Now, out: &mut Vec<Effect>) {
        if !self.has_dirt() {
            return;
        }
        let at = *self.due.flush.get_or_insert(now.mono + GROUP);
        if self.running.is_empty() || self.dirty.done.len() >= GROUP_MAX || at <= now.mono {
            self.flush(now, out);
        }
    }

    fn has_dirt(&self) -> bool {
        let Dirty { done, applied, obligations } = &self.dirty;
        !(done.is_empty() && applied.is_empty() && obligations.is_empty() && self.reports.is_clean())
    }

    /// Writes all that the ledger does not hold yet in one transaction, and then has its reports sent.
    fn flush(&mut self, now: Now, out: &mut Vec<Effect>) {
        self.due.flush = None;
        if !self.has_dirt() {
            return;
        }
        let mut writes = Vec::new();
        self.take_dirt(&mut writes);
        out.push(Effect::Persist { writes, durable: true });
        self.reports.persisted(self.connected, now, out);
        self.after_flush(out);
    }

    fn take_dirt(&mut self, writes: &mut Vec<Write>) {
        let Dirty { done, applied, obligations } = std::mem::take(&mut self.dirty);
        writes.extend(done.into_iter().map(|(task, outcome)| Write::Done(task, outcome)));
        for task in applied {
            let record = self.applied.get(&task).cloned().map(Box::new);
            writes.push(Write::Applied(task, record));
        }
        for task in obligations {
            let obligation = self.obligations.get(&task).cloned();
            writes.push(Write::Obligation(task, obligation));
        }
        self.reports.take(writes);
    }

    fn after_flush(&mut self, out: &mut Vec<Effect>) {
        if self.journal && self.running.is_empty() {
            self.journal = false;
            out.push(Effect::ResetJournal);
        }
        self.announced = self.running();
        self.due.announce = None;
    }

    /// Once every task of the plan has its outcome: forgets its tasks and tells so.
    fn settle_plan(&mut self, now: Now, out: &mut Vec<Effect>) {
        let Some(current) = &mut self.current else { return };
        if !(current.kept && current.queue.is_finished() && self.running.is_empty()) {
            return;
        }
        current.kept = false;
        current.queue = Queue::default();
        current.missing.clear();
        let mut writes = vec![Write::PlanFinished];
        self.take_dirt(&mut writes);
        // A plan whose end is lost with the power is found to be carried out again; nothing depends on this record.
        let durable = writes.len() > 1;
        out.push(Effect::Persist { writes, durable });
        if durable {
            self.reports.persisted(self.connected, now, out);
            self.after_flush(out);
        }
        out.push(Effect::KeepBlobs(Vec::new()));
        self.due.state = Some(now.mono);
    }

    /// Tells whoever watches what runs, if it runs long enough to be seen.
    fn settle_announcement(&mut self, now: Now, out: &mut Vec<Effect>) {
        if !self.connected || self.running.keys().eq(self.announced.iter()) {
            self.due.announce = None;
            return;
        }
        let at = *self.due.announce.get_or_insert(now.mono + ANNOUNCE);
        if at <= now.mono {
            self.due.announce = None;
            self.announced = self.running();
            self.reports.announce(out);
        }
    }
}
