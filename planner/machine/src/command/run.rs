//! One command: a state machine over what comes in and the time.
//!
//! In: which nodes are online, their nonces and output, the time, a request to stop. Out: orders to nodes, and events for the client. A
//! node's output is taken in the order of its numbers, whatever the order in which it comes; what comes twice, or from a node that was not
//! asked, changes nothing. An order without an answer is given again, which does no harm: agents carry out each once. Ends for certain:
//! every stage of a node has a limit.
//!
//! A node that was ordered runs nothing before it has its go, which is given once at most, for the nonce that the node has answered with,
//! and never after the node was reported as one that has not run it. From the go until more is received it may have run it.

use std::{collections::BTreeMap, time::Duration};

use groundplan_protocol::{
    exec::{ExecEnd, ExecOutcome, ExecOutput, Order, RunOrder},
    ids::{NodeId, Nonce, SessionId},
    limits::truncate,
    time::Now,
};

use super::excerpt::Excerpt;
use super::types::{CommandEvent, CommandNode, CommandRecord, CommandRequest, CommandResult, NodeOutcome};
use crate::fleet::NodePresence;

/// How long a node may take to answer that it is ready, and then to report that it has begun.
const ANSWER: Duration = Duration::from_secs(10);
/// How often an order without an answer is given again.
const AGAIN: Duration = Duration::from_secs(3);
/// How long after its time limit, or after it was to stop, the end of a command may come: an agent gives it 10 s after TERM and 5 s
/// after KILL, and then the report has to come here.
const LATE: Duration = Duration::from_secs(30);
/// How long a gap in a node's output is waited for, and how many messages beyond it are kept.
const GAP: Duration = Duration::from_secs(3);
const BEYOND: usize = 16;
/// Most of the output that is recorded, of one node and of all together, in bytes.
const RECORDED: usize = 16 * 1024;
const RECORDED_ALL: usize = 1024 * 1024;

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Effect {
    /// Give a node an order.
    Order(NodeId, Order),
    /// For the client that asked.
    Event(CommandEvent),
}

/// One command.
#[derive(Debug, Clone)]
pub struct CommandRun {
    request: CommandRequest,
    record: CommandRecord,
    nodes: BTreeMap<NodeId, Node>,
    /// Since when it is to stop.
    stopping: Option<Duration>,
    /// Nothing more is begun: enough has failed.
    enough: bool,
    effects: Vec<Effect>,
}

/// Its state on a node.
#[derive(Debug, Clone)]
struct Node {
    stage: Stage,
    /// Its connection, while there is one.
    session: Option<SessionId>,
    /// What it was ordered to run.
    ordered: Option<RunOrder>,
    /// What its go names, once that was given.
    nonce: Option<Nonce>,
    /// When it was given its order, and after that its go.
    since: Duration,
    /// When its order, or the one to stop, is given again.
    again: Option<Duration>,
    /// When its last output came.
    last_output: Option<Duration>,
    /// The number of the next output.
    next: u64,
    /// Output that came too early, and since when there is any.
    early: BTreeMap<u64, ExecOutput>,
    gap: Option<Duration>,
    excerpt: Excerpt,
    /// How many bytes of output are still taken, and how many were left out here.
    left: u64,
    omitted: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// Its turn has not come.
    Waiting,
    /// Its order was given. It has not run it.
    Ordered,
    /// Its go was given. It may have run it.
    Going,
    /// It has begun.
    Running,
    /// No connection, or no answer, since its go. It counts as ended, and may come back.
    CutOff,
    /// It has ended.
    Ended,
}

impl Node {
    fn is_active(&self) -> bool {
        matches!(self.stage, Stage::Ordered | Stage::Going | Stage::Running)
    }

    /// When something is to be done about it if nothing comes.
    fn deadline(&self, timeout: Duration, stopping: Option<Duration>) -> Option<Duration> {
        let limit = match self.stage {
            Stage::Ordered | Stage::Going => Some(self.since + ANSWER),
            Stage::Running => {
                let due = self.since + timeout;
                let due = stopping.map_or(due, |stopping| stopping.min(due)) + LATE;
                // Output that still comes is waited for, within reason.
                Some(self.last_output.map_or(due, |last_output| due.max(last_output + LATE).min(due + LATE * 4)))
            }
            _ => None,
        };
        let gap = self.gap.map(|since| since + GAP);
        let again = self.again.filter(|_| self.is_active());
        [limit, gap, again].into_iter().flatten().min()
    }
}

