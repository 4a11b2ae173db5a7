//! When to look for drift, at what, and what a look comes to. Decides, and does none of it.
//!
//! In: the planner's wish, whether the agent has nothing else to do, what looks at tasks found, and the time, all as values.
//! Out: which tasks to look at now, and a report of a whole look. It looks when somebody has asked, and an interval after
//! the last look; only while the agent is idle, at two tasks at a time. A plan that comes ends a look at once, which begins
//! anew after it; so does one that ran tasks that stand as drifted. Of a look that is over it keeps names alone.

#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use groundplan_protocol::{
    blob::Content,
    digest::{Digest, Fingerprint},
    drift::{CheckRequest, Drifted},
    ids::{Generation, NodeId, TaskId},
    time::Now,
};

use crate::host::Looked;

/// Tasks looked at side by side.
const AT_ONCE: usize = 2;
/// The shortest interval, whatever is wished: a look costs a host something.
const SHORTEST: Duration = Duration::from_secs(1);
/// Most bytes of content that a report holds; the rest is told by name.
const CONTENTS: usize = 256 * 1024;

/// What is to be done now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Nothing new.
    Nothing,
    /// What is being looked at is to be cancelled.
    Stop,
    /// A look is due: tell all tasks to [`Watch::begin`].
    Begin,
}

/// What a look found, all tasks together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Findings {
    /// Grows with each look of this process, from 1.
    pub count: u32,
    /// What it answers, of what was asked.
    pub asked: u64,
    /// The plan in force.
    pub generation: Generation,
    /// When it began.
    pub began: Now,
    /// How long it took.
    pub duration: Duration,
    /// How many tasks were checked.
    pub checked: u64,
    /// How many could not be, by their nature.
    pub left_out: u64,
    /// What is otherwise than it was applied.
    pub drifted: BTreeMap<TaskId, Drifted>,
    /// What could not be found out, and why.
    pub failed: BTreeMap<TaskId, String>,
}

/// A task to be looked at; the number is to be told with the result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Due {
    /// Which look it belongs to.
    pub look: u32,
    /// The task.
    pub task: TaskId,
}

/// A look that goes on.
#[derive(Debug)]
struct Round {
    left: VecDeque<TaskId>,
    at_work: usize,
    /// Room for content.
    room: usize,
    findings: Findings,
}

/// See the module.
#[derive(Debug)]
pub struct Watch {
    /// In ten-thousandths of the interval: so that a fleet that starts at once does not look at once.
    spread: u32,
    wish: Option<(u64, Option<Duration>, u64)>,
    answered: u64,
    /// When the last look ended, by the monotonic clock; before the first, when the process began.
    since: Duration,
    /// Whether what was told last may be true no more.
    again: bool,
    idle: bool,
    count: u32,
    round: Option<Round>,
    /// What stands as drifted, and since when; without a time, what could not be checked.
    standing: BTreeMap<TaskId, Option<u64>>,
}

impl Watch {
    /// Of this node; it wishes nothing yet.
    pub fn new(node: &NodeId, now: Now) -> Self {
        let bytes = *Digest::of(node.as_str().as_bytes()).as_bytes();
        let spread = 9_000 + u32::from(u16::from_be_bytes([bytes[0], bytes[1]])) % 2_001;
        Self {
            spread,
            wish: None,
            answered: 0,
            since: now.mono,
            again: false,
            idle: false,
            count: 0,
            round: None,
            standing: BTreeMap::new(),
        }
    }

    /// Takes a wish, unless it is older than the one in force.
    pub fn wish(&mut self, look: &CheckRequest) {
        if self.wish.is_none_or(|(revision, ..)| revision < look.revision) {
            let interval = look.interval.map(|interval| Duration::from(interval).max(SHORTEST));
            self.wish = Some((look.revision, interval, look.asked));
        }
    }

    /// A job of `task` has ended.
    pub fn ran(&mut self, task: &TaskId) {
        self.again |= self.standing.contains_key(task);
    }

