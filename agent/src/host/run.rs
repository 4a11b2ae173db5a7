//! Carrying out a job.
//!
//! In: a [`Job`]. Out: a [`Finished`]. A job waits for external capabilities, checks, applies what is out of sync, carries out
//! the obligation unless applying just did, and waits until all is ready. No two jobs work on one claim at a time, and what is removed
//! is only what no other task claims: so a claim passes from one task to another, whichever of the two jobs comes first.

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
    sync::atomic::Ordering,
    time::{Instant, SystemTime},
};

use groundplan_protocol::{
    effect::Effect,
    ids::{Generation, TaskId},
    kinds::{Claim, TaskParams},
    plan::TaskSpec,
    report::SKIPPED,
};

use super::{
    cancel::Cancel,
    claims::{must_go_first, replaces},
    error::HostError,
    exclusive::Turn,
    found::Own,
    fs::files::Sum,
    job::{Content, Finished, Job, Notes, Work},
    kinds::{
        self,
        context::{Context, Shipped},
        kind::{Applied, Check},
    },
    probe, programs,
    shared::Host,
};
use serde_json::Value;

use crate::machine::{Earlier, Found, JobOutcome, found as machine_found};

/// What is reported where a task is removed that has never changed anything.
const NEVER_APPLIED: &str = "nothing to remove: this task has failed before it changed anything on the host";

/// What is reported where an operator has the record of a task dropped.
const FORGOTTEN: &str = "the record is dropped; nothing on the host was changed";

impl Host {
    /// Carries out a job.
    pub async fn run(&self, job: Job, cancel: Cancel) -> Finished {
        let (started, clock) = (SystemTime::now(), Instant::now());
        let (mut output, mut notes, mut touched) = (None, Notes::default(), false);
        self.programs
            .drop_unused(job.plan, |program| self.claims.is_held(&Claim::named("program", program.to_string())));
        let turn = self.turn(&job, &cancel).await;
        let work = match &turn {
            Some(_) => self.claims.work_on(claimed(&job), &cancel).await,
            None => None,
        };
        let begun = work.is_some();
        // Read before the job itself changes anything.
        let untouched = !self.touched.load(Ordering::Relaxed);
        let result = match self.before(&job, &cancel).await {
            Ok(content) => {
                let mut cx = Context::new(self, &job.task, &cancel).with_memory(job.memory.as_ref());
                (cx.plan, cx.untouched) = (job.plan, untouched);
                cx.on_remove = job.on_remove;
                if let Work::Apply { spec, previous, .. } = &job.work {
                    cx.own = Own::of([spec].into_iter().chain(previous));
                }
                cx.probed = is_probed(&job.work);
                cx.others = &job.others;
                cx.yielding = &job.yielding;
                cx.params = Some(&job.work.spec().params);
                cx.replaces = matches!(&job.work, Work::Apply { spec, previous: Some(previous), .. }
                    if self.is_replaced(&previous.params, &spec.params, &job.task));
                cx.is_new = matches!(job.work, Work::Apply { .. }) && !job.touched && job.others.is_empty();
                cx.previous = match &job.work {
                    Work::Apply { previous, .. } => previous.as_ref().map(|previous| &previous.params),
                    Work::Remove { .. } | Work::Forget { .. } | Work::Trigger { .. } => None,
                };
                cx.content = content.as_ref().map(|(content, sum)| Shipped::new(content.as_ref(), *sum));
                let result = self.carry_out(&job, &cx).await;
                touched = cx.has_touched();
                (output, notes) = cx.into_results();
                result
            }
            Err(e) => Err(e),
        };
        drop((work, turn));
        let result = result.map_err(|e| crate::log::chain(&e));
        if result.as_ref().is_ok_and(|outcome| outcome.changed) {
            self.touched.store(true, Ordering::Relaxed);
        }
        Finished { result, begun, touched, output, notes, started, duration: clock.elapsed() }
    }

