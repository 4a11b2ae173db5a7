//! One simulator for both sides: the planner's machine and the agents' machines, with everything between them made up.
//!
//! In: a seed. Out: what became of the world of that seed: numbers, or the invariant that did not hold with a short trace. No clock, no
//! IO, no threads: equal seeds give equal worlds. Real are both machines, and all that reads, resolves and plans a site; simulated are
//! the shells, the disks, the hosts, the network, the broker and the branch. It replaces no test with real processes.

mod branch;
mod broker;
mod disk;
mod host;
mod preview;
mod process;
mod record;
pub(crate) mod rng;
mod run;
mod sabotage;
mod schedule;
mod site;
mod world;

pub use self::{
    preview::{Omission, Previewed, preview},
    run::{Failure, Totals, regressions, run, run_many},
    sabotage::Sabotage,
    schedule::{Fault, WITH_DROPS, WITH_PARKING, WITH_RENAMES, WITH_REPLAYS},
};
