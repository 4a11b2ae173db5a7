//! suite
mod broker;
mod cli;
mod diagnostics;
mod fleet;
mod oracle;
mod quickstart;
mod workspace;