impl CommandRun {
    /// Begins; `online` is the connection of each node that has one.
    pub(crate) fn begin(request: CommandRequest, online: &BTreeMap<NodeId, SessionId>, now: Now) -> Self {
        let record = begun(&request, now.wall_ms);
        let kept = (RECORDED_ALL / record.nodes.len().max(1)).clamp(256, RECORDED);
        let node = |id: &NodeId| Node {
            stage: Stage::Waiting,
            session: online.get(id).cloned(),
            ordered: None,
            nonce: None,
            since: Duration::ZERO,
            again: None,
            last_output: None,
            next: 0,
            early: BTreeMap::new(),
            gap: None,
            excerpt: Excerpt::new(kept),
            left: request.output_limit,
            omitted: 0,
        };
        let nodes: BTreeMap<NodeId, Node> = record.nodes.keys().map(|id| (id.clone(), node(id))).collect();
        let presence = |node: &Node| if node.session.is_some() { NodePresence::Online } else { NodePresence::Offline };
        let nodes_online = nodes.iter().map(|(id, node)| (id.clone(), presence(node))).collect();
        let effects = vec![Effect::Event(CommandEvent::Started { nodes: nodes_online })];
        let mut run = Self { request, record, nodes, stopping: None, enough: false, effects };
        run.advance(now.mono);
        run
    }

    /// What came of all inputs since the last time.
    pub(super) fn take_effects(&mut self) -> Vec<Effect> {
        std::mem::take(&mut self.effects)
    }

    /// Takes a node's output. Returns whether the node was asked at all.
    pub(crate) fn output(&mut self, from: &NodeId, output: ExecOutput, now: Duration) -> bool {
        let Some(node) = self.nodes.get_mut(from) else { return false };
        if node.ordered.is_none() || node.stage == Stage::Ended {
            return node.ordered.is_some();
        }
        // Given its go again on a new connection, an agent that knows the command is silent, and one that was restarted does not know it.
        if output.end.as_ref().is_some_and(|end| end.outcome == ExecOutcome::Unknown) {
            let outcome = match node.next {
                0 => NodeOutcome::MayHaveRun,
                _ => {
                    let error = "the agent was restarted meanwhile, and the command ended with it".to_owned();
                    NodeOutcome::Failed { error }
                }
            };
            self.end(from, outcome, None, now);
            self.advance(now);
            return true;
        }
        if output.number < node.next {
            return true;
        }
        node.early.insert(output.number, output);
        self.take_in_order(from, now);
        self.advance(now);
        true
    }

    /// Takes the nonce of a node that is ready. Returns whether the node was asked at all.
    pub(crate) fn ready(&mut self, from: &NodeId, nonce: Nonce, now: Duration) -> bool {
        let Some(node) = self.nodes.get_mut(from) else { return false };
        // In any later stage it has had its go, or never gets one.
        if node.stage == Stage::Ordered && self.stopping.is_none() {
            // What had failed when it was ordered may have become enough meanwhile.
            if self.has_failed_enough() {
                self.effects.push(Effect::Order(from.clone(), Order::Stop));
                self.end(from, NodeOutcome::Stopped, None, now);
            } else if let Some(node) = self.nodes.get_mut(from) {
                node.stage = Stage::Going;
                (node.nonce, node.since, node.again) = (Some(nonce), now, Some(now + AGAIN));
                self.order(from);
            }
            self.advance(now);
        }
        self.nodes.get(from).is_some_and(|node| node.ordered.is_some())
    }

