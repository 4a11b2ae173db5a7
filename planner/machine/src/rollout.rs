//! The latest rollout: the core's state machine, with what people want to know of it.
//!
//! In: what was planned, and reports. Out: its state per instance, in numbers and in full. Restored from its head, its snapshot and its log.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use groundplan_core::{
    Rollout,
    plan::{NodePart, PlanTask, ReasonReport},
    rollout::{Progress, Standing, Status, Summary, Verdict, Wait},
};
use groundplan_protocol::{
    effect::Action,
    ids::{Generation, InstanceId, NodeId, TaskId},
    report::{Outcome, Output, TaskReport},
};

use crate::{commit::Commit, record::LogEntry};

/// How much of a task's output is kept, in bytes: of one that succeeded, and of one that did not.
const OUTPUT: [usize; 2] = [1024, 16 * 1024];

/// How many of the values that an instance waits for are named.
const NAMED: usize = 8;

/// What a rollout is, apart from its progress.
#[derive(Debug, Clone, PartialEq)]
pub struct RolloutHead {
    /// Its generation.
    pub generation: Generation,
    /// The commit that it leads to.
    pub commit: Commit,
    /// When it began, in milliseconds since the Unix epoch.
    pub started_ms: u64,
    /// Its actions in an execution order, with their reasons.
    pub actions: Arc<[PlannedReasons]>,
    /// When it ended, if it has, in milliseconds since the Unix epoch.
    pub ended_ms: Option<u64>,
    /// Nodes to which the very same plan was on its way already, and its generation.
    pub kept: BTreeMap<NodeId, Generation>,
}

/// An action and its reasons.
#[derive(Debug, Clone, PartialEq)]
pub struct PlannedReasons {
    /// What it is done to.
    pub instance: InstanceId,
    /// What is done.
    pub action: Action,
    /// Why: each is the cause of the one before it.
    pub reasons: Vec<ReasonReport>,
}

/// A rollout under way, or the last one.
#[derive(Debug, Clone)]
pub struct ActiveRollout {
    /// What it is.
    pub head: RolloutHead,
    /// Its state.
    pub rollout: Rollout,
    /// What was planned for each node; empty after a restart of the planner.
    parts: Arc<BTreeMap<NodeId, NodePart>>,
    /// How many nodes are there, declared, and not planned for yet: it is not over before they are.
    pub unplanned: usize,
    /// By action: what its last report brought beyond its outcome.
    results: Vec<Option<Arc<TaskResult>>>,
}

/// What a report brought beyond its outcome.
#[derive(Debug)]
struct TaskResult {
    started_ms: u64,
    duration_ms: u64,
    output: Option<Output>,
}

/// A rollout in a few numbers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RolloutSummary {
    /// Its id: the generation of its plan.
    pub generation: Generation,
    /// The commit that it leads to.
    pub commit: Commit,
    /// Its state.
    pub result: RolloutResult,
    /// Its instances.
    pub counts: Counts,
    /// How many nodes have a part in it.
    pub nodes: usize,
    /// When it began, in milliseconds since the Unix epoch.
    pub started_ms: u64,
    /// When it ended.
    pub finished_ms: Option<u64>,
    /// The records that it drops because an operator asked for it.
    pub forgotten: Vec<Forgotten>,
}

/// A record of a task on a node that is dropped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Forgotten {
    /// The task and the node.
    pub instance: InstanceId,
    /// Who asked for it, as the API knows them.
    pub by: String,
    /// Why, in their words; may be empty.
    pub why: String,
}

/// The state of a rollout.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RolloutResult {
    /// Something of it is still open.
    Running,
    /// All that is left waits for values that no node has reported yet.
    Waiting,
    /// All of it was carried out.
    Succeeded,
    /// Something failed.
    Failed,
    /// A newer one replaced it.
    Superseded,
}

