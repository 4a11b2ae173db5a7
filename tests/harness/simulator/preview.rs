//! Previews against runs: a run does nothing that its preview did not list, and leaves out only what that marked as known after apply.
//!
//! In: a seed. Out: what did not hold. Real is all that reads, resolves, plans and previews; the run is an ideal one, without machines and
//! faults: one action after the other in the order of the plan, a new plan as soon as an export has another value, restarts that are due
//! carried over, and facts that come late. What a plan lists because of a trigger counts as done.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use groundplan_core::{
    AppliedState, DesiredState, Knowledge, Plan, Policy,
    applied::Due,
    knowledge::Misfit,
    plan::{ActionReport, Disruption, Gate, PlanReport, PlannedAction, plan},
};
use groundplan_protocol::{
    effect::{Action, Effect},
    ids::{InstanceId, NodeId, TaskId},
    kinds::TaskParams,
    plan::TriggerSource,
};

use super::{branch::Branch, process::facts, rng::Rng, site::Sketch};

/// How many plans a run may take; one for each export that gets another value, and some more.
const PLANS: usize = 200;

/// What is wrong on purpose, to see that it is noticed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Omission {
    /// The preview leaves out what is known after apply.
    Outcomes,
    /// It marks nothing as known after apply.
    Marks,
    /// It does not list what actions do to what runs.
    Effects,
}

impl Omission {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Outcomes, Self::Marks, Self::Effects];
}

/// What one seed had to show.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Previewed {
    /// Actions that were carried out and had been listed.
    pub done: usize,
    /// Of these, such that the preview knew of only because they are known after apply.
    pub outcomes: usize,
}

/// Compares a preview with a run: of one random commit after another, from where the nodes are.
///
/// # Errors
/// What did not hold, with the commit and the preview.
pub fn preview(seed: u64, omission: Option<Omission>) -> Result<Previewed, String> {
    let mut rng = Rng::new(seed);
    let mut branch = Branch::new(Sketch::any(&mut rng));
    let mut nodes = Nodes { knowledge: Knowledge { misfit: Misfit::Wait, ..Knowledge::default() }, values: 0 };
    let (mut before, mut shown) = (None, Previewed::default());
    for commit in 0..4 {
        if commit > 0 {
            let sketch = branch.sketch().changed(&mut rng);
            branch.push(sketch);
        }
        nodes.report(&branch, &mut rng);
        let checked = Knowledge { misfit: Misfit::Refuse, ..nodes.knowledge.clone() };
        // A refused commit has no preview.
        let Ok(target) = branch.desired(branch.tip, &checked) else { continue };
        let base: Option<Arc<DesiredState>> = match before {
            Some(number) => branch.desired(number, &checked).ok(),
            None => None,
        };
        if before.is_some() && base.is_none() {
            continue;
        }
        before = Some(branch.tip);
        let mut applied = base.as_ref().map(|base| AppliedState::of(base)).unwrap_or_default();
        target.nodes.iter().for_each(|node| _ = applied.nodes.entry(node.clone()).or_default());
        let planned = plan(&target, &applied, &Policy::default());
        let mut report = PlanReport::new(&planned, &target, base.as_deref(), None, None, &mut |_| None);
        omission.into_iter().for_each(|omission| omit(&mut report, omission));
        let ran = nodes.run(&mut branch, applied, &mut rng)?;
        let compared = compare(&report, &ran);
        compared
            .map(|more| (shown.done, shown.outcomes) = (shown.done + more.done, shown.outcomes + more.outcomes))
            .map_err(|fault| {
                let row = |a: &ActionReport| {
                    let id = id(a);
                    format!(
                        "  {} {id} {:?} after apply: {:?} waits: {:?}",
                        a.action, a.effects, a.known_after_apply, a.waits_for
                    )
                };
                let rows: Vec<_> = report.actions.iter().map(row).collect();
                let ran: Vec<_> = ran.iter().map(|done| format!("  {} {}", done.action, done.instance)).collect();
                let text = branch.sketch().text();
                format!(
                    "seed {seed}, commit {commit}: {fault}\npreview:\n{}\nrun:\n{}\n{text}",
                    rows.join("\n"),
                    ran.join("\n")
                )
            })?;
    }
    Ok(shown)
}

/// Leaves something out of a preview.
fn omit(report: &mut PlanReport, omission: Omission) {
    match omission {
        Omission::Outcomes => report.actions.retain(|action| !action.is_outcome()),
        Omission::Marks => {
            for action in report.actions.iter_mut().filter(|action| action.is_outcome()) {
                action.known_after_apply.clear();
            }
        }
        Omission::Effects => report.actions.iter_mut().for_each(|action| action.effects.clear()),
    }
}

fn id(action: &ActionReport) -> InstanceId {
    TaskId::new(action.service.clone(), action.task.clone()).at(&action.node)
}

