//! `prevent_destroy`: a commit that would remove what a node has recorded as not to be removed is refused.
//!
//! In: a commit that is about to become active, the one before it, and what nodes have applied. Out: a fault for each such instance. The record counts, and
//! not the site: a commit that leaves the task out declares nothing about it any more.

use crate::{
    commit::{ActiveCommit, Fault},
    fleet::Fleet,
};

/// How many digits of a commit's id are shown, as in the terminal.
const SHOWN: usize = 9;

/// All faults of that kind, by node and task. `active` is the commit before, which names the file that forbids the removal.
pub(super) fn faults(commit: &ActiveCommit, active: Option<&ActiveCommit>, fleet: &Fleet) -> Vec<Fault> {
    let mut faults = Vec::new();
    // A node that is no longer declared gets no plan, and keeps everything.
    for (id, node) in fleet.nodes().iter().filter(|(id, _)| commit.declares(id)) {
        for (task, applied) in node.belief.applied.tasks.iter().filter(|(_, applied)| applied.edges.prevent_destroy) {
            let (desired, instance) = (&commit.desired, task.at(id));
            let passes_on = || desired.node(id).is_some_and(|at| desired.takes_all(at, applied));
            let fault = match desired.instance(&instance) {
                Some(update) if update.resolved.gives_up(task, applied) && !passes_on() => {
                    "would give up something that it owns on"
                }
                None if !desired.wants(&instance) && !passes_on() => "would be removed from",
                _ => continue,
            };
            let stands = active.and_then(|active| {
                let at = active.desired.graph.task(task)?.prevent_destroy.as_ref()?;
                let commit = active.commit.id.as_str();
                Some(format!(" ({} of commit {})", at.file, commit.get(..SHOWN).unwrap_or(commit)))
            });
            faults.push(Fault {
                at: None,
                message: format!(
                    "`{task}` {fault} `{id}`, where it was applied with `prevent_destroy = true`{}",
                    stands.unwrap_or_default()
                ),
                label: String::new(),
                related: Vec::new(),
                hint: Some("put it back, or first deploy a commit that sets `prevent_destroy = false`".to_owned()),
            });
        }
    }
    faults
}
