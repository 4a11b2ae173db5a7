//! What was planned, kept beside the machines: by it the simulator judges whether gates and limits hold.
//!
//! In: the desired state of a plan, the plan's actions, each node's message. Out: which instances must be done before another may start,
//! and which a change triggers. Works on instances one by one, and shares no code with the planner's own graph.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use groundplan_core::{
    DesiredState, Rollout,
    desired::Scope,
    rollout::{Status, Wait},
};
use groundplan_protocol::{
    digest::Digest,
    effect::{Action, Effect},
    ids::{CommitId, Generation, InstanceId, NodeId, Sequence, ServiceId, TaskId},
    kinds::TaskParams,
    plan::NodePlan,
};

/// The edges of a desired state, instance by instance.
#[derive(Debug, Default)]
pub(super) struct Edges {
    /// What each instance comes after.
    pub(super) sources: BTreeMap<InstanceId, BTreeSet<InstanceId>>,
    /// What a change of each instance triggers.
    pub(super) triggers: BTreeMap<InstanceId, BTreeMap<InstanceId, Effect>>,
    /// What is desired, apart from what is pending.
    pub(super) instances: BTreeSet<InstanceId>,
    /// Instances of which too little is known.
    pub(super) pending: BTreeSet<InstanceId>,
    pub(super) limits: BTreeMap<ServiceId, u32>,
    /// Tasks that run on one node only.
    pub(super) once: BTreeSet<TaskId>,
    /// All declared nodes.
    pub(super) nodes: BTreeSet<NodeId>,
}

impl Edges {
    pub(super) fn of(desired: &DesiredState) -> Self {
        let mut edges = Self {
            once: desired.once.keys().cloned().collect(),
            nodes: desired.nodes.iter().cloned().collect(),
            ..Self::default()
        };
        let all = |task: usize| -> Vec<u32> {
            let task = &desired.graph.tasks[task];
            let pending = task.pending.iter().map(|pending| pending.node.0);
            task.instances.iter().map(|instance| instance.node.0).chain(pending).collect()
        };
        let name = |task: usize, node: u32| desired.graph.tasks[task].id.at(&desired.nodes[node as usize]);
        for (t, task) in desired.graph.tasks.iter().enumerate() {
            edges.instances.extend(task.instances.iter().map(|instance| name(t, instance.node.0)));
            edges.pending.extend(task.pending.iter().map(|pending| name(t, pending.node.0)));
            for node in all(t) {
                for edge in &task.edges {
                    let from = edge.from.0 as usize;
                    let nodes = all(from).into_iter().filter(|source| match edge.scope {
                        Scope::SameNode => *source == node,
                        Scope::AllNodes => true,
                        Scope::OneNode(only) => *source == only.0,
                    });
                    for source in nodes {
                        let (source, target) = (name(from, source), name(t, node));
                        edges.sources.entry(target.clone()).or_default().insert(source.clone());
                        if let Some(effect) = edge.trigger {
                            let fires = edges.triggers.entry(source).or_default().entry(target).or_insert(effect);
                            *fires = effect.max(*fires);
                        }
                    }
                }
            }
        }
        let limit = |(service, rollout): (&ServiceId, &groundplan_inventory::Rollout)| {
            Some((service.clone(), rollout.max_unavailable?))
        };
        edges.limits = desired.rollouts.iter().filter_map(limit).collect();
        edges
    }
}

/// A plan.
#[derive(Debug)]
pub(super) struct Record {
    pub(super) planner: usize,
    pub(super) generation: Generation,
    pub(super) commit: CommitId,
    pub(super) edges: Arc<Edges>,
    /// What is done to which instance.
    pub(super) actions: BTreeMap<InstanceId, Action>,
    /// Whether an operator has asked for all of it: a recheck.
    pub(super) is_asked: bool,
    /// Instances that wait for values that no node has reported.
    pub(super) held_back: BTreeSet<InstanceId>,
    /// The id of each node's plan.
    pub(super) ids: BTreeMap<NodeId, Digest>,
    pub(super) declared: BTreeSet<NodeId>,
    /// Nodes that were parked: nothing on other nodes waits for them.
    pub(super) parked: BTreeSet<NodeId>,
    /// Nodes of which the planner had received a state.
    pub(super) known: BTreeSet<NodeId>,
    /// The last report of each node of which the planner knew.
    pub(super) reported: BTreeMap<NodeId, Sequence>,
    /// Nodes whose part is on its way under an older number.
    pub(super) kept: BTreeMap<NodeId, Generation>,
    /// Tasks of each node's message, with the service whose rolling limit each is under.
    pub(super) tasks: BTreeMap<NodeId, BTreeMap<TaskId, Option<ServiceId>>>,
    /// The links that each node is to have, by path and target, as far as they are known.
    pub(super) links: BTreeMap<NodeId, BTreeMap<String, String>>,
    /// If the planner knew nothing of rollouts before: the instances of which nodes reported obligations.
    pub(super) without_memory: Option<BTreeSet<InstanceId>>,
}

