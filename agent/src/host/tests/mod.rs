//! Jobs from start to end on this machine, each test in a directory of its own.

mod archive;
mod archive_replaced;
mod attributes;
mod commands;
mod drift;
mod files;
mod found;
mod hand_over;
mod ini;
mod jobs;
mod kinds;
mod line;
mod links;
mod never;
mod plugins;
mod processes;
mod reboots;
mod stream;
mod systemd;
mod tools;
mod waits;

use std::{collections::BTreeMap, fs, path::PathBuf, sync::Mutex, time::Duration};

use groundplan_protocol::{
    blob::Content as Shipped,
    effect::Effect,
    ids::{Generation, TaskId},
    kinds::TaskParams,
    plan::{OnRemove, TaskSpec},
    ready::Ready,
};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{
    drift::CheckResult,
    machine::{Earlier, Found, JobOutcome, Promise},
};

use super::{
    Host, Settings,
    cancel::Cancel,
    job::{Finished, Job, Work},
    process::Backoff,
};

const UNCHANGED: Result<JobOutcome, String> = Ok(JobOutcome { changed: false, effect: None });
const CHANGED: Result<JobOutcome, String> = Ok(JobOutcome { changed: true, effect: None });

fn effected(effect: Effect) -> Result<JobOutcome, String> {
    Ok(JobOutcome { changed: true, effect: Some(effect) })
}

/// A host with a root and a state directory of its own.
struct Site {
    dir: TempDir,
    host: Host,
    /// What tasks noted, which the ledger keeps in an agent.
    memories: Mutex<BTreeMap<String, Value>>,
    /// What was found, which the ledger keeps in an agent.
    found: Mutex<BTreeMap<String, Found>>,
    on_remove: OnRemove,
}

impl Site {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("root")).unwrap();
        let host = Self::host(&dir);
        Self { dir, host, memories: Mutex::default(), found: Mutex::default(), on_remove: OnRemove::Restore }
    }

    fn host(dir: &TempDir) -> Host {
        let [root, state] = ["root", "state"].map(|name| dir.path().join(name));
        let mut settings = Settings::new(root, state, "lab".parse().unwrap(), "n0".parse().unwrap());
        settings.stop_grace = Duration::from_millis(300);
        let [first, most, healthy] = [100, 400, 60_000].map(Duration::from_millis);
        settings.backoff = Backoff { first, most, healthy };
        Host::new(settings).unwrap()
    }

    /// The same host after its agent was killed and started again.
    fn after_a_crash(self) -> Self {
        let Self { dir, host, memories, mut found, on_remove } = self;
        drop(host);
        let host = Self::host(&dir);
        found.get_mut().unwrap().extend(host.take_noted());
        host.adopt_found(&found.lock().unwrap());
        Self { dir, host, memories, found, on_remove }
    }

    fn at(&self, path: &str) -> PathBuf {
        self.dir.path().join("root").join(path.trim_start_matches('/'))
    }

    fn state(&self, path: &str) -> PathBuf {
        self.dir.path().join("state").join(path)
    }

    async fn job(&self, task: &str, work: Work, effect: Option<Effect>) -> Finished {
        let is_removal = matches!(work, Work::Remove { .. });
        let memory = self.memories.lock().unwrap().get(task).cloned();
        let job = Job { on_remove: self.on_remove, ..job(task, work, effect, memory) };
        let finished = self.host.run(job, Cancel::never()).await;
        self.note(task, &finished, is_removal);
        finished
    }

    /// Keeps what a job noted, as the ledger does.
    fn note(&self, task: &str, finished: &Finished, is_removal: bool) {
        self.host.found_reported(&finished.notes.found);
        for (key, found) in finished.notes.found.clone() {
            let mut ledger = self.found.lock().unwrap();
            match found {
                Some(found) => drop(ledger.insert(key, found)),
                None => drop(ledger.remove(&key)),
            }
        }
        if is_removal && finished.result.is_ok() {
            self.memories.lock().unwrap().remove(task);
        } else if let Some(memory) = &finished.notes.memory {
            self.memories.lock().unwrap().insert(task.to_owned(), memory.clone());
        }
    }

    /// Checks the task for drift. As in the ledger, `spec` lacks the bytes that it ships.
    async fn check(&self, spec: &TaskSpec) -> CheckResult {
        let content = spec.content.as_ref().and_then(Shipped::name).map(Shipped::Blob);
        let spec = TaskSpec { content, ..spec.clone() };
        let memory = self.memories.lock().unwrap().get("svc.task").cloned();
        self.host.check(&id("svc.task"), &spec, memory.as_ref(), &Cancel::never()).await
    }

    async fn create(&self, spec: &TaskSpec) -> Result<JobOutcome, String> {
        self.job("svc.task", apply(spec, None), None).await.result
    }

    async fn update(&self, previous: &TaskSpec, spec: &TaskSpec) -> Result<JobOutcome, String> {
        self.job("svc.task", apply(spec, Some(previous)), None).await.result
    }

    async fn remove(&self, spec: &TaskSpec) -> Result<JobOutcome, String> {
        self.job("svc.task", Work::Remove { spec: spec.clone() }, None).await.result
    }

    async fn trigger(&self, spec: &TaskSpec, effect: Effect) -> Result<JobOutcome, String> {
        self.job("svc.task", Work::Trigger { spec: spec.clone() }, Some(effect)).await.result
    }
}

