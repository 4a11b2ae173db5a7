//! The tree of a commit, as the core sees it: paths and bytes. Where they come from is not its business.

use std::sync::Arc;

/// The files of one commit or folder. Paths are relative to the site, with `/`.
pub trait SourceTree {
    /// Every entry that is no directory, in path order.
    fn entries(&self) -> &[Entry];

    /// A file's bytes; asked for only where `entries` says [`EntryKind::File`].
    fn read(&self, path: &str) -> Result<Arc<[u8]>, ReadError>;

    /// The entry of that path.
    fn entry(&self, path: &str) -> Option<&Entry> {
        let entries = self.entries();
        entries.binary_search_by(|e| (*e.path).cmp(path)).ok().map(|i| &entries[i])
    }
}

/// An entry of a tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its path.
    pub path: Arc<str>,
    /// What it is.
    pub kind: EntryKind,
    /// Names its content, so that what was worked out from it can be kept: git's object id, or a digest.
    pub version: Arc<str>,
}

/// What an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EntryKind {
    /// A file.
    File,
    /// A symbolic link: never followed, its target may lie outside of the repository.
    Symlink,
    /// A submodule: its content is not in this repository.
    Submodule,
}

/// A file that could not be read.
#[derive(Debug, Clone, thiserror::Error)]
#[error("cannot read {path}: {cause}")]
pub struct ReadError {
    /// The file.
    pub path: String,
    /// Why, by the system's or git's word.
    pub cause: String,
}
