//! The tree of a commit, as the core sees it: paths and bytes. Where they come from is not its business.

use std::{collections::BTreeMap, sync::Arc};

use groundplan_protocol::digest::Digest;

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
    /// Whether it is a file that may be run.
    pub executable: bool,
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

/// A tree in memory, for tests and for sites that are made up on the spot. Content names its own version.
#[derive(Debug, Clone, Default)]
pub struct MemoryTree {
    entries: Vec<Entry>,
    texts: BTreeMap<Arc<str>, Arc<[u8]>>,
}

impl MemoryTree {
    /// A tree of these files, in whatever order they come; the last of a path counts.
    pub fn new<P: Into<Arc<str>>, B: Into<Vec<u8>>>(files: impl IntoIterator<Item = (P, B)>) -> Self {
        let mut tree = Self::default();
        for (path, bytes) in files {
            tree.write(path, bytes);
        }
        tree
    }

    /// Puts a file, in place of whatever was there.
    pub fn write(&mut self, path: impl Into<Arc<str>>, bytes: impl Into<Vec<u8>>) {
        let bytes: Arc<[u8]> = bytes.into().into();
        let version = Digest::of(&bytes).to_string();
        let path = self.put(path.into(), EntryKind::File, version);
        self.texts.insert(path, bytes);
    }

    /// Puts a file that may be run.
    pub fn write_program(&mut self, path: impl Into<Arc<str>>, bytes: impl Into<Vec<u8>>) {
        let path = path.into();
        self.write(path.clone(), bytes);
        if let Ok(at) = self.entries.binary_search_by(|e| e.path.cmp(&path)) {
            self.entries[at].executable = true;
        }
    }

    /// Puts an entry that is no file.
    pub fn put_other(&mut self, path: impl Into<Arc<str>>, kind: EntryKind) {
        let path = self.put(path.into(), kind, String::new());
        self.texts.remove(&path);
    }

    /// Takes an entry away.
    pub fn remove(&mut self, path: &str) {
        self.entries.retain(|e| &*e.path != path);
        self.texts.remove(path);
    }

    fn put(&mut self, path: Arc<str>, kind: EntryKind, version: String) -> Arc<str> {
        let entry = Entry { path: path.clone(), kind, version: version.into(), executable: false };
        match self.entries.binary_search_by(|e| e.path.cmp(&path)) {
            Ok(at) => self.entries[at] = entry,
            Err(at) => self.entries.insert(at, entry),
        }
        path
    }
}

impl SourceTree for MemoryTree {
    fn entries(&self) -> &[Entry] {
        &self.entries
    }

    fn read(&self, path: &str) -> Result<Arc<[u8]>, ReadError> {
        let missing = || ReadError { path: path.to_owned(), cause: "no such file".to_owned() };
        self.texts.get(path).cloned().ok_or_else(missing)
    }
}
