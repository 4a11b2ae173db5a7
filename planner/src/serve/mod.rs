//! The planner daemon: `groundplan serve`, and the planner inside `groundplan up`.
//!
//! In: a [`ServeConfig`]. Out: it runs until told to stop. It only puts the parts together: repository and watch, store, trust,
//! transport, API, and the one loop (`dispatch`) that owns all state and decides by the core.

mod config;

pub use config::{BrokerAddress, BrokerTls, InvalidBroker, ServeConfig};
