//! The manifest of what a task unpacked, in the state directory: an update and a removal need it to remove files.
//!
//! Written and synced before anything is put in place and again after it, so that the next agent has a record of everything that
//! an agent which was killed in between has put there.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    path::{Path, PathBuf},
};

use groundplan_protocol::{digest::Digest, ids::TaskId};
use serde::{Deserialize, Serialize};

use super::members::{Member, What};
use crate::private;

/// The members that a task unpacked, and where.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Manifest {
    pub(super) dest: String,
    /// Whether the task created the directory itself.
    pub(super) made_dest: bool,
    /// The archive, and how it was unpacked; absent while unpacking is in progress.
    pub(super) from: Option<Origin>,
    pub(super) members: BTreeMap<String, Entry>,
    /// While unpacking is in progress, what may still be at the path of a member instead of it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) earlier: BTreeMap<String, Vec<Entry>>,
    /// Members that were not put in place, because other tasks claimed their paths.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) spared: BTreeMap<String, Entry>,
}

/// What a task may have put at each path; more than one thing at a path if an agent was killed while it unpacked.
pub(super) type Put = BTreeMap<String, Vec<Entry>>;

impl Manifest {
    /// Of an archive of which nothing is put in place yet.
    pub(super) fn new(dest: &str) -> Self {
        let (members, earlier, spared) = Default::default();
        Self { dest: dest.to_owned(), made_dest: false, from: None, members, earlier, spared }
    }

    /// What the task may have put at each path.
    pub(super) fn put(&self) -> Put {
        let mut put = self.earlier.clone();
        for (path, entry) in &self.members {
            put.entry(path.clone()).or_default().push(entry.clone());
        }
        put
    }

    /// The same with all that was put before: what the task may have put until unpacking is done.
    pub(super) fn with(&self, before: &Put) -> Self {
        let mut all = self.clone();
        for (path, entry) in before.iter().flat_map(|(path, entries)| entries.iter().map(move |entry| (path, entry))) {
            let member = all.members.entry(path.clone()).or_insert_with(|| entry.clone());
            if member != entry {
                all.earlier.entry(path.clone()).or_default().push(entry.clone());
            }
        }
        all
    }
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

    /// All manifests but those of the task, and of tasks that hand over to it, for that directory.
    pub(super) fn others(&self, task: &TaskId, from: &[TaskId], dest: &str) -> Vec<Manifest> {
        self.files_of_others(task, from, dest).map(|(_, manifest)| manifest).collect()
    }

    /// The same, each with its file.
    fn files_of_others(&self, task: &TaskId, from: &[TaskId], dest: &str) -> impl Iterator<Item = (PathBuf, Manifest)> {
        let own: Vec<PathBuf> = [task].into_iter().chain(from).map(|task| self.path(task, dest)).collect();
        let entries = fs::read_dir(&self.0).into_iter().flatten().flatten().map(|entry| entry.path());
        let json =
            move |path: &PathBuf| path.extension().is_some_and(|extension| extension == "json") && !own.contains(path);
        entries.filter(json).filter_map(|path| read(&path).map(|manifest| (path, manifest)))
    }

    /// The absolute paths of the members of all archives, those that are left to other tasks included.
    pub(super) fn names(&self) -> BTreeSet<String> {
        let mut names = BTreeSet::new();
        for entry in fs::read_dir(&self.0).into_iter().flatten().flatten() {
            let Some(manifest) = read(&entry.path()) else { continue };
            let dest = manifest.dest.trim_end_matches('/');
            for members in [&manifest.members, &manifest.spared] {
                members.keys().for_each(|path| _ = names.insert(format!("{dest}/{path}")));
            }
        }
        names
    }

    /// Makes the directories that a task made and is about to leave those of the other tasks that have them as well: the last one
    /// removes them.
    pub(super) fn pass_on(&self, task: &TaskId, from: &[TaskId], manifest: &Manifest) -> io::Result<()> {
        let others = self.files_of_others(task, from, &manifest.dest).filter(|(_, other)| other.dest == manifest.dest);
        for (file, mut other) in others.collect::<Vec<_>>() {
            let before = other.clone();
            other.made_dest |= manifest.made_dest;
            for (path, entry) in &mut other.members {
                let was_made = matches!(manifest.members.get(path), Some(Entry::Directory { made: true, .. }));
                if let (Entry::Directory { made, .. }, true) = (entry, was_made) {
                    *made = true;
                }
            }
            if other != before {
                self.write(&file, &other)?;
            }
        }
        Ok(())
    }

    /// Makes the manifest of a task that hands over to `task` its own, if it has none.
    pub(super) fn take_over(&self, task: &TaskId, from: &[TaskId], dest: &str) -> io::Result<()> {
        if from.is_empty() || self.load(task, dest).is_some() {
            return Ok(());
        }
        from.iter().find_map(|from| self.load(from, dest)).map_or(Ok(()), |manifest| self.save(task, &manifest))
    }

    pub(super) fn save(&self, task: &TaskId, manifest: &Manifest) -> io::Result<()> {
        private::directory(&self.0)?;
        self.write(&self.path(task, &manifest.dest), manifest)
    }

    fn write(&self, path: &Path, manifest: &Manifest) -> io::Result<()> {
        private::replace(path, &serde_json::to_vec(manifest)?)
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
