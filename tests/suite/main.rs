//! The integration suite: one binary, on the harness beside it. Run by `tests/run`; a part of it by `tests/run suite fleet::`.

mod broker;
mod cli;
mod diagnostics;
mod fleet;
mod fuzz;
mod hostile;
mod hosts;
mod oracle;
mod quickstart;
mod simulator;
mod workspace;
