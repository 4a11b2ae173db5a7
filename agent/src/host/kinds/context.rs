//! What a kind can use while a job or a drift check runs, and what it leaves behind.

use std::sync::{
    Mutex,
    atomic::{AtomicBool, Ordering},
};

use groundplan_protocol::{
    effect::Effect,
    ids::{Generation, TaskId},
    kinds::{Claim, TaskParams},
    plan::OnRemove,
    report::Output,
};
use serde::Serialize;
use serde_json::Value;
use tokio::time::Instant;

use crate::host::{
    cancel::Cancel,
    differences::Differences,
    error::HostError,
    found::{FoundError, Own},
    fs::files::{FileError, Removal, Sum},
    job::{Content, Notes},
    shared::Host,
};
use crate::machine::{Found, found as machine_found};

/// A job or drift check of one task, as its kind sees it.
pub(crate) struct Context<'a> {
    pub(crate) host: &'a Host,
    pub(crate) task: &'a TaskId,
    pub(crate) cancel: &'a Cancel,
    /// What the task ships.
    pub(crate) content: Option<Shipped<'a>>,
    /// Whether a readiness probe follows, so that the kind need not wait to see whether what it started keeps running.
    pub(crate) probed: bool,
    /// Whether the ledger holds nothing of the task yet.
    pub(crate) is_new: bool,
    /// Tasks that hand over to this one, or, in a removal, that took over from it.
    pub(crate) others: &'a [TaskId],
    /// Tasks whose claims do not count: they are about to go, and what they claim is this one's by now.
    pub(crate) yielding: &'a [TaskId],
    /// What the job is about.
    pub(crate) params: Option<&'a TaskParams>,
    /// Whether the task becomes something else: nothing of what it noted is about that.
    pub(crate) replaces: bool,
    /// What the ledger has as applied, which this job updates.
    pub(crate) previous: Option<&'a TaskParams>,
    /// The plan that the job is carried out for.
    pub(crate) plan: Generation,
    /// Whether no other job had changed anything since the start of the agent, when this one began.
    pub(crate) untouched: bool,
    /// What happens to what is removed.
    pub(crate) on_remove: OnRemove,
    /// What the task's versions look like on the host.
    pub(in crate::host) own: Own,
    /// When the job's own work began: after external capabilities were there.
    pub(crate) begun: Instant,
    /// What differs; only in a drift check.
    pub(in crate::host) differences: Option<Mutex<Differences>>,
    memory: Option<&'a Value>,
    /// Whether applying has turned out to change nothing.
    idle: AtomicBool,
    /// Whether the job may have changed anything on the host.
    touched: AtomicBool,
    /// Whether a memory was noted before a change.
    noted_first: AtomicBool,
    /// The effect that was carried out, where it is greater than the one that was due.
    instead: Mutex<Option<Effect>>,
    output: Mutex<Option<Output>>,
    notes: Mutex<Notes>,
}

impl<'a> Context<'a> {
    pub(crate) fn new(host: &'a Host, task: &'a TaskId, cancel: &'a Cancel) -> Self {
        Self {
            host,
            task,
            cancel,
            content: None,
            probed: false,
            is_new: false,
            others: &[],
            yielding: &[],
            params: None,
            replaces: false,
            previous: None,
            plan: Generation(0),
            untouched: true,
            on_remove: OnRemove::Restore,
            own: Own::default(),
            begun: Instant::now(),
            differences: None,
            memory: None,
            idle: AtomicBool::new(false),
            touched: AtomicBool::new(false),
            noted_first: AtomicBool::new(false),
            instead: Mutex::new(None),
            output: Mutex::new(None),
            notes: Mutex::default(),
        }
    }

    /// The same, with what the task noted when it was last applied.
    pub(crate) fn with_memory(self, memory: Option<&'a Value>) -> Self {
        Self { memory, ..self }
    }

