//! Reasons as people and programs read them: each link with its place, as JSON with a schema.

use groundplan_inventory::Location;
use groundplan_protocol::{
    effect::Effect,
    ids::{InstanceId, NodeId, TaskId},
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{locate::LineColumn, reason::Reason};

/// One link of a chain of reasons. All but `triggered` end the chain and name an input and a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum ReasonReport {
    /// It is not applied there.
    Added {
        /// The declaration that is new: `task app.config` or `node app-0`.
        input: String,
        /// Where it is declared.
        #[serde(flatten)]
        at: Position,
    },
    /// It is applied with another value of an input.
    Changed {
        /// The input, such as `var db_port`.
        input: String,
        /// The value before, where it is known and short.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        before: Option<String>,
        /// The value after, where it is short.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        after: Option<String>,
        /// Where it is set.
        #[serde(flatten)]
        at: Position,
    },
    /// It is applied and no longer desired.
    Removed {
        /// The declaration that was removed, or that no longer leads to it: `task app.config` or `node app-0`.
        input: String,
        /// Where that is, or was.
        #[serde(flatten)]
        at: Position,
    },
    /// It is applied, and its node runs nothing any more.
    Decommissioned {
        /// The node: `node db-1`.
        input: String,
        /// Where it is declared.
        #[serde(flatten)]
        at: Position,
    },
    /// Its task runs on one node only, and another one was elected than before: that is where it begins, or the reason why it ends here.
    Elected {
        /// The task: `task app.schema`.
        input: String,
        /// The node that is to run it.
        node: NodeId,
        /// Where the task is declared.
        #[serde(flatten)]
        at: Position,
    },
    /// It takes over what other tasks own there, which are no longer desired or give it up by an update: nothing is removed.
    TakesOver {
        /// Those tasks.
        from: Vec<TaskId>,
        /// The task itself: `task web.config`.
        input: String,
        /// The first input in which it differs from them; absent if nothing but the name changes.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        change: Option<String>,
        /// Where it is declared.
        #[serde(flatten)]
        at: Position,
    },
    /// It is not applied there under its name, and does what tasks that are no longer desired do: they end before it begins.
    Replaces {
        /// Those tasks.
        from: Vec<TaskId>,
        /// The task itself: `task web.server`.
        input: String,
        /// Where it is declared.
        #[serde(flatten)]
        at: Position,
    },
    /// It is applied and no longer desired, and other tasks take over what it owns.
    HandsOver {
        /// Those tasks.
        to: Vec<TaskId>,
        /// Whether they take all of it, so that nothing is removed.
        whole: bool,
        /// Where the first of them is declared.
        #[serde(flatten)]
        at: Position,
    },
    /// It is applied and no longer desired, and an operator asked for its record to be dropped.
    Forgotten {
        /// The task: `task app.server`.
        input: String,
        /// The operator, as the API knows them.
        by: String,
        /// Why, in the operator's words.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        why: String,
        /// Where the task would be declared.
        #[serde(flatten)]
        at: Position,
    },
    /// It is applied, and its `when` is false.
    Off {
        /// The expression, as it is written.
        when: String,
        /// The input of the expression that changed, or its first one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        input: Option<String>,
        /// The value of that input before, where it is known and short.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        before: Option<String>,
        /// The value now, where it is short.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        after: Option<String>,
        /// Where the expression stands.
        #[serde(flatten)]
        at: Position,
    },
    /// Another instance changes, and an edge leads from there to this one.
    Triggered {
        /// The other instance, as `service.task@node`.
        by: InstanceId,
        /// What the edge does to this instance.
        effect: Effect,
    },
    /// An operator asked for it to be checked again.
    Asked {
        /// The task: `task app.server`.
        input: String,
        /// Where the task is declared.
        #[serde(flatten)]
        at: Position,
    },
    /// Its node found that it differs from what was applied.
    Drifted {
        /// The task: `task app.server`.
        input: String,
        /// A short description of the difference.
        what: String,
        /// Where the task is declared.
        #[serde(flatten)]
        at: Position,
    },
    /// An effect of an earlier plan is still due.
    Obligation {
        /// The task that it is due to: `task app.server`.
        input: String,
        /// The effect that is due.
        effect: Effect,
        /// Where the task is declared.
        #[serde(flatten)]
        at: Position,
    },
}

/// A position in a file of the site.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Position {
    /// The file's path in the repository.
    pub file: String,
    /// The line, from 1, where the file's text is at hand.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub line: Option<usize>,
    /// The column in characters, from 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub column: Option<usize>,
}

impl Position {
    pub(super) fn new(at: &Location, locate: &mut dyn FnMut(&Location) -> Option<LineColumn>) -> Self {
        let found = locate(at);
        Self { file: at.file.to_string(), line: found.map(|p| p.line), column: found.map(|p| p.column) }
    }
}

impl ReasonReport {
    /// The report of a chain of reasons of one action on `instance`. `locate` as for [`PlanReport::new`].
    pub fn chain(
        instance: &InstanceId,
        chain: &[Reason],
        locate: &mut dyn FnMut(&Location) -> Option<LineColumn>,
    ) -> Vec<Self> {
        let mut position = |at: &Location| Position::new(at, locate);
        // Each reason is of the instance that the last trigger before it named.
        let mut of = instance;
        let mut out = Vec::with_capacity(chain.len());
        for reason in chain {
            out.push(match reason {
                Reason::Added { what, at } => Self::Added { input: what.to_string(), at: position(at) },
                Reason::Changed { input, before, after, at } => Self::Changed {
                    input: input.clone(),
                    before: before.clone(),
                    after: after.clone(),
                    at: position(at),
                },
                Reason::Off { when, input, before, after, at } => Self::Off {
                    when: when.clone(),
                    input: input.clone(),
                    before: before.clone(),
                    after: after.clone(),
                    at: position(at),
                },
                Reason::TakesOver { from, to, change, at } => Self::TakesOver {
                    from: from.clone(),
                    input: format!("task {to}"),
                    change: change.clone(),
                    at: position(at),
                },
                Reason::Replaces { from, to, at } => {
                    Self::Replaces { from: from.clone(), input: format!("task {to}"), at: position(at) }
                }
                Reason::HandsOver { to, whole, at } => {
                    Self::HandsOver { to: to.clone(), whole: *whole, at: position(at) }
                }
                Reason::Removed { what, file } => {
                    Self::Removed { input: what.to_string(), at: position(&Location::file(file.as_str())) }
                }
                Reason::Decommissioned { node, at } => {
                    Self::Decommissioned { input: format!("node {node}"), at: position(at) }
                }
                Reason::Elected { task, node, at } => {
                    Self::Elected { input: format!("task {task}"), node: node.clone(), at: position(at) }
                }
                Reason::Forgotten { by, why, file } => Self::Forgotten {
                    input: format!("task {}", of.task),
                    by: by.clone(),
                    why: why.clone(),
                    at: position(&Location::file(file.as_str())),
                },
                Reason::Triggered { by, effect } => {
                    of = by;
                    Self::Triggered { by: by.clone(), effect: *effect }
                }
                Reason::Drifted { what, at } => {
                    Self::Drifted { input: format!("task {}", of.task), what: what.clone(), at: position(at) }
                }
                Reason::Asked { at } => Self::Asked { input: format!("task {}", of.task), at: position(at) },
                Reason::Obligation { effect, at } => {
                    Self::Obligation { input: format!("task {}", of.task), effect: *effect, at: position(at) }
                }
            });
        }
        out
    }
}
