//! What tasks claim on nodes, such as paths: each has one owner.
//!
//! In: all tasks with their instances. Out: one diagnostic for each pair of tasks that claim the same on a node. Works on the
//! distinct results of each task, and looks at nodes only where two tasks claim one thing at all.

use std::{collections::HashMap, sync::Arc};

use groundplan_inventory::Diagnostic;
use groundplan_protocol::kinds::Claim;

use super::draft;
use crate::{
    desired::{Instance, Resolved},
    placement::Placement,
};

/// Instances of a task and their distinct results.
pub(crate) struct Owner<'a> {
    pub(crate) task: usize,
    pub(crate) instances: &'a [Instance],
    pub(crate) distinct: &'a [Arc<Resolved>],
}

/// Finds what has two owners.
pub(crate) fn conflicts<'a>(placement: &Placement<'_>, owners: &[Owner<'a>], faults: &mut Vec<Diagnostic>) {
    let mut claims: HashMap<Claim<'a>, (usize, Vec<usize>)> = HashMap::with_capacity(owners.len());
    for (i, owner) in owners.iter().enumerate() {
        for resolved in owner.distinct {
            resolved.spec.params.claims(&mut |claim| {
                let (first, others) = claims.entry(claim).or_insert((i, Vec::new()));
                if *first != i && others.last() != Some(&i) {
                    others.push(i);
                }
            });
        }
    }
    let shared = claims.into_iter().filter(|(_, (_, others))| !others.is_empty());
    for (claim, (first, others)) in shared {
        let all: Vec<usize> = [first].into_iter().chain(others).collect();
        for (n, later) in all.iter().enumerate() {
            let earlier = all[..n]
                .iter()
                .find_map(|earlier| Some((*earlier, common(claim, &owners[*earlier], &owners[*later])?)));
            if let Some((earlier, node)) = earlier {
                let (earlier, later) = (owners[earlier].task, owners[*later].task);
                let at = |task: usize| draft::place(placement.tasks[task].task, claim.param());
                let message = format!("two tasks own {claim} on node `{}`", placement.nodes[node as usize]);
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

/// The first node on which both claim it.
fn common(claim: Claim<'_>, a: &Owner<'_>, b: &Owner<'_>) -> Option<u32> {
    let owns = |instance: &&Instance| {
        let mut found = false;
        instance.resolved.spec.params.claims(&mut |other| found |= other == claim);
        found
    };
    let on_b =
        |instance: &Instance| b.instances.binary_search_by_key(&instance.node, |i| i.node).map(|i| &b.instances[i]);
    let both = a.instances.iter().filter(owns).find(|i| on_b(i).is_ok_and(|other| owns(&other)));
    both.map(|instance| instance.node.0)
}
