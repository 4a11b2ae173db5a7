//! Commands that somebody asks for: from the question to the record.
//!
//! In: requests, nodes' words and comings and goings, the time, clients that close their stream. Out: orders, events for who asked, a
//! record at the beginning and at the end. Nothing is ordered before it is recorded, so that a planner which was killed shows what it
//! began. A command of which no planner knows any more is stopped when a node tells of it.

mod course;
mod excerpt;

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use groundplan_protocol::{
    VERSION, envelope,
    exec::{Exec, ExecOutput, Order, TIMEOUT_MAX},
    ids::{ExecId, NodeId, SessionId},
    kinds::Run,
    topic::{NodeTopic, Topic},
};

use self::course::{Course, Effect as CourseEffect};
use super::{Dispatcher, Effect, now_ms};
use crate::{
    api::{
        Telling,
        exec::{ExecEvent, ExecRecord, ExecRequest, ExecResult, NodeOutcome},
        types::Problem,
    },
    trust,
};

/// Most commands at a time.
const MOST: usize = 32;
/// Most text of a command line, in bytes: the kernel takes no argument above 128 KiB.
const LONGEST: usize = 100 * 1024;
/// Most output of a node that can be asked for.
const OUTPUT_MOST: u64 = 1 << 30;
/// How often it is looked whether a client has gone, and how often a record is written anew.
const LOOK: Duration = Duration::from_millis(200);

/// Commands that run.
#[derive(Default)]
pub(super) struct Commands {
    running: BTreeMap<ExecId, Command>,
    /// Nodes on which a command of a planner before this one may still run.
    orphans: Vec<(NodeId, ExecId)>,
}

struct Command {
    course: Course,
    telling: Telling,
    /// Whether a node has begun or ended since the record was written.
    stirred: bool,
}

impl Commands {
    /// Marks those that a planner before this one did not come to end, and remembers where they may run. Returns the records.
    pub(super) fn interrupted(records: Vec<ExecRecord>) -> (Self, Vec<ExecRecord>) {
        let mut commands = Self::default();
        let mut ended = Vec::new();
        for mut record in records.into_iter().filter(|record| record.result == ExecResult::Running) {
            record.result = ExecResult::Interrupted;
            record.finished_ms.get_or_insert_with(now_ms);
            for (id, node) in &mut record.nodes {
                if matches!(node.outcome, NodeOutcome::Waiting | NodeOutcome::Running | NodeOutcome::CutOff { .. }) {
                    commands.orphans.push((id.clone(), record.id.clone()));
                    node.outcome = NodeOutcome::Interrupted;
                }
            }
            ended.push(record);
        }
        (commands, ended)
    }

    /// When there is something to do.
    pub(super) fn deadline(&self, now: Instant) -> Option<Instant> {
        let course = self.running.values().filter_map(|command| command.course.deadline()).min();
        let look = (!self.running.is_empty()).then(|| now + LOOK);
        [course, look].into_iter().flatten().min()
    }
}

fn problem(error: impl Into<String>, hint: impl Into<String>) -> Problem {
    Problem { error: error.into(), hint: Some(hint.into()) }
}

