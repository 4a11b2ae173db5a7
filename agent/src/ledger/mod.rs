//! The ledger: the agent's persistent state, in one file that survives kills and power loss.
//!
//! In: the machine's writes. Out: one transaction for each group of them, and all of it again at the next start. Beside it
//! is the journal of started tasks. A ledger of a newer format, in use by another process or damaged is an error with advice; it is
//! never reset silently, because it holds the obligations.

mod journal;
#[cfg(test)]
mod tests;

use std::{
    collections::BTreeMap,
    convert::Infallible,
    fs, io,
    path::{Path, PathBuf},
    str::FromStr,
};

use groundplan_protocol::{
    ids::{InvalidId, LedgerId, Sequence},
    report::TaskReport,
};
use redb::{
    Builder, Database, DatabaseError, Durability, ReadableDatabase as _, ReadableTable as _, Table, TableDefinition,
    WriteTransaction, backends::FileBackend,
};
use serde::{Serialize, de::DeserializeOwned};

pub use self::journal::Journal;
use crate::{
    machine::{Snapshot, StoredPlan, Write},
    private,
};

/// The format of the tables below.
const SCHEMA: u64 = 1;
/// Page cache, in bytes. The ledger is read once at the start; later only waiting reports are read.
const CACHE: usize = 128 * 1024;

// All of one type: redb's code for another type would add tens of kilobytes to the binary.
const META: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("meta");
const DONE: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("done");
const APPLIED: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("applied");
const TAKINGS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("takings");
const OBLIGATIONS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("owed");
const FOUND: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("found");
/// The tables that the first release did not have.
const ADDED_LATER: [&str; 2] = ["found", "takings"];
const OUTBOX: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("outbox");

/// Why the ledger cannot be opened or written.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// The directory or a file beside the database cannot be read or written.
    #[error("{path}")]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// The underlying error.
        #[source]
        source: io::Error,
    },
    /// Another process has it open.
    #[error("{path} is in use by another groundplan-agent; each needs a state directory of its own")]
    InUse {
        /// The ledger's file.
        path: PathBuf,
    },
    /// Written by a newer program.
    #[error("{path} has format {found}, and this agent supports {SCHEMA}; install the agent that wrote it")]
    Newer {
        /// The ledger's file.
        path: PathBuf,
        /// The format in the file.
        found: u64,
    },
    /// It cannot be read as a ledger.
    #[error(
        "{path} is damaged; move it away and start again: the node then gets a new ledger and converges from an empty base"
    )]
    Damaged {
        /// The ledger's file.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: Damage,
    },
    /// A transaction failed, as on a full disk.
    #[error("{path} cannot be written")]
    Write {
        /// The ledger's file.
        path: PathBuf,
        /// The underlying error.
        #[source]
        source: Box<redb::Error>,
    },
}

/// What is wrong with a damaged ledger.
#[derive(Debug, thiserror::Error)]
pub enum Damage {
    /// The database's own structure is damaged.
    #[error(transparent)]
    Database(Box<redb::Error>),
    /// A value is not valid JSON of its type.
    #[error("the value of `{key}`")]
    Value {
        /// The key of the value.
        key: String,
        /// What is wrong with it.
        #[source]
        source: serde_json::Error,
    },
    /// An id does not follow its grammar.
    #[error(transparent)]
    Id(#[from] InvalidId),
    /// A required value is missing.
    #[error("`{0}` is missing")]
    Missing(&'static str),
}

impl From<Infallible> for Damage {
    fn from(never: Infallible) -> Self {
        match never {}
    }
}

macro_rules! from_database {
    ($($error:ty),*) => {
        $(impl From<$error> for Damage {
            fn from(error: $error) -> Self {
                Self::Database(Box::new(error.into()))
            }
        })*
    };
}

from_database!(redb::Error, DatabaseError, redb::TransactionError, redb::TableError, redb::StorageError);

/// The open database; only one process can have it open.
pub struct Ledger {
    path: PathBuf,
    db: Option<Database>,
}

/// The tables of a write transaction.
struct Tables<'tx> {
    meta: Table<'tx, &'static str, &'static [u8]>,
    done: Table<'tx, &'static str, &'static [u8]>,
    applied: Table<'tx, &'static str, &'static [u8]>,
    takings: Table<'tx, &'static str, &'static [u8]>,
    obligations: Table<'tx, &'static str, &'static [u8]>,
    found: Table<'tx, &'static str, &'static [u8]>,
    outbox: Table<'tx, &'static str, &'static [u8]>,
}

impl<'tx> Tables<'tx> {
    fn open(tx: &'tx WriteTransaction) -> Result<Self, redb::Error> {
        Ok(Self {
            meta: tx.open_table(META)?,
            done: tx.open_table(DONE)?,
            applied: tx.open_table(APPLIED)?,
            takings: tx.open_table(TAKINGS)?,
            obligations: tx.open_table(OBLIGATIONS)?,
            found: tx.open_table(FOUND)?,
            outbox: tx.open_table(OUTBOX)?,
        })
    }

