//! Accepting a plan: the fence, the checks, and the one transaction that holds every obligation that it may lead to.
//!
//! In: an offer whose envelope is valid. Out: a refusal with its reason, nothing if it is active already, or the new state of
//! the machine: jobs that run continue and are waited for, tasks that have not begun are superseded, obligations that have fired
//! stay.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use groundplan_protocol::{
    blob::BlobRef,
    digest::Digest,
    effect::{self, Action},
    ids::{Generation, LedgerId, TaskId},
    plan::{Edges, NodePlan, PlanBody, PlanOffer, PlannedTask, TaskSpec, TriggerSource},
    report::Outcome,
    time::Now,
};

use super::{
    account::Account,
    io::{Effect, Settings},
    queue::Queue,
    snapshot::{StoredPlan, Taking, Write},
    state::{ActivePlan, Machine},
};

/// No host whose clock was set is before this: 2026-01-01, in milliseconds since the Unix epoch.
const NO_CLOCK_MS: u64 = 1_767_225_600_000;

/// What an offer comes to.
enum Weighed {
    /// The active plan.
    Known,
    /// A new one, which is a blob.
    ToFetch,
    /// A new one for another ledger.
    ForLedger(LedgerId),
    /// A new one, and its JSON.
    New(Box<NodePlan>, Vec<u8>),
}

impl Machine {
    pub(super) fn offer(&mut self, offer: PlanOffer, now: Now, out: &mut Vec<Effect>) {
        let generation = offer.generation;
        match self.weigh(&offer, now) {
            Ok(Weighed::Known) => {}
            Ok(Weighed::ToFetch) => out.push(Effect::FetchPlan(Box::new(offer))),
            Ok(Weighed::ForLedger(ledger)) => {
                let own = &self.ledger;
                out.push(Effect::Log(format!("plan {generation} is for ledger {ledger}, and this node has {own}")));
            }
            // An agent that is stopping leaves it to the next one, to which the broker will send it again.
            Ok(Weighed::New(..)) if self.stopping => {}
            Ok(Weighed::New(plan, json)) => self.accept(*plan, json, offer, now, out),
            Err(reason) => self.refuse("plan", Some(generation), reason, now, out),
        }
    }

    /// What an offer comes to; an error if its plan may not be accepted.
    fn weigh(&self, offer: &PlanOffer, now: Now) -> Result<Weighed, String> {
        if offer.node != self.settings.node {
            return Err(format!("is for node `{}`", offer.node));
        }
        if !offer.is_consistent() {
            return Err("has the receipt of another plan".to_owned());
        }
        if !self.fence(offer.generation, offer.receipt.plan)? {
            return Ok(Weighed::Known);
        }
        // A planner that another one has followed may not know of that yet.
        let term = self.active.as_ref().and_then(|active| Some(active.receipt.as_ref()?.term)).unwrap_or_default();
        if offer.receipt.term < term {
            return Err(format!(
                "is of a planner in term {}; one in term {term} has planned since",
                offer.receipt.term
            ));
        }
        let at = self.time_ms(now);
        if at > offer.not_after_ms {
            let late = Duration::from_millis(at - offer.not_after_ms).as_secs();
            return Err(format!("has expired {late} s ago by this node's clock; is the clock right?"));
        }
        let text = match &offer.body {
            PlanBody::Inline(text) => text,
            PlanBody::Blob(blob) if blob.size > self.settings.max_blob => {
                let limit = size(self.settings.max_blob);
                return Err(format!("the plan is a blob of {}; the limit is {limit}", size(blob.size)));
            }
            PlanBody::Blob(_) => return Ok(Weighed::ToFetch),
        };
        let plan = text.parse().map_err(|error| format!("is not a node plan: {error}"))?;
        // What is signed names these as well.
        let PlanOffer { version, site, node, generation, .. } = offer;
        if (plan.version, &plan.site, &plan.node, plan.generation) != (*version, site, node, *generation) {
            return Err("is offered as one of another version, site, node or generation".to_owned());
        }
        // No fault of the planner's: the broker still has what was retained for a ledger that is lost, and the planner answers for the new one.
        match &plan.ledger {
            Some(ledger) if *ledger == self.ledger => {}
            Some(ledger) => return Ok(Weighed::ForLedger(ledger.clone())),
            None => return Err("names no ledger".to_owned()),
        }
        validate(&plan, &self.settings)?;
        Ok(Weighed::New(Box::new(plan), text.as_str().as_bytes().to_vec()))
    }

