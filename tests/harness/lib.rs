//! harness
pub mod binaries;
pub mod brokers;
pub mod fleet;
pub mod publish;
