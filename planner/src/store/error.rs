//! Why the planner's store cannot be used, and what an operator can do about it.

use std::{io, path::PathBuf};

use redb::DatabaseError;

/// Why the store cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Another planner has it open.
    #[error("another planner is running on {}", path.display())]
    InUse {
        /// The file.
        path: PathBuf,
    },
    /// Written by a later release.
    #[error("{} was written by a newer groundplan (layout {found}; this one reads up to {known})", path.display())]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its layout.
        found: u32,
        /// The latest layout that this release reads.
        known: u32,
    },
    /// Its directory cannot be made.
    #[error("cannot use {}", path.display())]
    Io {
        /// The directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It cannot be opened.
    #[error("cannot open {}", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: DatabaseError,
    },
    /// It cannot be read or written; the disk may be full.
    #[error("cannot read or write the planner's store")]
    Access(#[source] Box<redb::Error>),
    /// A row does not hold what its table should.
    #[error("the planner's store is damaged")]
    Record(#[source] serde_json::Error),
}

impl StoreError {
    /// What to do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::InUse { .. } => Some("stop it, or give this one another --state".to_owned()),
            Self::Newer { .. } => Some(
                "use that release, or move the file away: git and the agents bring back all but the history".to_owned(),
            ),
            Self::Open { .. } | Self::Record(_) => {
                Some("move the file away: git and the agents bring back all but the history".to_owned())
            }
            Self::Io { .. } | Self::Access(_) => None,
        }
    }
}

/// Any of redb's errors.
pub(super) fn access(error: impl Into<redb::Error>) -> StoreError {
    StoreError::Access(Box::new(error.into()))
}
