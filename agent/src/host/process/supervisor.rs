//! Supervised processes, all of them: which run, and requests to the monitor of each.
//!
//! In: requests from the `process` kind and, at the agent's start, what the ledger holds. Out: their states. One
//! [`ProcessMonitor`] (a task of the runtime) owns each process: nothing else signals or starts it. Dropping the supervisor ends
//! the monitors and leaves the processes running; the next one finds them by their records.

use std::{
    collections::BTreeMap,
    io,
    path::Path,
    sync::{Mutex, MutexGuard},
    time::Duration,
};

use groundplan_protocol::{
    ids::TaskId,
    kinds::{Process, TaskParams},
};
use tokio::sync::{mpsc, oneshot, watch};

use super::{
    backoff::Backoff,
    log::ProcessLog,
    monitor::{ProcessMonitor, Reloaded, Request, StartTerms},
    record::{ProcessIdentity, Record, Records},
    spawn::Environment,
    state::{ProcessState, Shared, Supervised, SupervisorError},
};
use crate::{host::health::Health, private};

/// The parameters of a supervised process, if the task is one.
pub(crate) fn process_of(params: &TaskParams) -> Option<&Process> {
    match params {
        TaskParams::Process(process) => Some(process),
        _ => None,
    }
}

/// The processes that this host's tasks have supervised, each with its monitor.
#[derive(Debug)]
pub(crate) struct Supervisor {
    shared: Shared,
    monitors: Mutex<BTreeMap<TaskId, Handle>>,
}

/// The way to a monitor.
#[derive(Debug, Clone)]
struct Handle {
    requests: mpsc::UnboundedSender<Request>,
    state: watch::Receiver<(Process, ProcessState)>,
}

impl Supervisor {
    pub(crate) fn new(
        environment: Environment,
        state_dir: &Path,
        backoff: Backoff,
        health: Health,
    ) -> io::Result<Self> {
        let logs = state_dir.join("log");
        private::directory(&logs)?;
        let records = Records::new(state_dir.join("process"))?;
        Ok(Self { shared: Shared { environment, records, logs, backoff, health }, monitors: Mutex::default() })
    }

    /// Adopts the processes that run, and starts those of `applied` that do not.
    pub(crate) async fn adopt(&self, applied: Vec<(TaskId, Process)>) {
        let mut missing: BTreeMap<TaskId, Process> = applied.into_iter().collect();
        let records = self.shared.records.all().unwrap_or_else(|e| {
            crate::log::warn(format_args!("cannot read the records of supervised processes: {e}"));
            Vec::new()
        });
        for (task, record) in records {
            let running = self.shared.records.running(&task, &record);
            let applied = missing.remove(&task);
            match (running, applied) {
                // Also without an applied task: the record may be newer than the ledger, and the task is then applied again.
                (Some(identity), _) => self.adopt_one(&task, record, identity),
                // As it was last started: the record may be newer than the ledger.
                (None, Some(_)) => drop(missing.insert(task, record.process)),
                (None, None) => self.forget(&task),
            }
        }
        for (task, process) in missing {
            crate::log::info(format_args!("{task}: is not running; starting it"));
            // Nothing waits for the start: a failure goes to its log, and it is tried again with back-off.
            drop(self.send(&task, &process, |reply| Request::Start {
                process: process.clone(),
                terms: StartTerms { settle: Duration::ZERO, retry: true },
                reply,
            }));
        }
    }

    fn adopt_one(&self, task: &TaskId, record: Record, identity: ProcessIdentity) {
        crate::log::info(format_args!("{task}: already runs as process {}", identity.pid()));
        let log = ProcessLog::new(&self.shared.logs, task);
        let (requests, inbox) = mpsc::unbounded_channel();
        let (monitor, state) = ProcessMonitor::adopt(self.shared.clone(), task.clone(), log, inbox, record, identity);
        tokio::spawn(monitor.run());
        self.lock().insert(task.clone(), Handle { requests, state });
    }

    /// The description and the state of the process of `task`; `None` if none is supervised.
    pub(crate) fn process(&self, task: &TaskId) -> Option<(Process, ProcessState)> {
        Some(self.lock().get(task)?.state.borrow().clone())
    }

    pub(crate) fn running(&self) -> Vec<Supervised> {
        let monitors = self.lock();
        let running = monitors.iter().filter_map(|(task, monitor)| match monitor.state.borrow().1 {
            ProcessState::Up { pid, since, restarts } => {
                Some(Supervised { task: task.clone(), pid: pid.as_raw().unsigned_abs(), since, restarts })
            }
            ProcessState::Down { .. } => None,
        });
        running.collect()
    }