    /// Waits while the host is about to go down; `None` if the job is cancelled meanwhile. The job that brings the host down has
    /// no turn: it waits for all others to end.
    async fn turn(&self, job: &Job, cancel: &Cancel) -> Option<Option<Turn<'_>>> {
        if kinds::brings_host_down(&job.work.spec().params) {
            return Some(None);
        }
        tokio::select! {
            biased;
            () = cancel.cancelled() => None,
            turn = self.exclusive.turn() => Some(Some(turn)),
        }
    }

    /// Waits for external capabilities, and finds the content.
    async fn before<'a>(&self, job: &'a Job, cancel: &Cancel) -> Result<Option<(Cow<'a, Content>, Sum)>, HostError> {
        if cancel.is_cancelled() {
            return Err(HostError::Cancelled);
        }
        if !matches!(job.work, Work::Forget { .. }) {
            self.may_act(&job.work.spec().params)?;
        }
        let Work::Apply { spec, content, .. } = &job.work else { return Ok(None) };
        for external in &spec.external {
            let waited = probe::wait(&self.environment, external, self.stop_grace, cancel).await;
            waited.map_err(HostError::External)?;
        }
        find_content(spec, content.as_ref())
    }

    /// Refuses what acts on the host as a whole if this agent's root is not `/`, unless that is skipped.
    fn may_act(&self, params: &TaskParams) -> Result<(), HostError> {
        if self.is_beyond(params) && !self.skip_host_kinds {
            let root = self.environment.root.path().to_owned();
            return Err(HostError::WholeHost { kind: params.kind().to_owned(), root });
        }
        Ok(())
    }

    /// Whether a task acts on the host as a whole, and this agent below its root only.
    pub(super) fn is_beyond(&self, params: &TaskParams) -> bool {
        kinds::whole_host(params) && !self.is_whole_host
    }

    async fn carry_out(&self, job: &Job, cx: &Context<'_>) -> Result<JobOutcome, HostError> {
        match &job.work {
            Work::Apply { spec, .. } | Work::Remove { spec } | Work::Trigger { spec }
                if self.is_beyond(&spec.params) =>
            {
                let (kind, root) = (spec.params.kind(), self.environment.root.path().display());
                cx.report(&format!(
                    "{SKIPPED}: `{kind}` acts on the host as a whole, and this agent below {root} only"
                ));
                Ok(JobOutcome { changed: false, effect: None })
            }
            Work::Apply { spec, previous, .. } => {
                let result = self.apply(job, spec, previous.as_ref(), cx).await;
                // A cancelled one is not given up: it goes on when the agent is back.
                if result.is_err() && cx.is_new && !cx.cancel.is_cancelled() {
                    kinds::abandon(&spec.params, cx).await;
                }
                result
            }
            Work::Remove { spec } if !job.touched => {
                cx.report(NEVER_APPLIED);
                self.release(&spec.params, cx);
                Ok(JobOutcome { changed: false, effect: None })
            }
            Work::Remove { spec } => {
                let mut changed = self.remove(&spec.params, None, cx).await?;
                for Earlier { params, memory } in &job.earlier {
                    changed |= self.give_up((params, memory.as_ref()), None, cx).await?;
                }
                let all = job.earlier.iter().map(|earlier| &earlier.params).chain([&spec.params]);
                all.for_each(|params| self.claims.break_promise(params, None, &job.task, job.plan));
                Ok(JobOutcome { changed, effect: None })
            }
            Work::Forget { spec } => {
                // What it started goes on, but is supervised no longer.
                self.supervisor.release(&job.task);
                self.release(&spec.params, cx);
                job.earlier.iter().for_each(|earlier| self.release(&earlier.params, cx));
                cx.report(FORGOTTEN);
                Ok(JobOutcome { changed: false, effect: None })
            }
            Work::Trigger { spec } => {
                let effect = self.effect(spec, job.effect, cx).await?;
                if effect.is_some() {
                    self.ready(spec, cx).await?;
                }
                Ok(JobOutcome { changed: effect.is_some(), effect })
            }
        }
    }

    async fn apply(
        &self,
        job: &Job,
        spec: &TaskSpec,
        previous: Option<&TaskSpec>,
        cx: &Context<'_>,
    ) -> Result<JobOutcome, HostError> {
        let mut changed = false;
        let (params, task) = (&spec.params, &job.task);
        // Claimed before anything is made: a removal that runs at the same time leaves it in place.
        self.claims.add(params, task);
        if let Some((own, other)) = self.claims.held_by_alias(params, task) {
            return Err(HostError::Alias { own: own.to_string(), other });
        }
        let replaced = previous.filter(|_| job.touched).map(|previous| &previous.params);
        let is_replaced = |before: &TaskParams| self.is_replaced(before, params, task);
        let replaced = replaced.filter(|before| is_replaced(before));
        // What is earlier is removed by what was noted of it, and the job remembers nothing of it.
        let is_gone = |before: &TaskParams| is_replaced(before) || before.gives_up_all(params, task);
        let earlier = || job.earlier.iter().filter(|earlier| is_gone(&earlier.params));
        let first = replaced.is_some_and(|before| must_go_first(before, params, task));
        if let Some(before) = replaced.filter(|_| first) {
            changed |= self.give_up((before, job.memory.as_ref()), Some(params), cx).await?;
        }
        for before in earlier().filter(|earlier| must_go_first(&earlier.params, params, task)) {
            changed |= self.give_up((&before.params, before.memory.as_ref()), Some(params), cx).await?;
        }
        // The removals have released what both claim.
        self.claims.add(params, task);
        // Before the check: what is there already, and equal, was there before as well.
        kinds::found::note(params, cx).await?;
        let applied = match kinds::check(params, cx).await? {
            Check::InSync => None,
            Check::OutOfSync => {
                if !kinds::notes_changes(params) {
                    cx.changing();
                }
                Some(kinds::apply(params, cx).await?)
            }
        };
        changed |= applied.is_some() && !cx.is_idle();
        // The new is in place before the old goes, so that what uses it finds one of the two at any moment.
        if let Some(before) = replaced.filter(|_| !first) {
            changed |= self.give_up((before, job.memory.as_ref()), Some(params), cx).await?;
        }
        for before in earlier().filter(|earlier| !must_go_first(&earlier.params, params, task)) {
            changed |= self.give_up((&before.params, before.memory.as_ref()), Some(params), cx).await?;
        }
        // Whoever else works on it waits for this job, and must not find that it still belongs here.
        let ended = job.earlier.iter().map(|earlier| &earlier.params);
        ended.for_each(|earlier| self.claims.break_promise(earlier, Some(params), task, job.plan));
        let others = job.earlier.iter().map(|earlier| &earlier.params);
        for before in previous.map(|previous| &previous.params).into_iter().chain(others) {
            self.claims.release(before, Some(params), task);
            self.forget_found(before, cx);
            self.drop_program(before, cx.plan);
        }
        let effect = match applied {
            Some(Applied { afresh: true }) => None,
            _ => self.effect(spec, job.effect, cx).await?,
        };
        // Also where all was found in sync: an agent that was killed may have left it half ready.
        self.ready(spec, cx).await?;
        Ok(JobOutcome { changed: changed || effect.is_some(), effect })
    }

    /// Whether what the task was before is to be removed when it becomes `after`.
    fn is_replaced(&self, before: &TaskParams, after: &TaskParams, task: &TaskId) -> bool {
        replaces(before, after, task) && !self.claims.are_one(before, after, task)
    }

    /// Takes away what the task claims, unless another task claims it now. `next`: what the task claims from now on.
    async fn remove(
        &self,
        params: &TaskParams,
        next: Option<&TaskParams>,
        cx: &Context<'_>,
    ) -> Result<bool, HostError> {
        // Kinds with several subjects, which only plugins have, ask for each of them.
        if let [subject] = params.subject(cx.task).as_slice()
            && let Some(other) = cx.held_by_another(subject)
        {
            cx.report(&format!("left in place: it belongs to {other} now"));
            self.release(params, cx);
            return Ok(false);
        }
        cx.changing();
        if next.is_some_and(|next| next.subject(cx.task) == params.subject(cx.task)) {
            // Something else takes its place: what was there before both of them comes back only when that goes.
            return kinds::remove(params, cx).await;
        }
        let removed = kinds::found::remove(params, cx).await?;
        self.release(params, cx);
        Ok(removed)
    }

    /// Takes away what the task had, with what was noted of that. `next`: what it claims from now on.
    async fn give_up(
        &self,
        before: (&TaskParams, Option<&Value>),
        next: Option<&TaskParams>,
        cx: &Context<'_>,
    ) -> Result<bool, HostError> {
        let (params, memory) = before;
        // Of the tasks that something changes hands with, those that have a part of this.
        let heirs = self.claims.heirs(params, cx.task, cx.others);
        let about = cx.about(params, memory, &heirs);
        let removed = self.remove(params, next, &about).await;
        cx.absorb(about);
        removed
    }

    fn release(&self, params: &TaskParams, cx: &Context<'_>) {
        self.claims.release(params, None, cx.task);
        kinds::given_up(params, cx);
        self.forget_found(params, cx);
        self.drop_program(params, cx.plan);
    }

    /// Drops the notes of what was found of claims that no task has any more. Where a task has the thing under another name, the note
    /// passes to that.
    fn forget_found(&self, params: &TaskParams, cx: &Context<'_>) {
        let (mut held, mut renamed) = (BTreeSet::new(), BTreeMap::new());
        params.claims(cx.task, &mut |stated| {
            let Some(key) = machine_found::key(&stated.claim) else { return };
            if self.claims.is_held(&stated.claim) {
                held.insert(key);
            } else if let Some(name) =
                self.claims.other_names(&stated.claim).iter().find(|name| self.claims.is_held(name))
            {
                renamed.extend(machine_found::key(name).map(|name| (key, name)));
            }
        });
        let mut forget = |key: String| {
            if held.contains(&key) {
                return;
            }
            if let (Some(name), Some(found)) = (renamed.remove(&key), self.found.get(&key))
                && matches!(self.found.get(&name), None | Some(Found::Unknown))
            {
                match self.found.put(&name, &found) {
                    Ok(()) => cx.keep_note(name, Some(found)),
                    Err(error) => cx.report(&error.to_string()),
                }
            }
            if self.found.forget(&key) {
                cx.keep_note(key, None);
            }
        };
        machine_found::keys(params, cx.task, &mut forget);
        machine_found::shared_keys(params, cx.task, &mut forget);
    }

    /// The plugin that carried the task out may go once no task claims it.
    fn drop_program(&self, params: &TaskParams, plan: Generation) {
        if let Some(program) = programs::of(params)
            && !self.claims.is_held(&Claim::named("program", program.to_string()))
        {
            self.programs.unused(program, plan);
        }
    }

    async fn effect(
        &self,
        spec: &TaskSpec,
        effect: Option<Effect>,
        cx: &Context<'_>,
    ) -> Result<Option<Effect>, HostError> {
        let Some(effect) = effect else { return Ok(None) };
        cx.changing();
        Ok(kinds::effect(&spec.params, cx, effect).await?.then(|| cx.effect_of(effect)))
    }

    async fn ready(&self, spec: &TaskSpec, cx: &Context<'_>) -> Result<(), HostError> {
        let Some(ready) = spec.ready.as_ref().filter(|ready| !ready.is_empty()) else { return Ok(()) };
        tokio::select! {
            ready = probe::wait(&self.environment, ready, self.stop_grace, cx.cancel) => Ok(ready?),
            error = kinds::broken(&spec.params, cx) => Err(error),
        }
    }
}

