//! harness
pub mod binaries;
pub mod brokers;
