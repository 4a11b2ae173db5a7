//! Why a job or a drift check failed, as the operator reads it.

use std::{io, path::PathBuf};

use groundplan_protocol::{blob::InvalidContent, ids::TaskId};

use super::{
    fs::{files::FileError, paths::PathError},
    probe::ProbeError,
    process::{exec::ExecError, state::SupervisorError},
};

/// Why a job failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HostError {
    #[error(transparent)]
    File(#[from] FileError),
    #[error(transparent)]
    Path(#[from] PathError),
    #[error(transparent)]
    Exec(#[from] ExecError),
    #[error(transparent)]
    Probe(#[from] ProbeError),
    #[error("an external capability: {0}")]
    External(ProbeError),
    #[error(transparent)]
    Supervisor(#[from] SupervisorError),
    #[error("the content is missing: it has not been fetched")]
    NoContent,
    #[error("the content in the plan cannot be read")]
    BadContent(#[source] InvalidContent),
    #[error("the work was interrupted by a fault in groundplan-agent")]
    Thread(#[source] tokio::task::JoinError),
    #[error("its check took longer than 10 minutes")]
    CheckTimeout,
    #[error("cancelled before it began")]
    Cancelled,
    #[error(
        "`{kind}` acts on the host as a whole, and this agent may act below {} only; run it with the root `/`", root.display()
    )]
    WholeHost { kind: String, root: PathBuf },
    #[error("on this host it is {own} by another name, which {other} owns; let one task own it")]
    Alias { own: String, other: TaskId },
    #[error(transparent)]
    Tool(#[from] ToolError),
    /// An error of a kind's own module; boxed, so that a new kind adds nothing here.
    #[error(transparent)]
    Kind(Box<dyn std::error::Error + Send + Sync>),
}

/// An error that the module of a kind defines.
pub(crate) trait KindError: std::error::Error + Send + Sync + 'static {}

impl<E: KindError> From<E> for HostError {
    fn from(error: E) -> Self {
        Self::Kind(Box::new(error))
    }
}

/// Why a program of the host gave no usable answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ToolError {
    #[error("this host has no `{program}`")]
    Missing { program: String },
    #[error(transparent)]
    Exec(ExecError),
    #[error("{run} wrote more than {} MiB", most >> 20)]
    TooMuchOutput { run: String, most: usize },
    #[error("{run} wrote text that is not UTF-8")]
    NoText { run: String },
    #[error("cannot prepare the standard input of {run}")]
    Io { run: String, source: io::Error },
}

impl ToolError {
    /// Whether the host does not have the program.
    pub(crate) fn is_missing(&self) -> bool {
        matches!(self, Self::Missing { .. })
    }
}
