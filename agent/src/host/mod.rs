//! Everything that acts on the host: task kinds, programs, supervised processes, probes.
//!
//! In: a [`job::Job`], or the record of an applied task to check. Out: a [`job::Finished`], or a
//! [`CheckResult`](crate::drift::CheckResult); a check changes nothing. It knows no plan, keeps no ledger and decides nothing
//! about order; at most one job of a task runs at a time. All paths of tasks lie below the root.
//!
//! `run` carries out jobs and `check` drift checks, both through `kinds`; `process` runs programs, `fs` reads and writes files.

mod aliases;
pub mod cancel;
mod check;
mod claims;
mod differences;
mod error;
mod exclusive;
mod found;
mod fs;
mod health;
pub mod job;
mod kinds;
mod markers;
mod probe;
pub mod process;
mod programs;
mod run;
mod settings;
mod shared;
#[cfg(test)]
mod tests;
mod tool;
mod unit_ends;
mod units;

pub use self::{
    settings::{DEFAULT_MAX_FOUND, Settings},
    shared::Host,
};
