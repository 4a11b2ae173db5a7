//! Contraction: what a planned instance waits for, when most of the graph is not planned.
//!
//! In: the restart graph. Out: per planned vertex the nearest planned ones before it, along edges and through instances that are not
//! planned. If A requires B requires C, and only A and C are planned, A waits for C. A barrier stays one gate, however many vertices
//! wait there: its set is the planned instances of its task and, for each instance that is not planned, the planned ones before that.
//! What is planned on a parked node counts as not planned for every other node.

use std::{
    collections::{HashMap, HashSet},
    rc::Rc,
};

use crate::{
    desired::{NodeIx, Scope},
    diff::Change,
    restart::RestartGraph,
};

/// What a planned vertex waits for; each list sorted, without duplicates.
#[derive(Default)]
pub(super) struct Waits {
    /// Planned vertices on its own node.
    pub(super) local: Vec<u32>,
    /// Barriers, each by the task whose instances are all waited for.
    pub(super) all: Vec<u32>,
    /// Single instances on other nodes, by task and vertex. One that is not planned stands for the planned ones before it.
    pub(super) one: Vec<(u32, u32)>,
}

/// The planned vertices that a gate stands for.
pub(super) struct Set {
    /// Planned vertices, ascending, each once.
    pub(super) members: Vec<u32>,
    /// Their node, if it is the same for all.
    pub(super) only: Option<NodeIx>,
}

/// Computes waits, and keeps the sets of gates, which many vertices share.
pub(super) struct Contraction<'g, 'a> {
    graph: &'g RestartGraph<'a>,
    /// By task: whether an instance of it, or of any task that it comes after, is planned. Walks do not enter other tasks.
    reached: Vec<bool>,
    /// By vertex: the number of the walk that visited it last. Cheaper than a new set of visited vertices for every walk.
    seen: Vec<u32>,
    walk: u32,
    /// By task: the set of its barrier.
    all: Vec<Option<Rc<Set>>>,
    /// By vertex: the set of a gate for that instance.
    one: HashMap<u32, Rc<Set>>,
}

impl<'g, 'a> Contraction<'g, 'a> {
    pub(super) fn new(graph: &'g RestartGraph<'a>) -> Self {
        let tasks = &graph.diff.desired.graph.tasks;
        let mut reached = vec![false; tasks.len()];
        for (t, task) in tasks.iter().enumerate() {
            reached[t] = graph.count(t) > 0 || task.edges.iter().any(|edge| reached[edge.from.0 as usize]);
        }
        let all = vec![None; tasks.len()];
        Self { graph, reached, seen: vec![0; graph.diff.change.len()], walk: 0, all, one: HashMap::new() }
    }

    /// What a planned vertex waits for.
    pub(super) fn waits(&mut self, task: usize, vertex: usize) -> Waits {
        let node = self.graph.diff.node_of[vertex];
        let mut waits = self.nearest(task, vertex);
        // A gate whose set is on this node alone is no gate: the agent waits for the vertices by name, without a round trip to the
        // planner. A gate with an empty set would never have to be opened.
        waits.all.retain(|from| {
            let set = self.all(*from as usize);
            if set.only == Some(node) {
                waits.local.extend(&set.members);
            }
            !set.members.is_empty() && set.only != Some(node)
        });
        waits.one.retain(|(from, source)| {
            let set = self.one(*from as usize, *source as usize);
            if set.only == Some(node) {
                waits.local.extend(&set.members);
            }
            !set.members.is_empty() && set.only != Some(node)
        });
        waits.local.sort_unstable();
        waits.local.dedup();
        waits
    }

    /// The nearest planned vertices before a vertex on its own node, and the gates before it there, whatever their sets are.
    fn nearest(&mut self, task: usize, vertex: usize) -> Waits {
        let diff = self.graph.diff;
        let node = diff.node_of[vertex];
        let mut waits = Waits::default();
        // Depth first through what is not planned on this node. The walk ends at planned vertices, which have waits of their own, and
        // at barriers and other nodes' instances, which become gates.
        self.walk += 1;
        let mut stack = vec![(task, vertex)];
        while let Some((task, vertex)) = stack.pop() {
            for edge in &diff.desired.graph.tasks[task].edges {
                let from = edge.from.0 as usize;
                if !self.reached[from] {
                    continue;
                }
                let on = match edge.scope {
                    Scope::AllNodes => {
                        waits.all.push(from as u32);
                        // The barrier leaves a parked node out, also for the node itself.
                        if !diff.is_parked(node) {
                            continue;
                        }
                        node
                    }
                    Scope::SameNode => node,
                    Scope::OneNode(node) => node,
                };
                let Some(source) = self.vertex(from, on, task, vertex) else { continue };
                if on != node {
                    waits.one.push((from as u32, source as u32));
                } else if self.first_visit(source) {
                    match self.graph.is_planned(source) {
                        true => waits.local.push(source as u32),
                        false => stack.push((from, source)),
                    }
                }
            }
        }
        // Several edges may lead to one gate. Sorted, because the order of the walk must not show in the plan.
        waits.all.sort_unstable();
        waits.all.dedup();
        waits.one.sort_unstable();
        waits.one.dedup();
        waits
    }

