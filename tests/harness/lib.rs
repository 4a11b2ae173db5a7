//! harness
pub mod brokers;
