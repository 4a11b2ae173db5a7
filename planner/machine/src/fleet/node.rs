//! What is known of one node, apart from its drift.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use groundplan_core::{Belief, applied::NodeApplied, knowledge::Facts, rollout::StateFold};
use groundplan_protocol::{
    digest::Fingerprint,
    effect::Action,
    encryption::EncryptionKey,
    ids::{CommitId, Generation, LedgerId, Sequence, SessionId, TaskId},
    report::{ReportBatch, TaskReport},
    state::{Applied, NodeState, Phase},
    time::Now,
};

use super::log_budget::LogBudget;
use crate::{
    damping::Damping,
    record::{PastLedger, PlanNote, StoredNode},
};

/// How long after the start of this planner agents may take to connect again before they count as away: with the embedded broker, their
/// connections ended with the planner before.
const RECONNECT: Duration = Duration::from_secs(60);

/// How many earlier ledgers of a node are remembered.
const PAST: usize = 16;

/// Whether an agent is connected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum NodePresence {
    /// It is.
    Online,
    /// It is not, for now.
    Offline,
    /// No presence of it was ever received.
    #[default]
    Unknown,
}

/// Messages of a node that this planner refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejected {
    /// How many since the start.
    pub count: u64,
    /// Why the last one was.
    pub reason: String,
    /// What to do about it; may be empty.
    pub hint: String,
}

/// One node.
#[derive(Debug, Clone, Default)]
pub struct Node {
    /// What it has applied, and its obligations, by its last state and the reports since.
    pub belief: Belief,
    /// Whether its agent is connected.
    pub presence: NodePresence,
    /// Since when its agent has not been connected, by the monotonic clock. Where that is not known, since a while after the start of this
    /// planner.
    pub away_since: Option<Duration>,
    /// What keeps its agent from its work though it is connected, as the agent reports it.
    pub trouble: Option<String>,
    /// Its agent's connection, while there is one.
    pub session: Option<SessionId>,
    /// The last facts that it reported.
    pub facts: Arc<Facts>,
    /// What it has published, by its last state and the reports since.
    pub exports: BTreeMap<TaskId, String>,
    /// Its last state without what is applied and its obligations.
    pub state: Option<NodeState>,
    /// When its last message came, in milliseconds since the Unix epoch.
    pub seen_ms: Option<u64>,
    /// Its messages that were refused.
    pub rejected: Option<Rejected>,
    /// Tasks that its agent runs at this moment, as far as it has reported.
    pub running: Vec<TaskId>,
    /// The last plan published for it.
    pub planned: Option<PlanNote>,
    /// The last report on this planner's disk, and of which ledger.
    pub acked: Option<(LedgerId, Sequence)>,
    /// The last report that some planner has acknowledged to the agent, and of which ledger.
    acked_elsewhere: Option<(LedgerId, Sequence)>,
    /// Ledgers that it had before.
    past: Vec<PastLedger>,
    /// For which commit, and from which base, it was planned last.
    tried: Option<(CommitId, NodeApplied)>,
    /// Whether a plan was made with what it has applied, since it was last found that no plan counts for it.
    pub(crate) considered: bool,
    /// That it contradicts itself, and what is acted on meanwhile.
    pub damping: Damping,
    /// How many lines of the log it may still cause.
    pub(crate) log: LogBudget,
    /// Not in the store as it is here.
    dirty: bool,
}

/// What a state means for planning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum StateNews {
    /// A replay from a ledger that the node no longer has.
    Past,
    /// Nothing.
    None,
    /// Something for people; no reason to plan.
    Seen,
    /// The node was not known, has a new ledger, or is ahead of the last plan made for it: no plan of this planner counts for it.
    Unplanned,
    /// What is believed has changed in a way that no plan of this planner explains.
    Unexplained,
}

impl Node {
    pub(crate) fn restore(stored: StoredNode, acked: Option<(LedgerId, Sequence)>, now: Now) -> Self {
        let seen_ms = Some(stored.seen_ms).filter(|ms| *ms > 0);
        let (facts, exports) = stored.state.as_ref().map(|s| (s.facts.clone(), s.exports.clone())).unwrap_or_default();
        Self {
            facts: Arc::new(facts),
            exports,
            belief: stored.belief,
            past: stored.past,
            damping: stored.damping,
            state: stored.state,
            away_since: Some(now.mono + RECONNECT),
            acked,
            seen_ms,
            ..Self::default()
        }
    }