    /// The time, in milliseconds since the Unix epoch. A host without a clock counts from the time of the last plan that it took.
    fn time_ms(&self, now: Now) -> u64 {
        if now.wall_ms >= NO_CLOCK_MS { now.wall_ms } else { self.active.as_ref().map_or(0, |active| active.issued_ms) }
    }

    /// Whether a plan is new; an error if it may not be accepted. `id`: the digest of its JSON.
    fn fence(&self, generation: Generation, id: Digest) -> Result<bool, String> {
        if !generation.is_valid() {
            return Err(format!(
                "generation {generation} is none that a planner gives: they are below {}",
                Generation::LIMIT
            ));
        }
        let Some(active) = &self.active else {
            return if generation == Generation(0) {
                Err("generation 0 means that there is no plan".to_owned())
            } else {
                Ok(true)
            };
        };
        if generation < active.generation {
            return Err(format!("is older than generation {}, which is active", active.generation));
        }
        if generation == active.generation && id != active.digest {
            return Err("has other content than the active plan, which has the same generation".to_owned());
        }
        Ok(generation > active.generation)
    }

    fn accept(&mut self, plan: NodePlan, json: Vec<u8>, offer: PlanOffer, now: Now, out: &mut Vec<Effect>) {
        let NodePlan { generation, commit, tasks, edges, .. } = plan;
        let PlanOffer { issued_ms, receipt, .. } = offer;
        let (digest, count) = (receipt.plan, tasks.len());
        let receipt = Some(receipt);
        let stored = StoredPlan {
            generation,
            commit: commit.clone(),
            digest,
            issued_ms,
            receipt: receipt.clone(),
            json: Some(json),
        };
        self.supersede(&tasks, now);
        self.record_edges(edges);
        self.take_over(&tasks, generation);
        let before = self.active.take();
        // The planner may still take something of it to be under way, and have other nodes wait for that.
        let unfinished = before.as_ref().is_some_and(|before| !before.queue.is_finished()) || !self.running.is_empty();
        let blobs = distinct_blobs(tasks.iter());
        let queue = self.enqueue(tasks);
        self.persist_plan(stored, now, out);
        self.promise(out);
        out.push(Effect::Log(format!("accepted plan {generation} for commit {commit}: {count} tasks")));
        // Every blob counts as missing until the store, which may have it, reports it: no task starts before that.
        let missing: BTreeSet<Digest> = blobs.iter().map(|b| b.sha256).collect();
        out.push(Effect::KeepBlobs(missing.iter().copied().collect()));
        if !blobs.is_empty() {
            out.push(Effect::Fetch(blobs));
        }
        self.active =
            Some(ActivePlan { generation, commit, digest, issued_ms, receipt, queue, missing, in_ledger: true });
        if let Some(gates) = self.early_gates.take_if(|g| g.generation <= generation)
            && (gates.generation, gates.plan) == (generation, digest)
        {
            self.apply_gates(&gates);
        }
        if unfinished && self.connected {
            self.announce(out);
        }
        self.due.state = Some(now.mono);
    }

    /// Records edges of tasks that the plan leaves as they are.
    fn record_edges(&mut self, edges: BTreeMap<TaskId, Edges>) {
        for (task, edges) in edges {
            if let Some(record) = self.applied.get_mut(&task) {
                record.edges = edges;
                self.unsaved.applied.insert(task);
            }
        }
    }

