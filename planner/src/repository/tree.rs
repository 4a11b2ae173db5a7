//! The tree of a commit.

use std::sync::{Arc, Mutex, PoisonError};

use groundplan_core::source::{Entry, EntryKind, ReadError, SourceTree};

use super::{
    backend::Backend,
    lfs::{self, LfsError},
};

/// The files of a commit. Their content is read when it is needed, which fails if git has deleted the commit meanwhile.
#[derive(Clone)]
pub struct GitTree {
    backend: Arc<Backend>,
    entries: Arc<[Entry]>,
    /// The URL that the repository mirrors.
    remote: Option<Arc<str>>,
    /// The first file that is there and could not be read.
    unread: Arc<Mutex<Option<ReadError>>>,
}

impl GitTree {
    pub(super) fn new(backend: Arc<Backend>, entries: Arc<[Entry]>, remote: Option<Arc<str>>) -> Self {
        Self { backend, entries, remote, unread: Arc::default() }
    }

    /// The first file that could not be read although the commit has it. It may be readable the next time, so that this is no fault of
    /// the commit.
    pub fn unread(&self) -> Option<ReadError> {
        self.unread.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn unreadable(&self, path: &str, cause: String) -> ReadError {
        let error = ReadError { path: path.to_owned(), cause };
        self.unread.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error.clone());
        error
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

    /// The content that a pointer of Git LFS stands for.
    fn large(&self, path: &str, pointer: &[u8]) -> Result<Vec<u8>, ReadError> {
        lfs::content(self.backend.command(), self.remote.as_deref(), pointer).map_err(|error| match error {
            LfsError::NotInstalled => ReadError {
                path: path.to_owned(),
                cause: "it is a pointer of Git LFS, and `git lfs` is not installed here to get its content: install it, or commit \
                        the file itself"
                    .to_owned(),
            },
            LfsError::Failed(cause) => self.unreadable(path, format!("it is a pointer of Git LFS: {cause}")),
        })
    }
}

impl SourceTree for GitTree {
    fn entries(&self) -> &[Entry] {
        &self.entries
    }

    fn read(&self, path: &str) -> Result<Arc<[u8]>, ReadError> {
        let bytes = self.backend.blob(self.file(path)?).map_err(|cause| self.unreadable(path, cause))?;
        match lfs::pointer(&bytes) {
            Some(_) => Ok(self.large(path, &bytes)?.into()),
            None => Ok(bytes),
        }
    }

    fn scan(&self, path: &str, take: &mut dyn FnMut(u64, &[u8]) -> bool) -> Result<(), ReadError> {
        // What may be a pointer is collected first; it is short.
        let mut short = None;
        let scanned = self.backend.scan(self.file(path)?, &mut |whole, piece| {
            if whole > lfs::LONGEST {
                return take(whole, piece);
            }
            short.get_or_insert_with(Vec::new).extend_from_slice(piece);
            true
        });
        scanned.map_err(|cause| self.unreadable(path, cause))?;
        let Some(bytes) = short else { return Ok(()) };
        match lfs::pointer(&bytes) {
            // One that is too long need not be fetched.
            Some(length) if !take(length, &[]) => {}
            Some(length) => {
                let content = self.large(path, &bytes)?;
                _ = content.chunks(PIECE).all(|piece| take(length, piece));
            }
            None => _ = take(bytes.len() as u64, &bytes),
        }
        Ok(())
    }
}

/// How much of a content is handed on at a time, in bytes.
const PIECE: usize = 64 << 10;
