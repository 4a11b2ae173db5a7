//! The desired state: all instances that a commit declares, and the edges between them.
//!
//! Built for ten thousand nodes: tasks and nodes are numbered, an edge stands between two tasks once and is never expanded node by
//! node, and instances that resolve to the same inputs share one [`Resolved`].

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use crate::knowledge::Unknown;
use groundplan_inventory::{Lifecycle, Location, Rollout};
use groundplan_protocol::{
    digest::Fingerprint,
    duration::Span,
    effect::Effect,
    ids::{InstanceId, NodeId, Resource, ServiceId, SiteName, TaskId},
    kinds::ClaimKey,
    plan::{EdgeTrigger, Edges, OnRemove, Place, Retry, Source, TaskSpec},
    state::Applied,
};

/// A node's number: its place in the order of names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeIx(pub u32);

/// A task's number: its place in a topological order of the graph; ties go by name, then by file order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TaskIx(pub u32);

/// Everything that a commit declares, resolved.
#[derive(Debug, Clone)]
pub struct DesiredState {
    /// The site that the commit is of.
    pub site: SiteName,
    /// Every declared node, in name order; a `NodeIx` counts here.
    pub nodes: Vec<NodeId>,
    /// Where each node is declared; same order.
    pub node_places: Vec<Location>,
    /// Which of them the inventory has as parked or decommissioned; same order.
    pub lifecycles: Vec<Lifecycle>,
    /// Its tasks on all nodes, with the edges between them.
    pub graph: InstanceGraph,
    /// Rolling limits by service, the site's defaults merged in; only services that have one.
    pub rollouts: BTreeMap<ServiceId, Rollout>,
    /// Whether a removal that fails is tried again, as the site says it for all tasks.
    pub retry: Option<Retry>,
    /// The tasks with `once`, and where each is to run.
    pub once: BTreeMap<TaskId, Once>,
    /// Which reported values it depends on.
    pub node_inputs: NodeInputs,
}

/// A task that runs on one node of its service only.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Once {
    /// The nodes that run its service, in name order; at least one.
    pub candidates: Arc<[NodeIx]>,
    /// Which of them was elected.
    pub elected: Elected,
    /// How long that node may be away before another one takes over; none: however long.
    pub failover: Option<Span>,
}

/// The outcome of the election for a task with `once`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Elected {
    /// The node that is to run it.
    pub node: NodeIx,
    /// The node that it was planned on before and that has no part in the election any more, as long as it may run it still: the elected
    /// one waits for it.
    pub after: Option<NodeIx>,
}

impl Elected {
    /// Elects a node. `held` is the node that the task was planned on before, if that is declared.
    ///
    /// That node stays, however the others are called and whoever is connected: the task would be carried out once more. For a task that
    /// is on no node yet it is the first that is there, or the first of all if none is.
    pub fn of(candidates: &[NodeIx], held: Option<NodeIx>, is_present: impl Fn(NodeIx) -> bool) -> Option<Self> {
        if let Some(node) = held.filter(|node| candidates.binary_search(node).is_ok()) {
            return Some(Self { node, after: None });
        }
        let present = candidates.iter().copied().find(|node| is_present(*node));
        Some(Self { node: present.or(candidates.first().copied())?, after: held })
    }
}

/// The values reported by nodes that a resolution read, known or not: as long as none of them changes, resolving again gives the same.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct NodeInputs {
    /// Nodes whose facts were read.
    pub facts: BTreeSet<NodeId>,
    /// `export` tasks whose values were read.
    pub exports: BTreeSet<TaskId>,
}

/// Tasks in topological order, with their instances and incoming edges.
#[derive(Debug, Clone, Default)]
pub struct InstanceGraph {
    /// The tasks; a `TaskIx` counts here. Every edge leads from a lesser to a greater number.
    pub tasks: Vec<TaskVertex>,
    /// Their numbers by id.
    pub by_id: BTreeMap<TaskId, TaskIx>,
}

