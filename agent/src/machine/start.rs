//! Starting tasks: those that are ready, as many as may run at a time, in plan order.
//!
//! In: the queue and the obligations. Out: jobs, or the outcome of tasks that turn out to need none. A task starts when all
//! that it comes after has ended well and its gates are open; so every trigger on it is decided by then.

use super::{
    io::{Effect, JobOutcome, Start, Work},
    snapshot::without_bytes,
    state::{Machine, Running},
    take_over::{gone, is_attempted, memory, parties, updated},
};
use groundplan_protocol::{
    effect::{Action, Effect::Run},
    plan::PlannedTask,
    report::Outcome,
    time::Now,
};

impl Machine {
    pub(super) fn start_ready(&mut self, now: Now, out: &mut Vec<Effect>) {
        let mut starts = Vec::new();
        if let Some(active) = &mut self.active {
            active.queue.wake(now.mono);
        }
        while !self.stopping && self.running.len() < self.settings.max_parallel {
            let Some(active) = &mut self.active else { break };
            // All blobs first: a plan whose content cannot be had changes nothing.
            if !active.missing.is_empty() {
                break;
            }
            let Some(at) = active.queue.take_ready() else { break };
            match self.begin(at) {
                Ok(start) => starts.push(start),
                // Its end may make others ready, which this loop then starts as well.
                Err(outcome) => self.end_without_job(at, outcome, now),
            }
        }
        if !starts.is_empty() {
            self.promise(out);
            self.journal_used = true;
            out.push(Effect::Start(self.generation(), starts));
        }
    }

    /// The job of a task that may start now; or its outcome, if there is nothing to do.
    fn begin(&mut self, at: usize) -> Result<Start, Outcome> {
        let active = self.active.as_mut().expect("a task is in a plan");
        let generation = active.generation;
        let node = active.queue.get_mut(at);
        let task = node.planned.task.clone();
        let record = self.applied.get(&task);
        let from = &node.planned.from;
        let takings = self.takings.get(&task).map_or(&[][..], Vec::as_slice);
        let memory = memory(&self.applied, takings, &node.planned);
        // A task that is about to be removed is not restarted first.
        let ends = matches!(node.planned.action, Action::Remove | Action::Forget);
        // What it takes over was changed by those that hand it over.
        let records = || {
            let givers = from.iter().chain(takings.iter().flat_map(|taking| &taking.from));
            record.into_iter().chain(givers.filter_map(|giver| self.applied.get(giver)))
        };
        let (touched, in_doubt) = (
            !takings.is_empty() || records().any(|record| record.touched),
            records().any(|record| record.in_doubt && (!ends || record.touched)),
        );
        let mut earlier = Vec::new();
        // A planner whose last report of it is still on its way asks for it once more. What can be checked does no harm then; a command
        // without a guard has been run, and is not run again for nothing.
        let asked_again = record.is_some_and(|record| {
            Some(record.fingerprint) == node.planned.fingerprint
                && !record.is_doubtful()
                && !record.spec.params.can_check()
                && record.spec.params.effects().contains(&Run)
        });
        if asked_again && node.adopted.is_none() && from.is_empty() && takings.is_empty() {
            node.adopted = Some(JobOutcome::default());
        }
        let obligation = self.obligations.get(&task).filter(|_| !ends);
        let effect = obligation.and_then(|obligation| obligation.fired);
        let unchanged = || Outcome::Done { changed: false, effect: None };
        let work = match (node.planned.action, node.adopted) {
            // A run for the plan before did all of it, and nothing fired since.
            (_, Some(did)) if effect.is_none() => {
                return Err(Outcome::Done { changed: did.changed, effect: did.effect });
            }
            (Action::Remove, _) => {
                let Some(spec) = gone(record, takings, &mut earlier) else {
                    // Not there. If a run for an earlier plan removed it, this plan's triggers have not seen that change yet.
                    return Err(if node.carried_change {
                        Outcome::Done { changed: true, effect: None }
                    } else {
                        unchanged()
                    });
                };
                // All of them come before it, or were applied by the last report that the planner had. One that is not applied after all
                // takes nothing over: then the plan is out of date, and what would be lost stays until the next one.
                let heirs = &node.planned.into;
                if let Some(heir) = heirs.iter().find(|heir| !self.applied.contains_key(heir)) {
                    return Err(Outcome::Blocked { by: heir.clone() });
                }
                let into = heirs.iter().cloned().chain(parties(&self.takings, &task)).collect();
                Work::Remove { spec, into }
            }
            (Action::Forget, _) => {
                let Some(spec) = gone(record, takings, &mut earlier) else { return Err(unchanged()) };
                Work::Forget { spec }
            }
            (Action::Create | Action::Update, None) => {
                let Some(spec) = &mut node.planned.spec else { return Err(unchanged()) };
                let full = spec.clone();
                // From here on it is needed only for the record: the content goes with the job and is freed with it; unless there may be
                // another attempt.
                if node.planned.retry.is_none() {
                    *spec = without_bytes(spec);
                }
                let previous =
                    updated(record, takings, &full, &node.planned, &mut earlier).map(|r| Box::new(r.spec.clone()));
                let from = from.iter().filter(|from| self.applied.contains_key(from)).cloned();
                let from = from.chain(parties(&self.takings, &task)).collect();
                Work::Apply { spec: full, previous, from }
            }
            (Action::Create | Action::Update, Some(_)) | (Action::Restart | Action::Reload | Action::Run, _) => {
                if effect.is_none() {
                    return Err(Outcome::Skipped);
                }
                let Some(spec) = &node.planned.spec else { return Err(Outcome::Skipped) };
                Work::Trigger { spec: without_bytes(spec) }
            }
        };
        // A removal comes when no site declares the task any more, so its record decides.
        let known = record.or(takings.last().map(|taking| &taking.record));
        let on_remove = match (node.planned.action, known) {
            (Action::Remove, Some(record)) => record.edges.on_remove,
            _ => node.planned.edges.on_remove,
        };
        let attempted = is_attempted(takings, &node.planned);
        let running = Running {
            generation,
            planned: PlannedTask { spec: node.planned.spec.as_ref().map(without_bytes), ..node.planned.clone() },
            only_effect: matches!(work, Work::Trigger { .. }),
            effect,
            fired_since: None,
            // A removal of what was never touched changes nothing, and neither does dropping a record. What is taken over from a
            // task in doubt is in doubt as well.
            in_doubt: node.planned.action != Action::Forget && in_doubt,
            touched,
            attempted,
            at: Some(at),
            waiting: Vec::new(),
        };
        self.running.insert(task.clone(), running);
        let yielding = match &work {
            Work::Remove { spec, .. } => self.yielding(&task, spec),
            _ => Vec::new(),
        };
        Ok(Start { task, work, effect, memory, earlier, yielding, touched, on_remove })
    }
}
