//! A plan as people and programs read it: actions with reasons, as JSON with a schema. No node plans, no gates.

use std::collections::{BTreeMap, BTreeSet};

use groundplan_inventory::Location;
use groundplan_protocol::{
    VERSION,
    effect::{Action, Effect},
    ids::{CommitId, InstanceId, NodeId, ServiceId, TaskId, TaskName},
    plan::{Edges, OnRemove, Source},
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    disruption::{self, Before, Disrupted, Disruption},
    model::{Plan, PlannedAction},
    outcome::{self, Outcome},
    reasons::{Position, ReasonReport},
};
use crate::{applied::AppliedState, desired::DesiredState, knowledge::Unknown, locate::LineColumn};

/// What a plan does and why. Printed by `groundplan plan --format json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PlanReport {
    /// The version of this format.
    pub version: u32,
    /// The commit that is taken as applied; absent where the base is what each node acknowledged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base: Option<CommitId>,
    /// The commit that it leads to; absent for a folder that is no commit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<CommitId>,
    /// What is done, and what may be done once more values are known, in a valid execution order.
    pub actions: Vec<ActionReport>,
    /// What cannot be planned yet, because no node has reported a value that it needs, and the changes that come after it. What is applied of
    /// it stays as it is.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub waiting: Vec<WaitReport>,
    /// Removals that the site forbids by `prevent_destroy`, as `service.task@node`: a planner refuses the commit.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub prevented: Vec<InstanceId>,
    /// Nodes that leave the inventory with tasks applied: these stay as they are, and what they started runs on.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub orphaned: Vec<OrphanReport>,
    /// Parked nodes on which something is to be done: nothing on other nodes waits for them.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub parked: BTreeSet<NodeId>,
    /// Where `prevent_destroy` stands in the base, for each of `prevented` of which that is known.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub prevented_by: Vec<PreventionReport>,
    /// What nodes record and do nothing else for; absent if there is nothing.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub recorded: Vec<RecordReport>,
    /// How many commits of the base the target lacks, if it is no fast-forward: the plan takes them back. Filled in by previews.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rewinds: Option<usize>,
    /// Nodes for which the inventory names another key: these keys are held until an operator confirms them. Filled in by previews.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub keys: Vec<KeyReport>,
}

/// A node for which the inventory names another key than before.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct KeyReport {
    /// The node.
    pub node: NodeId,
    /// The key in the base.
    pub before: String,
    /// The key in the target.
    pub after: String,
}

/// A node that leaves the inventory with tasks applied.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct OrphanReport {
    /// The node.
    pub node: NodeId,
    /// How many tasks are left on it as they are.
    pub tasks: usize,
    /// The node under which its host, by key or address, is declared now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub renamed_to: Option<NodeId>,
}

/// An instance that is not to be removed, and what forbids it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PreventionReport {
    /// The instance, as `service.task@node`.
    pub instance: InstanceId,
    /// Where its `prevent_destroy` stands in the base.
    #[serde(flatten)]
    pub at: Position,
}

/// An applied instance of which only what orders it or decides about its removal is declared in another way: its node records that.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RecordReport {
    /// The node of the instance.
    pub node: NodeId,
    /// The service of its task.
    pub service: ServiceId,
    /// The task's name in the service.
    pub task: TaskName,
    /// The keys of which a node records another value, such as `on_remove`.
    pub keys: Vec<String>,
}

/// An instance that waits for a value that no node has reported.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct WaitReport {
    /// The node of the instance.
    pub node: NodeId,
    /// The service of its task.
    pub service: ServiceId,
    /// The task's name in the service.
    pub task: TaskName,
    /// What will be done to it; absent where that depends on the missing value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub action: Option<Action>,
    /// What it will do to what runs on the node, as far as it is known now.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub effects: Vec<Disruption>,
    /// What it waits for, such as `facts of node n1` or `export db.address of db-0`.
    pub waits_for: Vec<String>,
}

