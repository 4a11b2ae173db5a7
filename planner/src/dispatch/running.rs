//! The latest rollout: the core's, with what people want to know of it.

use std::collections::{BTreeMap, BTreeSet};

use groundplan_core::{
    Rollout,
    plan::{NodePart, PlanTask},
    rollout::{Status, Verdict},
};
use groundplan_protocol::{
    ids::{Generation, InstanceId, NodeId, TaskId},
    report::{Output, TaskReport},
};

use super::words;
use crate::{
    api::types::{InstanceRecord, InstanceState, PendingRecord, RolloutDetail, RolloutResult, RolloutSummary, VERSION},
    store::{LogEntry, PlannedReasons, RolloutHead},
};

/// How much of a task's output is kept, in bytes: of one that went well, and of one that did not.
const OUTPUT: [usize; 2] = [1024, 16 * 1024];

/// A rollout under way, or the last one.
pub(super) struct Running {
    pub(super) head: RolloutHead,
    pub(super) rollout: Rollout,
    /// What was planned for each node; empty after a restart of the planner.
    pub(super) parts: BTreeMap<NodeId, NodePart>,
    results: BTreeMap<InstanceId, Told>,
}

/// What a report told beyond its outcome.
struct Told {
    started_ms: u64,
    duration_ms: u64,
    output: Option<Output>,
}

impl Running {
    pub(super) fn new(head: RolloutHead, rollout: Rollout, parts: BTreeMap<NodeId, NodePart>) -> Self {
        Self { head, rollout, parts, results: BTreeMap::new() }
    }

    /// As it was when the planner ended.
    pub(super) fn restore(head: RolloutHead, rollout: Rollout, log: Vec<LogEntry>) -> Self {
        let mut running = Self::new(head, rollout, BTreeMap::new());
        for entry in log {
            match entry {
                LogEntry::Reports { node, reports, .. } => {
                    for report in &reports {
                        running.fold(&node, report);
                    }
                }
                LogEntry::Presence { node, online } => running.rollout.presence(&node, online),
                LogEntry::Advance => drop(running.rollout.advance()),
            }
        }
        running
    }

    /// Takes a report. Returns whether it was news of a task of this rollout.
    pub(super) fn fold(&mut self, node: &NodeId, report: &TaskReport) -> bool {
        // A plan that was kept on its way is this rollout's, by its older number.
        let kept = self.is_kept(node, report.generation);
        let as_ours = kept.then(|| TaskReport { generation: self.head.generation, ..report.clone() });
        let news = self.rollout.fold(node, as_ours.as_ref().unwrap_or(report));
        // Of an older plan it may be news to the core, that something fired, but not what became of this one's task.
        let ours = news && (kept || report.generation == self.head.generation);
        if ours {
            let limit = OUTPUT[usize::from(!report.outcome.is_success())];
            let output = report.output.as_ref().map(|output| shortened(output, limit));
            let told = Told { started_ms: report.started_ms, duration_ms: report.duration_ms, output };
            self.results.insert(report.task.at(node), told);
        }
        ours
    }

    /// A node is at a generation and runs these.
    pub(super) fn accepted(&mut self, node: &NodeId, generation: Generation, tasks: &[TaskId]) {
        let kept = self.is_kept(node, generation);
        self.rollout.accepted(node, if kept { self.head.generation } else { generation }, tasks);
    }

    /// What was planned for a task, where it is at hand.
    pub(super) fn planned(&self, node: &NodeId, report: &TaskReport) -> Option<&PlanTask> {
        let ours = report.generation == self.head.generation || self.is_kept(node, report.generation);
        self.parts.get(node).filter(|_| ours)?.tasks.iter().find(|planned| planned.task == report.task)
    }

    /// Whether a plan that was kept on its way to `node` has this older number.
    fn is_kept(&self, node: &NodeId, generation: Generation) -> bool {
        self.head.kept.get(node).is_some_and(|kept| *kept == generation)
    }