/// A task, on all nodes that run it.
#[derive(Debug, Clone)]
pub struct TaskVertex {
    /// The task's id: its service and its name.
    pub id: TaskId,
    /// Where it is declared.
    pub at: Location,
    /// Its instances, in node order; a task that runs once has one.
    pub instances: Vec<Instance>,
    /// Nodes on which its parameters, or its `when`, need a value that is missing; in node order.
    pub pending: Vec<Pending>,
    /// Nodes on which its `when` is false, in node order.
    pub off: Vec<(NodeIx, Arc<Off>)>,
    /// Incoming edges, sorted, at most one for each source and scope. A trigger orders as well: it is one edge, not two.
    pub edges: Vec<Edge>,
    /// Whether it is tried again after it has failed.
    pub retry: Option<Retry>,
    /// What its removal does with what it changed.
    pub on_remove: OnRemove,
    /// Where the site forbids its removal, if it does.
    pub prevent_destroy: Option<Location>,
    /// What no other task of a node may use at the same time, sorted.
    pub conflicts: Vec<Resource>,
}

/// A task on a node.
#[derive(Debug, Clone)]
pub struct Instance {
    /// The node that it runs on.
    pub node: NodeIx,
    /// What it resolved to; shared with instances of equal inputs.
    pub resolved: Arc<Resolved>,
}

/// A task on a node that needs a value which no node has reported. What is applied of it stays as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pending {
    /// The node that it would run on.
    pub node: NodeIx,
    /// The missing values, sorted; at least one.
    pub waits_for: Arc<[Unknown]>,
}

/// A `when` that is false.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Off {
    /// The expression, as it is written.
    pub when: String,
    /// The values that it read, in that order.
    pub inputs: Vec<Input>,
    /// The place of the `when` in the site's files.
    pub at: Location,
}

/// An edge that leads to a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Edge {
    /// The task that it comes from; always of a lesser number.
    pub from: TaskIx,
    /// Which instances of that task it comes from.
    pub scope: Scope,
    /// What it does to its target when its source changes; `None` only orders.
    pub trigger: Option<Effect>,
}

/// Which instances of its source an edge comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scope {
    /// The instance on the target's own node, if there is one.
    SameNode,
    /// All instances: a barrier.
    AllNodes,
    /// The instance on that node, wherever the target is.
    OneNode(NodeIx),
}

/// What an instance resolved to: its own inputs, nothing of its dependencies.
#[derive(Debug, Clone, PartialEq)]
pub struct Resolved {
    /// Kind, parameters, content and probes, as the agent gets them.
    pub spec: TaskSpec,
    /// Digest of the part of `spec` that decides the result: without probes and time limits.
    pub fingerprint: Fingerprint,
    /// What the fingerprint was computed from, in name order.
    pub inputs: Vec<Input>,
    /// The content's bytes, where it is too large to stand in `spec` itself.
    pub body: Option<Body>,
}

impl Resolved {
    /// Whether applying it over `applied`, which the same task owned, gives up some of that: its update then removes what it gives up.
    pub fn gives_up(&self, task: &TaskId, applied: &Applied) -> bool {
        // Agents of other releases may name claims otherwise: what is applied as it is desired gives nothing up.
        if self.fingerprint == applied.fingerprint {
            return false;
        }
        let keeps = self.spec.identity(task);
        !applied.claims.iter().all(|claim| keeps.contains(claim))
    }
}

/// Content that travels as a blob.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Body {
    /// A file of the repository, by path: read again when an agent fetches the blob.
    File(Arc<str>),
    /// Rendered or inline content.
    Bytes(Arc<[u8]>),
}

/// A named input of an instance: what a person changes in order to change the instance.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Input {
    /// Its name: `kind`, `param mode` (as written, unrendered), `var db_port`, `template keystone.conf.j2`, `source app.pl`, `node.address`,
    /// `groups.controller`, `external.database/ready`, `site.name`, `facts.os.id`, `exports.db.address`.
    pub name: String,
    /// Short digest of its value.
    pub digest: String,
    /// Its value, where it is short and of one line, to be shown in reasons.
    pub value: Option<String>,
    /// Where it is set.
    pub at: Location,
}

