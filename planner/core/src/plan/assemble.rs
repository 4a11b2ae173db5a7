//! Turns the restart graph into a plan: actions in order, node parts, gates.
//!
//! In: which vertices are planned, and why. Out: each as a task of its node's part, with what it waits for and what may fire on it.
//! Waits on the same node are by task name, all others by gate. A gate is named after what it stands for, so that the same gate is
//! made once, however many tasks wait for it: `service.task` (a barrier), `service.task@node`, `removed/service.task`,
//! `before/service.task` (what a removal waits for), `export/service.task@node`, `rolling/service.task@node`, `unknown`.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    sync::Arc,
};

use groundplan_protocol::{
    digest::Digest,
    effect::Action,
    ids::{GateId, InstanceId, TaskId},
    plan::{Edges, Trigger, TriggerSource},
};

use super::{
    contract::Contraction,
    model::{Gate, NodePart, Plan, PlanTask, PlannedAction},
    pending::{self, HeldBack, Waits},
    removal::{Extent, Group, Item, Removals, SharedItems, goes_before_siblings, same_service},
};
use crate::{
    desired::{NodeIx, Resolved, Scope},
    diff::{Change, Diff},
    knowledge::Unknown,
    reason::{Reason, service_file},
    restart::{RestartGraph, instance},
};

/// The gate of everything that waits for an unknown value.
const UNKNOWN: &str = "unknown";

/// What one task waits for and what may fire on it.
#[derive(Default)]
struct Links {
    after: Vec<TaskId>,
    gates: Vec<GateId>,
    triggers: Vec<Trigger>,
}

impl Links {
    /// Sorts every list, without duplicates: several edges may lead to one source, and the plan's digest must not depend on their order.
    fn sort(&mut self) {
        self.after.sort_unstable();
        self.after.dedup();
        self.gates.sort_unstable();
        self.gates.dedup();
        self.triggers.sort_unstable();
        self.triggers.dedup();
    }
}

struct Assembler<'g, 'a> {
    graph: &'g RestartGraph<'a>,
    diff: &'g Diff<'a>,
    contraction: Contraction<'g, 'a>,
    removals: Removals,
    held_back: HeldBack,
    actions: Vec<PlannedAction>,
    /// By node number.
    parts: Vec<NodePart>,
    gates: BTreeMap<GateId, Gate>,
    /// By task: its barrier's gate, once one is needed.
    barriers: Vec<Option<GateId>>,
    /// By removed task: the gate of all its instances that others wait for, once one is needed; none if there are no such instances.
    removed_barriers: HashMap<u32, Option<GateId>>,
    /// What waits for unknown values, itself or through what it comes after.
    held: HashSet<InstanceId>,
    /// By gate: whether it stands for any of those. All that a gate stands for is decided before what waits there.
    held_gates: HashMap<GateId, bool>,
    /// Removals that are not held back, because what makes the values known waits for them.
    released: &'g HashSet<InstanceId>,
    /// The edges of removed tasks.
    no_edges: Arc<Edges>,
}

/// Makes the plan of all planned vertices and removals.
pub(super) fn assemble(graph: &RestartGraph<'_>) -> Plan {
    let mut released = HashSet::new();
    loop {
        let plan = attempt(graph, &released);
        // Each round releases at least one more removal; mostly there is nothing to release.
        let more = pending::circular(&plan);
        if more.is_subset(&released) {
            return plan;
        }
        released.extend(more);
    }
}

