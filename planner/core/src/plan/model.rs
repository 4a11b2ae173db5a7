//! A plan, as the rollout, the node plans and the reports are made from it.

use std::{collections::BTreeMap, sync::Arc};

use groundplan_protocol::{
    VERSION,
    digest::Fingerprint,
    effect::{Action, Effect},
    ids::{CommitId, GateId, Generation, InstanceId, NodeId, ServiceId, SiteName, TaskId},
    plan::{Edges, NodePlan, PlannedTask, Trigger},
    state::Applied,
};
use serde::{Deserialize, Serialize};

use crate::{desired::Resolved, knowledge::Unknown, reason::Reason};

/// A restart graph made executable.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Plan {
    /// What is done and why, in a valid execution order.
    pub actions: Vec<PlannedAction>,
    /// Each node's part; only nodes that have one.
    pub nodes: BTreeMap<NodeId, NodePart>,
    /// What opens each gate.
    pub gates: BTreeMap<GateId, Gate>,
    /// Instances of which too little is known, with what is missing, in the order of the graph.
    pub pending: Vec<PendingInstance>,
}

/// An instance of which too little is known to plan it. What is applied of it stays as it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PendingInstance {
    /// The instance.
    pub instance: InstanceId,
    /// What is missing.
    pub waits_for: Vec<Unknown>,
}

impl Plan {
    /// What is done now: the actions that wait for nothing unknown.
    pub fn due(&self) -> impl Iterator<Item = &PlannedAction> {
        self.actions.iter().filter(|action| action.waits_for.is_empty())
    }

    /// Whether there is nothing to do. Edges may still be there to be recorded: see [`NodePart::edges`].
    pub fn is_empty(&self) -> bool {
        self.actions.is_empty()
    }
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
    /// What nobody knows of what it comes after, or of itself: it waits behind a gate that this plan does not open. It stands in the
    /// plan so that what it comes to owe meanwhile is not lost.
    pub waits_for: Arc<[Unknown]>,
}

/// One node's part of a plan.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct NodePart {
    /// What to do, each after all that it waits for on this node.
    pub tasks: Vec<PlanTask>,
    /// Edges of applied tasks that changed while nothing else of them did: to be recorded, nothing to be done.
    pub edges: BTreeMap<TaskId, Arc<Edges>>,
}

impl NodePart {
    /// The message to the node.
    pub fn node_plan(&self, site: SiteName, node: NodeId, generation: Generation, commit: CommitId) -> NodePlan {
        NodePlan {
            version: VERSION,
            site,
            node,
            generation,
            commit,
            tasks: self.tasks.iter().map(PlanTask::to_wire).collect(),
            edges: self.edges.iter().map(|(task, edges)| (task.clone(), (**edges).clone())).collect(),
        }
    }
}

/// A task of a node's part. What it resolved to is shared with the desired state; [`PlanTask::to_wire`] writes it out.
#[derive(Debug, Clone, PartialEq)]
pub struct PlanTask {
    /// The task.
    pub task: TaskId,
    /// What is done to it, in one word.
    pub action: Action,
    /// What it is to be; absent if it is removed, or waits because nobody can tell yet.
    pub resolved: Option<Arc<Resolved>>,
    /// All edges that the site declares to it; none for a removal.
    pub edges: Arc<Edges>,
    /// Tasks of this node's part that must be done first.
    pub after: Vec<TaskId>,
    /// Gates that must be open first.
    pub gates: Vec<GateId>,
    /// What may fire; each source is also in `after` or `gates`.
    pub triggers: Vec<Trigger>,
    /// An effect that an earlier plan already owes it.
    pub owed: Option<Effect>,
}

impl PlanTask {
    /// The fingerprint that it will have; none for a removal.
    pub fn fingerprint(&self) -> Option<Fingerprint> {
        self.resolved.as_ref().map(|resolved| resolved.fingerprint)
    }

    /// What the ledger will hold of it once it is done; none for a removal.
    pub fn applied(&self) -> Option<Applied> {
        let resolved = self.resolved.as_ref()?;
        Some(Applied { fingerprint: resolved.fingerprint, inputs: digests(resolved), edges: (*self.edges).clone() })
    }

    /// As it stands in a node plan.
    pub fn to_wire(&self) -> PlannedTask {
        PlannedTask {
            task: self.task.clone(),
            action: self.action,
            spec: self.resolved.as_ref().map(|resolved| resolved.spec.clone()),
            fingerprint: self.fingerprint(),
            inputs: self.resolved.as_deref().map(digests).unwrap_or_default(),
            edges: (*self.edges).clone(),
            after: self.after.clone(),
            gates: self.gates.clone(),
            triggers: self.triggers.clone(),
            owed: self.owed,
        }
    }
}

pub(super) fn digests(resolved: &Resolved) -> BTreeMap<String, String> {
    resolved.inputs.iter().map(|input| (input.name.clone(), input.digest.clone())).collect()
}

/// What opens a gate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Gate {
    /// Instances of this plan, all done.
    Done {
        /// The instances, in no order that matters, each once.
        waits_for: Vec<InstanceId>,
        /// The gate fires if an instance of this task among them changed something; with none it never fires.
        fires_on: Option<TaskId>,
    },
    /// Nothing in this plan: a newer one takes its place when more is known.
    Unknown,
    /// A place in a rolling restart: opened when fewer than `limit` other nodes are in the midst of theirs.
    Turn {
        /// The service that is limited.
        service: ServiceId,
        /// On how many nodes at once.
        limit: u32,
    },
}
