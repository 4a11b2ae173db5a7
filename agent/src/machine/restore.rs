//! The machine after a start: what the ledger and the journal hold, taken together.
//!
//! In: a snapshot. Out: a machine, and what it must write before anything else. A task that the journal names as started and
//! that has no outcome in the ledger is in doubt: it runs again, and counts as changed even if its check finds it in sync. The
//! journal is not synced to the disk, so after a power loss it proves nothing, and every task that could have started is in
//! doubt; unless the agent ended by itself before and recorded that all is on the disk.

use std::collections::{BTreeMap, BTreeSet};

use groundplan_protocol::{
    effect::Action,
    ids::{Sequence, TaskId},
    kinds::TaskParams,
    plan::{NodePlan, OnInterrupt, PlannedTask, TriggerSource},
    report::Outcome,
    time::Now,
};
use serde_json::Value;

use super::{
    accept::distinct_blobs,
    account::Account,
    found::{self, Found},
    io::{Effect, Facts, Settings},
    outbox::Outbox,
    queue::Queue,
    snapshot::{Snapshot, StoredPlan, Write},
    state::{ActivePlan, Due, Machine, Unsaved},
    take_over::is_same,
};

/// In place of a boot's name: all that was written is on the disk, the journal included.
pub const SYNCED: &str = "synced";

