//! What became of one task on all nodes that run it.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use groundplan_protocol::ids::TaskId;

use crate::desired::{Instance, NodeIx, Off, Pending};

/// A task on all its nodes: each node is in one of the first three lists, unless the task has faults there. Lists are in node order.
#[derive(Debug, Default)]
pub(crate) struct Instances {
    /// Nodes on which it is resolved.
    pub(crate) resolved: Vec<Instance>,
    /// Nodes on which a value is missing.
    pub(crate) pending: Vec<Pending>,
    /// Nodes on which its `when` is false.
    pub(crate) off: Vec<(NodeIx, Arc<Off>)>,
    /// Nodes whose facts it read.
    pub(crate) facts: BTreeSet<NodeIx>,
    /// The exports that it read, and whether on another node than its own.
    pub(crate) exports: BTreeMap<TaskId, bool>,
}

impl Instances {
    /// The number of nodes on which it has no faults.
    pub(crate) fn count(&self) -> usize {
        self.resolved.len() + self.pending.len() + self.off.len()
    }
}
