//! The planner and the `groundplan` command line: everything around the pure crates that reads, writes, sends and shows.
//!
//! A commit comes in by `repository` and becomes a site in `site`. `shell` gives what happens to the machine (`planner/machine`) and carries
//! out what that decides, over `transport` and `store`, whose rows are `record`. `view` answers what `api` is asked. `serve` puts these
//! together, `bootstrap` brings agents onto hosts by ssh, `cli` is what people type and `terminal` what they see. Nothing here decides
//! what is restarted.

pub mod api;
pub mod bootstrap;
mod brokers;
pub mod cli;
mod clock;
pub mod config;
pub mod diagnose;
mod embedded;
mod launch;
pub mod lint;
mod plugins;
mod private;
mod record;
pub mod repository;
pub mod select;
pub mod serve;
mod shell;
pub mod site;
pub mod store;
mod terminal;
pub mod transport;
pub mod trust;
mod view;
