//! What a planner keeps: one redb file, small enough in memory for a small host.
//!
//! In: groups of changes, each one transaction and one fsync, done before anything of it is published or acknowledged. Out: all of it
//! again at the next start, and rows for readers on other threads. A running rollout is its snapshot from the start and a log of the
//! reports since: a group of reports costs what it holds, not what the rollout holds. A file of an older layout is rewritten when it is
//! opened, or left as it was. Losing the file loses history, not the fleet: git and the agents restore the rest.

mod error;
mod file;
mod group;
mod migrate;
mod reader;
mod tables;
#[cfg(test)]
mod tests;

use std::{path::Path, str::FromStr, sync::Arc};

use groundplan_core::Rollout;
use groundplan_machine::write::Stored;
use groundplan_protocol::ids::Sequence;
use redb::{ReadableTable as _, ReadableTableMetadata as _, TableHandle as _, WriteTransaction};
use serde::de::Error as _;

pub use self::{error::StoreError, group::Group, reader::Reader};
use self::{
    error::access,
    file::File,
    tables::{
        ACKS, COMMANDS, LOG, META, META_KEY, NODES, PLANS, REFUSALS, ROLLOUT_KEY, ROLLOUTS, SCHEMA, SCHEMA_KEY,
        from_json, note, to_json,
    },
};
use crate::{
    private,
    record::{HeadRow, LogRow, MetaRow, NodeRow, SummaryRow},
};

/// How many rollouts the history holds; the oldest are dropped.
const HISTORY: u64 = 1000;

/// How many refused commits the history holds; the oldest are dropped.
const REFUSED: u64 = 200;

/// How many commands the store holds; the oldest are dropped.
const EXECS: u64 = 200;

/// The open file. One process has it at a time, one value of this type writes it.
pub struct Store {
    file: Arc<File>,
    /// Whether the last transaction failed: then the file has to be opened again.
    failed: bool,
    /// Number of the next entry of the log.
    next_log: u64,
}

impl Store {
    /// Opens `planner.redb` in `dir`, and makes both if they are not there. Returns all that the machine is restored from.
    ///
    /// # Errors
    /// In use, of a newer layout, damaged, or not to be written.
    pub fn open(dir: &Path) -> Result<(Self, Stored), StoreError> {
        let io = |source| StoreError::Io { path: dir.to_owned(), source };
        private::parents(dir).map_err(io)?;
        let path = dir.join("planner.redb");
        let file = File::open(&path)?;
        upgrade(&file, &path)?;
        let mut store = Self { file: Arc::new(file), failed: false, next_log: 0 };
        let stored = store.read()?;
        store.next_log = stored.log.len() as u64;
        Ok((store, stored))
    }

    /// For reads on any thread.
    pub fn reader(&self) -> Reader {
        Reader::new(self.file.clone())
    }

