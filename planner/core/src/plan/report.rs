//! A plan as people and programs read it: actions with reasons, as JSON with a schema. No node plans, no gates.

use std::collections::BTreeSet;

use groundplan_inventory::Location;
use groundplan_protocol::{
    VERSION,
    effect::{Action, Effect},
    ids::{CommitId, InstanceId, NodeId, ServiceId, TaskId, TaskName},
    plan::OnRemove,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::model::Plan;
use crate::{knowledge::Unknown, locate::LineColumn, reason::Reason};

/// What a plan does and why. Printed by `groundplan plan --format json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PlanReport {
    /// The version of this format.
    pub version: u32,
    /// The commit that is taken as applied; absent where the base is what each node acknowledged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base: Option<CommitId>,
    /// The commit that it leads to; absent for a folder that is no commit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<CommitId>,
    /// What is done, in a valid execution order.
    pub actions: Vec<ActionReport>,
    /// What cannot be planned yet, because no node has reported a value that it needs, and the changes that come after it. What is applied of
    /// it stays as it is.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub waiting: Vec<WaitReport>,
    /// Removals that the site forbids by `prevent_destroy`, as `service.task@node`: a planner refuses the commit.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub prevented: Vec<InstanceId>,
}

/// An instance that waits for a value that no node has reported.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct WaitReport {
    /// The node of the instance.
    pub node: NodeId,
    /// The service of its task.
    pub service: ServiceId,
    /// The task's name in the service.
    pub task: TaskName,
    /// What will be done to it; absent where that depends on the missing value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub action: Option<Action>,
    /// What it waits for, such as `facts of node n1` or `export db.address of db-0`.
    pub waits_for: Vec<String>,
}

/// An action on one task of one node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ActionReport {
    /// The node of the instance.
    pub node: NodeId,
    /// The service of its task.
    pub service: ServiceId,
    /// The task's name in the service.
    pub task: TaskName,
    /// What is done to it.
    pub action: Action,
    /// What a removal does with what the task changed on the node; absent for another action, and for a task that leaves nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_remove: Option<OnRemove>,
    /// What is lost for good by it, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub destroys: Option<String>,
    /// Why: each is the cause of the one before it, and the last is a named input of a named file.
    pub reasons: Vec<ReasonReport>,
}

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

impl PlanReport {
    /// The report of a plan. `locate` returns the line and column of a location, where the file's text is at hand:
    /// [`Locator::find`](crate::locate::Locator::find).
    pub fn new(
        plan: &Plan,
        base: Option<CommitId>,
        target: Option<CommitId>,
        locate: &mut dyn FnMut(&Location) -> Option<LineColumn>,
    ) -> Self {
        let actions = plan.due().map(|action| ActionReport {
            node: action.instance.node.clone(),
            service: action.instance.task.service.clone(),
            task: action.instance.task.task.clone(),
            action: action.action,
            on_remove: action.on_remove,
            destroys: action.destroys.clone(),
            reasons: ReasonReport::chain(&action.instance, &action.reasons, locate),
        });

        let wait = |instance: &InstanceId, action, waits: &[Unknown]| WaitReport {
            node: instance.node.clone(),
            service: instance.task.service.clone(),
            task: instance.task.task.clone(),
            action,
            waits_for: waits.iter().map(Unknown::to_string).collect(),
        };
        let pending: BTreeSet<_> = plan.pending.iter().map(|pending| &pending.instance).collect();
        let held = plan.actions.iter().filter(|action| !action.waits_for.is_empty());
        let held = held.filter(|action| !pending.contains(&action.instance));
        let held = held.map(|action| wait(&action.instance, Some(action.action), &action.waits_for));
        let waiting = plan.pending.iter().map(|pending| wait(&pending.instance, None, &pending.waits_for)).chain(held);
        Self {
            version: VERSION,
            base,
            target,
            actions: actions.collect(),
            waiting: waiting.collect(),
            prevented: plan.prevented.clone(),
        }
    }
}

impl ReasonReport {
    /// The report of a chain of reasons of one action on `instance`. `locate` as for [`PlanReport::new`].
    pub fn chain(
        instance: &InstanceId,
        chain: &[Reason],
        locate: &mut dyn FnMut(&Location) -> Option<LineColumn>,
    ) -> Vec<Self> {
        let mut position = |at: &Location| {
            let found = locate(at);
            Position { file: at.file.to_string(), line: found.map(|p| p.line), column: found.map(|p| p.column) }
        };
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