/// Something that a run did.
struct Done {
    instance: InstanceId,
    action: Action,
    /// Whether a process was restarted by it.
    restarted: bool,
}

fn compare(report: &PlanReport, ran: &[Done]) -> Result<Previewed, String> {
    let listed: BTreeMap<InstanceId, &ActionReport> = report.actions.iter().map(|a| (id(a), a)).collect();
    let mut shown = Previewed { done: ran.len(), outcomes: 0 };
    for done in ran {
        let Some(listed) = listed.get(&done.instance) else {
            return Err(format!("the run did {} {}, which its preview did not list", done.action, done.instance));
        };
        shown.outcomes += usize::from(listed.is_outcome());
        // What is created starts, and may then be started again for a value that comes later.
        if done.restarted && listed.action != Action::Create && !listed.effects.contains(&Disruption::Restarts) {
            return Err(format!("the run restarted {}, which its preview did not list", done.instance));
        }
    }
    let ran: BTreeSet<&InstanceId> = ran.iter().map(|done| &done.instance).collect();
    for (instance, listed) in listed {
        if listed.known_after_apply.is_empty() && !ran.contains(&instance) {
            return Err(format!("the run left out {} {instance}, which depends on no outcome", listed.action));
        }
    }
    Ok(shown)
}

/// The nodes, and what they have reported.
struct Nodes {
    knowledge: Knowledge,
    /// How many values have been published, for new ones.
    values: u64,
}

impl Nodes {
    /// Nodes report their facts; some do so later.
    fn report(&mut self, branch: &Branch, rng: &mut Rng) {
        for node in &branch.sketch().nodes {
            if rng.chance(85) {
                self.add_facts(&node.name, rng);
            }
        }
    }

    fn add_facts(&mut self, node: &str, rng: &mut Rng) {
        let rack = rng.between(1, 3);
        let node = NodeId::new(node).expect("a name");
        self.knowledge.facts.entry(node).or_insert_with(|| Arc::new(facts(rack)));
    }

    /// Carries out the tip, from what is applied; what was done, in order.
    fn run(&mut self, branch: &mut Branch, mut applied: AppliedState, rng: &mut Rng) -> Result<Vec<Done>, String> {
        let (mut done, mut late) = (Vec::new(), true);
        for _ in 0..PLANS {
            let desired = branch.desired(branch.tip, &self.knowledge);
            let desired = desired.map_err(|faults| format!("the active commit has faults: {faults:#?}"))?;
            let planned = plan(&desired, &applied, &Policy::default());
            if planned.due().next().is_none() {
                if !std::mem::take(&mut late) {
                    return Ok(done);
                }
                // All that is left waits: the facts come.
                let names: Vec<_> = branch.sketch().nodes.iter().map(|node| node.name.clone()).collect();
                names.iter().for_each(|node| self.add_facts(node, rng));
                continue;
            }
            self.carry_out(&planned, &mut applied, rng, &mut done);
        }
        Err(format!("there is no end after {PLANS} plans"))
    }

    /// Carries out a plan up to the first export with another value.
    fn carry_out(&mut self, planned: &Plan, applied: &mut AppliedState, rng: &mut Rng, done: &mut Vec<Done>) {
        let mut part = Plan { gates: planned.gates.clone(), ..Plan::default() };
        for action in planned.due() {
            let (task, node) = (&action.instance.task, &action.instance.node);
            let of = planned.nodes[node].tasks.iter().find(|t| t.task == *task).expect("an action has its task");
            let params = of.resolved.as_ref().map(|resolved| &resolved.spec.params);
            let is_process = matches!(params, Some(TaskParams::Process(_)));
            let restarted = is_process && matches!(action.action, Action::Update | Action::Restart);
            done.push(Done { instance: action.instance.clone(), action: action.action, restarted });
            part.nodes.entry(node.clone()).or_default().tasks.push(of.clone());
            part.actions.push(action.clone());
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
        let ended = part.actions.len() == planned.actions.len();
        applied.apply(&part);
        if ended {
            for (node, whole) in &planned.nodes {
                part.nodes.entry(node.clone()).or_default().edges.clone_from(&whole.edges);
            }
            applied.apply(&Plan { actions: Vec::new(), ..part });
            return;
        }
        // All of it, changed or not: a trigger that does not fire leaves out what the preview lists by it.
        let changed: BTreeSet<&InstanceId> = part.actions.iter().map(|action| &action.instance).collect();
        let left =
            planned.actions.iter().filter(|action| !part.actions.iter().any(|done| done.instance == action.instance));
        for action in left {
            if let Some(effect) = fired(planned, action, &changed) {
                let due = applied.fired.entry(action.instance.clone()).or_insert(Due { effect, since: None });
                due.effect = due.effect.max(effect);
            }
        }
    }
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