/// All that a job may change: what its task claims, and what it claimed before.
fn claimed(job: &Job) -> BTreeSet<Claim<'static>> {
    let mut claims = BTreeSet::new();
    let previous = match &job.work {
        Work::Apply { previous, .. } => previous.as_ref(),
        Work::Remove { .. } | Work::Forget { .. } | Work::Trigger { .. } => None,
    };
    let specs = [Some(job.work.spec()), previous].into_iter().flatten().map(|spec| &spec.params);
    for params in specs.chain(job.earlier.iter().map(|earlier| &earlier.params)) {
        params.claims(&job.task, &mut |stated| _ = claims.insert(stated.claim.into_owned()));
    }
    claims
}

fn is_probed(work: &Work) -> bool {
    match work {
        Work::Apply { spec, .. } | Work::Trigger { spec } => spec.ready.as_ref().is_some_and(|ready| !ready.is_empty()),
        Work::Remove { .. } | Work::Forget { .. } => false,
    }
}

fn find_content<'a>(spec: &TaskSpec, given: Option<&'a Content>) -> Result<Option<(Cow<'a, Content>, Sum)>, HostError> {
    let Some(shipped) = &spec.content else { return Ok(None) };
    if let (Some(blob), Some(content)) = (shipped.blob(), given) {
        return Ok(Some((Cow::Borrowed(content), Sum { digest: blob.sha256, size: blob.size })));
    }
    let bytes = shipped.inline().map_err(HostError::BadContent)?.ok_or(HostError::NoContent)?;
    let sum = Sum::of_bytes(&bytes);
    Ok(Some((Cow::Owned(Content::Bytes(bytes)), sum)))
}
