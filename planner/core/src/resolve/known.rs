//! Values reported by nodes, as inputs of resolution: which tasks export on which nodes, and that what reads a value comes after them.
//!
//! In: placement, edges, knowledge. Out: the values that templates see, faults where a value is read too early, and which values were
//! read at all, so that the planner resolves again only for those.

use std::{collections::HashMap, sync::Arc};

use groundplan_inventory::Diagnostic;
use groundplan_protocol::{
    ids::TaskId,
    kinds::{Export, TaskParams},
};

use super::{
    draft,
    external::Probes,
    files::Files,
    resolver::{Home, Resolver},
    run::{KnownTask, Run},
};
use crate::{
    desired::{NodeInputs, Scope},
    graph::{self, Links},
    knowledge::Knowledge,
    placement::Placement,
    render::{Exported, Known, ServiceFacts, is_template},
    source::SourceTree,
};

fn id(placement: &Placement<'_>, task: usize) -> TaskId {
    let declared = placement.tasks[task];
    TaskId::new(placement.services[declared.service].id.clone(), declared.task.id.clone())
}

fn exporters<'p>(placement: &'p Placement<'_>) -> impl Iterator<Item = usize> + 'p {
    (0..placement.tasks.len()).filter(|task| matches!(placement.tasks[*task].task.params, TaskParams::Export(_)))
}

/// The values that templates see, as if every `when` were true.
pub(super) fn of(placement: &Placement<'_>, knowledge: &Knowledge) -> Known {
    let mut known = Known::of(knowledge, placement.nodes.iter().copied());
    for task in exporters(placement) {
        let declared = placement.tasks[task].task;
        let TaskParams::Export(export) = &declared.params else { continue };
        let nodes: Vec<_> = placement.nodes_of(task).iter().map(|node| placement.nodes[node.0 as usize]).collect();
        let declared = (export, declared.once.is_some(), declared.at.clone());
        known.export(Exported::new(id(placement, task), declared, &nodes, knowledge));
    }
    known
}

/// Removes exports where their `when` is false. In topological order, because such a `when` may itself read an export.
pub(super) fn leave_out(placement: &Placement<'_>, links: &Links<'_>, tree: &dyn SourceTree, run: &mut Run<'_>) {
    // The usual case: no export has a condition.
    let conditional: Vec<_> = exporters(placement).filter(|task| placement.tasks[*task].task.when.is_some()).collect();
    if conditional.is_empty() {
        return;
    }
    for task in graph::order(placement, links).into_iter().filter(|task| conditional.contains(task)) {
        let declared = placement.tasks[task];
        let placed = &placement.services[declared.service];
        let home = Home {
            facts: Arc::new(ServiceFacts::of(placed.id.as_str(), placed.service)),
            files: Files { tree, folder: &placed.service.folder },
        };
        let probes = Probes::default();
        let off = Resolver { run, home: &home, task: declared.task, probes: &probes }.off(placement.nodes_of(task));
        if let Some(exported) = Arc::make_mut(&mut run.known).exported_mut(&id(placement, task)) {
            off.iter().for_each(|node| exported.remove(placement.nodes[node.0 as usize]));
        }
    }
}

/// Reports tasks that read an exported value and do not come after the task that publishes it; on all nodes, if the value is another
/// node's. Without that order a plan could apply the old value and the new one in any sequence. Reports patterns that are templates as well.
pub(super) fn check_order(
    placement: &Placement<'_>,
    links: &Links<'_>,
    tasks: &[&KnownTask],
    faults: &mut Vec<Diagnostic>,
) {
    for task in exporters(placement) {
        let task = placement.tasks[task].task;
        let TaskParams::Export(Export { pattern: Some(pattern), .. }) = &task.params else { continue };
        // It is what the planner holds reports against, whichever node they are from.
        if is_template(pattern) {
            let message = "`pattern` of an export is a template; it is the same on all nodes".to_owned();
            faults.push(Diagnostic::new(draft::place(task, "pattern"), message).hint("write the expression itself"));
        }
    }
    for (task, known) in tasks.iter().enumerate().filter(|(_, known)| !known.instances.exports.is_empty()) {
        let reached = reached(links, task);
        for (export, elsewhere) in &known.instances.exports {
            let Some(service) = placement.service(&export.service) else { continue };
            let Some(from) = placement.task(service, &export.task) else { continue };
            let wide = reached.get(&from).copied();
            // In order by a barrier, or by an edge on the node if only the node's own value is read.
            if wide == Some(true) || wide == Some(false) && !elsewhere {
                continue;
            }
            let (name, declared) = (placement.name(task), placement.tasks[task]);
            let (message, reference) = match wide {
                None if declared.service == service && !elsewhere => {
                    (format!("`{name}` uses `exports.{export}` but does not come after it"), export.task.to_string())
                }
                None => (format!("`{name}` uses `exports.{export}` but does not come after it"), export.to_string()),
                Some(_) => (
                    format!("`{name}` uses `exports.{export}` of other nodes but comes after it on its own node only"),
                    export.to_string(),
                ),
            };
            faults.push(
                Diagnostic::new(declared.task.at.clone(), message)
                    .related(placement.tasks[from].task.at.clone(), format!("`{export}` here"))
                    .hint(format!("add `{reference}` to its `requires`")),
            );
        }
    }
}

/// The tasks that one comes after, each with whether it does so on other nodes too, and not on its own node alone.
fn reached(links: &Links<'_>, task: usize) -> HashMap<usize, bool> {
    let mut reached: HashMap<usize, bool> = HashMap::new();
    let mut stack = vec![(task, false)];
    while let Some((task, wide)) = stack.pop() {
        for link in &links.to[task] {
            // One edge that leads to other nodes makes the whole path wide. A task reached narrowly before is visited again when it is
            // reached widely, and at most that once.
            let wide = wide || link.scope != Scope::SameNode;
            if reached.get(&link.from).is_none_or(|before| wide && !before) {
                reached.insert(link.from, wide);
                stack.push((link.from, wide));
            }
        }
    }
    reached
}

/// The reported values that any task read.
pub(super) fn node_inputs(placement: &Placement<'_>, tasks: &[&KnownTask]) -> NodeInputs {
    let facts = tasks.iter().flat_map(|known| &known.instances.facts);
    NodeInputs {
        facts: facts.map(|node| placement.nodes[node.0 as usize].clone()).collect(),
        exports: tasks.iter().flat_map(|known| known.instances.exports.keys().cloned()).collect(),
    }
}