/// The links that each node is to have, by path and target.
pub(super) fn links_of(desired: &DesiredState) -> BTreeMap<NodeId, BTreeMap<String, String>> {
    let mut links: BTreeMap<NodeId, BTreeMap<String, String>> = BTreeMap::new();
    for instance in desired.graph.tasks.iter().flat_map(|task| &task.instances) {
        if let TaskParams::Link(link) = &instance.resolved.spec.params {
            let node = desired.nodes[instance.node.0 as usize].clone();
            links.entry(node).or_default().insert(link.path.clone(), link.target.clone());
        }
    }
    links
}

/// The instances that wait for values that no node has reported.
pub(super) fn held_back_of(rollout: &Rollout) -> BTreeSet<InstanceId> {
    let waits = |status: &Status| matches!(status, Status::Waiting(waits) if waits.iter().any(|w| matches!(w, Wait::Unknown(_))));
    rollout.statuses().filter(|(_, _, status)| waits(status)).map(|(instance, ..)| instance).collect()
}

/// The tasks of a message, with the service whose rolling limit each is under.
pub(super) fn tasks_of(plan: &NodePlan) -> BTreeMap<TaskId, Option<ServiceId>> {
    let limited = |gates: &[groundplan_protocol::ids::GateId], task: &TaskId| {
        gates.iter().any(|gate| gate.as_str().starts_with("rolling/")).then(|| task.service.clone())
    };
    plan.tasks.iter().map(|planned| (planned.task.clone(), limited(&planned.gates, &planned.task))).collect()
}

impl Record {
    /// Whether the plan does something to an instance, or leads to a state in which it is there.
    pub(super) fn asks_for(&self, instance: &InstanceId) -> bool {
        self.actions.contains_key(instance) || self.edges.instances.contains(instance)
    }

    /// The instances of the plan that must be done before `target` may start: the nearest of each path of edges.
    pub(super) fn before(&self, target: &InstanceId) -> BTreeSet<InstanceId> {
        let (mut found, mut seen) = (BTreeSet::new(), BTreeSet::new());
        // `own`: whether the path has not left the node. What is done on a parked node is before what is there alone.
        let mut open = vec![(target.clone(), true)];
        while let Some((at, own)) = open.pop() {
            for source in self.edges.sources.get(&at).into_iter().flatten() {
                // What a node of which nothing was ever received has to do holds nothing back, and neither does what comes before it.
                if !self.known.contains(&source.node) || !seen.insert(source.clone()) {
                    continue;
                }
                let own = own && source.node == target.node;
                let is_waited_for = own || !self.parked.contains(&source.node);
                if is_waited_for && self.actions.get(source).is_some_and(|action| *action != Action::Remove) {
                    found.insert(source.clone());
                } else {
                    open.push((source.clone(), own));
                }
            }
        }
        found
    }

    /// Whether something that is done by the plan, and that `target` comes after, is one of `which`.
    pub(super) fn reaches(&self, target: &InstanceId, which: &dyn Fn(&InstanceId) -> bool) -> bool {
        let (mut seen, mut open) = (BTreeSet::new(), vec![target.clone()]);
        while let Some(at) = open.pop() {
            for source in self.edges.sources.get(&at).into_iter().flatten() {
                if self.actions.contains_key(source) && which(source) {
                    return true;
                }
                if seen.insert(source.clone()) {
                    open.push(source.clone());
                }
            }
        }
        // Removals are in no edge of what is desired: they may come before anything.
        self.actions.iter().any(|(instance, action)| *action == Action::Remove && which(instance))
    }
}