/// The ledger holds a plan that this program cannot read.
#[derive(Debug, thiserror::Error)]
#[error("the plan in the ledger cannot be read; was it written by a newer agent?")]
pub struct UnreadablePlan(#[source] serde_json::Error);

impl Machine {
    /// Continues where the ledger left off. The first `Tick` starts tasks.
    ///
    /// # Errors
    /// If the stored plan cannot be read.
    pub fn restore(settings: Settings, snapshot: Snapshot, now: Now) -> Result<(Self, Vec<Effect>), UnreadablePlan> {
        let Snapshot { ledger, epoch, boot, plan, done, applied, takings, obligations, found, noted, .. } = snapshot;
        let (sequence, acked, outputs, started) =
            (snapshot.sequence, snapshot.acked, snapshot.outputs, snapshot.started);
        let same_boot = boot.as_ref().is_some_and(|boot| *boot == settings.boot || boot == SYNCED);
        let mut machine = Self {
            settings,
            ledger,
            epoch: epoch + 1,
            revision: 0,
            active: None,
            early_gates: None,
            applied,
            takings_changed: !takings.is_empty(),
            takings,
            obligations,
            found,
            running: Default::default(),
            unsaved: Unsaved::default(),
            journal_used: !started.is_empty() || !noted.is_empty(),
            outbox: Outbox::new(sequence, acked.max(Sequence(0)), outputs),
            announced: Vec::new(),
            due: Due::default(),
            last_state: None,
            connected: false,
            state_published: false,
            stopping: false,
            stopped: false,
            refused: None,
            ignored: 0,
            degraded: Default::default(),
            facts: Facts::new(),
        };
        let mut out = Vec::new();
        machine.promise(&mut out);
        let mut open = BTreeSet::new();
        if let Some(plan) = plan {
            let generation = plan.generation;
            machine.restore_plan(plan, done, &mut out)?;
            // Before some of them are given up. Of an effect nothing is in doubt but what its task remembers.
            let left = machine.active.iter().flat_map(|active| active.queue.iter()).filter(|n| n.outcome().is_none());
            open.extend(left.map(|node| node.planned.task.clone()));
            // Marks of an older plan do not count: what it ran was put in doubt in the ledger in the transaction that accepted this one.
            let marks = started.into_iter().filter(|(g, _)| *g == generation).map(|(_, task)| task).collect();
            machine.doubt_started(&marks, same_boot, now);
            // No planner gives such a generation, and none could follow it: an agent of before has been led to take it. What was begun is in
            // doubt by now, so that the next plan has it again.
            machine.active.take_if(|active| !active.generation.is_valid());
        }
        machine.restore_found(noted, &open);
        // The doubts are in the ledger before the journal that they come from is emptied, and before anything starts.
        let mut writes = vec![Write::Epoch(machine.epoch), Write::Boot(machine.settings.boot.clone())];
        machine.take_unsaved(&mut writes);
        let mut first = vec![Effect::Persist { writes, durable: true }];
        machine.outbox.persisted(false, now, &mut first);
        if machine.journal_used {
            machine.journal_used = false;
            first.push(Effect::ResetJournal);
        }
        first.append(&mut out);
        Ok((machine, first))
    }

    /// Takes over the notes of jobs whose end the ledger does not have, drops those of claims that no task has, and notes where nothing
    /// shows what was there: there, nothing may be taken for what was found that a task may have made. `open`: the tasks of the plan that have
    /// no outcome.
    fn restore_found(&mut self, noted: Vec<(String, Found)>, open: &BTreeSet<TaskId>) {
        for (key, found) in noted {
            if let Some((task, params, memory)) = found::memory_of(&key, &found) {
                self.restore_memory(&task, &params, memory, open.contains(&task));
                continue;
            }
            self.unsaved.found.insert(key.clone());
            self.found.insert(key, found);
        }
        let (mut claimed, mut has_archives) = (BTreeSet::new(), false);
        for (task, record) in &self.applied {
            has_archives |= matches!(record.spec.params, TaskParams::Archive(_));
            found::keys(&record.spec.params, task, &mut |key| {
                // Of what no job has touched nothing is the task's own.
                if record.touched && !self.found.contains_key(&key) {
                    let found = if record.in_doubt { Found::Unknown } else { Found::Unrecorded };
                    self.found.insert(key.clone(), found);
                    self.unsaved.found.insert(key.clone());
                }
                claimed.insert(key);
            });
            found::shared_keys(&record.spec.params, task, &mut |key| _ = claimed.insert(key));
        }
        for (task, taking) in self.takings.iter().flat_map(|(task, takings)| takings.iter().map(move |t| (task, t))) {
            has_archives |= matches!(taking.record.spec.params, TaskParams::Archive(_));
            found::keys(&taking.record.spec.params, task, &mut |key| _ = claimed.insert(key));
        }
        let has_packages = self.applied.values().any(|record| matches!(record.spec.params, TaskParams::Package(_)));
        let is_claimed = |key: &String| {
            claimed.contains(key) || has_packages && found::is_along(key) || has_archives && found::is_replaced(key)
        };
        let unclaimed: Vec<String> = self.found.keys().filter(|key| !is_claimed(key)).cloned().collect();
        for key in unclaimed {
            self.found.remove(&key);
            self.unsaved.found.insert(key);
        }
    }

    /// Takes over what a job noted for its task, if it may have been killed before its end was in the ledger: one that was applied leaves its
    /// task in doubt, and one that only carried out an effect leaves it without an outcome.
    fn restore_memory(&mut self, task: &TaskId, params: &TaskParams, memory: Value, is_open: bool) {
        let mut takings = self.takings.get_mut(task).into_iter().flatten();
        let record = self.applied.get_mut(task).filter(|record| record.in_doubt || is_open);
        if let Some(taking) = takings.find(|taking| taking.record.spec.params == *params) {
            taking.record.memory = Some(memory);
            self.unsaved.takings.insert(task.clone());
        } else if let Some(record) = record.filter(|record| is_same(&record.spec.params, params, task)) {
            record.memory = Some(memory);
            self.unsaved.applied.insert(task.clone());
        }
    }

    /// Makes the stored plan the active one, with its outcomes so far, and asks for the blobs that it still needs.
    fn restore_plan(
        &mut self,
        plan: StoredPlan,
        done: BTreeMap<TaskId, Outcome>,
        out: &mut Vec<Effect>,
    ) -> Result<(), UnreadablePlan> {
        let StoredPlan { generation, commit, digest, issued_ms, receipt, json } = plan;
        // A finished plan has no tasks any more, but its generation and digest still refuse older plans.
        let tasks = match &json {
            Some(json) => serde_json::from_slice::<NodePlan>(json).map_err(UnreadablePlan)?.tasks,
            None => Vec::new(),
        };
        let mut active = ActivePlan {
            generation,
            commit,
            digest,
            issued_ms,
            receipt,
            queue: Queue::default(),
            missing: BTreeSet::new(),
            in_ledger: json.is_some(),
        };
        if active.in_ledger {
            // Before inherited tasks are added: they take over what has fired, and wait only for what is still open.
            self.fire_undecided(&tasks);
            tasks.into_iter().for_each(|planned| {
                active.queue.push(planned, false);
            });
            self.add_inherited(&mut active.queue);
        }
        // All tasks are in the queue before the first is finished: each finds the tasks that come after it.
        let ended: Vec<_> = done.into_iter().filter_map(|(t, o)| Some((active.queue.find(&t)?, o))).collect();
        for (at, outcome) in ended {
            active.queue.finish(at, outcome);
        }
        let left: Vec<&PlannedTask> =
            active.queue.iter().filter(|n| n.outcome().is_none()).map(|n| &n.planned).collect();
        let blobs = distinct_blobs(left.into_iter());
        // All of them count as missing until the blob store, which may have them, reports each.
        active.missing = blobs.iter().map(|b| b.sha256).collect();
        out.push(Effect::KeepBlobs(active.missing.iter().copied().collect()));
        if !blobs.is_empty() {
            out.push(Effect::Fetch(blobs));
        }
        self.active = Some(active);
        Ok(())
    }

    /// Fires open sources of obligations that the plan itself will not decide: they waited for a run, for an earlier plan, which
    /// the crash interrupted. It may have changed things.
    fn fire_undecided(&mut self, tasks: &[PlannedTask]) {
        let mut undecided = Vec::new();
        for (task, obligation) in &self.obligations {
            let planned = tasks.iter().find(|p| p.task == *task);
            for (source, _) in &obligation.open {
                // A trigger of the plan decides it when its source ends.
                let covered = planned.is_some_and(|p| p.triggers.iter().any(|t| t.on == *source));
                // So does an inherited task, which is about to be added to the queue.
                let inherited = |s: &TaskId| !tasks.iter().any(|p| p.task == *s) && self.fired(s).is_some();
                if matches!(source, TriggerSource::Task(s) if !inherited(s)) && !covered {
                    undecided.push((task.clone(), source.clone()));
                }
            }
        }
        for (task, source) in undecided {
            self.decide(&task, &source, true);
        }
    }

    /// Puts in doubt what was started, or may have been, and has no outcome.
    fn doubt_started(&mut self, marks: &BTreeSet<TaskId>, same_boot: bool, now: Now) {
        let Some(active) = &self.active else { return };
        let generation = active.generation;
        let order: Vec<TaskId> = active.queue.iter().map(|n| n.planned.task.clone()).collect();
        for task in order {
            let Some(active) = &self.active else { return };
            let Some(at) = active.queue.find(&task) else { continue };
            let node = active.queue.get(at);
            let marked = marks.contains(&task);
            // In the same boot the journal is complete: what it does not name has not been started.
            if node.outcome().is_some() || (same_boot && !marked) {
                continue;
            }
            let planned = node.planned.clone();
            // A restart that may have happened is repeated without a record; a change that may have been made must be recorded, because
            // its check will find it in sync and it would fire nothing.
            let applies = matches!(planned.action, Action::Create | Action::Update | Action::Remove);
            // A pure effect runs only after its trigger has fired.
            if !applies && self.fired(&task).is_none() {
                continue;
            }
            if applies {
                self.doubt_begun(&planned, generation);
                self.overtake(&planned);
            }
            // What can check itself finds out how far it came when it runs again.
            let Some(policy) = unchecked(&planned) else { continue };
            if marked || policy == OnInterrupt::Fail {
                self.report(generation, &planned, Outcome::Interrupted, Account::at(now));
            }
            if policy == OnInterrupt::Fail {
                self.conclude(at, Outcome::Interrupted, now);
            }
        }
    }
}

/// The policy of a task that cannot check itself, so that nothing shows how far it came.
fn unchecked(planned: &PlannedTask) -> Option<OnInterrupt> {
    let spec = planned.spec.as_ref()?;
    (!spec.params.can_check()).then_some(spec.on_interrupt)
}
