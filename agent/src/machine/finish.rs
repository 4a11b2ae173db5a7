//! Ends of tasks: what they leave applied, which triggers they fire, which tasks they release and which they block.
//!
//! In: a job's result. Out: an outcome, a report, and changes for the next transaction, all of them together. A task that
//! was begun and did not end well leaves its record in doubt, so that neither the change nor its triggers are lost.

use groundplan_protocol::{
    effect::Action,
    ids::{Generation, TaskId},
    plan::{PlannedTask, TriggerSource},
    report::{Outcome, TaskReport},
    time::Now,
};
use serde_json::Value;

use super::{
    account::Account,
    found::{self, Found},
    io::{JobDone, JobOutcome},
    node_state::fingerprint,
    snapshot::{Fulfilled, Record},
    state::{Machine, Running},
    take_over,
};

impl Machine {
    /// Takes the result of a job.
    pub(super) fn finished(&mut self, done: JobDone, now: Now) {
        let Some(run) = self.running.remove(&done.task) else { return };
        let account = Account { started_ms: done.started_ms, duration_ms: done.duration_ms, output: done.output };
        let (adopted, carried_change) = self.left_by_earlier_run(&run);
        let applies = !run.only_effect;
        let outcome = match done.result {
            Ok(did) => Outcome::Done {
                // A record in doubt may hide a change whose triggers did not fire: they fire now.
                changed: did.changed || carried_change || adopted.changed || (applies && run.in_doubt),
                effect: did.effect.or(adopted.effect),
            },
            Err(error) => Outcome::Failed { error: self.explained(&run, error) },
        };
        // Before the record is another one, and what was to be taken over is.
        let takings = self.takings.get(&done.task).map_or(&[][..], Vec::as_slice);
        let handed = take_over::memory(&self.applied, takings, &run.planned).filter(|_| applies);
        if applies && !matches!(outcome, Outcome::Done { changed: false, .. }) {
            self.overtake(&run.planned);
        }
        if outcome.is_success() {
            self.record(&run.planned);
            self.taken(&run.planned, run.generation);
            self.fulfil(&done.task, run.effect, run.fired_since);
            self.note_fulfilled(&run);
        } else if applies {
            self.doubt_begun(&run.planned, run.generation);
            self.note_touched(&run, done.touched);
        }
        // Also after a failure: what the task found before it changed anything is not found again. What others hand over to it is
        // found there until they are carried out, and then nowhere else.
        let is_of_taking = self.note_of_taking(&run.planned, done.memory.as_ref());
        let memory = done.memory.or(handed).filter(|_| !is_of_taking);
        self.note(&done.task, memory, done.export);
        self.handed_over_late(&run);
        self.note_found(done.found);
        if self.tries_again(&run, &outcome, now) {
            return;
        }
        let outcome = self.counted(&run, outcome);
        self.report(run.generation, &run.planned, outcome.clone(), account.clone());
        match run.at {
            Some(at) => self.conclude(at, outcome, now),
            None => self.conclude_superseded(&run, &outcome, &account),
        }
    }

    /// The error of a job, with what to do about it where no newer commit can: a removal depends on the host alone.
    fn explained(&self, run: &Running, error: String) -> String {
        let PlannedTask { task, action, .. } = &run.planned;
        match action {
            Action::Remove => {
                let node = &self.settings.node;
                format!(
                    "{error}; repair that on the host, and the next plan tries the removal again, or drop the record: \
                     groundplan forget {node} {task}"
                )
            }
            _ => error,
        }
    }

    /// How often the task of a run has been tried in the active plan, this time included; none if a newer plan came.
    fn attempts(&self, run: &Running) -> Option<u32> {
        let node = self.active.as_ref()?.queue.get(run.at?);
        Some(node.failed.as_ref().map_or(0, |(failed, _)| *failed) + 1)
    }