    /// Starts the process, in place of the one that runs.
    pub(crate) async fn start(
        &self,
        task: &TaskId,
        process: Process,
        terms: StartTerms,
    ) -> Result<(), SupervisorError> {
        let reply = self.send(task, &process, |reply| Request::Start { process: process.clone(), terms, reply });
        reply.await.unwrap_or(Err(SupervisorError::NotSupervised))
    }

    /// Changes how the process is stopped and reloaded, without touching it.
    pub(crate) async fn amend(&self, task: &TaskId, process: Process) -> Result<(), SupervisorError> {
        let reply = self.send(task, &process, |reply| Request::Amend { process: process.clone(), reply });
        reply.await.unwrap_or(Err(SupervisorError::NotSupervised))
    }

    /// Makes the process read its configuration again; `terms` are those of its start, if it needs one.
    pub(crate) async fn reload(&self, task: &TaskId, terms: StartTerms) -> Result<Reloaded, SupervisorError> {
        let Some(monitor) = self.lock().get(task).cloned() else { return Err(SupervisorError::NotSupervised) };
        let (reply, answer) = oneshot::channel();
        // A monitor that has ended drops the request and its reply, and the answer is an error.
        let _ = monitor.requests.send(Request::Reload { terms, reply });
        answer.await.unwrap_or(Err(SupervisorError::NotSupervised))
    }

    /// Stops the process and its supervision; whether it ran.
    pub(crate) async fn stop(&self, task: &TaskId) -> Result<bool, SupervisorError> {
        let Some(monitor) = self.lock().get(task).cloned() else {
            self.forget(task);
            return Ok(false);
        };
        let (reply, answer) = oneshot::channel();
        let _ = monitor.requests.send(Request::Stop { reply });
        let ran = answer.await.unwrap_or(Err(SupervisorError::NotSupervised))?;
        // Only now that it has ended: until then the record must find it.
        self.lock().remove(task);
        self.forget(task);
        Ok(ran)
    }

    /// Ends the supervision of the process, which continues to run and is not adopted again.
    pub(crate) fn release(&self, task: &TaskId) {
        self.lock().remove(task);
        self.shared.health.works(task);
        self.forget(task);
    }

    pub(crate) async fn stop_all(&self) {
        // All requests first, so that the processes stop in parallel; and without the lock, which the waiting would hold.
        let stops: Vec<_> = {
            let monitors = self.lock();
            monitors
                .iter()
                .map(|(task, monitor)| {
                    let (reply, answer) = oneshot::channel();
                    let _ = monitor.requests.send(Request::Stop { reply });
                    (task.clone(), answer)
                })
                .collect()
        };
        for (task, stop) in stops {
            match stop.await.unwrap_or(Err(SupervisorError::NotSupervised)) {
                Ok(_) => {
                    self.lock().remove(&task);
                    self.forget(&task);
                }
                Err(e) => crate::log::warn(format_args!("{task}: cannot be stopped: {}", crate::log::chain(&e))),
            }
        }
    }

    pub(crate) fn leave(&self) {
        self.lock().clear();
    }

    /// Returns once the process has ended by itself.
    pub(crate) async fn ended(&self, task: &TaskId) -> SupervisorError {
        let Some(mut state) = self.lock().get(task).map(|monitor| monitor.state.clone()) else {
            return SupervisorError::NotSupervised;
        };
        match state.wait_for(|(_, state)| matches!(state, ProcessState::Down { .. })).await {
            Ok(state) => match &state.1 {
                ProcessState::Down { why } => SupervisorError::Ended(why.clone()),
                ProcessState::Up { .. } => SupervisorError::NotSupervised,
            },
            Err(_) => SupervisorError::NotSupervised,
        }
    }

    /// Sends a request to the monitor of `task`, which is made if there is none.
    fn send<T>(
        &self,
        task: &TaskId,
        process: &Process,
        request: impl FnOnce(oneshot::Sender<T>) -> Request,
    ) -> oneshot::Receiver<T> {
        let (reply, answer) = oneshot::channel();
        let mut monitors = self.lock();
        let monitor = monitors.entry(task.clone()).or_insert_with(|| {
            let log = ProcessLog::new(&self.shared.logs, task);
            let (requests, inbox) = mpsc::unbounded_channel();
            let (monitor, state) = ProcessMonitor::new(self.shared.clone(), task.clone(), log, inbox, process.clone());
            tokio::spawn(monitor.run());
            Handle { requests, state }
        });
        let _ = monitor.requests.send(request(reply));
        answer
    }

    fn forget(&self, task: &TaskId) {
        if let Err(e) = self.shared.records.forget(task) {
            crate::log::warn(format_args!("{task}: cannot remove the record of its process: {e}"));
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<TaskId, Handle>> {
        self.monitors.lock().unwrap_or_else(|e| e.into_inner())
    }
}
