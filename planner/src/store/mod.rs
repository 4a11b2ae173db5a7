//! What a planner keeps: one redb file, small enough in memory for a small host.
//!
//! In: groups of changes, each one transaction and one fsync, done before anything of it is published or acknowledged. Out: all of it
//! again at the next start. A running rollout is its snapshot at the start and a log of the reports since: a group of reports costs
//! what it holds, not what the rollout holds. Losing the file loses history, not the fleet: git and the agents bring the rest back.

mod records;

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
};

use groundplan_core::Rollout;
use groundplan_protocol::ids::{ExecId, Generation, LedgerId, NodeId, Sequence};
use redb::{
    Database, DatabaseError, ReadableDatabase as _, ReadableTable as _, ReadableTableMetadata as _, TableDefinition,
    TableError,
};
use serde::{Serialize, de::DeserializeOwned};

pub use self::records::{LogEntry, Meta, PlannedReasons, RolloutHead, StoredNode, StoredPlan};
use crate::api::{
    exec::{ExecRecord, ExecResult},
    types::RolloutDetail,
};

/// Version of the file's layout.
const SCHEMA: u32 = 1;

/// How many rollouts the history holds.
const HISTORY: usize = 1000;

/// How many commands it holds.
const EXECS: usize = 200;

/// What redb may keep in memory, in bytes.
const CACHE: usize = 4 << 20;

/// Generation, digest of what it asks for, the sealed message, and the plan's JSON where the message only refers to it.
type PlanRow = (u64, &'static [u8], &'static [u8], &'static [u8]);

const META: TableDefinition<&str, &[u8]> = TableDefinition::new("meta");
const NODES: TableDefinition<&str, &[u8]> = TableDefinition::new("nodes");
const ACKS: TableDefinition<&str, (&str, u64)> = TableDefinition::new("acks");
const PLANS: TableDefinition<&str, PlanRow> = TableDefinition::new("plans");
const LOG: TableDefinition<u64, &[u8]> = TableDefinition::new("log");
const ROLLOUTS: TableDefinition<u64, &[u8]> = TableDefinition::new("rollouts");
/// By the time at which they began, and their id.
const COMMANDS: TableDefinition<(u64, &str), &[u8]> = TableDefinition::new("commands");

/// Why the store cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Another planner has it.
    #[error("another planner is running on {}", path.display())]
    InUse {
        /// The file.
        path: PathBuf,
    },
    /// Written by a later release.
    #[error("{} was written by a newer groundplan (layout {found}; this one knows {SCHEMA})", path.display())]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its layout.
        found: u32,
    },
    /// No file can be made there.
    #[error("cannot use {}", path.display())]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It cannot be opened.
    #[error("cannot open {}", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: DatabaseError,
    },
    /// It cannot be read or written; the disk may be full.
    #[error("cannot read or write the planner's store")]
    Access(#[source] Box<redb::Error>),
    /// A record is not what it should be.
    #[error("the planner's store is damaged")]
    Record(#[source] serde_json::Error),
}

impl StoreError {
    /// What to do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::InUse { .. } => Some("stop it, or give this one another --state".to_owned()),
            Self::Newer { .. } => Some(
                "use that release, or move the file away: git and the agents bring back all but the history".to_owned(),
            ),
            Self::Open { .. } | Self::Record(_) => {
                Some("move the file away: git and the agents bring back all but the history".to_owned())
            }
            Self::Io { .. } | Self::Access(_) => None,
        }
    }
}

/// Any of redb's errors.
fn access(error: impl Into<redb::Error>) -> StoreError {
    StoreError::Access(Box::new(error.into()))
}

/// The open file.
pub struct Store {
    db: Database,
    next_log: u64,
}

