//! A topological order of tasks that depends on nothing but their names and edges.

use std::{cmp::Reverse, collections::BinaryHeap};

use super::link::Links;
use crate::placement::Placement;

/// All tasks, each after those that it waits for; ties go by service, then by task. Tasks on a cycle, and those that come after one, are
/// left out: the cycle has been reported, and there is no desired state.
pub(crate) fn order(placement: &Placement<'_>, links: &Links<'_>) -> Vec<usize> {
    let ranks = ranks(placement);
    let mut waiting: Vec<usize> = links.to.iter().map(Vec::len).collect();
    let mut after = vec![Vec::new(); links.to.len()];
    for (to, links) in links.to.iter().enumerate() {
        links.iter().for_each(|link| after[link.from].push(to));
    }
    let free = (0..links.to.len()).filter(|task| waiting[*task] == 0);
    let mut ready: BinaryHeap<_> = free.map(|task| Reverse((ranks[task], task))).collect();
    // Of the tasks that wait for nothing more, always the first by name: the order must not depend on file order or hashing.
    let mut order = Vec::with_capacity(links.to.len());
    while let Some(Reverse((_, task))) = ready.pop() {
        order.push(task);
        for next in &after[task] {
            waiting[*next] -= 1;
            if waiting[*next] == 0 {
                ready.push(Reverse((ranks[*next], *next)));
            }
        }
    }
    order
}

/// Each task's rank in the order of names. Tasks are numbered by service already, so only those of one service are sorted.
fn ranks(placement: &Placement<'_>) -> Vec<usize> {
    let mut by_name: Vec<usize> = (0..placement.tasks.len()).collect();
    for placed in &placement.services {
        let own = &mut by_name[placed.first..placed.first + placed.service.tasks.len()];
        own.sort_by_key(|task| &placement.tasks[*task].task.id);
    }
    let mut ranks = vec![0; by_name.len()];
    for (rank, task) in by_name.into_iter().enumerate() {
        ranks[task] = rank;
    }
    ranks
}
