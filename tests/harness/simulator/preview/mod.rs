//! Previews against runs: a run does nothing that its preview did not list, and leaves out only what that marked as known after apply, or what
//! waits for a node that is not there.
//!
//! In: a seed. Out: what did not hold. Real is all that reads, resolves, plans and previews; the run is an ideal one, without machines and
//! faults (`nodes`). Commits rename and move tasks and services, take nodes out of the inventory and back, park and decommission them, and
//! declare new ones; nodes report for the first time, go away and come back, and operators park them, before the preview and after it. What
//! a plan lists because of a trigger counts as done. A preview assumes that its base is applied: where it is not (`compare`), more or less
//! may happen.

mod commits;
mod compare;
mod nodes;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    sync::Arc,
};

use groundplan_core::{
    AppliedState, DesiredState, Knowledge, Policy,
    knowledge::Misfit,
    plan::{ActionReport, Disruption, PlanReport, ReasonReport, plan},
};
use groundplan_protocol::{
    effect::Action,
    ids::{InstanceId, NodeId},
};

use self::{
    commits::Commits,
    compare::{Behind, compare},
    nodes::{Nodes, Ran},
};
use super::{branch::Branch, rng::Rng, site::Sketch};

/// How many commits a seed has.
const COMMITS: usize = 5;

/// What is wrong on purpose, to see that it is noticed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Omission {
    /// The preview leaves out what is known after apply.
    Outcomes,
    /// It marks nothing as known after apply.
    Marks,
    /// It does not list what actions do to what runs.
    Effects,
    /// It does not list the removal of what changes hands.
    HandOvers,
    /// It takes nodes that are declared again to have nothing.
    Orphans,
    /// It does not list what is done on nodes that are new.
    NewNodes,
    /// It does not list what is done on decommissioned nodes.
    Decommissioned,
    /// It does not list what is done on parked nodes.
    Parked,
    /// It does not list what follows elsewhere once a parked node has carried out its part.
    AfterParked,
    /// The run does nothing on parked nodes, although they are there.
    IgnoreParked,
    /// The run does not do what becomes due when a parked node has carried out its part.
    ForgetParked,
    /// The run does nothing on nodes that come back.
    ForgetAway,
    /// The run does nothing on nodes that report for the first time.
    ForgetNew,
}

impl Omission {
    /// All of them.
    pub const ALL: [Self; 13] = [
        Self::Outcomes,
        Self::Marks,
        Self::Effects,
        Self::HandOvers,
        Self::Orphans,
        Self::NewNodes,
        Self::Decommissioned,
        Self::Parked,
        Self::AfterParked,
        Self::IgnoreParked,
        Self::ForgetParked,
        Self::ForgetAway,
        Self::ForgetNew,
    ];
}

/// What one seed had to show.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Previewed {
    /// Previews that were compared with a run.
    pub commits: usize,
    /// Actions that were carried out and had been listed.
    pub done: usize,
    /// Of these, such that the preview knew of only because they are known after apply.
    pub outcomes: usize,
    /// Of these, such that only the change on a parked node decides.
    pub after_parked: usize,
    /// Actions that were carried out because a node was not at the base of the preview.
    pub behind: usize,
    /// Listed actions that waited for a node that was not there when the run ended.
    pub waited: usize,
    /// Removals among what was done, and among these such that hand something over.
    pub removals: usize,
    /// Actions on nodes that were parked.
    pub on_parked: usize,
    /// Actions on nodes that had been orphaned before.
    pub on_returned: usize,
    /// Actions on nodes that reported for the first time after the preview.
    pub on_new: usize,
}

impl Previewed {
    /// Both together.
    pub fn add(&mut self, other: &Self) {
        let Self { commits, done, outcomes, after_parked, behind, waited, removals, on_parked, on_returned, on_new } =
            other;
        self.commits += commits;
        self.done += done;
        self.outcomes += outcomes;
        self.after_parked += after_parked;
        self.behind += behind;
        self.waited += waited;
        self.removals += removals;
        self.on_parked += on_parked;
        self.on_returned += on_returned;
        self.on_new += on_new;
    }
}

/// A preview, with what it was made from.
struct Preview {
    desired: Arc<DesiredState>,
    base: Option<Arc<DesiredState>>,
    report: PlanReport,
    /// What it takes to be applied.
    applied: AppliedState,
}

/// Compares previews with runs: of one random commit after another, from where the nodes are. `trace` takes what happens, line by line.
///
/// # Errors
/// What did not hold, with the commit, the preview and the run.
pub fn preview(seed: u64, omission: Option<Omission>, trace: &mut dyn FnMut(String)) -> Result<Previewed, String> {
    let mut rng = Rng::new(seed);
    let mut branch = Branch::new(Sketch::any(&mut rng));
    let mut commits = Commits::new(branch.sketch());
    let mut nodes = Nodes::new(omission);
    let (mut before, mut shown) = (None, Previewed::default());
    for commit in 0..COMMITS {
        if commit > 0 {
            let sketch = commits.next(branch.sketch(), &mut rng);
            branch.push(sketch);
        }
        let declared = branch.sketch().nodes.iter().map(|node| NodeId::new(&*node.name).expect("a name")).collect();
        nodes.before_preview(&declared, &mut rng);
        // A refused commit has no preview.
        let Some(preview) = make(&mut branch, before, &nodes, omission) else { continue };
        before = Some(branch.tip);
        let last = commit + 1 == COMMITS;
        let behind = Behind::new(&preview, &nodes);
        let ran = nodes.run(&mut branch, last, &mut rng);
        let compared = ran.and_then(|ran| {
            let compared = compare(&preview, &behind, &ran);
            let text = || describe(seed, commit, &preview, &nodes, &ran);
            match compared {
                Ok(more) => {
                    trace(text());
                    Ok(more)
                }
                Err(fault) => Err(format!("{fault}\n{}", text())),
            }
        });
        match compared {
            Ok(more) => shown.add(&more),
            Err(fault) => return Err(format!("seed {seed}, commit {commit}: {fault}\n{}", branch.sketch().text())),
        }
    }
    Ok(shown)
}

