//! A host of an agent, in a directory of its own in memory, for one task of it.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use groundplan_agent::{
    drift::CheckResult,
    host::{
        Host, Settings,
        cancel::Cancel,
        job::{Finished, Job, Work},
    },
};
use groundplan_protocol::{
    blob::Content,
    effect::Effect,
    ids::{Generation, TaskId},
    plan::{OnRemove, TaskSpec},
};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::runtime::{Builder, Runtime};

/// See the module.
pub(super) struct OneTask {
    runtime: Runtime,
    dir: TempDir,
    host: Host,
    task: TaskId,
    memory: Option<Value>,
}

impl OneTask {
    /// A host with an empty root.
    pub(super) fn new() -> Self {
        // Syncing a disk would take most of the time.
        let memory = Path::new("/dev/shm");
        let dir =
            if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() }.expect("a directory");
        let [root, state] = ["root", "state"].map(|name| dir.path().join(name));
        fs::create_dir(&root).expect("a directory");
        let settings = Settings::new(root, state, "lab".parse().expect("a name"), "n0".parse().expect("a name"));
        let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
        let host = {
            let _in_it = runtime.enter();
            Host::new(settings).expect("a host")
        };
        Self { runtime, dir, host, task: "s.t".parse().expect("an id"), memory: None }
    }

    /// A path below the root.
    pub(super) fn at(&self, path: &str) -> PathBuf {
        self.dir.path().join("root").join(path)
    }

    /// Applies the task for the first time.
    pub(super) fn apply(&mut self, spec: &TaskSpec) -> Finished {
        self.run(Work::Apply { spec: spec.clone(), content: None, previous: None }, None, false)
    }

    /// Restarts it.
    pub(super) fn restart(&mut self, spec: &TaskSpec) -> Finished {
        self.run(Work::Trigger { spec: spec.clone() }, Some(Effect::Restart), true)
    }

    /// Removes it.
    pub(super) fn remove(&mut self, spec: &TaskSpec) -> Finished {
        self.run(Work::Remove { spec: without_content(spec) }, None, true)
    }

    fn run(&mut self, work: Work, effect: Option<Effect>, touched: bool) -> Finished {
        let job = Job {
            task: self.task.clone(),
            work,
            effect,
            memory: self.memory.clone(),
            earlier: Vec::new(),
            others: Vec::new(),
            yielding: Vec::new(),
            on_remove: OnRemove::Restore,
            touched,
            plan: Generation(1),
        };
        let finished = self.runtime.block_on(self.host.run(job, Cancel::never()));
        self.host.found_reported(&finished.notes.found);
        if let Some(memory) = &finished.notes.memory {
            self.memory = Some(memory.clone());
        }
        finished
    }

    /// Checks it for drift.
    pub(super) fn check(&self, spec: &TaskSpec) -> CheckResult {
        let (spec, memory) = (without_content(spec), self.memory.as_ref());
        self.runtime.block_on(self.host.check(&self.task, &spec, memory, &Cancel::never()))
    }

    /// What is in the directory of the host, below the root and beside it, apart from what lies below `hidden` and in the agent's state: mode,
    /// owner, size, and content or target of each, by its path.
    pub(super) fn tree(&self, hidden: Option<&str>) -> BTreeMap<PathBuf, String> {
        let hidden = [Some(self.dir.path().join("state")), hidden.map(|path| self.at(path))];
        let (mut found, mut open) = (BTreeMap::new(), vec![self.dir.path().to_owned()]);
        while let Some(directory) = open.pop() {
            for entry in fs::read_dir(directory).expect("a directory") {
                let path = entry.expect("an entry").path();
                if hidden.contains(&Some(path.clone())) {
                    continue;
                }
                let about = fs::symlink_metadata(&path).expect("what is there");
                let content = if about.is_symlink() {
                    format!("link to {:?}", fs::read_link(&path).expect("a link"))
                } else if about.is_dir() {
                    open.push(path.clone());
                    "directory".to_owned()
                } else if about.is_file() {
                    format!("{:?}", String::from_utf8_lossy(&fs::read(&path).expect("a file")))
                } else {
                    "neither file, directory nor link".to_owned()
                };
                let (mode, owner) = (about.permissions().mode(), (about.uid(), about.gid()));
                found.insert(path, format!("{mode:o} {owner:?} {content}"));
            }
        }
        found
    }
}

/// A task of these parameters, with its content.
pub(super) fn spec(params: &Value, content: &[u8]) -> TaskSpec {
    let params = serde_json::from_value(json!(params)).expect("parameters");
    let content = Some(Content::of(content)).filter(|content| content.blob().is_none());
    TaskSpec { params, content, ready: None, external: Vec::new(), on_interrupt: Default::default() }
}

/// As the ledger has it.
fn without_content(spec: &TaskSpec) -> TaskSpec {
    TaskSpec { content: spec.content.as_ref().and_then(Content::name).map(Content::Blob), ..spec.clone() }
}
