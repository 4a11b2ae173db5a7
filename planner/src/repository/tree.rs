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
}

impl SourceTree for GitTree {
    fn entries(&self) -> &[Entry] {
        &self.entries
    }

    fn read(&self, path: &str) -> Result<Arc<[u8]>, ReadError> {
        let error = |cause: String| ReadError { path: path.to_owned(), cause };
        let entry = self.entry(path).ok_or_else(|| error("it is not in the commit".to_owned()))?;
        match entry.kind {
            EntryKind::File => {}
            EntryKind::Symlink => return Err(error("it is a symbolic link, which is not followed".to_owned())),
            EntryKind::Submodule => return Err(error("it is a submodule, which is not read".to_owned())),
        }
        self.backend.blob(&entry.version).map_err(error)
    }
}
