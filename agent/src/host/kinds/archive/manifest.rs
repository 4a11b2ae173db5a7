//! What a task unpacked, kept in the state directory: what an update no longer has, and what removal takes away.
//!
//! Written, synced and renamed before anything is put in place and again after it, so that whatever an agent that is killed
//! in between has put there is known to the next.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
};

use groundplan_protocol::{digest::Digest, ids::TaskId};
use serde::{Deserialize, Serialize};

use super::members::{Member, What};

/// What was unpacked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Manifest {
    pub(super) dest: String,
    /// Whether the task made the directory itself.
    pub(super) made_dest: bool,
    /// The archive, and how it was unpacked; absent while that goes on.
    pub(super) from: Option<Origin>,
    pub(super) members: BTreeMap<String, Entry>,
}

/// What decides what lies there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Origin {
    pub(super) sha256: Digest,
    pub(super) strip: u32,
    pub(super) owner: (u32, u32),
    pub(super) setuid: bool,
}

/// A member, as it lies there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Entry {
    /// Whether the task made it.
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

/// Where manifests are kept.
#[derive(Debug, Clone)]
pub(super) struct Store(PathBuf);

impl Store {
    pub(super) fn new(state_dir: &Path) -> Self {
        Self(state_dir.join("archive"))
    }

    /// One for each task and directory.
    fn path(&self, task: &TaskId, dest: &str) -> PathBuf {
        self.0.join(format!("{task}-{}.json", Digest::of(dest.as_bytes()).short()))
    }

    /// What the task unpacked there; `None` if nothing, or if nobody can read it any more.
    pub(super) fn load(&self, task: &TaskId, dest: &str) -> Option<Manifest> {
        read(&self.path(task, dest))
    }

    /// What all other tasks unpacked into the same directory.
    pub(super) fn others(&self, task: &TaskId, dest: &str) -> Vec<Manifest> {
        let own = self.path(task, dest);
        let entries = fs::read_dir(&self.0).into_iter().flatten().flatten().map(|entry| entry.path());
        let json = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "json") && *path != own;
        entries.filter(json).filter_map(|path| read(&path)).filter(|manifest| manifest.dest == dest).collect()
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
