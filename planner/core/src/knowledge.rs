//! What only nodes can tell: their facts, and what their `export` tasks have published.
//!
//! In: what the planner has been told last. Out: an input of `resolve` like the tree itself, and names for what is missing of it.
//! Told by agents, signed and not encrypted: no place for secrets.

use std::{collections::BTreeMap, fmt, sync::Arc};

use groundplan_protocol::ids::{NodeId, TaskId};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// What a host tells of itself, by name.
pub type Facts = BTreeMap<String, Value>;

/// What is known of the nodes.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Knowledge {
    /// The facts of each node that has told any.
    pub facts: BTreeMap<NodeId, Arc<Facts>>,
    /// What has been published, by task and node.
    pub exports: BTreeMap<TaskId, BTreeMap<NodeId, String>>,
    /// What becomes of an instance that these values do not fit.
    pub misfit: Misfit,
}

/// What becomes of an instance whose template or `when` fails with the values that nodes have told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Misfit {
    /// A fault, as any other: for a commit that is checked.
    #[default]
    Refuse,
    /// It waits for other values: for a commit in force, in which nobody has changed anything.
    Wait,
}

/// Something that an instance needs and that no node has told.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Unknown {
    /// A node's facts: it has not been heard of.
    Facts(NodeId),
    /// A fact that a program on the node is to tell.
    Fact {
        /// Such as `local.rack`.
        name: String,
        /// The node.
        node: NodeId,
    },
    /// What an `export` publishes.
    Export {
        /// The `export`.
        task: TaskId,
        /// Its node.
        node: NodeId,
    },
    /// Values of a node that fit.
    Fit {
        /// What is wrong with those that are known.
        fault: String,
        /// The node on which it is needed.
        node: NodeId,
    },
}

impl fmt::Display for Unknown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Facts(node) => write!(f, "facts of node {node}"),
            Self::Fact { name, node } => write!(f, "facts.{name} of node {node}"),
            Self::Export { task, node } => write!(f, "export {task} of {node}"),
            Self::Fit { fault, node } => write!(f, "facts and exports that fit on node {node}: {fault}"),
        }
    }
}
