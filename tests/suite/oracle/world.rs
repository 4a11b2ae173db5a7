//! Generated sites: from a string of bytes to tasks, nodes and edges, and from these to the core's types.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use groundplan_core::{
    AppliedState, DesiredState, Unknown,
    desired::{Edge, Input, Instance, InstanceGraph, NodeInputs, NodeIx, Pending, Resolved, Scope, TaskIx, TaskVertex},
};
use groundplan_inventory::{Lifecycle, Location, Rollout};
use groundplan_protocol::{
    digest::{Digest, Fingerprint},
    effect::Effect,
    ids::{NodeId, ServiceId, TaskId},
    kinds::{Command, Run, TaskParams},
    plan::{OnInterrupt, OnRemove, TaskSpec, TriggerSource},
    state::Obligation,
};

/// Decisions from bytes; once they are used up, every one is 0. So shorter inputs are simpler worlds, and shrinking works.
pub(super) struct Dice<'a>(pub(super) std::slice::Iter<'a, u8>);

impl Dice<'_> {
    pub(super) fn below(&mut self, n: usize) -> usize {
        self.0.next().map_or(0, |b| usize::from(*b) % n.max(1))
    }

    pub(super) fn chance(&mut self, percent: usize) -> bool {
        self.0.next().is_some_and(|b| usize::from(*b) * 100 < percent * 256)
    }
}

/// A site: tasks in an order that agrees with their edges.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct World {
    pub(super) nodes: BTreeSet<usize>,
    pub(super) tasks: Vec<Task>,
    pub(super) limits: BTreeMap<usize, u32>,
}

/// A task; its number is its name.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Task {
    pub(super) name: usize,
    /// Its nodes, with what it is there.
    pub(super) on: BTreeMap<usize, u8>,
    /// Those of them on which its values are unknown.
    pub(super) pending: BTreeSet<usize>,
    pub(super) edges: Vec<(usize, At, Option<Effect>)>,
}

/// Which instances of its source an edge comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum At {
    Here,
    Everywhere,
    Node(usize),
}

pub(super) const SERVICES: usize = 3;

pub(super) fn task_id(name: usize) -> TaskId {
    format!("s{}.t{name}", name % SERVICES).parse().unwrap()
}

pub(super) fn service_id(service: usize) -> ServiceId {
    ServiceId::new(format!("s{service}")).unwrap()
}

pub(super) fn node_id(node: usize) -> NodeId {
    NodeId::new(format!("n{node}")).unwrap()
}

const EFFECTS: [Effect; 3] = [Effect::Run, Effect::Reload, Effect::Restart];

impl World {
    /// Any world at all, of at most `tasks` tasks on at most `nodes` nodes.
    pub(super) fn any(dice: &mut Dice<'_>, tasks: usize, nodes: usize) -> Self {
        let nodes: BTreeSet<usize> = (0..1 + dice.below(nodes)).filter(|n| *n == 0 || !dice.chance(10)).collect();
        let mut names: Vec<usize> = (0..tasks).filter(|_| dice.chance(75)).collect();
        for i in 1..names.len() {
            if dice.chance(15) {
                names.swap(i, i - 1);
            }
        }
        let mut world = Self { nodes, tasks: Vec::new(), limits: BTreeMap::new() };
        for name in names {
            let task = world.any_task(dice, name);
            world.tasks.push(task);
        }
        world
    }

    fn any_task(&self, dice: &mut Dice<'_>, name: usize) -> Task {
        let once = dice.chance(15);
        let mut on: BTreeMap<usize, u8> = self.nodes.iter().filter(|_| dice.chance(70)).map(|n| (*n, 0)).collect();
        if once {
            on = on.into_iter().take(1).collect();
        }
        on.values_mut().for_each(|version| *version = dice.below(3) as u8);
        let mut edges = Vec::new();
        for source in self.tasks.iter().rev().take(8) {
            if !dice.chance(35) {
                continue;
            }
            let at = match dice.below(8) {
                0..4 => At::Here,
                4..7 => At::Everywhere,
                _ => At::Node(*self.nodes.iter().nth(dice.below(self.nodes.len())).unwrap_or(&0)),
            };
            let trigger = dice.chance(45).then(|| EFFECTS[dice.below(3)]);
            edges.push((source.name, at, trigger));
        }
        Task { name, on, pending: BTreeSet::new(), edges }
    }

    /// Another version of it: some tasks differ, and if `deep`, some are removed, new, elsewhere, or have other edges.
    pub(super) fn changed(&self, dice: &mut Dice<'_>, deep: bool) -> Self {
        let mut next = self.clone();
        for task in &mut next.tasks {
            if dice.chance(15) {
                task.on.values_mut().for_each(|version| *version = version.wrapping_add(1 + dice.below(2) as u8));
            }
            if deep && dice.chance(10) {
                task.edges.retain(|_| !dice.chance(50));
            }
            if deep && dice.chance(10) {
                task.on.retain(|_, _| !dice.chance(50));
                let on = &task.on;
                task.pending.retain(|node| on.contains_key(node));
            }
        }
        if deep {
            let lost: Vec<usize> = next.tasks.iter().map(|t| t.name).filter(|_| dice.chance(12)).collect();
            next.tasks.retain(|task| !lost.contains(&task.name));
            next.tasks.iter_mut().for_each(|task| task.edges.retain(|(from, ..)| !lost.contains(from)));
            if dice.chance(30) {
                let name = 40 + dice.below(4);
                let task = next.any_task(dice, name);
                if !next.tasks.iter().any(|t| t.name == task.name) {
                    next.tasks.push(task);
                }
            }
        }
        next
    }

