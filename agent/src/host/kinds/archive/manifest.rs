//! The manifest of what a task unpacked, in the state directory: an update and a removal need it to remove files.
//!
//! Written and synced before anything is put in place and again after it, so that the next agent has a record of everything that
//! an agent which was killed in between has put there.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
};

use groundplan_protocol::{digest::Digest, ids::TaskId};
use serde::{Deserialize, Serialize};

use super::members::{Member, What};

/// The members that a task unpacked, and where.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Manifest {
    pub(super) dest: String,
    /// Whether the task created the directory itself.
    pub(super) made_dest: bool,
    /// The archive, and how it was unpacked; absent while unpacking is in progress.
    pub(super) from: Option<Origin>,
    pub(super) members: BTreeMap<String, Entry>,
}

/// What decides the result of unpacking.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Origin {
    pub(super) sha256: Digest,
    pub(super) strip: u32,
    pub(super) owner: (u32, u32),
    pub(super) setuid: bool,
}

/// A member as it was unpacked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Entry {
    /// `made`: the task created it.
    Directory {
        made: bool,
        mode: u32,
    },
    File {
        mode: u32,
        size: u64,
        sha256: Digest,
    },
    Link {
        target: String,
    },
}

impl Entry {
    pub(super) fn of(member: &Member, made: bool) -> Self {
        match &member.what {
            What::Directory => Self::Directory { made, mode: member.mode },
            What::File { size, sha256, .. } => Self::File { mode: member.mode, size: *size, sha256: *sha256 },
            What::Link { target } => Self::Link { target: target.clone() },
        }
    }
}

/// The directory of manifests.
#[derive(Debug, Clone)]
pub(super) struct Store(PathBuf);

impl Store {
    pub(super) fn new(state_dir: &Path) -> Self {
        Self(state_dir.join("archive"))
    }

    /// One file for each task and directory.
    fn path(&self, task: &TaskId, dest: &str) -> PathBuf {
        self.0.join(format!("{task}-{}.json", Digest::of(dest.as_bytes()).short()))
    }

    /// The manifest of the task for that directory; `None` if there is none, or none that can be read.
    pub(super) fn load(&self, task: &TaskId, dest: &str) -> Option<Manifest> {
        read(&self.path(task, dest))
    }

    /// The manifests of all other tasks for the same directory.
    pub(super) fn others(&self, task: &TaskId, dest: &str) -> Vec<Manifest> {
        let own = self.path(task, dest);
        let entries = fs::read_dir(&self.0).into_iter().flatten().flatten().map(|entry| entry.path());
        let json = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "json") && *path != own;
        entries.filter(json).filter_map(|path| read(&path)).filter(|manifest| manifest.dest == dest).collect()
    }

    /// Makes the manifest of a task that hands over to `task` its own, if it has none.
    pub(super) fn take_over(&self, task: &TaskId, from: &[TaskId], dest: &str) -> io::Result<()> {
        if from.is_empty() || self.load(task, dest).is_some() {
            return Ok(());
        }
        from.iter().find_map(|from| self.load(from, dest)).map_or(Ok(()), |manifest| self.save(task, &manifest))
    }

    pub(super) fn save(&self, task: &TaskId, manifest: &Manifest) -> io::Result<()> {
        fs::create_dir_all(&self.0)?;
        let path = self.path(task, &manifest.dest);
        let temporary = path.with_extension("tmp");
        let mut file = File::create(&temporary)?;
        file.write_all(&serde_json::to_vec(manifest)?)?;
        file.sync_all()?;
        fs::rename(&temporary, &path)?;
        File::open(&self.0)?.sync_all()
    }

    pub(super) fn forget(&self, task: &TaskId, dest: &str) -> io::Result<()> {
        match fs::remove_file(self.path(task, dest)) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
            _ => Ok(()),
        }
    }
}

fn read(path: &Path) -> Option<Manifest> {
    serde_json::from_slice(&fs::read(path).ok()?).ok()
}
