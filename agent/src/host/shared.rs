//! What the jobs and checks of all tasks share: the host's root and environment, and the books about what is on it.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, atomic::AtomicBool},
    time::Duration,
};

use groundplan_protocol::{ids::TaskId, kinds::TaskParams};

use super::{
    claims::Claims,
    exclusive::Exclusive,
    found::FoundStore,
    fs::paths::Root,
    health::Health,
    markers::Markers,
    process::{
        spawn::Environment,
        state::Supervised,
        supervisor::{self, Supervisor},
    },
    programs::{self, Programs},
    settings::Settings,
    unit_ends::UnitEnds,
};
use crate::{
    machine::{Found, Promise},
    private,
};

/// The host that the agent acts on. Jobs of different tasks may run side by side.
#[derive(Debug)]
pub struct Host {
    pub(super) environment: Environment,
    /// Where kinds keep what is too large for the ledger.
    pub(super) state_dir: PathBuf,
    /// Locked from the reading of a file to the writing of it, where only part of it is changed: two tasks may edit one file.
    pub(super) edits: tokio::sync::Mutex<()>,
    pub(super) stop_grace: Duration,
    pub(super) supervisor: Supervisor,
    pub(super) health: Health,
    pub(super) unit_ends: UnitEnds,
    pub(super) claims: Claims,
    pub(super) found: Arc<FoundStore>,
    /// Notes of jobs whose end no ledger has, until they are taken.
    noted: Mutex<Vec<(String, Found)>>,
    pub(super) exclusive: Exclusive,
    pub(super) markers: Markers,
    pub(super) programs: Arc<Programs>,
    /// The kernel's random name of this boot.
    pub(super) boot: String,
    /// Whether tasks may act on the host as a whole: the root is `/`.
    pub(super) is_whole_host: bool,
    /// Whether tasks that act on the host as a whole are skipped where the root is not `/`.
    pub(super) skip_host_kinds: bool,
    /// Whether any job of this process has changed anything.
    pub(super) touched: AtomicBool,
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
        let is_whole_host = root == Path::new("/");
        let environment = Environment { root: Root::new(root), env };
        let claims = Claims::on(environment.root.clone());
        let health = Health::default();
        // Those of an earlier release may be open to all; the others are made when there is something to keep.
        for folder in ["accounts", "archive", "found", "plugins", "reboot"] {
            let folder = settings.state_dir.join(folder);
            if folder.exists() {
                private::directory(&folder)?;
            }
        }
        let supervisor = Supervisor::new(environment.clone(), &settings.state_dir, settings.backoff, health.clone())?;
        let (found, noted) = FoundStore::open(&settings.state_dir, settings.max_found).map_err(|error| {
            io::Error::new(error.kind(), format!("{}/found: {error}", settings.state_dir.display()))
        })?;
        Ok(Self {
            environment,
            state_dir: settings.state_dir.clone(),
            edits: Default::default(),
            stop_grace: settings.stop_grace,
            supervisor,
            health,
            unit_ends: UnitEnds::default(),
            claims,
            found: Arc::new(found),
            noted: Mutex::new(noted),
            exclusive: Exclusive::default(),
            markers: Markers::new(&settings.state_dir),
            programs: Arc::new(Programs::new(&settings.state_dir)),
            boot: settings.boot,
            is_whole_host,
            skip_host_kinds: settings.skip_host_kinds,
            touched: AtomicBool::new(false),
        })
    }

    /// What jobs found whose end may be in no ledger: of an agent that was killed.
    pub fn take_noted(&self) -> Vec<(String, Found)> {
        std::mem::take(&mut self.noted.lock().unwrap_or_else(|e| e.into_inner()))
    }

    /// Takes over what the ledger holds as found; to be called once, before the first job.
    pub fn adopt_found(&self, found: &BTreeMap<String, Found>) {
        self.found.adopt(found);
    }

    /// The end of a job that found this goes into the ledger.
    pub fn found_reported(&self, found: &[(String, Option<Found>)]) {
        self.found.reported(found);
    }

    /// The ledger has all that was reported.
    ///
    /// # Errors
    /// If the file of notes cannot be written; it then has more than it needs, which does no harm.
    pub fn found_settled(&self) -> io::Result<()> {
        self.found.settle()
    }

    /// Takes over what the ledger holds as applied; to be called once, before the first job.
    ///
    /// Supervised processes that an earlier agent started and that still run are adopted as they are, also those that it did
    /// not come to record in its ledger; those that do not run are started, without waiting for them.
    pub async fn adopt(&self, applied: &[(TaskId, TaskParams)]) {
        for (task, params) in applied {
            self.claims.add(params, task);
        }
        self.programs.sweep(&applied.iter().filter_map(|(_, params)| programs::of(params)).collect());
        let processes =
            applied.iter().filter_map(|(task, params)| Some((task.clone(), supervisor::process_of(params)?.clone())));
        self.supervisor.adopt(processes.collect()).await;
    }

    /// Has these tasks claim all that these parameters state, in place of all that was promised before: no job of another task takes it
    /// away from then on.
    pub fn promise(&self, promises: &[Promise]) {
        self.claims.promise(promises);
    }

    /// All supervised processes that run at this moment, by task.
    pub fn processes(&self) -> Vec<Supervised> {
        self.supervisor.running()
    }

    /// Stops all supervised processes, side by side. The next `adopt` starts them again.
    pub async fn stop_processes(&self) {
        self.supervisor.stop_all().await;
    }

    /// Ends the supervision of all processes, which continue to run; the next agent adopts them. Dropping the host does the
    /// same.
    pub fn leave_processes(&self) {
        self.supervisor.leave();
    }

    /// Whether a job has asked the host to go down, and nothing else runs.
    pub fn is_going_down(&self) -> bool {
        self.exclusive.is_going_down()
    }
}
