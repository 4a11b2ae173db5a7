//! The comparison of a preview with its run, instance by instance. It follows edges one by one, and asks no plan what waits for what, but for
//! the order of removals.

use std::collections::{BTreeMap, BTreeSet};

use groundplan_core::{AppliedState, DesiredState, Plan, plan::ActionReport, plan::Gate};
use groundplan_protocol::{
    effect::Action,
    ids::{InstanceId, NodeId, TaskId},
};

use super::{
    super::record::Edges,
    listed::{Preview, Previewed, is_after_parked, restarts},
    nodes::{Nodes, Ran, of_removed},
};

/// What was not as the preview assumes: as its base, or as what the planner reports of orphaned nodes.
#[derive(Default)]
pub(super) struct Behind {
    /// Instances that differ, or to which something is due.
    own: BTreeSet<InstanceId>,
    /// Nodes that the base does not declare, and that have something.
    returned: BTreeSet<NodeId>,
}

impl Behind {
    pub(super) fn new(preview: &Preview, nodes: &Nodes) -> Self {
        let mut behind = Self { own: nodes.applied.fired.keys().cloned().collect(), ..Self::default() };
        for node in &preview.desired.nodes {
            let assumed = &preview.applied.nodes[node].tasks;
            let found = nodes.applied.nodes.get(node).map(|found| found.tasks.clone()).unwrap_or_default();
            let is_new = preview.base.as_ref().is_none_or(|base| base.node(node).is_none());
            if is_new {
                behind.returned.extend((!found.is_empty()).then(|| node.clone()));
                continue;
            }
            let differs = |task: &&TaskId| assumed.get(*task) != found.get(*task);
            let all: BTreeSet<_> = assumed.keys().chain(found.keys()).filter(differs).collect();
            behind.own.extend(all.into_iter().map(|task| task.at(node)));
        }
        behind
    }

    /// What may happen because of it: all that trigger edges reach from there, and what reads the exports among it.
    fn reach(&self, edges: &Reach<'_>, applied: &AppliedState) -> BTreeSet<InstanceId> {
        let mut found = self.own.clone();
        let mut open: Vec<InstanceId> = self.own.iter().cloned().collect();
        while let Some(at) = open.pop() {
            let recorded = applied.nodes.iter().flat_map(|(node, known)| {
                let fires = |on: &groundplan_protocol::plan::Source| on.task == at.task;
                let tasks = known.tasks.iter().filter(move |(_, a)| a.edges.triggers.iter().any(|t| fires(&t.on)));
                tasks.map(move |(task, _)| task.at(node))
            });
            let next: Vec<InstanceId> = edges.targets(&at).chain(edges.readers(&at)).chain(recorded).collect();
            open.extend(next.into_iter().filter(|next| found.insert(next.clone())));
        }
        found
    }
}

/// The edges of several desired states together.
struct Reach<'a> {
    states: Vec<&'a DesiredState>,
    all: Vec<Edges>,
    /// By export: the tasks that read its value.
    readers: BTreeMap<String, BTreeSet<InstanceId>>,
}

impl<'a> Reach<'a> {
    fn new(states: impl Iterator<Item = &'a DesiredState> + Clone) -> Self {
        let mut readers: BTreeMap<String, BTreeSet<InstanceId>> = BTreeMap::new();
        for desired in states.clone() {
            for task in &desired.graph.tasks {
                for instance in &task.instances {
                    let names = instance.resolved.inputs.iter().filter_map(|input| input.name.strip_prefix("exports."));
                    let id = || task.id.at(&desired.nodes[instance.node.0 as usize]);
                    for name in names {
                        let export = name.split('[').next().unwrap_or_default();
                        readers.entry(export.to_owned()).or_default().insert(id());
                    }
                }
            }
        }
        Self { all: states.clone().map(Edges::of).collect(), states: states.collect(), readers }
    }

    fn targets(&self, source: &InstanceId) -> impl Iterator<Item = InstanceId> {
        let declared = self.all.iter().filter_map(|edges| edges.triggers.get(source));
        let removed = self.states.iter().flat_map(|desired| of_removed(desired, source));
        declared.flat_map(|targets| targets.keys().cloned()).chain(removed.map(|(target, _)| target))
    }

    fn readers(&self, export: &InstanceId) -> impl Iterator<Item = InstanceId> {
        self.readers.get(&export.task.to_string()).into_iter().flatten().cloned()
    }
}

/// Compares them.
///
/// # Errors
/// What the run did and the preview did not list, or the other way round.
pub(super) fn compare(preview: &Preview, behind: &Behind, ran: &Ran) -> Result<Previewed, String> {
    let report = &preview.report;
    let listed: BTreeMap<InstanceId, &ActionReport> = report.actions.iter().map(|a| (a.instance(), a)).collect();
    let states = preview.base.as_deref().into_iter().chain([&*preview.desired, &*ran.desired]);
    let edges = Reach::new(states);
    let late = behind.reach(&edges, &preview.applied);
    let mut shown = Previewed { commits: 1, ..Previewed::default() };
    // Also what is listed as an update, because it waits for a value in the base as well.
    let mut created = BTreeSet::new();
    for done in &ran.done {
        let instance = &done.instance;
        shown.removals += usize::from(done.action == Action::Remove);
        shown.on_parked += usize::from(done.on_parked);
        shown.on_new += usize::from(ran.new.contains(&instance.node));
        shown.on_returned += usize::from(behind.returned.contains(&instance.node));
        let Some(listed) = listed.get(instance) else {
            if late.contains(instance) {
                shown.behind += 1;
                continue;
            }
            return Err(format!("the run did {} {instance}, which its preview did not list", done.action));
        };
        shown.done += 1;
        shown.outcomes += usize::from(listed.is_outcome());
        shown.after_parked += usize::from(is_after_parked(listed));
        if done.action == Action::Create {
            created.insert(instance);
        }
        let may_restart = restarts(listed) || created.contains(instance) || late.contains(instance);
        if done.restarted && !may_restart && is_resolved(preview, &instance.task) {
            return Err(format!("the run restarted {instance}, which its preview did not list"));
        }
    }
    let done: BTreeSet<&InstanceId> = ran.done.iter().map(|done| &done.instance).collect();
    let left = Left::new(ran, &listed, &done, behind, &edges);
    for (instance, listed) in &listed {
        if done.contains(instance) || !listed.known_after_apply.is_empty() || behind.own.contains(instance) {
            continue;
        }
        if !left.is_excused(instance) {
            let action = listed.action;
            return Err(format!(
                "the run left out {action} {instance}, which depends on no outcome and waits for no node"
            ));
        }
        shown.waited += 1;
    }
    Ok(shown)
}

