//! The centre: `plan(&DesiredState, &AppliedState, &Policy) -> Plan`. Preview and apply call the same one.
//!
//! In: what is desired, what each node acknowledged. Out: the restart graph made executable. Inside all is numbers: names are
//! touched when desired is compared with applied, and when the result is written down. A task stands in a node's part after
//! all that it waits for there, and gates never wait for each other in a circle (see `removal` for why).

mod applied;
mod assemble;
mod contract;
mod hold;
mod model;
mod removal;
mod report;

pub use self::{
    model::{Gate, NodePart, PendingInstance, Plan, PlanTask, PlannedAction},
    report::{ActionReport, PlanReport, Position, ReasonReport, WaitReport},
};
use crate::{
    applied::{AppliedState, Policy},
    desired::DesiredState,
    diff::Diff,
    restart::RestartGraph,
};

/// Works out what has to be done to bring every known node to the desired state: exactly the changes and what trigger edges
/// reach from them, in an order that every edge of the site agrees with.
pub fn plan(desired: &DesiredState, applied: &AppliedState, policy: &Policy) -> Plan {
    let diff = Diff::new(desired, applied, policy);
    let graph = RestartGraph::new(&diff);
    assemble::assemble(&graph)
}
