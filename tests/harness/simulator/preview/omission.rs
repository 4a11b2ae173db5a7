//! What previews and runs can be made to leave out, to show that it would be noticed.

use std::collections::BTreeSet;

use groundplan_core::{
    DesiredState,
    plan::{PlanReport, ReasonReport},
};
use groundplan_protocol::ids::NodeId;

use super::listed::is_after_parked;

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

/// Leaves something out of a preview.
pub(super) fn omit(
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
