//! Why the agent cannot continue.

use std::{io, path::PathBuf};

use crate::{ledger::LedgerError, machine::UnreadablePlan, transport::TlsError};

/// Why the agent cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum ShellError {
    /// The ledger cannot be opened or written.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// The plan in the ledger cannot be read.
    #[error(transparent)]
    UnreadablePlan(#[from] UnreadablePlan),
    /// TLS cannot be set up.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// A directory cannot be read or made.
    #[error("{path}")]
    Io {
        /// The directory.
        path: PathBuf,
        /// The error of the system call.
        #[source]
        source: io::Error,
    },
    /// The kernel gives no random numbers.
    #[error("the kernel gives no random numbers")]
    Random,
    /// A job panicked: a fault in this program.
    #[error("a job panicked: a fault in groundplan-agent")]
    Job(#[source] tokio::task::JoinError),
    /// A signal to stop came while the ledger could not be written.
    #[error("stopped before the ledger could be written")]
    Unwritten,
}
