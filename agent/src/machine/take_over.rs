//! Hand-over on the node: what one task gives up and another one of the same plan takes.
//!
//! In: an accepted plan, and what is applied. Out: for each task that takes something over, a [`Taking`]: in the ledger with the plan
//! itself, and claimed on the host before anything starts. So an update finds that what it gives up is another's by now and leaves it,
//! whichever of the two is carried out first, and also where two tasks exchange what they own. The same holds for what a task has of
//! which the planner did not know, because it made the plan before it had the last reports. Only what tasks hand over by the plan itself
//! that it removes stays with them until their removal, which comes last (`PlannedTask::from` and `into`).

use std::collections::{BTreeMap, BTreeSet};

use groundplan_protocol::{
    effect::Action,
    ids::{Generation, TaskId},
    kinds::{ClaimKey, TaskParams},
    plan::{PlannedTask, TaskSpec},
};
use serde_json::Value;

use super::{
    io::{Earlier, Effect, Promise},
    node_state::joined,
    snapshot::{Record, Taking},
    state::{Machine, Running},
};

/// A task that is to have something which it has not.
struct Heir {
    task: TaskId,
    /// As it is to be.
    record: Record,
    /// What of that it has not yet, sorted.
    lacks: Vec<ClaimKey>,
    /// Removed tasks of which the plan itself has it that they hand over: they are removed after this one.
    from: Vec<TaskId>,
}

impl Machine {
    /// Notes what the tasks of a new plan take over from others.
    pub(super) fn take_over(&mut self, tasks: &[PlannedTask], generation: Generation) {
        let heirs = self.heirs(tasks);
        if heirs.is_empty() {
            return;
        }
        let given = self.given_up(tasks, heirs.iter().flat_map(|heir| heir.lacks.iter().copied()).collect());
        let takings: Vec<_> = heirs.into_iter().filter_map(|heir| self.taking(heir, &given, generation)).collect();
        for (task, taking) in takings {
            let all = self.takings.entry(task.clone()).or_default();
            // A plan that says the same again takes nothing more: what was handed over by then may be this task's own.
            all.retain(|earlier| earlier.record.spec != taking.record.spec);
            all.push(taking);
            self.unsaved.takings.insert(task);
            self.takings_changed = true;
        }
    }

    /// The tasks that are to have something which they have not: those of the plan, and those that it leaves as they are recorded while a
    /// job of an older plan makes something else of them, which the next plan will undo.
    fn heirs(&self, tasks: &[PlannedTask]) -> Vec<Heir> {
        let named: BTreeSet<&TaskId> = tasks.iter().map(|planned| &planned.task).collect();
        let planned =
            tasks.iter().filter_map(|planned| Some((planned.task.clone(), Record::of(planned)?, planned.from.clone())));
        let undone = self.running.keys().filter(|task| !named.contains(task));
        let undone = undone.filter_map(|task| Some((task.clone(), self.applied.get(task)?.clone(), Vec::new())));
        let heir = |(task, record, from): (TaskId, Record, Vec<TaskId>)| {
            // What the task has, or is left with by a job of an older plan. One that is on record and that no job has begun has nothing yet.
            let applied = self.applied.get(&task).filter(|record| record.touched);
            let has = self.making(&task).or(applied.map(|record| &record.spec));
            let own = has.map(|spec| spec.identity(&task)).unwrap_or_default();
            let mut lacks = record.spec.identity(&task);
            lacks.retain(|claim| own.binary_search(claim).is_err());
            (!lacks.is_empty()).then_some(Heir { task, record, lacks, from })
        };
        planned.chain(undone).filter_map(heir).collect()
    }

