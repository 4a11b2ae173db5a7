//! Values that only nodes know: their facts, and what their `export` tasks have published.
//!
//! In: the values that each node reported last. Out: an input of `resolve` like the tree itself, and names for values that are missing.
//! They cross the broker signed and not encrypted, so they are no place for secrets.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::Arc,
};

use groundplan_protocol::ids::{NodeId, TaskId};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The facts of a host, by name, such as `os` or `memory`.
pub type Facts = BTreeMap<String, Value>;

/// The values that nodes have reported.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Knowledge {
    /// By node; a node that has reported none is absent.
    pub facts: BTreeMap<NodeId, Arc<Facts>>,
    /// Published values, by `export` task and node.
    pub exports: BTreeMap<TaskId, BTreeMap<NodeId, String>>,
    /// The nodes that tasks with `once` were planned on, or are applied on: each stays there.
    pub elected: BTreeMap<TaskId, NodeId>,
    /// Whether these nodes may still run them where they are no longer to: then the next one waits until they have given them up. A preview
    /// takes that for done, as all that is applied.
    pub not_given_up: bool,
    /// Nodes that are connected and that no operator has parked: for other tasks with `once` the first of these is elected.
    pub present: BTreeSet<NodeId>,
    /// What happens to an instance that these values do not fit.
    pub misfit: Misfit,
}

/// What happens to an instance whose template or `when` fails with the values that nodes have reported.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Misfit {
    /// The commit is refused, as for any other fault: for a commit that is being checked.
    #[default]
    Refuse,
    /// The instance waits for other values: for the active commit, which was accepted with other values and has not changed.
    Wait,
}

/// Something that an instance needs, or comes after, and that no node has reported. Stored with rollouts: its JSON stays.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Unknown {
    /// What is applied on a node, which has never reported.
    Node(NodeId),
    /// All facts of a node, which has never reported.
    Facts(NodeId),
    /// A fact that a program on the node provides, and that its report does not have yet.
    Fact {
        /// Such as `local.rack`.
        name: String,
        /// The node that is to report it.
        node: NodeId,
    },
    /// The value of an `export` task.
    Export {
        /// The `export`.
        task: TaskId,
        /// The node that is to publish it.
        node: NodeId,
    },
    /// That a node has acknowledged a plan without a task with `once` that was planned there before.
    GivenUp {
        /// The task.
        task: TaskId,
        /// The node that it was planned on before.
        node: NodeId,
    },
    /// Values that fit, in place of those that are known.
    Fit {
        /// What is wrong with these.
        fault: String,
        /// The node on which it is needed.
        node: NodeId,
    },
}

/// How the text of [`Unknown::Node`] begins, by which a client can tell it from other values.
pub const FIRST_REPORT: &str = "the first report of node ";

impl fmt::Display for Unknown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Node(node) => write!(f, "{FIRST_REPORT}{node}"),
            Self::Facts(node) => write!(f, "facts of node {node}"),
            Self::Fact { name, node } => write!(f, "facts.{name} of node {node}"),
            Self::Export { task, node } => write!(f, "export {task} of {node}"),
            Self::GivenUp { task, node } => write!(f, "node {node} to give up {task}, which runs on one node only"),
            Self::Fit { fault, node } => write!(f, "facts and exports that fit on node {node}: {fault}"),
        }
    }
}
