//! The tables of `planner.redb`, and how their rows are encoded: JSON of the types in `record`, but for acknowledgements and plans.

use groundplan_machine::record::PlanNote;
use groundplan_protocol::{digest::Digest, ids::Generation};
use redb::TableDefinition;
use serde::{Serialize, de::DeserializeOwned};

use super::error::StoreError;

/// Version of the file's layout: of the tables, and of the rows in them.
pub(super) const SCHEMA: u32 = 3;

/// Generation, digest of what it asks for, id, and the plan's JSON.
type PlanRow = (u64, &'static [u8], &'static [u8; 32], &'static [u8]);

/// What there is one of, under the keys below.
pub(super) const META: TableDefinition<&str, &[u8]> = TableDefinition::new("meta");
/// By node: what it has applied, its obligations, and its last state.
pub(super) const NODES: TableDefinition<&str, &[u8]> = TableDefinition::new("nodes");
/// By node: its ledger, and the last of its reports that is on the disk.
pub(super) const ACKS: TableDefinition<&str, (&str, u64)> = TableDefinition::new("acks");
/// By node: the last plan for it. Until layout 2 the table was `plans`, with signed messages.
pub(super) const PLANS: TableDefinition<&str, PlanRow> = TableDefinition::new("node plans");
/// By number, from 0 for every rollout.
pub(super) const LOG: TableDefinition<u64, &[u8]> = TableDefinition::new("log");
/// By generation: the summary of a rollout.
pub(super) const ROLLOUTS: TableDefinition<u64, &[u8]> = TableDefinition::new("rollouts");
/// By the time at which they began, and their id.
pub(super) const COMMANDS: TableDefinition<(u64, &str), &[u8]> = TableDefinition::new("commands");
/// By the time at which they were refused, and their id: refused commits. Releases before 0.2 lack it.
pub(super) const REFUSALS: TableDefinition<(u64, &str), &[u8]> = TableDefinition::new("refusals");

/// Key in [`META`] of the number of the layout.
pub(super) const SCHEMA_KEY: &str = "schema";
/// Key in [`META`] of the `MetaRow`.
pub(super) const META_KEY: &str = "meta";
/// Key in [`META`] of the latest rollout: its `HeadRow`, and the core's snapshot from its start.
pub(super) const ROLLOUT_KEY: &str = "rollout";

pub(super) fn to_json<T: Serialize>(value: &T) -> Result<Vec<u8>, StoreError> {
    serde_json::to_vec(value).map_err(StoreError::Record)
}

pub(super) fn from_json<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, StoreError> {
    serde_json::from_slice(bytes).map_err(StoreError::Record)
}

/// What is remembered of a plan, by its row.
pub(super) fn note(generation: u64, asks: &[u8], id: &[u8; 32]) -> PlanNote {
    PlanNote { generation: Generation(generation), asks: asks.to_owned(), id: Digest::from_bytes(*id) }
}
