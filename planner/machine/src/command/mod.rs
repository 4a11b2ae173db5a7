//! Commands that operators run: from the request to the record.
//!
//! In: requests, nodes' output and presence, the time, clients that stop reading. Out: orders, events for the client, a record at the
//! beginning and at the end. No order is given before its command is recorded, so that a planner which was killed shows what it began.
//! A command that no planner follows any more is stopped when a node reports it.

mod excerpt;
mod run;
mod types;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use groundplan_protocol::{
    exec::{ExecOutput, ExecReady, Order},
    ids::{ExecId, NodeId, SessionId},
    time::Now,
};

pub use self::{
    run::CommandRun,
    types::{CommandEvent, CommandNode, CommandRecord, CommandRequest, CommandResult, NodeOutcome},
};
use crate::io::Problem;

/// Most commands at a time.
const MOST: usize = 32;

/// What came of a command's input.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// Give a node an order.
    Order(NodeId, ExecId, Order),
    /// An event for the client.
    Event(ExecId, CommandEvent),
    /// Write its record.
    Record(Box<CommandRecord>),
}

/// Commands that run.
#[derive(Debug, Default)]
pub(crate) struct Commands {
    running: BTreeMap<ExecId, Running>,
    /// Nodes on which a command of a planner before this one may still run.
    orphans: Vec<(NodeId, ExecId)>,
    out: Vec<Outcome>,
}

#[derive(Debug)]
struct Running {
    run: Arc<CommandRun>,
    /// Whether a node has begun or ended since the record was written.
    dirty: bool,
}

impl Commands {
    /// Marks those that a planner before this one did not see end, and remembers where they may run.
    pub(crate) fn interrupted(records: Vec<CommandRecord>, now: Now) -> Self {
        let mut commands = Self::default();
        for mut record in records.into_iter().filter(|record| record.result == CommandResult::Running) {
            record.result = CommandResult::Interrupted;
            record.finished_ms.get_or_insert(now.wall_ms);
            for (id, node) in &mut record.nodes {
                if matches!(
                    node.outcome,
                    NodeOutcome::Waiting | NodeOutcome::Running | NodeOutcome::CutOff { .. } | NodeOutcome::MayHaveRun
                ) {
                    commands.orphans.push((id.clone(), record.id.clone()));
                    node.outcome = NodeOutcome::Interrupted;
                }
            }
            commands.out.push(Outcome::Record(Box::new(record)));
        }
        commands
    }

    /// What came of all inputs since the last time.
    pub(crate) fn take(&mut self) -> Vec<Outcome> {
        std::mem::take(&mut self.out)
    }

    /// The commands that run, for views.
    pub(crate) fn running(&self) -> BTreeMap<ExecId, Arc<CommandRun>> {
        self.running.iter().map(|(id, running)| (id.clone(), running.run.clone())).collect()
    }

    /// When there is something to do, by the monotonic clock.
    pub(crate) fn deadline(&self) -> Option<Duration> {
        self.running.values().filter_map(|running| running.run.deadline()).min()
    }

    /// Begins a command; `online` is the connection of each of its nodes that has one.
    pub(crate) fn begin(
        &mut self,
        request: CommandRequest,
        online: &BTreeMap<NodeId, SessionId>,
        now: Now,
    ) -> Result<(), Problem> {
        if self.running.len() >= MOST {
            return Err(Problem::TooManyCommands { limit: MOST });
        }
        let id = request.id.clone();
        let mut run = CommandRun::begin(request, online, now);
        self.out.push(Outcome::Record(Box::new(run.record())));
        self.collect(&id, &mut run);
        self.running.insert(id.clone(), Running { run: Arc::new(run), dirty: false });
        self.settle(&id, now);
        Ok(())
    }

    /// Stops a command.
    pub(crate) fn stop(&mut self, id: &ExecId, now: Now) -> Result<(), Problem> {
        self.with(id, now, |run| run.stop(now.mono)).ok_or_else(|| Problem::NoCommand(id.clone()))
    }

