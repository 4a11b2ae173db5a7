//! Everything that acts on the host: task kinds, programs, supervised processes, probes.
//!
//! In: a [`job::Job`]. Out: a [`job::Finished`]; or a look at what was applied, which changes nothing. A job waits for external capabilities, checks, applies what is not so,
//! carries out the effect that is owed unless applying just did, and waits until all is ready. It knows no plan, keeps no
//! ledger and decides nothing about order; at most one job of a task runs at a time. All paths of tasks lie below the root.
//! What is removed is only what no other task holds, so that a path may pass from one task to another.

mod capture;
mod exec;
mod files;
mod holds;
mod ini;
pub mod job;
mod journal;
mod keeper;
mod kinds;
mod look;
mod paths;
mod pidfd;
mod probe;
mod proc;
mod programs;
mod quiet;
mod record;
mod spawn;
mod spool;
mod stream;
mod supervisor;
#[cfg(test)]
mod tests;
mod tool;
mod users;
mod validate;

use std::{
    borrow::Cow,
    collections::BTreeMap,
    ffi::OsString,
    io,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant, SystemTime},
};

use groundplan_protocol::{
    blob::InvalidContent,
    effect::Effect,
    ids::{Generation, NodeId, SiteName, TaskId},
    kinds::TaskParams,
    plan::TaskSpec,
};
use tokio::sync::RwLockReadGuard;

use self::{
    exec::ExecError,
    files::{FileError, Sum},
    holds::Holds,
    job::{Cancel, Content, Finished, Job, Notes, Work},
    kinds::{Applied, Check, Context, Hold, KindError, Markers, Shipped},
    paths::{PathError, Root},
    probe::ProbeError,
    programs::Programs,
    quiet::Quiet,
    spawn::Surroundings,
    supervisor::{Supervisor, SupervisorError},
    tool::ToolError,
};
pub use self::{
    spool::{BATCH, Spool},
    supervisor::{Backoff, Supervised},
};
use crate::{facts::boot_id, machine::JobOutcome};

/// What a host is made from.
#[derive(Debug, Clone)]
pub struct Settings {
    /// All paths of tasks lie below it; `/` on a real host.
    pub root: PathBuf,
    /// Where records and logs of supervised processes are kept, in `process/` and `log/`.
    pub state_dir: PathBuf,
    /// The site, told to programs as `GROUNDPLAN_SITE`.
    pub site: SiteName,
    /// The node, told to programs as `GROUNDPLAN_NODE`.
    pub node: NodeId,
    /// How long a command may take to end after TERM before it gets KILL; 10 s is what operators are told.
    pub stop_grace: Duration,
    /// How a supervised process that keeps ending is started again.
    pub backoff: Backoff,
    /// The kernel's random name of this boot.
    pub boot: String,
}

impl Settings {
    /// With what operators are told for all else.
    pub fn new(root: PathBuf, state_dir: PathBuf, site: SiteName, node: NodeId) -> Self {
        let (stop_grace, backoff) = (Duration::from_secs(10), Backoff::default());
        Self { root, state_dir, site, node, stop_grace, backoff, boot: boot_id() }
    }
}

/// The host that the agent acts on. Jobs of different tasks may run side by side.
#[derive(Debug)]
pub struct Host {
    surroundings: Surroundings,
    /// Where kinds keep what is too large for the ledger.
    state_dir: PathBuf,
    /// Held from the reading of a file to the writing of it, where part of it is changed.
    edits: tokio::sync::Mutex<()>,
    stop_grace: Duration,
    supervisor: Supervisor,
    holds: Holds,
    quiet: Quiet,
    markers: Markers,
    programs: Arc<Programs>,
    /// The kernel's random name of this boot.
    boot: String,
    /// Whether any job has changed anything.
    touched: AtomicBool,
}