/// All that is read at the start.
#[derive(Debug, Default)]
pub struct Contents {
    /// What there is one of.
    pub meta: Meta,
    /// What is known of each node.
    pub nodes: BTreeMap<NodeId, StoredNode>,
    /// The last report of each node that is on the disk, and of which ledger.
    pub acks: BTreeMap<NodeId, (LedgerId, Sequence)>,
    /// The latest plan of each node, without its bytes.
    pub plans: BTreeMap<NodeId, (Generation, Vec<u8>)>,
    /// The latest rollout, as it was at its start.
    pub rollout: Option<(RolloutHead, Rollout)>,
    /// The reports since then, in the order in which they came.
    pub log: Vec<LogEntry>,
    /// Commands that the planner before did not come to end.
    pub execs: Vec<ExecRecord>,
}

/// Changes that are written together.
#[derive(Default)]
pub struct Group {
    /// Replaces what there is one of.
    pub meta: Option<Meta>,
    /// Nodes to be written, or forgotten.
    pub nodes: Vec<(NodeId, Option<StoredNode>)>,
    /// Acknowledgements to be given.
    pub acks: Vec<(NodeId, LedgerId, Sequence)>,
    /// Plans to be published, or cleared.
    pub plans: Vec<(NodeId, Option<StoredPlan>)>,
    /// A rollout that begins; it ends the log before.
    pub rollout: Option<(RolloutHead, Rollout)>,
    /// Reports that came.
    pub log: Vec<LogEntry>,
    /// Rollouts for the history; each replaces one of its generation.
    pub history: Vec<RolloutDetail>,
    /// Commands, as they stand; each replaces one of its id.
    pub execs: Vec<ExecRecord>,
}

impl Group {
    /// Whether there is nothing to write.
    pub fn is_empty(&self) -> bool {
        self.meta.is_none()
            && self.nodes.is_empty()
            && self.acks.is_empty()
            && self.plans.is_empty()
            && self.rollout.is_none()
            && self.log.is_empty()
            && self.history.is_empty()
            && self.execs.is_empty()
    }
}

fn to_json<T: Serialize>(value: &T) -> Result<Vec<u8>, StoreError> {
    serde_json::to_vec(value).map_err(StoreError::Record)
}

fn from_json<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, StoreError> {
    serde_json::from_slice(bytes).map_err(StoreError::Record)
}

/// A name that was checked before it was written.
fn id<T: std::str::FromStr>(text: &str) -> Result<T, StoreError>
where
    T::Err: std::fmt::Display,
{
    text.parse().map_err(|e: T::Err| StoreError::Record(serde::de::Error::custom(e)))
}

impl Store {
    /// Opens `planner.redb` in `dir`; makes both if they are not there.
    ///
    /// # Errors
    /// In use, of a newer layout, damaged, or not to be written.
    pub fn open(dir: &Path) -> Result<(Self, Contents), StoreError> {
        let io = |source| StoreError::Io { path: dir.to_owned(), source };
        fs::create_dir_all(dir).map_err(io)?;
        let path = dir.join("planner.redb");
        let db = Database::builder().set_cache_size(CACHE).create(&path).map_err(|source| match source {
            DatabaseError::DatabaseAlreadyOpen => StoreError::InUse { path: path.clone() },
            source => StoreError::Open { path: path.clone(), source },
        })?;
        let mut store = Self { db, next_log: 0 };
        store.check_schema(&path)?;
        let mut contents = store.read()?;
        contents.execs = store.open_execs()?;
        Ok((store, contents))
    }

    fn check_schema(&self, path: &Path) -> Result<(), StoreError> {
        let tx = self.db.begin_write().map_err(access)?;
        {
            let mut meta = tx.open_table(META).map_err(access)?;
            let found = meta.get("schema").map_err(access)?.map(|v| from_json::<u32>(v.value())).transpose()?;
            match found {
                Some(found) if found > SCHEMA => return Err(StoreError::Newer { path: path.to_owned(), found }),
                Some(_) => return Ok(()),
                None => meta.insert("schema", to_json(&SCHEMA)?.as_slice()).map_err(access)?,
            };
            tx.open_table(NODES).map_err(access)?;
            tx.open_table(ACKS).map_err(access)?;
            tx.open_table(PLANS).map_err(access)?;
            tx.open_table(LOG).map_err(access)?;
            tx.open_table(ROLLOUTS).map_err(access)?;
        }
        tx.commit().map_err(access)
    }