/// Instances of a rollout by their state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Not started yet: behind others on their node, or their node is offline.
    pub pending: usize,
    /// Behind a gate that is not open.
    pub waiting: usize,
    /// Running at this moment.
    pub running: usize,
    /// Done, and something was changed, restarted, reloaded or run.
    pub changed: usize,
    /// Done with nothing to do, or not needed.
    pub unchanged: usize,
    /// Failed, or interrupted for good.
    pub failed: usize,
    /// Not tried, because of a failure.
    pub blocked: usize,
    /// Given up for a newer plan, or left to it.
    pub superseded: usize,
}

/// What has become of an instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum InstanceState {
    /// Not started yet.
    Pending,
    /// Behind instances on other nodes that are not done, or behind values that no node has reported yet.
    Waiting {
        /// The first of the instances, by name.
        on: Vec<InstanceId>,
        /// How many instances it waits for beside those.
        others: usize,
        /// The first of the values, such as `facts of node n1`.
        unknown: Vec<String>,
    },
    /// Running at this moment.
    Running,
    /// Ended.
    Finished(Outcome),
}

/// A rollout in full.
#[derive(Debug, Clone, PartialEq)]
pub struct RolloutDetail {
    /// The rollout.
    pub summary: RolloutSummary,
    /// Its instances in an execution order.
    pub instances: Vec<InstanceDetail>,
    /// Instances that could not be planned, each with what is missing, such as `export db.address of db-0`.
    pub pending: Vec<(InstanceId, Vec<String>)>,
}

/// An instance of a rollout.
#[derive(Debug, Clone, PartialEq)]
pub struct InstanceDetail {
    /// What is done to it, and why.
    pub planned: PlannedReasons,
    /// What has become of it.
    pub state: InstanceState,
    /// When it started by its node's clock, in milliseconds since the Unix epoch.
    pub started_ms: Option<u64>,
    /// How long it took, in milliseconds.
    pub duration_ms: Option<u64>,
    /// The end of what it printed.
    pub output: Option<Output>,
}

impl ActiveRollout {
    pub(crate) fn new(head: RolloutHead, rollout: Rollout, parts: Arc<BTreeMap<NodeId, NodePart>>) -> Self {
        let results = vec![None; head.actions.len()];
        Self { head, rollout, parts, unplanned: 0, results }
    }

    /// As it was when the planner ended.
    pub(crate) fn restore(head: RolloutHead, rollout: Rollout, log: Vec<LogEntry>) -> Self {
        let mut restored = Self::new(head, rollout, Arc::default());
        for entry in log {
            match entry {
                LogEntry::Reports { node, reports, .. } => {
                    for report in &reports {
                        restored.fold(&node, report);
                    }
                }
                LogEntry::Presence { node, online } => restored.rollout.presence(&node, online),
                LogEntry::Accepted { node, generation, running } => {
                    let _ = restored.accepted(&node, generation, &running);
                }
                LogEntry::Refused { node, generation, reason, at_ms } => {
                    let _ = restored.refused(&node, generation, &reason, at_ms);
                }
                LogEntry::Advance => drop(restored.rollout.advance()),
            }
        }
        restored
    }

    /// Takes a report. Returns whether it was news of a task of this rollout.
    pub(crate) fn fold(&mut self, node: &NodeId, report: &TaskReport) -> bool {
        // A plan that was kept on its way belongs to this rollout, under its older number.
        let kept = self.is_kept(node, report.generation);
        let renumbered = kept.then(|| TaskReport { generation: self.head.generation, ..report.clone() });
        let news = self.rollout.fold(node, renumbered.as_ref().unwrap_or(report));
        // From an older plan it may be news to the core, that something fired, but not what became of this one's task.
        let ours = news && (kept || report.generation == self.head.generation);
        if ours {
            let limit = OUTPUT[usize::from(!report.outcome.is_success())];
            let output = report.output.as_ref().map(|output| shortened(output, limit));
            let result = TaskResult { started_ms: report.started_ms, duration_ms: report.duration_ms, output };
            if let Some(at) = self.rollout.number(node, &report.task).and_then(|at| self.results.get_mut(at)) {
                *at = Some(Arc::new(result));
            }
        }
        ours
    }