/// Why a job failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HostError {
    #[error(transparent)]
    File(#[from] FileError),
    #[error(transparent)]
    Path(#[from] PathError),
    #[error(transparent)]
    Exec(#[from] ExecError),
    #[error(transparent)]
    Probe(#[from] ProbeError),
    #[error("an external capability: {0}")]
    External(ProbeError),
    #[error(transparent)]
    Supervisor(#[from] SupervisorError),
    #[error("the content is missing: it has not been fetched")]
    NoContent,
    #[error("the content in the plan cannot be read")]
    BadContent(#[source] InvalidContent),
    #[error("the work was cut off")]
    Thread(#[source] tokio::task::JoinError),
    #[error("its check took longer than 10 minutes")]
    LongLook,
    #[error("cancelled before it began")]
    Cancelled,
    #[error(
        "`{kind}` acts on the host as a whole, and this agent may act below {} only; run it with the root `/`", root.display()
    )]
    WholeHost { kind: String, root: PathBuf },
    #[error(transparent)]
    Tool(#[from] ToolError),
    /// What the module of a kind says; boxed, so that a new kind adds nothing here.
    #[error(transparent)]
    Kind(Box<dyn std::error::Error + Send + Sync>),
}

impl<E: KindError> From<E> for HostError {
    fn from(error: E) -> Self {
        Self::Kind(Box::new(error))
    }
}

impl Host {
    /// Sets up `settings.state_dir`. Nothing is started or adopted yet.
    ///
    /// # Errors
    /// If the root is missing or the state directory cannot be made.
    pub fn new(settings: Settings) -> io::Result<Self> {
        let root = settings.root.canonicalize()?;
        let mut env: BTreeMap<String, OsString> = BTreeMap::new();
        let defaults = [
            ("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"),
            ("HOME", "/"),
            ("LANG", "C.UTF-8"),
        ];
        for (key, default) in defaults {
            env.insert(key.to_owned(), std::env::var_os(key).unwrap_or_else(|| default.into()));
        }
        env.insert("GROUNDPLAN_ROOT".to_owned(), root.clone().into());
        env.insert("GROUNDPLAN_SITE".to_owned(), settings.site.as_str().into());
        env.insert("GROUNDPLAN_NODE".to_owned(), settings.node.as_str().into());
        let surroundings = Surroundings { root: Root::new(root), env };
        let supervisor = Supervisor::new(surroundings.clone(), &settings.state_dir, settings.backoff)?;
        Ok(Self {
            surroundings,
            state_dir: settings.state_dir.clone(),
            edits: Default::default(),
            stop_grace: settings.stop_grace,
            supervisor,
            holds: Holds::default(),
            quiet: Quiet::default(),
            markers: Markers::new(&settings.state_dir),
            programs: Arc::new(Programs::new(&settings.state_dir)),
            boot: settings.boot,
            touched: AtomicBool::new(false),
        })
    }

    /// Learns what the ledger holds as applied; to be called once, before the first job.
    ///
    /// Supervised processes that an earlier agent started and that still run are taken over as they are, also those that
    /// it did not come to record in its ledger; those that do not run are started, without waiting for them.
    pub async fn adopt(&self, applied: &[(TaskId, TaskParams)]) {
        for (task, params) in applied {
            kinds::holds(params, task).iter().for_each(|hold| self.holds.add(hold, task));
        }
        self.programs.sweep(&applied.iter().filter_map(|(_, params)| kinds::program(params)).collect());
        let processes =
            applied.iter().filter_map(|(task, params)| Some((task.clone(), kinds::process(params)?.clone())));
        self.supervisor.adopt(processes.collect()).await;
    }

    /// All supervised processes that run at this moment, by task.
    pub fn processes(&self) -> Vec<Supervised> {
        self.supervisor.running()
    }

    /// Stops all supervised processes, side by side. The next `adopt` starts them again.
    pub async fn stop_processes(&self) {
        self.supervisor.stop_all().await;
    }

    /// Lets go of all supervised processes: they run on, and the next agent adopts them. So does dropping the host.
    pub fn leave_processes(&self) {
        self.supervisor.leave();
    }

    /// Whether a job has asked the host to go down, and nothing else runs.
    pub fn is_going_down(&self) -> bool {
        self.quiet.is_going_down()
    }

    /// Carries out a job.
    pub async fn run(&self, job: Job, cancel: Cancel) -> Finished {
        let (started, clock) = (SystemTime::now(), Instant::now());
        let (mut output, mut notes) = (None, Notes::default());
        self.programs.drop_unused(job.plan, |program| self.holds.is_held(&Hold::program(program)));
        let turn = self.turn(&job, &cancel).await;
        let begun = turn.is_some();
        let untouched = !self.touched.load(Ordering::Relaxed);
        let result = match self.before(&job, &cancel).await {
            Ok(content) => {
                let mut cx = Context::new(self, &job.task, &cancel).with_memory(job.memory.as_ref());
                (cx.plan, cx.untouched) = (job.plan, untouched);
                cx.probed = is_probed(&job.work);
                cx.is_new = matches!(job.work, Work::Apply { previous: None, .. });
                cx.content = content.as_ref().map(|(content, sum)| Shipped::new(content.as_ref(), *sum));
                let result = self.carry_out(&job, &cx).await;
                (output, notes) = cx.into_told();
                result
            }
            Err(e) => Err(e),
        };
        drop(turn);
        let result = result.map_err(|e| crate::log::chain(&e));
        if result.as_ref().is_ok_and(|did| did.changed) {
            self.touched.store(true, Ordering::Relaxed);
        }
        Finished { result, begun, output, notes, started, duration: clock.elapsed() }
    }

    /// Waits while the host is about to go down; `None` if the job is cancelled meanwhile. Who brings it down has no turn: it
    /// waits for all others to end.
    async fn turn(&self, job: &Job, cancel: &Cancel) -> Option<Option<RwLockReadGuard<'_, ()>>> {
        if kinds::goes_down(&job.work.spec().params) {
            return Some(None);
        }
        tokio::select! {
            biased;
            () = cancel.cancelled() => None,
            turn = self.quiet.turn() => Some(Some(turn)),
        }
    }

    /// Waits for external capabilities, and finds the content.
    async fn before<'a>(&self, job: &'a Job, cancel: &Cancel) -> Result<Option<(Cow<'a, Content>, Sum)>, HostError> {
        if cancel.is_cancelled() {
            return Err(HostError::Cancelled);
        }
        self.may_act(&job.work.spec().params)?;
        let Work::Apply { spec, content, .. } = &job.work else { return Ok(None) };
        for external in &spec.external {
            let waited = probe::wait(&self.surroundings, external, self.stop_grace, cancel).await;
            waited.map_err(HostError::External)?;
        }
        find_content(spec, content.as_ref())
    }

    /// An agent with a root of its own leaves the host as a whole alone.
    fn may_act(&self, params: &TaskParams) -> Result<(), HostError> {
        let root = self.surroundings.root.path();
        if kinds::whole_host(params) && root != Path::new("/") {
            return Err(HostError::WholeHost { kind: params.kind().to_owned(), root: root.to_owned() });
        }
        Ok(())
    }

    async fn carry_out(&self, job: &Job, cx: &Context<'_>) -> Result<JobOutcome, HostError> {
        match &job.work {
            Work::Apply { spec, previous, .. } => {
                let result = self.apply(job, spec, previous.as_ref(), cx).await;
                // One that was cancelled goes on when the agent is back.
                if result.is_err() && cx.is_new && !cx.cancel.is_cancelled() {
                    kinds::abandon(&spec.params, cx).await;
                }
                result
            }
            Work::Remove { spec } => Ok(JobOutcome { changed: self.remove(&spec.params, cx).await?, effect: None }),
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
        let hold = kinds::hold(&spec.params, &job.task);
        let replaced = previous.map(|previous| (&previous.params, kinds::hold(&previous.params, &job.task)));
        let replaced = replaced.filter(|(_, before)| *before != hold);
        let held = kinds::holds(&spec.params, &job.task);
        held.iter().for_each(|hold| self.holds.add(hold, &job.task));
        if let Some((params, before)) = &replaced
            && must_go_first(before, &hold)
        {
            changed |= self.remove(params, cx).await?;
            // Some of it may be the same.
            held.iter().for_each(|hold| self.holds.add(hold, &job.task));
        }
        let applied = match kinds::check(&spec.params, cx).await? {
            Check::InSync => None,
            Check::OutOfSync => Some(kinds::apply(&spec.params, cx).await?),
        };
        changed |= applied.is_some() && !cx.is_idle();
        if let Some((params, before)) = &replaced
            && !must_go_first(before, &hold)
            && before.path().is_none_or(|path| Some(path) != hold.path())
        {
            changed |= self.remove(params, cx).await?;
        }
        if let Some(previous) = previous {
            let before = kinds::holds(&previous.params, &job.task);
            before.iter().filter(|hold| !held.contains(hold)).for_each(|hold| self.holds.release(hold, &job.task));
            self.let_go(&previous.params, cx.plan);
        }
        let effect = match applied {
            Some(Applied { afresh: true }) => None,
            _ => self.effect(spec, job.effect, cx).await?,
        };
        // Also where all was found as it should be: an agent that was killed may have left it half ready.
        self.ready(spec, cx).await?;
        Ok(JobOutcome { changed: changed || effect.is_some(), effect })
    }

    /// Takes away what the task held, unless another task holds it now.
    async fn remove(&self, params: &TaskParams, cx: &Context<'_>) -> Result<bool, HostError> {
        let hold = kinds::hold(params, cx.task);
        if let Some(other) = self.holds.held_by_another(&hold, cx.task) {
            cx.say(&format!("left in place: it belongs to {other} now"));
            self.release(params, cx);
            return Ok(false);
        }
        let removed = kinds::remove(params, cx).await?;
        self.release(params, cx);
        Ok(removed)
    }

    fn release(&self, params: &TaskParams, cx: &Context<'_>) {
        kinds::holds(params, cx.task).iter().for_each(|hold| self.holds.release(hold, cx.task));
        self.let_go(params, cx.plan);
    }

    /// The program that it was carried out by may go once no task holds it.
    fn let_go(&self, params: &TaskParams, plan: Generation) {
        if let Some(program) = kinds::program(params).filter(|program| !self.holds.is_held(&Hold::program(*program))) {
            self.programs.let_go(program, plan);
        }
    }

    async fn effect(
        &self,
        spec: &TaskSpec,
        effect: Option<Effect>,
        cx: &Context<'_>,
    ) -> Result<Option<Effect>, HostError> {
        let Some(effect) = effect else { return Ok(None) };
        Ok(kinds::effect(&spec.params, cx, effect).await?.then_some(effect))
    }

    async fn ready(&self, spec: &TaskSpec, cx: &Context<'_>) -> Result<(), HostError> {
        let Some(ready) = spec.ready.as_ref().filter(|ready| !ready.is_empty()) else { return Ok(()) };
        tokio::select! {
            ready = probe::wait(&self.surroundings, ready, self.stop_grace, cx.cancel) => Ok(ready?),
            error = kinds::broken(&spec.params, cx) => Err(error),
        }
    }
}

fn is_probed(work: &Work) -> bool {
    match work {
        Work::Apply { spec, .. } | Work::Trigger { spec } => spec.ready.as_ref().is_some_and(|ready| !ready.is_empty()),
        Work::Remove { .. } => false,
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

/// Whether the old must be gone before the new can be there: the two would be in each other's way.
fn must_go_first(before: &Hold, after: &Hold) -> bool {
    match (before, after) {
        (Hold::Process(_), _) | (_, Hold::Process(_)) => true,
        // What it noted is of the old one.
        (Hold::Claimed(_), _) | (_, Hold::Claimed(_)) => true,
        // Their successors may want the same ports, and have parts of the same names.
        (Hold::Named("container" | "pod", _), _) => true,
        (Hold::File(old), Hold::Directory(new)) | (Hold::Directory(old), Hold::File(new)) => old == new,
        _ => false,
    }
}
