//! What is held back because something is unknown: a pending instance, and all that comes after it.
//!
//! In: the diff, and the assembled plan. Out: per vertex and removal what it waits for; empty sets where nothing is pending, at no
//! cost. Held is what order edges reach from a pending instance, through whatever else, planned or not; a removal is held while
//! a pending instance is applied that had required what is removed.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
};

use groundplan_protocol::ids::InstanceId;

use super::model::{Gate, PendingInstance, Plan};
use crate::{
    desired::{DesiredState, NodeIx, Scope},
    diff::Diff,
    knowledge::Unknown,
    restart::scope,
};

/// Most that is told of what one instance waits for.
const MOST: usize = 16;

type Waits = Arc<[Unknown]>;

/// See the module.
pub(super) struct Holds {
    none: Waits,
    /// By vertex; nothing at all where nothing is pending.
    vertices: Vec<Option<Waits>>,
    /// By removed task: which of its instances, seen from which node, and what they wait for.
    removals: HashMap<u32, Vec<(Scope, NodeIx, Waits)>>,
}

impl Holds {
    pub(super) fn new(diff: &Diff<'_>) -> Self {
        let mut holds = Self { none: Vec::new().into(), vertices: Vec::new(), removals: HashMap::new() };
        if !diff.has_pending() {
            return holds;
        }
        let tasks = &diff.desired.graph.tasks;
        holds.vertices = vec![None; diff.own.len()];
        // By task: what all its instances together wait for.
        let mut barriers: Vec<Option<Waits>> = vec![None; tasks.len()];
        for (number, task) in tasks.iter().enumerate() {
            for v in diff.vertices(number) {
                let node = diff.node_of[v];
                let own = task.pending_on(node).map(|pending| &pending.waits_for);
                let sources = task.edges.iter().filter_map(|edge| {
                    let from = edge.from.0 as usize;
                    let on = |node| diff.any_vertex(from, node).and_then(|source| holds.vertices[source].as_ref());
                    match edge.scope {
                        Scope::AllNodes => barriers[from].as_ref(),
                        Scope::SameNode => on(node),
                        Scope::OneNode(node) => on(node),
                    }
                });
                holds.vertices[v] = union(own.into_iter().chain(sources));
            }
            barriers[number] = union(diff.vertices(number).filter_map(|v| holds.vertices[v].as_ref()));
        }
        holds.hold_removals(diff);
        holds
    }

    /// Removals of what pending instances had required.
    fn hold_removals(&mut self, diff: &Diff<'_>) {
        for (number, task) in diff.desired.graph.tasks.iter().enumerate().filter(|(_, task)| !task.pending.is_empty()) {
            for pending in &task.pending {
                let before = diff.vertex(number, pending.node).and_then(|v| diff.before[v]);
                for source in before.iter().flat_map(|before| &before.edges.requires) {
                    let (Some(gone), Some(scope)) = (diff.gone_by_id(&source.task), scope(diff, source)) else {
                        continue;
                    };
                    let held = (scope, pending.node, pending.waits_for.clone());
                    self.removals.entry(gone as u32).or_default().push(held);
                }
            }
        }
    }

    /// What a vertex waits for.
    pub(super) fn of(&self, vertex: usize) -> Waits {
        self.vertices.get(vertex).cloned().flatten().unwrap_or_else(|| self.none.clone())
    }

    /// What a removal waits for.
    pub(super) fn of_removal(&self, gone: u32, node: NodeIx) -> Waits {
        let holds = |scope: &Scope, at: NodeIx| match scope {
            Scope::SameNode => at == node,
            Scope::AllNodes => true,
            Scope::OneNode(only) => *only == node,
        };
        let held = self.removals.get(&gone).into_iter().flatten();
        let held = held.filter(|(scope, at, _)| holds(scope, *at)).map(|(.., waits)| waits);
        union(held).unwrap_or_else(|| self.none.clone())
    }
}

fn union<'w>(mut all: impl Iterator<Item = &'w Waits>) -> Option<Waits> {
    let first = all.next()?;
    let mut more = all.filter(|waits| !Arc::ptr_eq(first, waits)).peekable();
    if more.peek().is_none() {
        return Some(first.clone());
    }
    let together: BTreeSet<_> = first.iter().chain(more.flat_map(|waits| waits.iter())).collect();
    Some(together.into_iter().take(MOST).cloned().collect())
}

/// All pending instances, in the order of the graph.
pub(super) fn pending(desired: &DesiredState) -> Vec<PendingInstance> {
    let all = desired.graph.tasks.iter().flat_map(|task| task.pending.iter().map(move |pending| (task, pending)));
    let instance = |(task, pending): (&crate::desired::TaskVertex, &crate::desired::Pending)| PendingInstance {
        instance: task.id.at(&desired.nodes[pending.node.0 as usize]),
        waits_for: pending.waits_for.to_vec(),
    };
    all.map(instance).collect()
}

/// Lets every action know what it waits for through others of the plan.
pub(super) fn spread(plan: &mut Plan) {
    if plan.pending.is_empty() {
        return;
    }
    let mut held: HashMap<InstanceId, Waits> = HashMap::new();
    let mut next: HashMap<_, usize> = HashMap::new();
    for action in &mut plan.actions {
        let node = &action.instance.node;
        // Actions and tasks stand in one order.
        let at = next.entry(node.clone()).or_default();
        let Some(task) = plan.nodes.get(node).and_then(|part| part.tasks.get(*at)) else { continue };
        *at += 1;
        let after = task.after.iter().filter_map(|task| held.get(&task.at(node)));
        let behind = task.gates.iter().filter_map(|gate| match plan.gates.get(gate) {
            Some(Gate::Done { waits_for, .. }) => Some(waits_for),
            _ => None,
        });
        let own = (!action.waits_for.is_empty()).then_some(&action.waits_for);
        let all = own.into_iter().chain(after).chain(behind.flatten().filter_map(|instance| held.get(instance)));
        let Some(waits) = union(all) else { continue };
        action.waits_for = waits.clone();
        held.insert(action.instance.clone(), waits);
    }
}
