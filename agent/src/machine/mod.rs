//! The agent's machine: decides all that the agent does, and does none of it.
//!
//! In: events and the time, as values. Out: effects, to be carried out in their order, each before the next. No IO, no
//! clock, no randomness, no async: it can be simulated, and is. It keeps the invariants of docs/architecture.md on fencing,
//! obligations and reports: every obligation that a task may come to have is persisted with the plan, before the task starts,
//! and is cleared only together with the record that it was fulfilled. Memory may be ahead of the ledger by one group of
//! completions; after a crash the journal of started tasks shows which tasks that group may have held.
//!
//! `Machine::restore` makes it from a [`Snapshot`]; `Machine::handle` takes events.

mod accept;
mod account;
mod failed_removal;
mod finish;
pub mod found;
mod handle;
mod io;
mod node_state;
mod obligations;
mod outbox;
mod queue;
mod restore;
mod snapshot;
mod start;
mod state;
mod take_over;
#[cfg(test)]
mod tests;

pub use self::{
    found::Found,
    io::{Earlier, Effect, Event, Facts, JobDone, JobOutcome, Promise, Settings, Start, Work},
    restore::{SYNCED, UnreadablePlan},
    snapshot::{Record, Snapshot, StoredObligation, StoredPlan, Taking, Write},
    state::Machine,
};