    /// As the store keeps it, if it does not have it so already.
    pub(crate) fn take_unstored(&mut self) -> Option<StoredNode> {
        std::mem::take(&mut self.dirty).then(|| {
            let state = self.state.clone().map(|state| NodeState {
                facts: (*self.facts).clone(),
                exports: self.exports.clone(),
                ..state
            });
            let (belief, past) = (self.belief.clone(), self.past.clone());
            let damping = self.damping.clone();
            StoredNode { state, belief, past, seen_ms: self.seen_ms.unwrap_or_default(), damping }
        })
    }

    /// Whether it has to be written to the store.
    pub(crate) fn is_dirty(&self) -> bool {
        self.dirty
    }

    /// Whether a state of it was ever received, so that it can be planned for.
    pub fn is_known(&self) -> bool {
        self.belief.ledger.is_some()
    }

    /// The key to encrypt to it with, once its agent has announced one.
    pub fn encryption_key(&self) -> Option<EncryptionKey> {
        self.state.as_ref()?.encryption_key
    }

    /// Its tasks that do not work, each with the reason, by its last state.
    pub fn degraded(&self) -> Option<&BTreeMap<TaskId, String>> {
        self.state.as_ref().map(|state| &state.degraded).filter(|degraded| !degraded.is_empty())
    }

    /// Whether its agent is connected, as far as is known.
    pub fn is_online(&self) -> bool {
        self.presence == NodePresence::Online
    }

    /// The generation of the last plan published for it; 0 before the first.
    pub fn planned_generation(&self) -> Generation {
        self.planned.as_ref().map_or(Generation(0), |planned| planned.generation)
    }

    /// The fingerprint of what it has applied of a task.
    pub(crate) fn fingerprint(&self, task: &TaskId) -> Option<Fingerprint> {
        self.belief.applied.tasks.get(task).map(|applied| applied.fingerprint)
    }

    /// Notes that it is planned for `commit` from what it has applied now.
    pub(crate) fn note_tried(&mut self, commit: CommitId) {
        self.tried = Some((commit, self.belief.applied.clone()));
    }

    /// Whether it was planned for `commit` from what it has applied now: what failed then is not tried again before something changes.
    pub(crate) fn was_tried(&self, commit: &CommitId) -> bool {
        self.tried.as_ref().is_some_and(|(tried, base)| tried == commit && *base == self.belief.applied)
    }

    /// Takes a state.
    pub(crate) fn fold_state(&mut self, mut state: NodeState) -> StateNews {
        // A state that is newer than all that came from that ledger is no replay: another one has spoken for the node meanwhile, as a thief of
        // its key can.
        let past = self.past.iter().position(|past| past.ledger == state.ledger);
        if past.is_some_and(|at| state.revision <= self.past[at].revision) {
            return StateNews::Past;
        }
        past.map(|at| self.past.remove(at));
        let (before, revision) = (self.belief.ledger.clone(), self.belief.revision);
        let sequence = self.belief.sequence;
        let fold = self.belief.fold_state(&state);
        if fold == StateFold::Old {
            return StateNews::None;
        }
        let rebuilt = before.as_ref() != Some(&state.ledger);
        if let Some(before) = before.filter(|_| rebuilt) {
            self.past.push(PastLedger { ledger: before, revision });
            let excess = self.past.len().saturating_sub(PAST);
            self.past.drain(..excess);
            self.running.clear();
        }
        let idle = state.phase == Phase::Idle;
        // What a plan under way has done shows in the number of reports; what is otherwise different has other causes.
        let unexplained = fold == StateFold::Differs && state.sequence == sequence && idle;
        // It has taken a plan of another planner, or of one that has lost its disk. It may be waiting for gates that nothing opens.
        let planned = self.planned_generation();
        // One that was sent nothing has no part in the plan, and is at what it was at; unless it is busy with another planner's plan,
        // which it came by while it was away.
        let overtaken = match &self.planned {
            Some(_) => state.generation > planned || self.has_plan_of_another(&state),
            None => !idle,
        };
        state.applied.clear();
        state.obligations.clear();
        // An agent that has just started has none yet: what it reported before still counts.
        let facts = std::mem::take(&mut state.facts);
        if !facts.is_empty() && facts != *self.facts {
            self.facts = Arc::new(facts);
        }
        self.exports = std::mem::take(&mut state.exports);
        self.state = Some(state);
        self.dirty = true;
        match (rebuilt || overtaken, unexplained) {
            (true, _) => {
                self.considered = false;
                StateNews::Unplanned
            }
            (false, true) => StateNews::Unexplained,
            (false, false) => StateNews::Seen,
        }
    }