    fn write(&mut self, write: &Write) -> Result<(), redb::Error> {
        match write {
            Write::Plan(plan) => {
                self.meta.insert("plan", json(plan).as_slice())?;
                match &plan.json {
                    Some(tasks) => self.meta.insert("tasks", tasks.as_slice())?,
                    None => self.meta.remove("tasks")?,
                };
                // Outcomes belong to the plan before.
                empty(&mut self.done, None)?;
            }
            // Generation and digest stay: they refuse older plans.
            Write::PlanFinished => {
                self.meta.remove("tasks")?;
            }
            Write::Done(task, outcome) => {
                self.done.insert(task.to_string().as_str(), json(outcome).as_slice())?;
            }
            Write::Applied(task, Some(record)) => {
                self.applied.insert(task.to_string().as_str(), json(record).as_slice())?;
            }
            Write::Applied(task, None) => {
                self.applied.remove(task.to_string().as_str())?;
            }
            Write::Taking(task, Some(takings)) => {
                self.takings.insert(task.to_string().as_str(), json(takings).as_slice())?;
            }
            Write::Taking(task, None) => {
                self.takings.remove(task.to_string().as_str())?;
            }
            Write::Obligation(task, Some(obligation)) => {
                self.obligations.insert(task.to_string().as_str(), json(obligation).as_slice())?;
            }
            Write::Obligation(task, None) => {
                self.obligations.remove(task.to_string().as_str())?;
            }
            Write::Found(key, Some(found)) => {
                self.found.insert(key.as_str(), json(found).as_slice())?;
            }
            Write::Found(key, None) => {
                self.found.remove(key.as_str())?;
            }
            Write::Report(number, report) => {
                self.outbox.insert(key(*number).as_str(), json(report).as_slice())?;
            }
            Write::Acknowledged(to) => {
                empty(&mut self.outbox, Some(key(*to)))?;
                // With an empty outbox only this shows the last number, which must never be used again.
                self.meta.insert("acked", json(to).as_slice())?;
            }
            Write::DropOutput(number) => {
                // It may have been acknowledged since, and deleted; the outcome itself always stays.
                let stored = self.outbox.get(key(*number).as_str())?;
                let report: Option<TaskReport> = stored.and_then(|v| serde_json::from_slice(v.value()).ok());
                if let Some(report) = report {
                    let report = TaskReport { output: None, ..report };
                    self.outbox.insert(key(*number).as_str(), json(&report).as_slice())?;
                }
            }
            Write::Epoch(epoch) => {
                self.meta.insert("epoch", json(epoch).as_slice())?;
            }
            Write::Boot(boot) => {
                self.meta.insert("boot", json(boot).as_slice())?;
            }
        }
        Ok(())
    }
}

impl Ledger {
    /// Opens the ledger in `dir`, or makes one with the id that `new_id` draws; and reads it with its journal.
    pub fn open(dir: &Path, new_id: impl FnOnce() -> LedgerId) -> Result<(Self, Journal, Snapshot), LedgerError> {
        let io = |path: &Path| {
            let path = path.to_owned();
            move |source| LedgerError::Io { path, source }
        };
        // Parameters of tasks may hold passwords: only the agent's own user may read it.
        private::parents(dir).map_err(io(dir))?;
        let path = dir.join("ledger.redb");
        let mut ledger = Self { path: path.clone(), db: None };
        ledger.reopen()?;
        let mut snapshot = ledger.read(new_id)?;
        let journal_path = dir.join("started");
        let (journal, started) = Journal::open(&journal_path).map_err(io(&journal_path))?;
        snapshot.started = started;
        Ok((ledger, journal, snapshot))
    }