    /// Takes which generation a node is at, and what it runs.
    /// Returns whether a turn of a rollout before has ended.
    pub(crate) fn accepted(&mut self, node: &NodeId, generation: Generation, tasks: &[TaskId]) -> bool {
        let kept = self.is_kept(node, generation);
        self.rollout.accepted(node, if kept { self.head.generation } else { generation }, tasks)
    }

    /// Takes that a node's agent has refused its part, for good: all that it had still to do has failed. Returns whether that is
    /// news; then the call is to be replayed where the rollout is restored.
    pub(crate) fn refused(&mut self, node: &NodeId, generation: Generation, reason: &str, at_ms: u64) -> bool {
        if generation != self.head.generation && !self.is_kept(node, generation) {
            return false;
        }
        let left = self.rollout.left_on(node);
        let reports: Vec<TaskReport> = left
            .map(|(task, action)| TaskReport {
                generation: self.head.generation,
                plan: None,
                task: task.clone(),
                action,
                outcome: Outcome::Failed { error: format!("the agent refuses the plan: {reason}") },
                fingerprint: None,
                claims: Vec::new(),
                contends: Vec::new(),
                started_ms: at_ms,
                duration_ms: 0,
                output: None,
                export: None,
            })
            .collect();
        let mut news = false;
        for report in &reports {
            news |= self.fold(node, report);
        }
        news
    }

    /// What was planned for the task of a report, where it is at hand.
    pub(crate) fn planned(&self, node: &NodeId, report: &TaskReport) -> Option<&PlanTask> {
        let ours = report.generation == self.head.generation || self.is_kept(node, report.generation);
        let part = self.parts.get(node).filter(|_| ours)?;
        // The tasks of a part are in the order of the plan.
        let at = self.rollout.position(node, &report.task)?;
        part.tasks.get(at).filter(|planned| planned.task == report.task)
    }

    /// Whether it leaves the instance that a report is of as it is desired, whatever an older plan has made of it. A restart, reload or run
    /// applies nothing.
    pub(crate) fn settles(&self, node: &NodeId, report: &TaskReport) -> bool {
        let applies =
            |action: Action| matches!(action, Action::Create | Action::Update | Action::Remove | Action::Forget);
        self.is_kept(node, report.generation) || self.rollout.action(node, &report.task).is_some_and(applies)
    }

    /// Whether its plan has a node record the edges of a task: by carrying it out, or by themselves.
    pub(crate) fn records_edges(&self, node: &NodeId, task: &TaskId) -> bool {
        self.rollout.plans(node, task) || self.parts.get(node).is_some_and(|part| part.edges.contains_key(task))
    }

    /// Whether a plan that was kept on its way to `node` has this older number.
    fn is_kept(&self, node: &NodeId, generation: Generation) -> bool {
        self.head.kept.get(node).is_some_and(|kept| *kept == generation)
    }

    /// Nodes of which something is still open, and whether none of their instances has been reported on.
    pub(crate) fn open_nodes(&self) -> BTreeMap<NodeId, bool> {
        let mut nodes = BTreeMap::<&NodeId, (bool, bool)>::new();
        for (instance, standing) in self.rollout.standings() {
            let (open, untouched) = nodes.entry(&instance.node).or_insert((false, true));
            *open |= !matches!(standing, Standing::Done { .. } | Standing::Skipped | Standing::Failed);
            *untouched &= matches!(standing, Standing::Waiting | Standing::Running);
        }
        let open = nodes.into_iter().filter(|(_, (open, _))| *open);
        open.map(|(node, (_, untouched))| (node.clone(), untouched)).collect()
    }

    /// Whether it has ended, well or not. What was interrupted may run again after all.
    pub fn is_over(&self) -> bool {
        self.unplanned == 0 && self.has_run()
    }

    /// Whether what becomes of it depends on the presence of a node: then the log has to have that.
    pub(crate) fn depends_on_presence(&self, node: &NodeId) -> bool {
        self.head.ended_ms.is_none() || self.rollout.is_open_on(node)
    }

