//! planner
pub mod api;
pub mod broker;
pub mod cli;
pub mod diagnose;
mod dispatch;
pub mod repository;
pub mod serve;
pub mod site;
pub mod store;
pub mod transport;
pub mod trust;
mod up;
