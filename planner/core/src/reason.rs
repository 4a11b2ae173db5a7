//! Why an action stands in a plan: evidence, from the action back to what somebody wrote in a file.

use std::fmt;

use groundplan_inventory::Location;
use groundplan_protocol::{
    effect::Effect,
    ids::{InstanceId, NodeId, TaskId},
};

/// One link of a chain of reasons.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reason {
    /// It was not applied there before.
    Added {
        /// The declaration that brought it.
        what: Declared,
        /// Where that is.
        at: Location,
    },
    /// It is applied with another value of an input.
    Changed {
        /// The input, or `unknown` where the node did not tell which inputs it applied.
        input: String,
        /// The value before, where it is known and short.
        before: Option<String>,
        /// The value after, where it is short; absent too for an input that is no longer there.
        after: Option<String>,
        /// Where it is set; for an input that is no longer there, the task.
        at: Location,
    },
    /// It is applied but no longer asked for.
    Removed {
        /// The declaration that no longer asks for it.
        what: Declared,
        /// The file that this was, or would be, in.
        file: String,
    },
    /// It is applied, and its `when` is false.
    Off {
        /// The expression.
        when: String,
        /// What of its inputs has changed, or the first of them; none if it has none.
        input: Option<String>,
        /// The value of that before, where it is known and short.
        before: Option<String>,
        /// The value now, where it is short.
        after: Option<String>,
        /// Where the expression stands.
        at: Location,
    },
    /// Another instance acts on it.
    Triggered {
        /// That instance.
        by: InstanceId,
        /// How.
        effect: Effect,
    },
    /// Somebody asked for it to be checked again.
    Asked {
        /// Where its task is declared.
        at: Location,
    },
    /// Its node has found it otherwise than it was applied.
    Drifted {
        /// What differs, in short words.
        what: String,
        /// Where its task is declared.
        at: Location,
    },
    /// An earlier plan owes it.
    Owed {
        /// What is owed.
        effect: Effect,
        /// Where the task that it is owed to is declared.
        at: Location,
    },
}

/// A declaration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Declared {
    /// Of a task.
    Task(TaskId),
    /// Of a node.
    Node(NodeId),
}

impl fmt::Display for Declared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Task(task) => write!(f, "task {task}"),
            Self::Node(node) => write!(f, "node {node}"),
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Added { what, .. } => write!(f, "{what} is new"),
            Self::Changed { input, .. } if input == UNKNOWN => f.write_str("its inputs differ"),
            Self::Changed { input, before, after, .. } => {
                f.write_str(&change(input, before.as_deref(), after.as_deref()))
            }
            Self::Off { when, input: None, .. } => write!(f, "when `{when}` is false"),
            Self::Off { when, input: Some(input), before, after, .. } => {
                write!(f, "when `{when}` is false: {}", change(input, before.as_deref(), after.as_deref()))
            }
            Self::Removed { what, .. } => write!(f, "{what} no longer asks for it"),
            Self::Triggered { by, effect } => write!(f, "{effect} on {by}"),
            Self::Drifted { what, .. } => write!(f, "drifted on its node: {what}"),
            Self::Asked { .. } => f.write_str("asked to be checked again"),
            Self::Owed { effect, .. } => write!(f, "{effect} owed since an earlier plan"),
        }
    }
}

/// A change of an input, as far as its values are known.
pub fn change(input: &str, before: Option<&str>, after: Option<&str>) -> String {
    match (before, after) {
        (Some(before), Some(after)) => format!("{input} {before} → {after}"),
        (None, Some(after)) => format!("{input} → {after}"),
        _ => format!("{input} changed"),
    }
}

/// The name of an input that changed where nobody can say which one it was.
pub const UNKNOWN: &str = "unknown";

impl Reason {
    /// Where it stands in the site's files, for all that end a chain.
    pub fn place(&self) -> Option<Location> {
        match self {
            Self::Added { at, .. }
            | Self::Changed { at, .. }
            | Self::Off { at, .. }
            | Self::Owed { at, .. }
            | Self::Drifted { at, .. }
            | Self::Asked { at } => Some(at.clone()),
            Self::Removed { file, .. } => Some(Location::file(file.as_str())),
            Self::Triggered { .. } => None,
        }
    }
}

/// A chain of reasons on one line, such as `restart on app.config@app-0: var db_port 15432 → 15433 (site.toml:7)`.
///
/// `line` tells the number of the line that a place is on, where the file's text is at hand.
pub fn chain(reasons: &[Reason], line: &dyn Fn(&Location) -> Option<usize>) -> String {
    let mut out = String::new();
    for reason in reasons {
        if !out.is_empty() {
            out.push_str(": ");
        }
        out.push_str(&reason.to_string());
        if let Some(at) = reason.place() {
            match line(&at) {
                Some(line) => out.push_str(&format!(" ({}:{line})", at.file)),
                None => out.push_str(&format!(" ({})", at.file)),
            }
        }
    }
    out
}
