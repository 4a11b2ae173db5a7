//! What planning starts from: what each node last acknowledged, and what is to be checked again.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use groundplan_protocol::{
    ids::{InstanceId, NodeId, TaskId},
    state::{Applied, Obligation},
};
use serde::{Deserialize, Serialize};

/// What the nodes last acknowledged. A node that is absent has never reported and gets no plan.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct AppliedState {
    /// By node; also of nodes that no commit declares any more.
    pub nodes: BTreeMap<NodeId, NodeApplied>,
    /// Instances with an obligation of which the plan before this one did not know: nothing that was done for that one meets it.
    pub late: BTreeSet<InstanceId>,
}

/// What one node last acknowledged. A clone shares the tasks, so that a snapshot of a fleet is cheap; change them by [`Arc::make_mut`].
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct NodeApplied {
    /// What is applied, by task.
    #[serde(default)]
    pub tasks: Arc<BTreeMap<TaskId, Applied>>,
    /// Effects that are due and not carried out: those that the node reported, and those of gates that the planner itself opened.
    #[serde(default)]
    pub obligations: BTreeMap<TaskId, Obligation>,
}

/// What is decided for one call of `plan` and is no part of any commit.
#[derive(Debug, Clone, Default)]
pub struct Policy {
    /// Instances to plan although they are applied as desired: their nodes check them and repair what differs.
    pub check: BTreeMap<InstanceId, Check>,
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
