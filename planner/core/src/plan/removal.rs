//! Where removals stand in the order: after what depended on them, before what they trigger.
//!
//! What changes hands comes after its heirs, and as a whole it is in the way of nothing else (`hand_over`). A task may do so on some
//! nodes alone: its instances are put into *groups*, one for each [`Extent`], and each group has a place of its own.
//!
//! Each group gets a *slot*: after all desired tasks of a lesser number, before the rest; within a slot they go by rank,
//! dependents first. Every wait leads from a lesser place to a greater one, so that there is no circle, whatever mixture of commits
//! the ledgers recorded. What a removal triggers, what contends with it, and what is created in its service on its node comes after it;
//! what is planned and depended on it by the ledger's record comes before, as far as that leaves room.

use std::collections::{BTreeSet, HashMap};

use groundplan_protocol::plan::Source;

use crate::{
    desired::{NodeIx, Scope},
    diff::{Change, Diff},
    restart::{RestartGraph, scope},
};

/// An instance that something waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Item {
    Vertex(u32),
    /// A removed task, by its index in `Diff::removed`, on a node.
    Removed(u32, NodeIx),
}

/// How much of what a removed instance claims stays for its heirs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Extent {
    Nothing,
    Part,
    Whole,
}

/// The instances of a removed task, by its index in `Diff::removed`, that hand over as much.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Group {
    pub(super) removed: u32,
    pub(super) extent: Extent,
}

impl Group {
    /// The group of a removed instance.
    pub(super) fn of(graph: &RestartGraph<'_>, removed: u32, node: NodeIx) -> Self {
        let extent = match graph.hand_overs.of(removed, node) {
            None => Extent::Nothing,
            Some(hand_over) if hand_over.whole => Extent::Whole,
            Some(_) => Extent::Part,
        };
        Self { removed, extent }
    }

    /// Its place in lists by group.
    fn index(self) -> usize {
        self.removed as usize * 3 + self.extent as usize
    }

    fn all(removed: u32) -> [Self; 3] {
        [Extent::Nothing, Extent::Part, Extent::Whole].map(|extent| Self { removed, extent })
    }
}

/// A recorded dependency on something that is removed.
struct Dependent {
    item: Item,
    /// The dependent: a desired task by number, or a group by index.
    task: Result<u32, u32>,
    node: NodeIx,
    /// The group that it depended on, by index.
    on: u32,
    /// Which instances of that.
    scope: Scope,
}

/// The places of all removals, and what they wait for.
pub(super) struct Removals {
    /// Slot and group, in order.
    pub(super) order: Vec<(u32, Group)>,
    /// By group: what every instance of it waits for.
    everywhere: Vec<Vec<Item>>,
    /// By group: what its instance on one node waits for besides, sorted by node.
    single: Vec<Vec<(NodeIx, Item)>>,
}

