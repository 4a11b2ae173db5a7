//! Processes: programs that are run to their end, commands whose output is passed on, and processes that the agent supervises.
//!
//! `spawn` prepares a program and starts it; `exec` runs it to its end, and `stream` does the same for an operator's command,
//! through a `spool`. `supervisor` keeps processes running, each with a `monitor` of its own and a `record` on disk.

mod backoff;
pub(crate) mod capture;
pub(crate) mod exec;
mod log;
pub(crate) mod monitor;
mod pidfd;
mod proc;
mod record;
pub(crate) mod spawn;
mod spool;
pub(crate) mod state;
mod stream;
pub(crate) mod supervisor;

pub use self::{
    backoff::Backoff,
    spool::{BATCH, Spool},
    state::Supervised,
};