    fn read(&self) -> Result<Stored, StoreError> {
        let tx = self.file.begin_read()?;
        let mut stored = Stored::default();
        let meta = tx.open_table(META).map_err(access)?;
        if let Some(row) = meta.get(META_KEY).map_err(access)? {
            stored.meta = from_json::<MetaRow>(row.value())?.into();
        }
        if let Some(row) = meta.get(ROLLOUT_KEY).map_err(access)? {
            let (mut head, rollout) = from_json::<(HeadRow<'_>, Rollout)>(row.value())?;
            // Its row is written when it begins; its end, if it came, is in the history only.
            let rollouts = tx.open_table(ROLLOUTS).map_err(access)?;
            let known = rollouts.get(head.generation.0).map_err(access)?;
            let known = known.map(|row| from_json::<SummaryRow>(row.value())).transpose()?;
            head.ended_ms = known.and_then(|summary| summary.finished_ms);
            stored.rollout = Some((head.into(), rollout));
        }
        for row in tx.open_table(NODES).map_err(access)?.iter().map_err(access)? {
            let (key, value) = row.map_err(access)?;
            stored.nodes.insert(id(key.value())?, from_json::<NodeRow>(value.value())?.into());
        }
        for row in tx.open_table(ACKS).map_err(access)?.iter().map_err(access)? {
            let (key, value) = row.map_err(access)?;
            let (ledger, sequence) = value.value();
            stored.acks.insert(id(key.value())?, (id(ledger)?, Sequence(sequence)));
        }
        for row in tx.open_table(PLANS).map_err(access)?.iter().map_err(access)? {
            let (key, value) = row.map_err(access)?;
            let (generation, asks, plan, _) = value.value();
            stored.plans.insert(id(key.value())?, note(generation, asks, plan));
        }
        for row in tx.open_table(LOG).map_err(access)?.iter().map_err(access)? {
            stored.log.push(from_json::<LogRow>(row.map_err(access)?.1.value())?.into());
        }
        // Commands that had not ended when the last process did: the machine records them as interrupted.
        stored.commands = self.reader().open_execs()?;
        Ok(stored)
    }

    /// Writes a group: all of it or, on an error, nothing. It is on the disk when this returns.
    ///
    /// # Errors
    /// The store cannot be written. The same group may be tried again.
    pub fn commit(&mut self, group: &Group) -> Result<(), StoreError> {
        if group.is_empty() {
            return Ok(());
        }
        if self.failed {
            self.file.reopen()?;
        }
        let written = self.write(group);
        self.failed = written.is_err();
        written
    }

    fn write(&mut self, group: &Group) -> Result<(), StoreError> {
        let tx = self.file.begin_write()?;
        // A copy, which counts only once the transaction is committed: the same group may be tried again.
        let mut next_log = self.next_log;
        {
            let mut meta = tx.open_table(META).map_err(access)?;
            if let Some(row) = &group.meta {
                meta.insert(META_KEY, to_json(row)?.as_slice()).map_err(access)?;
            }
            if let Some((head, rollout)) = &group.rollout {
                let row = (HeadRow::from(&**head), rollout);
                meta.insert(ROLLOUT_KEY, to_json(&row)?.as_slice()).map_err(access)?;
                // A rollout begins, and with it an empty log: the log is replayed onto this row when the store is
                // opened.
                tx.delete_table(LOG).map_err(access)?;
                next_log = 0;
            }
            let mut nodes = tx.open_table(NODES).map_err(access)?;
            for (node, row) in &group.nodes {
                nodes.insert(node.as_str(), to_json(row)?.as_slice()).map_err(access)?;
            }
            let mut acks = tx.open_table(ACKS).map_err(access)?;
            for (node, (ledger, sequence)) in &group.acks {
                acks.insert(node.as_str(), (ledger.as_str(), sequence.0)).map_err(access)?;
            }
            let mut plans = tx.open_table(PLANS).map_err(access)?;
            for (node, plan) in &group.plans {
                match plan {
                    Some(p) => {
                        let groundplan_machine::record::PlanNote { generation, asks, id } = &p.note;
                        let row = (generation.0, asks.as_slice(), id.as_bytes(), p.json.as_slice());
                        plans.insert(node.as_str(), row).map_err(access)?;
                    }
                    None => drop(plans.remove(node.as_str()).map_err(access)?),
                }
            }
            let mut log = tx.open_table(LOG).map_err(access)?;
            for row in &group.log {
                log.insert(next_log, to_json(row)?.as_slice()).map_err(access)?;
                next_log += 1;
            }
            let mut rollouts = tx.open_table(ROLLOUTS).map_err(access)?;
            for row in &group.history {
                rollouts.insert(row.summary.generation.0, to_json(row)?.as_slice()).map_err(access)?;
            }
            // Bounds on what is kept. The keys begin with the generation and the time, so the first rows are the
            // oldest.
            while !group.history.is_empty() && rollouts.len().map_err(access)? > HISTORY {
                rollouts.pop_first().map_err(access)?;
            }
            let mut refusals = tx.open_table(REFUSALS).map_err(access)?;
            for row in &group.refusals {
                let key = (row.at_ms, row.refused.commit.id.as_str());
                refusals.insert(key, to_json(row)?.as_slice()).map_err(access)?;
            }
            while !group.refusals.is_empty() && refusals.len().map_err(access)? > REFUSED {
                refusals.pop_first().map_err(access)?;
            }
            let mut commands = tx.open_table(COMMANDS).map_err(access)?;
            for row in &group.commands {
                let key = (row.started_ms, row.id.as_str());
                commands.insert(key, to_json(row)?.as_slice()).map_err(access)?;
            }
            while !group.commands.is_empty() && commands.len().map_err(access)? > EXECS {
                commands.pop_first().map_err(access)?;
            }
        }
        tx.commit().map_err(access)?;
        self.next_log = next_log;
        Ok(())
    }
}

/// Brings the file to the present layout, and makes its tables, in one transaction: a crash leaves it as it was.
fn upgrade(file: &File, path: &Path) -> Result<(), StoreError> {
    let tx = file.begin_write()?;
    match schema(&tx)? {
        Some(SCHEMA) => {
            // A table that came later is made here: releases without it pass over it, so the layout's number stays.
            let made = tx.list_tables().map_err(access)?.any(|table| table.name() == REFUSALS.name());
            if !made {
                tx.open_table(REFUSALS).map_err(access)?;
                tx.commit().map_err(access)?;
            }
            return Ok(());
        }
        Some(found) if found > SCHEMA => {
            return Err(StoreError::Newer { path: path.to_owned(), found, known: SCHEMA });
        }
        Some(found) => {
            tracing::info!(path = %path.display(), from = found, to = SCHEMA, "rewriting the planner's store");
            if found < 2 {
                migrate::from_1(&tx)?;
            }
            migrate::from_2(&tx)?;
        }
        None => {}
    }
    {
        let mut meta = tx.open_table(META).map_err(access)?;
        meta.insert(SCHEMA_KEY, to_json(&SCHEMA)?.as_slice()).map_err(access)?;
        tx.open_table(NODES).map_err(access)?;
        tx.open_table(ACKS).map_err(access)?;
        tx.open_table(PLANS).map_err(access)?;
        tx.open_table(LOG).map_err(access)?;
        tx.open_table(ROLLOUTS).map_err(access)?;
        tx.open_table(REFUSALS).map_err(access)?;
        // Releases before it was there wrote layout 1 as well.
        tx.open_table(COMMANDS).map_err(access)?;
    }
    tx.commit().map_err(access)
}

/// The layout of the file; none for a new one.
fn schema(tx: &WriteTransaction) -> Result<Option<u32>, StoreError> {
    let meta = tx.open_table(META).map_err(access)?;
    meta.get(SCHEMA_KEY).map_err(access)?.map(|row| from_json(row.value())).transpose()
}

/// A name that was checked before it was written.
fn id<T: FromStr<Err: std::fmt::Display>>(text: &str) -> Result<T, StoreError> {
    text.parse().map_err(|e: T::Err| StoreError::Record(serde_json::Error::custom(e)))
}
