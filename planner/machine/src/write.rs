//! Changes of the store, and all that it holds.

use std::{collections::BTreeMap, sync::Arc};

use groundplan_core::Rollout;
use groundplan_protocol::ids::{LedgerId, NodeId, Sequence};

use crate::{
    command::CommandRecord,
    commit::Refusal,
    record::{LogEntry, Meta, PlanNote, StoredNode, StoredPlan},
    rollout::{RolloutDetail, RolloutHead},
};

/// A change of the store.
#[derive(Debug, Clone)]
pub enum Write {
    /// What there is one of.
    Meta(Box<Meta>),
    /// What is known of a node.
    Node(NodeId, Box<StoredNode>),
    /// The last report of a node that is on the disk, and of which ledger.
    Ack(NodeId, LedgerId, Sequence),
    /// The latest plan of a node, or that it has none.
    Plan(NodeId, Option<StoredPlan>),
    /// A rollout that begins; it ends the log of the one before.
    Rollout(Arc<RolloutHead>, Box<Rollout>),
    /// What happened to the rollout.
    Log(LogEntry),
    /// A rollout for the history; replaces one of its generation.
    History(Box<RolloutDetail>),
    /// A refused commit, for the history.
    Refusal(Box<Refusal>),
    /// A command, as it stands; replaces one of its id.
    Command(Box<CommandRecord>),
}

/// All that the store holds, as it is read at the start.
#[derive(Debug, Default)]
pub struct Stored {
    /// What there is one of.
    pub meta: Meta,
    /// What is known of each node.
    pub nodes: BTreeMap<NodeId, StoredNode>,
    /// The last report of each node that is on the disk, and of which ledger.
    pub acks: BTreeMap<NodeId, (LedgerId, Sequence)>,
    /// The latest plan of each node.
    pub plans: BTreeMap<NodeId, PlanNote>,
    /// The latest rollout, as it was at its start; its head with its end, if the history knows it.
    pub rollout: Option<(RolloutHead, Rollout)>,
    /// What happened to it since, in order.
    pub log: Vec<LogEntry>,
    /// Commands that the planner before did not see end.
    pub commands: Vec<CommandRecord>,
}