/// An action on one task of one node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ActionReport {
    /// The node of the instance.
    pub node: NodeId,
    /// The service of its task.
    pub service: ServiceId,
    /// The task's name in the service.
    pub task: TaskName,
    /// What is done to it.
    pub action: Action,
    /// What a removal does with what the task changed on the node; absent for another action, and for a task that leaves nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_remove: Option<OnRemove>,
    /// What a removal brings back on the node, such as `path /etc/motd (file)`, as far as a planner has a report of it: absent without one, and
    /// where nothing was there, or a kind notes in another way what it found.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub restores: Vec<String>,
    /// What it does to what runs on the node, beside the change itself.
    #[serde(default)]
    pub effects: Vec<Disruption>,
    /// What is lost for good by it, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub destroys: Option<String>,
    /// The values that it waits for, because it comes after what needs them, such as `export db.address of db-0`. What is done is known.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub waits_for: Vec<String>,
    /// The values that decide whether it is done, or with what; such as `export db.address of db-0`. They are missing, or the plan may
    /// change them. Also `changes on parked node db-1`, where it follows once that node has carried out its part.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub known_after_apply: Vec<String>,
    /// Why: each is the cause of the one before it, and the last is a named input of a named file. Empty, or without that input, where it is
    /// known after apply.
    pub reasons: Vec<ReasonReport>,
}

impl PlanReport {
    /// The report of a plan. `locate` returns the line and column of a location, where the file's text is at hand:
    /// [`Locator::find`](crate::locate::Locator::find). The plan leads from `state` to `desired`; `applied` is what was desired before, where
    /// that is known: what an update does to what runs depends on it.
    pub fn new(
        plan: &Plan,
        desired: &DesiredState,
        state: &AppliedState,
        applied: Option<&DesiredState>,
        base: Option<CommitId>,
        target: Option<CommitId>,
        locate: &mut dyn FnMut(&Location) -> Option<LineColumn>,
    ) -> Self {
        let mut disrupted = disrupted(plan, applied);
        let mut effects_of = |instance: &InstanceId| disrupted.remove(instance).unwrap_or_default();
        let planned = plan.actions.iter().map(|action| {
            let disrupted = effects_of(&action.instance);
            ActionReport {
                action: action.action,
                on_remove: action.on_remove,
                effects: disrupted.all.into_iter().collect(),
                destroys: disrupted.destroys,
                waits_for: action.waits_for.iter().map(Unknown::to_string).collect(),
                reasons: ReasonReport::chain(&action.instance, &action.reasons, locate),
                ..ActionReport::of(&action.instance)
            }
        });
        let actions = with_outcomes(planned.collect(), outcome::of(plan, desired, state, applied), desired);

        let effects: BTreeMap<_, _> = actions.iter().map(|action| (action.instance(), &action.effects)).collect();
        let wait = |instance: &InstanceId, action, waits: &[Unknown]| WaitReport {
            node: instance.node.clone(),
            service: instance.task.service.clone(),
            task: instance.task.task.clone(),
            action,
            effects: effects.get(instance).map(|effects| (*effects).clone()).unwrap_or_default(),
            waits_for: waits.iter().map(Unknown::to_string).collect(),
        };
        let pending: BTreeSet<_> = plan.pending.iter().map(|pending| &pending.instance).collect();
        let held = plan.actions.iter().filter(|action| !action.waits_for.is_empty());
        let held = held.filter(|action| !pending.contains(&action.instance));
        let held = held.map(|action| wait(&action.instance, Some(action.action), &action.waits_for));
        let waiting = plan.pending.iter().map(|pending| wait(&pending.instance, None, &pending.waits_for)).chain(held);
        let waiting = waiting.collect();
        let recorded = applied.map(|applied| recorded(plan, applied)).unwrap_or_default();
        let orphaned = applied.map_or_else(Vec::new, |applied| orphans(applied, desired));
        Self {
            version: VERSION,
            base,
            target,
            actions,
            waiting,
            prevented: plan.prevented.clone(),
            prevented_by: Vec::new(),
            recorded,
            keys: Vec::new(),
            rewinds: None,
            orphaned,
            parked: plan.parked.iter().filter(|node| plan.nodes.contains_key(*node)).cloned().collect(),
        }
    }