    /// Takes all output whose turn it is, or is taken to be because what comes before is overdue.
    fn take_in_order(&mut self, from: &NodeId, now: Duration) {
        loop {
            let Some(node) = self.nodes.get_mut(from).filter(|node| node.stage != Stage::Ended) else { return };
            let overdue = node.early.len() > BEYOND || node.gap.is_some_and(|since| now >= since + GAP);
            let Some(first) = node.early.first_entry().filter(|first| *first.key() == node.next || overdue) else {
                let gap = node.gap.get_or_insert(now);
                node.gap = Some(*gap).filter(|_| !node.early.is_empty());
                return;
            };
            let output = first.remove();
            (node.next, node.gap, node.last_output) = (output.number.saturating_add(1), None, Some(now));
            let refused = output.end.as_ref().is_some_and(|end| matches!(end.outcome, ExecOutcome::Refused { .. }));
            if !refused && node.stage != Stage::Running {
                node.stage = Stage::Running;
                node.again = self.stopping.map(|_| now + AGAIN);
                self.set(from, NodeOutcome::Running);
                self.effects.push(Effect::Event(CommandEvent::Begun { node: from.clone() }));
            }
            let Some(node) = self.nodes.get_mut(from) else { return };
            for mut piece in output.pieces {
                // Agents keep to the order's limit, and count what they leave out.
                node.omitted += truncate(&mut piece.text, usize::try_from(node.left).unwrap_or(usize::MAX));
                node.left -= piece.text.len() as u64;
                if piece.text.is_empty() {
                    continue;
                }
                node.excerpt.push(&piece.text);
                let (node, stream, text) = (from.clone(), piece.stream, piece.text);
                self.effects.push(Effect::Event(CommandEvent::Output { node, stream, text }));
            }
            if let Some(end) = output.end {
                self.ended(from, end, now);
            }
        }
    }

    fn ended(&mut self, from: &NodeId, end: ExecEnd, now: Duration) {
        let Some(node) = self.nodes.get(from) else { return };
        // An order or a go that came late to another connection: the node was cut off in between, and nothing was run.
        let late = node.ordered.as_ref().is_some_and(|run| node.session.as_ref() != Some(&run.session));
        let outcome = match end.outcome {
            ExecOutcome::Refused { .. } if late => NodeOutcome::CutOff { began: false },
            // Not before the operator stopped it; or for another reason, which does not matter any more.
            ExecOutcome::Refused { .. } if self.stopping.is_some() => NodeOutcome::Stopped,
            outcome => outcome.into(),
        };
        if let Some(known) = self.record.nodes.get_mut(from) {
            known.omitted = end.omitted.saturating_add(node.omitted);
        }
        self.end(from, outcome, Some(end.duration_ms), now);
    }

    /// A node connected or left.
    pub(crate) fn presence(&mut self, id: &NodeId, session: Option<&SessionId>, now: Duration) {
        let Some(node) = self.nodes.get_mut(id) else { return };
        if node.session.as_ref() == session {
            return;
        }
        node.session = session.cloned();
        match (node.stage, session) {
            // Its order was for the connection that it had.
            (Stage::Ordered, _) | (Stage::Going | Stage::Running, None) => self.cut_off(id, now),
            // It reports its state; one that was restarted does not know the command, and reports that.
            (Stage::Going | Stage::Running | Stage::CutOff, Some(_)) => self.order(id),
            _ => {}
        }
        self.advance(now);
    }

    /// Gives a node its order, or its go if it is ready, for the first time or again.
    fn order(&mut self, id: &NodeId) {
        let Some(node) = self.nodes.get(id) else { return };
        let Some(run) = &node.ordered else { return };
        let order = match &node.nonce {
            Some(nonce) => Order::Go { nonce: nonce.clone() },
            None => Order::Run(Box::new(run.clone())),
        };
        // Where it has begun, an order begins nothing; elsewhere no go may follow what is to stop.
        if self.stopping.is_none() || node.next > 0 {
            self.effects.push(Effect::Order(id.clone(), order));
        }
        if self.stopping.is_some() {
            self.effects.push(Effect::Order(id.clone(), Order::Stop));
        }
    }

