//! The fleet: what each node has reported.
//!
//! In: states, presences and reports whose signatures were checked. Out: what they mean for planning, and what is to be stored.
//! Folding is idempotent: what comes twice, late or from an old ledger is recognized by numbers. Decides nothing about plans.

mod log_budget;
mod node;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use groundplan_core::{Knowledge, applied::NodeApplied, knowledge::Misfit};
use groundplan_protocol::{
    ids::{LedgerId, NodeId, Sequence, TaskId},
    presence::Presence,
    report::ReportBatch,
    state::NodeState,
    time::Now,
};

use self::node::edges_differ;
pub use self::node::{Node, NodePresence, Rejected};
pub(crate) use self::node::{StateNews, exports_differ};
use crate::{
    commit::ActiveCommit,
    damping::Damping,
    record::LogEntry,
    write::{Stored, Write},
};

/// All nodes of which a message came, by name.
///
/// Each is shared with views that were taken: it is copied when it changes while a view of it is in use, and not otherwise.
#[derive(Debug, Default)]
pub(crate) struct Fleet {
    nodes: BTreeMap<NodeId, Arc<Node>>,
    /// How many nodes that the inventory does not declare may be remembered.
    strangers: usize,
    /// Those that contradicted themselves, and wait.
    damped: BTreeSet<NodeId>,
    /// Those with which no plan was made as they are: see [`Node::considered`]. Mostly few.
    unconsidered: BTreeSet<NodeId>,
}

/// What a state brought.
#[derive(Debug)]
pub(crate) struct StateFolded {
    pub(crate) news: StateNews,
    /// If the facts have changed: whether there were none before.
    pub(crate) facts: Option<bool>,
    /// Tasks that publish another value than before, each with that one.
    pub(crate) exports: Vec<(TaskId, Option<String>)>,
    /// What it had applied before.
    pub(crate) before: NodeApplied,
    /// Tasks of which the node has recorded other edges than was believed.
    pub(crate) edges: Vec<TaskId>,
}

impl Fleet {
    /// As it was stored, with the reports that came after a node was written.
    pub(crate) fn restore(stored: &mut Stored, strangers: usize, now: Now) -> Self {
        let mut fleet = Self { strangers, ..Self::default() };
        for (node, known) in std::mem::take(&mut stored.nodes) {
            let acked = stored.acks.remove(&node);
            fleet.nodes.insert(node, Arc::new(Node::restore(known, acked, now)));
        }
        for node in fleet.nodes.keys().cloned().collect::<Vec<_>>() {
            fleet.unconsidered.insert(node.clone());
            fleet.note_damped(&node);
        }
        for (node, planned) in std::mem::take(&mut stored.plans) {
            fleet.entry(&node).planned = Some(planned);
        }
        for entry in &stored.log {
            let LogEntry::Reports { node, ledger, first, reports } = entry else { continue };
            let known = fleet.entry(node);
            for (i, report) in reports.iter().enumerate() {
                known.fold_report(ledger, Sequence(first.0.saturating_add(i as u64)), report, None);
            }
        }
        fleet
    }

    pub(crate) fn nodes(&self) -> &BTreeMap<NodeId, Arc<Node>> {
        &self.nodes
    }

    pub(crate) fn get(&self, node: &NodeId) -> Option<&Node> {
        self.nodes.get(node).map(|node| &**node)
    }

    pub(crate) fn get_mut(&mut self, node: &NodeId) -> Option<&mut Node> {
        self.nodes.get_mut(node).map(Arc::make_mut)
    }

    fn entry(&mut self, node: &NodeId) -> &mut Node {
        let unconsidered = &mut self.unconsidered;
        Arc::make_mut(self.nodes.entry(node.clone()).or_insert_with(|| {
            unconsidered.insert(node.clone());
            Arc::default()
        }))
    }

    /// The nodes with which no plan was made as they are.
    pub(crate) fn unconsidered(&self) -> impl Iterator<Item = (&NodeId, &Node)> {
        self.unconsidered.iter().filter_map(|id| Some((id, self.get(id)?)))
    }

    /// Notes that a plan was made with a node as it is.
    pub(crate) fn consider(&mut self, id: &NodeId) {
        if let Some(node) = self.get_mut(id) {
            node.considered = true;
        }
        self.unconsidered.remove(id);
    }

    /// A node of which a message came; none if it is not declared and there is no room for another stranger.
    pub(crate) fn admit(&mut self, node: &NodeId, active: Option<&ActiveCommit>) -> Option<&mut Node> {
        let declared = active.is_some_and(|active| active.declares(node));
        let room = declared || self.nodes.contains_key(node) || {
            let declared = active.map_or(0, |active| active.desired.nodes.len());
            self.nodes.len() < declared + self.strangers
        };
        room.then(|| self.entry(node))
    }

