//! What became of one task on all nodes that run it.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use groundplan_protocol::ids::TaskId;

use crate::desired::{Instance, NodeIx, Off, Pending};

/// A task on all its nodes, each in node order.
#[derive(Debug, Default)]
pub(crate) struct Instances {
    /// Where it is known.
    pub(crate) resolved: Vec<Instance>,
    /// Where it is not.
    pub(crate) pending: Vec<Pending>,
    /// Where its `when` is false.
    pub(crate) off: Vec<(NodeIx, Arc<Off>)>,
    /// Nodes whose facts it asked for.
    pub(crate) facts: BTreeSet<NodeIx>,
    /// What it asked for of other tasks, and whether on another node than its own.
    pub(crate) exports: BTreeMap<TaskId, bool>,
}

impl Instances {
    /// On how many nodes it is accounted for.
    pub(crate) fn count(&self) -> usize {
        self.resolved.len() + self.pending.len() + self.off.len()
    }
}
