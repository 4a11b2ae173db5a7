//! What planning starts from: what each node last acknowledged, and what is to be checked again.

use std::{collections::BTreeMap, sync::Arc};

use groundplan_protocol::{
    ids::{InstanceId, NodeId, TaskId},
    state::{Applied, Obligation},
};
use serde::{Deserialize, Serialize};

/// What the nodes last acknowledged. A node that is absent has not been heard of and gets no plan.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct AppliedState {
    /// By node.
    pub nodes: BTreeMap<NodeId, NodeApplied>,
}

/// What one node last acknowledged. A clone shares the tasks, so that a snapshot of a fleet is cheap; whoever changes them does so by
/// [`Arc::make_mut`].
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct NodeApplied {
    /// What is applied, by task.
    #[serde(default)]
    pub tasks: Arc<BTreeMap<TaskId, Applied>>,
    /// What is owed, by the agent's word or the planner's own record of gates that opened.
    #[serde(default)]
    pub obligations: BTreeMap<TaskId, Obligation>,
}

/// How to plan.
#[derive(Debug, Clone, Default)]
pub struct Policy {
    /// What is planned although it is applied as desired, so that its node checks whether it still is and puts right what is not.
    pub check: BTreeMap<InstanceId, Check>,
}

/// Why an instance is to be checked again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Check {
    /// Somebody asked for it.
    Asked,
    /// Its node has found it otherwise than it was applied: what differs, in short words.
    Drifted(String),
}
