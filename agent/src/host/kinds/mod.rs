//! Task kinds, carried out.
//!
//! A kind is one module here that implements [`Kind`] for its parameters, and one line in `kinds!`. It checks whether
//! things are so and makes them so; the order of a job, probes, time limits of effects and what became of a predecessor
//! are the business of `Host`. Applying twice does what applying once does; removing what is gone is no error.

mod archive;
mod command;
mod container;
mod cron;
mod directory;
mod export;
mod file;
mod group;
mod hostname;
mod image;
mod ini;
mod line;
mod link;
mod module;
mod mount;
mod package;
mod plugin;
mod pod;
mod process;
mod reboot;
mod selinux;
mod sysctl;
mod systemd;
mod unit_text;
mod user;
mod wait;

use std::sync::{
    Mutex,
    atomic::{AtomicBool, Ordering},
};

use groundplan_protocol::{
    digest::Digest,
    effect::Effect,
    ids::{Generation, TaskId},
    kinds::{Process, TaskParams},
    report::Output,
};
use serde_json::Value;
use tokio::time::Instant;

pub(crate) use self::reboot::Markers;
use super::{
    Host, HostError,
    files::{Removed, Sum},
    job::{Cancel, Content, Notes},
    look::Differences,
};

/// What a kind has at hand while a job runs.
pub(crate) struct Context<'a> {
    pub(crate) host: &'a Host,
    pub(crate) task: &'a TaskId,
    pub(crate) cancel: &'a Cancel,
    /// What the task ships.
    pub(crate) content: Option<Shipped<'a>>,
    /// Whether a readiness probe follows, so that nobody need wait to see whether it keeps running.
    pub(crate) probed: bool,
    /// Whether the ledger holds nothing of it yet.
    pub(crate) is_new: bool,
    /// The plan that it is carried out for.
    pub(crate) plan: Generation,
    /// Whether no other job had changed anything since the agent began, when this one began.
    pub(crate) untouched: bool,
    /// When its own work began: after external capabilities were there.
    pub(crate) begun: Instant,
    /// What differs, where it is only looked at.
    pub(super) differences: Option<Mutex<Differences>>,
    memory: Option<&'a Value>,
    /// Whether applying has turned out to change nothing.
    idle: AtomicBool,
    output: Mutex<Option<Output>>,
    notes: Mutex<Notes>,
}

impl<'a> Context<'a> {
    pub(crate) fn new(host: &'a Host, task: &'a TaskId, cancel: &'a Cancel) -> Self {
        Self {
            host,
            task,
            cancel,
            content: None,
            probed: false,
            is_new: false,
            plan: Generation(0),
            untouched: true,
            begun: Instant::now(),
            differences: None,
            memory: None,
            idle: AtomicBool::new(false),
            output: Mutex::new(None),
            notes: Mutex::default(),
        }
    }

    /// With what the task noted when it was last applied.
    pub(crate) fn with_memory(self, memory: Option<&'a Value>) -> Self {
        Self { memory, ..self }
    }

    /// What the task noted when it was last applied: how it found things, so that removal gives back what was there and takes
    /// away only what the task itself made.
    pub(crate) fn memory(&self) -> Option<&'a Value> {
        self.memory
    }

    /// Notes `memory` for the next time, in place of what was noted before, also if the job fails after this.
    pub(crate) fn remember(&self, memory: Value) {
        self.notes.lock().unwrap_or_else(|e| e.into_inner()).memory = Some(memory);
    }

    /// What is noted by now: in this job, or else when it was last applied.
    pub(crate) fn recall(&self) -> Option<Value> {
        let noted = self.notes.lock().unwrap_or_else(|e| e.into_inner()).memory.clone();
        noted.or_else(|| self.memory.cloned()).filter(|memory| !memory.is_null())
    }

    /// Notes that applying changed nothing after all, so that no trigger fires.
    pub(crate) fn nothing_changed(&self) {
        self.idle.store(true, Ordering::Relaxed);
    }

    /// Whether applying changed nothing.
    pub(crate) fn is_idle(&self) -> bool {
        self.idle.load(Ordering::Relaxed)
    }

    /// Publishes `value` to the planner, in place of what the task published before.
    pub(crate) fn publish(&self, value: String) {
        self.notes.lock().unwrap_or_else(|e| e.into_inner()).export = Some(value);
    }

    /// Another task that holds the same, if there is one: then it must be left in place.
    pub(crate) fn held_by_another(&self, hold: &Hold) -> Option<TaskId> {
        self.host.holds.held_by_another(hold, self.task)
    }

    /// Reports what a program printed, in place of what was said before.
    pub(crate) fn print(&self, output: Option<Output>) {
        if output.is_some() {
            *self.output.lock().unwrap_or_else(|e| e.into_inner()) = output;
        }
    }

    /// Reports `line`, after what was said before.
    pub(crate) fn say(&self, line: &str) {
        let mut output = self.output.lock().unwrap_or_else(|e| e.into_inner());
        let output = output.get_or_insert_default();
        let text = if output.omitted > 0 { &mut output.tail } else { &mut output.head };
        if !text.is_empty() && !text.ends_with('\n') {
            text.push('\n');
        }
        text.push_str(line);
        text.push('\n');
    }

    /// Says why something was left in place; whether anything was removed.
    fn removed(&self, removed: Removed) -> bool {
        if let Removed::Left(why) = &removed {
            self.say(why);
        }
        removed == Removed::Gone
    }

    pub(crate) fn into_told(self) -> (Option<Output>, Notes) {
        let output = self.output.into_inner().unwrap_or_else(|e| e.into_inner());
        (output, self.notes.into_inner().unwrap_or_else(|e| e.into_inner()))
    }
}

