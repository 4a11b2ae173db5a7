//! The tree of a commit as the core reads it: paths and bytes, wherever they come from.

use std::{collections::BTreeMap, sync::Arc};

use groundplan_protocol::digest::Digest;

/// The files of one commit or folder. Paths are relative to the site, with `/`.
pub trait SourceTree: Sync {
    /// Every entry that is no directory, in path order.
    fn entries(&self) -> &[Entry];

    /// A file's bytes; called only for entries of [`EntryKind::File`].
    ///
    /// # Errors
    /// If the file cannot be read.
    fn read(&self, path: &str) -> Result<Arc<[u8]>, ReadError>;

    /// Reads a file in pieces, so that a long one is never held as a whole; called only for entries of [`EntryKind::File`].
    /// `take` gets the length of the file with each piece, the first of which may be empty, and returns whether to go on.
    ///
    /// # Errors
    /// If the file cannot be read.
    fn scan(&self, path: &str, take: &mut dyn FnMut(u64, &[u8]) -> bool) -> Result<(), ReadError> {
        let bytes = self.read(path)?;
        take(bytes.len() as u64, &bytes);
        Ok(())
    }

    /// The entry of that path.
    fn entry(&self, path: &str) -> Option<&Entry> {
        let entries = self.entries();
        entries.binary_search_by(|e| (*e.path).cmp(path)).ok().map(|i| &entries[i])
    }
}

/// An entry of a tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Path below the top of the site.
    pub path: Arc<str>,
    /// File, link or submodule.
    pub kind: EntryKind,
    /// Identifies its content: git's object id, or a digest. Results computed from equal versions are reused.
    pub version: Arc<str>,
    /// Whether it is a file with the executable bit.
    pub executable: bool,
}

/// The kind of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EntryKind {
    /// A regular file, with or without the executable bit.
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
    /// Path below the top of the site.
    pub path: String,
    /// Why, as reported by the system or git.
    pub cause: String,
}

/// A tree in memory, for tests and for sites that are generated. The version of a file is the digest of its content.
#[derive(Debug, Clone, Default)]
pub struct MemoryTree {
    entries: Vec<Entry>,
    texts: BTreeMap<Arc<str>, Arc<[u8]>>,
}

impl MemoryTree {
    /// A tree of these files, in any order; of several with one path the last counts.
    pub fn new<P: Into<Arc<str>>, B: Into<Vec<u8>>>(files: impl IntoIterator<Item = (P, B)>) -> Self {
        let mut tree = Self::default();
        for (path, bytes) in files {
            tree.write(path, bytes);
        }
        tree
    }

    /// Writes a file, in place of any entry of that path.
    pub fn write(&mut self, path: impl Into<Arc<str>>, bytes: impl Into<Vec<u8>>) {
        let bytes: Arc<[u8]> = bytes.into().into();
        let version = Digest::of(&bytes).to_string();
        let path = self.put(path.into(), EntryKind::File, version);
        self.texts.insert(path, bytes);
    }

    /// Writes a file with the executable bit.
    pub fn write_program(&mut self, path: impl Into<Arc<str>>, bytes: impl Into<Vec<u8>>) {
        let path = path.into();
        self.write(path.clone(), bytes);
        if let Ok(at) = self.entries.binary_search_by(|e| e.path.cmp(&path)) {
            self.entries[at].executable = true;
        }
    }

    /// Adds an entry that is no file, in place of any entry of that path.
    pub fn put_other(&mut self, path: impl Into<Arc<str>>, kind: EntryKind) {
        let path = self.put(path.into(), kind, String::new());
        self.texts.remove(&path);
    }

    /// Removes the entry of that path, if there is one.
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
