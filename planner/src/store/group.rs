//! Changes that are written together.

use std::{collections::BTreeMap, sync::Arc};

use groundplan_core::Rollout;
use groundplan_machine::{record::StoredPlan, rollout::RolloutHead, write::Write};
use groundplan_protocol::ids::{LedgerId, NodeId, Sequence};

use crate::record::{CommandRow, HistoryRow, LogRow, MetaRow, NodeRow, RefusalRow};

/// Changes of the store, of one round or of several: one transaction. Of two changes of one thing the later counts.
#[derive(Debug, Default)]
pub struct Group {
    pub(super) meta: Option<MetaRow>,
    pub(super) nodes: BTreeMap<NodeId, NodeRow>,
    pub(super) acks: BTreeMap<NodeId, (LedgerId, Sequence)>,
    /// None: the node has no plan any more.
    pub(super) plans: BTreeMap<NodeId, Option<StoredPlan>>,
    /// A rollout that begins: the log in the store is that of the one before. Its row borrows from it.
    pub(super) rollout: Option<(Arc<RolloutHead>, Box<Rollout>)>,
    /// Of that rollout if there is one, else of the one in the store.
    pub(super) log: Vec<LogRow>,
    pub(super) history: Vec<HistoryRow>,
    pub(super) refusals: Vec<RefusalRow>,
    pub(super) commands: Vec<CommandRow>,
}

impl Group {
    /// Adds a change, to be written after those that were added before.
    pub fn push(&mut self, write: Write) {
        match write {
            Write::Meta(meta) => self.meta = Some((*meta).into()),
            Write::Node(node, stored) => drop(self.nodes.insert(node, (*stored).into())),
            Write::Ack(node, ledger, sequence) => drop(self.acks.insert(node, (ledger, sequence))),
            Write::Plan(node, plan) => drop(self.plans.insert(node, plan)),
            Write::Rollout(head, rollout) => {
                // What was logged before in this group happened to the rollout that this one replaces.
                self.log.clear();
                self.rollout = Some((head, rollout));
            }
            Write::Log(entry) => self.log.push(entry.into()),
            Write::History(detail) => self.history.push((*detail).into()),
            Write::Refusal(refusal) => self.refusals.push((*refusal).into()),
            Write::Command(record) => self.commands.push((*record).into()),
        }
    }

    /// Whether there is nothing to write.
    pub fn is_empty(&self) -> bool {
        let Self { meta, nodes, acks, plans, rollout, log, history, refusals, commands } = self;
        meta.is_none()
            && nodes.is_empty()
            && acks.is_empty()
            && plans.is_empty()
            && rollout.is_none()
            && log.is_empty()
            && history.is_empty()
            && refusals.is_empty()
            && commands.is_empty()
    }
}

impl Extend<Write> for Group {
    fn extend<T: IntoIterator<Item = Write>>(&mut self, writes: T) {
        writes.into_iter().for_each(|write| self.push(write));
    }
}
