//! The ready queue: the tasks of the active plan, what each waits for, and which may start.
//!
//! In: a plan's tasks, ends of tasks, gates that open. Out: indices of tasks that are ready, in plan order, and of those
//! that an end blocks. It has no notion of jobs, effects or reports. Every task is finished exactly once.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use groundplan_protocol::{
    ids::{GateId, TaskId},
    plan::PlannedTask,
    report::Outcome,
};

use super::{account::Account, io::JobOutcome};

/// A task of the active plan.
#[derive(Debug)]
pub(super) struct Node {
    /// The task; the bytes of its spec are dropped when it starts.
    pub(super) planned: PlannedTask,
    /// Not in the plan as it came: an obligation of an earlier plan that this one does not name, carried out all the same.
    pub(super) inherited: bool,
    /// The outcome of a run for an earlier plan that did the same: only a greater effect is left to do.
    pub(super) adopted: Option<JobOutcome>,
    /// When that run was, and what it printed: this task's own report is the one that people see.
    pub(super) account: Option<Account>,
    /// A run for an earlier plan changed something: this task's own end counts as a change, too.
    pub(super) carried_change: bool,
    /// How often it has failed, and why the last time, while it is to be tried again.
    pub(super) failed: Option<(u32, String)>,
    /// How many tasks, runs and gates it still waits for.
    waits: usize,
    /// Indices of the tasks that come after it.
    dependants: Vec<usize>,
    started: bool,
    outcome: Option<Outcome>,
}

/// The tasks of a plan.
#[derive(Debug, Default)]
pub(super) struct Queue {
    nodes: Vec<Node>,
    index: BTreeMap<TaskId, usize>,
    /// Closed gates, and the tasks that wait for each.
    gates: BTreeMap<GateId, Vec<usize>>,
    /// Indices of the tasks that may start; ordered, so that they start in plan order.
    ready: BTreeSet<usize>,
    /// When failed tasks are tried again, by the monotonic clock, with their indices.
    again: BTreeSet<(Duration, usize)>,
    unfinished: usize,
}

impl Queue {
    /// Appends a task; those that it comes after are in the queue already. Returns its index.
    pub(super) fn push(&mut self, planned: PlannedTask, inherited: bool) -> usize {
        let at = self.nodes.len();
        self.index.insert(planned.task.clone(), at);
        let mut waits = planned.gates.len();
        // Gates open in any order, and each counts once.
        for gate in &planned.gates {
            self.gates.entry(gate.clone()).or_default().push(at);
        }
        for source in &planned.after {
            // One that has its outcome already, as after a restart, is not waited for.
            if let Some(&i) = self.index.get(source)
                && self.nodes[i].outcome.is_none()
            {
                self.nodes[i].dependants.push(at);
                waits += 1;
            }
        }
        if waits == 0 {
            self.ready.insert(at);
        }
        self.unfinished += 1;
        self.nodes.push(Node {
            planned,
            inherited,
            adopted: None,
            account: None,
            carried_change: false,
            failed: None,
            waits,
            dependants: Vec::new(),
            started: false,
            outcome: None,
        });
        at
    }

    pub(super) fn get(&self, at: usize) -> &Node {
        &self.nodes[at]
    }

    pub(super) fn get_mut(&mut self, at: usize) -> &mut Node {
        &mut self.nodes[at]
    }