    fn read(&mut self) -> Result<Contents, StoreError> {
        let tx = self.db.begin_read().map_err(access)?;
        let mut contents = Contents::default();
        let meta = tx.open_table(META).map_err(access)?;
        if let Some(bytes) = meta.get("meta").map_err(access)? {
            contents.meta = from_json(bytes.value())?;
        }
        if let Some(bytes) = meta.get("rollout").map_err(access)? {
            contents.rollout = Some(from_json(bytes.value())?);
        }
        for row in tx.open_table(NODES).map_err(access)?.iter().map_err(access)? {
            let (key, value) = row.map_err(access)?;
            contents.nodes.insert(id(key.value())?, from_json(value.value())?);
        }
        for row in tx.open_table(ACKS).map_err(access)?.iter().map_err(access)? {
            let (key, value) = row.map_err(access)?;
            let (ledger, sequence) = value.value();
            contents.acks.insert(id(key.value())?, (id(ledger)?, Sequence(sequence)));
        }
        for row in tx.open_table(PLANS).map_err(access)?.iter().map_err(access)? {
            let (key, value) = row.map_err(access)?;
            let (generation, digest, _, _) = value.value();
            contents.plans.insert(id(key.value())?, (Generation(generation), digest.to_owned()));
        }
        for row in tx.open_table(LOG).map_err(access)?.iter().map_err(access)? {
            let (key, value) = row.map_err(access)?;
            self.next_log = key.value() + 1;
            contents.log.push(from_json(value.value())?);
        }
        Ok(contents)
    }

    /// Writes a group; once this returns it is on the disk.
    ///
    /// # Errors
    /// Nothing of the group was written.
    pub fn commit(&mut self, group: &Group) -> Result<(), StoreError> {
        if group.is_empty() {
            return Ok(());
        }
        let tx = self.db.begin_write().map_err(access)?;
        let mut next_log = self.next_log;
        {
            let mut meta = tx.open_table(META).map_err(access)?;
            if let Some(new) = &group.meta {
                meta.insert("meta", to_json(new)?.as_slice()).map_err(access)?;
            }
            if let Some(rollout) = &group.rollout {
                meta.insert("rollout", to_json(rollout)?.as_slice()).map_err(access)?;
                tx.delete_table(LOG).map_err(access)?;
                next_log = 0;
            }
            let mut nodes = tx.open_table(NODES).map_err(access)?;
            for (node, stored) in &group.nodes {
                match stored {
                    Some(stored) => drop(nodes.insert(node.as_str(), to_json(stored)?.as_slice()).map_err(access)?),
                    None => drop(nodes.remove(node.as_str()).map_err(access)?),
                }
            }
            let mut acks = tx.open_table(ACKS).map_err(access)?;
            for (node, ledger, sequence) in &group.acks {
                acks.insert(node.as_str(), (ledger.as_str(), sequence.0)).map_err(access)?;
            }
            let mut plans = tx.open_table(PLANS).map_err(access)?;
            for (node, plan) in &group.plans {
                match plan {
                    Some(p) => {
                        let row = (p.generation.0, p.digest.as_slice(), p.sealed.as_slice(), p.body.as_slice());
                        plans.insert(node.as_str(), row).map_err(access)?;
                    }
                    None => drop(plans.remove(node.as_str()).map_err(access)?),
                }
            }
            let mut log = tx.open_table(LOG).map_err(access)?;
            for entry in &group.log {
                log.insert(next_log, to_json(entry)?.as_slice()).map_err(access)?;
                next_log += 1;
            }
            let mut rollouts = tx.open_table(ROLLOUTS).map_err(access)?;
            for rollout in &group.history {
                rollouts.insert(rollout.summary.generation.0, to_json(rollout)?.as_slice()).map_err(access)?;
            }
            while !group.history.is_empty() && rollouts.len().map_err(access)? > HISTORY as u64 {
                rollouts.pop_first().map_err(access)?;
            }
            let mut commands = tx.open_table(COMMANDS).map_err(access)?;
            for record in &group.execs {
                let key = (record.started_ms, record.id.as_str());
                commands.insert(key, to_json(record)?.as_slice()).map_err(access)?;
            }
            while !group.execs.is_empty() && commands.len().map_err(access)? > EXECS as u64 {
                commands.pop_first().map_err(access)?;
            }
        }
        tx.commit().map_err(access)?;
        self.next_log = next_log;
        Ok(())
    }

