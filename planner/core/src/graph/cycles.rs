//! Cycles, each reported whole.
//!
//! In: edges between tasks. Out: one diagnostic for each strongly connected component, with the edges of a shortest cycle through
//! its first task by name. It makes no difference whether the instances of a cycle are on one node or on several: tasks are ordered as a
//! whole, because an edge between tasks is never expanded to instances.

use std::collections::{HashMap, VecDeque, hash_map::Entry};

use groundplan_inventory::Diagnostic;
use petgraph::{algo::tarjan_scc, graph::DiGraph};

use super::link::{How, Link, Links};
use crate::placement::Placement;

/// Reports every cycle of tasks as a fault, each once.
pub(super) fn find(placement: &Placement<'_>, links: &Links<'_>, faults: &mut Vec<Diagnostic>) {
    let mut graph = DiGraph::<(), (), usize>::with_capacity(links.to.len(), links.to.len() * 2);
    for _ in &links.to {
        graph.add_node(());
    }
    for (to, link) in links.to.iter().enumerate().flat_map(|(to, links)| links.iter().map(move |link| (to, link))) {
        graph.add_edge(link.from.into(), to.into(), ());
    }
    for component in tarjan_scc(&graph) {
        let members: Vec<usize> = component.iter().map(|ix| ix.index()).collect();
        let own = |task: &usize| links.to[*task].iter().any(|link| link.from == *task);
        if members.len() > 1 || members.iter().any(own) {
            faults.push(report(placement, links, &members));
        }
    }
}

/// A shortest cycle through the first of `members`, as the steps from what waits to what it waits for.
fn report(placement: &Placement<'_>, links: &Links<'_>, members: &[usize]) -> Diagnostic {
    let first = members.iter().copied().min_by_key(|task| placement.name(*task)).unwrap_or_default();
    // Breadth first from a task to what it waits for, so that the first way back to the start is a shortest one. `reached` has for
    // each task the one that waits for it, by which edge.
    let mut reached: HashMap<usize, (usize, &Link<'_>)> = HashMap::new();
    let mut queue = VecDeque::from([first]);
    while let Some(task) = queue.pop_front() {
        for link in links.to[task].iter().filter(|link| members.contains(&link.from)) {
            if let Entry::Vacant(unseen) = reached.entry(link.from) {
                unseen.insert((task, link));
                queue.push_back(link.from);
            }
        }
    }
    // Back from the start along `reached`, which gives the cycle in reverse.
    let mut steps = Vec::new();
    let mut at = first;
    while let Some((waits, link)) = reached.get(&at) {
        steps.push((*waits, *link));
        at = *waits;
        if at == first {
            break;
        }
    }
    steps.reverse();
    let names: Vec<_> = steps.iter().map(|(waits, _)| *waits).chain([first]).map(|t| placement.name(t)).collect();
    let words = |(waits, link): &(usize, &Link<'_>)| {
        let (waits, first) = (placement.name(*waits), placement.name(link.from));
        match link.how {
            How::Requires => format!("`{waits}` requires `{first}`"),
            How::NeededBy => format!("`{waits}` is named in `needed_by` of `{first}`"),
            How::Trigger(effect) => format!("`{waits}` is to {effect} on `{first}`"),
            How::FileOrder => format!("`{waits}` follows `{first}` in the file"),
        }
    };
    let message = format!("tasks wait for each other: {}", names.join(" → "));
    let Some((head, tail)) = steps.split_first() else {
        return Diagnostic::new(placement.tasks[first].task.at.clone(), message);
    };
    let diagnostic = Diagnostic::new(head.1.at.clone(), message).label(words(head));
    let diagnostic = tail.iter().fold(diagnostic, |d, step| d.related(step.1.at.clone(), words(step)));
    diagnostic.hint("remove one of these edges; `requires = []` removes that of the file's order")
}
