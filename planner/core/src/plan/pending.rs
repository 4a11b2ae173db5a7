//! Pending instances, and the actions that are held back because they come after one.
//!
//! In: the diff, and the assembled plan. Out: per vertex and removal the unknown values that it waits for; where nothing is unknown,
//! empty sets at no cost. Held back is what order edges reach from a pending instance, through planned and unplanned instances alike;
//! a removal is held back while a pending instance is applied that had required what is removed, or while one may take over what is removed,
//! but not while what makes the value known waits for it.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    sync::Arc,
};

use groundplan_protocol::{
    effect::Action,
    ids::{GateId, InstanceId, NodeId},
};

use super::model::{Gate, PendingInstance, Plan, PlanTask};
use crate::{
    desired::{DesiredState, NodeIx, Pending, Scope, TaskVertex},
    diff::Diff,
    knowledge::Unknown,
    restart::{RestartGraph, scope},
};

/// How many unknown values are listed for one instance. A barrier over a thousand nodes without facts would list a thousand.
pub(crate) const MAX_LISTED: usize = 16;

pub(super) type Waits = Arc<[Unknown]>;

/// Which vertices and removals wait for which unknown values.
pub(super) struct HeldBack {
    none: Waits,
    /// By vertex; empty where nothing is pending.
    vertices: Vec<Option<Waits>>,
    /// By removed task: what pending instances wait for that had required it on all nodes.
    everywhere: HashMap<u32, Waits>,
    /// By removed task and node: what pending instances wait for that had required it there.
    single: HashMap<(u32, NodeIx), Waits>,
    /// By node: what its new tasks wait for of which it is not known yet what they own, and may take over.
    heirs: HashMap<NodeIx, Waits>,
}

impl HeldBack {
    pub(super) fn new(graph: &RestartGraph<'_>) -> Self {
        let diff = graph.diff;
        let none = Vec::new().into();
        let (vertices, everywhere) = (Vec::new(), HashMap::new());
        let mut held = Self { none, vertices, everywhere, single: HashMap::new(), heirs: HashMap::new() };
        if !diff.has_unknown() {
            return held;
        }
        let tasks = &diff.desired.graph.tasks;
        // By node: its first report, where it has never reported. What is applied there is unknown, so all of it may be about to change.
        let mut unheard: Vec<Option<Waits>> = vec![None; diff.known.len()];
        for node in diff.unheard() {
            let first = Unknown::Node(diff.desired.nodes[node.0 as usize].clone());
            unheard[node.0 as usize] = Some([first].into());
        }
        held.vertices = vec![None; diff.change.len()];
        // By task: what all its instances together wait for, computed once however many edges lead from there.
        let mut barriers: Vec<Option<Waits>> = vec![None; tasks.len()];
        for (number, task) in tasks.iter().enumerate() {
            for v in diff.vertices(number) {
                let node = diff.node_of[v];
                let own = task.pending_on(node).map(|pending| &pending.waits_for).or(unheard[node.0 as usize].as_ref());
                let sources = task.edges.iter().flat_map(|edge| {
                    let from = edge.from.0 as usize;
                    // Also on nodes that have never reported: a pending instance there holds back what comes after it elsewhere.
                    let on = |node| diff.any_vertex(from, node).and_then(|source| held.vertices[source].as_ref());
                    match edge.scope {
                        // A barrier leaves a parked node out, but for the node itself.
                        Scope::AllNodes if diff.is_parked(node) => [barriers[from].as_ref(), on(node)],
                        Scope::AllNodes => [barriers[from].as_ref(), None],
                        Scope::SameNode => [on(node), None],
                        Scope::OneNode(at) if !diff.is_waited_for(at, node) => [None, None],
                        Scope::OneNode(at) => [on(at), None],
                    }
                });
                held.vertices[v] = union(own.into_iter().chain(sources.flatten()));
            }
            let waited_for = diff.vertices(number).filter(|v| !diff.is_parked(diff.node_of[*v]));
            barriers[number] = union(waited_for.filter_map(|v| held.vertices[v].as_ref()));
        }
        held.hold_removals(diff);
        held.hold_for_heirs(graph);
        held
    }

