//! Taking a plan: the fence, the checks, and the one transaction that holds all it may come to owe.
//!
//! In: a plan whose envelope held. Out: a refusal with its reason, nothing if it is in force already, or the new state of
//! affairs: what runs goes on and is waited for, what has not begun is superseded, what has fired stays owed.

use std::collections::BTreeSet;

use groundplan_protocol::{
    blob::BlobRef,
    digest::Digest,
    effect::{self, Action},
    ids::{Generation, TaskId},
    plan::{NodePlan, NodePlanRef, PlannedTask, TaskSpec, TriggerSource},
    report::Outcome,
    time::Now,
};

use super::{Current, Effect, Machine, Settings, StoredPlan, Write, finish::Account, queue::Queue};

impl Machine {
    pub(super) fn offer(&mut self, plan: NodePlan, now: Now, out: &mut Vec<Effect>) {
        let generation = plan.generation;
        let json = serde_json::to_vec(&plan).expect("a plan has string keys and serializes without IO");
        let digest = Digest::of(&json);
        let verdict = self.fence(generation, Some(digest)).and_then(|new| {
            if new {
                validate(&plan, &self.settings)?;
            }
            Ok(new)
        });
        match verdict {
            // Who is about to stop leaves it to its successor, to whom it will be sent again.
            Ok(true) if !self.stopping => self.accept(plan, json, digest, now, out),
            Ok(_) => {}
            Err(reason) => self.refuse("plan", Some(generation), reason, now, out),
        }
    }

    pub(super) fn offer_reference(&mut self, reference: NodePlanRef, now: Now, out: &mut Vec<Effect>) {
        let blob = &reference.plan;
        let too_large =
            || format!("the plan is a blob of {}; the limit is {}", size(blob.size), size(self.settings.max_blob));
        let verdict = if reference.node != self.settings.node {
            Err(format!("is for node `{}`", reference.node))
        } else if blob.size > self.settings.max_blob {
            Err(too_large())
        } else {
            self.fence(reference.generation, None)
        };
        match verdict {
            Ok(true) => out.push(Effect::FetchPlan(reference)),
            Ok(false) => {}
            Err(reason) => self.refuse("plan", Some(reference.generation), reason, now, out),
        }
    }

    /// Whether a plan of this generation is new; an error if it may not be taken.
    fn fence(&self, generation: Generation, digest: Option<Digest>) -> Result<bool, String> {
        let Some(current) = &self.current else {
            return if generation == Generation(0) {
                Err("generation 0 means that there is no plan".to_owned())
            } else {
                Ok(true)
            };
        };
        if generation < current.generation {
            return Err(format!("is older than generation {}, which is in force", current.generation));
        }
        if generation == current.generation && digest.is_some_and(|d| d != current.digest) {
            return Err("holds other content than the plan of this generation that is in force".to_owned());
        }
        Ok(generation > current.generation)
    }

    fn accept(&mut self, plan: NodePlan, json: Vec<u8>, digest: Digest, now: Now, out: &mut Vec<Effect>) {
        let NodePlan { generation, commit, tasks, edges, .. } = plan;
        let count = tasks.len();
        let stored = StoredPlan { generation, commit: commit.clone(), digest, json: Some(json) };
        self.supersede(&tasks, now);
        for (task, edges) in edges {
            if let Some(record) = self.applied.get_mut(&task) {
                record.edges = edges;
                self.dirty.applied.insert(task);
            }
        }
        let before = self.current.take();
        let owed_now = |machine: &Self, planned: &PlannedTask| {
            // The plan after the last one may owe what the last one has carried out since the planner looked.
            let next = before.as_ref().filter(|b| b.generation.next() == generation);
            let met = next.and_then(|b| b.met.get(&planned.task).copied());
            let being_met = next.and_then(|_| machine.running.get(&planned.task)?.effect);
            planned.owed.filter(|owed| met.max(being_met) < Some(*owed))
        };
        let blobs = distinct_blobs(tasks.iter());
        let own = self.inherit(&tasks);
        let mut queue = Queue::default();
        for planned in tasks {
            let anew = owed_now(self, &planned);
            if planned.action != Action::Remove {
                self.owe(&planned, anew, |source| matches!(source, TriggerSource::Task(s) if own.contains(s)));
            }
            if let Some(run) = self.running.get_mut(&planned.task) {
                run.again = run.again.max(anew);
            }
            queue.push(planned, false);
        }
        self.add_own(&mut queue);
        self.wait_for_running(&mut queue);
        let mut writes = Vec::new();
        self.take_dirt(&mut writes);
        writes.push(Write::Plan(Box::new(stored)));
        out.push(Effect::Persist { writes, durable: true });
        self.due.flush = None;
        self.reports.persisted(self.connected, now, out);
        if self.journal {
            // What still runs is in doubt in the ledger itself by now.
            self.journal = false;
            out.push(Effect::ResetJournal);
        }
        out.push(Effect::Log(format!("accepted plan {generation} for commit {commit}: {count} tasks")));
        let missing: BTreeSet<Digest> = blobs.iter().map(|b| b.sha256).collect();
        out.push(Effect::KeepBlobs(missing.iter().copied().collect()));
        if !blobs.is_empty() {
            out.push(Effect::Fetch(blobs));
        }
        self.current =
            Some(Current { generation, commit, digest, queue, missing, met: Default::default(), kept: true });
        if let Some(gates) = self.early.take_if(|g| g.generation <= generation)
            && gates.generation == generation
        {
            self.apply_gates(&gates);
        }
        self.due.state = Some(now.mono);
    }

