//! A plan being carried out: reports are folded in, gates open, rolling limits hold, and each instance has a status.
//!
//! In: a plan, reports, presence. Out: which gates are open on which node. Values in, values out: the planner stores and publishes.
//! Each report is folded once, and nothing depends on the order in which reports of different nodes come, so that a rollout is restored
//! from its snapshot, or from the plan and the log of what was folded in.

mod belief;
mod fold;
mod kept;
mod model;
mod outlook;
mod start;
mod status;
mod supersede;
mod tally;
mod turns;
mod waits;

pub use self::{
    belief::{Belief, StateFold},
    kept::Progress,
    model::{Rollout, Standing, Status, Summary, Verdict, Wait},
};