    /// The latest plan published for a node.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn plan(&self, node: &NodeId) -> Result<Option<StoredPlan>, StoreError> {
        let tx = self.db.begin_read().map_err(access)?;
        let plans = tx.open_table(PLANS).map_err(access)?;
        let row = plans.get(node.as_str()).map_err(access)?;
        Ok(row.map(|row| {
            let (generation, digest, sealed, body) = row.value();
            StoredPlan {
                generation: Generation(generation),
                digest: digest.to_owned(),
                sealed: sealed.to_owned(),
                body: body.to_owned(),
            }
        }))
    }

    /// The latest rollouts of the history, newest first.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn history(&self, limit: usize) -> Result<Vec<RolloutDetail>, StoreError> {
        let tx = self.db.begin_read().map_err(access)?;
        let rollouts = tx.open_table(ROLLOUTS).map_err(access)?;
        let rows = rollouts.iter().map_err(access)?.rev().take(limit);
        rows.map(|row| from_json(row.map_err(access)?.1.value())).collect()
    }

    /// A rollout of the history.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn rollout(&self, generation: Generation) -> Result<Option<RolloutDetail>, StoreError> {
        let tx = self.db.begin_read().map_err(access)?;
        let rollouts = tx.open_table(ROLLOUTS).map_err(access)?;
        rollouts.get(generation.0).map_err(access)?.map(|row| from_json(row.value())).transpose()
    }

    /// The latest commands, newest first, without what they printed.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn execs(&self, limit: usize) -> Result<Vec<ExecRecord>, StoreError> {
        self.read_execs(limit, |record| Some(record.without_output()))
    }

    /// Commands that some planner did not come to end.
    fn open_execs(&self) -> Result<Vec<ExecRecord>, StoreError> {
        self.read_execs(EXECS, |record| (record.result == ExecResult::Running).then_some(record))
    }

    /// Commands, one after the other: all of them with all that they printed would be much.
    fn read_execs(
        &self,
        limit: usize,
        keep: impl Fn(ExecRecord) -> Option<ExecRecord>,
    ) -> Result<Vec<ExecRecord>, StoreError> {
        let tx = self.db.begin_read().map_err(access)?;
        let commands = match tx.open_table(COMMANDS) {
            // A store of a release that knew no commands.
            Err(TableError::TableDoesNotExist(_)) => return Ok(Vec::new()),
            commands => commands.map_err(access)?,
        };
        let rows = commands.iter().map_err(access)?.rev().take(limit);
        rows.map(|row| from_json(row.map_err(access)?.1.value()).map(&keep)).filter_map(Result::transpose).collect()
    }

    /// A command.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn exec(&self, id: &ExecId) -> Result<Option<ExecRecord>, StoreError> {
        let tx = self.db.begin_read().map_err(access)?;
        let commands = match tx.open_table(COMMANDS) {
            Err(TableError::TableDoesNotExist(_)) => return Ok(None),
            commands => commands.map_err(access)?,
        };
        for row in commands.iter().map_err(access)? {
            let (key, value) = row.map_err(access)?;
            if key.value().1 == id.as_str() {
                return from_json(value.value()).map(Some);
            }
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests;