    /// Of these claims, those that tasks have and are not to have by the plan, with these tasks: they are updated or removed; or the plan
    /// does not name them, because it was made before the planner had the report of what they have.
    fn given_up(&self, tasks: &[PlannedTask], lacked: BTreeSet<ClaimKey>) -> BTreeMap<ClaimKey, BTreeSet<TaskId>> {
        let kept: BTreeMap<&TaskId, Vec<ClaimKey>> = tasks
            .iter()
            .map(|planned| (&planned.task, applied_spec(planned).map(|spec| spec.identity(&planned.task))))
            .filter_map(|(task, kept)| Some((task, kept?)))
            .collect();
        let mut given: BTreeMap<ClaimKey, BTreeSet<TaskId>> = BTreeMap::new();
        let all: BTreeSet<&TaskId> =
            self.applied.keys().chain(self.takings.keys()).chain(self.running.keys()).collect();
        for task in all {
            let mut had = self.claims_of(task);
            // What a job of an older plan is making is the task's as well.
            had.extend(self.making(task).map(|spec| spec.identity(task)).unwrap_or_default());
            let keeps = |claim: &ClaimKey| kept.get(task).is_some_and(|kept| kept.binary_search(claim).is_ok());
            for claim in had.into_iter().filter(|claim| lacked.contains(claim) && !keeps(claim)) {
                given.entry(claim).or_default().insert(task.clone());
            }
        }
        given
    }

    /// What a job of a task makes of it that still runs.
    fn making(&self, task: &TaskId) -> Option<&TaskSpec> {
        self.running.get(task).and_then(|run| applied_spec(&run.planned))
    }

    /// What a task takes over, of what is given up; none if nothing of what it lacks is.
    fn taking(
        &self,
        heir: Heir,
        given: &BTreeMap<ClaimKey, BTreeSet<TaskId>>,
        generation: Generation,
    ) -> Option<(TaskId, Taking)> {
        let Heir { task, record, lacks, from } = heir;
        let mut givers: BTreeMap<&TaskId, ClaimKey> = BTreeMap::new();
        for claim in lacks {
            let others = given.get(&claim).into_iter().flatten();
            givers.extend(others.filter(|other| **other != task && !from.contains(other)).map(|other| (other, claim)));
        }
        if givers.is_empty() {
            return None;
        }
        let kind = record.spec.params.kind();
        let taken = givers.iter().find_map(|(giver, claim)| self.memory_of(giver, *claim, kind));
        let from = givers.keys().map(|giver| (*giver).clone()).collect();
        let memory = record.memory.clone().or(taken);
        Some((task, Taking { record: Record { in_doubt: true, memory, ..record }, from, generation }))
    }

    /// The tasks that hand over to a planned one, by the plan itself or as the agent has found.
    pub(super) fn givers<'a>(&'a self, planned: &'a PlannedTask) -> impl Iterator<Item = &'a TaskId> {
        let takings = self.takings.get(&planned.task).into_iter().flatten();
        planned.from.iter().chain(takings.flat_map(|taking| &taking.from))
    }

    /// What a task remembers of what it claims so, if it is of that kind.
    fn memory_of(&self, task: &TaskId, claim: ClaimKey, kind: &str) -> Option<Value> {
        let takings = self.takings.get(task).into_iter().flatten().rev().map(|taking| &taking.record);
        let mut records = takings.chain(self.applied.get(task));
        let record = records.find(|record| record.spec.identity(task).binary_search(&claim).is_ok())?;
        record.memory.clone().filter(|_| record.spec.params.kind() == kind)
    }

    /// All that a task claims by what is applied and by what it is about to take over, sorted.
    pub(super) fn claims_of(&self, task: &TaskId) -> Vec<ClaimKey> {
        let takings = self.takings.get(task).into_iter().flatten().map(|taking| &taking.record);
        let records = self.applied.get(task).into_iter().chain(takings);
        records.fold(Vec::new(), |claims, record| joined(&claims, record.spec.identity(task)))
    }