    /// Ends what the plan before has not begun, and marks what it runs as in doubt.
    fn supersede(&mut self, tasks: &[PlannedTask], now: Now) {
        let named: BTreeSet<&TaskId> = tasks.iter().map(|t| &t.task).collect();
        let waiting: Vec<PlannedTask> = self
            .current
            .iter()
            .flat_map(|c| c.queue.iter())
            .filter(|n| n.is_waiting() && !n.own && !named.contains(&n.planned.task))
            .map(|n| n.planned.clone())
            .collect();
        let generation = self.generation();
        for planned in waiting {
            self.report(generation, &planned, Outcome::Superseded, Account::at(now));
        }
        let running: Vec<PlannedTask> = self
            .running
            .values_mut()
            .filter_map(|run| {
                run.at = None;
                run.waiting.clear();
                (!run.only_effect).then(|| run.planned.clone())
            })
            .collect();
        for planned in running {
            self.doubt(&planned);
        }
    }

    /// Of obligations that the plan does not name, keeps what has fired and what still may: by a task that runs, or by one
    /// that the agent carries out on its own. Returns these sources.
    fn inherit(&mut self, tasks: &[PlannedTask]) -> BTreeSet<TaskId> {
        let named: BTreeSet<&TaskId> = tasks.iter().map(|t| &t.task).collect();
        let mut sources: BTreeSet<TaskId> = self.running.keys().cloned().collect();
        let may_fire = |open: &[(TriggerSource, effect::Effect)], sources: &BTreeSet<TaskId>| {
            open.iter().any(|(source, _)| matches!(source, TriggerSource::Task(s) if sources.contains(s)))
        };
        let others: Vec<TaskId> = self.obligations.keys().filter(|task| !named.contains(task)).cloned().collect();
        loop {
            let new = others.iter().filter(|task| {
                let owed = &self.obligations[*task];
                let own = owed.fired.is_some() || may_fire(&owed.open, &sources);
                own && self.applied.contains_key(*task) && !sources.contains(*task)
            });
            let new: Vec<TaskId> = new.cloned().collect();
            if new.is_empty() {
                break;
            }
            sources.extend(new);
        }
        for task in others {
            let Some(owed) = self.obligations.get_mut(&task) else { continue };
            owed.open.retain(|(source, _)| matches!(source, TriggerSource::Task(s) if sources.contains(s)));
            let gone = owed.is_empty() || !self.applied.contains_key(&task);
            self.dirty.obligations.insert(task.clone());
            if gone {
                self.forget_owed(&task);
            }
        }
        sources
    }

    /// Adds tasks for obligations of earlier plans that this one does not name.
    pub(super) fn add_own(&mut self, queue: &mut Queue) {
        for (task, owed) in &self.obligations {
            let greatest = owed.open.iter().map(|(_, effect)| *effect).max();
            let (Some(effect), Some(record), None) =
                (owed.fired.max(greatest), self.applied.get(task), queue.find(task))
            else {
                continue;
            };
            let planned = PlannedTask {
                task: task.clone(),
                action: effect::Effect::action(effect),
                // An effect needs nothing of what it ships: there is nothing to fetch.
                spec: Some(TaskSpec { content: None, ..record.spec.clone() }),
                fingerprint: Some(record.fingerprint),
                inputs: record.inputs.clone(),
                edges: record.edges.clone(),
                after: Vec::new(),
                gates: Vec::new(),
                triggers: Vec::new(),
                owed: owed.fired,
            };
            queue.push(planned, true);
        }
        for (task, owed) in &self.obligations {
            let Some(at) = queue.find(task) else { continue };
            for (source, _) in &owed.open {
                let TriggerSource::Task(source) = source else { continue };
                if let Some(first) = queue.find(source).filter(|first| queue.get(*first).own) {
                    queue.link(first, at);
                }
            }
        }
    }