    /// Opens the file again, which is needed after a failed transaction.
    pub fn reopen(&mut self) -> Result<(), LedgerError> {
        self.db = None;
        let path = self.path.clone();
        // redb takes an empty file for a new database; but an empty file here is a ledger that was truncated.
        if fs::metadata(&path).is_ok_and(|m| m.len() == 0) {
            return Err(LedgerError::Damaged { path, source: Damage::Missing("all of its content") });
        }
        let file = private::open(&path, fs::File::options().read(true).write(true).create(true));
        let opened = file.map_err(DatabaseError::from).and_then(FileBackend::new);
        let opened = opened.and_then(|file| Builder::new().set_cache_size(CACHE).create_with_backend(file));
        let db = opened.map_err(|error| match error {
            DatabaseError::DatabaseAlreadyOpen => LedgerError::InUse { path },
            DatabaseError::Storage(redb::StorageError::Io(source))
                if !matches!(source.kind(), io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof) =>
            {
                LedgerError::Io { path, source }
            }
            other => LedgerError::Damaged { path, source: other.into() },
        })?;
        self.db = Some(db);
        Ok(())
    }

    fn db(&self) -> Result<&Database, redb::Error> {
        self.db.as_ref().ok_or(redb::Error::DatabaseClosed)
    }

    fn read(&self, new_id: impl FnOnce() -> LedgerId) -> Result<Snapshot, LedgerError> {
        let damaged = |source| LedgerError::Damaged { path: self.path.clone(), source };
        match self.schema().map_err(damaged)? {
            None => self.create(&new_id()).map_err(|source| self.failed(source))?,
            Some(SCHEMA) => {}
            Some(found) => return Err(LedgerError::Newer { path: self.path.clone(), found }),
        }
        self.snapshot().map_err(damaged)
    }

    fn failed(&self, source: redb::Error) -> LedgerError {
        LedgerError::Write { path: self.path.clone(), source: Box::new(source) }
    }

    fn schema(&self) -> Result<Option<u64>, Damage> {
        let tx = self.db()?.begin_read()?;
        let meta = match tx.open_table(META) {
            Err(redb::TableError::TableDoesNotExist(_)) => return Ok(None),
            other => other?,
        };
        Ok(Some(value(&meta, "schema")?.ok_or(Damage::Missing("schema"))?))
    }

    fn create(&self, id: &LedgerId) -> Result<(), redb::Error> {
        let tx = self.db()?.begin_write()?;
        {
            let mut meta = tx.open_table(META)?;
            meta.insert("schema", json(&SCHEMA).as_slice())?;
            meta.insert("ledger", json(id).as_slice())?;
            // Reading fails for a table that was never opened for writing.
            for table in [DONE, APPLIED, TAKINGS, OBLIGATIONS, FOUND, OUTBOX] {
                tx.open_table(table)?;
            }
        }
        tx.commit()?;
        Ok(())
    }

    fn snapshot(&self) -> Result<Snapshot, Damage> {
        let tx = self.db()?.begin_read()?;
        let meta = tx.open_table(META)?;
        let mut plan: Option<StoredPlan> = value(&meta, "plan")?;
        if let Some(plan) = &mut plan {
            plan.json = meta.get("tasks")?.map(|v| v.value().to_vec());
        }
        let (mut acked, mut sequence, mut outputs) = (None, Sequence(0), Vec::new());
        for entry in tx.open_table(OUTBOX)?.iter()? {
            let (number, report) = entry?;
            sequence = number_of(number.value())?;
            // Acknowledged reports are deleted, so the first one that is left follows the last acknowledged.
            acked = acked.or(Some(Sequence(sequence.0 - 1)));
            let report: TaskReport = parse(&sequence.to_string(), report.value())?;
            if let Some(output) = report.output {
                outputs.push((sequence, output.head.len() + output.tail.len()));
            }
        }
        // With an empty outbox only this remembers the last number, which must never be used again.
        let forgotten: Sequence = value(&meta, "acked")?.unwrap_or_default();
        Ok(Snapshot {
            ledger: value(&meta, "ledger")?.ok_or(Damage::Missing("ledger"))?,
            epoch: value(&meta, "epoch")?.unwrap_or_default(),
            boot: value(&meta, "boot")?,
            plan,
            done: table(&tx, DONE)?,
            applied: table(&tx, APPLIED)?,
            takings: table(&tx, TAKINGS)?,
            obligations: table(&tx, OBLIGATIONS)?,
            found: table(&tx, FOUND)?,
            noted: Vec::new(),
            sequence: sequence.max(forgotten),
            acked: acked.unwrap_or(forgotten).max(forgotten),
            outputs,
            started: Vec::new(),
        })
    }

