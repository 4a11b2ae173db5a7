//! What both backends return: a commit's description, the entries of its tree, and where the repository lies.

use std::{path::PathBuf, sync::Arc};

use groundplan_core::source::Entry;
use groundplan_protocol::ids::CommitId;

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