/// Whether anything is known of what a task is: it may wait for values wherever it is to run.
fn is_resolved(preview: &Preview, task: &TaskId) -> bool {
    let mut states = [Some(&preview.desired), preview.base.as_ref()].into_iter().flatten();
    states.any(|desired| desired.graph.task(task).is_some_and(|task| !task.instances.is_empty()))
}

/// What a run left out because nodes were not there at its end.
struct Left<'a> {
    ran: &'a Ran,
    edges: &'a Reach<'a>,
    /// What the last plan of the run has.
    planned: BTreeSet<&'a InstanceId>,
    /// What was listed and not done on nodes that are parked, or that have never reported: no plan has meanwhile what follows elsewhere. And
    /// what was not as the preview assumed: what is not there is not removed.
    apart: BTreeSet<&'a InstanceId>,
    /// What waits for values that no node has reported.
    pending: BTreeSet<&'a InstanceId>,
    /// Removals of the last plan, and what waits for them.
    by_removal: BTreeSet<InstanceId>,
}

impl<'a> Left<'a> {
    fn new(
        ran: &'a Ran,
        listed: &'a BTreeMap<InstanceId, &'a ActionReport>,
        done: &BTreeSet<&InstanceId>,
        behind: &Behind,
        edges: &'a Reach<'a>,
    ) -> Self {
        let planned = ran.last.actions.iter().map(|action| &action.instance).collect();
        let is_apart = |node: &NodeId| ran.parked.contains(node) || ran.unheard.contains(node);
        let is_apart = |instance: &InstanceId| is_apart(&instance.node) || behind.own.contains(instance);
        let stays = |instance: &&InstanceId| is_apart(instance) && !done.contains(*instance);
        let apart = listed.keys().filter(stays).collect();
        let pending = ran.last.pending.iter().map(|pending| &pending.instance).collect();
        Self { ran, edges, planned, apart, pending, by_removal: by_removal(&ran.last) }
    }

    fn is_stuck(&self, node: &NodeId) -> bool {
        self.ran.away.contains(node) || self.ran.unheard.contains(node)
    }

    fn is_excused(&self, instance: &InstanceId) -> bool {
        if self.is_stuck(&instance.node) {
            return true;
        }
        if self.follows(instance) {
            return true;
        }
        self.planned.contains(instance) && (self.by_removal.contains(instance) || self.waits(instance))
    }

    /// Whether an instance comes after one on a node that is not there and not parked, or after one that waits for a value.
    fn waits(&self, instance: &InstanceId) -> bool {
        let (mut seen, mut open) = (BTreeSet::new(), vec![instance.clone()]);
        while let Some(at) = open.pop() {
            for source in self.edges.all.iter().filter_map(|edges| edges.sources.get(&at)).flatten() {
                let is_waited_for = source.node == at.node || !self.ran.parked.contains(&source.node);
                if is_waited_for && self.is_stuck(&source.node) || self.pending.contains(source) {
                    return true;
                }
                if seen.insert(source.clone()) {
                    open.push(source.clone());
                }
            }
        }
        false
    }

    /// Whether trigger edges lead to an instance from one that is still to be done on such a node.
    fn follows(&self, instance: &InstanceId) -> bool {
        let mut seen: BTreeSet<InstanceId> = self.apart.iter().map(|instance| (*instance).clone()).collect();
        let mut open: Vec<InstanceId> = seen.iter().cloned().collect();
        while let Some(at) = open.pop() {
            for target in self.edges.targets(&at) {
                if target == *instance {
                    return true;
                }
                if seen.insert(target.clone()) {
                    open.push(target);
                }
            }
        }
        false
    }
}

/// The removals of a plan, and what it has waiting for them.
fn by_removal(planned: &Plan) -> BTreeSet<InstanceId> {
    let mut found: BTreeSet<InstanceId> = BTreeSet::new();
    let tasks: BTreeMap<InstanceId, _> = planned
        .nodes
        .iter()
        .flat_map(|(node, part)| part.tasks.iter().map(move |task| (task.task.at(node), task)))
        .collect();
    for action in &planned.actions {
        let (node, task) = (&action.instance.node, tasks[&action.instance]);
        let behind = |gate| match planned.gates.get(gate) {
            Some(Gate::Done { waits_for, .. }) => waits_for.iter().any(|instance| found.contains(instance)),
            _ => false,
        };
        let waits = task.after.iter().any(|task| found.contains(&task.at(node))) || task.gates.iter().any(behind);
        if action.action == Action::Remove || waits {
            found.insert(action.instance.clone());
        }
    }
    found
}