/// The plan in which the `released` removals are not held back.
fn attempt(graph: &RestartGraph<'_>, released: &HashSet<InstanceId>) -> Plan {
    let diff = graph.diff;
    let mut assembler = Assembler {
        graph,
        diff,
        contraction: Contraction::new(graph),
        removals: Removals::new(graph),
        held_back: HeldBack::new(graph),
        actions: Vec::new(),
        parts: vec![NodePart::default(); diff.known.len()],
        gates: BTreeMap::new(),
        barriers: vec![None; diff.edges.len()],
        removed_barriers: HashMap::new(),
        held: HashSet::new(),
        held_gates: HashMap::new(),
        released,
        no_edges: Arc::default(),
    };
    assembler.forget();
    // Tasks in topological order, and each removal in its slot between them: so every task comes after all that it waits for.
    let mut removals = std::mem::take(&mut assembler.removals.order).into_iter().peekable();
    for task in 0..diff.edges.len() {
        while let Some((_, removed)) = removals.next_if(|(slot, _)| *slot as usize <= task) {
            assembler.remove(removed);
        }
        if graph.count(task) > 0 {
            assembler.carry_out(task);
        }
    }
    removals.for_each(|(_, removed)| assembler.remove(removed));
    assembler.record_edges();

    let parts = diff.desired.nodes.iter().cloned().zip(assembler.parts);
    let mut plan = Plan {
        actions: assembler.actions,
        nodes: parts.filter(|(_, part)| !part.tasks.is_empty() || !part.edges.is_empty()).collect(),
        gates: assembler.gates,
        pending: pending::instances(diff.desired),
        parked: BTreeSet::new(),
        detached: detached(graph),
        prevented: diff.prevented.iter().map(|(task, node)| task.at(&diff.desired.nodes[node.0 as usize])).collect(),
    };
    let parked = diff.desired.nodes.iter().enumerate().filter(|(number, _)| diff.is_parked(NodeIx(*number as u32)));
    plan.parked = parked.map(|(_, id)| id.clone()).collect();
    pending::spread(&mut plan);
    plan
}

/// What changes on parked nodes and has triggers on others.
fn detached(graph: &RestartGraph<'_>) -> BTreeSet<InstanceId> {
    let diff = graph.diff;
    let vertices = graph.detached.iter().map(|v| {
        let task = diff.first.partition_point(|first| first <= v) - 1;
        instance(diff, task, *v as usize)
    });
    let removed = graph
        .detached_removals
        .iter()
        .map(|(removed, node)| diff.removed[*removed as usize].id.at(&diff.desired.nodes[node.0 as usize]));
    vertices.chain(removed).collect()
}

/// A gate's id. A name that is longer than ids may be is replaced by its digest, which keeps it the same for every task that waits there.
fn gate_id(name: &str) -> GateId {
    let digest = || GateId::new(format!("long/{}", Digest::of(name.as_bytes())));
    GateId::new(name).or_else(|_| digest()).unwrap_or_else(|_| unreachable!("a digest is a valid name"))
}

impl Assembler<'_, '_> {
    /// Adds the planned instances of a task.
    fn carry_out(&mut self, task: usize) {
        let (graph, diff) = (self.graph, self.diff);
        let vertex = &diff.desired.graph.tasks[task];
        let siblings = same_service(graph, task);
        for v in diff.vertices(task).filter(|v| graph.is_planned(*v)) {
            let node = diff.node_of[v];
            let action = graph.action(v);
            let mut links = self.links(task, v);
            // What is created waits for removals of its service on its node, and whatever the service for those that contend with it:
            // they may be the same thing under another name, such as a renamed process that listens on the same port.
            if diff.change[v] == Change::Added {
                // Not for one that is held back: the value that it waits for may be exported by what is created here.
                let at = &diff.desired.nodes[node.0 as usize];
                let is_held = |g: &usize| self.held.contains(&diff.removed[*g].id.at(at));
                let removed = siblings.clone().filter(|g| goes_before_siblings(graph, *g, node) && !is_held(g));
                links.after.extend(removed.map(|g| diff.removed[g].id.clone()));
            }
            links.after.extend(graph.hand_overs.first(v).iter().map(|g| diff.removed[*g as usize].id.clone()));
            links.sort();
            let from = graph.hand_overs.from(v).iter().map(|g| diff.removed[*g as usize].id.clone()).collect();
            // A rolling limit is for what may disturb the service: not for files and the like, unless something acts on them.
            let resolved = diff.resolved(task, v);
            let takes_effects = resolved.is_none_or(|resolved| !resolved.spec.params.effects().is_empty());
            let disruptive = takes_effects || !links.triggers.is_empty();
            let waits_for = self.held_back.of(v);
            self.hold_back(&mut links, &waits_for, &vertex.id, node);
            self.add(
                PlanTask {
                    task: vertex.id.clone(),
                    action,
                    resolved: resolved.cloned(),
                    edges: diff.edges[task].clone(),
                    after: links.after,
                    gates: links.gates,
                    triggers: links.triggers,
                    obligation: graph.due(v),
                    from,
                    into: Vec::new(),
                    retry: vertex.retry,
                },
                node,
                disruptive,
            );
            let instance = instance(diff, task, v);
            let ends = |resolved: &&Arc<Resolved>| resolved.spec.params.is_absence() && diff.change[v].is_planned();
            let destroys = resolved.filter(ends).and_then(|resolved| resolved.spec.params.destroys());
            let given_up = diff.before[v].filter(|applied| {
                let updated = resolved.filter(|_| action == Action::Update);
                updated.is_some_and(|resolved| resolved.gives_up(&instance.task, applied))
                    && !diff.desired.takes_all(node, applied)
            });
            self.actions.push(PlannedAction {
                instance,
                action,
                on_remove: given_up.and_then(|applied| applied.on_remove),
                destroys: destroys.or_else(|| given_up?.destroys.clone()),
                reasons: graph.reasons(task, v),
                waits_for,
            });
        }
    }

