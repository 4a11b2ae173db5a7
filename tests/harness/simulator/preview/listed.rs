//! A preview, and what a seed had to show.

use std::sync::Arc;

use groundplan_core::{
    AppliedState, DesiredState,
    plan::{ActionReport, Disruption, PlanReport},
};
use groundplan_protocol::effect::Action;

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
pub(super) struct Preview {
    pub(super) desired: Arc<DesiredState>,
    pub(super) base: Option<Arc<DesiredState>>,
    pub(super) report: PlanReport,
    /// What it takes to be applied.
    pub(super) applied: AppliedState,
}

/// Whether only the change on a parked node decides if an action is carried out.
pub(super) fn is_after_parked(action: &ActionReport) -> bool {
    let parked = |value: &String| value.contains("parked");
    action.is_outcome() && action.known_after_apply.iter().all(parked)
}

/// Whether an action restarts a process, by the preview.
pub(super) fn restarts(action: &ActionReport) -> bool {
    // What is created starts, and may then be started again for a value that comes later.
    action.action == Action::Create || action.effects.contains(&Disruption::Restarts)
}
