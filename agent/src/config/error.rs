//! Errors of the configuration.

use std::{io, path::PathBuf};

/// Why the configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A file cannot be read or written.
    #[error("{path}")]
    Io {
        /// The file's path.
        path: PathBuf,
        /// The error of the system call.
        #[source]
        source: io::Error,
    },
    /// The file is not TOML or has unknown keys.
    #[error("{path}:\n{text}")]
    Syntax {
        /// The file's path.
        path: PathBuf,
        /// What is wrong, with its line.
        text: String,
    },
    /// All faults of the values, each as one line.
    #[error("{}", .0.join("\n"))]
    Invalid(Vec<String>),
}
