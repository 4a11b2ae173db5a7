//! Supervised processes, all of them: who runs, and orders to the keeper of each.
//!
//! In: orders from the `process` kind and, at the agent's start, what the ledger holds. Out: how they are. One keeper (a
//! task of the runtime) per process owns it: nothing else signals or starts it. Dropping the supervisor ends the keepers
//! and leaves the processes running; the next one finds them by their records.

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard},
    time::{Duration, SystemTime},
};

use groundplan_protocol::{ids::TaskId, kinds::Process};
use nix::unistd::Pid;
use tokio::sync::{mpsc, oneshot, watch};

use super::{
    journal::Journal,
    keeper::{Keeper, Order, Terms},
    record::{ProcessIdentity, Record, Records},
    spawn::{SpawnError, Surroundings},
};

/// How a process that ends by itself is started again.
#[derive(Debug, Clone, Copy)]
pub struct Backoff {
    /// How long to wait the first time; doubled each time.
    pub first: Duration,
    /// How long at most.
    pub most: Duration,
    /// How long it must run for the waiting to begin anew.
    pub healthy: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        let [first, most, healthy] = [200, 30_000, 60_000].map(Duration::from_millis);
        Self { first, most, healthy }
    }
}

impl Backoff {
    /// How long to wait after so many ends in a row, from 1.
    pub(crate) fn after(&self, ends: u32) -> Duration {
        let factor = 1_u32.checked_shl(ends.saturating_sub(1)).unwrap_or(u32::MAX);
        self.first.saturating_mul(factor).min(self.most)
    }
}

/// A supervised process that runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Supervised {
    /// Its task.
    pub task: TaskId,
    /// The id of its process, which also leads its session and process group.
    pub pid: u32,
    /// When it was last started on purpose: by a job, not because it had ended.
    pub since: SystemTime,
    /// How often it was started again since then, because it ended by itself.
    pub restarts: u32,
}

/// How a process is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Life {
    Up {
        pid: Pid,
        since: SystemTime,
        restarts: u32,
    },
    /// It ended, and will be started again.
    Down {
        why: String,
    },
}

