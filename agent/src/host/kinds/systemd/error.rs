//! Why a unit is not in the state that was asked for.

use crate::host::{
    error::{KindError, ToolError},
    fs::files::FileError,
};

/// Why a unit could not be brought in sync.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SystemdError {
    #[error("this host has no systemctl and so no systemd; use `process` or `command` instead")]
    NoSystemd,
    #[error("there is no unit {0} on this host")]
    NoUnit(String),
    #[error("the unit {0} is masked; `masked = false` unmasks it")]
    Masked(String),
    #[error("the unit {unit} could not be loaded: {state}")]
    NotLoaded { unit: String, state: String },
    #[error("systemd cannot load the new files of {unit}, and they were rolled back: {words}")]
    Refused { unit: String, words: String },
    #[error("the unit {unit} failed right after its start; see `journalctl -u {unit}`{}", after(last))]
    Failed { unit: String, last: String },
    #[error("the unit {unit} does not start{}", after(last))]
    NotStarted { unit: String, last: String, source: Box<SystemdError> },
    #[error(transparent)]
    Systemctl(ToolError),
    #[error(transparent)]
    File(#[from] FileError),
}

impl KindError for SystemdError {}

fn after(last: &str) -> String {
    if last.is_empty() { String::new() } else { format!(": {last}") }
}
