//! The planner's machine: decides all that the planner does, and does none of it.
//!
//! In: [`Input`]s and the time, as values. Out: [`Effect`]s, in order. No IO, no clock, no randomness, no async: it can be simulated, and
//! is. Reading commits, planning and signing are effects whose answers come back as inputs, so no input waits for them. Its parts own
//! their state and speak through values: `fleet` (what nodes reported), `deployment` (which commit is active, what is due), `rollout`,
//! `drift`, `command`, `leadership`, `retained` (whether all that the broker keeps has come); this module is the one place where they meet. Never plans while another planner does; never
//! publishes what its round has not persisted before.

pub mod command;
pub mod commit;
pub mod damping;
mod deployment;
pub mod drift;
pub mod fleet;
pub mod ids;
pub mod io;
pub mod leadership;
mod machine;
pub mod planning;
pub mod record;
mod retained;
pub mod rollout;
pub mod view;
pub mod write;

pub use self::{
    io::{Effect, Input, Settings},
    machine::Machine,
    view::View,
};