    /// Holds back removals on nodes with new tasks that are pending: one of them may take over what is removed, as a renamed task does
    /// whose content needs a value. Not where anything waits for a removal, because that might be what makes the value known.
    fn hold_for_heirs(&mut self, graph: &RestartGraph<'_>) {
        if !graph.all_removals().is_empty() || graph.hand_overs.contended().next().is_some() {
            return;
        }
        let diff = graph.diff;
        let mut waits: BTreeMap<NodeIx, Vec<&Waits>> = BTreeMap::new();
        for (number, task) in diff.desired.graph.tasks.iter().enumerate() {
            for pending in &task.pending {
                if diff.vertex(number, pending.node).is_some_and(|v| diff.before[v].is_none()) {
                    waits.entry(pending.node).or_default().push(&pending.waits_for);
                }
            }
        }
        self.heirs = waits.into_iter().filter_map(|(node, all)| Some((node, union(all.into_iter())?))).collect();
    }

    /// Holds back the removal of what pending instances had required. They stay as they are applied, so what they rely on stays too.
    fn hold_removals(&mut self, diff: &Diff<'_>) {
        let (mut everywhere, mut single) = (HashMap::<u32, Vec<&Waits>>::new(), HashMap::<_, Vec<&Waits>>::new());
        for (number, task) in diff.desired.graph.tasks.iter().enumerate().filter(|(_, task)| !task.pending.is_empty()) {
            for pending in &task.pending {
                let before = diff.vertex(number, pending.node).and_then(|v| diff.before[v]);
                for source in before.iter().flat_map(|before| &before.edges.requires) {
                    let (Some(removed), Some(scope)) = (diff.removed_by_id(&source.task), scope(diff, source)) else {
                        continue;
                    };
                    let removed = removed as u32;
                    match scope {
                        Scope::AllNodes => everywhere.entry(removed).or_default(),
                        Scope::SameNode => single.entry((removed, pending.node)).or_default(),
                        Scope::OneNode(only) => single.entry((removed, only)).or_default(),
                    }
                    .push(&pending.waits_for);
                }
            }
        }
        self.everywhere = everywhere.into_iter().filter_map(|(on, all)| Some((on, union(all.into_iter())?))).collect();
        self.single = single.into_iter().filter_map(|(on, all)| Some((on, union(all.into_iter())?))).collect();
    }

    /// The unknown values that a vertex waits for.
    pub(super) fn of(&self, vertex: usize) -> Waits {
        self.vertices.get(vertex).cloned().flatten().unwrap_or_else(|| self.none.clone())
    }

    /// The unknown values that the removal of a task on a node waits for. `owns`: whether there is anything that another task could take over.
    pub(super) fn of_removal(&self, removed: u32, node: NodeIx, owns: bool) -> Waits {
        let held = self.everywhere.get(&removed).into_iter().chain(self.single.get(&(removed, node)));
        union(held.chain(self.heirs.get(&node).filter(|_| owns))).unwrap_or_else(|| self.none.clone())
    }
}

/// All values of all sets; none if there is no set.
fn union<'w>(mut all: impl Iterator<Item = &'w Waits>) -> Option<Waits> {
    let first = all.next()?;
    // Most sets are inherited along edges and are the very same one: then it is shared on.
    let mut more = all.filter(|waits| !Arc::ptr_eq(first, waits)).peekable();
    if more.peek().is_none() {
        return Some(first.clone());
    }
    let together: BTreeSet<_> = first.iter().chain(more.flat_map(|waits| waits.iter())).collect();
    Some(together.into_iter().take(MAX_LISTED).cloned().collect())
}

/// All pending instances, in the order of the graph.
pub(super) fn instances(desired: &DesiredState) -> Vec<PendingInstance> {
    let all = desired.graph.tasks.iter().flat_map(|task| task.pending.iter().map(move |pending| (task, pending)));
    let instance = |(task, pending): (&TaskVertex, &Pending)| PendingInstance {
        instance: task.id.at(&desired.nodes[pending.node.0 as usize]),
        waits_for: pending.waits_for.to_vec(),
    };
    all.map(instance).collect()
}

