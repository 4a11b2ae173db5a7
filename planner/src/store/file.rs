//! The open file, shared by the store and its readers.
//!
//! After a transaction has failed, redb refuses everything until the file is opened again: so it can be, below readers that stay.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{PoisonError, RwLock},
};

use redb::{
    Builder, Database, DatabaseError, ReadTransaction, ReadableDatabase as _, WriteTransaction, backends::FileBackend,
};

use super::error::{StoreError, access};
use crate::private;

/// What redb may keep in memory, in bytes.
const CACHE: usize = 4 << 20;

/// See the module.
pub(super) struct File {
    path: PathBuf,
    /// None between a failure and the next time it could be opened.
    db: RwLock<Option<Database>>,
}

impl File {
    /// Opens it, and makes it if it is not there.
    pub(super) fn open(path: &Path) -> Result<Self, StoreError> {
        let db = database(path, true)?;
        Ok(Self { path: path.to_owned(), db: RwLock::new(Some(db)) })
    }

    /// Opens it again. What was committed is there, and nothing else.
    pub(super) fn reopen(&self) -> Result<(), StoreError> {
        let mut db = self.db.write().unwrap_or_else(PoisonError::into_inner);
        // Closed first: the file can be open only once.
        *db = None;
        // A file that was removed is not created here: it would lack what was committed.
        *db = Some(database(&self.path, false)?);
        Ok(())
    }

    pub(super) fn begin_read(&self) -> Result<ReadTransaction, StoreError> {
        let db = self.db.read().unwrap_or_else(PoisonError::into_inner);
        db.as_ref().ok_or_else(|| access(redb::Error::DatabaseClosed))?.begin_read().map_err(access)
    }

    pub(super) fn begin_write(&self) -> Result<WriteTransaction, StoreError> {
        let db = self.db.read().unwrap_or_else(PoisonError::into_inner);
        db.as_ref().ok_or_else(|| access(redb::Error::DatabaseClosed))?.begin_write().map_err(access)
    }
}

fn database(path: &Path, create: bool) -> Result<Database, StoreError> {
    let file = private::open(path, fs::File::options().read(true).write(true).create(create));
    let file = file.map_err(DatabaseError::from).and_then(FileBackend::new);
    let opened = file.and_then(|file| Builder::new().set_cache_size(CACHE).create_with_backend(file));
    opened.map_err(|error| failure(path, error))
}

fn failure(path: &Path, source: DatabaseError) -> StoreError {
    match source {
        DatabaseError::DatabaseAlreadyOpen => StoreError::InUse { path: path.to_owned() },
        source => StoreError::Open { path: path.to_owned(), source },
    }
}
