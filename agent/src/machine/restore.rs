//! The machine after a start: what the ledger and the journal say, taken together.
//!
//! In: a snapshot. Out: a machine, and what it must write before anything else. A task that the journal says was started
//! and the ledger does not say ended is in doubt: it runs again, and counts as changed when it is found "already so". After
//! a power loss the journal proves nothing, and every task that could have started is in doubt; not so where the agent
//! came to an end of its own before, and said that all is on the disk.

use std::collections::BTreeSet;

use groundplan_protocol::{
    effect::Action,
    ids::{Sequence, TaskId},
    plan::{NodePlan, OnInterrupt, PlannedTask, TriggerSource},
    report::Outcome,
    time::Now,
};

use super::{
    Current, Dirty, Due, Effect, Facts, Machine, Settings, Snapshot, StoredPlan, Write, accept::distinct_blobs,
    finish::Account, queue::Queue, reports::Reports,
};

/// In place of a boot's name: all that was written is on the disk, the journal included.
pub const SYNCED: &str = "synced";

/// The ledger holds a plan that this program cannot read.
#[derive(Debug, thiserror::Error)]
#[error("the plan in the ledger cannot be read; was it written by a newer agent?")]
pub struct UnreadablePlan(#[source] serde_json::Error);

impl Machine {
    /// Takes up where the ledger left off. The first `Tick` starts tasks.
    pub fn restore(settings: Settings, snapshot: Snapshot, now: Now) -> Result<(Self, Vec<Effect>), UnreadablePlan> {
        let Snapshot { ledger, epoch, boot, plan, done, applied, obligations, sequence, acked, outputs, started } =
            snapshot;
        let same_boot = boot.as_ref().is_some_and(|boot| *boot == settings.boot || boot == SYNCED);
        let mut machine = Self {
            settings,
            ledger,
            epoch: epoch + 1,
            revision: 0,
            current: None,
            early: None,
            applied,
            obligations,
            running: Default::default(),
            dirty: Dirty::default(),
            journal: !started.is_empty(),
            reports: Reports::new(sequence, acked.max(Sequence(0)), outputs),
            announced: Vec::new(),
            due: Due::default(),
            last_state: None,
            connected: false,
            told: false,
            stopping: false,
            stopped: false,
            refused: None,
            ignored: 0,
            facts: Facts::new(),
        };
        let mut out = Vec::new();
        if let Some(StoredPlan { generation, commit, digest, json }) = plan {
            let tasks = match &json {
                Some(json) => serde_json::from_slice::<NodePlan>(json).map_err(UnreadablePlan)?.tasks,
                None => Vec::new(),
            };
            let met = done.iter().filter_map(|(task, outcome)| match outcome {
                Outcome::Done { effect: Some(effect), .. } => Some((task.clone(), *effect)),
                _ => None,
            });
            let mut current = Current {
                generation,
                commit,
                digest,
                queue: Queue::default(),
                missing: BTreeSet::new(),
                met: met.collect(),
                kept: json.is_some(),
            };
            if current.kept {
                machine.fire_unknown(&tasks);
                tasks.into_iter().for_each(|planned| {
                    current.queue.push(planned, false);
                });
                machine.add_own(&mut current.queue);
            }
            let ended: Vec<_> = done.into_iter().filter_map(|(t, o)| Some((current.queue.find(&t)?, o))).collect();
            for (at, outcome) in ended {
                current.queue.finish(at, outcome);
            }
            let left: Vec<&PlannedTask> =
                current.queue.iter().filter(|n| n.outcome().is_none()).map(|n| &n.planned).collect();
            let blobs = distinct_blobs(left.into_iter());
            current.missing = blobs.iter().map(|b| b.sha256).collect();
            out.push(Effect::KeepBlobs(current.missing.iter().copied().collect()));
            if !blobs.is_empty() {
                out.push(Effect::Fetch(blobs));
            }
            machine.current = Some(current);
            let marks = started.into_iter().filter(|(g, _)| *g == generation).map(|(_, task)| task).collect();
            machine.doubt_started(&marks, same_boot, now);
        }
        let mut writes = vec![Write::Epoch(machine.epoch), Write::Boot(machine.settings.boot.clone())];
        machine.take_dirt(&mut writes);
        let mut first = vec![Effect::Persist { writes, durable: true }];
        machine.reports.persisted(false, now, &mut first);
        if machine.journal {
            machine.journal = false;
            first.push(Effect::ResetJournal);
        }
        first.append(&mut out);
        Ok((machine, first))
    }

    /// Obligations that waited for a run which the crash ended, in none of the plan's own edges: it may have changed things.
    fn fire_unknown(&mut self, tasks: &[PlannedTask]) {
        let mut unknown = Vec::new();
        for (task, owed) in &self.obligations {
            let planned = tasks.iter().find(|p| p.task == *task);
            for (source, _) in &owed.open {
                let covered = planned.is_some_and(|p| p.triggers.iter().any(|t| t.on == *source));
                let own = |s: &TaskId| !tasks.iter().any(|p| p.task == *s) && self.fired(s).is_some();
                if matches!(source, TriggerSource::Task(s) if !own(s)) && !covered {
                    unknown.push((task.clone(), source.clone()));
                }
            }
        }
        for (task, source) in unknown {
            self.decide(&task, &source, true);
        }
    }

    /// Puts in doubt what was started, or may have been, and has no outcome.
    fn doubt_started(&mut self, marks: &BTreeSet<TaskId>, same_boot: bool, now: Now) {
        let Some(current) = &self.current else { return };
        let generation = current.generation;
        let order: Vec<TaskId> = current.queue.iter().map(|n| n.planned.task.clone()).collect();
        for task in order {
            let Some(current) = &self.current else { return };
            let Some(at) = current.queue.find(&task) else { continue };
            let node = current.queue.get(at);
            let marked = marks.contains(&task);
            if node.outcome().is_some() || (same_boot && !marked) {
                continue;
            }
            let planned = node.planned.clone();
            let applies = matches!(planned.action, Action::Create | Action::Update | Action::Remove);
            if !applies && self.fired(&task).is_none() {
                continue;
            }
            if applies {
                self.doubt(&planned);
            }
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

/// The policy of a task that cannot find out by itself how far it came.
fn unchecked(planned: &PlannedTask) -> Option<OnInterrupt> {
    let spec = planned.spec.as_ref()?;
    (!spec.params.can_check()).then_some(spec.on_interrupt)
}
