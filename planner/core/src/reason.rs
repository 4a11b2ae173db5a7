//! Why an action stands in a plan: evidence, from the action back to a line of a file, or to an operator's request.

use std::fmt;

use groundplan_inventory::Location;
use groundplan_protocol::{
    effect::Effect,
    ids::{InstanceId, NodeId, ServiceId, TaskId},
    state::UNFINISHED,
};

/// One link of a chain of reasons.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reason {
    /// It is not applied there.
    Added {
        /// The declaration that is new.
        what: Declared,
        /// Where it is declared.
        at: Location,
    },
    /// It is applied with another value of an input.
    Changed {
        /// The input, or [`UNKNOWN`] where the node did not report which inputs it applied.
        input: String,
        /// The value before, where it is known and short.
        before: Option<String>,
        /// The value after, where it is short; absent too for an input that is no longer there.
        after: Option<String>,
        /// Where it is set; for an input that is no longer there, the task.
        at: Location,
    },
    /// It is applied and no longer desired.
    Removed {
        /// The declaration that was removed, or that no longer leads to it.
        what: Declared,
        /// The file that the declaration is in, or would be.
        file: String,
    },
    /// It is applied, and its node runs nothing any more.
    Decommissioned {
        /// The node.
        node: NodeId,
        /// Where it is declared.
        at: Location,
    },
    /// Its task runs on one node only, and another one was elected than before: that is where it begins, or the reason why it ends here.
    Elected {
        /// The task.
        task: TaskId,
        /// The node that is to run it.
        node: NodeId,
        /// Where the task is declared.
        at: Location,
    },
    /// It takes over what other tasks claim there, which are no longer desired or give it up by an update: nothing is removed.
    TakesOver {
        /// Those tasks; at least one.
        from: Vec<TaskId>,
        /// The task itself.
        to: TaskId,
        /// The first input in which it differs from them, or [`UNKNOWN`]; none if nothing but the name changes.
        change: Option<String>,
        /// Where it is declared.
        at: Location,
    },
    /// It is not applied there under its name, and does what tasks that are no longer desired do: they end before it begins.
    Replaces {
        /// Those tasks; at least one.
        from: Vec<TaskId>,
        /// The task itself.
        to: TaskId,
        /// Where it is declared.
        at: Location,
    },
    /// It is applied and no longer desired, and other tasks take over what it claims.
    HandsOver {
        /// Those tasks; at least one.
        to: Vec<TaskId>,
        /// Whether they take all of it, so that nothing is removed.
        whole: bool,
        /// Where the first of them is declared.
        at: Location,
    },
    /// It is applied and no longer desired, and an operator asked for its record to be dropped.
    Forgotten {
        /// The operator, as the API knows them.
        by: String,
        /// Why, in the operator's words; may be empty.
        why: String,
        /// The file that the task's declaration would be in.
        file: String,
    },
    /// It is applied, and its `when` is false.
    Off {
        /// The expression, as it is written.
        when: String,
        /// The input of the expression that changed, or its first one; none if it has none.
        input: Option<String>,
        /// The value of that input before, where it is known and short.
        before: Option<String>,
        /// The value now, where it is short.
        after: Option<String>,
        /// Where the expression stands.
        at: Location,
    },
    /// Another instance changes, and an edge leads from there to this one. The next reason in the chain is that of the other instance.
    Triggered {
        /// The other instance.
        by: InstanceId,
        /// What the edge does to this instance.
        effect: Effect,
    },
    /// An operator asked for it to be checked again.
    Asked {
        /// Where its task is declared.
        at: Location,
    },
    /// Its node found that it differs from what was applied.
    Drifted {
        /// A short description of the difference.
        what: String,
        /// Where its task is declared.
        at: Location,
    },
    /// An effect of an earlier plan is still due.
    Obligation {
        /// The effect that is due.
        effect: Effect,
        /// Where the task that it is due to is declared.
        at: Location,
    },
}

/// What a declaration in the site's files is of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Declared {
    /// A `[[task]]` of a service.
    Task(TaskId),
    /// A node of the inventory.
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
            Self::Removed { what: Declared::Task(task), .. } => write!(f, "task {task} is no longer declared"),
            Self::Removed { what: Declared::Node(node), .. } => write!(f, "node {node} no longer runs its service"),
            Self::Decommissioned { node, .. } => write!(f, "node {node} is decommissioned"),
            Self::Elected { task, node, .. } => write!(f, "task {task} runs once, and on node {node} from now on"),
            Self::TakesOver { from, to, change: None, .. } => {
                write!(f, "task {to} takes over from {}, unchanged", list(from))
            }
            Self::TakesOver { from, to, change: Some(input), .. } if input == UNKNOWN => {
                write!(f, "task {to} takes over from {}, and changes", list(from))
            }
            Self::TakesOver { from, to, change: Some(input), .. } => {
                write!(f, "task {to} takes over from {}: {input} changed", list(from))
            }
            Self::Replaces { from, to, .. } => write!(f, "task {to} replaces {}, which ends first", list(from)),
            Self::HandsOver { to, whole: true, .. } => write!(f, "handed over to {}", list(to)),
            Self::HandsOver { to, whole: false, .. } => write!(f, "handed over in part to {}", list(to)),
            Self::Forgotten { by, why, .. } if why.is_empty() => write!(f, "{by} asked for its record to be dropped"),
            Self::Forgotten { by, why, .. } => write!(f, "{by} asked for its record to be dropped: {why}"),
            Self::Triggered { by, effect } => write!(f, "{effect} on {by}"),
            Self::Drifted { what, .. } => write!(f, "drifted on its node: {what}"),
            Self::Asked { .. } => f.write_str("asked to be checked again"),
            Self::Obligation { effect, .. } => write!(f, "{effect} pending since an earlier plan"),
        }
    }
}

/// Task ids with commas between them.
fn list(tasks: &[TaskId]) -> String {
    tasks.iter().map(TaskId::to_string).collect::<Vec<_>>().join(", ")
}

/// A change of an input in one line, as far as its values are known.
fn change(input: &str, before: Option<&str>, after: Option<&str>) -> String {
    if input == UNFINISHED {
        return "its last run did not succeed".to_owned();
    }
    match (before, after) {
        (Some(before), Some(after)) => format!("{input} {before} → {after}"),
        (None, Some(after)) => format!("{input} → {after}"),
        _ => format!("{input} changed"),
    }
}

/// The file in which the tasks of a service are declared.
pub(crate) fn service_file(service: &ServiceId) -> String {
    format!("services/{service}/service.toml")
}

/// Stands for the name of an input that changed where it is not known which one it was.
pub const UNKNOWN: &str = "unknown";

impl Reason {
    /// The place in the site's files that it ends at; none for a trigger, which leads on to another reason.
    pub fn place(&self) -> Option<Location> {
        match self {
            Self::Added { at, .. }
            | Self::Decommissioned { at, .. }
            | Self::Elected { at, .. }
            | Self::Changed { at, .. }
            | Self::Off { at, .. }
            | Self::TakesOver { at, .. }
            | Self::Replaces { at, .. }
            | Self::HandsOver { at, .. }
            | Self::Obligation { at, .. }
            | Self::Drifted { at, .. }
            | Self::Asked { at } => Some(at.clone()),
            Self::Removed { file, .. } | Self::Forgotten { file, .. } => Some(Location::file(file.as_str())),
            Self::Triggered { .. } => None,
        }
    }
}
