//! Hand-over: what one task gives up and another one takes on the same node is not removed, it changes hands.
//!
//! In: the desired state and the removals of a diff. Out: for each removal the vertices that take over from it, its *heirs*, and
//! whether they take all of it; and for each vertex the removals that must come first, because both contend for something that cannot
//! change hands, such as a port. Only claims count, never names: so it holds for renamed tasks and services, for splits and merges.
//! What an update gives up changes hands as well. That needs no order, because the agent sees to it when it accepts the plan: here it is
//! found for people alone.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use groundplan_protocol::{
    ids::{Resource, TaskId},
    kinds::{Claim, ClaimKey},
    state::Applied,
};

use crate::{
    desired::{NodeIx, Resolved},
    diff::{Change, Diff},
};

/// What becomes of the claims of a removed instance.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct HandOver {
    /// The vertices that take over from it, ascending; at least one.
    pub(crate) heirs: Vec<u32>,
    /// Whether they take all of it, so that nothing is left to remove.
    pub(crate) whole: bool,
}

/// All hand-overs of a diff. Empty, at no cost, where nothing is removed.
#[derive(Debug, Default)]
pub(crate) struct HandOvers {
    /// By removed task, as its index in `Diff::removed`, and node.
    by_removal: BTreeMap<(u32, NodeIx), HandOver>,
    /// By vertex: the removed tasks, on its node, that it takes over from.
    by_heir: BTreeMap<u32, Vec<u32>>,
    /// By vertex: the removed tasks, on its node, that must be gone before it is applied.
    first: BTreeMap<u32, Vec<u32>>,
    /// By vertex: the vertices on its node that give up, by an update, what it takes over.
    by_update: BTreeMap<u32, Vec<u32>>,
}

/// What a task claims, by key; `identity` sorted.
struct Keys {
    identity: Vec<ClaimKey>,
    contends: Vec<ClaimKey>,
}

impl Keys {
    fn of(resolved: &Resolved, task: &TaskId, conflicts: &[Resource]) -> Self {
        let contends = resolved.spec.contends(task).into_iter().chain(conflicts.iter().map(key));
        Self { identity: resolved.spec.identity(task), contends: contends.collect() }
    }

    fn all(&self) -> impl Iterator<Item = &ClaimKey> {
        self.identity.iter().chain(self.contends.iter())
    }
}

/// The key of what the site declares that one task at a time may use.
fn key(resource: &Resource) -> ClaimKey {
    ClaimKey::of(&Claim::named("conflict", resource.as_str()))
}

/// What is worked out of one instance after the other: most instances of a task share what they resolved to.
struct Shared<'a, T>(Option<(&'a Arc<Resolved>, T)>);

impl<T> Default for Shared<'_, T> {
    fn default() -> Self {
        Self(None)
    }
}

impl<'a, T> Shared<'a, T> {
    fn of(&mut self, resolved: &'a Arc<Resolved>, make: impl FnOnce() -> T) -> &T {
        self.0.take_if(|(last, _)| !Arc::ptr_eq(last, resolved));
        &self.0.get_or_insert_with(|| (resolved, make())).1
    }
}

/// The removals of one node, by what they claimed.
#[derive(Default)]
struct Given<'a> {
    identity: HashMap<ClaimKey, Vec<u32>>,
    all: HashMap<ClaimKey, Vec<u32>>,
    applied: BTreeMap<u32, &'a Applied>,
}

