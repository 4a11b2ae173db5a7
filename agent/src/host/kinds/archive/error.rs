//! Why an archive was not unpacked.

use std::{io, process::ExitStatus};

use groundplan_protocol::digest::Digest;

use super::members::Refused;
use crate::host::{
    error::{HostError, KindError},
    fs::files::FileError,
};

/// Why an archive was not unpacked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ArchiveError {
    #[error("the archive is refused, and nothing of it was put in place: {0}")]
    Refused(#[from] Refused),
    #[error("the archive is damaged or truncated, and nothing of it was put in place")]
    Read(#[source] io::Error),
    #[error("the archive is damaged or truncated at its member `{name}`, and nothing of it was put in place")]
    Member { name: String, source: io::Error },
    #[error("the format of the archive cannot be detected from its first bytes; give its `format`")]
    Unknown,
    #[error("this host has no `{program}`, which the archive needs; install it, or pack with gzip")]
    NoProgram { program: &'static str },
    #[error("cannot run `{program}`")]
    Program { program: &'static str, source: io::Error },
    #[error("`{program}` reports that the archive is damaged ({status}), and nothing of it was put in place")]
    Unpacked { program: &'static str, status: ExitStatus },
    #[error("there is no archive at {path} on this node")]
    NotThere { path: String },
    #[error("the archive at {path} has the SHA-256 digest {found}, not {wanted}")]
    Digest { path: String, found: Digest, wanted: Digest },
    #[error("{path}: cannot unpack here")]
    Stage { path: String, source: io::Error },
    #[error("the member `{member}` cannot be put in place, and nothing of the archive was")]
    InTheWay { member: String, source: Box<HostError> },
    #[error(
        "the member `{member}` cannot be put in place, and nothing of the archive was: /{member}: a directory with `{inside}`, \
         which {why}, is in the way; move it away"
    )]
    Foreign { member: String, inside: String, why: &'static str },
    #[error("the member `{member}` cannot be put in place; the next attempt starts over")]
    Place { member: String, source: Box<HostError> },
    #[error("cannot write the manifest of the archive in the state directory")]
    Manifest(#[source] io::Error),
    #[error(transparent)]
    File(#[from] FileError),
}

impl KindError for ArchiveError {}
