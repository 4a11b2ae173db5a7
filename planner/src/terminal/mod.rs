//! What people read on a terminal: colours, tables, progress, and each result in plain text.
//!
//! In: values of the API and of the core. Out: strings, or lines on standard output and standard error. Nothing here queries the planner,
//! reads a file or decides anything; a result that is printed as JSON does not come through here.

pub(crate) mod bootstrap;
pub(crate) mod drift;
pub(crate) mod exec;
pub(crate) mod exec_live;
mod failure;
pub(crate) mod format;
pub(crate) mod history;
pub(crate) mod node;
mod output;
pub(crate) mod plan;
pub(crate) mod progress;
pub(crate) mod reason;
pub(crate) mod rollout;
mod safe;
pub(crate) mod status;
mod table;
pub(crate) mod why;

pub(crate) use self::{
    failure::Failure,
    output::{Color, LogWriter, Output, Style, redraw},
    safe::{ESCAPE, safe},
    table::{Cell, Table},
};