    /// Whether all of it has ended, whatever nodes are still to be planned for.
    pub(crate) fn has_run(&self) -> bool {
        matches!(self.rollout.verdict(), Verdict::Succeeded | Verdict::Failed)
    }

    /// It in a few numbers.
    pub fn summary(&self) -> RolloutSummary {
        let nodes: BTreeSet<&NodeId> = self.head.actions.iter().map(|a| &a.instance.node).collect();
        RolloutSummary {
            generation: self.head.generation,
            commit: self.head.commit.clone(),
            result: match result(&self.rollout.verdict()) {
                RolloutResult::Succeeded if self.unplanned > 0 => RolloutResult::Running,
                result => result,
            },
            counts: counts(self.rollout.summary()),
            nodes: nodes.len(),
            started_ms: self.head.started_ms,
            finished_ms: self.head.ended_ms,
            forgotten: self.head.actions.iter().filter_map(forgotten).collect(),
        }
    }

    /// All of it. `running` is whether an agent has reported that it runs an instance.
    pub fn detail(&self, running: &dyn Fn(&InstanceId) -> bool) -> RolloutDetail {
        let instances = self.states(running).enumerate();
        let instances = instances.map(|(at, (planned, state))| self.instance(at, planned, state));
        let pending = self
            .rollout
            .pending()
            .iter()
            .map(|pending| (pending.instance.clone(), pending.waits_for.iter().map(ToString::to_string).collect()));
        RolloutDetail { instances: instances.collect(), pending: pending.collect(), summary: self.summary() }
    }

    /// One of its instances; none if it is not in the plan.
    pub fn detail_of(&self, instance: &InstanceId, running: bool) -> Option<InstanceDetail> {
        let at = self.rollout.number(&instance.node, &instance.task)?;
        let planned = self.head.actions.get(at)?;
        let status = self.rollout.status(instance)?;
        Some(self.instance(at, planned, state(status, running)))
    }

    /// The action of that number in full.
    fn instance(&self, at: usize, planned: &PlannedReasons, state: InstanceState) -> InstanceDetail {
        let result = self.results.get(at).and_then(Option::as_ref);
        InstanceDetail {
            planned: planned.clone(),
            state,
            started_ms: result.map(|r| r.started_ms),
            duration_ms: result.map(|r| r.duration_ms),
            output: result.and_then(|r| r.output.clone()),
        }
    }

    /// Every instance with its state, in the plan's order, which is that of the core as well.
    pub fn states(
        &self,
        running: &dyn Fn(&InstanceId) -> bool,
    ) -> impl Iterator<Item = (&PlannedReasons, InstanceState)> {
        let statuses = self.rollout.statuses();
        self.head.actions.iter().zip(statuses).map(|(planned, (instance, _, status))| {
            debug_assert_eq!(planned.instance, instance, "one order for both");
            (planned, state(status, running(&instance)))
        })
    }

    /// As the history keeps it when a newer one takes its place.
    pub(crate) fn superseded(&self, now_ms: u64) -> RolloutDetail {
        let mut detail = self.detail(&|_| false);
        if !self.is_over() {
            detail.summary.result = RolloutResult::Superseded;
            detail.summary.finished_ms = Some(now_ms);
            detail.leave_to_newer();
        }
        detail
    }
}

impl RolloutSummary {
    /// If a newer rollout has replaced it, nothing of it is open any more: what had not ended was left to that one.
    pub fn leave_to_newer(&mut self) {
        if self.result == RolloutResult::Superseded {
            let Counts { pending, waiting, running, .. } = self.counts;
            let superseded = self.counts.superseded + pending + waiting + running;
            self.counts = Counts { pending: 0, waiting: 0, running: 0, superseded, ..self.counts };
        }
    }
}

