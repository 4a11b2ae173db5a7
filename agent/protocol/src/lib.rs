//! The wire contract between planner and agent: all that the two share.
//!
//! In: nothing. Out: types of messages, their signed envelopes, their topics, their limits, and one parameter type
//! per task kind. Everything here is data and pure functions over it: no IO, no clock, no async, no MQTT client.
//! What crosses the wire is described for other implementers in `docs/protocol.md`; `VERSION` guards it.

mod as_text;
pub mod blob;
pub mod broker;
pub mod digest;
pub mod drift;
pub mod duration;
pub mod effect;
pub mod encryption;
pub mod envelope;
pub mod exec;
pub mod ids;
pub mod kinds;
pub mod limits;
pub mod plan;
pub mod presence;
pub mod ready;
pub mod report;
pub mod state;
pub mod text;
pub mod time;
pub mod topic;

/// Version of every message here; a receiver refuses any other.
pub const VERSION: u32 = 1;

/// Largest MQTT packet that either side accepts or publishes, in bytes.
///
/// rumqttc retries for ever on a packet above its incoming limit, so each side sets this limit and checks before it
/// publishes.
pub const MAX_PACKET: usize = 4 * 1024 * 1024;

/// Largest payload of a message, in bytes: leaves room in a packet for the topic and the header.
pub const MAX_PAYLOAD: usize = MAX_PACKET - 1024;
