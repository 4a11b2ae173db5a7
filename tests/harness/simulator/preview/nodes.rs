//! The ideal run: nodes, what they have applied and reported, and what carries out a commit on them.
//!
//! In: a commit, what nodes have. Out: what was done, in order. One action after the other in the order of the plan, a new plan as soon as
//! an export has another value, restarts that are due carried over. Meanwhile nodes report for the first time, facts come late, nodes go
//! away and come back, and operators park them and take that back.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use groundplan_core::{
    AppliedState, DesiredState, Knowledge, NodeApplied, Plan, Policy,
    applied::Due,
    desired::Scope,
    knowledge::Misfit,
    plan::{Gate, PlannedAction, plan},
};
use groundplan_protocol::{
    effect::{Action, Effect},
    ids::{InstanceId, NodeId, TaskId},
    kinds::TaskParams,
    plan::TriggerSource,
};

use super::{
    super::{branch::Branch, process::facts, record::Edges, rng::Rng},
    omission::Omission,
};

/// How many plans a run may take; one for each export that gets another value, and some more.
const PLANS: usize = 300;

/// Something that a run did.
pub(super) struct Done {
    pub(super) instance: InstanceId,
    pub(super) action: Action,
    /// Whether a process was restarted by it.
    pub(super) restarted: bool,
    /// Whether the node was parked then.
    pub(super) on_parked: bool,
}

/// What a run did.
pub(super) struct Ran {
    pub(super) done: Vec<Done>,
    /// What the commit resolved to at last, and the plan that nothing more could be done of.
    pub(super) desired: Arc<DesiredState>,
    pub(super) last: Plan,
    /// Nodes that are away at the end, that have never reported, and that are parked.
    pub(super) away: BTreeSet<NodeId>,
    pub(super) unheard: BTreeSet<NodeId>,
    pub(super) parked: BTreeSet<NodeId>,
    /// Nodes that reported for the first time meanwhile.
    pub(super) new: BTreeSet<NodeId>,
    pub(super) trace: Vec<String>,
}

/// Something that happens while a commit is carried out.
#[derive(Debug, Clone)]
enum Late {
    Reports(NodeId),
    Facts(NodeId),
    Leaves(NodeId),
    Returns(NodeId),
    Park(NodeId),
    Unpark(NodeId),
}

/// The nodes, and what they have reported.
pub(super) struct Nodes {
    pub(super) knowledge: Knowledge,
    /// What is applied on each node that has ever reported, and what is due.
    pub(super) applied: AppliedState,
    pub(super) away: BTreeSet<NodeId>,
    /// The nodes that operators have parked.
    pub(super) parked: BTreeSet<NodeId>,
    omission: Option<Omission>,
    /// Nodes that the run is made to leave out.
    forgotten: BTreeSet<NodeId>,
    /// How many values have been published, for new ones.
    values: u64,
}

impl Nodes {
    pub(super) fn new(omission: Option<Omission>) -> Self {
        let knowledge = Knowledge { misfit: Misfit::Wait, ..Knowledge::default() };
        let (away, parked, forgotten) = Default::default();
        Self { knowledge, applied: AppliedState::default(), away, parked, omission, forgotten, values: 0 }
    }

    fn has_reported(&self, node: &NodeId) -> bool {
        self.applied.nodes.contains_key(node)
    }

    /// Nodes report, go away and come back before the commit is previewed; operators park some, and take that back.
    pub(super) fn before_preview(&mut self, declared: &BTreeSet<NodeId>, rng: &mut Rng) {
        // A request ends when its node has left the inventory.
        self.parked.retain(|node| declared.contains(node));
        for node in declared {
            if !self.has_reported(node) && rng.chance(70) {
                self.first_report(node);
            }
            if self.has_reported(node) && rng.chance(85) {
                self.add_facts(node, rng);
            }
            if rng.chance(if self.away.contains(node) { 50 } else { 10 }) {
                self.toggle_away(node);
            }
            match self.parked.contains(node) {
                true if rng.chance(40) => _ = self.parked.remove(node),
                false if rng.chance(12) => _ = self.parked.insert(node.clone()),
                _ => {}
            }
        }
    }

    fn first_report(&mut self, node: &NodeId) {
        self.applied.nodes.entry(node.clone()).or_default();
    }

    fn toggle_away(&mut self, node: &NodeId) {
        if !self.away.remove(node) && self.has_reported(node) {
            self.away.insert(node.clone());
        }
    }