    /// Adds where `base` forbids what is prevented. `locate` finds locations in the files of the base.
    pub fn locate_prevented(&mut self, base: &DesiredState, locate: &mut dyn FnMut(&Location) -> Option<LineColumn>) {
        let by = self.prevented.iter().filter_map(|instance| {
            let at = base.graph.task(&instance.task)?.prevent_destroy.as_ref()?;
            Some(PreventionReport { instance: instance.clone(), at: Position::new(at, locate) })
        });
        self.prevented_by = by.collect();
    }

    /// Whether something is done that neither waits for a value nor depends on one.
    pub fn is_due(&self) -> bool {
        self.actions.iter().any(|action| action.waits_for.is_empty() && !action.is_outcome())
    }
}

/// The nodes that leave the inventory with tasks applied.
fn orphans(applied: &DesiredState, desired: &DesiredState) -> Vec<OrphanReport> {
    let mut tasks: BTreeMap<&NodeId, usize> = BTreeMap::new();
    let left: Vec<bool> = applied.nodes.iter().map(|node| desired.node(node).is_none()).collect();
    if left.contains(&true) {
        let instances = applied.graph.tasks.iter().flat_map(|task| &task.instances);
        for at in instances.map(|instance| instance.node.0 as usize).filter(|at| left[*at]) {
            *tasks.entry(&applied.nodes[at]).or_default() += 1;
        }
    }
    tasks.into_iter().map(|(node, tasks)| OrphanReport { node: node.clone(), tasks, renamed_to: None }).collect()
}

/// What nodes only record: each task's keys once, because all its instances have the same.
fn recorded(plan: &Plan, applied: &DesiredState) -> Vec<RecordReport> {
    let mut keys: BTreeMap<&TaskId, Vec<String>> = BTreeMap::new();
    let mut recorded = Vec::new();
    for (node, part) in &plan.nodes {
        for (task, edges) in &part.edges {
            let keys = keys.entry(task).or_insert_with(|| {
                let before = applied.graph.task(task).map(|before| applied.declared_edges(before));
                before.map(|before| changed_keys(&before, edges)).unwrap_or_default()
            });
            if !keys.is_empty() {
                let (service, keys) = (task.service.clone(), keys.clone());
                recorded.push(RecordReport { node: node.clone(), service, task: task.task.clone(), keys });
            }
        }
    }
    recorded
}

/// The keys of a task by which two declarations of it differ.
fn changed_keys(before: &Edges, after: &Edges) -> Vec<String> {
    // A trigger orders as well, and is recorded as both.
    let order = |edges: &Edges| {
        let orders = |source: &&Source| !edges.triggers.iter().any(|trigger| trigger.on == **source);
        edges.requires.iter().filter(orders).cloned().collect::<Vec<_>>()
    };
    let triggers = |edges: &Edges, effect: Effect| {
        edges.triggers.iter().filter(|trigger| trigger.effect == effect).cloned().collect::<Vec<_>>()
    };
    let differs = |effect| triggers(before, effect) != triggers(after, effect);
    let keys = [
        ("requires", order(before) != order(after)),
        ("restart_on", differs(Effect::Restart)),
        ("reload_on", differs(Effect::Reload)),
        ("run_on", differs(Effect::Run)),
        ("conflicts", before.conflicts != after.conflicts),
        ("prevent_destroy", before.prevent_destroy != after.prevent_destroy),
        ("on_remove", before.on_remove != after.on_remove),
    ];
    keys.into_iter().filter(|(_, differs)| *differs).map(|(key, _)| key.to_owned()).collect()
}

impl ActionReport {
    fn of(instance: &InstanceId) -> Self {
        Self {
            node: instance.node.clone(),
            service: instance.task.service.clone(),
            task: instance.task.task.clone(),
            action: Action::Update,
            on_remove: None,
            restores: Vec::new(),
            effects: Vec::new(),
            destroys: None,
            waits_for: Vec::new(),
            known_after_apply: Vec::new(),
            reasons: Vec::new(),
        }
    }