/// The removals that must not be held back until a value is known, because that value comes only after them.
pub(super) fn circular(plan: &Plan) -> HashSet<InstanceId> {
    let missing = || plan.pending.iter().flat_map(|pending| &pending.waits_for);
    let exports: HashSet<InstanceId> = missing().filter_map(exporter).collect();
    let given_up: HashSet<InstanceId> = missing().filter_map(given_up).collect();
    if exports.is_empty() && given_up.is_empty() {
        return HashSet::new();
    }
    let tasks: HashMap<InstanceId, (&NodeId, &PlanTask)> = plan
        .nodes
        .iter()
        .flat_map(|(node, part)| part.tasks.iter().map(move |task| (task.task.at(node), (node, task))))
        .collect();
    // All that an instance waits for, itself included: by way of whatever passes. Each gate is entered once, however many wait there.
    let all_before = |instance: &InstanceId, passes: &dyn Fn(&PlanTask) -> bool| {
        let (mut open, mut seen, mut entered) = (vec![instance.clone()], HashSet::new(), HashSet::new());
        while let Some(instance) = open.pop() {
            let Some((node, task)) = tasks.get(&instance).filter(|(_, task)| passes(task)) else { continue };
            if !seen.insert(instance) {
                continue;
            }
            let behind = task.gates.iter().filter_map(|gate| match plan.gates.get(gate) {
                Some(Gate::Done { waits_for, .. }) if entered.insert(gate) => Some(waits_for),
                _ => None,
            });
            open.extend(behind.flatten().cloned().chain(task.after.iter().map(|before| before.at(node))));
        }
        seen
    };
    let is_held = |task: &PlanTask| task.gates.iter().any(|gate| matches!(plan.gates.get(gate), Some(Gate::Unknown)));
    let mut found = HashSet::new();
    // Mostly no removal is held back, and then none can be what an export waits for.
    let any_held = tasks.values().any(|(_, task)| task.action == Action::Remove && is_held(task));
    let exports = exports.iter().filter(|_| any_held);
    for export in exports.filter(|export| tasks.get(*export).is_some_and(|(_, task)| !is_held(task))) {
        let held = all_before(export, &|_| true).into_iter().filter(|instance| is_held(tasks[instance].1));
        let held: Vec<InstanceId> = held.collect();
        // Where something else is held back as well, that has to be known first.
        if held.iter().all(|instance| tasks[instance].1.action == Action::Remove) {
            found.extend(held);
        }
    }
    // What is given up, and what goes before it, may be what all that is held back waits for, by way of what takes its place.
    found.extend(given_up.iter().flat_map(|removed| all_before(removed, &|task| task.action == Action::Remove)));
    found
}

/// The instance that exports a value.
fn exporter(value: &Unknown) -> Option<InstanceId> {
    match value {
        Unknown::Export { task, node } => Some(task.at(node)),
        Unknown::Node(_) | Unknown::Facts(_) | Unknown::Fact { .. } | Unknown::GivenUp { .. } | Unknown::Fit { .. } => {
            None
        }
    }
}

/// The instance whose removal is waited for.
fn given_up(value: &Unknown) -> Option<InstanceId> {
    match value {
        Unknown::GivenUp { task, node } => Some(task.at(node)),
        _ => None,
    }
}

/// Adds to each action what it waits for through other actions of the plan. The graph's edges alone are not enough: a removal that is held
/// back holds back what is created after it.
pub(super) fn spread(plan: &mut Plan) {
    if !plan.gates.values().any(|gate| matches!(gate, Gate::Unknown)) {
        return;
    }
    let mut held: HashMap<InstanceId, Waits> = HashMap::new();
    // By gate: what all that it stands for waits for, worked out at the first that waits there.
    let mut gates: HashMap<&GateId, Option<Waits>> = HashMap::new();
    let mut next: HashMap<_, usize> = HashMap::new();
    for action in &mut plan.actions {
        let node = &action.instance.node;
        // The actions of one node are in the order of its tasks, and each comes after all that it waits for: one pass suffices.
        let at = next.entry(node.clone()).or_default();
        let Some(task) = plan.nodes.get(node).and_then(|part| part.tasks.get(*at)) else { continue };
        *at += 1;
        let after = task.after.iter().filter_map(|task| held.get(&task.at(node)));
        for gate in &task.gates {
            if let Some(Gate::Done { waits_for, .. }) = plan.gates.get(gate) {
                gates.entry(gate).or_insert_with(|| union(waits_for.iter().filter_map(|instance| held.get(instance))));
            }
        }
        let behind = task.gates.iter().filter_map(|gate| gates.get(gate)?.as_ref());
        let own = (!action.waits_for.is_empty()).then_some(&action.waits_for);
        let all = own.into_iter().chain(after).chain(behind);
        let Some(waits) = union(all) else { continue };
        action.waits_for = waits.clone();
        held.insert(action.instance.clone(), waits);
    }
}