impl NodeInputs {
    /// Whether no reported value was read: then new reports cannot change the result.
    pub fn is_empty(&self) -> bool {
        self.facts.is_empty() && self.exports.is_empty()
    }
}

impl InstanceGraph {
    /// The task of that id.
    pub fn task(&self, id: &TaskId) -> Option<&TaskVertex> {
        self.by_id.get(id).map(|ix| &self.tasks[ix.0 as usize])
    }
}

impl TaskVertex {
    /// Its instance on that node.
    pub fn on(&self, node: NodeIx) -> Option<&Instance> {
        self.instances.binary_search_by_key(&node, |i| i.node).ok().map(|i| &self.instances[i])
    }

    /// What it waits for on that node, if it is pending there.
    pub fn pending_on(&self, node: NodeIx) -> Option<&Pending> {
        self.pending.binary_search_by_key(&node, |i| i.node).ok().map(|i| &self.pending[i])
    }

    /// The `when` that is false on that node.
    pub fn off_on(&self, node: NodeIx) -> Option<&Arc<Off>> {
        self.off.binary_search_by_key(&node, |(node, _)| *node).ok().map(|i| &self.off[i].1)
    }
}

impl DesiredState {
    /// What the inventory has of a node's lifecycle; none for a node that is not declared.
    pub fn lifecycle(&self, id: &NodeId) -> Option<Lifecycle> {
        self.lifecycles.get(self.node(id)?.0 as usize).copied()
    }

    /// Whether the inventory has a node as parked.
    pub fn is_parked(&self, id: &NodeId) -> bool {
        self.lifecycle(id) == Some(Lifecycle::Parked)
    }

    /// The number of a node.
    pub fn node(&self, id: &NodeId) -> Option<NodeIx> {
        self.nodes.binary_search(id).ok().map(|i| NodeIx(i as u32))
    }

    /// An instance, found by its id.
    pub fn instance(&self, id: &InstanceId) -> Option<&Instance> {
        self.graph.task(&id.task)?.on(self.node(&id.node)?)
    }

    /// The edges that are declared to a task, sorted, as the ledger keeps them.
    pub fn declared_edges(&self, task: &TaskVertex) -> Edges {
        let source = |from: TaskIx, scope| Source {
            task: self.graph.tasks[from.0 as usize].id.clone(),
            place: match scope {
                Scope::SameNode => Place::Here,
                Scope::AllNodes => Place::Everywhere,
                Scope::OneNode(node) => Place::Node(self.nodes[node.0 as usize].clone()),
            },
        };
        // A trigger is recorded twice: as what acts, and as what orders.
        let mut edges = Edges {
            on_remove: task.on_remove,
            prevent_destroy: task.prevent_destroy.is_some(),
            conflicts: task.conflicts.clone(),
            ..Edges::default()
        };
        for edge in &task.edges {
            let on = source(edge.from, edge.scope);
            if let Some(effect) = edge.trigger {
                edges.triggers.push(EdgeTrigger { effect, on: on.clone() });
            }
            edges.requires.push(on);
        }
        edges.requires.sort_unstable();
        edges.requires.dedup();
        edges.triggers.sort_unstable();
        edges
    }

    /// Whether tasks that are desired on a node take over all that an instance owns there, so that giving it up removes nothing.
    pub fn takes_all(&self, node: NodeIx, applied: &Applied) -> bool {
        let mut left: BTreeSet<ClaimKey> = applied.claims.iter().copied().collect();
        if left.is_empty() {
            return false;
        }
        for task in &self.graph.tasks {
            let Some(instance) = task.on(node) else { continue };
            instance.resolved.spec.identity(&task.id).iter().for_each(|key| _ = left.remove(key));
        }
        left.is_empty()
    }

    /// Whether an instance is desired, or may be: a pending one is not known yet.
    pub fn wants(&self, id: &InstanceId) -> bool {
        let (Some(task), Some(node)) = (self.graph.task(&id.task), self.node(&id.node)) else { return false };
        task.on(node).is_some() || task.pending.iter().any(|pending| pending.node == node)
    }
}