    fn add_facts(&mut self, node: &NodeId, rng: &mut Rng) {
        let rack = rng.between(1, 3);
        self.knowledge.facts.entry(node.clone()).or_insert_with(|| Arc::new(facts(rack)));
    }

    /// What happens during a run, in its order. `all`: at its end every node is there, has reported everything, and is not parked by request.
    fn late(&self, declared: &[NodeId], all: bool, rng: &mut Rng) -> Vec<Late> {
        let mut late = Vec::new();
        for node in declared {
            let (heard, away) = (self.has_reported(node), self.away.contains(node));
            let comes = all || rng.chance(55);
            if !heard && comes {
                late.push(Late::Reports(node.clone()));
            }
            if (heard || comes) && !self.knowledge.facts.contains_key(node) && (!away || comes) {
                late.push(Late::Facts(node.clone()));
            }
            if away && comes {
                late.push(Late::Returns(node.clone()));
            } else if heard && !away && !all && rng.chance(6) {
                late.push(Late::Leaves(node.clone()));
            }
            match self.parked.contains(node) {
                true if all || rng.chance(35) => late.push(Late::Unpark(node.clone())),
                false if !all && rng.chance(10) => late.push(Late::Park(node.clone())),
                _ => {}
            }
        }
        for i in (1..late.len()).rev() {
            late.swap(i, rng.below(i + 1));
        }
        late
    }

    fn happen(&mut self, late: &Late, rng: &mut Rng) {
        match (self.omission, late) {
            (Some(Omission::ForgetAway), Late::Returns(node)) | (Some(Omission::ForgetNew), Late::Reports(node)) => {
                self.forgotten.insert(node.clone());
            }
            _ => {}
        }
        match late {
            Late::Reports(node) => self.first_report(node),
            Late::Facts(node) => {
                self.first_report(node);
                self.add_facts(node, rng);
            }
            Late::Leaves(node) => _ = self.away.insert(node.clone()),
            Late::Returns(node) => _ = self.away.remove(node),
            Late::Park(node) => _ = self.parked.insert(node.clone()),
            Late::Unpark(node) => _ = self.parked.remove(node),
        }
    }

    /// Carries out the tip, from what is applied. `all`: at the end every node is there, and everything is to be as desired.
    pub(super) fn run(&mut self, branch: &mut Branch, all: bool, rng: &mut Rng) -> Result<Ran, String> {
        let (mut done, mut trace) = (Vec::new(), Vec::new());
        let mut new = BTreeSet::new();
        let mut late: Option<Vec<Late>> = None;
        for _ in 0..PLANS {
            let desired = branch.desired(branch.tip, &self.knowledge);
            let desired = desired.map_err(|faults| format!("the active commit has faults: {faults:#?}"))?;
            // What is due to a node that the commit does not declare no planner carries over.
            self.applied.fired.retain(|instance, _| desired.node(&instance.node).is_some());
            self.parked.retain(|node| desired.node(node).is_some());
            let parked = |nodes: &Self| -> BTreeSet<NodeId> {
                let all = desired.nodes.iter();
                all.filter(|node| nodes.parked.contains(*node) || desired.is_parked(node)).cloned().collect()
            };
            let policy = Policy { parked: self.parked.clone(), ..Policy::default() };
            let planned = plan(&desired, &self.applied, &policy);
            let late = late.get_or_insert_with(|| self.late(&desired.nodes, all, rng));
            let able = self.able(&planned, &parked(self));
            self.accept(&planned);
            if able.is_empty() || rng.chance(10) {
                if let Some(event) = late.pop() {
                    if let Late::Reports(node) | Late::Facts(node) = &event
                        && !self.has_reported(node)
                    {
                        new.insert(node.clone());
                    }
                    self.happen(&event, rng);
                    trace.push(format!("--- {event:?}"));
                    continue;
                }
                if able.is_empty() {
                    let unheard = desired.nodes.iter().filter(|node| !self.has_reported(node)).cloned().collect();
                    let (away, parked) = (self.away.clone(), parked(self));
                    if all {
                        self.check_end(&desired, &planned)?;
                    }
                    return Ok(Ran { done, desired, last: planned, away, unheard, parked, new, trace });
                }
            }
            let before = done.len();
            self.carry_out(&planned, &able, &desired, rng, &mut done);
            let parked = parked(self);
            done[before..].iter_mut().for_each(|done| done.on_parked = parked.contains(&done.instance.node));
            trace.extend(done[before..].iter().map(|done| line(done.action, &done.instance)));
            trace.push("--- a plan".to_owned());
        }
        Err(format!("there is no end after {PLANS} plans:\n{}", trace.join("\n")))
    }