    /// Makes the queue of a plan, and the obligations of its tasks.
    fn enqueue(&mut self, tasks: Vec<PlannedTask>) -> Queue {
        // Before the plan's own triggers are added: it must see the obligations as the earlier plans left them.
        let inherited = self.inherit(&tasks);
        let mut queue = Queue::default();
        for planned in tasks {
            let due = self.still_due(&planned).max(self.handed_over_due(&planned));
            if !matches!(planned.action, Action::Remove | Action::Forget) {
                // Sources of the earlier plan stay open only where one of them can still fire.
                let keep = |source: &TriggerSource| matches!(source, TriggerSource::Task(s) if inherited.contains(s));
                self.oblige(&planned, due, keep);
            }
            if let Some(run) = self.running.get_mut(&planned.task) {
                // The run began before this obligation was known, and does not fulfil it.
                run.fired_since = run.fired_since.max(due);
            }
            queue.push(planned, false);
        }
        // Last, when every task has its index: both look up tasks of the plan itself.
        self.add_inherited(&mut queue);
        self.wait_for_running(&mut queue);
        queue
    }

    /// What of the plan's obligation for a task is still due. The planner made the plan from an older state of this node, which may have
    /// carried the effect out since, or be doing so now, for any plan that was made knowing the obligation.
    ///
    /// What triggers on this node have fired is in the ledger and due whatever this returns.
    fn still_due(&self, planned: &PlannedTask) -> Option<effect::Effect> {
        let since = planned.since;
        let knew = |generation: Generation| since.is_some_and(|since| generation >= since);
        // Under its own name, or that of a task that hands over to it.
        let mut names = std::iter::once(&planned.task).chain(self.givers(planned));
        let is_met = names.any(|task| {
            let fulfilled = self.applied.get(task).and_then(|record| record.fulfilled);
            let fulfilled = fulfilled.filter(|done| knew(done.generation)).map(|done| done.effect);
            let in_progress = self.running.get(task).filter(|run| knew(run.generation)).and_then(|run| run.effect);
            fulfilled.max(in_progress) >= planned.obligation
        });
        planned.obligation.filter(|_| !is_met)
    }

    /// The effect that is due to tasks that hand over to this one, or may become due to them by a job that still runs: their removal
    /// ends their own obligations. The planner knows of those that were reported to it.
    fn handed_over_due(&self, planned: &PlannedTask) -> Option<effect::Effect> {
        let effects = planned.spec.as_ref()?.params.effects();
        let obligations = self.givers(planned).filter_map(|from| self.obligations.get(from));
        let runs =
            |source: &TriggerSource| matches!(source, TriggerSource::Task(task) if self.running.contains_key(task));
        let due = obligations.flat_map(|known| {
            let open = known.open.iter().filter(|(source, _)| runs(source)).map(|(_, effect)| *effect);
            known.fired.into_iter().chain(open)
        });
        due.max().filter(|effect| effects.contains(effect))
    }

    /// Writes the plan, every obligation that it may lead to, and the end of the plan before: one transaction, so that after a crash
    /// the ledger has either plan with all that belongs to it.
    fn persist_plan(&mut self, stored: StoredPlan, now: Now, out: &mut Vec<Effect>) {
        let mut writes = Vec::new();
        self.take_unsaved(&mut writes);
        writes.push(Write::Plan(Box::new(stored)));
        out.push(Effect::Persist { writes, durable: true });
        self.due.flush = None;
        self.outbox.persisted(self.connected, now, out);
        if self.journal_used {
            // `supersede` has put what still runs in doubt in the ledger itself.
            self.journal_used = false;
            out.push(Effect::ResetJournal);
        }
    }

