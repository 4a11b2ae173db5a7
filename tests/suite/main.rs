//! suite
mod broker;
mod fleet;
mod workspace;