    /// Has the host know of all that is about to be taken over, if that has changed: before any job finds out who claims what.
    pub(super) fn promise(&mut self, out: &mut Vec<Effect>) {
        if !std::mem::take(&mut self.takings_changed) {
            return;
        }
        let all = self.takings.iter().flat_map(|(task, all)| all.iter().map(move |taking| (task, taking)));
        let promise = |(task, taking): (&TaskId, &Taking)| Promise {
            task: task.clone(),
            params: taking.record.spec.params.clone(),
            plan: taking.generation,
        };
        out.push(Effect::Promise(all.map(promise).collect()));
    }

    /// A task has changed what it takes over from others, or may have: those that have it by their record do not have it as it was.
    pub(super) fn overtake(&mut self, planned: &PlannedTask) {
        let Some(spec) = applied_spec(planned) else { return };
        let task = &planned.task;
        let givers: BTreeSet<TaskId> = self.givers(planned).cloned().collect();
        let taken = spec.identity(task);
        for giver in givers {
            let Some(record) = self.applied.get_mut(&giver) else { continue };
            if record.spec.identity(&giver).iter().any(|claim| taken.binary_search(claim).is_ok()) {
                record.overtaken = true;
                self.unsaved.applied.insert(giver);
            }
        }
    }

    /// The tasks that this one has overtaken and that the plan removes as well. What is on the host is not what they applied, so that their
    /// own removals would take it for changed out of band.
    pub(super) fn yielding(&self, task: &TaskId, spec: &TaskSpec) -> Vec<TaskId> {
        let Some(active) = &self.active else { return Vec::new() };
        let goes = |other: &TaskId| {
            let node = active.queue.find(other).map(|at| active.queue.get(at));
            node.is_some_and(|node| node.planned.action == Action::Remove && node.outcome().is_none())
        };
        let has = spec.identity(task);
        let shares = |(other, record): &(&TaskId, &Record)| {
            record.spec.identity(other).iter().any(|claim| has.binary_search(claim).is_ok())
        };
        let others = self.applied.iter().filter(|(other, record)| *other != task && record.overtaken);
        others.filter(shares).map(|(other, _)| other.clone()).filter(goes).collect()
    }

    /// A task has been carried out for a plan: it has taken over what it was to by then, or is gone.
    pub(super) fn taken(&mut self, planned: &PlannedTask, generation: Generation) {
        let applies = matches!(planned.action, Action::Create | Action::Update | Action::Remove | Action::Forget);
        let Some(takings) = self.takings.get_mut(&planned.task).filter(|_| applies) else { return };
        // What a newer plan has added since, a job of an older one knew nothing of.
        takings.retain(|taking| taking.generation > generation);
        if takings.is_empty() {
            self.takings.remove(&planned.task);
        }
        self.unsaved.takings.insert(planned.task.clone());
        self.takings_changed = true;
    }

    /// A job is to make something else of a task than its record says, and may have begun: what it makes there is the task's own as well,
    /// whatever later plans make of the task.
    pub(super) fn attempt(&mut self, planned: &PlannedTask, generation: Generation) {
        let (task, record) = (&planned.task, self.applied.get(&planned.task));
        let (Some(record), Some(attempted)) = (record, Record::of(planned)) else { return };
        let takings = self.takings.get(task).map_or(&[][..], Vec::as_slice);
        let is_known = takings.iter().any(|taking| taking.record.spec.params == attempted.spec.params);
        if is_known || is_same(&record.spec.params, &attempted.spec.params, task) {
            return;
        }
        let record = Record { in_doubt: true, ..attempted };
        self.takings.entry(task.clone()).or_default().push(Taking { record, from: Vec::new(), generation });
        self.unsaved.takings.insert(task.clone());
        self.takings_changed = true;
    }

    /// The job has failed before it changed anything: there is nothing of it.
    pub(super) fn drop_attempt(&mut self, planned: &PlannedTask) {
        let (Some(takings), Some(spec)) = (self.takings.get_mut(&planned.task), &planned.spec) else { return };
        takings.retain(|taking| !taking.from.is_empty() || taking.record.spec.params != spec.params);
        if takings.is_empty() {
            self.takings.remove(&planned.task);
        }
        self.unsaved.takings.insert(planned.task.clone());
        self.takings_changed = true;
    }