/// What is wrong with a request as such.
fn fault(request: &ExecRequest) -> Option<Problem> {
    let bare = match &request.run {
        Run::Shell(line) => line.trim().is_empty(),
        Run::Args(args) => args.first().is_none_or(String::is_empty),
    };
    let texts = [&request.user, &request.cwd].into_iter().flatten().chain(request.env.values());
    let line = request.run.to_string();
    let size = line.len() + request.env.iter().map(|(name, value)| name.len() + value.len()).sum::<usize>();
    let timeout: Duration = request.timeout.into();
    let bad_name = request.env.keys().find(|name| name.is_empty() || name.contains(['=', '\0']));
    if bare {
        Some(problem("there is no command to run", "give a shell line, or a program with its arguments"))
    } else if line.contains('\0') || texts.clone().any(|text| text.contains('\0')) {
        Some(problem("the command holds a NUL character", "no program can be given one"))
    } else if size > LONGEST {
        let error = format!("the command is {size} bytes long with its environment; {LONGEST} is the most");
        Some(problem(error, "deliver a script as a `file`, and run that"))
    } else if let Some(name) = bad_name {
        let error = format!("`{}` cannot be the name of an environment variable", name.escape_debug());
        Some(problem(error, "a name is not empty and has no `=`"))
    } else if let Some(cwd) = request.cwd.as_ref().filter(|cwd| !cwd.starts_with('/')) {
        Some(problem(format!("`{cwd}` is no absolute path"), "name the directory from `/` on"))
    } else if timeout.is_zero() || timeout > TIMEOUT_MAX.into() {
        let error = format!("a time limit of {} is not possible", request.timeout);
        Some(problem(error, format!("give more than nothing, and at most {TIMEOUT_MAX}")))
    } else if request.at_once == Some(0) || request.max_failures == Some(0) {
        Some(problem("0 nodes at once, or 0 failures, would run nothing", "give 1 or more"))
    } else if request.output_limit > OUTPUT_MOST {
        Some(problem("an output limit above 1 GiB for each node is not possible", "write large output to a file there"))
    } else {
        None
    }
}

impl Dispatcher {
    /// Runs a command for somebody.
    pub(super) fn exec(&mut self, request: ExecRequest, by: String, telling: Telling) -> Result<(), Problem> {
        if !self.leader.plans() {
            let hint = self.leader.standby_of().map(|planner| format!("ask the planner `{planner}`"));
            return Err(Problem { error: "this planner does not plan at the moment".to_owned(), hint });
        }
        let Some(in_force) = &self.loaded else {
            return Err(problem("there is no commit in force yet", "`groundplan status` says why"));
        };
        if let Some(problem) = fault(&request) {
            return Err(problem);
        }
        if self.commands.running.len() >= MOST {
            let error = format!("{MOST} commands run already");
            return Err(problem(error, "wait for one of them; `groundplan history` lists them"));
        }
        let selected = request.on.select(&in_force.loaded.inventory, &in_force.loaded.catalog);
        let selected = selected.map_err(|e| problem(e.to_string(), e.hint()))?;
        let id = self.new_exec_id().ok_or_else(|| problem("the kernel gives no random numbers", "try again"))?;
        let mut record = course::record(id.clone(), by, &request, now_ms());
        record.nodes = selected.iter().map(|node| (node.clone(), course::waiting())).collect();
        let there = |node: &NodeId| Some((node.clone(), self.nodes.get(node)?.session.clone()?));
        let there: BTreeMap<NodeId, SessionId> = selected.iter().filter_map(there).collect();
        tracing::info!(%id, by = record.by, on = record.on, nodes = selected.len(), "runs a command");
        let mut course = Course::begin(request, record, &there, Instant::now());
        self.group.execs.push(course.record().clone());
        let command = Command { course, telling, stirred: false };
        self.commands.running.insert(id.clone(), command);
        self.after_exec(&id);
        Ok(())
    }

    fn new_exec_id(&self) -> Option<ExecId> {
        (0..100).find_map(|_| {
            let random: [u8; 4] = trust::random().ok()?;
            let id = ExecId::new(random.iter().map(|byte| format!("{byte:02x}")).collect::<String>()).ok()?;
            let known = self.commands.running.contains_key(&id) || self.store.exec(&id).ok().flatten().is_some();
            (!known).then_some(id)
        })
    }

    /// Stops a command for somebody.
    pub(super) fn stop_exec(&mut self, id: &ExecId) -> Result<(), Problem> {
        let Some(command) = self.commands.running.get_mut(id) else {
            return Err(problem(format!("no command `{id}` runs"), "`groundplan history` lists them"));
        };
        command.course.stop(Instant::now());
        self.after_exec(id);
        Ok(())
    }

    /// A command's record, as it is now.
    pub(super) fn exec_record(&mut self, id: &ExecId) -> Result<Option<ExecRecord>, crate::store::StoreError> {
        match self.commands.running.get_mut(id) {
            Some(command) => Ok(Some(command.course.record().clone())),
            None => self.store.exec(id),
        }
    }