    /// What of a plan can be carried out: what is on nodes that are there, and waits for nothing else.
    fn able(&self, planned: &Plan, parked: &BTreeSet<NodeId>) -> BTreeSet<InstanceId> {
        let mut next: BTreeMap<&NodeId, usize> = BTreeMap::new();
        let mut able: BTreeSet<InstanceId> = BTreeSet::new();
        let mut unable: BTreeSet<&InstanceId> = BTreeSet::new();
        for action in &planned.actions {
            let node = &action.instance.node;
            // The actions of one node are in the order of its tasks, and all in an order of execution.
            let at = next.entry(node).or_default();
            let task = &planned.nodes[node].tasks[*at];
            *at += 1;
            let is_open = |gate| match &planned.gates[gate] {
                Gate::Done { waits_for, .. } => !waits_for.iter().any(|instance| unable.contains(instance)),
                Gate::Unknown => false,
                Gate::Turn { .. } => true,
            };
            let is_left_out = self.omission == Some(Omission::IgnoreParked) && parked.contains(node);
            let ignored = is_left_out || self.forgotten.contains(node);
            let waits = task.after.iter().any(|task| unable.contains(&task.at(node)));
            match ignored || waits || self.away.contains(node) || !task.gates.iter().all(is_open) {
                true => _ = unable.insert(&action.instance),
                false => _ = able.insert(action.instance.clone()),
            }
        }
        able
    }

    /// Agents record edges of what a plan leaves as it is when they accept it.
    fn accept(&mut self, planned: &Plan) {
        let mut part = Plan::default();
        for (node, whole) in planned.nodes.iter().filter(|(node, _)| !self.away.contains(*node)) {
            part.nodes.entry(node.clone()).or_default().edges.clone_from(&whole.edges);
        }
        self.applied.apply(&part);
    }

    /// Carries out what it can of a plan, up to the first export with another value.
    fn carry_out(
        &mut self,
        planned: &Plan,
        able: &BTreeSet<InstanceId>,
        desired: &DesiredState,
        rng: &mut Rng,
        done: &mut Vec<Done>,
    ) {
        let mut part = Plan { gates: planned.gates.clone(), ..Plan::default() };
        for action in planned.actions.iter().filter(|action| able.contains(&action.instance)) {
            let (task, node) = (&action.instance.task, &action.instance.node);
            let of = planned.nodes[node].tasks.iter().find(|t| t.task == *task).expect("an action has its task");
            let params = of.resolved.as_ref().map(|resolved| &resolved.spec.params);
            let is_process = matches!(params, Some(TaskParams::Process(_)));
            let restarted = is_process && matches!(action.action, Action::Update | Action::Restart);
            let instance = action.instance.clone();
            done.push(Done { instance, action: action.action, restarted, on_parked: false });
            part.nodes.entry(node.clone()).or_default().tasks.push(of.clone());
            part.actions.push(action.clone());
            if action.action == Action::Remove
                && let Some(known) = self.knowledge.exports.get_mut(task)
                && known.remove(node).is_some()
            {
                break;
            }
            let Some(TaskParams::Export(export)) = params else { continue };
            let known = self.knowledge.exports.entry(task.clone()).or_default();
            let value = match (&export.value, known.get(node)) {
                (Some(value), _) => value.clone(),
                (None, Some(same)) if rng.chance(30) => same.clone(),
                (None, _) => {
                    self.values += 1;
                    format!("x{}", self.values)
                }
            };
            if known.insert(node.clone(), value.clone()).as_ref() != Some(&value) {
                break;
            }
        }
        self.applied.apply(&part);
        // All of it, changed or not: a trigger that does not fire leaves out what the preview lists by it.
        let changed: BTreeSet<&InstanceId> = part.actions.iter().map(|action| &action.instance).collect();
        for action in planned.actions.iter().filter(|action| !changed.contains(&action.instance)) {
            if let Some(effect) = fired(planned, action, &changed) {
                self.fire(action.instance.clone(), effect);
            }
        }
        if self.omission == Some(Omission::ForgetParked) {
            return;
        }
        let edges = Edges::of(desired);
        for source in changed.iter().filter(|instance| planned.detached.contains(**instance)) {
            let declared = edges.triggers.get(*source).cloned().unwrap_or_default();
            for (target, effect) in declared.into_iter().chain(of_removed(desired, source)) {
                let known = self.applied.nodes.get(&target.node);
                // What is not applied yet is created, and needs no restart.
                if target.node != source.node && known.is_some_and(|known| known.tasks.contains_key(&target.task)) {
                    self.fire(target, effect);
                }
            }
        }
    }

