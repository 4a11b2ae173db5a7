//! The rows of the planner's store: what each holds as JSON, apart from the machine's types and from the API.
//!
//! In: values of the machine, to be written. Out: the same values, read again. Each row converts by `From` in both directions and loses
//! nothing. What core and protocol serialize themselves (the core's rollout snapshot and belief, its reasons, an agent's state and
//! reports) is embedded as it is. These types are schema 2 of the file: whoever changes their JSON raises the schema in `store` and
//! adds a step to its migration, or gives a new field a default. Snapshots in `tests` show each row.

mod command;
mod history;
mod meta;
mod node;
mod rollout;
#[cfg(test)]
mod tests;

pub(crate) use self::{
    command::{CommandResultRow, CommandRow},
    history::{HistoryRow, SummaryRow},
    meta::{MetaRow, RefusalRow},
    node::NodeRow,
    rollout::{HeadRow, LogRow},
};