    /// Ends the tasks that the plan before has not begun, and puts what it runs in doubt.
    fn supersede(&mut self, tasks: &[PlannedTask], now: Now) {
        let named: BTreeSet<&TaskId> = tasks.iter().map(|t| &t.task).collect();
        // A task that the new plan has as well is not reported twice; an inherited one is inherited again.
        let waiting: Vec<PlannedTask> = self
            .active
            .iter()
            .flat_map(|active| active.queue.iter())
            .filter(|n| n.is_waiting() && !n.inherited && !named.contains(&n.planned.task))
            .map(|n| n.planned.clone())
            .collect();
        // A run for a still older plan has done what these were to do, and its change was reported: the plan that leaves them out knows of it,
        // so nothing hangs on their end any more.
        let carried = self.active.iter().flat_map(|active| active.queue.iter());
        let carried = carried.filter(|n| n.is_waiting() && n.carried_change && !named.contains(&n.planned.task));
        let carried: Vec<TaskId> = carried.map(|n| n.planned.task.clone()).collect();
        for task in carried.into_iter().filter(|task| !self.running.contains_key(task)) {
            if let Some(record) = self.applied.get_mut(&task) {
                record.in_doubt = false;
                self.unsaved.applied.insert(task);
            }
        }
        let generation = self.generation();
        for planned in waiting {
            self.report(generation, &planned, Outcome::Superseded, Account::at(now));
        }
        let running: Vec<(PlannedTask, Generation)> = self
            .running
            .values_mut()
            .filter_map(|run| {
                // Its index is one of the old queue.
                run.at = None;
                run.waiting.clear();
                (!run.only_effect).then(|| (run.planned.clone(), run.generation))
            })
            .collect();
        for (planned, generation) in running {
            self.doubt_begun(&planned, generation);
            // If the agent is killed before the job's end, nothing else shows that it may have changed what it was to take over.
            self.overtake(&planned);
        }
    }

    /// Of the obligations that the plan does not name, keeps those that have fired and those that still may: by a task that
    /// runs, or by one that the agent carries out because of such an obligation. Returns all these sources.
    fn inherit(&mut self, tasks: &[PlannedTask]) -> BTreeSet<TaskId> {
        let named: BTreeSet<&TaskId> = tasks.iter().map(|t| &t.task).collect();
        let mut sources: BTreeSet<TaskId> = self.running.keys().cloned().collect();
        let may_fire = |open: &[(TriggerSource, effect::Effect)], sources: &BTreeSet<TaskId>| {
            open.iter().any(|(source, _)| matches!(source, TriggerSource::Task(s) if sources.contains(s)))
        };
        let others: Vec<TaskId> = self.obligations.keys().filter(|task| !named.contains(task)).cloned().collect();
        // A restart may itself trigger the next one: repeated until no further source is found.
        loop {
            let new = others.iter().filter(|task| {
                let obligation = &self.obligations[*task];
                let carried_out = obligation.fired.is_some() || may_fire(&obligation.open, &sources);
                carried_out && self.applied.contains_key(*task) && !sources.contains(*task)
            });
            let new: Vec<TaskId> = new.cloned().collect();
            if new.is_empty() {
                break;
            }
            sources.extend(new);
        }
        for task in others {
            let Some(obligation) = self.obligations.get_mut(&task) else { continue };
            // A source that neither runs nor will run can never fire.
            obligation.open.retain(|(source, _)| matches!(source, TriggerSource::Task(s) if sources.contains(s)));
            let is_over = obligation.is_empty() || !self.applied.contains_key(&task);
            self.unsaved.obligations.insert(task.clone());
            if is_over {
                self.forget_obligation(&task);
            }
        }
        sources
    }

