//! What is known after apply only: which instances depend on values that are missing, or that a plan may change.
//!
//! In: a plan, the desired state that it leads to, and what is applied. Out: by instance, the values that decide whether something is
//! done to it, or with what. These are pending instances, what reads the export of a task that the plan acts on, what changes on parked nodes
//! trigger on others, which do not wait for it, and all that their trigger edges reach; an export among them changes in turn. For previews
//! only: nodes get none of it.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fmt,
};

use groundplan_protocol::{
    effect::{Action, Effect},
    ids::{InstanceId, NodeId, TaskId},
};

use super::{
    disruption::{self, Disruption},
    model::Plan,
    pending::MAX_LISTED,
};
use crate::{
    applied::AppliedState,
    desired::{DesiredState, Input, NodeIx, Scope},
    knowledge::Unknown,
};

/// What decides whether something is done, or with what.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Decisive {
    /// A value that is missing, or that the plan may change.
    Value(Unknown),
    /// What the plan changes on a parked node, once that is there.
    Parked(NodeId),
}

impl fmt::Display for Decisive {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Value(value) => value.fmt(f),
            Self::Parked(node) => write!(f, "changes on parked node {node}"),
        }
    }
}

/// An instance to which something may be done that the plan does not have, or with other content.
pub(super) struct Outcome {
    pub(super) instance: InstanceId,
    /// What may be done to it.
    pub(super) action: Action,
    /// Whether it is pending, and not applied.
    pub(super) is_creation: bool,
    /// What that may do to what runs.
    pub(super) effects: BTreeSet<Disruption>,
    /// What decides it, sorted; at least one, and not more than [`MAX_LISTED`].
    pub(super) depends_on: BTreeSet<Decisive>,
    /// The instance of which a trigger edge leads to it, if it does not depend on the values itself.
    pub(super) by: Option<(InstanceId, Effect)>,
}

/// A task on a node, by number: in this order, each comes after all that it waits for.
type Key = (usize, NodeIx);

/// What is noted of an instance.
#[derive(Default)]
struct Noted {
    depends_on: BTreeSet<Decisive>,
    /// Whether it reads one of the values itself.
    reads: bool,
    /// The greatest effect of trigger edges that lead to it, and from where.
    trigger: Option<(Effect, Key)>,
}

struct Search<'a> {
    desired: &'a DesiredState,
    /// By export and node: what reads its value.
    readers: HashMap<(TaskId, NodeIx), BTreeSet<Key>>,
    /// By task: where its trigger edges lead to.
    targets: HashMap<usize, Vec<(usize, Scope, Effect)>>,
    noted: BTreeMap<Key, Noted>,
    open: Vec<Key>,
    /// How often an edge from all nodes of a task to another one was followed.
    followed: HashMap<(usize, usize), usize>,
}

/// What is known after apply, in an order in which each comes after all that it waits for.
pub(super) fn of(
    plan: &Plan,
    desired: &DesiredState,
    applied: &AppliedState,
    before: Option<&DesiredState>,
) -> Vec<Outcome> {
    let mut search = Search {
        desired,
        readers: readers(desired),
        targets: targets(desired),
        noted: BTreeMap::new(),
        open: Vec::new(),
        followed: HashMap::new(),
    };
    for (number, task) in desired.graph.tasks.iter().enumerate() {
        for pending in &task.pending {
            let values = pending.waits_for.iter().cloned().map(Decisive::Value).collect();
            search.note((number, pending.node), &values, true, None);
        }
    }
    // What carries out an export may bring another value, whatever the reason.
    for action in plan.actions.iter().filter(|a| !matches!(a.action, Action::Remove | Action::Forget)) {
        if let Some(node) = desired.node(&action.instance.node) {
            search.publish(&action.instance.task, node);
        }
    }
    plan.detached.iter().for_each(|source| search.detach(source));
    while let Some(key) = search.open.pop() {
        search.spread(key);
    }
    search.noted.iter().map(|(key, noted)| outcome(desired, applied, before, *key, noted)).collect()
}

impl Search<'_> {
    /// Notes that an instance depends on values. `reads`: by itself, else by a trigger.
    fn note(&mut self, key: Key, values: &BTreeSet<Decisive>, reads: bool, trigger: Option<(Effect, Key)>) {
        let noted = self.noted.entry(key).or_default();
        let mut more = false;
        for value in values {
            if noted.depends_on.len() < MAX_LISTED {
                more |= noted.depends_on.insert(value.clone());
            }
        }
        more |= reads && !noted.reads;
        noted.reads |= reads;
        if let Some((effect, _)) = trigger
            && noted.trigger.is_none_or(|(before, _)| effect > before)
        {
            (noted.trigger, more) = (trigger, true);
        }
        if more {
            self.open.push(key);
        }
    }

    /// Notes what reads the value that a task exports on a node, if it is an export.
    fn publish(&mut self, task: &TaskId, node: NodeIx) {
        let Some(readers) = self.readers.get(&(task.clone(), node)).cloned() else { return };
        let node = self.desired.nodes[node.0 as usize].clone();
        let value = Decisive::Value(Unknown::Export { task: task.clone(), node });
        readers.into_iter().for_each(|key| self.note(key, &[value.clone()].into(), true, None));
    }

    /// Notes what a change or a removal on a parked node triggers on others, by the edges that are declared. On its own node the plan has it.
    fn detach(&mut self, source: &InstanceId) {
        let (Some(task), Some(node)) = (self.desired.graph.by_id.get(&source.task), self.desired.node(&source.node))
        else {
            return;
        };
        let values = [Decisive::Parked(source.node.clone())].into();
        self.trigger((task.0 as usize, node), &values, |at| at != node);
    }

    /// Notes what follows from a change of an instance.
    fn spread(&mut self, (task, node): Key) {
        let values = self.noted[&(task, node)].depends_on.clone();
        let desired = self.desired;
        self.publish(&desired.graph.tasks[task].id, node);
        self.trigger((task, node), &values, |_| true);
    }

    /// Notes what the trigger edges of an instance lead to, on the nodes that are chosen.
    fn trigger(&mut self, (task, node): Key, values: &BTreeSet<Decisive>, chosen: impl Fn(NodeIx) -> bool) {
        let desired = self.desired;
        for (to, scope, effect) in self.targets.get(&task).cloned().unwrap_or_default() {
            if scope == Scope::AllNodes {
                // From each of its nodes it leads to the same targets, with other values, of which only some are listed.
                let followed = self.followed.entry((task, to)).or_default();
                *followed += 1;
                if *followed > MAX_LISTED {
                    continue;
                }
            }
            let target = &desired.graph.tasks[to];
            let nodes = target.instances.iter().map(|i| i.node).chain(target.pending.iter().map(|p| p.node));
            let reached = |at: &NodeIx| match scope {
                Scope::SameNode => *at == node,
                Scope::AllNodes => true,
                Scope::OneNode(only) => only == node,
            };
            let nodes = nodes.filter(reached).filter(|at| chosen(*at));
            nodes.for_each(|at| self.note((to, at), values, false, Some((effect, (task, node)))));
        }
    }
}

