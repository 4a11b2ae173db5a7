//! The plan as a value: actions with reasons, each node's part, gates. Rollouts, node plans and reports are made from it.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use groundplan_protocol::{
    VERSION,
    digest::Fingerprint,
    effect::Action,
    ids::{CommitId, GateId, Generation, InstanceId, LedgerId, NodeId, ServiceId, SiteName, TaskId},
    plan::{Edges, NodePlan, OnRemove, PlannedTask, Retry, Trigger},
    state::Applied,
};
use serde::{Deserialize, Serialize};

use crate::applied::Due;
use crate::{desired::Resolved, knowledge::Unknown, reason::Reason};

/// A restart graph made executable.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Plan {
    /// What is done and why, in a valid execution order. Those of one node are in the order of the tasks of its part.
    pub actions: Vec<PlannedAction>,
    /// Each node's part; only nodes that have one.
    pub nodes: BTreeMap<NodeId, NodePart>,
    /// What opens each gate that a task waits for.
    pub gates: BTreeMap<GateId, Gate>,
    /// Instances that cannot be planned yet, with what is missing, in the order of the graph.
    pub pending: Vec<PendingInstance>,
    /// The parked nodes, whether or not they have a part: nothing on other nodes waits for them.
    pub parked: BTreeSet<NodeId>,
    /// What changes on parked nodes and has triggers on others, which do not wait for it. Once it has changed, another plan has the effects.
    pub detached: BTreeSet<InstanceId>,
    /// Instances that are applied, and no longer desired or about to give up what they own, and that stay as they are because the site
    /// forbade their removal when they were applied: a commit that leads to this is to be refused.
    pub prevented: Vec<InstanceId>,
}

/// An instance that cannot be planned, because no node has reported a value that it needs. What is applied of it stays as it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PendingInstance {
    /// The instance that is left as it is.
    pub instance: InstanceId,
    /// The missing values, sorted; at least one.
    pub waits_for: Vec<Unknown>,
}

impl Plan {
    /// The actions that can be carried out: those that wait for no unknown value.
    pub fn due(&self) -> impl Iterator<Item = &PlannedAction> {
        self.actions.iter().filter(|action| action.waits_for.is_empty())
    }

    /// Whether nothing is done to any instance. Nodes may still have edges to record: see [`NodePart::edges`].
    pub fn is_empty(&self) -> bool {
        self.actions.is_empty()
    }
}

/// An action with its reasons.
#[derive(Debug, Clone, PartialEq)]
pub struct PlannedAction {
    /// What it is done to.
    pub instance: InstanceId,
    /// What is done; for an instance that changes and is triggered as well, the change.
    pub action: Action,
    /// What a removal does with what the task changed, or an update with what it gives up; none for another action, and for a task that
    /// leaves nothing.
    pub on_remove: Option<OnRemove>,
    /// What is lost for good by it, for people.
    pub destroys: Option<String>,
    /// Why: each is the cause of the one before it, and the last is a named input of a named file.
    pub reasons: Vec<Reason>,
    /// Unknown values that it, or what it comes after, needs: then it waits behind a gate that this plan never opens. It stands in the
    /// plan all the same, so that the agent records the obligations that triggers leave for it meanwhile.
    pub waits_for: Arc<[Unknown]>,
}

/// One node's part of a plan.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct NodePart {
    /// Its tasks, each after all that it waits for on this node.
    pub tasks: Vec<PlanTask>,
    /// Applied tasks of which only the edges changed: the agent records these and does nothing else.
    pub edges: BTreeMap<TaskId, Arc<Edges>>,
}

impl NodePart {
    /// The node's plan, for the ledger that it has.
    pub fn node_plan(
        &self,
        site: SiteName,
        (node, ledger): (NodeId, Option<LedgerId>),
        generation: Generation,
        commit: CommitId,
    ) -> NodePlan {
        NodePlan {
            version: VERSION,
            site,
            node,
            generation,
            commit,
            tasks: self.tasks.iter().map(PlanTask::to_wire).collect(),
            edges: self.edges.iter().map(|(task, edges)| (task.clone(), (**edges).clone())).collect(),
            ledger,
        }
    }
}

/// A task of a node's part. What it resolved to is shared with the desired state; [`PlanTask::to_wire`] writes it out.
#[derive(Debug, Clone, PartialEq)]
pub struct PlanTask {
    /// The task, on the node of the part.
    pub task: TaskId,
    /// What the agent is to do; the same as in [`PlannedAction`].
    pub action: Action,
    /// What it is to be; absent if it is removed, or pending.
    pub resolved: Option<Arc<Resolved>>,
    /// All edges that the site declares to it; none for a removal.
    pub edges: Arc<Edges>,
    /// Tasks of this node's part that must be done first.
    pub after: Vec<TaskId>,
    /// Gates that must be open first.
    pub gates: Vec<GateId>,
    /// What may fire; each source is also in `after` or `gates`.
    pub triggers: Vec<Trigger>,
    /// An effect that is due to it because of earlier plans, and of which its node may not know.
    pub obligation: Option<Due>,
    /// Removed tasks on the same node that it takes over from.
    pub from: Vec<TaskId>,
    /// For a removal: the tasks that it hands over to.
    pub into: Vec<TaskId>,
    /// Whether it is tried again after it has failed.
    pub retry: Option<Retry>,
}

impl PlanTask {
    /// The fingerprint that it will have; none for a removal and for a pending task.
    pub fn fingerprint(&self) -> Option<Fingerprint> {
        self.resolved.as_ref().map(|resolved| resolved.fingerprint)
    }

    /// What the ledger will hold of it once it is done; none for a removal and for a pending task.
    pub fn applied(&self) -> Option<Applied> {
        let resolved = self.resolved.as_ref()?;
        Some(applied(&self.task, resolved, &self.edges))
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
            obligation: self.obligation.map(|due| due.effect),
            since: self.obligation.and_then(|due| due.since),
            from: self.from.clone(),
            into: self.into.clone(),
            retry: self.retry,
        }
    }
}

/// What the ledger holds of a task with these edges once `resolved` is applied.
pub(super) fn applied(task: &TaskId, resolved: &Resolved, edges: &Edges) -> Applied {
    Applied {
        fingerprint: resolved.fingerprint,
        inputs: digests(resolved),
        edges: edges.clone(),
        claims: resolved.spec.identity(task),
        contends: resolved.spec.contends(task),
        on_remove: resolved.spec.params.leaves_something().then_some(edges.on_remove),
        destroys: resolved.spec.params.destroyed_by_removal().filter(|_| edges.on_remove != OnRemove::Keep),
    }
}

/// The inputs as the ledger keeps them: short digests by name.
fn digests(resolved: &Resolved) -> BTreeMap<String, String> {
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
    /// Nothing in this plan: a newer plan takes its place when the missing values are reported.
    Unknown,
    /// A turn in a rolling restart: opened when fewer than `limit` other nodes hold one.
    Turn {
        /// The service with the limit.
        service: ServiceId,
        /// How many nodes may hold a turn at once; at least 1.
        limit: u32,
    },
}