/// What a task ships. A check gets by with its digest: in a look nobody has the bytes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Shipped<'a> {
    pub(crate) sum: Sum,
    bytes: Option<&'a Content>,
}

impl<'a> Shipped<'a> {
    pub(crate) fn new(bytes: &'a Content, sum: Sum) -> Self {
        Self { sum, bytes: Some(bytes) }
    }

    /// What was shipped once.
    pub(crate) fn named(sum: Sum) -> Self {
        Self { sum, bytes: None }
    }

    /// The bytes, to be put somewhere.
    pub(crate) fn bytes(&self) -> Result<&'a Content, HostError> {
        self.bytes.ok_or(HostError::NoContent)
    }
}

/// Whether the host is as a task's parameters want it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Check {
    /// It is: there is nothing to apply.
    InSync,
    /// It is not, or the kind cannot tell.
    OutOfSync,
}

impl From<bool> for Check {
    fn from(in_sync: bool) -> Self {
        if in_sync { Self::InSync } else { Self::OutOfSync }
    }
}

/// What applying did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Applied {
    /// Whether it started or ran it, so that an effect which is owed is thereby carried out.
    pub(crate) afresh: bool,
}

/// What a task holds of the host. Two tasks that hold the same act on the same thing.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Hold {
    /// Nothing.
    Nothing,
    /// A file or link.
    File(String),
    /// A directory.
    Directory(String),
    /// Something with a name: what sort of thing it is, such as `unit`, and the name.
    Named(&'static str, String),
    /// A process of this task.
    Process(TaskId),
    /// What a plugin says that it claims: a path, or what it is and its name.
    Claimed(String),
}

impl Hold {
    /// A program that tasks are carried out by; any number of them may hold it.
    pub(crate) fn program(program: Digest) -> Self {
        Self::Named("program", program.to_string())
    }

    /// The path, if it holds one.
    pub(crate) fn path(&self) -> Option<&str> {
        match self {
            Self::File(path) | Self::Directory(path) => Some(path),
            _ => None,
        }
    }
}

/// Why a kind could not do its work, in the words of its own module.
pub(crate) trait KindError: std::error::Error + Send + Sync + 'static {}

/// A kind, by its parameters.
pub(crate) trait Kind {
    /// What it holds of the host: once this differs, what was applied before is removed.
    fn hold(&self, task: &TaskId) -> Hold;

    /// All that it holds, for kinds that hold several things; see [`Context::held_by_another`].
    fn holds(&self, task: &TaskId) -> Vec<Hold> {
        vec![self.hold(task)]
    }

    /// Whether it acts on the host as a whole, wherever the agent's root is: an agent with a root of its own refuses it.
    fn whole_host(&self) -> bool {
        false
    }

    /// Whether a look can tell from the host if what was applied is still so.
    fn drifts(&self, _: &Context<'_>) -> bool {
        true
    }