    /// Whether, by this state, the node has the plan of another planner, which has used the generation of the last one published for it.
    pub(crate) fn has_plan_of_another(&self, state: &NodeState) -> bool {
        let id = state.receipt.as_ref().map(|receipt| receipt.plan);
        let planned = self.planned.as_ref().filter(|planned| planned.generation == state.generation);
        planned.zip(id).is_some_and(|(planned, id)| planned.id != id)
    }

    /// Whether it has the last plan published for it, or a later one, as far as is known.
    pub(crate) fn has_its_plan(&self) -> bool {
        self.belief.generation >= self.planned_generation()
    }

    /// A report as it counts: what was carried out for the plan of another planner, which has used the generation of the last one published
    /// for the node, is something from before that plan.
    pub(crate) fn renumbered(&self, mut report: TaskReport) -> TaskReport {
        let planned = self.planned.as_ref().filter(|planned| planned.generation == report.generation);
        let tag = report.plan.as_ref();
        if planned.zip(tag).is_some_and(|(planned, tag)| planned.id.short() != *tag) {
            report.generation = Generation(report.generation.0.saturating_sub(1));
        }
        report
    }

    /// Whether this planner has all reports up to `last`; also if it has none of that ledger at all, so that another planner has them.
    pub(crate) fn has_all(&self, ledger: &LedgerId, last: Sequence) -> bool {
        self.acked_of(ledger).is_none_or(|acked| acked >= last)
    }

    /// The last report of a ledger that this planner or another has on its disk; none if nothing is known of that.
    fn acked_of(&self, ledger: &LedgerId) -> Option<Sequence> {
        let known = [&self.acked, &self.acked_elsewhere].into_iter().flatten();
        known.filter(|(of, _)| of == ledger).map(|(_, sequence)| *sequence).max()
    }

    /// The reports of a batch that are not on the disk yet, with the number of the first; none if some before them are still to come: the
    /// agent repeats from the first that no planner has acknowledged.
    pub(crate) fn unseen(&mut self, batch: &ReportBatch) -> Option<(Sequence, Vec<TaskReport>)> {
        if self.past.iter().any(|past| past.ledger == batch.ledger) {
            return None;
        }
        // What another planner has acknowledged does not come again.
        self.acked_elsewhere = Some((batch.ledger.clone(), batch.acked));
        let acked = self.acked_of(&batch.ledger).unwrap_or_default();
        let expected = acked.0.saturating_add(1);
        let skip = usize::try_from(expected.checked_sub(batch.first.0)?).ok()?;
        let rest = batch.reports.get(skip..).filter(|rest| !rest.is_empty())?;
        let rest: Vec<TaskReport> = rest.iter().map(|report| self.renumbered(report.clone())).collect();
        self.acked = Some((batch.ledger.clone(), Sequence(acked.0.saturating_add(rest.len() as u64))));
        Some((Sequence(expected), rest))
    }

    /// Takes one report that is new. Returns whether the value that its task publishes has changed.
    pub(crate) fn fold_report(
        &mut self,
        ledger: &LedgerId,
        number: Sequence,
        report: &TaskReport,
        planned: Option<&groundplan_core::plan::PlanTask>,
    ) -> bool {
        if !self.belief.fold_report(ledger, number, report, planned) {
            return false;
        }
        self.dirty = true;
        match &report.export {
            Some(value) => self.exports.insert(report.task.clone(), value.clone()).as_ref() != Some(value),
            None if matches!(report.action, Action::Remove | Action::Forget) && report.outcome.is_success() => {
                self.exports.remove(&report.task).is_some()
            }
            None => false,
        }
    }

    /// Ends the wait of one that contradicted itself, if it is over. Returns the tasks whose values count now.
    pub(crate) fn release(&mut self, now: Now) -> Option<Vec<TaskId>> {
        let released = self.damping.release(now);
        self.dirty |= released.is_some();
        released
    }

    /// Counts a message of it that was refused. Returns whether the reason is another one than the last time.
    pub(crate) fn reject(&mut self, reason: String, hint: String) -> bool {
        let known = self.rejected.as_ref();
        let (count, other) = (known.map_or(0, |r| r.count) + 1, known.is_none_or(|r| r.reason != reason));
        self.rejected = Some(Rejected { count, reason, hint });
        other
    }
}

