//! Desired against applied, node by node: what is added, modified, removed, and which recorded edges are out of date.
//!
//! In: the two states. Out: changes by number. An instance of the desired state is a *vertex*: tasks in topological order, the
//! instances of each in node order. A node that is not declared, or has never reported, takes no part: what is applied there is unknown.

use std::{
    cmp::Ordering,
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use groundplan_inventory::Lifecycle;
use groundplan_protocol::{
    ids::{InstanceId, TaskId},
    kinds::ClaimKey,
    plan::{Edges, Source},
    state::Applied,
};

use crate::{
    applied::{AppliedState, Check, Forget, NodeApplied, Policy},
    desired::{DesiredState, InstanceGraph, NodeIx, Resolved},
};

/// How a desired instance differs from what is applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Change {
    /// It is left out: its node has never reported, or the site forbade what its update would remove when it was applied.
    LeftOut,
    /// Not at all.
    Same,
    /// It is not applied.
    Added,
    /// It is applied with another fingerprint.
    Modified,
    /// Not at all, and it is to be checked again.
    Check,
    /// Unknown: a value that it needs is missing.
    Pending,
}

impl Change {
    /// Whether it is planned without any trigger.
    pub(crate) fn is_planned(self) -> bool {
        matches!(self, Self::Added | Self::Modified | Self::Check)
    }
}

/// A task with instances that are applied and no longer desired.
pub(crate) struct RemovedTask<'a> {
    pub(crate) id: &'a TaskId,
    /// Its number in the desired state, if that still has it: on other nodes, or nowhere because its `when` is false.
    pub(crate) task: Option<usize>,
    /// The instances to be removed, in node order.
    pub(crate) instances: Vec<(NodeIx, &'a Applied)>,
}

/// All changes. Lists by vertex have one entry for each vertex.
pub(crate) struct Diff<'a> {
    pub(crate) desired: &'a DesiredState,
    /// What the nodes last acknowledged, and what is due to them.
    pub(crate) applied: &'a AppliedState,
    /// What is applied, by node number; none for a node that has never reported.
    pub(crate) known: Vec<Option<&'a NodeApplied>>,
    /// Whether it is parked, by node number: nothing on another node waits for it.
    parked: Vec<bool>,
    /// See [`Self::has_unknown`], which is asked for every vertex.
    has_unknown: bool,
    /// The first vertex of each task, and the number of vertices at the end.
    pub(crate) first: Vec<u32>,
    /// By vertex: its node.
    pub(crate) node_of: Vec<NodeIx>,
    /// By vertex: its change.
    pub(crate) change: Vec<Change>,
    /// By vertex: what is applied of it.
    pub(crate) before: Vec<Option<&'a Applied>>,
    /// The edges that are declared to each task, as the ledger keeps them.
    pub(crate) edges: Vec<Arc<Edges>>,
    /// The vertices whose recorded edges differ from the declared ones, ascending.
    pub(crate) stale: Vec<u32>,
    /// Tasks with instances to be removed, in order of id.
    pub(crate) removed: Vec<RemovedTask<'a>>,
    /// Applied and undesired instances whose records are dropped, by task and node. They are no removals: nothing waits for them.
    pub(crate) forgotten: Vec<(&'a TaskId, NodeIx, &'a Forget)>,
    /// Applied instances whose removal the site forbade when they were applied, and that are undesired or would give up what they own:
    /// they stay as they are.
    pub(crate) prevented: Vec<(&'a TaskId, NodeIx)>,
    /// By desired task: its index in `removed`, if instances of it are removed.
    pub(crate) removed_of: Vec<Option<u32>>,
    /// By task, only tasks that are pending on some node: for each vertex its index among the instances; none for a pending one.
    mixed: HashMap<usize, Vec<Option<usize>>>,
    /// By vertex with [`Change::Check`]: why it is checked.
    pub(crate) checks: HashMap<usize, &'a Check>,
}