impl HandOvers {
    pub(crate) fn new(diff: &Diff<'_>) -> Self {
        let mut given: BTreeMap<NodeIx, Given<'_>> = BTreeMap::new();
        for (g, removed) in diff.removed.iter().enumerate() {
            for (node, applied) in &removed.instances {
                let on = given.entry(*node).or_default();
                on.applied.insert(g as u32, applied);
                applied.claims.iter().for_each(|key| on.identity.entry(*key).or_default().push(g as u32));
                let all = applied.claims.iter().chain(&applied.contends);
                let all = all.copied().chain(applied.edges.conflicts.iter().map(key));
                all.for_each(|key| on.all.entry(key).or_default().push(g as u32));
            }
        }
        let mut hand_overs = Self { by_update: updates(diff), ..Self::default() };
        if given.is_empty() {
            return hand_overs;
        }
        // By removal: which of its claims are taken.
        let mut taken: BTreeMap<(u32, NodeIx), BTreeSet<ClaimKey>> = BTreeMap::new();
        for task in 0..diff.edges.len() {
            let vertex = &diff.desired.graph.tasks[task];
            let mut shared = Shared::default();
            for (node, given) in &given {
                let Some(v) = diff.vertex(task, *node) else { continue };
                let Some(resolved) = diff.resolved(task, v) else { continue };
                let keys = shared.of(resolved, || Keys::of(resolved, &vertex.id, &vertex.conflicts));
                hand_overs.compare(diff, v, *node, keys, given, &mut taken);
            }
        }
        for ((g, node), hand_over) in &mut hand_overs.by_removal {
            let applied = given.get(node).and_then(|given| given.applied.get(g));
            let taken = taken.get(&(*g, *node));
            hand_over.whole = applied.is_some_and(|a| a.claims.iter().all(|k| taken.is_some_and(|t| t.contains(k))));
        }
        hand_overs
    }

    /// Compares what a vertex claims with what the removals on its node did.
    fn compare(
        &mut self,
        diff: &Diff<'_>,
        vertex: usize,
        node: NodeIx,
        keys: &Keys,
        given: &Given<'_>,
        taken: &mut BTreeMap<(u32, NodeIx), BTreeSet<ClaimKey>>,
    ) {
        let mut from = BTreeSet::new();
        for key in keys.identity.iter() {
            for g in given.identity.get(key).into_iter().flatten() {
                from.insert(*g);
                taken.entry((*g, node)).or_default().insert(*key);
            }
        }
        let changes = matches!(diff.change[vertex], Change::Added | Change::Modified);
        let others: BTreeSet<u32> = keys.all().filter_map(|key| given.all.get(key)).flatten().copied().collect();
        let first: Vec<u32> = others.difference(&from).copied().filter(|_| changes).collect();
        if !first.is_empty() {
            self.first.insert(vertex as u32, first);
        }
        for g in &from {
            self.by_removal.entry((*g, node)).or_default().heirs.push(vertex as u32);
        }
        if !from.is_empty() {
            self.by_heir.insert(vertex as u32, from.into_iter().collect());
        }
    }

    /// What becomes of a removed task on a node; none if nothing there takes over from it.
    pub(crate) fn of(&self, removed: u32, node: NodeIx) -> Option<&HandOver> {
        self.by_removal.get(&(removed, node))
    }

    /// Whether all of a removed task on a node changes hands, so that its removal removes nothing.
    pub(crate) fn is_whole(&self, removed: u32, node: NodeIx) -> bool {
        self.of(removed, node).is_some_and(|hand_over| hand_over.whole)
    }

