//! What is run: a shell line or a program with its arguments.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::problem::Problem;

/// What to run: a line for `/bin/sh -c`, or a program with its arguments.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Run {
    /// A line for `/bin/sh -c`.
    Shell(String),
    /// A program, found in `PATH`, and its arguments; no shell.
    Args(Vec<String>),
}

impl Run {
    pub(super) fn problem(&self, param: &'static str) -> Option<Problem> {
        let empty = match self {
            Self::Shell(line) => line.trim().is_empty(),
            Self::Args(args) => args.first().is_none_or(String::is_empty),
        };
        empty.then(|| Problem::new(param, "is empty", "give a shell line or a list of arguments"))
    }
}

impl fmt::Display for Run {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Shell(line) => f.write_str(line),
            Self::Args(args) => f.write_str(&args.join(" ")),
        }
    }
}
