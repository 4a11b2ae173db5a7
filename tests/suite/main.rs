//! suite
mod broker;
mod cli;
mod fleet;
mod quickstart;
mod workspace;