    /// A node has no connection, or gives no answer.
    fn cut_off(&mut self, id: &NodeId, now: Duration) {
        let Some(node) = self.nodes.get_mut(id) else { return };
        if node.stage == Stage::Ordered {
            // It never gets its go, so it is certain; it need not wait for one either.
            self.effects.push(Effect::Order(id.clone(), Order::Stop));
            return self.end(id, NodeOutcome::CutOff { began: false }, None, now);
        }
        let began = node.stage == Stage::Running || node.next > 0;
        node.stage = Stage::CutOff;
        let outcome = if began { NodeOutcome::CutOff { began } } else { NodeOutcome::MayHaveRun };
        self.report_end(id, outcome, None);
    }

    /// Whether as many have failed as may. What was enough once stays enough, though a node that was cut off may come back.
    fn has_failed_enough(&mut self) -> bool {
        let most = self.request.max_failures.map_or(usize::MAX, |most| most as usize);
        self.enough |= self.record.nodes.values().filter(|node| node.outcome.is_failure()).count() >= most;
        self.enough
    }

    /// Begins on nodes whose turn it is.
    fn advance(&mut self, now: Duration) {
        let most = self.request.at_once.map_or(usize::MAX, |n| n as usize);
        let mut active = self.nodes.values().filter(|node| node.is_active()).count();
        let waiting = self.nodes.iter().filter(|(_, node)| node.stage == Stage::Waiting);
        let waiting: Vec<(NodeId, Option<SessionId>)> =
            waiting.map(|(id, n)| (id.clone(), n.session.clone())).collect();
        for (id, session) in waiting {
            match session {
                _ if self.stopping.is_some() || self.has_failed_enough() => {
                    self.end(&id, NodeOutcome::Stopped, None, now)
                }
                _ if active >= most => return,
                None => self.end(&id, NodeOutcome::Offline, None, now),
                Some(session) => {
                    active += 1;
                    let CommandRequest { run, user, cwd, env, timeout, output_limit, .. } = self.request.clone();
                    let run = RunOrder { session, run, user, cwd, env, timeout, output_limit };
                    if let Some(node) = self.nodes.get_mut(&id) {
                        node.stage = Stage::Ordered;
                        (node.ordered, node.since, node.again) = (Some(run), now, Some(now + AGAIN));
                    }
                    self.order(&id);
                }
            }
        }
    }

    /// Time has passed.
    pub(crate) fn tick(&mut self, now: Duration) {
        let timeout = self.request.timeout.into();
        let due = |node: &Node| node.deadline(timeout, self.stopping).is_some_and(|at| now >= at);
        let due: Vec<NodeId> = self.nodes.iter().filter(|(_, node)| due(node)).map(|(id, _)| id.clone()).collect();
        for id in &due {
            self.take_in_order(id, now);
            let Some(node) = self.nodes.get_mut(id) else { continue };
            if node.again.is_some_and(|at| now >= at) {
                node.again = Some(now + AGAIN);
                match node.stage {
                    Stage::Ordered | Stage::Going => self.order(id),
                    Stage::Running if self.stopping.is_some() => {
                        self.effects.push(Effect::Order(id.clone(), Order::Stop));
                    }
                    _ => node.again = None,
                }
            }
            let Some(node) = self.nodes.get_mut(id) else { continue };
            node.again = node.again.filter(|_| node.is_active());
            let is_late = node.deadline(timeout, self.stopping).is_some_and(|at| now >= at);
            match node.stage {
                Stage::Ordered | Stage::Going if is_late => self.cut_off(id, now),
                Stage::Running if is_late => {
                    self.effects.push(Effect::Order(id.clone(), Order::Stop));
                    self.end(id, NodeOutcome::Lost, None, now);
                }
                _ => {}
            }
        }
        if !due.is_empty() {
            self.advance(now);
        }
    }

    /// When to call [`CommandRun::tick`] at the latest.
    pub(crate) fn deadline(&self) -> Option<Duration> {
        let timeout = self.request.timeout.into();
        self.nodes.values().filter_map(|node| node.deadline(timeout, self.stopping)).min()
    }