    /// Adds a group of removed instances of a task.
    fn remove(&mut self, group: Group) {
        let diff = self.diff;
        let removed = group.removed;
        let task = &diff.removed[removed as usize];
        let shared = SharedItems::new(&self.removals, group, diff, |item| self.is_free(item));
        let id_of = |v: &u32| diff.desired.graph.tasks[diff.first.partition_point(|first| first <= v) - 1].id.clone();
        for (node, applied) in task.instances.iter().filter(|(node, _)| Group::of(self.graph, removed, *node) == group)
        {
            let hand_over = self.graph.hand_overs.of(removed, *node);
            // What changes hands as a whole disturbs nothing.
            let disruptive = !self.graph.hand_overs.is_whole(removed, *node);
            let into = hand_over.map(|hand_over| hand_over.heirs.iter().map(id_of).collect()).unwrap_or_default();
            let at = &diff.desired.nodes[node.0 as usize];
            let (mut links, waits_for) = self.removal_links(group, *node, &shared);
            self.hold_back(&mut links, &waits_for, task.id, *node);
            self.add(
                PlanTask {
                    task: task.id.clone(),
                    action: Action::Remove,
                    resolved: None,
                    edges: self.no_edges.clone(),
                    after: links.after,
                    gates: links.gates,
                    triggers: Vec::new(),
                    obligation: None,
                    from: Vec::new(),
                    into,
                    retry: diff.desired.retry,
                },
                *node,
                disruptive,
            );
            self.actions.push(PlannedAction {
                instance: task.id.at(at),
                action: Action::Remove,
                on_remove: applied.on_remove,
                destroys: applied.destroys.clone().filter(|_| disruptive),
                reasons: vec![self.graph.removed_reason(task, *node)],
                waits_for,
            });
        }
    }

    /// Adds the records that are dropped. They wait for nothing, and nothing waits for them: the host stays as it is.
    fn forget(&mut self) {
        let diff = self.diff;
        for (task, node, forget) in &diff.forgotten {
            self.parts[node.0 as usize].tasks.push(PlanTask {
                task: (*task).clone(),
                action: Action::Forget,
                resolved: None,
                edges: self.no_edges.clone(),
                after: Vec::new(),
                gates: Vec::new(),
                triggers: Vec::new(),
                obligation: None,
                from: Vec::new(),
                into: Vec::new(),
                retry: None,
            });
            self.actions.push(PlannedAction {
                instance: task.at(&diff.desired.nodes[node.0 as usize]),
                action: Action::Forget,
                on_remove: None,
                destroys: None,
                reasons: vec![Reason::Forgotten {
                    by: forget.by.clone(),
                    why: forget.reason.clone(),
                    file: service_file(&task.service),
                }],
                waits_for: Arc::default(),
            });
        }
    }

    /// Whether an item waits for no unknown value.
    fn is_free(&self, item: Item) -> bool {
        self.held.is_empty() || !self.held.contains(&self.instance(item))
    }