impl<'a> Diff<'a> {
    pub(crate) fn new(desired: &'a DesiredState, applied: &'a AppliedState, policy: &'a Policy) -> Self {
        let tasks = &desired.graph.tasks;
        let mut first = Vec::with_capacity(tasks.len() + 1);
        let mut node_of = Vec::new();
        let mut mixed = HashMap::new();
        for (number, task) in tasks.iter().enumerate() {
            first.push(node_of.len() as u32);
            // The usual case costs no map: vertices and instances have the same indices.
            if task.pending.is_empty() {
                node_of.extend(task.instances.iter().map(|instance| instance.node));
                continue;
            }
            let instances = task.instances.iter().enumerate().map(|(i, instance)| (instance.node, Some(i)));
            let mut all: Vec<_> = instances.chain(task.pending.iter().map(|pending| (pending.node, None))).collect();
            all.sort_unstable_by_key(|(node, _)| *node);
            node_of.extend(all.iter().map(|(node, _)| *node));
            mixed.insert(number, all.into_iter().map(|(_, i)| i).collect());
        }
        first.push(node_of.len() as u32);
        let mut diff = Self {
            desired,
            applied,
            known: known(desired, applied),
            parked: parked(desired, policy),
            has_unknown: false,
            change: vec![Change::LeftOut; node_of.len()],
            before: vec![None; node_of.len()],
            edges: tasks.iter().map(|task| Arc::new(desired.declared_edges(task))).collect(),
            stale: Vec::new(),
            removed: Vec::new(),
            forgotten: Vec::new(),
            prevented: Vec::new(),
            removed_of: vec![None; tasks.len()],
            first,
            node_of,
            mixed,
            checks: HashMap::new(),
        };
        diff.has_unknown = !diff.mixed.is_empty() || diff.unheard().next().is_some();
        diff.compare(&policy.forget);
        diff.mark_checks(&policy.check);
        diff
    }

    /// The vertices of a task.
    pub(crate) fn vertices(&self, task: usize) -> std::ops::Range<usize> {
        self.first[task] as usize..self.first[task + 1] as usize
    }

    /// The vertex of a task on a node, if the node has reported.
    pub(crate) fn vertex(&self, task: usize, node: NodeIx) -> Option<usize> {
        self.any_vertex(task, node).filter(|v| self.change[*v] != Change::LeftOut)
    }

    /// The vertex of a task on a node, whether or not the node has reported.
    pub(crate) fn any_vertex(&self, task: usize, node: NodeIx) -> Option<usize> {
        let range = self.vertices(task);
        let i = self.node_of[range.clone()].binary_search(&node).ok()?;
        Some(range.start + i)
    }

