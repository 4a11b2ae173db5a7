//! Writes the restart graph down as a plan: actions in order, node parts, gates.

use std::{collections::BTreeMap, sync::Arc};

use groundplan_protocol::{
    digest::Digest,
    effect::Action,
    ids::{GateId, TaskId},
    plan::{Edges, Trigger, TriggerSource},
};

use super::{
    contract::Contraction,
    hold::{self, Holds},
    model::{Gate, NodePart, Plan, PlanTask, PlannedAction},
    removal::{Item, Removals, same_service},
};
use crate::{
    desired::{NodeIx, Scope},
    diff::{Diff, Own},
    knowledge::Unknown,
    restart::{RestartGraph, instance, removed_reason},
};

/// The gate of all that waits for something unknown.
const UNKNOWN: &str = "unknown";

/// What a task waits for and what may fire, while it is put together.
#[derive(Default)]
struct Links {
    after: Vec<TaskId>,
    gates: Vec<GateId>,
    triggers: Vec<Trigger>,
}

struct Assembler<'g, 'a> {
    graph: &'g RestartGraph<'a>,
    diff: &'g Diff<'a>,
    contraction: Contraction<'g, 'a>,
    removals: Removals,
    holds: Holds,
    actions: Vec<PlannedAction>,
    parts: Vec<NodePart>,
    gates: BTreeMap<GateId, Gate>,
    /// Names of barriers by task, once they are used.
    barriers: Vec<Option<GateId>>,
    none: Arc<Edges>,
}

pub(super) fn assemble(graph: &RestartGraph<'_>) -> Plan {
    let diff = graph.diff;
    let mut assembler = Assembler {
        graph,
        diff,
        contraction: Contraction::new(graph),
        removals: Removals::new(graph),
        holds: Holds::new(diff),
        actions: Vec::new(),
        parts: vec![NodePart::default(); diff.known.len()],
        gates: BTreeMap::new(),
        barriers: vec![None; diff.edges.len()],
        none: Arc::default(),
    };
    let mut removals = std::mem::take(&mut assembler.removals.order).into_iter().peekable();
    for task in 0..diff.edges.len() {
        while let Some((_, gone)) = removals.next_if(|(slot, _)| *slot as usize <= task) {
            assembler.remove(gone);
        }
        if graph.count(task) > 0 {
            assembler.carry_out(task);
        }
    }
    removals.for_each(|(_, gone)| assembler.remove(gone));
    assembler.record_edges();

    let parts = diff.desired.nodes.iter().cloned().zip(assembler.parts);
    let mut plan = Plan {
        actions: assembler.actions,
        nodes: parts.filter(|(_, part)| !part.tasks.is_empty() || !part.edges.is_empty()).collect(),
        gates: assembler.gates,
        pending: hold::pending(diff.desired),
    };
    hold::spread(&mut plan);
    plan
}

/// A gate's name. One that is longer than names may be is replaced by its digest.
fn gate_id(name: &str) -> GateId {
    let digest = || GateId::new(format!("long/{}", Digest::of(name.as_bytes())));
    GateId::new(name).or_else(|_| digest()).unwrap_or_else(|_| unreachable!("a digest is a valid name"))
}

impl Assembler<'_, '_> {
    /// The planned instances of a task.
    fn carry_out(&mut self, task: usize) {
        let (graph, diff) = (self.graph, self.diff);
        let vertex = &diff.desired.graph.tasks[task];
        let siblings = same_service(graph, task);
        for v in diff.vertices(task).filter(|v| graph.is_planned(*v)) {
            let node = diff.node_of[v];
            let action = graph.action(v);
            let mut links = self.links(task, v);
            if diff.own[v] == Own::Added {
                let gone = siblings.clone().filter(|g| diff.gone[*g].on(node).is_some());
                links.after.extend(gone.map(|g| diff.gone[g].id.clone()));
            }
            let resolved = diff.resolved(task, v);
            let takes_effects = resolved.is_none_or(|resolved| !resolved.spec.params.effects().is_empty());
            let disruptive = takes_effects || !links.triggers.is_empty();
            let waits_for = self.holds.of(v);
            self.hold(&mut links, &waits_for);
            self.add(
                PlanTask {
                    task: vertex.id.clone(),
                    action,
                    resolved: resolved.cloned(),
                    edges: diff.edges[task].clone(),
                    after: links.after,
                    gates: links.gates,
                    triggers: links.triggers,
                    owed: graph.owed(v),
                },
                node,
                disruptive,
            );
            let instance = instance(diff, task, v);
            self.actions.push(PlannedAction { instance, action, reasons: graph.reasons(task, v), waits_for });
        }
    }

