//! The planner and the `groundplan` command line: everything around the pure core that reads, writes, sends and shows.
//!
//! A commit comes in by `repository`, becomes a site in `site`, and is decided on by the core; `dispatch` carries the decision out over
//! `transport`, keeps it in `store` and tells of it by `api`. `serve` puts these together, `up` adds `broker` and agents for one machine,
//! `bootstrap` brings agents onto hosts by `ssh`, and `cli` is what people type. Nothing here decides what is restarted.

pub mod api;
pub mod bootstrap;
pub mod broker;
pub mod cli;
pub mod config;
pub mod diagnose;
mod dispatch;
mod launch;
mod plugins;
pub mod repository;
pub mod select;
pub mod serve;
pub mod site;
pub mod store;
mod terminal;
pub mod transport;
pub mod trust;
