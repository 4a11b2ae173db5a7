//! The planner's local API: JSON over HTTP on a unix socket that only its owner may open.
//!
//! In: questions of the command line and of whoever else runs on this machine. Out: the planner's answers, and a stream of
//! live events. `types` is the contract; `client` asks, `server` answers by asking the one loop that owns the state.
//! Nothing here changes what is desired: that is what commits are for. `exec` is the contract of commands that are run at once.

pub mod client;
pub mod drift;
pub mod event;
pub mod exec;
pub mod hosts;
pub(crate) mod server;
mod telling;
pub mod types;

pub use client::{Client, ClientError};
pub use server::ListenError;
pub(crate) use telling::{Hearing, Telling, telling};