    /// What follows from the time and from what the agent does otherwise.
    pub fn step(&mut self, idle: bool, generation: Generation, now: Now) -> Step {
        self.idle = idle;
        if self.round.as_ref().is_some_and(|round| !idle || round.findings.generation != generation) {
            self.round = None;
            self.again = true;
            return Step::Stop;
        }
        let due = self.round.is_none() && idle && self.due().is_some_and(|at| at <= now.mono);
        if due { Step::Begin } else { Step::Nothing }
    }

    /// When the next look is due, by the monotonic clock; `None` while one goes on or the agent does something else.
    pub fn deadline(&self) -> Option<Duration> {
        self.due().filter(|_| self.idle && self.round.is_none())
    }

    fn due(&self) -> Option<Duration> {
        let (_, interval, asked) = self.wish?;
        if self.again || asked > self.answered {
            return Some(Duration::ZERO);
        }
        Some(self.since + interval? / 10_000 * self.spread)
    }

    /// Begins a look at `tasks`, and knows of so many that nothing can be told of.
    pub fn begin(&mut self, tasks: impl Iterator<Item = TaskId>, left_out: u64, generation: Generation, now: Now) {
        self.count += 1;
        self.again = false;
        let findings = Findings {
            count: self.count,
            asked: self.wish.map_or(self.answered, |(.., asked)| asked.max(self.answered)),
            generation,
            began: now,
            duration: Duration::ZERO,
            checked: 0,
            left_out,
            drifted: BTreeMap::new(),
            failed: BTreeMap::new(),
        };
        self.round = Some(Round { left: tasks.collect(), at_work: 0, room: CONTENTS, findings });
    }

    /// The next task to look at, if there is one and it may be now.
    pub fn next_task(&mut self) -> Option<Due> {
        let round = self.round.as_mut().filter(|round| round.at_work < AT_ONCE)?;
        let task = round.left.pop_front()?;
        round.at_work += 1;
        Some(Due { look: round.findings.count, task })
    }

    /// Takes what was found of a task. `applied` is the fingerprint of what was looked at, if that is still what is applied;
    /// else nothing can be said of it.
    pub fn looked(&mut self, due: Due, looked: Looked, applied: Option<Fingerprint>) {
        let Some(round) = self.round.as_mut().filter(|round| round.findings.count == due.look) else { return };
        round.at_work -= 1;
        let Findings { began, checked, left_out, drifted, failed, .. } = &mut round.findings;
        match (looked, applied) {
            (Looked::LeftOut, _) | (_, None) => *left_out += 1,
            (Looked::So, _) => *checked += 1,
            (Looked::Failed(reason), _) => drop(failed.insert(due.task, reason)),
            (Looked::Drifted(mut differences), Some(fingerprint)) => {
                *checked += 1;
                for content in differences.iter_mut().filter_map(|difference| difference.content.as_mut()) {
                    match length(content) {
                        length if length <= round.room => round.room -= length,
                        _ => by_name(content),
                    }
                }
                let since_ms = self.standing.get(&due.task).copied().flatten().unwrap_or(began.wall_ms);
                drifted.insert(due.task, Drifted { fingerprint, since_ms, differences });
            }
        }
    }

    /// What the look came to, once all is looked at.
    pub fn finish(&mut self, now: Now) -> Option<Findings> {
        let round = self.round.take_if(|round| round.left.is_empty() && round.at_work == 0)?;
        let mut findings = round.findings;
        findings.duration = now.mono.saturating_sub(findings.began.mono);
        self.answered = findings.asked;
        self.since = now.mono;
        let drifted = findings.drifted.iter().map(|(task, drifted)| (task.clone(), Some(drifted.since_ms)));
        self.standing = drifted.chain(findings.failed.keys().map(|task| (task.clone(), None))).collect();
        Some(findings)
    }
}

/// Tells content by its name alone.
pub fn by_name(content: &mut Content) {
    if let Some(name) = content.name() {
        *content = Content::Blob(name);
    }
}

fn length(content: &Content) -> usize {
    match content {
        Content::Text(text) | Content::Base64(text) => text.len(),
        Content::Blob(_) => 0,
    }
}
