//! Paths on nodes: each has one owner.
//!
//! In: all tasks with their instances. Out: one diagnostic for each pair of tasks that own a path on the same node. Works on the
//! distinct results of each task, and looks at nodes only where two tasks name one path at all.

use std::{collections::HashMap, sync::Arc};

use groundplan_inventory::Diagnostic;

use super::{Placement, draft};
use crate::desired::{Instance, Resolved};

/// Instances of a task and their distinct results.
pub(crate) struct Owner<'a> {
    pub(crate) task: usize,
    pub(crate) instances: &'a [Instance],
    pub(crate) distinct: &'a [Arc<Resolved>],
}

/// Finds paths with two owners.
pub(crate) fn conflicts<'a>(placement: &Placement<'_>, owners: &[Owner<'a>], faults: &mut Vec<Diagnostic>) {
    let mut by_path: HashMap<&'a str, (usize, Vec<usize>)> = HashMap::with_capacity(owners.len());
    for (i, owner) in owners.iter().enumerate() {
        for path in owner.distinct.iter().filter_map(|resolved| resolved.spec.params.owns()) {
            let (first, others) = by_path.entry(path).or_insert((i, Vec::new()));
            if *first != i && others.last() != Some(&i) {
                others.push(i);
            }
        }
    }
    let shared = by_path.into_iter().filter(|(_, (_, others))| !others.is_empty());
    for (path, (first, others)) in shared {
        let all: Vec<usize> = [first].into_iter().chain(others).collect();
        for (n, later) in all.iter().enumerate() {
            let earlier =
                all[..n].iter().find_map(|earlier| Some((*earlier, common(path, &owners[*earlier], &owners[*later])?)));
            if let Some((earlier, node)) = earlier {
                let (earlier, later) = (owners[earlier].task, owners[*later].task);
                let at = |task: usize| draft::place(placement.tasks[task].task, "path");
                let message = format!("two tasks own `{path}` on node `{}`", placement.nodes[node as usize]);
                faults.push(
                    Diagnostic::new(at(later), message)
                        .label(format!("`{}` here", placement.name(later)))
                        .related(at(earlier), format!("`{}` here", placement.name(earlier)))
                        .hint("let one task own it, or place the services on different nodes"),
                );
            }
        }
    }
}

/// The first node on which both own the path.
fn common(path: &str, a: &Owner<'_>, b: &Owner<'_>) -> Option<u32> {
    let owns = |instance: &&Instance| instance.resolved.spec.params.owns() == Some(path);
    let on_b =
        |instance: &Instance| b.instances.binary_search_by_key(&instance.node, |i| i.node).map(|i| &b.instances[i]);
    let both = a.instances.iter().filter(owns).find(|i| on_b(i).is_ok_and(|other| owns(&other)));
    both.map(|instance| instance.node.0)
}