/// The tasks of which another value is published than before, or none any more.
pub(crate) fn exports_differ(before: &BTreeMap<TaskId, String>, after: &BTreeMap<TaskId, String>) -> Vec<TaskId> {
    let removed = before.keys().filter(|task| !after.contains_key(task));
    let new = after.iter().filter(|(task, value)| before.get(task) != Some(value)).map(|(task, _)| task);
    removed.chain(new).cloned().collect()
}

/// The tasks of which other edges are recorded than before.
pub(super) fn edges_differ(
    before: &Arc<BTreeMap<TaskId, Applied>>,
    after: &Arc<BTreeMap<TaskId, Applied>>,
) -> Vec<TaskId> {
    // Most states confirm what is believed, which is then still the very same.
    if Arc::ptr_eq(before, after) {
        return Vec::new();
    }
    let same = |(task, applied): &(&TaskId, &Applied)| before.get(*task).is_some_and(|b| b.edges == applied.edges);
    after.iter().filter(|entry| !same(entry)).map(|(task, _)| task.clone()).collect()
}

#[cfg(test)]
mod tests {
    use groundplan_protocol::{
        digest::Digest,
        ids::{NodeId, SiteName},
        plan::{Edges, Place, Source},
    };

    use super::*;

    fn applied(sources: &[&str]) -> Applied {
        let source = |task: &&str| Source { task: task.parse().unwrap(), place: Place::Here };
        let edges = Edges { requires: sources.iter().map(source).collect(), ..Edges::default() };
        let fingerprint = Fingerprint(Digest::of(b"spec"));
        Applied {
            fingerprint,
            inputs: BTreeMap::new(),
            edges,
            claims: Vec::new(),
            contends: Vec::new(),
            on_remove: None,
            destroys: None,
        }
    }

    fn state(generation: u64, revision: u64, phase: Phase) -> NodeState {
        let (site, node) = (SiteName::new("site").unwrap(), NodeId::new("n1").unwrap());
        let ledger = LedgerId::new("0123456789abcdef0123456789abcdef").unwrap();
        NodeState { generation: Generation(generation), revision, phase, ..NodeState::empty(site, node, ledger) }
    }

    #[test]
    fn a_node_that_was_sent_nothing_and_is_busy_has_the_plan_of_another_planner() {
        let mut node = Node::default();
        assert_eq!(node.fold_state(state(2, 1, Phase::Idle)), StateNews::Unplanned, "its first state");
        assert_eq!(node.fold_state(state(2, 2, Phase::Idle)), StateNews::Seen);
        assert_eq!(node.fold_state(state(5, 3, Phase::Idle)), StateNews::Seen);
        assert_eq!(node.fold_state(state(5, 4, Phase::Running)), StateNews::Unplanned);
        node.planned = Some(PlanNote { generation: Generation(7), asks: Vec::new(), id: Digest::of(b"") });
        assert_eq!(node.fold_state(state(5, 5, Phase::Running)), StateNews::Seen, "its plan is on its way");
    }

    #[test]
    fn a_ledger_is_back_once_something_newer_comes_from_it() {
        let mut node = Node::default();
        let thief =
            |revision| NodeState { ledger: LedgerId::new("f".repeat(32)).unwrap(), ..state(1, revision, Phase::Idle) };
        assert_eq!(node.fold_state(state(1, 7, Phase::Idle)), StateNews::Unplanned);
        assert_eq!(node.fold_state(thief(1 << 40)), StateNews::Unplanned, "taken for a node that was rebuilt");
        assert_eq!(node.fold_state(state(1, 7, Phase::Idle)), StateNews::Past, "a replay");
        assert_eq!(node.fold_state(state(1, 8, Phase::Idle)), StateNews::Unplanned);
        assert_eq!(node.fold_state(thief(1 << 40)), StateNews::Past);
    }

    #[test]
    fn edges_that_no_report_shows_are_noticed() {
        let task = |id: &str| id.parse::<TaskId>().unwrap();
        let tasks = |server: &[&str]| {
            Arc::new(BTreeMap::from([(task("web.config"), applied(&[])), (task("web.server"), applied(server))]))
        };
        let before = tasks(&["web.config"]);
        assert_eq!(edges_differ(&before, &before.clone()), []);
        assert_eq!(edges_differ(&before, &tasks(&["web.config"])), []);
        assert_eq!(edges_differ(&before, &tasks(&[])), [task("web.server")]);
    }
}
