//! Ends of tasks: what they leave applied, which triggers they fire, whom they let go and whom they block.
//!
//! In: a job's result. Out: an outcome, a report, and changes for the next transaction, all of them together. A task that
//! was begun and did not end well leaves its record in doubt, so that neither the change nor its triggers are lost.

use groundplan_protocol::{
    effect::Action,
    ids::{Generation, TaskId},
    plan::{PlannedTask, TriggerSource},
    report::{Outcome, Output, TaskReport},
    time::Now,
};

use serde_json::Value;

use super::{JobDone, JobOutcome, Machine, Record, Running, run::without_bytes, state::fingerprint_in_doubt};

/// When something ran, and what it printed.
#[derive(Debug, Default)]
pub(super) struct Account {
    pub(super) started_ms: u64,
    pub(super) duration_ms: u64,
    pub(super) output: Option<Output>,
}

impl Account {
    pub(super) fn at(now: Now) -> Self {
        Self { started_ms: now.wall_ms, ..Self::default() }
    }
}

impl Machine {
    /// Takes the result of a job.
    pub(super) fn finished(&mut self, done: JobDone, now: Now) {
        let Some(run) = self.running.remove(&done.task) else { return };
        let account = Account { started_ms: done.started_ms, duration_ms: done.duration_ms, output: done.output };
        let (adopted, carried) = self.left_before(&run);
        let applies = !run.only_effect;
        let outcome = match done.result {
            Ok(did) => Outcome::Done {
                changed: did.changed || carried || adopted.changed || (applies && run.in_doubt),
                effect: did.effect.or(adopted.effect),
            },
            Err(error) => Outcome::Failed { error },
        };
        if outcome.is_success() {
            self.record(&run.planned);
            self.met(&done.task, run.effect, run.again);
        } else if applies {
            self.doubt(&run.planned);
        }
        self.note(&done.task, done.memory, done.export);
        self.report(run.generation, &run.planned, outcome.clone(), account);
        match run.at {
            Some(at) => {
                if let (Some(effect), Some(current), true) = (run.effect, &mut self.current, outcome.is_success()) {
                    current.met.insert(done.task.clone(), effect);
                }
                self.conclude(at, outcome, now);
            }
            None => self.conclude_superseded(&run, &outcome),
        }
    }

    /// What a run for an earlier plan left to this one.
    fn left_before(&self, run: &Running) -> (JobOutcome, bool) {
        let node = run.at.and_then(|at| Some(self.current.as_ref()?.queue.get(at)));
        node.map_or_else(Default::default, |node| (node.adopted.unwrap_or_default(), node.carried))
    }

    /// A task ends without having been run.
    pub(super) fn end_without_job(&mut self, at: usize, outcome: Outcome, now: Now) {
        let Some(current) = &self.current else { return };
        let planned = current.queue.get(at).planned.clone();
        let generation = current.generation;
        if outcome.is_success() {
            self.record(&planned);
        }
        self.report(generation, &planned, outcome.clone(), Account::at(now));
        self.conclude(at, outcome, now);
    }

    /// Records what a successful end leaves applied.
    fn record(&mut self, planned: &PlannedTask) {
        let task = &planned.task;
        match (planned.action, &planned.spec, planned.fingerprint) {
            (Action::Create | Action::Update, Some(spec), Some(fingerprint)) => {
                let before = self.applied.remove(task);
                let (memory, export) = before.map_or((None, None), |before| (before.memory, before.export));
                let record = Record {
                    spec: without_bytes(spec),
                    fingerprint,
                    inputs: planned.inputs.clone(),
                    edges: planned.edges.clone(),
                    in_doubt: false,
                    memory,
                    export,
                };
                self.applied.insert(task.clone(), record);
                self.dirty.applied.insert(task.clone());
            }
            (Action::Remove, ..) => {
                self.applied.remove(task);
                self.dirty.applied.insert(task.clone());
                self.forget_owed(task);
            }
            _ => {
                if let Some(record) = self.applied.get_mut(task).filter(|r| r.edges != planned.edges) {
                    record.edges = planned.edges.clone();
                    self.dirty.applied.insert(task.clone());
                }
            }
        }
    }

    /// Takes what a job leaves that was ended because the agent stops.
    pub(super) fn cut_off(&mut self, done: JobDone) {
        let Some(run) = self.running.get(&done.task).filter(|_| done.memory.is_some()) else { return };
        let applies = matches!(run.planned.action, Action::Create | Action::Update) && !run.only_effect;
        let planned = run.planned.clone();
        if applies {
            self.doubt(&planned);
        }
        self.note(&done.task, done.memory, None);
    }