    fn fire(&mut self, instance: InstanceId, effect: Effect) {
        let due = self.applied.fired.entry(instance).or_insert(Due { effect, since: None });
        due.effect = due.effect.max(effect);
    }

    /// Every node is there and has reported: what is applied is what is desired, and nothing is left to be done.
    fn check_end(&self, desired: &DesiredState, planned: &Plan) -> Result<(), String> {
        if let Some(pending) = planned.pending.iter().find(|p| {
            // One that values do not fit waits for others.
            !p.waits_for.iter().any(|value| matches!(value, groundplan_core::knowledge::Unknown::Fit { .. }))
        }) {
            return Err(format!("{} waits for ever: {:?}", pending.instance, pending.waits_for));
        }
        if !planned.pending.is_empty() {
            return Ok(());
        }
        let wanted = AppliedState::of(desired);
        for node in &desired.nodes {
            let (found, wanted) = (self.applied.nodes.get(node), &wanted.nodes[node]);
            let found: &NodeApplied = found.ok_or_else(|| format!("{node} has not reported"))?;
            // Another input that leads to the same result is not recorded.
            let same = |id: &TaskId| match (found.tasks.get(id), wanted.tasks.get(id)) {
                (Some(found), Some(wanted)) => {
                    found.fingerprint == wanted.fingerprint
                        && found.edges == wanted.edges
                        && found.claims == wanted.claims
                }
                _ => false,
            };
            if let Some(task) = found.tasks.keys().chain(wanted.tasks.keys()).find(|id| !same(id)) {
                let (found, wanted) = (found.tasks.get(task), wanted.tasks.get(task));
                return Err(format!("{task} on {node} is not as desired at the end: {found:?}, not {wanted:?}"));
            }
        }
        // What was due to a task that is no more is no more either.
        match self.applied.fired.iter().find(|(instance, _)| desired.instance(instance).is_some()) {
            Some((instance, due)) => Err(format!("{instance} was never {}", due.effect)),
            None => Ok(()),
        }
    }
}

/// What the removal of an instance triggers by edges that are declared now, because its task stays on other nodes.
pub(super) fn of_removed(desired: &DesiredState, source: &InstanceId) -> Vec<(InstanceId, Effect)> {
    let (tasks, at) = (&desired.graph.tasks, desired.node(&source.node));
    let removed = desired.graph.task(&source.task).filter(|_| !desired.wants(source)).is_some();
    let mut found = Vec::new();
    for task in tasks.iter().filter(|_| removed) {
        for edge in task.edges.iter().filter(|edge| tasks[edge.from.0 as usize].id == source.task) {
            let reaches = match edge.scope {
                Scope::AllNodes => true,
                Scope::OneNode(only) => Some(only) == at,
                Scope::SameNode => false,
            };
            let nodes = task.instances.iter().map(|i| i.node).chain(task.pending.iter().map(|p| p.node));
            let targets = nodes.map(|node| task.id.at(&desired.nodes[node.0 as usize]));
            let effect = edge.trigger.filter(|_| reaches);
            found.extend(effect.into_iter().flat_map(|effect| targets.clone().map(move |target| (target, effect))));
        }
    }
    found
}

/// The greatest effect that what has changed has on what is left of a plan.
fn fired(planned: &Plan, action: &PlannedAction, changed: &BTreeSet<&InstanceId>) -> Option<Effect> {
    let node = &action.instance.node;
    let of = planned.nodes[node].tasks.iter().find(|task| task.task == action.instance.task)?;
    let fires = |on: &TriggerSource| match on {
        TriggerSource::Task(task) => changed.contains(&task.at(node)),
        TriggerSource::Gate(gate) => match planned.gates.get(gate) {
            Some(Gate::Done { waits_for, fires_on: Some(task) }) => {
                waits_for.iter().any(|instance| instance.task == *task && changed.contains(instance))
            }
            _ => false,
        },
    };
    let triggers = of.triggers.iter().filter(|trigger| fires(&trigger.on)).map(|trigger| trigger.effect);
    triggers.chain(of.obligation.map(|due| due.effect)).max()
}

/// What was done to which instance, for people.
fn line(action: Action, instance: &InstanceId) -> String {
    format!("{action} {instance}")
}
