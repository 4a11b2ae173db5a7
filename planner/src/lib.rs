//! planner
pub mod broker;
pub mod diagnose;
pub mod site;
