//! Brute force: every edge expanded between instances, every set computed by repetition until nothing changes.

use std::collections::{BTreeMap, BTreeSet};

use groundplan_core::AppliedState;
use groundplan_protocol::{
    effect::{Action, Effect},
    ids::{InstanceId, NodeId, TaskId},
    plan::{Place, Source, TriggerSource},
};

use super::world::{At, World, node_id, resolved, task_id};

/// What a plan has to be.
pub(super) struct Expected {
    /// Every action.
    pub(super) actions: BTreeMap<InstanceId, Action>,
    /// Obligations of instances in the plan.
    pub(super) obligations: BTreeMap<InstanceId, Effect>,
    /// Those of them of which the node cannot know whether they are due.
    pub(super) due: BTreeMap<InstanceId, Effect>,
    /// All trigger edges between instances, from and to.
    pub(super) triggers: BTreeSet<(InstanceId, InstanceId, Effect)>,
    /// Which desired instance comes after which, closed.
    pub(super) order: BTreeSet<(InstanceId, InstanceId)>,
    /// Removed ones and what had required them, by the ledgers.
    pub(super) depended: BTreeSet<(InstanceId, InstanceId)>,
    /// What is pending, and what comes after that or after what is on a node that never reported, on whatever nodes.
    pub(super) held: BTreeSet<InstanceId>,
    /// What is pending.
    pub(super) pending: BTreeSet<InstanceId>,
}

/// An edge with all instances that it comes from on the one side.
struct Bundle {
    from: TaskId,
    at: At,
    sources: Vec<InstanceId>,
    to: InstanceId,
    trigger: Option<Effect>,
}

pub(super) fn expect(
    world: &World,
    applied: &AppliedState,
    drifted: &BTreeSet<InstanceId>,
    parked: &BTreeSet<NodeId>,
) -> Expected {
    // What is on a parked node acts there alone, and no other node waits for it.
    let lets_go = |from: &InstanceId, to: &InstanceId| parked.contains(&from.node) && from.node != to.node;
    let known: Vec<usize> = world.nodes.iter().copied().filter(|n| applied.nodes.contains_key(&node_id(*n))).collect();
    let is_applied = |i: &InstanceId| applied.nodes[&i.node].tasks.get(&i.task);
    let mut desired = BTreeMap::new();
    for task in &world.tasks {
        for (node, version) in task.on.iter().filter(|(node, _)| known.contains(node)) {
            let fingerprint = (!task.pending.contains(node)).then(|| resolved(task.name, *version).fingerprint);
            desired.insert(task_id(task.name).at(&node_id(*node)), fingerprint);
        }
    }
    let unsure =
        world.tasks.iter().flat_map(|task| task.pending.iter().map(|node| task_id(task.name).at(&node_id(*node))));
    let pending: BTreeSet<InstanceId> = unsure.collect();
    let applied_here = known
        .iter()
        .map(|n| node_id(*n))
        .flat_map(|n| applied.nodes[&n].tasks.keys().map(move |task| task.at(&n)).collect::<Vec<_>>());
    let removed: BTreeSet<InstanceId> = applied_here.filter(|i| !desired.contains_key(i)).collect();

    let mut actions: BTreeMap<InstanceId, Action> = removed.iter().map(|i| (i.clone(), Action::Remove)).collect();
    for (i, fingerprint) in &desired {
        let Some(fingerprint) = fingerprint else { continue };
        match is_applied(i) {
            None => drop(actions.insert(i.clone(), Action::Create)),
            Some(a) if a.fingerprint != *fingerprint || drifted.contains(i) => {
                actions.insert(i.clone(), Action::Update);
            }
            Some(_) => {}
        }
    }

    let bundles = bundles(world, &known);
    let mut triggers = BTreeSet::new();
    for bundle in &bundles {
        let Some(effect) = bundle.trigger else { continue };
        triggers.extend(bundle.sources.iter().map(|s| (s.clone(), bundle.to.clone(), effect)));
        let gone = removed.iter().filter(|i| i.task == bundle.from && reaches(bundle.at, &i.node, &bundle.to.node));
        triggers.extend(gone.map(|s| (s.clone(), bundle.to.clone(), effect)));
    }
    triggers.retain(|(from, to, _)| !lets_go(from, to));
    let mut depended = BTreeSet::new();
    for to in known.iter().flat_map(|n| applied.nodes[&node_id(*n)].tasks.keys().map(|t| t.at(&node_id(*n)))) {
        let edges = &is_applied(&to).unwrap().edges;
        for gone in &removed {
            let names = |source: &Source| source.task == gone.task && matches(&source.place, &gone.node, &to.node);
            if desired.contains_key(&to) {
                let fire = edges.triggers.iter().filter(|t| names(&t.on));
                triggers.extend(fire.map(|t| (gone.clone(), to.clone(), t.effect)));
            }
            if edges.requires.iter().any(names) {
                depended.insert((gone.clone(), to.clone()));
            }
        }
    }

    let mut obligations = BTreeMap::new();
    let mut unfired = Vec::new();
    for i in desired.keys() {
        if let Some(obligation) = applied.nodes[&i.node].obligations.get(&i.task) {
            match obligation.fired {
                true => drop(obligations.insert(i.clone(), obligation.effect)),
                false => unfired.push((i.clone(), obligation)),
            }
        }
    }
    let position = |i: &InstanceId| world.tasks.iter().position(|task| task_id(task.name) == i.task);
    unfired.sort_by_key(|(i, _)| position(i));
    let mut planned = close(&actions, &obligations, &triggers);
    let is_open = |open: &TriggerSource, to: &InstanceId, planned: &BTreeMap<InstanceId, Option<Effect>>| {
        let is_covered = |task: &TaskId, at: Option<NodeId>| {
            let by_removal =
                triggers.iter().any(|(from, t, _)| t == to && from.task == *task && removed.contains(from));
            let by_edge =
                bundles.iter().filter(|b| b.to == *to && b.from == *task && b.trigger.is_some()).any(|bundle| {
                    let sources: Vec<_> =
                        bundle.sources.iter().filter(|s| at.as_ref().is_none_or(|at| s.node == *at)).collect();
                    !sources.is_empty() && sources.iter().all(|s| planned.contains_key(s) && !lets_go(s, to))
                });
            by_removal || by_edge
        };
        let covered = match open {
            TriggerSource::Task(task) => is_covered(task, Some(to.node.clone())),
            TriggerSource::Gate(gate) => {
                let source: Source = gate.as_str().parse().unwrap();
                match source.place {
                    Place::Node(node) => is_covered(&source.task, Some(node)),
                    Place::Here | Place::Everywhere => is_covered(&source.task, None),
                }
            }
        };
        !covered
    };
    for (to, obligation) in unfired {
        if obligation.open.iter().any(|open| is_open(open, &to, &planned)) {
            obligations.insert(to.clone(), obligation.effect);
            planned = close(&actions, &obligations, &triggers);
        }
    }
    let due = obligations.iter().filter(|(to, _)| {
        let mut open = applied.nodes[&to.node].obligations[&to.task].open.iter();
        open.any(|open| matches!(open, TriggerSource::Gate(_)) && is_open(open, to, &planned))
    });
    let due = due.map(|(to, effect)| (to.clone(), *effect)).collect();
    for (i, effect) in planned {
        actions.entry(i).or_insert_with(|| effect.unwrap().action());
    }

    let edges: BTreeSet<(InstanceId, InstanceId)> =
        bundles.iter().flat_map(|b| b.sources.iter().map(|s| (s.clone(), b.to.clone()))).collect();
    let everywhere: Vec<usize> = world.nodes.iter().copied().collect();
    let all = self::bundles(world, &everywhere);
    let all = all.iter().flat_map(|b| b.sources.iter().map(|s| (s.clone(), b.to.clone())));
    let all = all.filter(|(from, to)| !lets_go(from, to)).collect();
    let is_unknown = |i: &InstanceId| pending.contains(i) || !applied.nodes.contains_key(&i.node);
    let behind = closure(&all).into_iter().filter(|(from, _)| is_unknown(from)).map(|(_, to)| to);
    let held = behind.chain(pending.iter().cloned()).collect();
    // What no other node waits for is before others on its own node alone. What comes before it elsewhere is waited for all the same.
    let kept: BTreeSet<_> = edges.iter().filter(|(from, to)| !lets_go(from, to)).cloned().collect();
    let through = closure(&edges).into_iter().filter(|(from, _)| !parked.contains(&from.node));
    let order = closure(&kept).into_iter().chain(through).collect();
    Expected { actions, obligations, due, triggers, order, depended, held, pending }
}