    /// What a vertex resolved to; none if it is pending.
    pub(crate) fn resolved(&self, task: usize, vertex: usize) -> Option<&'a Arc<Resolved>> {
        let graph: &'a InstanceGraph = &self.desired.graph;
        // Where some instances of the task are pending, vertices and resolved instances do not have the same indices.
        let mut i = vertex - self.first[task] as usize;
        if !self.mixed.is_empty()
            && let Some(mixed) = self.mixed.get(&task)
        {
            i = mixed[i]?;
        }
        Some(&graph.tasks[task].instances[i].resolved)
    }

    /// Whether anything may have to wait for an unknown value: an instance is pending, or a node has never reported.
    pub(crate) fn has_unknown(&self) -> bool {
        self.has_unknown
    }

    /// Whether a node is parked: nothing on another node waits for it, or is triggered from there.
    pub(crate) fn is_parked(&self, node: NodeIx) -> bool {
        self.parked[node.0 as usize]
    }

    /// Whether what is on the node `at` is waited for on `node`.
    pub(crate) fn is_waited_for(&self, at: NodeIx, node: NodeIx) -> bool {
        at == node || !self.is_parked(at)
    }

    /// The nodes that have never reported, and that others wait for.
    pub(crate) fn unheard(&self) -> impl Iterator<Item = NodeIx> {
        let nodes = self.known.iter().zip(&self.parked).enumerate();
        nodes.filter(|(_, (known, parked))| known.is_none() && !**parked).map(|(node, _)| NodeIx(node as u32))
    }

    /// Whether a removed task runs once, and on another node by now: what comes after it on other nodes follows it where it runs now, and
    /// neither waits for the node that it ran on nor keeps that one from removing it.
    pub(crate) fn has_moved(&self, removed: usize) -> bool {
        let removed = &self.removed[removed];
        let elected = self.desired.once.get(removed.id).map(|once| once.elected.node);
        elected.zip(removed.task).is_some_and(|(elected, task)| self.any_vertex(task, elected).is_some())
    }

    /// What a removed task claims on a node.
    pub(crate) fn claims(&self, removed: u32, node: NodeIx) -> &'a [ClaimKey] {
        self.removed[removed as usize].on(node).map_or(&[], |applied| &applied.claims)
    }

    /// The index in `removed` of the task of that id.
    pub(crate) fn removed_by_id(&self, id: &TaskId) -> Option<usize> {
        self.removed.binary_search_by(|removed| removed.id.cmp(id)).ok()
    }

    /// Marks what is to be checked again. What changes anyway needs no check: applying it includes one.
    fn mark_checks(&mut self, check: &'a BTreeMap<InstanceId, Check>) {
        for (instance, why) in check {
            let Some(task) = self.desired.graph.by_id.get(&instance.task).map(|ix| ix.0 as usize) else { continue };
            let Ok(node) = self.desired.nodes.binary_search(&instance.node) else { continue };
            let Some(v) = self.vertex(task, NodeIx(node as u32)) else { continue };
            if self.change[v] == Change::Same {
                self.change[v] = Change::Check;
                self.checks.insert(v, why);
            }
        }
    }

    /// Compares both sides by one merge per node, in order of task ids: no lookups, whatever the number of tasks.
    fn compare(&mut self, forget: &'a BTreeMap<InstanceId, Forget>) {
        let graph: &'a InstanceGraph = &self.desired.graph;
        // `by_id` is in order of ids, so each node's list is as well.
        let mut wanted: Vec<Vec<(&'a TaskId, u32, u32)>> = vec![Vec::new(); self.known.len()];
        for (id, ix) in &graph.by_id {
            for v in self.vertices(ix.0 as usize) {
                wanted[self.node_of[v].0 as usize].push((id, ix.0, v as u32));
            }
        }
        let mut removed: Vec<(&'a TaskId, NodeIx, &'a Applied)> = Vec::new();
        for (node, wanted) in wanted.into_iter().enumerate() {
            let Some(known) = self.known[node] else { continue };
            let mut wanted = wanted.into_iter().peekable();
            for (id, applied) in &*known.tasks {
                // Skip what is desired and sorts before the applied task: it is not applied.
                let found = loop {
                    let Some((next, task, v)) = wanted.peek().copied() else { break None };
                    match compare_ids(next, id) {
                        Ordering::Less => self.change[v as usize] = Change::Added,
                        Ordering::Equal => break Some((task as usize, v as usize)),
                        Ordering::Greater => break None,
                    }
                    wanted.next();
                };
                let Some((task, v)) = found else {
                    removed.push((id, NodeIx(node as u32), applied));
                    continue;
                };
                wanted.next();
                self.before[v] = Some(applied);
                // A pending instance has nothing to compare with; `mark_pending` marks it.
                if let Some(resolved) = self.resolved(task, v) {
                    let node = NodeIx(node as u32);
                    // What changes hands is not destroyed.
                    let destroys = || resolved.gives_up(id, applied) && !self.desired.takes_all(node, applied);
                    if applied.edges.prevent_destroy && destroys() {
                        self.prevented.push((id, node));
                        // Its edges are not recorded either: with them the next plan would be free to remove.
                        continue;
                    }
                    let same = resolved.fingerprint == applied.fingerprint;
                    self.change[v] = if same { Change::Same } else { Change::Modified };
                }
                if !same_edges(&self.edges[task], &applied.edges) {
                    self.stale.push(v as u32);
                }
            }
            wanted.for_each(|(_, _, v)| self.change[v as usize] = Change::Added);
        }
        self.stale.sort_unstable();
        self.mark_pending();
        if !forget.is_empty() {
            removed.retain(|(id, node, _)| {
                let forget = forget.get(&id.at(&self.desired.nodes[node.0 as usize]));
                self.forgotten.extend(forget.map(|forget| (*id, *node, forget)));
                forget.is_none()
            });
        }
        removed.retain(|(id, node, applied)| {
            // What changes hands as a whole is not destroyed.
            let prevented = applied.edges.prevent_destroy && !self.desired.takes_all(*node, applied);
            if prevented {
                self.prevented.push((*id, *node));
            }
            !prevented
        });
        self.group_removed(removed);
    }

    /// Marks pending instances. `compare` may have marked them as added: until it is known what they are, they are no change.
    fn mark_pending(&mut self) {
        for task in self.mixed.keys().copied().collect::<Vec<_>>() {
            for v in self.vertices(task) {
                if self.known[self.node_of[v].0 as usize].is_some() && self.resolved(task, v).is_none() {
                    self.change[v] = Change::Pending;
                }
            }
        }
    }

    /// Groups removed instances, which come by node, by task: so an edge to a removed task finds all its instances at once.
    fn group_removed(&mut self, mut removed: Vec<(&'a TaskId, NodeIx, &'a Applied)>) {
        removed.sort_unstable_by(|a, b| (a.0, a.1).cmp(&(b.0, b.1)));
        for (id, node, applied) in removed {
            if self.removed.last().is_none_or(|removed| removed.id != id) {
                // The task may still be desired on other nodes.
                let task = self.desired.graph.by_id.get(id).map(|ix| ix.0 as usize);
                if let Some(task) = task {
                    self.removed_of[task] = Some(self.removed.len() as u32);
                }
                self.removed.push(RemovedTask { id, task, instances: Vec::new() });
            }
            if let Some(removed) = self.removed.last_mut() {
                removed.instances.push((node, applied));
            }
        }
    }
}