    /// A failure after several attempts says how many there were.
    fn counted(&self, run: &Running, outcome: Outcome) -> Outcome {
        match (outcome, self.attempts(run)) {
            (Outcome::Failed { error }, Some(attempts @ 2..)) => {
                Outcome::Failed { error: format!("{error} (attempt {attempts})") }
            }
            (outcome, _) => outcome,
        }
    }

    /// Whether a task that has failed is tried again. It stays in the plan then as if it had not been started: what it has changed is on
    /// record, and what comes after it waits on.
    fn tries_again(&mut self, run: &Running, outcome: &Outcome, now: Now) -> bool {
        let (Outcome::Failed { error }, Some(at), Some(retry)) = (outcome, run.at, run.planned.retry) else {
            return false;
        };
        let Some(attempts) = self.attempts(run) else { return false };
        let (Some(wait), Some(active)) = (retry.after(attempts), &mut self.active) else { return false };
        active.queue.try_again(at, now.mono + wait, attempts, error.clone());
        self.request_state(now);
        true
    }

    /// Records the effect that a run carried out: a plan that is on its way may still list it as due.
    fn note_fulfilled(&mut self, run: &Running) {
        let (Some(effect), Some(record)) = (run.effect, self.applied.get_mut(&run.planned.task)) else { return };
        record.fulfilled = Some(Fulfilled { generation: run.generation, effect });
        self.unsaved.applied.insert(run.planned.task.clone());
    }

    /// What a run for an earlier plan did for the task of this run.
    fn left_by_earlier_run(&self, run: &Running) -> (JobOutcome, bool) {
        let node = run.at.and_then(|at| Some(self.active.as_ref()?.queue.get(at)));
        node.map_or_else(Default::default, |node| (node.adopted.unwrap_or_default(), node.carried_change))
    }

    /// A task ends without having been run.
    pub(super) fn end_without_job(&mut self, at: usize, outcome: Outcome, now: Now) {
        let Some(active) = &mut self.active else { return };
        let node = active.queue.get_mut(at);
        let (planned, account) = (node.planned.clone(), node.account.take());
        let generation = active.generation;
        if outcome.is_success() {
            self.record(&planned);
            self.taken(&planned, generation);
        }
        self.report(generation, &planned, outcome.clone(), account.unwrap_or_else(|| Account::at(now)));
        self.conclude(at, outcome, now);
    }

    /// Records what a successful end leaves applied.
    fn record(&mut self, planned: &PlannedTask) {
        let task = &planned.task;
        match (planned.action, Record::of(planned)) {
            (_, Some(record)) => {
                let before = self.applied.remove(task);
                let fulfilled = before.as_ref().and_then(|before| before.fulfilled);
                let (memory, export) = before.map_or((None, None), |before| (before.memory, before.export));
                self.applied.insert(task.clone(), Record { memory, export, fulfilled, ..record });
                self.unsaved.applied.insert(task.clone());
            }
            (Action::Remove | Action::Forget, ..) => {
                self.applied.remove(task);
                self.unsaved.applied.insert(task.clone());
                // A removed task has nothing to restart.
                self.forget_obligation(task);
            }
            // A pure effect applies nothing; but its edges may be newer than those of the record.
            _ => {
                if let Some(record) = self.applied.get_mut(task).filter(|r| r.edges != planned.edges) {
                    record.edges = planned.edges.clone();
                    self.unsaved.applied.insert(task.clone());
                }
            }
        }
    }

    /// Takes what a job noted that was ended because the agent stops.
    pub(super) fn aborted(&mut self, done: JobDone) {
        self.note_found(done.found);
        let Some(run) = self.running.get(&done.task).filter(|_| done.memory.is_some()) else { return };
        let applies = matches!(run.planned.action, Action::Create | Action::Update) && !run.only_effect;
        let planned = run.planned.clone();
        if applies {
            // A new task has no record yet, and its memory needs one.
            let generation = run.generation;
            self.doubt_begun(&planned, generation);
        }
        let is_of_taking = self.note_of_taking(&planned, done.memory.as_ref());
        self.note(&done.task, done.memory.filter(|_| !is_of_taking), None);
    }

