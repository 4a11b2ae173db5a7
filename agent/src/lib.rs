//! The agent of a node: takes node plans over MQTT, carries them out, and reports back.
//!
//! `machine` decides and does nothing; `ledger` remembers; `transport` talks to the broker; `blobs` fetches content;
//! `host` acts on the system; `commands` runs what somebody wants run now; `drift` decides when to look whether all is still
//! so; `shell` is the dull loop that connects them. Shares nothing with the planner but `groundplan-protocol`.

pub mod blobs;
pub mod clock;
pub mod commands;
pub mod config;
pub mod drift;
pub mod facts;
pub mod host;
pub mod ledger;
pub mod log;
pub mod machine;
pub mod shell;
pub mod transport;
