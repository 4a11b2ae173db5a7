//! The agent of a node: takes node plans over MQTT, carries them out, and reports back.
//!
//! `machine` decides and does nothing; `ledger` stores what must survive; `transport` connects to the broker; `blobs` fetches
//! content; `host` acts on the system; `commands` runs operators' commands; `drift` decides when to check for drift; `facts`
//! reads facts of the host; `freshness` notices that nothing new comes; `shell` is the loop that connects them. It shares nothing with the planner but
//! `groundplan-protocol`.

pub mod blobs;
pub mod clock;
pub mod commands;
pub mod config;
pub mod drift;
pub mod facts;
pub mod freshness;
pub mod host;
pub mod ledger;
pub mod log;
pub mod machine;
mod private;
pub mod shell;
pub mod transport;
