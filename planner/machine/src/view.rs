//! An immutable snapshot of all that the planner knows, for those who read: on other threads, without holding up the machine.
//!
//! Taking one costs a pointer for each node; what changes while a view is in use is copied, and nothing else.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use groundplan_protocol::ids::{ExecId, InstanceId, NodeId};

use crate::{
    command::CommandRun, commit::ActiveCommit, drift::NodeDrift, fleet::Node, leadership::Role, record::Meta,
    rollout::ActiveRollout,
};

/// See the module.
#[derive(Debug, Clone)]
pub struct View {
    /// Site, generation, term, active and refused commit, as the store has them.
    pub meta: Meta,
    /// The active commit with what it asks for.
    pub active: Option<Arc<ActiveCommit>>,
    /// Whether this planner plans.
    pub role: Role,
    /// Its term, or that of the planner it stands by for.
    pub term: u64,
    /// Whether something has come in that it has yet to load or to plan with.
    pub due: bool,
    /// Whether there is a connection to the broker; if not, why.
    pub broker: Result<(), Option<String>>,
    /// Why the repository cannot be read at the moment.
    pub repository_error: Option<String>,
    /// How many payloads were ignored since the start, because they were not ours.
    pub ignored: u64,
    /// Every node of which a message came.
    pub nodes: BTreeMap<NodeId, Arc<Node>>,
    /// Nodes whose presence or reports name a ledger of which no state has come.
    pub awaited: BTreeSet<NodeId>,
    /// What is known of drift.
    pub drift: BTreeMap<NodeId, Arc<NodeDrift>>,
    /// The latest rollout.
    pub rollout: Option<Arc<ActiveRollout>>,
    /// The commands that run.
    pub commands: BTreeMap<ExecId, Arc<CommandRun>>,
}

impl View {
    /// Whether an agent has reported that it runs an instance.
    pub fn runs(&self, instance: &InstanceId) -> bool {
        self.nodes.get(&instance.node).is_some_and(|node| node.running.contains(&instance.task))
    }
}