    /// Records what a job left to be kept, however it ended.
    fn note(&mut self, task: &TaskId, memory: Option<Value>, export: Option<String>) {
        let Some(record) = self.applied.get_mut(task).filter(|_| memory.is_some() || export.is_some()) else { return };
        record.memory = memory.or(record.memory.take());
        record.export = export.or(record.export.take());
        self.unsaved.applied.insert(task.clone());
    }

    /// Records what a job found before it changed anything, and which claims no task has any more.
    fn note_found(&mut self, found: Vec<(String, Option<Found>)>) {
        for (key, found) in found {
            match found {
                // What a task remembers is in its record.
                None if found::is_memory(&key) => continue,
                Some(found) => drop(self.found.insert(key.clone(), found)),
                None => drop(self.found.remove(&key)),
            }
            self.unsaved.found.insert(key);
        }
    }

    /// Records that nothing shows what is on the host: the planner will have it applied again, and that counts as a change.
    pub(super) fn doubt(&mut self, planned: &PlannedTask) {
        let task = &planned.task;
        // What it takes over it may have begun to change: that is its own to remember, because those that hand it over may go first.
        let takings = self.takings.get(task).map_or(&[][..], Vec::as_slice);
        let handed = take_over::memory(&self.applied, takings, planned);
        match (self.applied.get_mut(task), Record::of(planned)) {
            (Some(record), _) => {
                record.in_doubt = true;
                // A removal adds nothing that a later one would have to remove.
                record.touched |= !removes(planned.action);
            }
            (None, Some(record)) => {
                self.applied.insert(task.clone(), Record { in_doubt: true, memory: handed, ..record });
            }
            _ => return,
        }
        self.unsaved.applied.insert(task.clone());
    }

    /// The same of a job that may have begun.
    pub(super) fn doubt_begun(&mut self, planned: &PlannedTask, generation: Generation) {
        self.attempt(planned, generation);
        self.doubt(planned);
    }

    /// Corrects what [`Machine::doubt_begun`] assumed about a job of which no end was known: this one has ended, and failed.
    fn note_touched(&mut self, run: &Running, touched: bool) {
        if !touched && !run.attempted {
            self.drop_attempt(&run.planned);
        }
        if let Some(record) = self.applied.get_mut(&run.planned.task) {
            record.touched = run.touched || touched;
        }
    }

    /// Numbers a report of an outcome.
    pub(super) fn report(&mut self, generation: Generation, planned: &PlannedTask, outcome: Outcome, account: Account) {
        let taking = self.takings.get(&planned.task).and_then(|takings| takings.last());
        let record = self.applied.get(&planned.task);
        let record = taking.map(|taking| &taking.record).or(record);
        let fingerprint = record.map(fingerprint);
        let succeeded = outcome.is_success();
        let active = self.active.as_ref().filter(|active| active.generation == generation);
        let plan = active.map(|active| active.digest.short());
        self.outbox.push(TaskReport {
            generation,
            plan,
            task: planned.task.clone(),
            action: planned.action,
            outcome,
            fingerprint,
            claims: self.claims_of(&planned.task),
            contends: record.map(|r| r.spec.contends(&planned.task)).unwrap_or_default(),
            started_ms: account.started_ms,
            duration_ms: account.duration_ms,
            output: account.output,
            export: record.and_then(|r| r.export.clone()).filter(|_| succeeded),
        });
    }

