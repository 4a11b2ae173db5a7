//! Why a unit is not in the state that was asked for.

use crate::host::{
    error::{KindError, ToolError},
    found::FoundError,
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
    #[error("the unit {unit} cannot be enabled: {why}")]
    CannotEnable { unit: String, why: Unchangeable },
    #[error(
        "the unit {unit} cannot be disabled: it is pulled in by {pulled_by}; `masked = true` keeps it from starting"
    )]
    CannotDisable { unit: String, pulled_by: String },
    #[error(transparent)]
    Systemctl(ToolError),
    #[error(transparent)]
    File(#[from] FileError),
    #[error(transparent)]
    Found(#[from] FoundError),
}

/// Why a unit can be neither enabled nor disabled.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Unchangeable {
    #[error("{}", of_static(triggers))]
    Static {
        /// The sockets, timers and paths that start it.
        triggers: Vec<String>,
    },
    #[error("it is generated{}, which decides when it starts; change that, or leave `enabled` out", source_of(from))]
    Generated {
        /// The file that it is generated from; may be empty.
        from: String,
    },
    #[error("systemd has it as {}; leave `enabled` out", if .0.is_empty() { "a unit without a file" } else { .0 })]
    State(String),
}

fn of_static(triggers: &[String]) -> String {
    match triggers {
        [] => "it has no [Install] section, and no unit pulls it in; give it `WantedBy=` in a drop-in, or leave `enabled` out"
            .to_owned(),
        triggers => {
            format!("it has no [Install] section, and {} starts it; enable that instead", triggers.join(" or "))
        }
    }
}

fn source_of(from: &str) -> String {
    if from.is_empty() { " by a program".to_owned() } else { format!(" from {from}") }
}

impl KindError for SystemdError {}

fn after(last: &str) -> String {
    if last.is_empty() { String::new() } else { format!(": {last}") }
}
