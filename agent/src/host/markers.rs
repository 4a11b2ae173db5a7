//! Reboot markers: what is on the disk while a reboot is due, one file for each task.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
};

use groundplan_protocol::ids::{Generation, TaskId};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::error::KindError;
use crate::private;

/// A reboot that is due.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Marker {
    /// The boot in which the reboot was asked for.
    pub(crate) boot: String,
    /// The plan that asked.
    pub(crate) plan: Generation,
    /// The parameters that decide what was asked for.
    pub(crate) asked: Value,
}

/// A marker cannot be written or removed.
#[derive(Debug, thiserror::Error)]
#[error("cannot record that the host is to go down, so it is not rebooted: {}", path.display())]
pub(crate) struct MarkerError {
    path: PathBuf,
    source: io::Error,
}

impl KindError for MarkerError {}

/// The directory of markers.
#[derive(Debug)]
pub(crate) struct Markers(PathBuf);

impl Markers {
    /// The markers below the agent's state directory.
    pub(crate) fn new(state_dir: &Path) -> Self {
        Self(state_dir.join("reboot"))
    }

    fn path(&self, task: &TaskId) -> PathBuf {
        self.0.join(format!("{task}.json"))
    }

    /// The marker of a task. One that cannot be read was torn by a power loss, before the host was asked to go down.
    pub(crate) fn read(&self, task: &TaskId) -> Option<Marker> {
        serde_json::from_slice(&fs::read(self.path(task)).ok()?).ok()
    }

    /// Puts a marker on the disk, its directories included.
    pub(crate) fn write(&self, task: &TaskId, marker: &Marker) -> Result<(), MarkerError> {
        let path = self.path(task);
        let write = || {
            private::directory(&self.0)?;
            private::replace(&path, &serde_json::to_vec(marker)?)?;
            self.0.parent().map_or(Ok(()), |above| File::open(above)?.sync_all())
        };
        write().map_err(|source| MarkerError { path, source })
    }

    /// Removes the marker of a task.
    pub(crate) fn forget(&self, task: &TaskId) -> Result<(), MarkerError> {
        let path = self.path(task);
        match fs::remove_file(&path).and_then(|()| File::open(&self.0)?.sync_all()) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => Err(MarkerError { path, source }),
            _ => Ok(()),
        }
    }
}