    /// Takes a node's state.
    pub(crate) fn fold_state(&mut self, node: &NodeId, state: NodeState) -> Option<StateFolded> {
        let known = self.get_mut(node)?;
        let (facts, exports, before) = (known.facts.clone(), known.exports.clone(), known.belief.applied.clone());
        let news = known.fold_state(state);
        let considered = known.considered;
        let facts = (known.facts != facts).then_some(facts.is_empty());
        let differ = exports_differ(&exports, &known.exports).into_iter();
        let exports = differ.map(|task| (task.clone(), exports.get(&task).cloned())).collect();
        let edges = edges_differ(&before.tasks, &known.belief.applied.tasks);
        if !considered {
            self.unconsidered.insert(node.clone());
        }
        Some(StateFolded { news, facts, exports, before, edges })
    }

    /// Takes a node's presence. Returns it if it is another one than before.
    pub(crate) fn fold_presence(&mut self, node: &NodeId, presence: &Presence, now: Now) -> Option<NodePresence> {
        let known = self.get_mut(node)?;
        known.away_since = (!presence.online).then(|| known.away_since.map_or(now.mono, |since| since.min(now.mono)));
        let standing = if presence.online { NodePresence::Online } else { NodePresence::Offline };
        known.session = presence.session.clone().filter(|_| presence.online);
        known.trouble = presence.trouble.clone().filter(|_| presence.online);
        if std::mem::replace(&mut known.presence, standing) == standing {
            return None;
        }
        if !presence.online {
            known.running.clear();
        }
        Some(standing)
    }

    /// Takes what a node runs. Returns the tasks that it has begun since the last time.
    pub(crate) fn fold_running(&mut self, node: &NodeId, batch: &ReportBatch) -> Vec<TaskId> {
        let Some(known) = self.get_mut(node) else { return Vec::new() };
        let started = batch.running.iter().filter(|task| !known.running.contains(task)).cloned().collect();
        known.running.clone_from(&batch.running);
        started
    }

    /// What is known of all nodes, as an input of resolving a commit.
    pub(crate) fn knowledge(&self, misfit: Misfit) -> Knowledge {
        let mut knowledge = Knowledge { misfit, ..Knowledge::default() };
        for (id, node) in &self.nodes {
            if !node.facts.is_empty() {
                knowledge.facts.insert(id.clone(), node.facts.clone());
            }
            for (task, value) in &node.exports {
                if node.damping.export(task).is_none() {
                    knowledge.exports.entry(task.clone()).or_default().insert(id.clone(), value.clone());
                }
            }
            for (task, value) in node.damping.exports() {
                knowledge.exports.entry(task.clone()).or_default().insert(id.clone(), value.clone());
            }
        }
        knowledge
    }

    /// Another commit is active: what it changes waits for no node that contradicted itself.
    pub(crate) fn commit_is_active(&mut self) {
        for node in self.nodes.values_mut().filter(|node| node.damping != Damping::default()) {
            Arc::make_mut(node).damping.commit();
        }
    }

    /// Has a node's wait noticed, if it has begun.
    pub(crate) fn note_damped(&mut self, node: &NodeId) {
        if self.get(node).is_some_and(|known| known.damping.is_waiting()) {
            self.damped.insert(node.clone());
        }
    }

    /// Nodes that contradicted themselves and whose wait is over, each with the tasks whose values count now.
    pub(crate) fn release(&mut self, now: Now) -> Vec<(NodeId, Vec<TaskId>)> {
        let mut released = Vec::new();
        for node in std::mem::take(&mut self.damped) {
            match self.get_mut(&node).map(|known| known.release(now)) {
                Some(Some(exports)) => released.push((node, exports)),
                Some(None) => self.note_damped(&node),
                None => {}
            }
        }
        released
    }

    /// When [`Self::release`] has something to do, by the monotonic clock.
    pub(crate) fn release_at(&self, now: Now) -> Option<Duration> {
        self.damped.iter().filter_map(|node| self.get(node)?.damping.deadline(now)).min()
    }

    /// What the store does not hold as it is here.
    pub(crate) fn unstored(&mut self) -> Vec<Write> {
        let mut writes = Vec::new();
        for (id, node) in self.nodes.iter_mut().filter(|(_, node)| node.is_dirty()) {
            let stored = Arc::make_mut(node).take_unstored();
            writes.extend(stored.map(|stored| Write::Node(id.clone(), Box::new(stored))));
        }
        writes
    }

    /// The last report of a node that is on the disk, and of which ledger.
    pub(crate) fn acked(&self, node: &NodeId) -> Option<(LedgerId, Sequence)> {
        self.get(node)?.acked.clone()
    }
}