    /// What the removal of an instance waits for, and which unknown values hold it back. `shared` is what all of its group wait for.
    fn removal_links(&mut self, group: Group, node: NodeIx, shared: &SharedItems) -> (Links, Waits) {
        let (removed, at) = (group.removed, &self.diff.desired.nodes[node.0 as usize]);
        let task = self.diff.removed[removed as usize].id;
        // What is left to one group to wait for may be another's, so each has a gate of its own.
        let name = match group.extent {
            Extent::Nothing => format!("before/{}", task),
            Extent::Part | Extent::Whole => format!("before/{}/rest", task),
        };
        let mut links = Links::default();
        let owns = group.extent != Extent::Whole && !self.diff.claims(removed, node).is_empty();
        let mut waits_for = self.held_back.of_removal(removed, node, owns);
        let single = self.removals.on(group, node).filter(|item| self.diff.is_waited_for(self.node(*item), node));
        let mut single: Vec<Item> = single.chain(shared.own.get(&node).into_iter().flatten().copied()).collect();
        let mut everywhere = &shared.all;
        let all_free = shared.free.len() == shared.all.len() && single.iter().all(|item| self.is_free(*item));
        if (!waits_for.is_empty() || !all_free) && self.released.contains(&task.at(at)) {
            waits_for = Waits::default();
            single.retain(|item| self.is_free(*item));
            everywhere = &shared.free;
        }
        // Dependents of all instances: one gate for all nodes. Dependents of this instance alone: by name where they are on the
        // same node, else by a gate of its own.
        let name = if everywhere.len() == shared.all.len() { name } else { format!("{name}@{at}/free") };
        self.wait_for(&mut links, &name, everywhere, node);
        let (local, remote): (Vec<_>, Vec<_>) = single.into_iter().partition(|item| self.node(*item) == node);
        links.after.extend(local.into_iter().map(|item| self.task(item)));
        self.wait_for(&mut links, &format!("before/{}@{at}", task), &remote, node);
        links.after.sort_unstable();
        links.after.dedup();
        (links, waits_for)
    }

    /// Puts a task behind the gate that stays closed, if it waits for unknown values, and notes whether it is held back.
    fn hold_back(&mut self, links: &mut Links, waits_for: &[Unknown], task: &TaskId, node: NodeIx) {
        if !self.diff.has_unknown() {
            return;
        }
        if !waits_for.is_empty() {
            let gate = gate_id(UNKNOWN);
            self.gates.insert(gate.clone(), Gate::Unknown);
            links.gates.push(gate);
        }
        let at = &self.diff.desired.nodes[node.0 as usize];
        let mut is_held = |gate: &GateId| match self.gates.get(gate) {
            Some(Gate::Done { waits_for, .. }) => *self
                .held_gates
                .entry(gate.clone())
                .or_insert_with(|| waits_for.iter().any(|instance| self.held.contains(instance))),
            Some(Gate::Unknown) => true,
            Some(Gate::Turn { .. }) | None => false,
        };
        if links.gates.iter().any(&mut is_held) || links.after.iter().any(|task| self.held.contains(&task.at(at))) {
            self.held.insert(task.at(at));
        }
    }

    /// Puts a task into its node's part; behind a gate for its turn if it is disruptive and its service has a rolling limit.
    fn add(&mut self, mut task: PlanTask, node: NodeIx, disruptive: bool) {
        let desired = self.diff.desired;
        let limit = desired.rollouts.get(&task.task.service).and_then(|rollout| rollout.max_unavailable);
        if let Some(limit) = limit.filter(|_| disruptive) {
            let gate = gate_id(&format!("rolling/{}@{}", task.task, desired.nodes[node.0 as usize]));
            self.gates.insert(gate.clone(), Gate::Turn { service: task.task.service.clone(), limit });
            task.gates.push(gate);
        }
        self.parts[node.0 as usize].tasks.push(task);
    }

    /// What a planned vertex waits for and what may fire on it.
    ///
    /// Every source of a trigger must be among what the vertex waits for: the agent decides whether it fires when the vertex's turn
    /// comes. That holds because a trigger edge orders as well, so that [`Contraction::waits`] has its source if it is planned.
    fn links(&mut self, task: usize, vertex: usize) -> Links {
        let diff = self.diff;
        let tasks = &diff.desired.graph.tasks;
        let node = diff.node_of[vertex];
        let waits = self.contraction.waits(task, vertex);
        let task_of = |v: u32| diff.first.partition_point(|first| *first <= v) - 1;
        let mut links = Links::default();
        for v in &waits.local {
            let from = &tasks[task_of(*v)].id;
            links.after.push(from.clone());
            // An export whose value is used: the agent must not go on by itself, because the new value may change what comes next. The
            // planner resolves the commit again with that value, plans if something differs, and only then opens the gate.
            if diff.desired.node_inputs.exports.contains(from) {
                let name = format!("export/{}", instance(diff, task_of(*v), *v as usize));
                links.gates.push(self.gate(&name, &[*v], None));
            }
        }
        for from in &waits.all {
            links.gates.push(self.barrier(*from as usize));
        }
        for (from, v) in &waits.one {
            // A gate for an instance that is not waited for stands for the planned ones behind it. They are not its task, and must not
            // fire its triggers.
            let fires_on = self.contraction.is_waited_for(*v as usize).then_some(*from as usize);
            let members = self.contraction.one(*from as usize, *v as usize);
            let name = instance(diff, *from as usize, *v as usize).to_string();
            links.gates.push(self.gate(&name, &members.members, fires_on));
        }
        self.add_edge_triggers(&mut links, task, node);
        self.add_removal_triggers(&mut links, vertex);
        links.sort();
        links
    }

