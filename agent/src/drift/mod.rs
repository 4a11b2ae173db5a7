//! When to check for drift, which tasks, and what a check of all of them found. Decides, and does none of it.
//!
//! In: the planner's request, whether the agent is idle, what the checks of single tasks found, and the time, all as values.
//! Out: which tasks to check now, and the findings of a whole round. A round is due when an operator has asked for one, and
//! an interval after the last one ended. It runs only while the agent is idle, two tasks at a time. A new plan cancels it, and
//! it starts again after the plan; a job of a task that was found drifted makes another round due. Of a finished round only
//! the names of drifted tasks are kept.

#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use groundplan_protocol::{
    digest::{Digest, Fingerprint},
    drift::{CONTENTS_LIMIT, CheckRequest, Difference, Drifted},
    ids::{Generation, NodeId, TaskId},
    time::Now,
};

/// Tasks checked side by side.
const AT_ONCE: usize = 2;
/// The shortest interval between two rounds, whatever is requested: a round uses time and memory of the host.
const SHORTEST: Duration = Duration::from_secs(1);
/// What the shell is to do now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Nothing new.
    Nothing,
    /// Cancel the checks that are under way.
    Cancel,
    /// Start a round: pass all applied tasks to [`DriftMonitor::begin`].
    Begin,
}

/// What a check of one task found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CheckResult {
    /// It cannot be checked: its kind leaves nothing behind that could be, or an older agent applied it.
    LeftOut,
    /// It is as it was applied.
    InSync,
    /// It is not; with the differences that its kind can name.
    Drifted(Vec<Difference>),
    /// The check failed, with the reason as a message for the operator.
    Failed(String),
}

/// What a round found, all tasks together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Findings {
    /// Number of the round, from 1 at the start of the process.
    pub round: u32,
    /// The `asked` of the newest request that this round answers.
    pub asked: u64,
    /// The generation of the active plan.
    pub generation: Generation,
    /// When the round began.
    pub began: Now,
    /// From the beginning to the end of the last check.
    pub duration: Duration,
    /// How many tasks were checked, drifted ones included.
    pub checked: u64,
    /// How many were not checked, because their kind has no check or their state is in doubt.
    pub left_out: u64,
    /// Tasks that are no longer as they were applied.
    pub drifted: BTreeMap<TaskId, Drifted>,
    /// Tasks whose check failed, each with the reason.
    pub failed: BTreeMap<TaskId, String>,
}

/// A task to check; to be passed back with the result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TaskCheck {
    /// Number of the round that it belongs to: a late result of a cancelled round is dropped.
    pub round: u32,
    /// The applied task that is to be checked.
    pub task: TaskId,
}

/// A round under way.
#[derive(Debug)]
struct Round {
    left: VecDeque<TaskId>,
    in_progress: usize,
    /// Bytes of content that the findings may still take.
    room: usize,
    findings: Findings,
}

/// The newest request of the planner.
#[derive(Debug, Clone, Copy)]
struct Request {
    revision: u64,
    interval: Option<Duration>,
    asked: u64,
}

/// Decides when to check for drift, and collects what the checks find.
#[derive(Debug)]
pub struct DriftMonitor {
    /// In ten-thousandths of the interval, from 9000 to 11000 by the node's name, so that a fleet that starts at the same moment
    /// does not check at the same moment.
    spread: u32,
    request: Option<Request>,
    /// The `asked` of the last finished round.
    answered: u64,
    /// When the last round ended, by the monotonic clock; before the first, when the process started.
    since: Duration,
    /// The last findings may no longer hold, or a round was cancelled.
    repeat: bool,
    idle: bool,
    rounds: u32,
    round: Option<Round>,
    /// Tasks of the last findings that were drifted, each with the time since when (Unix milliseconds), and those whose check
    /// failed, without a time.
    standing: BTreeMap<TaskId, Option<u64>>,
}

impl DriftMonitor {
    /// The monitor of `node`, without a request: it checks nothing until one comes.
    pub fn new(node: &NodeId, now: Now) -> Self {
        let bytes = *Digest::of(node.as_str().as_bytes()).as_bytes();
        let spread = 9_000 + u32::from(u16::from_be_bytes([bytes[0], bytes[1]])) % 2_001;
        Self {
            spread,
            request: None,
            answered: 0,
            since: now.mono,
            repeat: false,
            idle: false,
            rounds: 0,
            round: None,
            standing: BTreeMap::new(),
        }
    }

    /// Takes a request of the planner; one that is not newer than the last is ignored.
    pub fn request(&mut self, request: &CheckRequest) {
        let CheckRequest { revision, interval, asked, .. } = *request;
        if self.request.is_none_or(|last| last.revision < revision) {
            let interval = interval.map(|interval| Duration::from(interval).max(SHORTEST));
            self.request = Some(Request { revision, interval, asked });
        }
    }

