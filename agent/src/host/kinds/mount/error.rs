//! Why a mount or a swap area is not in the state that was asked for.

use crate::host::{
    error::{KindError, ToolError},
    found::FoundError,
};

/// Why a mount could not be brought in sync.
#[derive(Debug, thiserror::Error)]
pub(crate) enum MountError {
    #[error("this host has no `{program}`; install util-linux")]
    Missing { program: String },
    #[error("{path} cannot be mounted; /etc/fstab is as it was{}", before(former))]
    Mount { path: String, former: Former, source: ToolError },
    #[error("{found} is the root file system, and not {wanted}; another one takes its place only at a boot")]
    Root { found: String, wanted: String },
    #[error("the swap area {area} cannot be {doing}")]
    Swap { doing: &'static str, area: String, source: ToolError },
    #[error("{path} cannot be unmounted{}", used(by))]
    Unmount { path: String, by: String, source: ToolError },
    #[error("{path}: what was mounted there before cannot be mounted again")]
    Again { path: String, source: ToolError },
    #[error("mount reported success, but nothing is mounted at {path}")]
    NotThere { path: String },
    #[error(transparent)]
    Found(#[from] FoundError),
}

impl KindError for MountError {}

/// What became of the file system that was mounted before the one that cannot be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Former {
    /// There was none, or it is still mounted.
    Untouched,
    Back,
    Lost,
}

fn before(former: &Former) -> &'static str {
    match former {
        Former::Untouched => "",
        Former::Back => ", and what was mounted there before is mounted again",
        Former::Lost => ", but what was mounted there before could not be mounted again",
    }
}

fn used(by: &str) -> String {
    if by.is_empty() { String::new() } else { format!(": it is used by {by}") }
}

/// The error for a program that the host does not have.
pub(super) fn missing(error: &ToolError) -> Option<MountError> {
    match error {
        ToolError::Missing { program } => Some(MountError::Missing { program: program.clone() }),
        _ => None,
    }
}