    /// Nodes of which something is still open, and whether nothing of theirs has been told.
    pub(super) fn open_nodes(&self) -> BTreeMap<NodeId, bool> {
        let mut nodes = BTreeMap::<NodeId, (bool, bool)>::new();
        for (instance, _, status) in self.rollout.statuses() {
            let (open, untouched) = nodes.entry(instance.node).or_insert((false, true));
            *open |= !matches!(status, Status::Done { .. } | Status::Skipped | Status::Failed { .. });
            *untouched &= matches!(status, Status::Waiting(_) | Status::Running);
        }
        nodes.into_iter().filter(|(_, (open, _))| *open).map(|(node, (_, untouched))| (node, untouched)).collect()
    }

    pub(super) fn is_over(&self) -> bool {
        matches!(self.rollout.verdict(), Verdict::Succeeded | Verdict::Failed)
    }

    pub(super) fn summary(&self) -> RolloutSummary {
        let nodes: BTreeSet<&NodeId> = self.head.actions.iter().map(|a| &a.instance.node).collect();
        RolloutSummary {
            generation: self.head.generation,
            commit: self.head.commit.clone(),
            result: words::result(&self.rollout.verdict()),
            counts: words::counts(self.rollout.summary()),
            nodes: nodes.len(),
            started_ms: self.head.started_ms,
            finished_ms: self.head.ended_ms,
        }
    }

    /// All of it. `running` tells whether an agent named an instance as at work.
    pub(super) fn detail(&self, running: &dyn Fn(&InstanceId) -> bool) -> RolloutDetail {
        let instances = self.states(running).map(|(planned, state)| {
            let told = self.results.get(&planned.instance);
            InstanceRecord {
                instance: planned.instance.clone(),
                action: planned.action,
                reasons: planned.reasons.clone(),
                state,
                started_ms: told.map(|t| t.started_ms),
                duration_ms: told.map(|t| t.duration_ms),
                output: told.and_then(|t| t.output.clone()),
            }
        });
        let pending = self.rollout.pending().iter().map(|pending| PendingRecord {
            instance: pending.instance.clone(),
            waits_for: pending.waits_for.iter().map(ToString::to_string).collect(),
        });
        let (instances, pending) = (instances.collect(), pending.collect());
        RolloutDetail { version: VERSION, summary: self.summary(), instances, pending }
    }

    /// Every instance with its state, in the plan's order, which is that of the core as well.
    pub(super) fn states(
        &self,
        running: &dyn Fn(&InstanceId) -> bool,
    ) -> impl Iterator<Item = (&PlannedReasons, InstanceState)> {
        let statuses = self.rollout.statuses();
        self.head.actions.iter().zip(statuses).map(|(planned, (instance, _, status))| {
            debug_assert_eq!(planned.instance, instance, "one order for both");
            (planned, words::state(status, running(&instance)))
        })
    }

    /// As the history keeps it when a newer one takes its place.
    pub(super) fn superseded(&self, now_ms: u64) -> RolloutDetail {
        let mut detail = self.detail(&|_| false);
        if !self.is_over() {
            detail.summary.result = RolloutResult::Superseded;
            detail.summary.finished_ms = Some(now_ms);
        }
        detail
    }
}

/// Whether any task of a part waits for a gate.
pub(super) fn has_gates(part: &NodePart) -> bool {
    part.tasks.iter().any(|task| !task.gates.is_empty())
}

/// The end of an output.
fn shortened(output: &Output, limit: usize) -> Output {
    let last = if output.tail.is_empty() { &output.head } else { &output.tail };
    let total = output.head.len() + output.tail.len();
    if total <= limit {
        return output.clone();
    }
    let mut start = last.len().saturating_sub(limit);
    while !last.is_char_boundary(start) {
        start += 1;
    }
    let kept = last.len() - start;
    Output { head: String::new(), omitted: output.omitted + (total - kept) as u64, tail: last[start..].to_owned() }
}