impl<'a> RemovedTask<'a> {
    /// What is applied of it on a node, if it is removed there.
    pub(crate) fn on(&self, node: NodeIx) -> Option<&'a Applied> {
        self.instances.binary_search_by_key(&node, |i| i.0).ok().map(|i| self.instances[i].1)
    }
}

/// What is applied on each declared node. Both lists are in name order, so one pass over both suffices.
fn known<'a>(desired: &DesiredState, applied: &'a AppliedState) -> Vec<Option<&'a NodeApplied>> {
    let mut reported = applied.nodes.iter().peekable();
    let of = |node| {
        while reported.next_if(|(id, _)| *id < node).is_some() {}
        reported.next_if(|(id, _)| *id == node).map(|(_, known)| known)
    };
    desired.nodes.iter().map(of).collect()
}

/// Whether each node is parked, by number.
fn parked(desired: &DesiredState, policy: &Policy) -> Vec<bool> {
    let by_site = desired.lifecycles.iter().map(|lifecycle| *lifecycle == Lifecycle::Parked);
    let mut parked: Vec<bool> = by_site.collect();
    for node in policy.parked.iter().filter_map(|node| desired.node(node)) {
        parked[node.0 as usize] = true;
    }
    parked
}

/// Whether two texts are equal. Ids that were cloned from each other share their text, so most comparisons end at the address.
fn same_text(a: &str, b: &str) -> bool {
    a.len() == b.len() && (a.as_ptr() == b.as_ptr() || a == b)
}

fn same_id(a: &TaskId, b: &TaskId) -> bool {
    same_text(a.service.as_str(), b.service.as_str()) && same_text(a.task.as_str(), b.task.as_str())
}

fn compare_ids(a: &TaskId, b: &TaskId) -> Ordering {
    if same_id(a, b) { Ordering::Equal } else { a.cmp(b) }
}

fn same_edges(a: &Edges, b: &Edges) -> bool {
    let same = |a: &Source, b: &Source| same_id(&a.task, &b.task) && a.place == b.place;
    a.on_remove == b.on_remove
        && a.conflicts == b.conflicts
        && a.prevent_destroy == b.prevent_destroy
        && a.requires.len() == b.requires.len()
        && a.triggers.len() == b.triggers.len()
        && a.requires.iter().zip(&b.requires).all(|(a, b)| same(a, b))
        && a.triggers.iter().zip(&b.triggers).all(|(a, b)| a.effect == b.effect && same(&a.on, &b.on))
}