/// Why a process is not as ordered.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SupervisorError {
    #[error(transparent)]
    Spawn(#[from] SpawnError),
    #[error("the process {0}")]
    Ended(String),
    #[error("the process {0} does not end, not even by KILL")]
    Unkillable(Pid),
    #[error("cannot signal the process {0}")]
    Signal(Pid, #[source] nix::Error),
    #[error("cannot write the record or log of {0}")]
    State(TaskId, #[source] io::Error),
    #[error("it is no longer supervised")]
    Gone,
}

/// Whether one must be started anew to become the other; how it is stopped or reloaded does not matter.
pub(crate) fn differs(a: &Process, b: &Process) -> bool {
    let essence = |process: &Process| Process { reload_signal: None, stop_timeout: None, ..process.clone() };
    essence(a) != essence(b)
}

/// All supervised processes.
#[derive(Debug)]
pub(crate) struct Supervisor {
    shared: Shared,
    keepers: Mutex<BTreeMap<TaskId, Handle>>,
}

/// What all keepers share.
#[derive(Debug, Clone)]
pub(crate) struct Shared {
    pub(crate) surroundings: Surroundings,
    pub(crate) records: Records,
    pub(crate) logs: PathBuf,
    pub(crate) backoff: Backoff,
}

/// A keeper, from outside.
#[derive(Debug, Clone)]
struct Handle {
    orders: mpsc::UnboundedSender<Order>,
    state: watch::Receiver<(Process, Life)>,
}

impl Supervisor {
    pub(crate) fn new(surroundings: Surroundings, state_dir: &Path, backoff: Backoff) -> io::Result<Self> {
        let logs = state_dir.join("log");
        std::fs::create_dir_all(&logs)?;
        let records = Records::new(state_dir.join("process"))?;
        Ok(Self { shared: Shared { surroundings, records, logs, backoff }, keepers: Mutex::default() })
    }

    /// Takes over what runs, and starts what of `applied` does not.
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
                (Some(identity), _) => self.take_over(&task, record, identity),
                // As it was last started, which may be newer than the ledger.
                (None, Some(_)) => drop(missing.insert(task, record.process)),
                (None, None) => self.forget(&task),
            }
        }
        for (task, process) in missing {
            crate::log::info(format_args!("{task}: does not run; it is started"));
            // Whether it could be started is seen in its log; it is tried again with back-off.
            drop(self.order(&task, &process, |reply| Order::Start {
                process: process.clone(),
                terms: Terms { settle: Duration::ZERO, insist: true },
                reply,
            }));
        }
    }

    fn take_over(&self, task: &TaskId, record: Record, identity: ProcessIdentity) {
        crate::log::info(format_args!("{task}: runs as process {}", identity.pid()));
        let journal = Journal::new(&self.shared.logs, task);
        let (orders, inbox) = mpsc::unbounded_channel();
        let (keeper, state) = Keeper::adopt(self.shared.clone(), task.clone(), journal, inbox, record, identity);
        tokio::spawn(keeper.keep());
        self.lock().insert(task.clone(), Handle { orders, state });
    }

    /// What the process of `task` is to be, and how it is; `None` if there is none.
    pub(crate) fn process(&self, task: &TaskId) -> Option<(Process, Life)> {
        Some(self.lock().get(task)?.state.borrow().clone())
    }

    pub(crate) fn running(&self) -> Vec<Supervised> {
        let keepers = self.lock();
        let running = keepers.iter().filter_map(|(task, keeper)| match keeper.state.borrow().1 {
            Life::Up { pid, since, restarts } => {
                Some(Supervised { task: task.clone(), pid: pid.as_raw().unsigned_abs(), since, restarts })
            }
            Life::Down { .. } => None,
        });
        running.collect()
    }

    /// Starts it, in place of what runs.
    pub(crate) async fn start(&self, task: &TaskId, process: Process, terms: Terms) -> Result<(), SupervisorError> {
        let reply = self.order(task, &process, |reply| Order::Start { process: process.clone(), terms, reply });
        reply.await.unwrap_or(Err(SupervisorError::Gone))
    }

    /// Changes how it is stopped and reloaded, without touching it.
    pub(crate) async fn amend(&self, task: &TaskId, process: Process) -> Result<(), SupervisorError> {
        let reply = self.order(task, &process, |reply| Order::Amend { process: process.clone(), reply });
        reply.await.unwrap_or(Err(SupervisorError::Gone))
    }

    /// Lets it read its configuration again.
    pub(crate) async fn reload(&self, task: &TaskId) -> Result<(), SupervisorError> {
        let Some(keeper) = self.lock().get(task).cloned() else { return Err(SupervisorError::Gone) };
        let (reply, answer) = oneshot::channel();
        // A keeper that is gone drops the reply with the order.
        let _ = keeper.orders.send(Order::Reload { reply });
        answer.await.unwrap_or(Err(SupervisorError::Gone))
    }

    /// Stops it for good; whether it ran.
    pub(crate) async fn stop(&self, task: &TaskId) -> Result<bool, SupervisorError> {
        let Some(keeper) = self.lock().get(task).cloned() else {
            self.forget(task);
            return Ok(false);
        };
        let (reply, answer) = oneshot::channel();
        let _ = keeper.orders.send(Order::Stop { reply });
        let ran = answer.await.unwrap_or(Err(SupervisorError::Gone))?;
        self.lock().remove(task);
        self.forget(task);
        Ok(ran)
    }

    pub(crate) async fn stop_all(&self) {
        let stops: Vec<_> = {
            let keepers = self.lock();
            keepers
                .iter()
                .map(|(task, keeper)| {
                    let (reply, answer) = oneshot::channel();
                    let _ = keeper.orders.send(Order::Stop { reply });
                    (task.clone(), answer)
                })
                .collect()
        };
        for (task, stop) in stops {
            match stop.await.unwrap_or(Err(SupervisorError::Gone)) {
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

    /// Returns once it has ended, other than by an order.
    pub(crate) async fn ended(&self, task: &TaskId) -> SupervisorError {
        let Some(mut state) = self.lock().get(task).map(|keeper| keeper.state.clone()) else {
            return SupervisorError::Gone;
        };
        match state.wait_for(|(_, life)| matches!(life, Life::Down { .. })).await {
            Ok(state) => match &state.1 {
                Life::Down { why } => SupervisorError::Ended(why.clone()),
                Life::Up { .. } => SupervisorError::Gone,
            },
            Err(_) => SupervisorError::Gone,
        }
    }

    /// Gives an order to the keeper of `task`, which is made if there is none.
    fn order<T>(
        &self,
        task: &TaskId,
        process: &Process,
        order: impl FnOnce(oneshot::Sender<T>) -> Order,
    ) -> oneshot::Receiver<T> {
        let (reply, answer) = oneshot::channel();
        let mut keepers = self.lock();
        let keeper = keepers.entry(task.clone()).or_insert_with(|| {
            let journal = Journal::new(&self.shared.logs, task);
            let (orders, inbox) = mpsc::unbounded_channel();
            let (keeper, state) = Keeper::new(self.shared.clone(), task.clone(), journal, inbox, process.clone());
            tokio::spawn(keeper.keep());
            Handle { orders, state }
        });
        let _ = keeper.orders.send(order(reply));
        answer
    }

    fn forget(&self, task: &TaskId) {
        if let Err(e) = self.shared.records.forget(task) {
            crate::log::warn(format_args!("{task}: cannot remove the record of its process: {e}"));
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<TaskId, Handle>> {
        self.keepers.lock().unwrap_or_else(|e| e.into_inner())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn back_off_doubles_up_to_its_limit() {
        let backoff = Backoff::default();
        let waits: Vec<u128> = [1, 2, 3, 8, 9, 40, u32::MAX].map(|n| backoff.after(n).as_millis()).into();
        assert_eq!(waits, [200, 400, 800, 25_600, 30_000, 30_000, 30_000]);
    }
}