    /// The removed instances of a task.
    fn remove(&mut self, gone: u32) {
        let diff = self.diff;
        let task = &diff.gone[gone as usize];
        let shared: Vec<Item> = self.removals.everywhere(gone).to_vec();
        for (node, _) in &task.instances {
            let mut links = Links::default();
            self.wait_for(&mut links, &format!("before/{}", task.id), &shared, *node);
            let single: Vec<Item> = self.removals.on(gone, *node).collect();
            let (local, remote): (Vec<_>, Vec<_>) = single.into_iter().partition(|item| self.node(*item) == *node);
            links.after.extend(local.into_iter().map(|item| self.task(item)));
            let at = &diff.desired.nodes[node.0 as usize];
            self.wait_for(&mut links, &format!("before/{}@{at}", task.id), &remote, *node);
            links.after.sort_unstable();
            links.after.dedup();
            let waits_for = self.holds.of_removal(gone, *node);
            self.hold(&mut links, &waits_for);
            self.add(
                PlanTask {
                    task: task.id.clone(),
                    action: Action::Remove,
                    resolved: None,
                    edges: self.none.clone(),
                    after: links.after,
                    gates: links.gates,
                    triggers: Vec::new(),
                    owed: None,
                },
                *node,
                true,
            );
            self.actions.push(PlannedAction {
                instance: task.id.at(at),
                action: Action::Remove,
                reasons: vec![removed_reason(diff, task, *node)],
                waits_for,
            });
        }
    }

    /// Lets a task wait for what nobody knows yet.
    fn hold(&mut self, links: &mut Links, waits_for: &[Unknown]) {
        if !waits_for.is_empty() {
            let gate = gate_id(UNKNOWN);
            self.gates.insert(gate.clone(), Gate::Unknown);
            links.gates.push(gate);
        }
    }

    /// Puts a task into its node's part, behind a gate for its turn if its service is limited.
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
    fn links(&mut self, task: usize, vertex: usize) -> Links {
        let (graph, diff) = (self.graph, self.diff);
        let tasks = &diff.desired.graph.tasks;
        let node = diff.node_of[vertex];
        let waits = self.contraction.waits(task, vertex);
        let task_of = |v: u32| diff.first.partition_point(|first| *first <= v) - 1;
        let mut links = Links::default();
        for v in &waits.local {
            let from = &tasks[task_of(*v)].id;
            links.after.push(from.clone());
            if diff.desired.asked.exports.contains(from) {
                // The planner may plan anew before anything that comes after it.
                let name = format!("export/{}", instance(diff, task_of(*v), *v as usize));
                links.gates.push(self.gate(&name, &[*v], None));
            }
        }
        for from in &waits.all {
            links.gates.push(self.barrier(*from as usize));
        }
        for (from, v) in &waits.one {
            let fires_on = graph.is_planned(*v as usize).then_some(*from as usize);
            let members = self.contraction.one(*from as usize, *v as usize);
            let name = instance(diff, *from as usize, *v as usize).to_string();
            links.gates.push(self.gate(&name, &members.members, fires_on));
        }
        for edge in &tasks[task].edges {
            let Some(effect) = edge.trigger else { continue };
            let from = edge.from.0 as usize;
            let local = || TriggerSource::Task(tasks[from].id.clone());
            let planned = |node| diff.vertex(from, node).is_some_and(|s| graph.is_planned(s));
            let on = match edge.scope {
                _ if graph.count(from) == 0 => continue,
                Scope::SameNode => planned(node).then(local),
                Scope::OneNode(at) if at == node => planned(node).then(local),
                Scope::OneNode(at) => planned(at).then(|| {
                    let at = &diff.desired.nodes[at.0 as usize];
                    TriggerSource::Gate(gate_id(&tasks[from].id.at(at).to_string()))
                }),
                Scope::AllNodes if self.contraction.all(from).only == Some(node) => planned(node).then(local),
                Scope::AllNodes => Some(TriggerSource::Gate(self.barrier(from))),
            };
            links.triggers.extend(on.map(|on| Trigger { effect, on }));
        }
        for hit in graph.removals(vertex) {
            let gone = &diff.gone[hit.gone as usize];
            let all_here = gone.instances.iter().all(|(at, _)| *at == node);
            let on = match hit.scope {
                Scope::AllNodes if !all_here => {
                    let items: Vec<_> = gone.instances.iter().map(|(at, _)| Item::Gone(hit.gone, *at)).collect();
                    TriggerSource::Gate(self.gate_of_items(&format!("removed/{}", gone.id), &items, Some(gone.id)))
                }
                Scope::OneNode(at) if at != node => {
                    let name = gone.id.at(&diff.desired.nodes[at.0 as usize]).to_string();
                    TriggerSource::Gate(self.gate_of_items(&name, &[Item::Gone(hit.gone, at)], Some(gone.id)))
                }
                _ => TriggerSource::Task(gone.id.clone()),
            };
            match &on {
                TriggerSource::Task(task) => links.after.push(task.clone()),
                TriggerSource::Gate(gate) => links.gates.push(gate.clone()),
            }
            links.triggers.push(Trigger { effect: hit.effect, on });
        }
        links.after.sort_unstable();
        links.after.dedup();
        links.gates.sort_unstable();
        links.gates.dedup();
        links.triggers.sort_unstable();
        links.triggers.dedup();
        links
    }