    /// Tasks wait for their own run for an earlier plan, and for those runs that may still fire something on them.
    fn wait_for_running(&mut self, queue: &mut Queue) {
        for (task, run) in &mut self.running {
            if let Some(at) = queue.find(task) {
                queue.hold(at);
                run.waiting.push(at);
            }
            let source = TriggerSource::Task(task.clone());
            for (target, owed) in
                self.obligations.iter().filter(|(_, owed)| owed.open.iter().any(|(s, _)| *s == source))
            {
                let Some(at) = queue.find(target) else { continue };
                let covered = queue.get(at).planned.triggers.iter().any(|t| t.on == source);
                if !covered && target != task && !owed.is_empty() {
                    queue.hold(at);
                    run.waiting.push(at);
                }
            }
        }
    }
}

/// The blobs that tasks name, each once.
pub(super) fn distinct_blobs<'a>(tasks: impl Iterator<Item = &'a PlannedTask>) -> Vec<BlobRef> {
    let blobs = tasks.filter_map(|t| t.spec.as_ref()?.content.as_ref()?.blob().cloned());
    blobs.collect::<BTreeSet<_>>().into_iter().collect()
}

/// Whether the plan is one that can be carried out here.
fn validate(plan: &NodePlan, settings: &Settings) -> Result<(), String> {
    if plan.node != settings.node {
        return Err(format!("is for node `{}`", plan.node));
    }
    let mut seen = BTreeSet::new();
    for planned in &plan.tasks {
        let task = &planned.task;
        if let Some(source) = planned.after.iter().find(|source| !seen.contains(source)) {
            return Err(format!("{task} comes after {source}, which does not stand before it"));
        }
        let known = |source: &TriggerSource| match source {
            TriggerSource::Task(source) => planned.after.contains(source),
            TriggerSource::Gate(gate) => planned.gates.contains(gate),
        };
        if let Some(trigger) = planned.triggers.iter().find(|t| !known(&t.on)) {
            return Err(format!("{task} has a trigger on {:?}, which it does not wait for", trigger.on));
        }
        let complete = planned.spec.is_some() && planned.fingerprint.is_some();
        let must_be = match planned.action {
            Action::Create | Action::Update => true,
            Action::Remove => false,
            // What is acted on may be what is applied, whatever that is.
            Action::Restart | Action::Reload | Action::Run => complete,
        };
        if complete != must_be {
            return Err(format!(
                "{task} is to {} but {} a spec",
                planned.action,
                if complete { "has" } else { "lacks" }
            ));
        }
        if !seen.insert(task) {
            return Err(format!("{task} stands in it twice"));
        }
    }
    let blobs = distinct_blobs(plan.tasks.iter());
    if let Some(blob) = blobs.iter().find(|b| b.size > settings.max_blob) {
        return Err(format!("names a blob of {}; the limit is {}", size(blob.size), size(settings.max_blob)));
    }
    let total = blobs.iter().fold(0_u64, |sum, b| sum.saturating_add(b.size));
    if total > settings.max_blobs {
        return Err(format!("names blobs of {} together; the limit is {}", size(total), size(settings.max_blobs)));
    }
    Ok(())
}

/// A number of bytes in words: in the largest unit of which it is at least one.
fn size(bytes: u64) -> String {
    const UNITS: [(&str, u32); 3] = [("GiB", 30), ("MiB", 20), ("KiB", 10)];
    let Some((unit, shift)) = UNITS.iter().find(|(_, shift)| bytes >> shift > 0) else {
        return format!("{bytes} bytes");
    };
    let tenths = (bytes >> (shift - 4)) * 10 / 16;
    if tenths.is_multiple_of(10) {
        format!("{} {unit}", tenths / 10)
    } else {
        format!("{}.{} {unit}", tenths / 10, tenths % 10)
    }
}