    /// Takes that a node is ready to run one. Returns false if no such command runs, or it was not to run there.
    pub(crate) fn ready(&mut self, node: &NodeId, ready: ExecReady, now: Now) -> bool {
        self.with(&ready.id, now, |run| run.ready(node, ready.nonce, now.mono)).unwrap_or(false)
    }

    /// Takes a node's output. Returns false if no such command runs.
    pub(crate) fn output(&mut self, node: &NodeId, output: ExecOutput, now: Now) -> bool {
        let id = output.id.clone();
        self.with(&id, now, |run| run.output(node, output, now.mono)).unwrap_or(false)
    }

    /// Takes a node's connection, or that it has none.
    pub(crate) fn presence(&mut self, node: &NodeId, session: Option<&SessionId>, now: Now) {
        self.each(now, |run| run.presence(node, session, now.mono));
    }

    /// Does what is due of all commands.
    pub(crate) fn tick(&mut self, now: Now) {
        let due = |running: &Running| running.run.deadline().is_some_and(|at| now.mono >= at);
        let ids: Vec<ExecId> = self.running.iter().filter(|(_, r)| due(r)).map(|(id, _)| id.clone()).collect();
        for id in ids {
            self.with(&id, now, |run| run.tick(now.mono));
        }
    }

    /// Has the records of commands written that have changed.
    pub(crate) fn write(&mut self) {
        for running in self.running.values_mut().filter(|running| running.dirty) {
            running.dirty = false;
            self.out.push(Outcome::Record(Box::new(running.run.record())));
        }
    }

    /// Stops what a planner before this one began and did not see end.
    pub(crate) fn stop_orphans(&mut self) {
        let orphans = std::mem::take(&mut self.orphans).into_iter();
        self.out.extend(orphans.map(|(node, id)| Outcome::Order(node, id, Order::Stop)));
    }

    /// Another planner plans, or this one ends: all that runs is to stop, and is followed no further. What is open is recorded as `open`.
    pub(crate) fn end_all(&mut self, open: &NodeOutcome, now: Now) {
        for (id, running) in std::mem::take(&mut self.running) {
            let mut run = Arc::unwrap_or_clone(running.run);
            run.stop(now.mono);
            let record = run.close(open, now);
            self.out.push(Outcome::Record(Box::new(record)));
            self.collect(&id, &mut run);
        }
    }

    fn each(&mut self, now: Now, mut act: impl FnMut(&mut CommandRun)) {
        for id in self.running.keys().cloned().collect::<Vec<_>>() {
            self.with(&id, now, &mut act);
        }
    }

    /// Gives a command an input, takes what comes of it, and ends the command if that was all.
    fn with<T>(&mut self, id: &ExecId, now: Now, act: impl FnOnce(&mut CommandRun) -> T) -> Option<T> {
        let running = self.running.get_mut(id)?;
        let result = act(Arc::make_mut(&mut running.run));
        self.settle(id, now);
        Some(result)
    }

    fn settle(&mut self, id: &ExecId, now: Now) {
        let Some(mut running) = self.running.remove(id) else { return };
        let run = Arc::make_mut(&mut running.run);
        running.dirty |= self.collect(id, run);
        if run.is_over() {
            let record = run.close(&NodeOutcome::Lost, now);
            self.out.push(Outcome::Record(Box::new(record)));
            self.collect(id, run);
        } else {
            self.running.insert(id.clone(), running);
        }
    }

    /// Takes a command's effects. Returns whether a node has begun or ended.
    fn collect(&mut self, id: &ExecId, run: &mut CommandRun) -> bool {
        let mut dirty = false;
        for effect in run.take_effects() {
            self.out.push(match effect {
                run::Effect::Order(node, order) => Outcome::Order(node, id.clone(), order),
                run::Effect::Event(event) => {
                    dirty |= !matches!(event, CommandEvent::Output { .. });
                    Outcome::Event(id.clone(), event)
                }
            });
        }
        dirty
    }
}
