//! The centre: `plan(&DesiredState, &AppliedState, &Policy) -> Plan`. Preview and apply call the same one.

use std::collections::BTreeMap;

use groundplan_inventory::Location;
use groundplan_protocol::{
    ids::{GateId, InstanceId, NodeId, TaskId},
    plan::{Action, Edges, Effect, PlannedTask},
    state::{Applied, Obligation},
};

/// What the nodes last acknowledged. A node that is absent has not been heard of and gets no plan.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct AppliedState {
    /// By node.
    pub nodes: BTreeMap<NodeId, NodeApplied>,
}

/// What one node last acknowledged.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct NodeApplied {
    /// What is applied.
    pub tasks: BTreeMap<TaskId, Applied>,
    /// What is owed, by the agent's word or the planner's own record of gates that opened.
    pub obligations: BTreeMap<TaskId, Obligation>,
}

/// How to plan.
#[derive(Debug, Clone, Default)]
pub struct Policy {}

/// A restart graph made executable.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Plan {
    /// What is done and why, in a valid execution order.
    pub actions: Vec<PlannedAction>,
    /// Each node's part; only nodes that have one.
    pub nodes: BTreeMap<NodeId, NodePart>,
    /// What each gate waits for.
    pub gates: BTreeMap<GateId, Gate>,
}

/// An action with its reasons.
#[derive(Debug, Clone, PartialEq)]
pub struct PlannedAction {
    /// What it is done to.
    pub instance: InstanceId,
    /// What is done.
    pub action: Action,
    /// Why: each is the cause of the one before it, and the last is a named input of a named file.
    pub reasons: Vec<Reason>,
}

/// One node's part of a plan: a node plan without its generation.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct NodePart {
    /// See [`groundplan_protocol::plan::NodePlan::tasks`].
    pub tasks: Vec<PlannedTask>,
    /// See [`groundplan_protocol::plan::NodePlan::edges`].
    pub edges: BTreeMap<TaskId, Edges>,
}

/// What a gate waits for: all these instances done. It fires if one of them changed something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gate {
    /// The instances, all of this plan.
    pub waits_for: Vec<InstanceId>,
}

/// Why an action stands in a plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reason {
    /// It was not applied there before.
    Added {
        /// The declaration that brought it: the task, or the node.
        what: String,
        /// Where that is.
        at: Location,
    },
    /// It is applied with another value of an input.
    Changed {
        /// The input.
        input: String,
        /// The value before, where it is known and short.
        before: Option<String>,
        /// The value after, where it is short.
        after: Option<String>,
        /// Where it is set.
        at: Location,
    },
    /// It is applied but no longer asked for.
    Removed {
        /// The file that no longer asks for it.
        file: String,
    },
    /// Another instance acts on it.
    Triggered {
        /// That instance.
        by: InstanceId,
        /// How.
        effect: Effect,
    },
    /// An earlier plan owes it.
    Owed {
        /// What is owed.
        effect: Effect,
    },
}
