//! The planner's disk: what its store holds, as plain values that take the machine's writes.
//!
//! In: groups of writes, each whole or not at all. Out: what a restart finds. Rollouts go through JSON, as in the real store.

use std::collections::BTreeMap;

use groundplan_core::Rollout;
use groundplan_machine::{
    record::{LogEntry, Meta, StoredNode, StoredPlan},
    rollout::{RolloutDetail, RolloutHead},
    write::{Stored, Write},
};
use groundplan_protocol::ids::{Generation, LedgerId, NodeId, Sequence};

/// See the module.
#[derive(Debug, Default)]
pub(super) struct PlannerDisk {
    pub(super) meta: Meta,
    pub(super) nodes: BTreeMap<NodeId, StoredNode>,
    pub(super) acks: BTreeMap<NodeId, (LedgerId, Sequence)>,
    pub(super) plans: BTreeMap<NodeId, StoredPlan>,
    rollout: Option<(RolloutHead, Vec<u8>)>,
    pub(super) log: Vec<LogEntry>,
    ends: BTreeMap<Generation, Option<u64>>,
}

impl PlannerDisk {
    /// Carries out a write.
    pub(super) fn apply(&mut self, write: Write) {
        match write {
            Write::Meta(meta) => self.meta = *meta,
            Write::Node(node, stored) => drop(self.nodes.insert(node, *stored)),
            Write::Ack(node, ledger, sequence) => drop(self.acks.insert(node, (ledger, sequence))),
            Write::Plan(node, Some(plan)) => drop(self.plans.insert(node, plan)),
            Write::Plan(node, None) => drop(self.plans.remove(&node)),
            Write::Rollout(head, rollout) => {
                let json = serde_json::to_vec(&rollout).expect("a rollout has string keys");
                self.rollout = Some(((*head).clone(), json));
                self.log.clear();
            }
            Write::Log(entry) => self.log.push(entry),
            Write::History(detail) => self.history(&detail),
            Write::Refusal(_) | Write::Command(_) => {}
        }
    }

    fn history(&mut self, detail: &RolloutDetail) {
        self.ends.insert(detail.summary.generation, detail.summary.finished_ms);
        // The real store keeps so many, too.
        while self.ends.len() > 100 {
            self.ends.pop_first();
        }
    }

    /// What a restart finds.
    pub(super) fn stored(&self) -> Stored {
        let rollout = self.rollout.as_ref().map(|(head, json)| {
            let rollout: Rollout = serde_json::from_slice(json).expect("as it was written");
            let ended_ms = self.ends.get(&head.generation).copied().flatten();
            (RolloutHead { ended_ms, ..head.clone() }, rollout)
        });
        Stored {
            meta: self.meta.clone(),
            nodes: self.nodes.clone(),
            acks: self.acks.clone(),
            plans: self.plans.iter().map(|(node, plan)| (node.clone(), plan.note.clone())).collect(),
            rollout,
            log: self.log.clone(),
            commands: Vec::new(),
        }
    }
}