    /// The latest commands, newest first, without what they printed.
    pub(super) fn exec_history(&mut self, limit: usize) -> Result<Vec<ExecRecord>, crate::store::StoreError> {
        let mut records = self.store.execs(limit)?;
        for record in &mut records {
            if let Some(command) = self.commands.running.get_mut(&record.id) {
                *record = command.course.record().clone();
            }
            *record = record.without_output();
        }
        Ok(records)
    }

    pub(super) fn on_output(&mut self, node: &NodeId, word: ExecOutput, now: Instant) {
        let (id, ended) = (word.id.clone(), word.end.is_some());
        let known = match self.commands.running.get_mut(&id) {
            Some(command) => command.course.word(node, word, now),
            None => false,
        };
        if known {
            self.after_exec(&id);
        } else if !ended && self.leader.plans() {
            // Nobody waits for it any more. One that stands by cannot know.
            self.order(node, &id, Order::Stop);
        }
    }

    pub(super) fn exec_presence(&mut self, node: &NodeId, now: Instant) {
        let session = self.nodes.get(node).and_then(|record| record.session.clone());
        for id in self.commands.running.keys().cloned().collect::<Vec<_>>() {
            if let Some(command) = self.commands.running.get_mut(&id) {
                command.course.presence(node, session.as_ref(), now);
            }
            self.after_exec(&id);
        }
    }

    /// What is due of all commands.
    pub(super) fn tick_execs(&mut self, now: Instant) {
        for id in self.commands.running.keys().cloned().collect::<Vec<_>>() {
            if let Some(command) = self.commands.running.get_mut(&id) {
                if command.telling.has_gone() {
                    command.course.stop(now);
                }
                command.course.tick(now);
            }
            self.after_exec(&id);
        }
    }

    /// Writes down how commands stand, where that has changed.
    pub(super) fn write_execs(&mut self) {
        for command in self.commands.running.values_mut().filter(|command| command.stirred) {
            command.stirred = false;
            self.group.execs.push(command.course.record().clone());
        }
    }

    /// Stops what a planner before this one began and did not end.
    pub(super) fn stop_orphans(&mut self) {
        for (node, id) in std::mem::take(&mut self.commands.orphans) {
            self.order(&node, &id, Order::Stop);
        }
    }

    /// Another planner plans, or this one ends: all that runs is to stop, and is followed no further.
    pub(super) fn end_execs(&mut self, open: &NodeOutcome) {
        let now = Instant::now();
        for (_, mut command) in std::mem::take(&mut self.commands.running) {
            command.course.stop(now);
            let id = command.course.record().id.clone();
            self.group.execs.push(command.course.close(open, now, now_ms()).clone());
            self.carry_out(&id, &mut command);
        }
    }

    /// Does what came of what a command was told, and ends it if that was all.
    fn after_exec(&mut self, id: &ExecId) {
        let Some(mut command) = self.commands.running.remove(id) else { return };
        self.carry_out(id, &mut command);
        if command.course.is_over() {
            let record = command.course.close(&NodeOutcome::Lost, Instant::now(), now_ms()).clone();
            tracing::info!(%id, result = ?record.result, "a command has ended");
            self.group.execs.push(record);
            self.carry_out(id, &mut command);
        } else {
            self.commands.running.insert(id.clone(), command);
        }
    }

    fn carry_out(&mut self, id: &ExecId, command: &mut Command) {
        for effect in command.course.take_effects() {
            match effect {
                CourseEffect::Order(node, order) => self.order(&node, id, order),
                CourseEffect::Tell(event) => {
                    command.stirred |= !matches!(event, ExecEvent::Output { .. });
                    command.telling.tell(event);
                }
            }
        }
    }

    fn order(&mut self, node: &NodeId, id: &ExecId, order: Order) {
        let Some(site) = self.meta.site.clone() else { return };
        // A stop holds whenever it comes, also from who has just ceased to plan; a run only now.
        let late = order == Order::Stop;
        let exec = Exec { version: VERSION, site, node: node.clone(), id: id.clone(), order };
        let topic = Topic::Node(node.clone(), NodeTopic::Exec);
        let payload = envelope::seal(&self.key, &exec);
        if self.leader.plans() || late {
            self.effects.push(Effect::Order { topic, payload, late });
        }
    }
}