/// What `groundplan plan` prints of the tip, with what a planner would report; none if the tip or the base is refused.
fn make(branch: &mut Branch, before: Option<usize>, nodes: &Nodes, omission: Option<Omission>) -> Option<Preview> {
    let checked = Knowledge { misfit: Misfit::Refuse, ..nodes.knowledge.clone() };
    let desired = branch.desired(branch.tip, &checked).ok()?;
    let base = match before {
        Some(number) => Some(branch.desired(number, &checked).ok()?),
        None => None,
    };
    let mut orphaned = BTreeMap::new();
    if omission != Some(Omission::Orphans) {
        let left = |node: &NodeId| base.as_ref().is_none_or(|base| base.node(node).is_none());
        let all = nodes.applied.nodes.iter().filter(|(node, _)| left(node));
        orphaned.extend(all.map(|(node, applied)| (node.clone(), (*applied.tasks).clone())));
    }
    let applied = AppliedState::preview(base.as_deref(), &desired, &orphaned);
    let policy = Policy { parked: nodes.parked.clone(), ..Policy::default() };
    let planned = plan(&desired, &applied, &policy);
    let mut report = PlanReport::new(&planned, &desired, &applied, base.as_deref(), None, None, &mut |_| None);
    let preview = |report| Preview { desired: desired.clone(), base: base.clone(), report, applied };
    if let Some(omission) = omission {
        omit(&mut report, omission, &desired, base.as_deref(), &policy.parked);
    }
    Some(preview(report))
}

/// Leaves something out of a preview.
fn omit(
    report: &mut PlanReport,
    omission: Omission,
    desired: &DesiredState,
    base: Option<&DesiredState>,
    parked: &BTreeSet<NodeId>,
) {
    use groundplan_inventory::Lifecycle::Decommissioned;
    let is_new = |node: &NodeId| base.is_some_and(|base| base.node(node).is_none());
    let actions = &mut report.actions;
    match omission {
        Omission::Outcomes => actions.retain(|action| !action.is_outcome()),
        Omission::Marks => {
            for action in actions.iter_mut().filter(|action| action.is_outcome()) {
                action.known_after_apply.clear();
            }
        }
        Omission::Effects => actions.iter_mut().for_each(|action| action.effects.clear()),
        Omission::HandOvers => {
            actions.retain(|a| !a.reasons.iter().any(|r| matches!(r, ReasonReport::HandsOver { .. })))
        }
        Omission::NewNodes => actions.retain(|action| !is_new(&action.node)),
        Omission::Decommissioned => actions.retain(|a| desired.lifecycle(&a.node) != Some(Decommissioned)),
        Omission::Parked => actions.retain(|a| !parked.contains(&a.node) && !desired.is_parked(&a.node)),
        Omission::AfterParked => actions.retain(|action| !is_after_parked(action)),
        Omission::Orphans
        | Omission::IgnoreParked
        | Omission::ForgetParked
        | Omission::ForgetAway
        | Omission::ForgetNew => {}
    }
}

/// Whether only the change on a parked node decides if an action is carried out.
fn is_after_parked(action: &ActionReport) -> bool {
    let parked = |value: &String| value.contains("parked");
    action.is_outcome() && action.known_after_apply.iter().all(parked)
}

/// Whether an action restarts a process, by the preview.
fn restarts(action: &ActionReport) -> bool {
    // What is created starts, and may then be started again for a value that comes later.
    action.action == Action::Create || action.effects.contains(&Disruption::Restarts)
}

/// The preview and the run, for people.
fn describe(seed: u64, commit: usize, preview: &Preview, nodes: &Nodes, ran: &Ran) -> String {
    let mut text = format!("--- seed {seed}, commit {commit}\npreview:\n");
    for action in &preview.report.actions {
        let id = action.instance();
        let _ = write!(text, "  {} {id}", action.action);
        for (what, values) in [(" after apply", &action.known_after_apply), (" waits for", &action.waits_for)] {
            if !values.is_empty() {
                let _ = write!(text, "{what}: {}", values.join(", "));
            }
        }
        let _ = writeln!(text, " {:?}", action.effects);
    }
    let _ = writeln!(text, "run:");
    ran.trace.iter().for_each(|line| _ = writeln!(text, "  {line}"));
    let names = |nodes: &mut dyn Iterator<Item = &NodeId>| nodes.map(NodeId::as_str).collect::<Vec<_>>().join(" ");
    let list = [("away", names(&mut nodes.away.iter())), ("parked by request", names(&mut nodes.parked.iter()))];
    let left: Vec<String> = ran.last.actions.iter().map(|action| action.instance.to_string()).collect();
    list.iter().for_each(|(what, names)| _ = writeln!(text, "{what}: {names}"));
    let _ = writeln!(text, "left: {}", left.join(" "));
    text
}

/// What was done to which instance, for people.
fn line(action: Action, instance: &InstanceId) -> String {
    format!("{action} {instance}")
}
