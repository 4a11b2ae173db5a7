//! Why a file, directory or link could not be read, written or removed. Every message begins with the path as the operator wrote it.

use std::io;

use nix::errno::Errno;

use super::{paths::PathError, users::UserError};

/// Why a file, directory or link could not be read, written or removed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FileError {
    #[error(transparent)]
    Path(#[from] PathError),
    #[error("{path}")]
    Owner { path: String, source: UserError },
    #[error("{path}: cannot {doing}")]
    Io { path: String, doing: &'static str, source: io::Error },
    #[error("{path} is a symbolic link to {target}, and links are not followed here; name the file itself")]
    Link { path: String, target: String },
    #[error("{path}: its content is missing; it has not been fetched")]
    NoContent { path: String },
    #[error("{path} is not a regular file")]
    NoFile { path: String },
    #[error("{path}: {what}; such a file is not edited")]
    NoText { path: String, what: String },
    #[error("{path}: {there} is in the way; it is not replaced, because its content may exist nowhere else")]
    InTheWay { path: String, there: &'static str },
    #[error("{path}: {there} is in the way; remove it, or set `force = true` to replace it")]
    NeedsForce { path: String, there: &'static str },
}

impl FileError {
    /// Whether something of what was to be written may be in place although this failed.
    pub(crate) fn is_after_change(&self) -> bool {
        matches!(self, Self::Io { doing: SYNC | OPEN_DIRECTORY | CHANGE_ACL | CHANGE_MODE, .. })
    }
}

/// What fails after a name was put in place.
pub(super) const SYNC: &str = "sync its directory";
pub(super) const OPEN_DIRECTORY: &str = "open its directory";
/// What fails after the owner of a file that stays where it is may have been changed.
pub(super) const CHANGE_ACL: &str = "change its access control list";
pub(super) const CHANGE_MODE: &str = "change its mode";

pub(super) fn failed(path: &str, doing: &'static str) -> impl Fn(Errno) -> FileError {
    move |e| FileError::Io { path: path.to_owned(), doing, source: e.into() }
}

pub(super) fn io_failed(path: &str, doing: &'static str) -> impl Fn(io::Error) -> FileError {
    move |source| FileError::Io { path: path.to_owned(), doing, source }
}