    /// Adds what may fire on a task's instance on a node, along declared edges. What it waits for is in `links` already.
    fn add_edge_triggers(&mut self, links: &mut Links, task: usize, node: NodeIx) {
        let (graph, diff) = (self.graph, self.diff);
        let tasks = &diff.desired.graph.tasks;
        for edge in &tasks[task].edges {
            let Some(effect) = edge.trigger else { continue };
            let from = edge.from.0 as usize;
            // A source on the same node fires by name. Only a planned source can fire: what is not planned does not change.
            let local = || TriggerSource::Task(tasks[from].id.clone());
            let planned = |node| diff.vertex(from, node).is_some_and(|s| graph.is_planned(s));
            // A barrier leaves a parked node out, also for the node itself: there the source fires by name.
            if edge.scope == Scope::AllNodes && diff.is_parked(node) && planned(node) {
                links.triggers.push(Trigger { effect, on: local() });
            }
            let on = match edge.scope {
                _ if graph.count(from) == 0 => continue,
                Scope::SameNode => planned(node).then(local),
                Scope::OneNode(at) if at == node => planned(node).then(local),
                // The gate that `links` has made for `waits.one`: same name, same gate.
                Scope::OneNode(at) if diff.is_parked(at) => continue,
                Scope::OneNode(at) => planned(at).then(|| {
                    let at = &diff.desired.nodes[at.0 as usize];
                    TriggerSource::Gate(gate_id(&tasks[from].id.at(at).to_string()))
                }),
                // All of the barrier is on this node, so `waits` made local waits of it and there is no gate. It may consist of what
                // is behind the source alone; then the source is not planned here and fires nothing.
                Scope::AllNodes if self.contraction.all(from).only == Some(node) => planned(node).then(local),
                // Only parked nodes have it: nothing fires here in this plan.
                Scope::AllNodes if graph.acting(from) == 0 => continue,
                Scope::AllNodes => Some(TriggerSource::Gate(self.barrier(from))),
            };
            links.triggers.extend(on.map(|on| Trigger { effect, on }));
        }
    }

    /// Adds the removals that act on a vertex. They are no part of the contraction, so the wait for each is added here as well.
    fn add_removal_triggers(&mut self, links: &mut Links, vertex: usize) {
        let (graph, diff) = (self.graph, self.diff);
        let node = diff.node_of[vertex];
        for hit in graph.removals(vertex).iter().filter(|hit| !hit.at_once) {
            let removed = &diff.removed[hit.removed as usize];
            let all_here = removed.instances.len() == 1 && removed.instances[0].0 == node;
            let mut on = Vec::new();
            match hit.scope {
                // A prefix of its own: instances of the same task that stay may have a barrier under the plain name.
                Scope::AllNodes if !all_here => {
                    on.extend(self.removed_barrier(hit.removed).map(TriggerSource::Gate));
                    // What goes on a parked node acts there alone.
                    let own = diff.is_parked(node) && removed.on(node).is_some();
                    let own = own && !graph.hand_overs.is_whole(hit.removed, node);
                    on.extend(own.then(|| TriggerSource::Task(removed.id.clone())));
                }
                Scope::OneNode(at) if at != node => {
                    let name = removed.id.at(&diff.desired.nodes[at.0 as usize]).to_string();
                    let gate = self.gate_of_items(&name, &[Item::Removed(hit.removed, at)], Some(removed.id));
                    on.push(TriggerSource::Gate(gate));
                }
                _ => on.push(TriggerSource::Task(removed.id.clone())),
            }
            for on in on {
                match &on {
                    TriggerSource::Task(task) => links.after.push(task.clone()),
                    TriggerSource::Gate(gate) => links.gates.push(gate.clone()),
                }
                links.triggers.push(Trigger { effect: hit.effect, on });
            }
        }
    }