impl Removals {
    pub(super) fn new(graph: &RestartGraph<'_>) -> Self {
        let removed = &graph.diff.removed;
        let count = removed.len() * 3;
        let mut removals =
            Self { order: Vec::new(), everywhere: vec![Vec::new(); count], single: vec![Vec::new(); count] };
        if removed.is_empty() {
            return removals;
        }
        let dependents = dependents(graph);
        // By group: the groups that depended on it and so are to go first.
        let mut first = vec![Vec::new(); count];
        for dependent in &dependents {
            if let Err(other) = dependent.task {
                first[dependent.on as usize].push(other);
            }
        }
        let order = dependents_first(&first);
        let mut rank = vec![0; count];
        order.iter().enumerate().for_each(|(i, g)| rank[*g as usize] = i);

        // An upper bound of each slot: the first desired task that must come after the removal. What is to go before a removal must
        // also come before that removal's bound, so bounds are passed on, from those that go last to those that go first. Where the
        // ledgers' dependencies form a circle, `rank` shows which of its links were given up.
        let mut bound = bounds(graph);
        let heirs = last_heirs(graph);
        for g in order.iter().rev() {
            for other in first[*g as usize].iter().filter(|other| rank[**other as usize] < rank[*g as usize]) {
                // What must wait for an heir that comes later does not go first after all.
                if heirs[*other as usize].is_none_or(|heir| heir < bound[*g as usize]) {
                    bound[*other as usize] = bound[*other as usize].min(bound[*g as usize]);
                }
            }
        }
        // Which group goes first, where the one that goes later leaves room for it.
        let goes_first =
            |other: u32, g: u32| rank[other as usize] < rank[g as usize] && bound[other as usize] <= bound[g as usize];
        let slot = slots(&order, goes_first, &first, &bound, &dependents);
        let groups: Vec<Group> = (0..removed.len() as u32).flat_map(Group::all).collect();
        removals.order = order.iter().map(|g| (slot[*g as usize], groups[*g as usize])).collect();
        // A stable sort: within a slot the order by rank stays.
        removals.order.sort_by_key(|(slot, _)| *slot);

        // Waits only for dependents that do stand before the removal now; the others could not be honoured without a circle.
        for Dependent { item, task, node, on, scope } in dependents {
            let holds = match task {
                Ok(task) => task < bound[on as usize],
                Err(other) => goes_first(other, on),
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

    /// What every instance of a group waits for.
    fn everywhere(&self, group: Group) -> &[Item] {
        &self.everywhere[group.index()]
    }

    /// What its instance on one node waits for besides.
    pub(super) fn on(&self, group: Group, node: NodeIx) -> impl Iterator<Item = Item> {
        let items = &self.single[group.index()];
        let from = items.partition_point(|(at, _)| *at < node);
        items[from..].iter().take_while(move |(at, _)| *at == node).map(|(_, item)| *item)
    }
}

/// What every removal of a group waits for.
pub(super) struct SharedItems {
    /// On nodes that are not parked: what each of them waits for.
    pub(super) all: Vec<Item>,
    /// Those of it that wait for no unknown value.
    pub(super) free: Vec<Item>,
    /// On parked nodes: what the removal on the same node waits for. Nothing else waits for what is on a parked node.
    pub(super) own: HashMap<NodeIx, Vec<Item>>,
}

impl SharedItems {
    /// Of a group. `is_free`: whether an item waits for no unknown value. None of the group is among what it waits for, so that this holds
    /// for all of its instances.
    pub(super) fn new(removals: &Removals, group: Group, diff: &Diff<'_>, is_free: impl Fn(Item) -> bool) -> Self {
        let is_parked = |item: &&Item| diff.is_parked(item.node(diff));
        let (parked, all): (Vec<Item>, Vec<Item>) = removals.everywhere(group).iter().partition(is_parked);
        let mut own: HashMap<NodeIx, Vec<Item>> = HashMap::new();
        parked.into_iter().for_each(|item| own.entry(item.node(diff)).or_default().push(item));
        let free = all.iter().copied().filter(|item| is_free(*item)).collect();
        Self { all, free, own }
    }
}

impl Item {
    /// The node that it is on.
    pub(super) fn node(self, diff: &Diff<'_>) -> NodeIx {
        match self {
            Self::Vertex(v) => diff.node_of[v as usize],
            Self::Removed(_, node) => node,
        }
    }
}

fn sort<T: Ord>(items: &mut Vec<T>) {
    items.sort_unstable();
    items.dedup();
}

/// The removed tasks of the same service as a desired one, as a range of `Diff::removed`, which is in order of ids.
pub(super) fn same_service(graph: &RestartGraph<'_>, task: usize) -> std::ops::Range<usize> {
    let removed = &graph.diff.removed;
    let service = &graph.diff.desired.graph.tasks[task].id.service;
    removed.partition_point(|g| g.id.service < *service)..removed.partition_point(|g| g.id.service <= *service)
}

/// By group: the number of the first desired task that must come after it; the number of tasks if there is none.
fn bounds(graph: &RestartGraph<'_>) -> Vec<u32> {
    let diff = graph.diff;
    let tasks = diff.edges.len();
    let mut bound = vec![tasks as u32; diff.removed.len() * 3];
    let task_of = |vertex: u32| diff.first.partition_point(|first| *first <= vertex) as u32 - 1;
    // What it triggers.
    for hit in graph.all_removals() {
        let at = match hit.scope {
            Scope::SameNode => Some(diff.node_of[hit.vertex as usize]),
            Scope::OneNode(node) => Some(node),
            Scope::AllNodes => None,
        };
        // What changes hands as a whole triggers nothing.
        let of_all = || Group::all(hit.removed).into_iter().filter(|group| group.extent != Extent::Whole);
        let groups = at.map_or_else(|| of_all().collect(), |at| vec![Group::of(graph, hit.removed, at)]);
        for group in groups {
            bound[group.index()] = bound[group.index()].min(task_of(hit.vertex));
        }
    }
    // What is created in its service on a node where it is removed.
    for task in 0..tasks {
        let siblings = same_service(graph, task);
        if siblings.is_empty() {
            continue;
        }
        for v in diff.vertices(task).filter(|v| diff.change[*v] == Change::Added) {
            for g in siblings.clone().filter(|g| goes_before_siblings(graph, *g, diff.node_of[v])) {
                let group = Group { removed: g as u32, extent: Extent::Nothing };
                bound[group.index()] = bound[group.index()].min(task as u32);
            }
        }
    }
    // What contends with it.
    for (vertex, removed) in graph.hand_overs.contended() {
        for g in removed {
            let group = Group::of(graph, *g, diff.node_of[vertex as usize]);
            bound[group.index()] = bound[group.index()].min(task_of(vertex));
        }
    }
    bound
}

/// Whether a removed task is removed on a node before what is created there in its service: not if it hands something over, which comes
/// first.
pub(super) fn goes_before_siblings(graph: &RestartGraph<'_>, removed: usize, node: NodeIx) -> bool {
    graph.diff.removed[removed].on(node).is_some() && graph.hand_overs.of(removed as u32, node).is_none()
}

/// By group: its heir of the greatest number.
fn last_heirs(graph: &RestartGraph<'_>) -> Vec<Option<u32>> {
    let diff = graph.diff;
    let mut last = vec![None; diff.removed.len() * 3];
    for (removed, node, hand_over) in graph.hand_overs.iter() {
        let heir = hand_over.heirs.iter().map(|v| diff.first.partition_point(|first| first <= v) as u32 - 1).max();
        let group = Group::of(graph, removed, node);
        last[group.index()] = last[group.index()].max(heir);
    }
    last
}

/// By group: its slot. After the last planned dependent that the bound leaves room for, and not before the slots of the groups that go
/// first.
fn slots(
    order: &[u32],
    goes_first: impl Fn(u32, u32) -> bool,
    first: &[Vec<u32>],
    bound: &[u32],
    dependents: &[Dependent],
) -> Vec<u32> {
    let mut slot = vec![0; first.len()];
    for dependent in dependents {
        let on = dependent.on as usize;
        if let Ok(task) = dependent.task
            && task < bound[on]
        {
            slot[on] = slot[on].max(task + 1);
        }
    }
    // In order: the slots of those that go first are final when they are passed on.
    for g in order {
        let before = first[*g as usize].iter().filter(|other| goes_first(**other, *g));
        slot[*g as usize] = before.map(|other| slot[*other as usize]).fold(slot[*g as usize], u32::max);
    }
    slot
}

/// All planned and removed instances that depended on removed ones, by what their ledgers recorded. What is not planned stays as it is
/// and has nothing to do before the removal.
fn dependents(graph: &RestartGraph<'_>) -> Vec<Dependent> {
    let diff = graph.diff;
    let mut out = Vec::new();
    // By removed task: the groups that it has.
    let groups: Vec<Vec<Group>> = (0..diff.removed.len() as u32)
        .map(|g| {
            let nodes = diff.removed[g as usize].instances.iter().map(|(node, _)| *node);
            nodes.map(|node| Group::of(graph, g, node)).collect::<BTreeSet<_>>().into_iter().collect()
        })
        .collect();
    let mut add = |item, task: Result<u32, u32>, node: NodeIx, requires: &[Source]| {
        for source in requires {
            let (Some(on), Some(scope)) = (diff.removed_by_id(&source.task), scope(diff, source)) else { continue };
            let scope = if diff.has_moved(on) { Scope::SameNode } else { scope };
            let at = |node| diff.removed[on].on(node).map(|_| Group::of(graph, on as u32, node));
            let one = match scope {
                Scope::SameNode => at(node),
                Scope::OneNode(only) => at(only),
                Scope::AllNodes => None,
            };
            let all = if scope == Scope::AllNodes { groups[on].as_slice() } else { &[] };
            // What changes hands as a whole does not go.
            for group in one.iter().chain(all).filter(|group| group.extent != Extent::Whole) {
                let on = group.index() as u32;
                // A removed task does not wait for itself, whatever its ledger recorded.
                if task.map_or_else(|own| own / 3 != on / 3, |_| true) {
                    out.push(Dependent { item, task, node, on, scope });
                }
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
    for (g, removed) in diff.removed.iter().enumerate() {
        let goes = |node: &NodeIx| !graph.hand_overs.is_whole(g as u32, *node);
        for (node, applied) in removed.instances.iter().filter(|(node, _)| goes(node)) {
            let group = Group::of(graph, g as u32, *node).index() as u32;
            add(Item::Removed(g as u32, *node), Err(group), *node, &applied.edges.requires);
        }
    }
    // An heir that is not planned has it already.
    for (removed, node, hand_over) in graph.hand_overs.iter() {
        for v in hand_over.heirs.iter().filter(|v| graph.is_planned(**v as usize)) {
            let task = diff.first.partition_point(|first| first <= v) as u32 - 1;
            let on = Group::of(graph, removed, node).index() as u32;
            out.push(Dependent { item: Item::Vertex(*v), task: Ok(task), node, on, scope: Scope::SameNode });
        }
    }
    out
}

/// An order in which each comes after those in its list; where lists form a circle, one of its links is given up.
fn dependents_first(first: &[Vec<u32>]) -> Vec<u32> {
    // Depth first with a stack of its own: a chain of removed tasks may be longer than the thread's stack allows. Each goes into the
    // order when all in its list are entered; what is entered but not in the order yet closes a circle and is passed over.
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
