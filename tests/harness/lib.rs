//! What the integration suite and the benchmarks share: the real programs, brokers, and whole sites made of them.

pub mod authority;
pub mod between;
pub mod binaries;
pub mod brokers;
pub mod fleet;
pub mod fuzz;
pub mod hosts;
pub mod live;
pub mod loopback;
pub mod processes;
pub mod property;
pub mod publish;
pub mod secured;
pub mod simulated;
pub mod simulator;
pub mod small_disk;
mod xattrs;