    /// The instance that it is done to.
    pub fn instance(&self) -> InstanceId {
        TaskId::new(self.service.clone(), self.task.clone()).at(&self.node)
    }

    /// Whether only values that are known after apply decide if it is done. Where it is done anyway, and these decide with what, it has a
    /// reason that ends at an input.
    pub fn is_outcome(&self) -> bool {
        let decided = |reason: &ReasonReport| !matches!(reason, ReasonReport::Triggered { .. });
        !self.known_after_apply.is_empty() && !self.reasons.iter().any(decided)
    }
}

/// The actions of a plan with what is known after apply: each in its place of the order, and one row for each instance.
fn with_outcomes(planned: Vec<ActionReport>, outcomes: Vec<Outcome>, desired: &DesiredState) -> Vec<ActionReport> {
    if outcomes.is_empty() {
        return planned;
    }
    let at: BTreeMap<InstanceId, usize> = planned.iter().enumerate().map(|(i, a)| (a.instance(), i)).collect();
    let number = |id: &TaskId| desired.graph.by_id.get(id).map(|ix| ix.0);
    let mut planned: Vec<_> = planned.into_iter().map(Some).collect();
    let (mut more, mut merged) = (Vec::new(), Vec::new());
    for outcome in outcomes {
        let values = outcome.depends_on.iter().map(ToString::to_string).collect();
        match at.get(&outcome.instance).and_then(|i| planned[*i].as_mut()) {
            // It is not applied, and waits for a value: whatever trigger leads to it, it is only created.
            Some(action) if outcome.is_creation && action.action != Action::Create => {
                *action = ActionReport {
                    action: outcome.action,
                    effects: outcome.effects.into_iter().collect(),
                    known_after_apply: values,
                    ..ActionReport::of(&outcome.instance)
                };
            }
            Some(action) => {
                let effects: BTreeSet<_> = action.effects.iter().copied().chain(outcome.effects).collect();
                // A trigger that does nothing beyond what is done anyway changes nothing.
                if outcome.by.is_none() || effects.len() > action.effects.len() {
                    action.known_after_apply = values;
                }
                action.effects = effects.into_iter().collect();
            }
            None => {
                let by = outcome.by.map(|(by, effect)| ReasonReport::Triggered { by, effect });
                more.push(ActionReport {
                    action: outcome.action,
                    effects: outcome.effects.into_iter().collect(),
                    known_after_apply: values,
                    reasons: by.into_iter().collect(),
                    ..ActionReport::of(&outcome.instance)
                });
            }
        }
    }
    // Both are in the order of the tasks' numbers; a removal has none, and stays before what follows it.
    let mut more = more.into_iter().peekable();
    for action in planned.into_iter().flatten() {
        if let Some(next) = number(&action.instance().task).filter(|_| action.action != Action::Remove) {
            while let Some(before) = more.next_if(|more| number(&more.instance().task) < Some(next)) {
                merged.push(before);
            }
        }
        merged.push(action);
    }
    merged.extend(more);
    merged
}

/// What each action of the plan does to what runs.
fn disrupted<'p>(plan: &'p Plan, applied: Option<&DesiredState>) -> BTreeMap<&'p InstanceId, Disrupted> {
    let mut next: BTreeMap<&NodeId, usize> = BTreeMap::new();
    let of = |action: &'p PlannedAction| {
        let node = &action.instance.node;
        // The actions of one node are in the order of its tasks.
        let at = next.entry(node).or_default();
        let part = plan.nodes.get(node)?;
        let task = part.tasks.get(*at)?;
        *at += 1;
        let before = |id: &TaskId| {
            let vertex = applied?.graph.task(id)?;
            let spec = &vertex.on(applied?.node(node)?)?.resolved.spec;
            Some(Before { spec, on_remove: vertex.on_remove })
        };
        Some((&action.instance, disruption::of(action, task, part, &before)))
    };
    plan.actions.iter().filter_map(of).collect()
}