    /// Records what a job left to be kept, however it ended.
    fn note(&mut self, task: &TaskId, memory: Option<Value>, export: Option<String>) {
        let Some(record) = self.applied.get_mut(task).filter(|_| memory.is_some() || export.is_some()) else { return };
        record.memory = memory.or(record.memory.take());
        record.export = export.or(record.export.take());
        self.dirty.applied.insert(task.clone());
    }

    /// Records that nobody knows what is there.
    pub(super) fn doubt(&mut self, planned: &PlannedTask) {
        let task = &planned.task;
        match (self.applied.get_mut(task), planned.action, &planned.spec, planned.fingerprint) {
            (Some(record), ..) => record.in_doubt = true,
            (None, Action::Create | Action::Update, Some(spec), Some(fingerprint)) => {
                let record = Record {
                    spec: without_bytes(spec),
                    fingerprint,
                    inputs: planned.inputs.clone(),
                    edges: planned.edges.clone(),
                    in_doubt: true,
                    memory: None,
                    export: None,
                };
                self.applied.insert(task.clone(), record);
            }
            _ => return,
        }
        self.dirty.applied.insert(task.clone());
    }

    /// Numbers a report of an outcome.
    pub(super) fn report(&mut self, generation: Generation, planned: &PlannedTask, outcome: Outcome, account: Account) {
        let record = self.applied.get(&planned.task);
        let fingerprint = record.map(|r| if r.in_doubt { fingerprint_in_doubt(r) } else { r.fingerprint });
        let succeeded = outcome.is_success();
        self.reports.push(TaskReport {
            generation,
            task: planned.task.clone(),
            action: planned.action,
            outcome,
            fingerprint,
            started_ms: account.started_ms,
            duration_ms: account.duration_ms,
            output: account.output,
            export: record.and_then(|r| r.export.clone()).filter(|_| succeeded),
        });
    }

    /// Gives a task of the current plan its outcome, and those after it theirs where it decides them.
    pub(super) fn conclude(&mut self, at: usize, outcome: Outcome, now: Now) {
        let mut ended = vec![(at, outcome)];
        while let Some((at, outcome)) = ended.pop() {
            let Some(current) = &mut self.current else { return };
            let generation = current.generation;
            let task = current.queue.get(at).planned.task.clone();
            let (success, fires) = (outcome.is_success(), outcome.fires());
            self.dirty.done.push((task.clone(), outcome.clone()));
            let dependants = current.queue.finish(at, outcome);
            let source = TriggerSource::Task(task.clone());
            for d in dependants {
                let Some(current) = &self.current else { return };
                let node = current.queue.get(d);
                let dependant = node.planned.task.clone();
                if success {
                    self.decide(&dependant, &source, fires);
                } else if node.outcome().is_none() && !ended.iter().any(|(other, _)| *other == d) {
                    let planned = node.planned.clone();
                    let blocked = Outcome::Blocked { by: task.clone() };
                    self.report(generation, &planned, blocked.clone(), Account::at(now));
                    ended.push((d, blocked));
                }
            }
        }
    }

    /// A run for an earlier plan has ended: lets go what waits for it in this one.
    fn conclude_superseded(&mut self, run: &Running, outcome: &Outcome) {
        let task = &run.planned.task;
        let source = TriggerSource::Task(task.clone());
        if outcome.fires() {
            self.fire_early(&source);
        }
        for &at in &run.waiting {
            let Some(current) = &mut self.current else { return };
            let node = current.queue.get_mut(at);
            let waiting = node.planned.task.clone();
            if waiting == *task {
                node.carried |= outcome.fires();
                let same = node.planned.fingerprint == run.planned.fingerprint
                    && (node.planned.action == Action::Remove) == (run.planned.action == Action::Remove);
                // Only the effect was seen to: whatever the newer plan applies is still to do.
                let covered = !run.only_effect || node.planned.action == run.planned.action;
                if let (Outcome::Done { changed, effect }, true, true) = (outcome, same, covered) {
                    node.adopted = Some(JobOutcome { changed: *changed, effect: *effect });
                }
                let applies = !matches!(node.planned.action, Action::Restart | Action::Reload | Action::Run);
                let planned = node.planned.clone();
                current.queue.release(at);
                if applies && outcome.fires() {
                    // Until its own end: what comes after it in this plan is to hear of the change even over a crash.
                    self.doubt(&planned);
                }
                continue;
            }
            let covered = node.planned.triggers.iter().any(|t| t.on == source);
            current.queue.release(at);
            let again = current.queue.find(task).is_some_and(|at| current.queue.get(at).outcome().is_none());
            if !covered && !again {
                self.decide(&waiting, &source, outcome.fires());
            }
        }
    }
}
