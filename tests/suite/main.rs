//! suite
mod broker;
mod cli;
mod diagnostics;
mod fleet;
mod quickstart;
mod workspace;