    pub(super) fn find(&self, task: &TaskId) -> Option<usize> {
        self.index.get(task).copied()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Node> {
        self.nodes.iter()
    }

    /// Indices of the tasks that `task` hands over to.
    pub(super) fn heirs_of(&self, task: &TaskId) -> Vec<usize> {
        let heirs = self.nodes.iter().enumerate().filter(|(_, node)| node.planned.from.contains(task));
        heirs.map(|(at, _)| at).collect()
    }

    /// Indices of the removals that hand over to `task`.
    pub(super) fn removals_for(&self, task: &TaskId) -> Vec<usize> {
        let removals = self.nodes.iter().enumerate().filter(|(_, node)| node.planned.into.contains(task));
        removals.map(|(at, _)| at).collect()
    }

    /// Whether every task has its outcome.
    pub(super) fn is_finished(&self) -> bool {
        self.unfinished == 0
    }

    /// Makes a task wait for one thing more; [`Queue::release`] ends that.
    pub(super) fn hold(&mut self, at: usize) {
        self.nodes[at].waits += 1;
        self.ready.remove(&at);
    }

    /// Makes `after` come after `first`, unless that would close a circle, in which neither could ever start.
    pub(super) fn link(&mut self, first: usize, after: usize) {
        if self.nodes[first].outcome.is_none() && self.nodes[after].is_waiting() && !self.reaches(after, first) {
            self.nodes[first].dependants.push(after);
            self.hold(after);
        }
    }

    fn reaches(&self, from: usize, to: usize) -> bool {
        let (mut seen, mut open) = (BTreeSet::new(), vec![from]);
        while let Some(at) = open.pop() {
            if at == to {
                return true;
            }
            if seen.insert(at) {
                open.extend(&self.nodes[at].dependants);
            }
        }
        false
    }

    /// A task has one thing less to wait for.
    pub(super) fn release(&mut self, at: usize) {
        let node = &mut self.nodes[at];
        node.waits -= 1;
        // It may have been blocked while it waited.
        if node.waits == 0 && !node.started && node.outcome.is_none() {
            self.ready.insert(at);
        }
    }

    /// The first task that may start; it counts as started.
    pub(super) fn take_ready(&mut self) -> Option<usize> {
        let at = self.ready.pop_first()?;
        self.nodes[at].started = true;
        Some(at)
    }

    /// A task that has failed is to be tried again at `time`; until then it counts as not started.
    pub(super) fn try_again(&mut self, at: usize, time: Duration, failed: u32, why: String) {
        let node = &mut self.nodes[at];
        node.started = false;
        node.failed = Some((failed, why));
        self.again.insert((time, at));
    }

    /// When the next failed task is to be tried again.
    pub(super) fn next_try(&self) -> Option<Duration> {
        self.again.first().map(|(time, _)| *time)
    }

    /// Makes those ready whose time has come.
    pub(super) fn wake(&mut self, now: Duration) {
        while let Some((_, at)) = self.again.first().copied().filter(|(time, _)| *time <= now) {
            self.again.pop_first();
            self.ready.insert(at);
        }
    }

    /// Opens a gate; returns the tasks that waited for it, none if it was open already.
    pub(super) fn open(&mut self, gate: &GateId) -> Vec<usize> {
        let waiting = self.gates.remove(gate).unwrap_or_default();
        for &at in &waiting {
            self.release(at);
        }
        waiting
    }

    /// Records an outcome, and releases the tasks that come after. Returns them; if it was no success, none of them may run.
    pub(super) fn finish(&mut self, at: usize, outcome: Outcome) -> Vec<usize> {
        let success = outcome.is_success();
        let node = &mut self.nodes[at];
        debug_assert!(node.outcome.is_none(), "{} has ended twice", node.planned.task);
        node.outcome = Some(outcome);
        // Specs are most of a plan's size, and a task that has ended needs its spec no longer.
        node.planned.spec = None;
        self.ready.remove(&at);
        self.unfinished -= 1;
        let dependants = std::mem::take(&mut self.nodes[at].dependants);
        // Without success they stay as they are: the caller blocks them.
        if success {
            for &d in &dependants {
                self.release(d);
            }
        }
        dependants
    }
}

impl Node {
    /// Whether nothing has been tried yet.
    pub(super) fn is_waiting(&self) -> bool {
        !self.started && self.outcome.is_none()
    }

    /// Its outcome, once it has ended.
    pub(super) fn outcome(&self) -> Option<&Outcome> {
        self.outcome.as_ref()
    }
}
