//! What is known of one node.

use std::{collections::BTreeMap, sync::Arc};

use groundplan_core::{Belief, knowledge::Facts, rollout::StateFold};
use groundplan_protocol::{
    digest::Digest,
    effect::Action,
    ids::{CommitId, Generation, LedgerId, NodeId, Sequence, SessionId, TaskId},
    report::{ReportBatch, TaskReport},
    state::{NodeState, Phase},
};

use super::drift::NodeLook;
use crate::{
    api::types::{NodePresence, Rejected},
    store::StoredNode,
};

/// How many earlier ledgers of a node are remembered.
const PAST: usize = 16;

/// One node.
#[derive(Default)]
pub(super) struct NodeRecord {
    pub(super) belief: Belief,
    /// Ledgers that it had before.
    past: Vec<LedgerId>,
    /// The last report on our disk, and of which ledger.
    pub(super) acked: Option<(LedgerId, Sequence)>,
    /// The first number of a batch that left a gap.
    gap: Option<Sequence>,
    pub(super) presence: NodePresence,
    /// Its agent's connection, while it is there.
    pub(super) session: Option<SessionId>,
    /// The last facts that it told.
    pub(super) facts: Arc<Facts>,
    /// What it has published, by its last state and the reports since.
    pub(super) exports: BTreeMap<TaskId, String>,
    /// Its last state without what is applied and owed.
    pub(super) state: Option<NodeState>,
    pub(super) seen_ms: Option<u64>,
    pub(super) rejected: Option<Rejected>,
    pub(super) running: Vec<TaskId>,
    /// Generation and digest of the last plan published for it.
    pub(super) planned: Option<(Generation, Vec<u8>)>,
    /// What is known of its drift.
    pub(super) look: NodeLook,
    /// For which commit, and from which base, it was planned last.
    pub(super) tried: Option<(CommitId, Digest)>,
    /// Not on the disk as it is here.
    pub(super) dirty: bool,
}

/// What a state means for planning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum StateNews {
    /// A replay from a ledger that the node no longer has.
    Past,
    /// Nothing.
    None,
    /// Told for people; no reason to plan.
    Seen,
    /// The node was not known, or begins anew.
    Rebuilt,
    /// What is believed has changed in a way that no plan of ours explains.
    Unexplained,
}

impl NodeRecord {
    pub(super) fn restore(stored: StoredNode, acked: Option<(LedgerId, Sequence)>) -> Self {
        let seen_ms = Some(stored.seen_ms).filter(|ms| *ms > 0);
        let (facts, exports) = stored.state.as_ref().map(|s| (s.facts.clone(), s.exports.clone())).unwrap_or_default();
        let facts = Arc::new(facts);
        Self {
            facts,
            exports,
            belief: stored.belief,
            past: stored.past,
            state: stored.state,
            acked,
            seen_ms,
            ..Self::default()
        }
    }

    pub(super) fn stored(&self) -> StoredNode {
        let state = self.state.clone().map(|state| NodeState {
            facts: (*self.facts).clone(),
            exports: self.exports.clone(),
            ..state
        });
        StoredNode {
            state,
            belief: self.belief.clone(),
            past: self.past.clone(),
            seen_ms: self.seen_ms.unwrap_or_default(),
        }
    }

    /// Whether it was heard of, so that it can be planned for.
    pub(super) fn is_known(&self) -> bool {
        self.belief.ledger.is_some()
    }

    pub(super) fn planned_generation(&self) -> Generation {
        self.planned.as_ref().map_or(Generation(0), |(generation, _)| *generation)
    }

    /// Digest of what it has applied and owes.
    pub(super) fn base(&self) -> Digest {
        Digest::of(&serde_json::to_vec(&self.belief.applied).unwrap_or_default())
    }

    /// Takes a state.
    pub(super) fn fold_state(&mut self, mut state: NodeState) -> StateNews {
        if self.past.contains(&state.ledger) {
            return StateNews::Past;
        }
        let before = self.belief.ledger.clone();
        let sequence = self.belief.sequence;
        let fold = self.belief.fold_state(&state);
        if fold == StateFold::Old {
            return StateNews::None;
        }
        let rebuilt = before.as_ref() != Some(&state.ledger);
        if let Some(before) = before.filter(|_| rebuilt) {
            self.past.push(before);
            let excess = self.past.len().saturating_sub(PAST);
            self.past.drain(..excess);
            self.running.clear();
        }
        let idle = state.phase == Phase::Idle;
        // What a plan under way has done shows in the number of reports; what is otherwise different has other causes.
        let unexplained = fold == StateFold::Differs && state.sequence == sequence && idle;
        // A plan of another planner, or of one that has lost its disk.
        let ahead = state.generation > self.planned_generation() && idle && self.planned.is_some();
        state.applied.clear();
        state.obligations.clear();
        // An agent that has just started has none yet: what it told before still counts.
        let facts = std::mem::take(&mut state.facts);
        if !facts.is_empty() && facts != *self.facts {
            self.facts = Arc::new(facts);
        }
        self.exports = std::mem::take(&mut state.exports);
        self.state = Some(state);
        self.dirty = true;
        match (rebuilt, unexplained || ahead) {
            (true, _) => StateNews::Rebuilt,
            (false, true) => StateNews::Unexplained,
            (false, false) => StateNews::Seen,
        }
    }

    /// Takes what a report, which is news, tells of an `export`. Returns whether that has changed.
    pub(super) fn fold_export(&mut self, report: &TaskReport) -> bool {
        match &report.export {
            Some(value) => self.exports.insert(report.task.clone(), value.clone()).as_ref() != Some(value),
            None if report.action == Action::Remove && report.outcome.is_success() => {
                self.exports.remove(&report.task).is_some()
            }
            None => false,
        }
    }

    /// The reports of a batch that are not on our disk yet, with the number of the first; none if they leave a gap to wait for.
    ///
    /// A gap is waited for once: the agent repeats from the first that nobody has acknowledged, so what is missing in the repetition
    /// was acknowledged by another planner.
    pub(super) fn news(&mut self, batch: &ReportBatch) -> Option<(Sequence, Vec<TaskReport>)> {
        if self.past.contains(&batch.ledger) || batch.reports.is_empty() {
            return None;
        }
        let known = self.acked.as_ref().filter(|(ledger, _)| *ledger == batch.ledger).map(|(_, sequence)| *sequence);
        let expected = known.map_or(batch.first, |s| Sequence(s.0.saturating_add(1)));
        if batch.first > expected && self.gap != Some(batch.first) {
            self.gap = Some(batch.first);
            return None;
        }
        self.gap = None;
        let skip = (expected.0.saturating_sub(batch.first.0)) as usize;
        let rest = batch.reports.get(skip..).filter(|rest| !rest.is_empty())?.to_vec();
        let last = batch.first.0.saturating_add(batch.reports.len() as u64 - 1);
        self.acked = Some((batch.ledger.clone(), Sequence(last)));
        Some((Sequence(batch.first.0 + skip as u64), rest))
    }

    /// A message of it was refused.
    pub(super) fn reject(&mut self, reason: String, hint: String) {
        let count = self.rejected.as_ref().map_or(0, |r| r.count) + 1;
        self.rejected = Some(Rejected { count, reason, hint });
    }
}

/// The file that the key of a node without one would lie in, for hints.
pub(super) fn key_hint(state_dir: &std::path::Path, node: &NodeId) -> String {
    format!(
        "give the node's `key` in the inventory, or write it to {}; the agent prints it at its start",
        crate::trust::node_key_path(state_dir, node).display()
    )
}
