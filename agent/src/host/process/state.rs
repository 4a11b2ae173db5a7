//! The state of supervised processes, and what the supervisor shares with the monitor of each.

use std::{io, path::PathBuf, time::SystemTime};

use groundplan_protocol::ids::TaskId;
use nix::unistd::Pid;

use super::{
    backoff::Backoff,
    record::Records,
    spawn::{Environment, SpawnError},
};
use crate::host::health::Health;

/// A supervised process that runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Supervised {
    /// The task that has it supervised; at most one process for each.
    pub task: TaskId,
    /// The id of its process, which also leads its session and process group.
    pub pid: u32,
    /// When it was last started by a job, not by the supervision after it had ended.
    pub since: SystemTime,
    /// How often it was started again since then, because it ended by itself.
    pub restarts: u32,
}

/// Whether a process runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ProcessState {
    /// It runs; the fields are those of [`Supervised`].
    Up { pid: Pid, since: SystemTime, restarts: u32 },
    /// It does not; unless it was stopped, it will be started again.
    Down { why: String },
}

/// Why a process is not in the state that was asked for.
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
    Record(TaskId, #[source] io::Error),
    #[error("it is no longer supervised")]
    NotSupervised,
}

/// What the monitors of all processes share.
#[derive(Debug, Clone)]
pub(crate) struct Shared {
    pub(crate) environment: Environment,
    pub(crate) records: Records,
    /// The directory of their logs.
    pub(crate) logs: PathBuf,
    pub(crate) backoff: Backoff,
    /// Where a process that ends by itself is reported.
    pub(crate) health: Health,
}