/// All that is in the root of the host, with contents.
fn tree(site: &Site) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let mut open = vec![site.at("")];
    while let Some(directory) = open.pop() {
        for path in fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()) {
            let link = fs::read_link(&path).map(|target| format!("link to {}", target.display()));
            let content = link.or_else(|_| fs::read_to_string(&path)).unwrap_or_else(|_| {
                open.push(path.clone());
                "directory".to_owned()
            });
            found.insert(path.strip_prefix(site.at("")).unwrap().display().to_string(), content);
        }
    }
    found
}

fn job(task: &str, work: Work, effect: Option<Effect>, memory: Option<Value>) -> Job {
    let touched = !matches!(work, Work::Apply { previous: None, .. });
    let on_remove = Default::default();
    Job {
        yielding: Vec::new(),
        task: id(task),
        work,
        effect,
        memory,
        earlier: Vec::new(),
        others: Vec::new(),
        on_remove,
        touched,
        plan: Generation(1),
    }
}

fn id(task: &str) -> TaskId {
    task.parse().unwrap()
}

fn apply(spec: &TaskSpec, previous: Option<&TaskSpec>) -> Work {
    Work::Apply { spec: spec.clone(), content: None, previous: previous.cloned() }
}

fn spec(params: Value) -> TaskSpec {
    let params: TaskParams = serde_json::from_value(params).unwrap();
    let content = None;
    TaskSpec { params, content, ready: None, external: Vec::new(), on_interrupt: Default::default() }
}

fn file(path: &str, content: &str) -> TaskSpec {
    TaskSpec { content: Some(Shipped::of(content.as_bytes())), ..spec(json!({ "file": { "path": path } })) }
}

fn command(line: &str) -> TaskSpec {
    spec(json!({ "command": { "run": line } }))
}

fn with_ready(spec: TaskSpec, ready: Value) -> TaskSpec {
    let ready: Ready = serde_json::from_value(ready).unwrap();
    TaskSpec { ready: Some(ready), ..spec }
}

fn is_root() -> bool {
    nix::unistd::Uid::effective().is_root()
}

/// Waits until `what` holds.
async fn until(what: impl Fn() -> bool) {
    for _ in 0..6000 {
        if what() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("the condition was not met within 60 s");
}

/// Whether the process exists and is not a zombie.
fn lives(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with('Z'))
}
