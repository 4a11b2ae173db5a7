//! Where removals stand in the order: after what depended on them, before what they trigger.
//!
//! Every removed task gets a *slot*: it comes after all desired tasks of a lesser number and before the rest, and within its
//! slot by rank, dependents first. A removal waits only for what stands before it by slot and rank, and only what stands
//! behind it waits for it; desired tasks wait by their numbers. So every wait leads from a lesser place to a greater one, and
//! there is no circle, whatever mixture of commits the nodes' ledgers recorded.
//!
//! Three things decide the slot. What a removal triggers comes behind it, and so does what is created in its service on its
//! node, for that may be the same thing under another name. Before it comes what is planned and depended on it by the ledger's
//! word, as far as the former leave room.

use groundplan_protocol::plan::Source;

use crate::{
    desired::{NodeIx, Scope},
    diff::Own,
    restart::{RestartGraph, scope},
};

/// An instance that a removal waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Item {
    Vertex(u32),
    Gone(u32, NodeIx),
}

/// A recorded dependency on something that is removed.
struct Dependent {
    item: Item,
    /// Its task: a number, or which of the removed tasks.
    task: Result<u32, u32>,
    node: NodeIx,
    /// The removed task that it depended on.
    on: u32,
    scope: Scope,
}

/// The places of all removals, and what they wait for.
pub(super) struct Removals {
    /// Slot and removed task, in order.
    pub(super) order: Vec<(u32, u32)>,
    /// By removed task: what each of its instances waits for.
    everywhere: Vec<Vec<Item>>,
    /// By removed task: what its instance on one node waits for.
    single: Vec<Vec<(NodeIx, Item)>>,
}

impl Removals {
    pub(super) fn new(graph: &RestartGraph<'_>) -> Self {
        let gone = &graph.diff.gone;
        let mut removals =
            Self { order: Vec::new(), everywhere: vec![Vec::new(); gone.len()], single: vec![Vec::new(); gone.len()] };
        if gone.is_empty() {
            return removals;
        }
        let dependents = dependents(graph);
        let mut first = vec![Vec::new(); gone.len()];
        for dependent in &dependents {
            if let Err(other) = dependent.task {
                first[dependent.on as usize].push(other);
            }
        }
        let order = dependents_first(&first);
        let mut rank = vec![0; gone.len()];
        order.iter().enumerate().for_each(|(i, g)| rank[*g as usize] = i);

        let mut bound = bounds(graph);
        for g in order.iter().rev() {
            for other in first[*g as usize].iter().filter(|other| rank[**other as usize] < rank[*g as usize]) {
                bound[*other as usize] = bound[*other as usize].min(bound[*g as usize]);
            }
        }
        let mut slot = vec![0; gone.len()];
        for dependent in &dependents {
            let on = dependent.on as usize;
            if let Ok(task) = dependent.task
                && task < bound[on]
            {
                slot[on] = slot[on].max(task + 1);
            }
        }
        for g in &order {
            let before = first[*g as usize].iter().filter(|other| rank[**other as usize] < rank[*g as usize]);
            slot[*g as usize] = before.map(|other| slot[*other as usize]).fold(slot[*g as usize], u32::max);
        }
        removals.order = order.iter().map(|g| (slot[*g as usize], *g)).collect();
        removals.order.sort_by_key(|(slot, _)| *slot);

        for Dependent { item, task, node, on, scope } in dependents {
            let holds = match task {
                Ok(task) => task < bound[on as usize],
                Err(other) => rank[other as usize] < rank[on as usize],
            };
            if holds {
                match scope {
                    Scope::SameNode => removals.single[on as usize].push((node, item)),
                    Scope::OneNode(at) => removals.single[on as usize].push((at, item)),
                    Scope::AllNodes => removals.everywhere[on as usize].push(item),
                }
            }
        }
        removals.everywhere.iter_mut().for_each(sort);
        removals.single.iter_mut().for_each(sort);
        removals
    }

    /// What every instance of a removed task waits for.
    pub(super) fn everywhere(&self, gone: u32) -> &[Item] {
        &self.everywhere[gone as usize]
    }

