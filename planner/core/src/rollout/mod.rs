//! A plan being carried out: reports are folded in, gates open, rolling limits hold, and what came of it all can be told.
//!
//! In: a plan, reports, who is online. Out: which gates are open for whom. Values in, values out: the planner's daemon stores,
//! publishes and calls. Folding is idempotent and nothing depends on the order in which reports of different nodes come, so a
//! rollout is restored from its snapshot, or from the plan and the reports told again.

mod belief;
mod fold;
mod model;
mod start;
mod status;
mod supersede;
mod turns;

pub use self::{
    belief::{Belief, StateFold},
    model::{Rollout, Status, Summary, Verdict, Wait},
};
