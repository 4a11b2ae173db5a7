//! suite
mod broker;