    /// The gate of a barrier.
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

    fn gate(&mut self, name: &str, members: &[u32], fires_on: Option<usize>) -> GateId {
        let items: Vec<_> = members.iter().map(|v| Item::Vertex(*v)).collect();
        let fires_on = fires_on.map(|task| &self.diff.desired.graph.tasks[task].id);
        self.gate_of_items(name, &items, fires_on)
    }

    fn gate_of_items(&mut self, name: &str, items: &[Item], fires_on: Option<&TaskId>) -> GateId {
        let gate = gate_id(name);
        if !self.gates.contains_key(&gate) {
            let nodes = &self.diff.desired.nodes;
            let waits_for = items.iter().map(|item| self.task(*item).at(&nodes[self.node(*item).0 as usize])).collect();
            self.gates.insert(gate.clone(), Gate::Done { waits_for, fires_on: fires_on.cloned() });
        }
        gate
    }

    /// Waits for items: on the node itself if all of them are there, else by a gate.
    fn wait_for(&mut self, links: &mut Links, name: &str, items: &[Item], node: NodeIx) {
        if items.iter().all(|item| self.node(*item) == node) {
            links.after.extend(items.iter().map(|item| self.task(*item)));
        } else {
            let gate = self.gate_of_items(name, items, None);
            links.gates.push(gate);
        }
    }

    fn node(&self, item: Item) -> NodeIx {
        match item {
            Item::Vertex(v) => self.diff.node_of[v as usize],
            Item::Gone(_, node) => node,
        }
    }

    fn task(&self, item: Item) -> TaskId {
        match item {
            Item::Vertex(v) => {
                let task = self.diff.first.partition_point(|first| *first <= v) - 1;
                self.diff.desired.graph.tasks[task].id.clone()
            }
            Item::Gone(gone, _) => self.diff.gone[gone as usize].id.clone(),
        }
    }

    /// Applied instances whose declared edges are not the recorded ones. What is planned records them when it is done: until then
    /// a removal that its old edges tell of may still have to act on it.
    fn record_edges(&mut self) {
        let diff = self.diff;
        for v in
            diff.stale.iter().map(|v| *v as usize).filter(|v| diff.own[*v] == Own::Same && !self.graph.is_planned(*v))
        {
            let task = diff.first.partition_point(|first| *first as usize <= v) - 1;
            let part = &mut self.parts[diff.node_of[v].0 as usize];
            part.edges.insert(diff.desired.graph.tasks[task].id.clone(), diff.edges[task].clone());
        }
    }
}
