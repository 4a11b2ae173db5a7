//! planner
pub mod api;
pub mod broker;
pub mod diagnose;
pub mod repository;
pub mod serve;
pub mod site;