    /// The client wants it to stop.
    pub(crate) fn stop(&mut self, now: Duration) {
        if self.stopping.is_some() || self.is_over() {
            return;
        }
        self.stopping = Some(now);
        let mut never = Vec::new();
        for (id, node) in self.nodes.iter_mut().filter(|(_, node)| node.ordered.is_some() && node.stage != Stage::Ended)
        {
            node.again = Some(now + AGAIN);
            self.effects.push(Effect::Order(id.clone(), Order::Stop));
            never.extend((node.stage == Stage::Ordered).then(|| id.clone()));
        }
        // They get no go any more.
        never.iter().for_each(|id| self.end(id, NodeOutcome::Stopped, None, now));
        self.advance(now);
    }

    /// Whether it has ended on every node, as far as is known.
    pub(crate) fn is_over(&self) -> bool {
        self.nodes.values().all(|node| matches!(node.stage, Stage::CutOff | Stage::Ended))
    }

    /// Ends it: what is open then is `open`. A node that is cut off is to stop when it comes back. Returns the record.
    pub(crate) fn close(&mut self, open: &NodeOutcome, now: Now) -> CommandRecord {
        let ids: Vec<NodeId> =
            self.nodes.iter().filter(|(_, n)| n.stage != Stage::Ended).map(|(id, _)| id.clone()).collect();
        for id in ids {
            let Some(node) = self.nodes.get_mut(&id) else { continue };
            let stage = std::mem::replace(&mut node.stage, Stage::Ended);
            if node.ordered.is_some() {
                self.effects.push(Effect::Order(id.clone(), Order::Stop));
            }
            if stage != Stage::CutOff {
                self.end(&id, open.clone(), None, now.mono);
            }
        }
        self.record.finished_ms = Some(now.wall_ms);
        self.record.result = match open {
            NodeOutcome::Interrupted => CommandResult::Interrupted,
            _ if self.stopping.is_some() => CommandResult::Stopped,
            _ => CommandResult::Finished,
        };
        let record = Box::new(self.record.without_output());
        self.effects.push(Effect::Event(CommandEvent::Finished { record }));
        self.record()
    }

    /// Its record as it stands, with what was printed.
    pub fn record(&self) -> CommandRecord {
        let mut record = self.record.clone();
        for (id, node) in &self.nodes {
            if let Some(known) = record.nodes.get_mut(id) {
                known.output = node.excerpt.output();
            }
        }
        record
    }

    fn set(&mut self, id: &NodeId, outcome: NodeOutcome) {
        if let Some(known) = self.record.nodes.get_mut(id) {
            known.outcome = outcome;
        }
    }

    fn end(&mut self, id: &NodeId, outcome: NodeOutcome, duration_ms: Option<u64>, now: Duration) {
        if let Some(node) = self.nodes.get_mut(id) {
            (node.stage, node.again, node.gap, node.last_output) = (Stage::Ended, None, None, Some(now));
            node.early.clear();
        }
        self.report_end(id, outcome, duration_ms);
    }

    fn report_end(&mut self, id: &NodeId, outcome: NodeOutcome, duration_ms: Option<u64>) {
        let Some(known) = self.record.nodes.get_mut(id) else { return };
        if known.outcome == outcome {
            return;
        }
        (known.outcome, known.duration_ms) = (outcome.clone(), duration_ms);
        let (node, omitted) = (id.clone(), known.omitted);
        self.effects.push(Effect::Event(CommandEvent::NodeEnded { node, outcome, duration_ms, omitted }));
    }
}

/// The record of a command that begins.
fn begun(request: &CommandRequest, started_ms: u64) -> CommandRecord {
    CommandRecord {
        id: request.id.clone(),
        by: request.by.clone(),
        on: request.on.clone(),
        run: request.run.clone(),
        user: request.user.clone(),
        cwd: request.cwd.clone(),
        env: request.env.keys().cloned().collect(),
        timeout: request.timeout,
        started_ms,
        finished_ms: None,
        result: CommandResult::Running,
        nodes: request.nodes.iter().map(|node| (node.clone(), waiting())).collect(),
    }
}

/// A node whose turn has not come.
fn waiting() -> CommandNode {
    CommandNode { outcome: NodeOutcome::Waiting, duration_ms: None, omitted: 0, output: None }
}

#[cfg(test)]
#[path = "run_tests.rs"]
mod tests;