    /// Whether it is so. Changes nothing on the host; what differs is told to [`Context::differs`], all of it in a look.
    async fn check(&self, cx: &Context<'_>) -> Result<Check, HostError>;

    /// Makes it so; called only when it is not.
    async fn apply(&self, cx: &Context<'_>) -> Result<Applied, HostError>;

    /// Takes it away; whether there was anything to take away.
    async fn remove(&self, cx: &Context<'_>) -> Result<bool, HostError>;

    /// Carries out an effect; whether there was anything to do. Only for kinds that list effects in the protocol.
    async fn effect(&self, _: &Context<'_>, _: Effect) -> Result<bool, HostError> {
        Ok(false)
    }

    /// Returns an error once it is clear that it will never be ready.
    async fn broken(&self, _: &Context<'_>) -> HostError {
        std::future::pending().await
    }

    /// Gives up what was begun for a new task that did not come about, where it would otherwise live on unknown to all.
    async fn abandon(&self, _: &Context<'_>) {}
}

macro_rules! kinds {
    ($($kind:ident),* $(,)?) => {
        pub(crate) fn hold(params: &TaskParams, task: &TaskId) -> Hold {
            match params { $(TaskParams::$kind(kind) => kind.hold(task),)* }
        }

        pub(crate) fn holds(params: &TaskParams, task: &TaskId) -> Vec<Hold> {
            match params { $(TaskParams::$kind(kind) => kind.holds(task),)* }
        }

        pub(crate) fn whole_host(params: &TaskParams) -> bool {
            match params { $(TaskParams::$kind(kind) => kind.whole_host(),)* }
        }

        pub(crate) fn drifts(params: &TaskParams, cx: &Context<'_>) -> bool {
            match params { $(TaskParams::$kind(kind) => kind.drifts(cx),)* }
        }

        pub(crate) async fn check(params: &TaskParams, cx: &Context<'_>) -> Result<Check, HostError> {
            match params { $(TaskParams::$kind(kind) => kind.check(cx).await,)* }
        }

        pub(crate) async fn apply(params: &TaskParams, cx: &Context<'_>) -> Result<Applied, HostError> {
            match params { $(TaskParams::$kind(kind) => kind.apply(cx).await,)* }
        }

        pub(crate) async fn remove(params: &TaskParams, cx: &Context<'_>) -> Result<bool, HostError> {
            match params { $(TaskParams::$kind(kind) => kind.remove(cx).await,)* }
        }

        pub(crate) async fn effect(params: &TaskParams, cx: &Context<'_>, effect: Effect) -> Result<bool, HostError> {
            match params { $(TaskParams::$kind(kind) => kind.effect(cx, effect).await,)* }
        }

        pub(crate) async fn broken(params: &TaskParams, cx: &Context<'_>) -> HostError {
            match params { $(TaskParams::$kind(kind) => kind.broken(cx).await,)* }
        }

        pub(crate) async fn abandon(params: &TaskParams, cx: &Context<'_>) {
            match params { $(TaskParams::$kind(kind) => kind.abandon(cx).await,)* }
        }
    };
}

kinds! {
    File,
    Template,
    Directory,
    Link,
    Ini,
    Line,
    Archive,
    Package,
    Systemd,
    Process,
    Container,
    Pod,
    Image,
    User,
    Group,
    Hostname,
    Sysctl,
    Module,
    Mount,
    Cron,
    Selinux,
    Command,
    Wait,
    Reboot,
    Export,
    Plugin,
}

/// What decides the result of a task, for its memory: whether it asks for anything else than it did before.
fn essence<P>(params: &P) -> Value
where
    P: groundplan_protocol::kinds::Kind + Clone + serde::Serialize,
{
    let mut params = params.clone();
    params.drop_incidental();
    serde_json::to_value(params).unwrap_or_default()
}

/// Does `work`, which may take long, on a thread of its own.
async fn aside<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, HostError> {
    tokio::task::spawn_blocking(work).await.map_err(HostError::Thread)
}

/// The program that it is carried out by, if it is one of the site's own.
pub(crate) fn program(params: &TaskParams) -> Option<Digest> {
    match params {
        TaskParams::Plugin(plugin) => plugin.program,
        _ => None,
    }
}

/// The parameters of a supervised process, if it is one.
pub(crate) fn process(params: &TaskParams) -> Option<&Process> {
    match params {
        TaskParams::Process(process) => Some(process),
        _ => None,
    }
}

/// Whether it brings the host down, so that nothing else may run.
pub(crate) fn goes_down(params: &TaskParams) -> bool {
    matches!(params, TaskParams::Reboot(_))
}
