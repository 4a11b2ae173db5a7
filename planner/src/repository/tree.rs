//! The tree of a commit.

use std::sync::Arc;

use groundplan_core::source::{Entry, EntryKind, ReadError, SourceTree};

use super::backend::Backend;

/// The files of a commit. Their content is read when it is needed, which fails if git has deleted the commit meanwhile.
#[derive(Clone)]
pub struct GitTree {
    backend: Arc<Backend>,
    entries: Arc<[Entry]>,
}

impl GitTree {
    pub(super) fn new(backend: Arc<Backend>, entries: Arc<[Entry]>) -> Self {
        Self { backend, entries }
    }

    /// The object id of a file.
    fn file(&self, path: &str) -> Result<&str, ReadError> {
        let error = |cause: &str| ReadError { path: path.to_owned(), cause: cause.to_owned() };
        let entry = self.entry(path).ok_or_else(|| error("it is not in the commit"))?;
        match entry.kind {
            EntryKind::File => Ok(&entry.version),
            EntryKind::Symlink => Err(error("it is a symbolic link, which is not followed")),
            EntryKind::Submodule => Err(error("it is a submodule, which is not read")),
        }
    }
}

impl SourceTree for GitTree {
    fn entries(&self) -> &[Entry] {
        &self.entries
    }

    fn read(&self, path: &str) -> Result<Arc<[u8]>, ReadError> {
        self.backend.blob(self.file(path)?).map_err(|cause| ReadError { path: path.to_owned(), cause })
    }

    fn scan(&self, path: &str, take: &mut dyn FnMut(u64, &[u8]) -> bool) -> Result<(), ReadError> {
        self.backend.scan(self.file(path)?, take).map_err(|cause| ReadError { path: path.to_owned(), cause })
    }
}