/// By export and node: what reads its value, by the inputs of what was resolved.
fn readers(desired: &DesiredState) -> HashMap<(TaskId, NodeIx), BTreeSet<Key>> {
    let mut readers: HashMap<(TaskId, NodeIx), BTreeSet<Key>> = HashMap::new();
    if desired.node_inputs.exports.is_empty() {
        return readers;
    }
    let mut add = |key: Key, inputs: &[Input]| {
        for (task, node) in inputs.iter().filter_map(|input| exported(&input.name)) {
            let Some(export) = desired.graph.task(&task) else { continue };
            match node.and_then(|node| desired.nodes.iter().position(|id| id.as_str() == node)) {
                Some(node) => _ = readers.entry((task, NodeIx(node as u32))).or_default().insert(key),
                // It runs once.
                None => {
                    let nodes = export.instances.iter().map(|i| i.node).chain(export.pending.iter().map(|p| p.node));
                    nodes.for_each(|node| _ = readers.entry((task.clone(), node)).or_default().insert(key));
                }
            }
        }
    };
    for (number, task) in desired.graph.tasks.iter().enumerate() {
        task.instances.iter().for_each(|instance| add((number, instance.node), &instance.resolved.inputs));
        task.off.iter().for_each(|(node, off)| add((number, *node), &off.inputs));
    }
    readers
}

/// The export that an input is the value of, and the node in its name: `exports.db.address[db-0]`.
fn exported(input: &str) -> Option<(TaskId, Option<&str>)> {
    let name = input.strip_prefix("exports.")?;
    let (task, node) = match name.split_once('[') {
        Some((task, node)) => (task, node.strip_suffix(']')),
        None => (name, None),
    };
    Some((task.parse().ok()?, node))
}

fn targets(desired: &DesiredState) -> HashMap<usize, Vec<(usize, Scope, Effect)>> {
    let mut targets: HashMap<usize, Vec<_>> = HashMap::new();
    for (number, task) in desired.graph.tasks.iter().enumerate() {
        for edge in &task.edges {
            if let Some(effect) = edge.trigger {
                targets.entry(edge.from.0 as usize).or_default().push((number, edge.scope, effect));
            }
        }
    }
    targets
}

fn outcome(
    desired: &DesiredState,
    applied: &AppliedState,
    before: Option<&DesiredState>,
    key: Key,
    noted: &Noted,
) -> Outcome {
    let id = |(task, node): Key| desired.graph.tasks[task].id.at(&desired.nodes[node.0 as usize]);
    let instance = id(key);
    // On a node that is declared again, what it had is applied; and what waited for a value may be.
    let is_left = applied.nodes.get(&instance.node).is_some_and(|node| node.tasks.contains_key(&instance.task));
    let is_applied = is_left || before.is_some_and(|before| before.wants(&instance));
    let at_base = before.and_then(|before| before.instance(&instance));
    let trigger = noted.trigger;
    let action = match trigger {
        Some((effect, _)) if !noted.reads && is_applied => effect.action(),
        _ if is_applied => Action::Update,
        _ => Action::Create,
    };
    let is_creation = !is_applied && desired.graph.tasks[key.0].pending_on(key.1).is_some();
    // A trigger does nothing to what is only created.
    let effect = trigger.map(|(effect, _)| effect).filter(|_| !is_creation);
    // What it resolves to on another node is of the same kind, which decides most of what it does to what runs.
    let elsewhere = |state: Option<&'_ DesiredState>| {
        let task = state.and_then(|state| state.graph.task(&instance.task));
        task.and_then(|task| task.instances.first()).map(|instance| instance.resolved.clone())
    };
    let own = desired.instance(&instance).or(at_base).map(|instance| instance.resolved.clone());
    let now = own.or_else(|| elsewhere(Some(desired))).or_else(|| elsewhere(before));
    Outcome {
        effects: now.map(|now| disruption::possible(&now.spec, action, effect)).unwrap_or_default(),
        depends_on: noted.depends_on.clone(),
        by: trigger.filter(|_| !noted.reads).map(|(effect, by)| (id(by), effect)),
        instance,
        action,
        is_creation,
    }
}