    /// Keeps what a failed job noted of what it was to take over, where the task's record is about something else. Returns whether it is so.
    pub(super) fn note_of_taking(&mut self, planned: &PlannedTask, memory: Option<&Value>) -> bool {
        let Some(params) = planned.spec.as_ref().map(|spec| &spec.params) else { return false };
        let task = &planned.task;
        if self.applied.get(task).is_some_and(|record| is_same(&record.spec.params, params, task)) {
            return false;
        }
        let taking = self.takings.get_mut(task).into_iter().flatten().find(|t| t.record.spec.params == *params);
        let Some(taking) = taking else { return false };
        if let Some(memory) = memory {
            taking.record.memory = Some(memory.clone());
            self.unsaved.takings.insert(task.clone());
        }
        true
    }

    /// A job for an older plan has ended, while what its task remembers was handed over already: what it noted is handed over as well.
    pub(super) fn handed_over_late(&mut self, run: &Running) {
        let giver = &run.planned.task;
        let is_older = self.active.as_ref().is_some_and(|active| run.generation < active.generation);
        let Some(record) = self.applied.get(giver).filter(|_| is_older) else { return };
        let (claims, kind) = (record.spec.identity(giver), record.spec.params.kind());
        for (task, takings) in &mut self.takings {
            for taking in takings.iter_mut().filter(|taking| taking.from.contains(giver)) {
                let spec = &taking.record.spec;
                let is_of_it = spec.identity(task).iter().any(|claim| claims.binary_search(claim).is_ok());
                if is_of_it && spec.params.kind() == kind && record.memory.is_some() {
                    taking.record.memory.clone_from(&record.memory);
                    self.unsaved.takings.insert(task.clone());
                }
            }
        }
    }
}

/// Whether an earlier job was to make the same of a task as this plan does.
pub(super) fn is_attempted(takings: &[Taking], planned: &PlannedTask) -> bool {
    let params = planned.spec.as_ref().map(|spec| &spec.params);
    takings.iter().any(|taking| Some(&taking.record.spec.params) == params)
}

/// What a task is to be, if the plan applies it.
fn applied_spec(planned: &PlannedTask) -> Option<&TaskSpec> {
    planned.spec.as_ref().filter(|_| matches!(planned.action, Action::Create | Action::Update))
}

/// What a job of a task is to remember: what the task noted; of what it takes over, what those noted that hand it over.
pub(super) fn memory(applied: &BTreeMap<TaskId, Record>, takings: &[Taking], planned: &PlannedTask) -> Option<Value> {
    let task = &planned.task;
    let record = applied.get(task);
    let own = record.and_then(|record| record.memory.clone());
    let about = planned.spec.as_ref().or(record.map(|record| &record.spec));
    let about = about.or(takings.last().map(|taking| &taking.record.spec));
    let Some(params) = about.map(|spec| &spec.params) else { return own };
    let taking = takings.iter().rev().find(|taking| taking.record.spec.params == *params);
    let taken = taking.and_then(|taking| taking.record.memory.clone()).or_else(|| handed_over(applied, planned));
    match (record, taken) {
        // What it noted itself is about something else, which goes with that (see `updated`).
        (Some(record), taken)
            if (taking.is_some() || taken.is_some()) && !is_same(&record.spec.params, params, task) =>
        {
            taken
        }
        (_, Some(taken)) => Some(merged(own, taken)),
        (_, None) => own,
    }
}