    /// All removals that hand something over.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (u32, NodeIx, &HandOver)> {
        self.by_removal.iter().map(|((removed, node), hand_over)| (*removed, *node, hand_over))
    }

    /// The removed tasks that a vertex takes over from on its node.
    pub(crate) fn from(&self, vertex: usize) -> &[u32] {
        self.by_heir.get(&(vertex as u32)).map_or(&[], Vec::as_slice)
    }

    /// The vertices on its node that give up, by an update, what a vertex takes over.
    pub(crate) fn updated_for(&self, vertex: usize) -> &[u32] {
        self.by_update.get(&(vertex as u32)).map_or(&[], Vec::as_slice)
    }

    /// The removed tasks on a vertex's node that contend with it.
    pub(crate) fn first(&self, vertex: usize) -> &[u32] {
        self.first.get(&(vertex as u32)).map_or(&[], Vec::as_slice)
    }

    /// All vertices with removals that contend with them.
    pub(crate) fn contended(&self) -> impl Iterator<Item = (u32, &[u32])> {
        self.first.iter().map(|(vertex, removed)| (*vertex, removed.as_slice()))
    }

    /// Gives up hand-overs that no order allows: an heir comes before the removal, and what the removal triggers, or contends with what it
    /// leaves, comes after it. What changes hands as a whole triggers nothing, so this is for the rest alone. `after` has the removed
    /// tasks, each with the task that comes after it.
    pub(crate) fn give_up_before(&mut self, diff: &Diff<'_>, after: impl Iterator<Item = (u32, usize)>) {
        let task_of = |v: u32| diff.first.partition_point(|first| *first <= v) - 1;
        let mut bound: HashMap<u32, usize> = HashMap::new();
        let contended = self.first.iter().flat_map(|(v, removed)| removed.iter().map(|g| (*g, task_of(*v))));
        for (removed, task) in after.chain(contended) {
            bound.entry(removed).and_modify(|least| *least = (*least).min(task)).or_insert(task);
        }
        let by_heir = &mut self.by_heir;
        self.by_removal.retain(|(removed, _), hand_over| {
            let Some(bound) = bound.get(removed).filter(|_| !hand_over.whole) else { return true };
            let (keep, give_up): (Vec<u32>, Vec<u32>) =
                hand_over.heirs.iter().partition(|heir| task_of(**heir) < *bound);
            for heir in give_up {
                by_heir.entry(heir).or_default().retain(|other| other != removed);
            }
            hand_over.heirs = keep;
            !hand_over.heirs.is_empty()
        });
        // What changes hands as a whole does not go, so that nothing waits for that.
        let by_removal = &self.by_removal;
        for (vertex, removed) in &mut self.first {
            let node = diff.node_of[*vertex as usize];
            removed.retain(|g| !by_removal.get(&(*g, node)).is_some_and(|hand_over| hand_over.whole));
        }
    }
}

/// By vertex: the vertices on its node that give up, by an update, what it takes over.
fn updates(diff: &Diff<'_>) -> BTreeMap<u32, Vec<u32>> {
    let mut given: HashMap<(NodeIx, ClaimKey), u32> = HashMap::new();
    each_identity(
        diff,
        |change, _| change == Change::Modified,
        |v, identity| {
            let had = diff.before[v].map_or(&[][..], |before| &before.claims);
            // Most updates keep all that they have.
            if had != identity {
                let lost = had.iter().filter(|claim| !identity.contains(claim));
                given.extend(lost.map(|claim| ((diff.node_of[v], *claim), v as u32)));
            }
        },
    );
    let mut by_heir: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
    if given.is_empty() {
        return by_heir;
    }
    let nodes: BTreeSet<NodeIx> = given.keys().map(|(node, _)| *node).collect();
    let takes = |change, node| matches!(change, Change::Added | Change::Modified) && nodes.contains(&node);
    each_identity(diff, takes, |v, identity| {
        let had = diff.before[v].map_or(&[][..], |before| &before.claims);
        let new = identity.iter().filter(|claim| !had.contains(claim));
        let givers: BTreeSet<u32> = new.filter_map(|claim| given.get(&(diff.node_of[v], *claim)).copied()).collect();
        if !givers.is_empty() {
            by_heir.insert(v as u32, givers.into_iter().collect());
        }
    });
    by_heir
}

/// Calls `each` with what every vertex claims whose change and node are `chosen`.
fn each_identity(diff: &Diff<'_>, chosen: impl Fn(Change, NodeIx) -> bool, mut each: impl FnMut(usize, &[ClaimKey])) {
    for task in 0..diff.edges.len() {
        let mut shared = Shared::default();
        for v in diff.vertices(task).filter(|v| chosen(diff.change[*v], diff.node_of[*v])) {
            let Some(resolved) = diff.resolved(task, v) else { continue };
            each(v, shared.of(resolved, || resolved.spec.identity(&diff.desired.graph.tasks[task].id)));
        }
    }
}