    /// What its instance on one node waits for besides.
    pub(super) fn on(&self, gone: u32, node: NodeIx) -> impl Iterator<Item = Item> {
        let items = &self.single[gone as usize];
        let from = items.partition_point(|(at, _)| *at < node);
        items[from..].iter().take_while(move |(at, _)| *at == node).map(|(_, item)| *item)
    }
}

fn sort<T: Ord>(items: &mut Vec<T>) {
    items.sort_unstable();
    items.dedup();
}

/// Which removed tasks are of the same service as a desired one.
pub(super) fn same_service(graph: &RestartGraph<'_>, task: usize) -> std::ops::Range<usize> {
    let gone = &graph.diff.gone;
    let service = &graph.diff.desired.graph.tasks[task].id.service;
    gone.partition_point(|g| g.id.service < *service)..gone.partition_point(|g| g.id.service <= *service)
}

/// By removed task: the first task that must come behind it.
fn bounds(graph: &RestartGraph<'_>) -> Vec<u32> {
    let diff = graph.diff;
    let tasks = diff.edges.len();
    let mut bound = vec![tasks as u32; diff.gone.len()];
    let task_of = |vertex: u32| diff.first.partition_point(|first| *first <= vertex) as u32 - 1;
    for hit in graph.all_removals() {
        let bound = &mut bound[hit.gone as usize];
        *bound = task_of(hit.vertex).min(*bound);
    }
    for task in 0..tasks {
        let siblings = same_service(graph, task);
        if siblings.is_empty() {
            continue;
        }
        for v in diff.vertices(task).filter(|v| diff.own[*v] == Own::Added) {
            for g in siblings.clone().filter(|g| diff.gone[*g].on(diff.node_of[v]).is_some()) {
                bound[g] = bound[g].min(task as u32);
            }
        }
    }
    bound
}

/// All planned and removed instances that depended on removed ones, by what their ledgers recorded.
fn dependents(graph: &RestartGraph<'_>) -> Vec<Dependent> {
    let diff = graph.diff;
    let mut out = Vec::new();
    let mut add = |item, task: Result<u32, u32>, node: NodeIx, requires: &[Source]| {
        for source in requires {
            let (Some(on), Some(scope)) = (diff.gone_by_id(&source.task), scope(diff, source)) else { continue };
            let there = match scope {
                Scope::SameNode => diff.gone[on].on(node).is_some(),
                Scope::AllNodes => true,
                Scope::OneNode(at) => diff.gone[on].on(at).is_some(),
            };
            if there && task != Err(on as u32) {
                out.push(Dependent { item, task, node, on: on as u32, scope });
            }
        }
    };
    for task in (0..diff.edges.len()).filter(|task| graph.count(*task) > 0) {
        for v in diff.vertices(task).filter(|v| graph.is_planned(*v)) {
            if let Some(before) = diff.before[v] {
                add(Item::Vertex(v as u32), Ok(task as u32), diff.node_of[v], &before.edges.requires);
            }
        }
    }
    for (g, gone) in diff.gone.iter().enumerate() {
        for (node, applied) in &gone.instances {
            add(Item::Gone(g as u32, *node), Err(g as u32), *node, &applied.edges.requires);
        }
    }
    out
}

/// An order in which each comes after those in its list; where lists go in a circle, one of its links gives way.
fn dependents_first(first: &[Vec<u32>]) -> Vec<u32> {
    let mut order = Vec::with_capacity(first.len());
    let mut entered = vec![false; first.len()];
    for start in 0..first.len() {
        let mut stack = vec![(start, 0)];
        if std::mem::replace(&mut entered[start], true) {
            continue;
        }
        while let Some((at, next)) = stack.last_mut() {
            match first[*at].get(*next) {
                Some(other) => {
                    *next += 1;
                    let other = *other as usize;
                    if !std::mem::replace(&mut entered[other], true) {
                        stack.push((other, 0));
                    }
                }
                None => {
                    order.push(*at as u32);
                    stack.pop();
                }
            }
        }
    }
    order
}
