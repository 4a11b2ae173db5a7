//! What became of one task on all nodes that run it.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use groundplan_protocol::ids::TaskId;

use crate::{
    desired::{Instance, NodeIx, Off, Pending},
    knowledge::Unknown,
};

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
    /// Has it wait for something on all nodes, beside what it waits for there already.
    pub(crate) fn hold(&mut self, unknown: &Unknown) {
        let resolved = self.resolved.drain(..).map(|instance| Pending { node: instance.node, waits_for: Arc::new([]) });
        self.pending.extend(resolved);
        self.pending.sort_unstable_by_key(|pending| pending.node);
        for pending in &mut self.pending {
            let mut waits_for: Vec<Unknown> = pending.waits_for.to_vec();
            waits_for.push(unknown.clone());
            waits_for.sort_unstable();
            pending.waits_for = waits_for.into();
        }
    }

    /// The number of nodes on which it has no faults.
    pub(crate) fn count(&self) -> usize {
        self.resolved.len() + self.pending.len() + self.off.len()
    }
}
