//! Reads of the store on any thread, beside the loop that writes it.
//!
//! Each call is a read transaction of its own: it returns what was committed last, waits for no commit and delays none.

use std::sync::Arc;

use groundplan_machine::{
    command::CommandRecord,
    commit::Refusal,
    record::StoredPlan,
    rollout::{RolloutDetail, RolloutSummary},
};
use groundplan_protocol::ids::{ExecId, Generation, NodeId};
use redb::ReadableTable as _;

use super::{
    error::{StoreError, access},
    file::File,
    tables::{COMMANDS, PLANS, REFUSALS, ROLLOUTS, from_json, note},
};
use crate::record::{CommandResultRow, CommandRow, HistoryRow, RefusalRow, SummaryRow};

/// The open store, to be read. A clone is cheap. The file stays in use until all of them are dropped.
#[derive(Clone)]
pub struct Reader {
    file: Arc<File>,
}

impl Reader {
    pub(super) fn new(file: Arc<File>) -> Self {
        Self { file }
    }

    /// The latest plan of a node.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn plan(&self, node: &NodeId) -> Result<Option<StoredPlan>, StoreError> {
        let tx = self.file.begin_read()?;
        let plans = tx.open_table(PLANS).map_err(access)?;
        let row = plans.get(node.as_str()).map_err(access)?;
        Ok(row.map(|row| {
            let (generation, asks, id, json) = row.value();
            StoredPlan { note: note(generation, asks, id), json: json.to_owned() }
        }))
    }

    /// The latest rollouts of the history, newest first, in full.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn history(&self, limit: usize) -> Result<Vec<RolloutDetail>, StoreError> {
        self.rollouts(limit, |row| from_json::<HistoryRow>(row).map(Into::into))
    }

    /// The latest rollouts of the history, newest first, without their instances: much less work than [`Reader::history`].
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn summaries(&self, limit: usize) -> Result<Vec<RolloutSummary>, StoreError> {
        self.rollouts(limit, |row| from_json::<SummaryRow>(row).map(Into::into))
    }

    fn rollouts<T>(&self, limit: usize, read: impl Fn(&[u8]) -> Result<T, StoreError>) -> Result<Vec<T>, StoreError> {
        let tx = self.file.begin_read()?;
        let rollouts = tx.open_table(ROLLOUTS).map_err(access)?;
        let rows = rollouts.iter().map_err(access)?.rev().take(limit);
        rows.map(|row| read(row.map_err(access)?.1.value())).collect()
    }

    /// A rollout of the history.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn rollout(&self, generation: Generation) -> Result<Option<RolloutDetail>, StoreError> {
        let tx = self.file.begin_read()?;
        let rollouts = tx.open_table(ROLLOUTS).map_err(access)?;
        let row = rollouts.get(generation.0).map_err(access)?;
        row.map(|row| from_json::<HistoryRow>(row.value()).map(Into::into)).transpose()
    }

    /// The latest refused commits, newest first.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn refusals(&self, limit: usize) -> Result<Vec<Refusal>, StoreError> {
        let tx = self.file.begin_read()?;
        let refusals = tx.open_table(REFUSALS).map_err(access)?;
        let rows = refusals.iter().map_err(access)?.rev().take(limit);
        rows.map(|row| from_json::<RefusalRow>(row.map_err(access)?.1.value()).map(Into::into)).collect()
    }

    /// The latest commands, newest first, without what they printed.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn execs(&self, limit: usize) -> Result<Vec<CommandRecord>, StoreError> {
        self.commands(limit, |mut row| {
            row.nodes.values_mut().for_each(|node| node.output = None);
            Some(row)
        })
    }

    /// Commands that had not ended when they were written last, newest first.
    pub(super) fn open_execs(&self) -> Result<Vec<CommandRecord>, StoreError> {
        self.commands(usize::MAX, |row| (row.result == CommandResultRow::Running).then_some(row))
    }

    /// What `keep` keeps of the latest commands. One row is taken after the other: all of them, with all that they printed, are large.
    fn commands(
        &self,
        limit: usize,
        keep: impl Fn(CommandRow) -> Option<CommandRow>,
    ) -> Result<Vec<CommandRecord>, StoreError> {
        let tx = self.file.begin_read()?;
        let commands = tx.open_table(COMMANDS).map_err(access)?;
        let rows = commands.iter().map_err(access)?.rev().take(limit);
        let rows = rows.map(|row| from_json(row.map_err(access)?.1.value()).map(&keep));
        rows.filter_map(Result::transpose).map(|row| row.map(Into::into)).collect()
    }

    /// A command, with the beginning and the end of what it printed.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn exec(&self, id: &ExecId) -> Result<Option<CommandRecord>, StoreError> {
        let tx = self.file.begin_read()?;
        let commands = tx.open_table(COMMANDS).map_err(access)?;
        for row in commands.iter().map_err(access)? {
            let (key, value) = row.map_err(access)?;
            if key.value().1 == id.as_str() {
                return from_json::<CommandRow>(value.value()).map(|row| Some(row.into()));
            }
        }
        Ok(None)
    }
}
