//! The pure core: `resolve → fingerprint → diff → restart graph → plan`, and the rollout that folds reports in.
//!
//! In: a validated site, what each node has applied, and a policy. Out: plans with a reason for every action, and node plans ready
//! to be signed. No IO, no clock, no randomness, no async: equal values in give equal bytes out, in whatever order the values came.

pub mod applied;
pub mod desired;
mod diff;
mod graph;
mod hand_over;
pub mod knowledge;
pub mod locate;
mod nearest;
mod placement;
pub mod plan;
pub mod reason;
mod render;
pub mod resolve;
mod restart;
pub mod rollout;
pub mod source;

pub use self::{
    applied::{AppliedState, Check, NodeApplied, Policy},
    desired::{DesiredState, Input, Instance, InstanceGraph, NodeIx, Resolved, TaskIx},
    knowledge::{Knowledge, Unknown},
    plan::{Plan, plan},
    reason::Reason,
    resolve::{Cache, resolve},
    rollout::{Belief, Rollout},
    source::SourceTree,
};
