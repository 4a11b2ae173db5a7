//! Why packages are not in the state that was asked for.

use std::io;

use crate::host::{
    error::{KindError, ToolError},
    found::FoundError,
    process::exec::ExecError,
};

/// Why packages could not be brought in sync.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PackageError {
    #[error("this host has none of apt-get, dnf, zypper and apk; install what is needed with a `command` instead")]
    NoManager,
    #[error(
        "there is no package `{name}` in the package sources of this host, whose index was fetched just now; search for its name \
         with `apt-cache search` or the like, or add the source that has it"
    )]
    Unknown { name: String },
    #[error(
        "there is no version `{wanted}` of the package `{name}` in the package sources of this host; there is {there}"
    )]
    NoVersion { name: String, wanted: String, there: String },
    #[error("`{name}` is a virtual package; name one that provides it: {providers}")]
    Virtual { name: String, providers: String },
    #[error("cannot {doing}: {cause}")]
    Failed { doing: String, cause: String, output: String },
    #[error("{holder} has held {lock} for more than {seconds} s; the next run of the task tries again")]
    Locked { lock: &'static str, holder: String, seconds: u64 },
    #[error("{names} cannot be removed: {others} would be removed, too; name these as well, or keep what they need")]
    Needed { names: String, others: String },
    #[error("{0} cannot hold packages; give a `version` instead")]
    NoHold(&'static str),
    #[error("the package manager reported success, but {0} is not installed as wanted")]
    NotThere(String),
    #[error("the package manager reported success, but {0} is still installed")]
    StillThere(String),
    #[error("cannot prevent the start of services with /usr/sbin/policy-rc.d")]
    Guard(#[source] io::Error),
    #[error("cancelled while another program used the package manager")]
    Cancelled,
    #[error(transparent)]
    Tool(#[from] ToolError),
    #[error(transparent)]
    Exec(#[from] ExecError),
    #[error(transparent)]
    Found(#[from] FoundError),
}

impl KindError for PackageError {}