    /// A job of `task` has ended.
    pub fn task_ran(&mut self, task: &TaskId) {
        self.repeat |= self.standing.contains_key(task);
    }

    /// What to do at this time; `idle` if no task runs or is about to, `generation` of the active plan.
    pub fn step(&mut self, idle: bool, generation: Generation, now: Now) -> Step {
        self.idle = idle;
        // The generation counts as well: a plan that was carried out within one step was never seen as work.
        // A running task changes what the round checks; the round starts again once the agent is idle.
        if self.round.as_ref().is_some_and(|round| !idle || round.findings.generation != generation) {
            self.round = None;
            self.repeat = true;
            return Step::Cancel;
        }
        let due = self.round.is_none() && idle && self.due().is_some_and(|at| at <= now.mono);
        if due { Step::Begin } else { Step::Nothing }
    }

    /// When the next round is due, by the monotonic clock; `None` while one is under way or the agent is busy.
    pub fn deadline(&self) -> Option<Duration> {
        self.due().filter(|_| self.idle && self.round.is_none())
    }

    fn due(&self) -> Option<Duration> {
        let request = self.request?;
        // A round that was asked for starts at once, also without an interval.
        if self.repeat || request.asked > self.answered {
            return Some(Duration::ZERO);
        }
        Some(self.since + request.interval? / 10_000 * self.spread)
    }

    /// Starts a round over `tasks`; `left_out` more are applied and cannot be checked.
    pub fn begin(&mut self, tasks: impl Iterator<Item = TaskId>, left_out: u64, generation: Generation, now: Now) {
        self.rounds += 1;
        self.repeat = false;
        let findings = Findings {
            round: self.rounds,
            asked: self.request.map_or(self.answered, |request| request.asked.max(self.answered)),
            generation,
            began: now,
            duration: Duration::ZERO,
            checked: 0,
            left_out,
            drifted: BTreeMap::new(),
            failed: BTreeMap::new(),
        };
        self.round = Some(Round { left: tasks.collect(), in_progress: 0, room: CONTENTS_LIMIT, findings });
    }

    /// The next task to check, if one is left and fewer than two checks are under way.
    pub fn next_task(&mut self) -> Option<TaskCheck> {
        let round = self.round.as_mut().filter(|round| round.in_progress < AT_ONCE)?;
        let task = round.left.pop_front()?;
        round.in_progress += 1;
        Some(TaskCheck { round: round.findings.round, task })
    }

    /// Takes the result of a check. `applied` is the fingerprint that was checked, `None` if the task's record has changed
    /// since: then the result is not about what is applied now.
    pub fn checked(&mut self, check: TaskCheck, result: CheckResult, applied: Option<Fingerprint>) {
        let Some(round) = self.round.as_mut().filter(|round| round.findings.round == check.round) else { return };
        round.in_progress -= 1;
        let Findings { began, checked, left_out, drifted, failed, .. } = &mut round.findings;
        match (result, applied) {
            (CheckResult::LeftOut, _) | (_, None) => *left_out += 1,
            (CheckResult::InSync, _) => *checked += 1,
            (CheckResult::Failed(reason), _) => drop(failed.insert(check.task, reason)),
            (CheckResult::Drifted(mut differences), Some(fingerprint)) => {
                *checked += 1;
                // The report must fit into one message: beyond the limit, contents are only named.
                for content in differences.iter_mut().filter_map(|difference| difference.content.as_mut()) {
                    match content.inline_length() {
                        length if length <= round.room => round.room -= length,
                        _ => content.replace_by_name(),
                    }
                }
                // A task that was drifted in the last findings is drifted since then.
                let since_ms = self.standing.get(&check.task).copied().flatten().unwrap_or(began.wall_ms);
                drifted.insert(check.task, Drifted { fingerprint, since_ms, differences });
            }
        }
    }

    /// The findings of the round, once every task of it has been checked.
    pub fn finish(&mut self, now: Now) -> Option<Findings> {
        let round = self.round.take_if(|round| round.left.is_empty() && round.in_progress == 0)?;
        let mut findings = round.findings;
        findings.duration = now.mono.saturating_sub(findings.began.mono);
        self.answered = findings.asked;
        self.since = now.mono;
        let drifted = findings.drifted.iter().map(|(task, drifted)| (task.clone(), Some(drifted.since_ms)));
        // Failed checks, too: when such a task runs again, its check is repeated.
        self.standing = drifted.chain(findings.failed.keys().map(|task| (task.clone(), None))).collect();
        Some(findings)
    }
}
