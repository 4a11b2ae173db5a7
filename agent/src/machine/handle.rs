//! Events: what each changes, and what follows from any of them.
//!
//! In: an event and the time. Out: effects. After the event itself, tasks that are ready start, completions are persisted in
//! groups, a finished plan is dropped, and state and reports go out when they are due.

use std::{collections::BTreeMap, time::Duration};

use groundplan_protocol::{
    ids::{Generation, LedgerId, Sequence, TaskId},
    plan::TaskSpec,
    state::{Phase, Refused},
    time::Now,
};

use super::{
    found::Found,
    io::{Effect, Event},
    queue::Queue,
    snapshot::{Record, Write},
    state::{Machine, Unsaved},
};

/// While tasks run, completions wait this long for others to share a transaction and a message with.
const GROUP: Duration = Duration::from_millis(30);
/// Most completions in a group.
const GROUP_MAX: usize = 256;
/// A task that runs longer than this is announced to the planner before it ends.
const ANNOUNCE: Duration = Duration::from_millis(250);

impl Machine {
    /// Takes an event; returns what to do about it.
    pub fn handle(&mut self, event: Event, now: Now) -> Vec<Effect> {
        let mut out = Vec::new();
        match event {
            Event::Connected { session_present } => self.connect(session_present, now, &mut out),
            Event::Disconnected => {
                self.connected = false;
                self.outbox.disconnected();
            }
            Event::Plan(offer) => self.offer(*offer, now, &mut out),
            Event::Gates(gates) => self.open_gates(gates, now, &mut out),
            Event::Ack(ack) => {
                if ack.node == self.settings.node && ack.ledger == self.ledger {
                    self.outbox.acknowledge(ack.sequence, now, &mut out);
                }
            }
            Event::BlobReady(digest) => {
                if let Some(active) = &mut self.active {
                    active.missing.remove(&digest);
                }
            }
            Event::BlobFailed { blob, reason } => {
                let generation = self.active.as_ref().map(|active| active.generation);
                self.refuse("blob", generation, format!("{blob}: {reason}"), now, &mut out);
            }
            Event::Finished(done) => self.finished(*done, now),
            Event::Refused { topic, generation, reason } => {
                // A message without a generation had no trusted signature: it counts as a payload of others.
                self.ignored += u64::from(generation.is_none());
                self.refuse(topic, generation, reason, now, &mut out);
            }
            Event::Ignored => {
                self.ignored += 1;
                self.request_state(now);
            }
            Event::Facts(facts) => {
                if self.facts.is_empty() {
                    // The planner waits for the first ones.
                    self.due.state = Some(now.mono);
                } else if self.facts != facts {
                    self.request_state(now);
                }
                self.facts = facts;
            }
            Event::Degraded(degraded) => {
                self.degraded = degraded;
                self.request_state(now);
            }
            Event::Tick => {}
            Event::Aborted(done) => {
                self.aborted(*done);
                self.flush(now, &mut out);
            }
            Event::Stop => {
                self.stopping = true;
                // The host may kill the agent before the running tasks end.
                self.flush(now, &mut out);
            }
        }
        self.settle(now, &mut out);
        out
    }

    /// When the next `Tick` is due, by the monotonic clock.
    pub fn deadline(&self) -> Option<Duration> {
        // A state waits for the connection.
        let state = self.due.state.filter(|_| self.connected);
        // One that stops starts nothing any more.
        let again = self.active.as_ref().filter(|_| !self.stopping).and_then(|active| active.queue.next_try());
        let due = [self.due.flush, state, self.due.announce, self.outbox.resend_at(), again];
        due.into_iter().flatten().min()
    }

    /// The generation of the active plan; 0 before the first.
    pub fn generation(&self) -> Generation {
        self.active.as_ref().map_or(Generation(0), |active| active.generation)
    }

    /// The ledger's random id: another one means that all records of the old one are lost.
    pub fn ledger(&self) -> &LedgerId {
        &self.ledger
    }

    /// The tasks that run, in the order of their ids.
    pub fn running(&self) -> Vec<TaskId> {
        self.running.keys().cloned().collect()
    }

    /// Number of the last report; it need not be on disk yet.
    pub fn last_report(&self) -> Sequence {
        self.outbox.last()
    }

    /// Number of the last report that a planner has acknowledged.
    pub fn acked_report(&self) -> Sequence {
        self.outbox.acked()
    }

    /// The specs that are applied, without the bytes that they ship.
    pub fn applied(&self) -> impl Iterator<Item = (&TaskId, &TaskSpec)> {
        self.applied.iter().map(|(task, record)| (task, &record.spec))
    }

    /// The record of an applied task.
    pub fn recorded(&self, task: &TaskId) -> Option<&Record> {
        self.applied.get(task)
    }

    /// What was found before tasks took it, by the key of the claim.
    pub fn found(&self) -> &BTreeMap<String, Found> {
        &self.found
    }

    /// Whether there is nothing to do until a message comes.
    pub fn is_idle(&self) -> bool {
        !self.stopping && self.phase() == Phase::Idle
    }

    /// A number that grows with `count`, also over restarts: its upper half counts the openings of the ledger.
    pub fn numbered(&self, count: u32) -> u64 {
        u64::from(self.epoch) << 32 | u64::from(count)
    }

    fn connect(&mut self, session_present: bool, now: Now, out: &mut Vec<Effect>) {
        self.connected = true;
        // A broker that kept the session has the retained state as well, if this process has published it.
        if !(session_present && self.state_published) {
            self.state_published = true;
            self.due.state = Some(now.mono);
        }
        self.outbox.connected(now, out);
        if self.phase() != Phase::Idle {
            // What it announced on the last connection may have been lost with it.
            self.announce(out);
        }
    }

