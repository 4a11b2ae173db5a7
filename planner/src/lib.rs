//! planner
pub mod api;
pub mod broker;
pub mod diagnose;
pub mod repository;
pub mod store;
pub mod transport;
pub mod trust;
pub mod serve;
pub mod site;
pub mod cli;
pub mod up;
