//! planner
pub mod api;
pub mod broker;
pub mod diagnose;
mod dispatch;
pub mod repository;
pub mod store;
pub mod transport;
pub mod trust;
pub mod serve;
pub mod site;
pub mod cli;
mod up;