    /// The same job, as a kind sees it that takes away something else than what the job is about: `params` with `memory`, from which
    /// `others` took over.
    pub(crate) fn about<'b>(
        &'b self,
        params: &'b TaskParams,
        memory: Option<&'b Value>,
        others: &'b [TaskId],
    ) -> Context<'b> {
        Context {
            others,
            yielding: self.yielding,
            params: Some(params),
            plan: self.plan,
            on_remove: self.on_remove,
            begun: self.begun,
            ..Context::new(self.host, self.task, self.cancel)
        }
        .with_memory(memory)
    }

    /// Takes over what `about` leaves behind: what it noted for the next time was of what is gone, and what it changed is in the ledger.
    pub(crate) fn absorb(&self, about: Context<'_>) {
        let (output, notes) = about.into_results();
        self.notes.lock().unwrap_or_else(|e| e.into_inner()).found.extend(notes.found);
        for text in output.iter().flat_map(|output| [&output.head, &output.tail]).filter(|text| !text.is_empty()) {
            self.report(text.trim_end());
        }
    }

    /// What the task noted when it was last applied: how it found things, so that removal restores what was there and takes away
    /// only what the task itself made.
    pub(crate) fn memory(&self) -> Option<&'a Value> {
        self.memory.filter(|memory| !memory.is_null() && !self.replaces)
    }

    /// Notes `memory` for the next time, in place of what was noted before, also if the job fails after this. For what the host shows as
    /// well: an agent that is killed before the job's end has lost it.
    pub(crate) fn remember(&self, memory: &impl Serialize) {
        self.remember_value(value(memory));
    }

    fn remember_value(&self, memory: Value) {
        // What was noted first is not true any more. If the store is full, a kill before the job's end is in the ledger shows the older one.
        if let Some(params) = self.params.filter(|_| self.noted_first.load(Ordering::Relaxed)) {
            let (key, note) = machine_found::memory_note(self.task, params, &memory);
            let _ = self.host.found.put(&key, &note);
            self.host.found.forget(&key);
        }
        self.notes.lock().unwrap_or_else(|e| e.into_inner()).memory = Some(memory);
    }

    /// As [`Context::remember`], before a change of which nothing on the host would show what it did: an agent that is killed in between
    /// finds it all the same.
    pub(in crate::host) fn remember_first(&self, memory: &impl Serialize) -> Result<(), FoundError> {
        self.remember_value_first(value(memory))
    }

    fn remember_value_first(&self, memory: Value) -> Result<(), FoundError> {
        if let Some(params) = self.params {
            let (key, note) = machine_found::memory_note(self.task, params, &memory);
            self.host.found.put(&key, &note)?;
            // It is of no claim, and in the ledger with the job's end.
            self.host.found.forget(&key);
            self.keep_note(key, None);
        }
        self.notes.lock().unwrap_or_else(|e| e.into_inner()).memory = Some(memory);
        self.noted_first.store(true, Ordering::Relaxed);
        Ok(())
    }

    /// Makes a change that is all or nothing. `memory` is as the change leaves it, and noted first; what was noted before counts again
    /// if the change fails.
    pub(in crate::host) async fn change<T, E: From<FoundError>>(
        &self,
        memory: &impl Serialize,
        change: impl Future<Output = Result<T, E>>,
    ) -> Result<T, E> {
        let before = self.recall();
        self.remember_first(memory)?;
        let result = change.await;
        // A program that was ended because the agent stops may have made the change.
        if result.is_err() && !self.cancel.is_cancelled() {
            self.remember_value(before.unwrap_or_default());
        }
        result
    }

    /// What is noted by now: in this job, or else when the task was last applied.
    pub(crate) fn recall(&self) -> Option<Value> {
        let noted = self.notes.lock().unwrap_or_else(|e| e.into_inner()).memory.clone();
        noted.or_else(|| self.memory().cloned()).filter(|memory| !memory.is_null())
    }

    /// Notes that applying changed nothing after all, so that no trigger fires.
    pub(crate) fn nothing_changed(&self) {
        self.idle.store(true, Ordering::Relaxed);
    }

    /// Notes that a greater effect than the one that was due was carried out: a restart, where a reload was not possible.
    pub(crate) fn carried_out(&self, effect: Effect) {
        *self.instead.lock().unwrap_or_else(|e| e.into_inner()) = Some(effect);
    }

    /// The effect that was carried out when `due` was.
    pub(crate) fn effect_of(&self, due: Effect) -> Effect {
        self.instead.lock().unwrap_or_else(|e| e.into_inner()).unwrap_or(due).max(due)
    }

    /// Whether applying changed nothing.
    pub(crate) fn is_idle(&self) -> bool {
        self.idle.load(Ordering::Relaxed)
    }

    /// Notes that the job changes something on the host from here on, so that the task has something to remove even if it fails.
    pub(crate) fn changing(&self) {
        self.touched.store(true, Ordering::Relaxed);
    }

    /// Notes a change by what writing has come to: a file that could not be written is as it was.
    pub(in crate::host) fn wrote<T>(&self, result: Result<T, FileError>) -> Result<T, FileError> {
        if result.as_ref().err().is_none_or(FileError::is_after_change) {
            self.changing();
        }
        result
    }

    /// Whether the job may have changed anything on the host.
    pub(crate) fn has_touched(&self) -> bool {
        self.touched.load(Ordering::Relaxed)
    }

    /// Publishes `value` to the planner, in place of what the task published before.
    pub(crate) fn publish(&self, value: String) {
        self.notes.lock().unwrap_or_else(|e| e.into_inner()).export = Some(value);
    }

    /// Has the note of a claim kept in the ledger, or dropped there.
    pub(in crate::host) fn keep_note(&self, key: String, found: Option<Found>) {
        self.notes.lock().unwrap_or_else(|e| e.into_inner()).found.push((key, found));
    }

    /// Another task that has the same claim, if there is one: then what is claimed must be left in place.
    pub(crate) fn held_by_another(&self, claim: &Claim<'_>) -> Option<TaskId> {
        self.host.claims.held_by_another(claim, self.task, self.yielding)
    }

    /// The same, apart from the tasks that hand over to this one: they have it until their removal, which comes last.
    pub(crate) fn held_by_a_third(&self, claim: &Claim<'_>) -> Option<TaskId> {
        self.host.claims.held_by_any_but(claim, self.task, self.others)
    }

    /// Whether what is at `path`, if it is no link, is there because of this task, or of another one that is about to be removed.
    pub(crate) fn has_put(&self, path: &str) -> bool {
        let claim = Claim::path(path);
        let is_link = |params: &TaskParams| matches!(params, TaskParams::Link(_));
        let mut is_own = false;
        if let Some(previous) = self.previous.filter(|previous| !is_link(previous)) {
            previous.claims(self.task, &mut |stated| is_own |= stated.claim == claim);
        }
        is_own || self.held_by_another(&claim).is_some()
    }

    /// Puts what a program printed into the report, in place of what is in it.
    pub(crate) fn print(&self, output: Option<Output>) {
        if output.is_some() {
            *self.output.lock().unwrap_or_else(|e| e.into_inner()) = output;
        }
    }

    /// Adds a line to the report.
    pub(crate) fn report(&self, line: &str) {
        let mut output = self.output.lock().unwrap_or_else(|e| e.into_inner());
        let output = output.get_or_insert_default();
        let text = if output.omitted > 0 { &mut output.tail } else { &mut output.head };
        if !text.is_empty() && !text.ends_with('\n') {
            text.push('\n');
        }
        text.push_str(line);
        text.push('\n');
    }

    /// Reports why something was left in place; returns whether anything was removed.
    pub(in crate::host) fn removed(&self, removed: Removal) -> bool {
        if let Removal::Left(why) = &removed {
            self.report(why);
        }
        removed == Removal::Removed
    }

    /// What is to be reported, and what is to be kept.
    pub(crate) fn into_results(self) -> (Option<Output>, Notes) {
        let output = self.output.into_inner().unwrap_or_else(|e| e.into_inner());
        (output, self.notes.into_inner().unwrap_or_else(|e| e.into_inner()))
    }
}

fn value(memory: &impl Serialize) -> Value {
    serde_json::to_value(memory).unwrap_or_default()
}

/// The content that a task ships. A check needs only its digest: a drift check has no bytes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Shipped<'a> {
    pub(crate) sum: Sum,
    bytes: Option<&'a Content>,
}

impl<'a> Shipped<'a> {
    /// Content that is at hand.
    pub(crate) fn new(bytes: &'a Content, sum: Sum) -> Self {
        Self { sum, bytes: Some(bytes) }
    }

    /// Content that was shipped with an earlier plan.
    pub(crate) fn named(sum: Sum) -> Self {
        Self { sum, bytes: None }
    }

    /// The bytes, to be written to a file.
    pub(crate) fn bytes(&self) -> Result<&'a Content, HostError> {
        self.bytes.ok_or(HostError::NoContent)
    }
}
