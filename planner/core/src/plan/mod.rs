//! The centre: `plan(&DesiredState, &AppliedState, &Policy) -> Plan`. Preview and apply call the same one.
//!
//! In: what is desired, what each node acknowledged, a policy. Out: the restart graph made executable. In between, tasks and instances
//! are numbers: names are compared once, when desired meets applied, and written once, into the result. In a node's part each task
//! stands after all that it waits for there, and gates never wait for each other in a circle (`removal` explains why).

mod assemble;
mod contract;
mod disruption;
mod model;
mod outcome;
mod pending;
mod preview;
mod reasons;
mod removal;
mod report;

pub(crate) use self::pending::MAX_LISTED;
pub use self::{
    disruption::Disruption,
    model::{Gate, NodePart, PendingInstance, Plan, PlanTask, PlannedAction},
    reasons::{Position, ReasonReport},
    report::{ActionReport, KeyReport, OrphanReport, PlanReport, PreventionReport, RecordReport, WaitReport},
};
use crate::{
    applied::{AppliedState, Policy},
    desired::DesiredState,
    diff::Diff,
    restart::RestartGraph,
};

/// Plans what brings every node that has reported to the desired state: exactly the changes and what trigger edges reach from them, in
/// an order that agrees with every edge of the site. Nodes in `applied` that the desired state does not declare are left alone.
pub fn plan(desired: &DesiredState, applied: &AppliedState, policy: &Policy) -> Plan {
    let diff = Diff::new(desired, applied, policy);
    let graph = RestartGraph::new(&diff);
    assemble::assemble(&graph)
}