/// What a task remembers that others hand over to it which are removed: what one of them remembers, if it is of the same kind.
fn handed_over(applied: &BTreeMap<TaskId, Record>, planned: &PlannedTask) -> Option<Value> {
    let params = &planned.spec.as_ref()?.params;
    let records = planned.from.iter().filter_map(|from| applied.get(from));
    let mut alike = records.filter(|record| record.spec.params.kind() == params.kind());
    alike.find_map(|record| record.memory.clone())
}

/// Whether what was noted of one is of use for the other: both are of one kind, and about the same thing at least in part.
pub(super) fn is_same(before: &TaskParams, after: &TaskParams, task: &TaskId) -> bool {
    before.kind() == after.kind() && !before.gives_up_all(after, task)
}

/// `own`, and what `taken` has besides, table by table: of a thing that both know, what the task noted itself counts.
fn merged(own: Option<Value>, taken: Value) -> Value {
    match (own, taken) {
        (Some(Value::Object(mut own)), Value::Object(taken)) => {
            for (name, value) in taken {
                let merged = merged(own.remove(&name), value);
                own.insert(name, merged);
            }
            Value::Object(own)
        }
        (None | Some(Value::Null), taken) => taken,
        (Some(own), _) => own,
    }
}

/// What a removal takes away: what is applied, or what the task was about to take over; what else it claims goes to `earlier`.
pub(super) fn gone(record: Option<&Record>, takings: &[Taking], earlier: &mut Vec<Earlier>) -> Option<TaskSpec> {
    let takings = takings.iter().rev().map(|taking| &taking.record);
    let mut records = record.into_iter().chain(takings);
    let first = records.next()?;
    // A task that failed has the same as its record and as what it is still to take over.
    earlier.extend(records.filter(|other| other.spec.params != first.spec.params).map(earlier_of));
    Some(first.spec.clone())
}

/// What is updated, if it is about the same thing as what the task is to be. What else the task claims goes to `earlier`.
pub(super) fn updated<'a>(
    record: Option<&'a Record>,
    takings: &[Taking],
    spec: &TaskSpec,
    planned: &PlannedTask,
    earlier: &mut Vec<Earlier>,
) -> Option<&'a Record> {
    let task = &planned.task;
    let others = takings.iter().map(|taking| &taking.record);
    let others = others.filter(|other| other.spec.params != spec.params);
    earlier.extend(others.map(earlier_of));
    let takes = !takings.is_empty() || !planned.from.is_empty();
    if !takes || record.is_none_or(|record| is_same(&record.spec.params, &spec.params, task)) {
        return record;
    }
    // What the job remembers is of what it takes over, so what the task was before goes with what it noted of that.
    earlier.extend(record.map(earlier_of));
    None
}

fn earlier_of(record: &Record) -> Earlier {
    Earlier { params: record.spec.params.clone(), memory: record.memory.clone() }
}

/// The tasks that hand over to a task, and those that it hands over to.
pub(super) fn parties(takings: &BTreeMap<TaskId, Vec<Taking>>, task: &TaskId) -> BTreeSet<TaskId> {
    let from = takings.get(task).into_iter().flatten().flat_map(|taking| taking.from.iter().cloned());
    let takes = |all: &Vec<Taking>| all.iter().any(|taking| taking.from.contains(task));
    from.chain(takings.iter().filter(|(_, all)| takes(all)).map(|(heir, _)| heir.clone())).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn memories_are_merged_by_what_they_are_of() {
        let own = json!({"path": "/a", "before": {"s": {"x": ["1"]}}, "made": ["s"]});
        let taken = json!({"path": "/a", "before": {"s": {"x": ["2"], "y": ["3"]}, "t": {}}, "made": [], "cut": 1});
        let both = json!({"path": "/a", "before": {"s": {"x": ["1"], "y": ["3"]}, "t": {}}, "made": ["s"], "cut": 1});
        assert_eq!(merged(Some(own), taken.clone()), both);
        assert_eq!(merged(Some(Value::Null), taken.clone()), taken);
        assert_eq!(merged(None, taken.clone()), taken);
    }
}
