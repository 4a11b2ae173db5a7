//! Claims of tasks on nodes, such as paths: each has one owner.
//!
//! In: all tasks with their instances. Out: a diagnostic for each task that claims what another one claims on the same node, and for each
//! pair that cannot be on one node for another reason ([`TaskParams::conflict`]). Works on the distinct results of each task, and goes
//! through nodes only where two tasks use the same thing at all.

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use groundplan_inventory::{Diagnostic, Location};
use groundplan_protocol::{
    ids::{Resource, TaskId},
    kinds::{Claim, Conflict, TaskParams, Thing},
};

use super::draft;
use crate::{
    desired::{Instance, Resolved},
    placement::Placement,
};

/// A task with its instances and their distinct results.
pub(crate) struct Owner<'a> {
    pub(crate) task: usize,
    pub(crate) instances: Cow<'a, [Instance]>,
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

/// Reports tasks that meet on a node and list the same resource in `conflicts`.
pub(crate) fn declared(placement: &Placement<'_>, owners: &[Owner<'_>], faults: &mut Vec<Diagnostic>) {
    let mut users: BTreeMap<&Resource, Vec<(&Owner<'_>, &Location)>> = BTreeMap::new();
    for owner in owners {
        for resource in &placement.tasks[owner.task].task.conflicts {
            users.entry(&resource.value).or_default().push((owner, &resource.at));
        }
    }
    for (resource, users) in users {
        for (n, (later, at)) in users.iter().enumerate() {
            let meets =
                |(earlier, _): &&(&Owner<'_>, &Location)| earlier.task != later.task && node(earlier, later).is_some();
            let Some((earlier, first)) = users[..n].iter().find(meets) else { continue };
            let node = node(earlier, later).map(|node| placement.nodes[node as usize].as_str()).unwrap_or_default();
            faults.push(
                Diagnostic::new((*at).clone(), format!("two tasks conflict over `{resource}` on node `{node}`"))
                    .label(format!("`{}` here", placement.name(later.task)))
                    .related((*first).clone(), format!("`{}` here", placement.name(earlier.task)))
                    .hint("let one of them use it, or place the services on different nodes"),
            );
        }
    }
}

/// The first node that has both.
fn node(a: &Owner<'_>, b: &Owner<'_>) -> Option<u32> {
    let on_b = |node| b.instances.binary_search_by_key(&node, |instance| instance.node).is_ok();
    a.instances.iter().map(|instance| instance.node).find(|node| on_b(*node)).map(|node| node.0)
}

/// Reports pairs of tasks that undo what the other does, although each has claims of its own.
pub(crate) fn pairs(placement: &Placement<'_>, owners: &[Owner<'_>], faults: &mut Vec<Diagnostic>) {
    let ids: Vec<TaskId> = owners.iter().map(|owner| placement.id(owner.task)).collect();
    // In order: of several conflicts of a pair it is always the same that is reported.
    let mut users: BTreeMap<Thing<'_>, Vec<usize>> = BTreeMap::new();
    let mut files: HashMap<String, Vec<usize>> = HashMap::new();
    for (i, (owner, id)) in owners.iter().zip(&ids).enumerate() {
        for resolved in owner.distinct {
            let params = &resolved.spec.params;
            for thing in params.things(id) {
                if let (Thing::Path(path), true) = (&thing, params.makes_file()) {
                    add(files.entry(path.to_string()).or_default(), i);
                }
                add(users.entry(thing).or_default(), i);
            }
        }
    }
    // By pair, so that each is reported once, in the order of the site.
    let mut found = BTreeMap::new();
    for (thing, users) in &users {
        for (n, later) in users.iter().enumerate() {
            for earlier in &users[..n] {
                let conflict = |a: &TaskParams, b: &TaskParams| {
                    TaskParams::conflict((&ids[*earlier], a), (&ids[*later], b), thing)
                };
                note(&mut found, owners, (*earlier, *later), conflict);
            }
        }
        let Thing::Path(path) = thing else { continue };
        let above =
            path.match_indices('/').filter(|(at, _)| *at > 0).filter_map(|(at, _)| Some((at, files.get(&path[..at])?)));
        for (at, makers) in above {
            for (file, below) in makers.iter().flat_map(|file| users.iter().map(move |below| (*file, *below))) {
                let is_file = |params: &TaskParams| {
                    params.makes_file() && params.things(&ids[file]).contains(&Thing::Path(path[..at].into()))
                };
                let conflict = |a: &TaskParams, b: &TaskParams| {
                    let both = is_file(a) && b.things(&ids[below]).contains(thing);
                    both.then(|| a.below_a_file(&ids[file], &ids[below]))
                };
                if file != below {
                    note(&mut found, owners, (file, below), conflict);
                }
            }
        }
    }
    for ((first, second), (conflict, node)) in found {
        let Conflict { message, params, hint } = conflict;
        let at = |task: usize, param| draft::place(placement.tasks[owners[task].task].task, param);
        let name = |task: usize| placement.name(owners[task].task);
        faults.push(
            Diagnostic::new(at(second, params[1]), format!("{message}, on node `{}`", placement.nodes[node as usize]))
                .label(format!("`{}` here", name(second)))
                .related(at(first, params[0]), format!("`{}` here", name(first)))
                .hint(hint),
        );
    }
}

fn add(list: &mut Vec<usize>, owner: usize) {
    if list.last() != Some(&owner) {
        list.push(owner);
    }
}

/// Notes the conflict of two tasks, if they have one on a common node.
fn note(
    found: &mut BTreeMap<(usize, usize), (Conflict, u32)>,
    owners: &[Owner<'_>],
    pair: (usize, usize),
    conflict: impl Fn(&TaskParams, &TaskParams) -> Option<Conflict>,
) {
    if found.contains_key(&pair) || found.contains_key(&(pair.1, pair.0)) {
        return;
    }
    let (a, b) = (&owners[pair.0], &owners[pair.1]);
    // Most tasks have one result for all nodes: each pair of results is compared once.
    let mut compared = BTreeSet::new();
    for instance in &*a.instances {
        let Ok(i) = b.instances.binary_search_by_key(&instance.node, |i| i.node) else { continue };
        let (one, other) = (&instance.resolved, &b.instances[i].resolved);
        if !compared.insert((Arc::as_ptr(one), Arc::as_ptr(other))) {
            continue;
        }
        if let Some(conflict) = conflict(&one.spec.params, &other.spec.params) {
            found.insert(pair, (conflict, instance.node.0));
            return;
        }
    }
}