fn reaches(at: At, from: &NodeId, to: &NodeId) -> bool {
    match at {
        At::Here => from == to,
        At::Everywhere => true,
        At::Node(node) => *from == node_id(node),
    }
}

fn matches(place: &Place, from: &NodeId, to: &NodeId) -> bool {
    match place {
        Place::Here => from == to,
        Place::Everywhere => true,
        Place::Node(node) => from == node,
    }
}

fn bundles(world: &World, known: &[usize]) -> Vec<Bundle> {
    let mut bundles = Vec::new();
    for task in &world.tasks {
        for node in task.on.keys().filter(|node| known.contains(node)) {
            let to = task_id(task.name).at(&node_id(*node));
            for (from, at, trigger) in &task.edges {
                let source = world.task(*from).unwrap();
                let there = source.on.keys().filter(|n| known.contains(n)).map(|n| node_id(*n));
                let sources = there.filter(|n| reaches(*at, n, &to.node)).map(|n| task_id(*from).at(&n)).collect();
                bundles.push(Bundle { from: task_id(*from), at: *at, sources, to: to.clone(), trigger: *trigger });
            }
        }
    }
    bundles
}

/// Everything that is affected, with the greatest effect that reaches it.
fn close(
    actions: &BTreeMap<InstanceId, Action>,
    obligations: &BTreeMap<InstanceId, Effect>,
    triggers: &BTreeSet<(InstanceId, InstanceId, Effect)>,
) -> BTreeMap<InstanceId, Option<Effect>> {
    let mut planned: BTreeMap<InstanceId, Option<Effect>> = actions.keys().map(|i| (i.clone(), None)).collect();
    for (i, effect) in obligations {
        let most = planned.entry(i.clone()).or_default();
        *most = (*most).max(Some(*effect));
    }
    loop {
        let mut grown = false;
        for (from, to, effect) in triggers {
            if planned.contains_key(from) && planned.get(to).is_none_or(|most| *most < Some(*effect)) {
                planned.insert(to.clone(), Some(*effect));
                grown = true;
            }
        }
        if !grown {
            return planned;
        }
    }
}

/// The transitive closure.
pub(super) fn closure(edges: &BTreeSet<(InstanceId, InstanceId)>) -> BTreeSet<(InstanceId, InstanceId)> {
    let mut next: BTreeMap<&InstanceId, Vec<&InstanceId>> = BTreeMap::new();
    edges.iter().for_each(|(a, b)| next.entry(a).or_default().push(b));
    let mut all = BTreeSet::new();
    for start in next.keys() {
        let mut stack = next[start].clone();
        while let Some(at) = stack.pop() {
            if all.insert(((*start).clone(), at.clone())) {
                stack.extend(next.get(at).into_iter().flatten());
            }
        }
    }
    all
}