    /// The set of a task's barrier.
    pub(super) fn all(&mut self, task: usize) -> Rc<Set> {
        if let Some(set) = &self.all[task] {
            return set.clone();
        }
        let diff = self.graph.diff;
        // A node that never reported gets no plan: what waits for it is held back until it has one.
        let known = diff.vertices(task).filter(|v| diff.change[*v] != Change::LeftOut);
        let (planned, others): (Vec<_>, Vec<_>) = known.partition(|v| self.is_waited_for(*v));
        let behind = self.behind(others.into_iter().map(|v| (task, v)).collect());
        let set = self.set(planned.into_iter().map(|v| v as u32).chain(behind).collect());
        self.all[task] = Some(set.clone());
        set
    }

    /// The set of a gate for a single instance.
    pub(super) fn one(&mut self, task: usize, vertex: usize) -> Rc<Set> {
        if let Some(set) = self.one.get(&(vertex as u32)) {
            return set.clone();
        }
        let members = match self.is_waited_for(vertex) {
            true => vec![vertex as u32],
            false => self.behind(vec![(task, vertex)]),
        };
        let set = self.set(members);
        self.one.insert(vertex as u32, set.clone());
        set
    }

    /// Whether other nodes wait for a vertex: it is planned, and its node is not parked.
    pub(super) fn is_waited_for(&self, vertex: usize) -> bool {
        self.graph.is_planned(vertex) && !self.graph.diff.is_parked(self.graph.diff.node_of[vertex])
    }

    fn set(&self, mut members: Vec<u32>) -> Rc<Set> {
        members.sort_unstable();
        members.dedup();
        let node = |v: &u32| self.graph.diff.node_of[*v as usize];
        let only = members.first().map(node).filter(|first| members.iter().all(|v| node(v) == *first));
        Rc::new(Set { members, only })
    }

    /// The nearest planned vertices before some that are not planned, on any node.
    fn behind(&mut self, mut stack: Vec<(usize, usize)>) -> Vec<u32> {
        let diff = self.graph.diff;
        let mut found = Vec::new();
        let mut barriers = HashSet::new();
        // One walk for all of them: a vertex that several lead to is entered once.
        self.walk += 1;
        while let Some((task, vertex)) = stack.pop() {
            for edge in &diff.desired.graph.tasks[task].edges {
                let from = edge.from.0 as usize;
                if !self.reached[from] {
                    continue;
                }
                let on = match edge.scope {
                    Scope::AllNodes => {
                        barriers.insert(from);
                        continue;
                    }
                    Scope::SameNode => diff.node_of[vertex],
                    Scope::OneNode(node) => node,
                };
                if let Some(source) = self.vertex(from, on, task, vertex).filter(|s| self.first_visit(*s)) {
                    match self.is_waited_for(source) {
                        true => found.push(source as u32),
                        false => stack.push((from, source)),
                    }
                }
            }
        }
        // Only now: `all` begins walks of its own, which would end this one. Edges lead to lesser numbers, so the recursion ends.
        let mut barriers: Vec<_> = barriers.into_iter().collect();
        barriers.sort_unstable();
        for task in barriers {
            found.extend(&self.all(task).members);
        }
        found
    }

    /// The vertex of a task on a node, if the node has reported. Tasks of one service have the same nodes, so it is most often as far
    /// into its task as `vertex` is into the task `other`: that guess saves a binary search for most edges.
    fn vertex(&self, task: usize, node: NodeIx, other: usize, vertex: usize) -> Option<usize> {
        let diff = self.graph.diff;
        let guess = diff.first[task] as usize + (vertex - diff.first[other] as usize);
        let hit = guess < diff.first[task + 1] as usize
            && diff.node_of[guess] == node
            && diff.change[guess] != Change::LeftOut;
        if hit { Some(guess) } else { diff.vertex(task, node) }
    }

    /// Marks a vertex as visited by this walk; whether it was not before.
    fn first_visit(&mut self, vertex: usize) -> bool {
        std::mem::replace(&mut self.seen[vertex], self.walk) != self.walk
    }
}
