//! The planner's local API: JSON over HTTP on a unix socket that only its owner may open.
//!
//! In: requests of the command line and of other programs on this machine. Out: replies, and streams of live events. `requests` lists what
//! can be asked for and its reply, `types` and its neighbours are the contract, `routes` answers, `client` asks. Nothing here changes what
//! is desired: that is what commits are for.

pub mod client;
pub mod drift;
pub mod endpoint;
pub mod event;
pub mod exec;
pub mod history;
pub mod hosts;
pub mod park;
mod peer;
pub mod requests;
pub mod rollout;
mod routes;
pub(crate) mod server;
pub(crate) mod stream;
pub mod trouble;
pub mod types;
pub mod unsteady;

pub use client::{Client, ClientError};
pub use server::ListenError;
