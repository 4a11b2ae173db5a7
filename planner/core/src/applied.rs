//! What planning starts from: what each node last acknowledged, and what is to be checked again.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use groundplan_protocol::{
    effect::Effect,
    ids::{Generation, InstanceId, NodeId, TaskId},
    state::{Applied, Obligation},
};
use serde::{Deserialize, Serialize};

/// What the nodes last acknowledged. A node that is absent has never reported and gets no plan.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct AppliedState {
    /// By node; also of nodes that no commit declares any more.
    pub nodes: BTreeMap<NodeId, NodeApplied>,
    /// The generation that each of them was reported to be at.
    pub at: BTreeMap<NodeId, Generation>,
    /// What changes on other nodes left due to instances. Their own nodes may not know of it.
    pub fired: BTreeMap<InstanceId, Due>,
}

/// An effect that is due to an instance because something changed on another node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Due {
    /// The effect.
    pub effect: Effect,
    /// The generation of the first plan that the node carries the effect out for if it is due: having carried it out for that plan, or for
    /// a later one, the node has met it. None if the change came to light too late for every plan so far.
    pub since: Option<Generation>,
}

impl Due {
    /// Both as one: what meets it meets each of them.
    pub(crate) fn and(self, other: Self) -> Self {
        let since = self.since.zip(other.since).map(|(a, b)| a.max(b));
        Self { effect: self.effect.max(other.effect), since }
    }
}

/// What one node last acknowledged. A clone shares the tasks, so that a snapshot of a fleet is cheap; change them by [`Arc::make_mut`].
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct NodeApplied {
    /// What is applied, by task.
    #[serde(default)]
    pub tasks: Arc<BTreeMap<TaskId, Applied>>,
    /// Effects that are due and not carried out, as the node reported them. Its ledger has them as well, or has met them since.
    #[serde(default)]
    pub obligations: BTreeMap<TaskId, Obligation>,
}

/// What is decided for one call of `plan` and is no part of any commit.
#[derive(Debug, Clone, Default)]
pub struct Policy {
    /// Instances to plan although they are applied as desired: their nodes check them and repair what differs.
    pub check: BTreeMap<InstanceId, Check>,
    /// Nodes that an operator has parked, beside those of the inventory: nothing on other nodes waits for them.
    pub parked: BTreeSet<NodeId>,
    /// Instances whose records are dropped instead of being removed. One that is desired is left alone.
    pub forget: BTreeMap<InstanceId, Forget>,
}

/// A request to drop the record of an instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Forget {
    /// The operator, as the API knows them.
    pub by: String,
    /// Why, in the operator's words; may be empty.
    pub reason: String,
}

/// Why an instance is to be checked again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Check {
    /// An operator asked for it.
    Asked,
    /// Its node found that it differs from what was applied: a short description of the difference.
    Drifted(String),
}