    /// Writes all in one transaction; with `durable`, it is on the disk when this returns.
    pub fn write(&self, writes: &[Write], durable: bool) -> Result<(), LedgerError> {
        self.transaction(writes, durable).map_err(|source| self.failed(source))
    }

    fn transaction(&self, writes: &[Write], durable: bool) -> Result<(), redb::Error> {
        let mut tx = self.db()?.begin_write()?;
        tx.set_durability(if durable { Durability::Immediate } else { Durability::None })?;
        {
            // Each table is opened once for all writes; all must be closed before the commit.
            let mut tables = Tables::open(&tx)?;
            writes.iter().try_for_each(|write| tables.write(write))?;
        }
        tx.commit()?;
        Ok(())
    }

    /// Stored reports from `from` to `to`, at most `most` and, beyond the first, at most `bytes` of JSON.
    pub fn reports(
        &self,
        from: Sequence,
        to: Sequence,
        most: usize,
        bytes: usize,
    ) -> Result<Vec<(Sequence, TaskReport)>, LedgerError> {
        self.stored(from, to, most, bytes).map_err(|source| LedgerError::Damaged { path: self.path.clone(), source })
    }

    fn stored(
        &self,
        from: Sequence,
        to: Sequence,
        most: usize,
        bytes: usize,
    ) -> Result<Vec<(Sequence, TaskReport)>, Damage> {
        let tx = self.db()?.begin_read()?;
        let (mut reports, mut size) = (Vec::new(), 0);
        if from > to {
            return Ok(reports);
        }
        for entry in tx.open_table(OUTBOX)?.range(key(from).as_str()..=key(to).as_str())? {
            let (number, report) = entry?;
            size += report.value().len();
            // At least one, however large: a report must never block the ones after it.
            if !reports.is_empty() && (size > bytes || reports.len() >= most) {
                break;
            }
            reports.push((number_of(number.value())?, parse(number.value(), report.value())?));
        }
        Ok(reports)
    }
}

/// A number as a key, with leading zeros, so that keys sort as numbers do.
fn key(number: Sequence) -> String {
    format!("{:020}", number.0)
}

fn number_of(key: &str) -> Result<Sequence, Damage> {
    key.parse().map(Sequence).map_err(|_| Damage::Missing("a report's number"))
}

/// Removes all entries, or those up to a key.
/// Deletes the entries up to `to`, or all. The keys are collected first: a table cannot change while it is iterated.
fn empty(table: &mut Table<'_, &str, &[u8]>, to: Option<String>) -> Result<(), redb::Error> {
    let mut keys = Vec::new();
    for entry in table.iter()? {
        let key = entry?.0.value().to_owned();
        if to.as_ref().is_some_and(|to| key > *to) {
            break;
        }
        keys.push(key);
    }
    for key in keys {
        table.remove(key.as_str())?;
    }
    Ok(())
}

fn json<T: Serialize>(value: &T) -> Vec<u8> {
    serde_json::to_vec(value).expect("the ledger's values have string keys and serialize without IO")
}

fn parse<T: DeserializeOwned>(key: &str, bytes: &[u8]) -> Result<T, Damage> {
    serde_json::from_slice(bytes).map_err(|source| Damage::Value { key: key.to_owned(), source })
}

fn value<T: DeserializeOwned>(meta: &redb::ReadOnlyTable<&str, &[u8]>, key: &'static str) -> Result<Option<T>, Damage> {
    meta.get(key)?.map(|v| parse(key, v.value())).transpose()
}

/// A table; empty where a ledger of an older agent lacks it.
fn table<K, T>(
    tx: &redb::ReadTransaction,
    definition: TableDefinition<'_, &str, &[u8]>,
) -> Result<BTreeMap<K, T>, Damage>
where
    K: FromStr<Err: Into<Damage>> + Ord,
    T: DeserializeOwned,
{
    let table = match tx.open_table(definition) {
        Err(redb::TableError::TableDoesNotExist(name)) if ADDED_LATER.contains(&&*name) => return Ok(BTreeMap::new()),
        table => table?,
    };
    let mut out = BTreeMap::new();
    for entry in table.iter()? {
        let (key, bytes) = entry?;
        out.insert(key.value().parse().map_err(Into::into)?, parse(key.value(), bytes.value())?);
    }
    Ok(out)
}
