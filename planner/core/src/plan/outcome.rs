//! What is known after apply only: which instances depend on values that are missing, or that a plan may change.
//!
//! In: a plan, the desired state that it leads to, and the one that is applied. Out: by instance, the values that decide whether something is
//! done to it, or with what. These are pending instances, what reads the export of a task that the plan acts on, and all that their trigger
//! edges reach; an export among them changes in turn. For previews only: nodes get none of it.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use groundplan_protocol::{
    effect::{Action, Effect},
    ids::{InstanceId, TaskId},
};

use super::{
    disruption::{self, Disruption},
    model::Plan,
    pending::MAX_LISTED,
};
use crate::{
    desired::{DesiredState, Input, NodeIx, Scope},
    knowledge::Unknown,
};

/// An instance to which something may be done that the plan does not have, or with other content.
pub(super) struct Outcome {
    pub(super) instance: InstanceId,
    /// What may be done to it.
    pub(super) action: Action,
    /// What that may do to what runs.
    pub(super) effects: BTreeSet<Disruption>,
    /// The values that decide it, sorted; at least one, and not more than [`MAX_LISTED`].
    pub(super) depends_on: BTreeSet<Unknown>,
    /// The instance of which a trigger edge leads to it, if it does not depend on the values itself.
    pub(super) by: Option<(InstanceId, Effect)>,
}

/// A task on a node, by number: in this order, each comes after all that it waits for.
type Key = (usize, NodeIx);

/// What is noted of an instance.
#[derive(Default)]
struct Noted {
    depends_on: BTreeSet<Unknown>,
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
pub(super) fn of(plan: &Plan, desired: &DesiredState, applied: Option<&DesiredState>) -> Vec<Outcome> {
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
            search.note((number, pending.node), &pending.waits_for.iter().cloned().collect(), true, None);
        }
    }
    // What carries out an export may bring another value, whatever the reason.
    for action in plan.actions.iter().filter(|a| !matches!(a.action, Action::Remove | Action::Forget)) {
        if let Some(node) = desired.node(&action.instance.node) {
            search.publish(&action.instance.task, node);
        }
    }
    while let Some(key) = search.open.pop() {
        search.spread(key);
    }
    search.noted.iter().map(|(key, noted)| outcome(desired, applied, *key, noted)).collect()
}

impl Search<'_> {
    /// Notes that an instance depends on values. `reads`: by itself, else by a trigger.
    fn note(&mut self, key: Key, values: &BTreeSet<Unknown>, reads: bool, trigger: Option<(Effect, Key)>) {
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
        let value = Unknown::Export { task: task.clone(), node: self.desired.nodes[node.0 as usize].clone() };
        readers.into_iter().for_each(|key| self.note(key, &[value.clone()].into(), true, None));
    }

    /// Notes what follows from a change of an instance.
    fn spread(&mut self, (task, node): Key) {
        let values = self.noted[&(task, node)].depends_on.clone();
        let desired = self.desired;
        self.publish(&desired.graph.tasks[task].id, node);
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
            nodes.filter(reached).for_each(|at| self.note((to, at), &values, false, Some((effect, (task, node)))));
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

fn outcome(desired: &DesiredState, applied: Option<&DesiredState>, key: Key, noted: &Noted) -> Outcome {
    let id = |(task, node): Key| desired.graph.tasks[task].id.at(&desired.nodes[node.0 as usize]);
    let instance = id(key);
    let before = applied.and_then(|applied| applied.instance(&instance));
    let is_applied = before.is_some() || applied.is_some_and(|applied| applied.wants(&instance));
    let trigger = noted.trigger;
    let action = match trigger {
        Some((effect, _)) if !noted.reads && is_applied => effect.action(),
        _ if is_applied => Action::Update,
        _ => Action::Create,
    };
    let now = desired.instance(&instance).or(before).map(|instance| Arc::as_ref(&instance.resolved));
    Outcome {
        effects: now.map(|now| disruption::possible(&now.spec, action, trigger.map(|(e, _)| e))).unwrap_or_default(),
        depends_on: noted.depends_on.clone(),
        by: trigger.filter(|_| !noted.reads).map(|(effect, by)| (id(by), effect)),
        instance,
        action,
    }
}
