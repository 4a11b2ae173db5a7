//! The shell: the loop that connects the machine with ledger, broker, blob store and host.
//!
//! In: signals of the connection, ends of jobs, the clock, signals to stop. Out: the machine's effects, carried out in their
//! order. It decides nothing but how long to wait before it tries a failed write again; while the ledger cannot be written,
//! nothing else happens, for the agent may do nothing that it would not remember.

mod carry_out;
mod catch_up;
mod drift;
mod drift_checks;
mod error;
mod limits;
mod open;
mod run;
mod state;
mod stop;
mod stop_signals;
mod unit_watch;
mod units;

pub use self::{error::ShellError, state::Shell, stop_signals::StopSignals};