    pub(super) fn refuse(
        &mut self,
        topic: &str,
        generation: Option<Generation>,
        reason: String,
        now: Now,
        out: &mut Vec<Effect>,
    ) {
        // The broker may deliver the same message again and again; the log has it once.
        let same = self.refused.as_ref().is_some_and(|r| r.topic == topic && r.reason == reason);
        if !same {
            let of = generation.map(|g| format!(" of generation {g}")).unwrap_or_default();
            out.push(Effect::Log(format!("refused {topic}{of}: {reason}")));
        }
        self.refused = Some(Refused { topic: topic.to_owned(), generation, reason, at_ms: now.wall_ms });
        self.request_state(now);
    }

    /// What follows from any event: tasks to start, a group to persist, a state to publish.
    fn settle(&mut self, now: Now, out: &mut Vec<Effect>) {
        self.start_ready(now, out);
        self.settle_group(now, out);
        self.settle_plan(now, out);
        // What became due without a connection is published on the next one: the broker keeps the state before it until then.
        if self.connected && self.due.state.is_some_and(|at| at <= now.mono) {
            self.due.state = None;
            // A state holds nothing that the ledger does not have.
            self.flush(now, out);
            self.publish_state(now, out);
        }
        self.outbox.tick(now, out);
        self.settle_announcement(now, out);
        if self.stopping && !self.stopped && self.running.is_empty() {
            self.flush(now, out);
            self.stopped = true;
            out.push(Effect::Stopped);
        }
    }

    /// Persists the completions when nothing else is at work, when there are many, or when they have waited long enough.
    fn settle_group(&mut self, now: Now, out: &mut Vec<Effect>) {
        if !self.has_unsaved() {
            return;
        }
        let at = *self.due.flush.get_or_insert(now.mono + GROUP);
        if self.running.is_empty() || self.unsaved.done.len() >= GROUP_MAX || at <= now.mono {
            self.flush(now, out);
        }
    }

    fn has_unsaved(&self) -> bool {
        let Unsaved { done, applied, takings, obligations, found } = &self.unsaved;
        let is_clean = [applied, takings, obligations].iter().all(|tasks| tasks.is_empty());
        let is_clean = is_clean && done.is_empty() && found.is_empty();
        !(is_clean && self.outbox.is_clean())
    }

    /// Writes all that the ledger does not hold yet in one transaction, and then has its reports sent.
    pub(super) fn flush(&mut self, now: Now, out: &mut Vec<Effect>) {
        self.due.flush = None;
        if !self.has_unsaved() {
            return;
        }
        let mut writes = Vec::new();
        self.take_unsaved(&mut writes);
        out.push(Effect::Persist { writes, durable: true });
        self.outbox.persisted(self.connected, now, out);
        self.after_flush(out);
    }

    /// Moves what is unsaved into `writes`. One transaction must hold all of it: an outcome without the obligations that it
    /// caused would lose them.
    pub(super) fn take_unsaved(&mut self, writes: &mut Vec<Write>) {
        let Unsaved { done, applied, takings, obligations, found } = std::mem::take(&mut self.unsaved);
        writes.extend(done.into_iter().map(|(task, outcome)| Write::Done(task, outcome)));
        for task in applied {
            let record = self.applied.get(&task).cloned().map(Box::new);
            writes.push(Write::Applied(task, record));
        }
        for task in takings {
            let takings = self.takings.get(&task).cloned();
            writes.push(Write::Taking(task, takings));
        }
        for task in obligations {
            let obligation = self.obligations.get(&task).cloned();
            writes.push(Write::Obligation(task, obligation));
        }
        for key in found {
            let note = self.found.get(&key).cloned().map(Box::new);
            writes.push(Write::Found(key, note));
        }
        self.outbox.take(writes);
    }

    fn after_flush(&mut self, out: &mut Vec<Effect>) {
        // Every task that the journal names has its outcome in the ledger by now.
        if self.journal_used && self.running.is_empty() {
            self.journal_used = false;
            out.push(Effect::ResetJournal);
        }
        // The reports that go out now name the running tasks as well.
        self.announced = self.running();
        self.due.announce = None;
    }

    /// Once every task of the plan has its outcome: drops its tasks and publishes the state.
    fn settle_plan(&mut self, now: Now, out: &mut Vec<Effect>) {
        let Some(active) = &mut self.active else { return };
        // A job for an earlier plan may still run, and its end may give this plan's tasks more to do.
        if !(active.in_ledger && active.queue.is_finished() && self.running.is_empty()) {
            return;
        }
        active.in_ledger = false;
        active.queue = Queue::default();
        active.missing.clear();
        let mut writes = vec![Write::PlanFinished];
        self.take_unsaved(&mut writes);
        // If a power loss undoes only this, the restarted agent finds every task of the plan done and drops it again.
        let durable = writes.len() > 1;
        out.push(Effect::Persist { writes, durable });
        if durable {
            self.outbox.persisted(self.connected, now, out);
            self.after_flush(out);
        }
        out.push(Effect::KeepBlobs(Vec::new()));
        self.due.state = Some(now.mono);
    }

    /// Announces which tasks run.
    pub(super) fn announce(&mut self, out: &mut Vec<Effect>) {
        self.due.announce = None;
        self.announced = self.running();
        self.outbox.announce(out);
    }

    /// Announces which tasks run, once they run long enough for it to be of use.
    fn settle_announcement(&mut self, now: Now, out: &mut Vec<Effect>) {
        if !self.connected || self.running.keys().eq(self.announced.iter()) {
            self.due.announce = None;
            return;
        }
        let at = *self.due.announce.get_or_insert(now.mono + ANNOUNCE);
        if at <= now.mono {
            self.announce(out);
        }
    }
}
