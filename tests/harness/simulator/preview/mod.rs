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
mod listed;
mod nodes;
mod omission;

use std::{collections::BTreeMap, fmt::Write as _};

use groundplan_core::{
    AppliedState, Knowledge, Policy,
    knowledge::Misfit,
    plan::{PlanReport, plan},
};
use groundplan_protocol::ids::NodeId;

use self::{
    commits::Commits,
    compare::{Behind, compare},
    listed::Preview,
    nodes::{Nodes, Ran},
    omission::omit,
};
pub use self::{listed::Previewed, omission::Omission};
use super::{branch::Branch, rng::Rng, site::Sketch};

/// How many commits a seed has.
const COMMITS: usize = 5;

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