    /// Gives a task of the active plan its outcome, and those after it theirs where it decides them.
    pub(super) fn conclude(&mut self, at: usize, outcome: Outcome, now: Now) {
        // A list of its own instead of recursion: a chain of blocked tasks may be as long as the plan.
        let mut ended = vec![(at, outcome)];
        while let Some((at, outcome)) = ended.pop() {
            let Some(active) = &mut self.active else { return };
            let generation = active.generation;
            let task = active.queue.get(at).planned.task.clone();
            let (success, fires) = (outcome.is_success(), outcome.fires());
            self.unsaved.done.push((task.clone(), outcome.clone()));
            let dependants = active.queue.finish(at, outcome);
            if success {
                self.decide_all(&TriggerSource::Task(task), fires);
                continue;
            }
            for d in dependants {
                if !self.holds_back(at, d) {
                    if let Some(active) = &mut self.active {
                        active.queue.release(d);
                    }
                    continue;
                }
                let Some(active) = &self.active else { return };
                let node = active.queue.get(d);
                if node.outcome().is_none() && !ended.iter().any(|(other, _)| *other == d) {
                    // Its triggers stay open: the obligation survives until a plan in which it can run. A task after two
                    // failed ones is blocked once.
                    let planned = node.planned.clone();
                    let blocked = Outcome::Blocked { by: task.clone() };
                    self.report(generation, &planned, blocked.clone(), Account::at(now));
                    ended.push((d, blocked));
                }
            }
        }
    }

    /// A run for an earlier plan has ended: releases what waits for it in the active one.
    ///
    /// Two sorts of tasks wait: the same task in the newer plan, and tasks that the run may still trigger by edges of the earlier
    /// plan.
    fn conclude_superseded(&mut self, run: &Running, outcome: &Outcome, account: &Account) {
        let task = &run.planned.task;
        let source = TriggerSource::Task(task.clone());
        if outcome.fires() {
            // Before anything is released: a task that starts now must carry out what this change caused. The source stays
            // open, because the newer plan may run the same task once more.
            self.fire_early(&source);
        }
        for &at in &run.waiting {
            let Some(active) = &mut self.active else { return };
            let node = active.queue.get_mut(at);
            let waiting = node.planned.task.clone();
            if waiting == *task {
                // The newer plan has the same task. Its triggers in that plan count this change as its own.
                node.carried_change |= outcome.fires();
                // The run did the newer plan's work if it ended at the same fingerprint, both or neither being a removal: then
                // running it again would only cost a restart.
                let same = node.planned.fingerprint == run.planned.fingerprint
                    && removes(node.planned.action) == removes(run.planned.action);
                // A run that only carried out an effect applied nothing: what the newer plan applies is still to be done.
                let covered = !run.only_effect || node.planned.action == run.planned.action;
                if let (Outcome::Done { changed, effect }, true, true) = (outcome, same, covered) {
                    node.adopted = Some(JobOutcome { changed: *changed, effect: *effect });
                    node.account = Some(account.clone());
                }
                let applies = matches!(node.planned.action, Action::Create | Action::Update | Action::Remove);
                let planned = node.planned.clone();
                active.queue.release(at);
                if applies && outcome.fires() {
                    // In doubt until the newer plan's task ends: after a crash in between, its end still counts as a change, and
                    // fires the triggers that this plan has on it.
                    self.doubt(&planned);
                }
                continue;
            }
            // Another task: it waited because an edge of the earlier plan may trigger it.
            let covered = node.planned.triggers.iter().any(|t| t.on == source);
            active.queue.release(at);
            let again = active.queue.find(task).map(|at| active.queue.get(at)).filter(|node| node.outcome().is_none());
            let (runs_again, inherited) = (again.is_some(), again.is_some_and(|node| node.inherited));
            // Where the newer plan has the edge, or the source is carried out for an obligation of earlier plans, the source's end there
            // decides, and the target comes after it. Otherwise the edge is of the earlier plan alone: it is decided now, because nothing
            // has the target wait for what the newer plan does to the source, and an effect that fires after the target's end is carried
            // out by nothing. A failed run may have changed something; if the newer plan runs the source again, no later plan brings
            // that up.
            if !covered && !inherited {
                let may_have_fired = outcome.fires() || !outcome.is_success() && runs_again;
                self.decide(&waiting, &source, may_have_fired);
            }
        }
    }
}

/// Whether an action leaves nothing applied.
fn removes(action: Action) -> bool {
    matches!(action, Action::Remove | Action::Forget)
}