impl RolloutDetail {
    /// As [`RolloutSummary::leave_to_newer`], for its instances as well.
    pub fn leave_to_newer(&mut self) {
        self.summary.leave_to_newer();
        if self.summary.result == RolloutResult::Superseded {
            for instance in &mut self.instances {
                if !matches!(instance.state, InstanceState::Finished(_)) {
                    instance.state = InstanceState::Finished(Outcome::Superseded);
                }
            }
        }
    }
}

fn forgotten(planned: &PlannedReasons) -> Option<Forgotten> {
    planned.reasons.iter().find_map(|reason| match reason {
        ReasonReport::Forgotten { by, why, .. } => {
            Some(Forgotten { instance: planned.instance.clone(), by: by.clone(), why: why.clone() })
        }
        _ => None,
    })
}

/// What has become of an instance. `running` is whether its agent has reported that it runs it.
fn state(status: Status, running: bool) -> InstanceState {
    match status {
        Status::Waiting(waits) => {
            let unknown = waits.iter().filter_map(|wait| match wait {
                Wait::Unknown(unknown) => Some(unknown.to_string()),
                _ => None,
            });
            let unknown: Vec<String> = unknown.take(NAMED).collect();
            let (mut on, mut others) = (Vec::new(), 0);
            for wait in waits {
                match wait {
                    Wait::Instance { instance, .. } => on.push(instance),
                    Wait::Others { count } => others = count,
                    Wait::Offline | Wait::Turn { .. } | Wait::Unknown(_) => {}
                }
            }
            match on.is_empty() && unknown.is_empty() {
                true => InstanceState::Pending,
                false => InstanceState::Waiting { on, others, unknown },
            }
        }
        Status::Running if running => InstanceState::Running,
        Status::Running => InstanceState::Pending,
        Status::Done { changed, effect } => InstanceState::Finished(Outcome::Done { changed, effect }),
        Status::Skipped => InstanceState::Finished(Outcome::Skipped),
        Status::Failed { error } => InstanceState::Finished(Outcome::Failed { error }),
        Status::Blocked { by } => InstanceState::Finished(Outcome::Blocked { by: by.task }),
        Status::Superseded => InstanceState::Finished(Outcome::Superseded),
    }
}

/// What has been reported so far: all that is left counts as pending.
pub(crate) fn so_far(progress: Progress) -> Counts {
    let Progress { left, running, changed, unchanged, failed, blocked, superseded } = progress;
    Counts { pending: left, waiting: 0, running, changed, unchanged, failed, blocked, superseded }
}

fn counts(summary: Summary) -> Counts {
    Counts {
        pending: 0,
        waiting: summary.waiting,
        running: summary.running,
        changed: summary.changed,
        unchanged: summary.unchanged + summary.skipped,
        failed: summary.failed,
        blocked: summary.blocked,
        superseded: summary.superseded,
    }
}

fn result(verdict: &Verdict) -> RolloutResult {
    match verdict {
        Verdict::Running | Verdict::Offline(_) => RolloutResult::Running,
        Verdict::Waiting => RolloutResult::Waiting,
        Verdict::Succeeded => RolloutResult::Succeeded,
        Verdict::Failed => RolloutResult::Failed,
    }
}

impl Counts {
    /// Adds one instance of that state.
    pub fn add(&mut self, state: &InstanceState) {
        let slot = match state {
            InstanceState::Pending => &mut self.pending,
            InstanceState::Waiting { .. } => &mut self.waiting,
            InstanceState::Running => &mut self.running,
            InstanceState::Finished(outcome) => match outcome {
                Outcome::Done { changed: true, .. } => &mut self.changed,
                Outcome::Done { .. } | Outcome::Skipped => &mut self.unchanged,
                Outcome::Failed { .. } | Outcome::Interrupted => &mut self.failed,
                Outcome::Blocked { .. } => &mut self.blocked,
                Outcome::Superseded => &mut self.superseded,
            },
        };
        *slot += 1;
    }
}

/// The end of an output, within `limit` bytes.
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
    Output {
        head: String::new(),
        omitted: output.omitted.saturating_add((total - kept) as u64),
        tail: last[start..].to_owned(),
    }
}