    /// The same, with values unknown for some instances.
    pub(super) fn unsure(&self, dice: &mut Dice<'_>) -> Self {
        let mut next = self.clone();
        for task in &mut next.tasks {
            task.pending = task.on.keys().copied().filter(|_| dice.chance(8)).collect();
        }
        next
    }

    /// The same, with all values known.
    pub(super) fn sure(&self) -> Self {
        let mut next = self.clone();
        next.tasks.iter_mut().for_each(|task| task.pending.clear());
        next
    }

    pub(super) fn task(&self, name: usize) -> Option<&Task> {
        self.tasks.iter().find(|task| task.name == name)
    }

    /// As the core sees it.
    pub(super) fn desired(&self) -> DesiredState {
        let nodes: Vec<NodeId> = self.nodes.iter().map(|n| node_id(*n)).collect();
        let ix = |node: usize| NodeIx(self.nodes.iter().position(|n| *n == node).unwrap() as u32);
        let number = |name: usize| TaskIx(self.tasks.iter().position(|t| t.name == name).unwrap() as u32);
        let vertex = |task: &Task| {
            let instances = task
                .on
                .iter()
                .map(|(node, version)| Instance { node: ix(*node), resolved: Arc::new(resolved(task.name, *version)) });
            let edge = |(from, at, trigger): &(usize, At, Option<Effect>)| Edge {
                from: number(*from),
                scope: match at {
                    At::Here => Scope::SameNode,
                    At::Everywhere => Scope::AllNodes,
                    At::Node(node) => Scope::OneNode(ix(*node)),
                },
                trigger: *trigger,
            };
            let mut edges: Vec<Edge> = task.edges.iter().map(edge).collect();
            edges.sort();
            edges.dedup();
            let at = place(&format!("services/s{}/service.toml", task.name % SERVICES));
            let pending = task.pending.iter().map(|node| Pending {
                node: ix(*node),
                waits_for: [Unknown::Fact { name: format!("local.{}", task.name), node: node_id(*node) }].into(),
            });
            TaskVertex {
                id: task_id(task.name),
                at,
                instances: instances
                    .filter(|instance| !task.pending.iter().any(|node| ix(*node) == instance.node))
                    .collect(),
                pending: pending.collect(),
                off: Vec::new(),
                edges,
                retry: None,
                on_remove: OnRemove::Restore,
                prevent_destroy: None,
                conflicts: Vec::new(),
            }
        };
        let graph = InstanceGraph {
            tasks: self.tasks.iter().map(vertex).collect(),
            by_id: self.tasks.iter().map(|task| (task_id(task.name), number(task.name))).collect(),
        };
        let limit = |n: &u32| Rollout { max_unavailable: Some(*n), retry: None };
        DesiredState {
            site: "made-up".parse().unwrap(),
            lifecycles: nodes.iter().map(|_| Lifecycle::Active).collect(),
            node_places: nodes.iter().map(|_| place("inventory/nodes.toml")).collect(),
            nodes,
            graph,
            retry: None,
            once: BTreeMap::new(),
            node_inputs: NodeInputs::default(),
            rollouts: self.limits.iter().map(|(service, n)| (service_id(*service), limit(n))).collect(),
        }
    }
}

fn place(file: &str) -> Location {
    Location::file(file)
}

pub(super) fn resolved(name: usize, version: u8) -> Resolved {
    let digest = Digest::of(format!("{name} {version}").as_bytes());
    let command = Command {
        run: Run::Shell(format!("make {name} {version}")),
        ..serde_json::from_str(r#"{"run":"x"}"#).unwrap()
    };
    let spec = TaskSpec {
        params: TaskParams::Command(command),
        content: None,
        ready: None,
        external: Vec::new(),
        on_interrupt: OnInterrupt::Rerun,
    };
    let input = |name: &str, value: u8| Input {
        name: name.to_owned(),
        digest: Digest::of(&[value]).short(),
        value: Some(value.to_string()),
        at: place("site.toml"),
    };
    Resolved {
        spec,
        fingerprint: Fingerprint(digest),
        inputs: vec![input("var a", 0), input("var v", version)],
        body: None,
    }
}

/// What nodes have applied: each by one of several worlds, some without a report; and some obligations.
pub(super) fn applied(dice: &mut Dice<'_>, worlds: &[&World], nodes: usize) -> AppliedState {
    let states: Vec<AppliedState> = worlds.iter().map(|world| AppliedState::of(&world.desired())).collect();
    let mut applied = AppliedState::default();
    for node in (0..nodes).map(node_id) {
        if dice.chance(8) {
            continue;
        }
        let mut known = states[dice.below(states.len())].nodes.get(&node).cloned().unwrap_or_default();
        if dice.chance(10) {
            Arc::make_mut(&mut known.tasks).retain(|_, _| !dice.chance(40));
        }
        for name in 0..12 {
            if dice.chance(4) {
                let open = (0..dice.below(3)).map(|_| any_source(dice, nodes)).collect();
                let obligation = Obligation { effect: EFFECTS[dice.below(3)], fired: dice.chance(40), open };
                known.obligations.insert(task_id(name), obligation);
            }
        }
        applied.nodes.insert(node, known);
    }
    applied
}

fn any_source(dice: &mut Dice<'_>, nodes: usize) -> TriggerSource {
    let task = task_id(dice.below(12));
    match dice.below(3) {
        0 => TriggerSource::Task(task),
        1 => TriggerSource::Gate(task.to_string().parse().unwrap()),
        _ => TriggerSource::Gate(task.at(&node_id(dice.below(nodes))).to_string().parse().unwrap()),
    }
}
