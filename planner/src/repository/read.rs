//! What both backends return: a commit's description, the entries of its tree, and where the repository lies.

use std::{path::PathBuf, sync::Arc};

use groundplan_core::source::Entry;
use groundplan_protocol::ids::CommitId;

use super::error::RepositoryError;

/// The directories of an open repository.
#[derive(Debug, Clone)]
pub(super) struct Paths {
    /// The path as it was given to `open`.
    pub(super) given: PathBuf,
    /// The directory with `HEAD` (of a linked work tree: its own below `.git/worktrees`).
    pub(super) git_dir: PathBuf,
    /// The directory with `refs` and `objects`; equals `git_dir` except for linked work trees.
    pub(super) common_dir: PathBuf,
}

/// A commit as `status` and `history` show it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommitInfo {
    /// SHA-1 or SHA-256, as the repository has it.
    pub id: CommitId,
    /// The first line of its message; bytes that are not UTF-8 are replaced.
    pub subject: String,
    /// Its author's name, without the address.
    pub author: String,
    /// When it was committed, in seconds since the Unix epoch.
    pub time: i64,
}

/// Sorts entries as [`groundplan_core::SourceTree`] promises: by path, each path once.
pub(super) fn sorted(mut entries: Vec<Entry>) -> Arc<[Entry]> {
    // Git's own order is the same, except that names which are not UTF-8 change when their bytes are replaced, and may then coincide.
    if !entries.is_sorted_by(|a, b| a.path < b.path) {
        entries.sort_by(|a, b| a.path.cmp(&b.path));
        entries.dedup_by(|a, b| a.path == b.path);
    }
    entries.into()
}

/// How many directories may lie within each other.
const DEEPEST: usize = 128;
/// What the entries of all directories of a tree may take, in bytes: a hundred thousand files, and more.
const ROOM: usize = 64 << 20;

/// The room for the entries of a tree. Git stores a directory once, wherever it is, so that a tree of a thousand bytes may have more files
/// than any machine has memory.
pub(super) struct Room {
    left: usize,
}

impl Room {
    pub(super) fn new() -> Self {
        Self { left: ROOM }
    }

    /// Takes the room of an entry, with `path` if it is not shared with one that took it before.
    pub(super) fn take(&mut self, path: Option<&str>) -> Result<(), RepositoryError> {
        let size = size_of::<Entry>() + path.map_or(0, str::len);
        let why =
            || format!("it has too many files, or too long paths: listed, they take more than {} MiB", ROOM >> 20);
        self.left = self.left.checked_sub(size).ok_or_else(|| RepositoryError::Unlisted { why: why() })?;
        Ok(())
    }

    /// Checks that a directory may be `depth` levels below the root.
    pub(super) fn descend(depth: usize) -> Result<(), RepositoryError> {
        let why = || format!("its directories are nested more than {DEEPEST} deep");
        if depth > DEEPEST { Err(RepositoryError::Unlisted { why: why() }) } else { Ok(()) }
    }
}