    /// Adds tasks to the queue for obligations of earlier plans that this one does not name.
    pub(super) fn add_inherited(&mut self, queue: &mut Queue) {
        for (task, obligation) in &self.obligations {
            let greatest = obligation.open.iter().map(|(_, effect)| *effect).max();
            let (Some(effect), Some(record), None) =
                (obligation.fired.max(greatest), self.applied.get(task), queue.find(task))
            else {
                continue;
            };
            let planned = PlannedTask {
                task: task.clone(),
                action: effect::Effect::action(effect),
                // An effect needs none of the content: there is nothing to fetch.
                spec: Some(TaskSpec { content: None, ..record.spec.clone() }),
                fingerprint: Some(record.fingerprint),
                inputs: record.inputs.clone(),
                edges: record.edges.clone(),
                after: Vec::new(),
                gates: Vec::new(),
                triggers: Vec::new(),
                obligation: obligation.fired,
                since: None,
                from: Vec::new(),
                into: Vec::new(),
                retry: None,
            };
            queue.push(planned, true);
        }
        // A second pass, once all of them have an index: a task whose source is inherited comes after it.
        for (task, obligation) in &self.obligations {
            let Some(at) = queue.find(task) else { continue };
            for (source, _) in &obligation.open {
                let TriggerSource::Task(source) = source else { continue };
                if let Some(first) = queue.find(source).filter(|first| queue.get(*first).inherited) {
                    queue.link(first, at);
                }
            }
        }
    }

    /// Tasks wait for their own run for an earlier plan, and for those runs that may still trigger them.
    fn wait_for_running(&mut self, queue: &mut Queue) {
        for (task, run) in &mut self.running {
            let own = queue.find(task);
            if let Some(at) = own {
                queue.hold(at);
                run.waiting.push(at);
            }
            // What the run's task hands over is complete only at its end.
            // And whether what is handed over to it finds it there: it may be its removal, for an earlier plan.
            let takes = |all: &Vec<Taking>| all.iter().any(|taking| taking.from.contains(task));
            let heirs = self.takings.iter().filter(|(_, all)| takes(all)).filter_map(|(heir, _)| queue.find(heir));
            let heirs: BTreeSet<usize> = heirs.chain(queue.heirs_of(task)).filter(|heir| Some(*heir) != own).collect();
            for at in heirs.into_iter().chain(queue.removals_for(task)) {
                queue.hold(at);
                run.waiting.push(at);
            }
            let source = TriggerSource::Task(task.clone());
            let may_fire = self.obligations.iter().filter(|(_, o)| o.open.iter().any(|(s, _)| *s == source));
            for (target, obligation) in may_fire {
                let Some(at) = queue.find(target) else { continue };
                // Where the plan has the trigger itself, the target comes after the source's own task there.
                let covered = queue.get(at).planned.triggers.iter().any(|t| t.on == source);
                if !covered && target != task && !obligation.is_empty() {
                    queue.hold(at);
                    run.waiting.push(at);
                }
            }
        }
    }
}

/// The blobs that tasks name, each once and in order.
pub(super) fn distinct_blobs<'a>(tasks: impl Iterator<Item = &'a PlannedTask>) -> Vec<BlobRef> {
    let blobs = tasks.filter_map(|t| t.spec.as_ref()?.content.as_ref()?.blob().cloned());
    blobs.collect::<BTreeSet<_>>().into_iter().collect()
}

/// Checks that the plan can be carried out here: it is for this node, complete, in order, and within the limits.
fn validate(plan: &NodePlan, settings: &Settings) -> Result<(), String> {
    if plan.node != settings.node {
        return Err(format!("is for node `{}`", plan.node));
    }
    let mut seen = BTreeSet::new();
    for planned in &plan.tasks {
        let task = &planned.task;
        if let Some(source) = planned.after.iter().find(|source| !seen.contains(source)) {
            return Err(format!("{task} comes after {source}, which is not listed before it"));
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
            Action::Remove | Action::Forget => false,
            // Without a spec, the effect acts on what is applied.
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
            return Err(format!("it lists {task} twice"));
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

/// A number of bytes for people, in the largest unit of which it is at least one.
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
