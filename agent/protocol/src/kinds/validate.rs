//! What new content must pass before it replaces a file.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{problem::Problem, run::Run};

/// What new content must pass before it replaces the old file; otherwise the old file stays and the task fails.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Validate {
    /// It must be well-formed: `"ini"`, `"json"` or `"toml"`.
    Format(Format),
    /// A command must accept it.
    Command(Validator),
}

/// A format that the agent itself can read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Format {
    /// Sections with options, as Python's configparser, oslo.config and MySQL read them.
    Ini,
    /// JSON (RFC 8259).
    Json,
    /// TOML 1.0.
    Toml,
}

/// A command that accepts content by exiting with 0.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Validator {
    /// A shell line or a list of arguments, such as `"visudo -cf %s"`; `%s` is the path of the new file, which is beside
    /// the old one, with the owner and mode that it will have.
    pub command: Run,
}

impl Format {
    /// Its name for messages, such as `INI`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ini => "INI",
            Self::Json => "JSON",
            Self::Toml => "TOML",
        }
    }
}

impl Validate {
    pub(super) fn problem(validate: Option<&Self>) -> Option<Problem> {
        let Self::Command(Validator { command }) = validate? else { return None };
        let named = match command {
            Run::Shell(line) => line.contains("%s"),
            Run::Args(args) => args.iter().skip(1).any(|arg| arg.contains("%s")),
        };
        let unnamed =
            || Problem::new("validate", "the command does not name the new file", "write `%s` where its path belongs");
        command.problem("validate").or_else(|| (!named).then(unnamed))
    }
}
