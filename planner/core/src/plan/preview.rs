//! Applied states that are computed rather than reported, for previews; and values before a change, which ledgers do not keep.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use groundplan_protocol::{
    ids::{NodeId, TaskId},
    plan::Edges,
    state::Applied,
};

use super::model::{self, Plan};
use crate::{
    applied::{AppliedState, NodeApplied},
    desired::{DesiredState, Resolved},
    reason::Reason,
};

impl AppliedState {
    /// As if everything that is desired were applied, on every declared node.
    pub fn of(desired: &DesiredState) -> Self {
        type OnNode<'a> = Vec<(&'a TaskId, &'a Arc<Edges>, &'a Resolved)>;
        let edges: Vec<_> = desired.graph.tasks.iter().map(|task| Arc::new(desired.declared_edges(task))).collect();
        let mut nodes: Vec<OnNode<'_>> = vec![Vec::new(); desired.nodes.len()];
        for (id, ix) in &desired.graph.by_id {
            for instance in &desired.graph.tasks[ix.0 as usize].instances {
                nodes[instance.node.0 as usize].push((id, &edges[ix.0 as usize], &instance.resolved));
            }
        }
        let applied = |(id, edges, resolved): (&TaskId, &Arc<Edges>, &Resolved)| {
            (id.clone(), model::applied(id, resolved, edges))
        };
        let node = |tasks: OnNode<'_>| NodeApplied {
            tasks: Arc::new(tasks.into_iter().map(applied).collect()),
            obligations: Default::default(),
        };
        Self { nodes: desired.nodes.iter().cloned().zip(nodes.into_iter().map(node)).collect(), ..Self::default() }
    }

    /// For a preview of `head`: everything of `base` is applied. On nodes that only `head` declares, what was left there when they were
    /// declared before is applied, as far as a planner reports it; else nothing.
    pub fn preview(
        base: Option<&DesiredState>,
        head: &DesiredState,
        orphaned: &BTreeMap<NodeId, BTreeMap<TaskId, Applied>>,
    ) -> Self {
        let mut applied = base.map(Self::of).unwrap_or_default();
        for node in &head.nodes {
            let left = || orphaned.get(node).filter(|_| base.is_some()).cloned().unwrap_or_default();
            let node = applied.nodes.entry(node.clone());
            node.or_insert_with(|| NodeApplied { tasks: Arc::new(left()), ..NodeApplied::default() });
        }
        applied
    }

    /// What it becomes once `plan` is carried out, except for what waits for unknown values.
    pub fn apply(&mut self, plan: &Plan) {
        let waiting = plan.actions.iter().filter(|action| !action.waits_for.is_empty());
        let waiting: BTreeSet<_> = waiting.map(|action| &action.instance).collect();
        for (id, part) in &plan.nodes {
            let node = self.nodes.entry(id.clone()).or_default();
            let tasks = Arc::make_mut(&mut node.tasks);
            for task in &part.tasks {
                if !waiting.is_empty() && waiting.contains(&task.task.at(id)) {
                    continue;
                }
                node.obligations.remove(&task.task);
                self.fired.remove(&task.task.at(id));
                match task.applied() {
                    Some(applied) => drop(tasks.insert(task.task.clone(), applied)),
                    None => drop(tasks.remove(&task.task)),
                }
            }
            for (task, edges) in &part.edges {
                if let Some(applied) = tasks.get_mut(task) {
                    applied.on_remove = applied.on_remove.map(|_| edges.on_remove);
                    applied.edges = (**edges).clone();
                }
            }
        }
    }
}

impl Plan {
    /// Fills in the values before a change, for people: ledgers keep digests only. A value is taken from `earlier` where its digest
    /// there is the one that the node has applied; elsewhere the value before stays unknown.
    pub fn recall(&mut self, applied: &AppliedState, earlier: &DesiredState) {
        for action in &mut self.actions {
            // Each reason is of the instance that the last trigger before it named.
            let mut of = action.instance.clone();
            for reason in &mut action.reasons {
                match reason {
                    Reason::Triggered { by, .. } => of = by.clone(),
                    Reason::Changed { input, before, .. } | Reason::Off { input: Some(input), before, .. } => {
                        let digest = applied.nodes.get(&of.node).and_then(|node| node.tasks.get(&of.task));
                        let digest = digest.and_then(|applied| applied.inputs.get(input));
                        let inputs = earlier.instance(&of).map_or(&[][..], |instance| &instance.resolved.inputs);
                        let same = inputs.iter().find(|i| i.name == *input && Some(&i.digest) == digest);
                        *before = same.and_then(|input| input.value.clone());
                    }
                    _ => {}
                }
            }
        }
    }
}
