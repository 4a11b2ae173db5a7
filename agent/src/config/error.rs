//! Why there are no settings.

use std::{io, path::PathBuf};

/// Why there are no settings.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A file cannot be read or written.
    #[error("{path}")]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The file is not TOML or has unknown keys; the text shows the place.
    #[error("{path}:\n{text}")]
    Syntax {
        /// The file.
        path: PathBuf,
        /// What is wrong, with its line.
        text: String,
    },
    /// Something is missing or makes no sense.
    #[error("{}", .0.join("\n"))]
    Invalid(Vec<String>),
}