    /// The gate of a barrier. It fires if an instance of the task itself changed, not if one behind it did.
    fn barrier(&mut self, task: usize) -> GateId {
        if let Some(gate) = &self.barriers[task] {
            return gate.clone();
        }
        let set = self.contraction.all(task);
        let fires_on = (self.graph.count(task) > 0).then_some(task);
        let name = self.diff.desired.graph.tasks[task].id.to_string();
        let gate = self.gate(&name, &set.members, fires_on);
        self.barriers[task] = Some(gate.clone());
        gate
    }

    /// The gate of all instances of a removed task that go and that others wait for, if there are any. What changes hands as a whole fires
    /// nothing.
    fn removed_barrier(&mut self, removed: u32) -> Option<GateId> {
        if let Some(gate) = self.removed_barriers.get(&removed) {
            return gate.clone();
        }
        let (graph, diff) = (self.graph, self.diff);
        let task = &diff.removed[removed as usize];
        let nodes = task.instances.iter().map(|(at, _)| *at);
        let goes = |at: &NodeIx| !graph.hand_overs.is_whole(removed, *at) && !diff.is_parked(*at);
        let items: Vec<Item> = nodes.filter(goes).map(|at| Item::Removed(removed, at)).collect();
        let name = format!("removed/{}", task.id);
        let gate = (!items.is_empty()).then(|| self.gate_of_items(&name, &items, Some(task.id)));
        self.removed_barriers.insert(removed, gate.clone());
        gate
    }

    /// The gate of that name, which opens after these vertices.
    fn gate(&mut self, name: &str, members: &[u32], fires_on: Option<usize>) -> GateId {
        // Most are asked for many times, and made once.
        let gate = gate_id(name);
        if self.gates.contains_key(&gate) {
            return gate;
        }
        let items: Vec<_> = members.iter().map(|v| Item::Vertex(*v)).collect();
        let fires_on = fires_on.map(|task| &self.diff.desired.graph.tasks[task].id);
        self.gate_of_items(name, &items, fires_on)
    }

    /// The gate of that name, made at first use; later calls must come with the same items.
    fn gate_of_items(&mut self, name: &str, items: &[Item], fires_on: Option<&TaskId>) -> GateId {
        let gate = gate_id(name);
        if !self.gates.contains_key(&gate) {
            let nodes = &self.diff.desired.nodes;
            let waits_for = items.iter().map(|item| self.task(*item).at(&nodes[self.node(*item).0 as usize])).collect();
            self.gates.insert(gate.clone(), Gate::Done { waits_for, fires_on: fires_on.cloned() });
        }
        gate
    }

    /// Adds a wait for items: by name if all of them are on the node itself, else by a gate.
    fn wait_for(&mut self, links: &mut Links, name: &str, items: &[Item], node: NodeIx) {
        if items.iter().all(|item| self.node(*item) == node) {
            links.after.extend(items.iter().map(|item| self.task(*item)));
        } else {
            let gate = self.gate_of_items(name, items, None);
            links.gates.push(gate);
        }
    }

    fn node(&self, item: Item) -> NodeIx {
        item.node(self.diff)
    }

    fn instance(&self, item: Item) -> InstanceId {
        self.task(item).at(&self.diff.desired.nodes[self.node(item).0 as usize])
    }

    fn task(&self, item: Item) -> TaskId {
        match item {
            Item::Vertex(v) => {
                let task = self.diff.first.partition_point(|first| *first <= v) - 1;
                self.diff.desired.graph.tasks[task].id.clone()
            }
            Item::Removed(removed, _) => self.diff.removed[removed as usize].id.clone(),
        }
    }

    /// Adds the edges of applied instances whose recorded ones are out of date, where nothing else is done to them. A planned instance
    /// records its edges when it is done, not before: until then a removal must find the old ones.
    fn record_edges(&mut self) {
        let diff = self.diff;
        for v in diff
            .stale
            .iter()
            .map(|v| *v as usize)
            .filter(|v| diff.change[*v] == Change::Same && !self.graph.is_planned(*v))
        {
            let task = diff.first.partition_point(|first| *first as usize <= v) - 1;
            let part = &mut self.parts[diff.node_of[v].0 as usize];
            part.edges.insert(diff.desired.graph.tasks[task].id.clone(), diff.edges[task].clone());
        }
    }
}
