//! Claims of tasks on nodes, such as paths: each has one owner.
//!
//! In: all tasks with their instances. Out: a diagnostic for each task that claims what another one claims on the same node. Works on
//! the distinct results of each task, and goes through nodes only where two tasks make the same claim at all.

use std::{collections::HashMap, sync::Arc};

use groundplan_inventory::Diagnostic;
use groundplan_protocol::{ids::TaskId, kinds::Claim};

use super::draft;
use crate::{
    desired::{Instance, Resolved},
    placement::Placement,
};

/// A task with its instances and their distinct results.
pub(crate) struct Owner<'a> {
    pub(crate) task: usize,
    pub(crate) instances: &'a [Instance],
    pub(crate) distinct: &'a [Arc<Resolved>],
}

/// Reports claims with two owners.
pub(crate) fn conflicts(placement: &Placement<'_>, owners: &[Owner<'_>], faults: &mut Vec<Diagnostic>) {
    let ids: Vec<TaskId> = owners.iter().map(|owner| placement.id(owner.task)).collect();
    let mut claims: HashMap<Claim<'_>, (&str, usize, Vec<usize>)> = HashMap::with_capacity(owners.len());
    for (i, (owner, id)) in owners.iter().zip(&ids).enumerate() {
        for resolved in owner.distinct {
            resolved.spec.params.claims(id, &mut |stated| {
                if stated.shared {
                    return;
                }
                let (_, first, others) = claims.entry(stated.claim).or_insert((stated.param, i, Vec::new()));
                if *first != i && others.last() != Some(&i) {
                    others.push(i);
                }
            });
        }
    }
    let shared = claims.into_iter().filter(|(_, (_, _, others))| !others.is_empty());
    for (claim, (param, first, others)) in shared {
        let all: Vec<usize> = [first].into_iter().chain(others).collect();
        for (n, later) in all.iter().enumerate() {
            let earlier = all[..n].iter().find_map(|earlier| {
                Some((*earlier, common(&claim, [*earlier, *later].map(|i| (&owners[i], &ids[i])))?))
            });
            if let Some((earlier, node)) = earlier {
                let (earlier, later) = (owners[earlier].task, owners[*later].task);
                let at = |task: usize| draft::place(placement.tasks[task].task, param);
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
fn common(claim: &Claim<'_>, [(a, a_id), (b, b_id)]: [(&Owner<'_>, &TaskId); 2]) -> Option<u32> {
    let owns = |instance: &Instance, id: &TaskId| {
        let mut found = false;
        instance.resolved.spec.params.claims(id, &mut |other| found |= other.claim == *claim);
        found
    };
    let on_b =
        |instance: &Instance| b.instances.binary_search_by_key(&instance.node, |i| i.node).map(|i| &b.instances[i]);
    let mut of_a = a.instances.iter().filter(|instance| owns(instance, a_id));
    of_a.find(|instance| on_b(instance).is_ok_and(|other| owns(other, b_id))).map(|instance| instance.node.0)
}
