//! Messages of the broker, given to the parts that they concern.

use std::{collections::BTreeMap, time::Duration};

use groundplan_protocol::{
    encryption::EncryptionKey,
    ids::{Generation, NodeId, Sequence, TaskId},
    presence::Presence,
    report::{ReportBatch, TaskReport},
    state::{NodeState, Phase},
    text::foreign,
    time::Now,
};

use super::{Finished, Machine};
use crate::{
    fleet::{Node, StateNews},
    ids::Receipt,
    io::{Effect, Event, Incoming, Level, NodeMessage},
    record::LogEntry,
    write::Write,
};

/// Most of a node's text in a line of the log, in characters.
const LINE: usize = 500;

/// How often a node that announces another key each time is offered its plan.
const REKEY_PAUSE: Duration = Duration::from_secs(10);

/// Numbers of reports up to this are believed: more than could be counted up to in a thousand years.
const PLAUSIBLE: u64 = 1 << 48;

/// Why a message cannot be what an agent counts up to. Its numbers are kept, and plans are numbered above them: without this, one node could
/// use up the generations of the whole fleet, or have its own reports taken for old ones for ever. `known`: the greatest generation that
/// this planner knows of; a greater one is believed with a planner's receipt alone.
fn implausible(message: &NodeMessage, known: Generation) -> Option<&'static str> {
    const NO_PLAN: &str = "names a generation that no planner has given";
    const NO_REPORT: &str = "names a report that no agent has counted up to";
    match message {
        NodeMessage::State(state) if !state.generation.is_valid() => Some(NO_PLAN),
        NodeMessage::State(state) if state.generation > known && state.receipt.is_none() => Some(NO_PLAN),
        NodeMessage::State(state) if state.sequence.0 > PLAUSIBLE => Some(NO_REPORT),
        NodeMessage::Reports(batch) => {
            let ReportBatch { first, last, acked, generation, .. } = batch;
            let generations = batch.reports.iter().map(|report| report.generation);
            if !generations.fold(*generation, Generation::max).is_valid() {
                Some(NO_PLAN)
            } else if first.0.max(last.0) > PLAUSIBLE || acked > last {
                Some(NO_REPORT)
            } else {
                None
            }
        }
        _ => None,
    }
}

/// A node's text, for a line of the log.
fn line(text: &str) -> String {
    foreign(text, LINE)
}

impl Machine {
    /// Logs what a node has caused, unless it has caused too many lines.
    pub(super) fn log_of(&mut self, node: &NodeId, level: Level, text: String, now: Now) {
        let budget = self.fleet.get_mut(node).map(|known| &mut known.log);
        let line = match budget {
            Some(budget) => budget.line(text, now.mono),
            None => Some(text),
        };
        if let Some(line) = line {
            self.log(level, line);
        }
    }

    pub(super) fn take_message(&mut self, receipt: Receipt, message: Incoming, now: Now) {
        self.note_heard(&message, now);
        match message {
            // A plan under way was started from what nodes had reported then. What they report meanwhile is taken when the plan is
            // there, as if it had come then: so the plan and the rollout that it supersedes agree on what is known.
            Incoming::Node(node, message @ (NodeMessage::State(_) | NodeMessage::Reports(_)))
                if self.deployment.planning().is_some() =>
            {
                self.held.push_back((receipt, node, message));
                return;
            }
            Incoming::Node(node, message) => self.take_node(node, message, now),
            Incoming::Planner(presence) => {
                let actions = self.leadership.presence(&presence, now.mono);
                self.obey(actions, now);
                self.follow_forgets(&presence);
                self.follow_parks(&presence);
            }
            Incoming::Refused { node, reason, hint } => {
                let active = self.deployment.active().map(|active| &**active);
                match self.fleet.admit(&node, active).map(|known| known.reject(reason.clone(), hint.clone())) {
                    Some(true) => {
                        let line = format!("a message of node {node} is refused: {reason} ({hint})");
                        self.log_of(&node, Level::Warn, line, now);
                    }
                    Some(false) => {}
                    None => self.ignored += 1,
                }
            }
            Incoming::Empty => {}
            Incoming::Foreign => self.ignored += 1,
        }
        self.out.push(Effect::Acknowledge(receipt));
    }

    /// Takes what was held while a plan was worked out, unless another one is.
    pub(super) fn release_held(&mut self, now: Now) {
        while self.deployment.planning().is_none() {
            let Some((receipt, node, message)) = self.held.pop_front() else { return };
            self.take_node(node, message, now);
            self.out.push(Effect::Acknowledge(receipt));
        }
    }

    fn take_node(&mut self, node: NodeId, message: NodeMessage, now: Now) {
        let active = self.deployment.active().map(|active| &**active);
        let greatest = self.meta.generation.max(self.leadership.seen_generation());
        let Some(known) = self.fleet.admit(&node, active) else { return };
        known.seen_ms = Some(now.wall_ms);
        if let Some(reason) = implausible(&message, greatest) {
            let hint = "its agent is faulty, or its key is in other hands; or this planner has lost its store, and the agent is of a release \
                        without receipts: see `groundplan serve --help` about `--generation`"
                .to_owned();
            known.reject(reason.to_owned(), hint);
            return;
        }
        match message {
            NodeMessage::State(state) => self.take_state(&node, *state, now),
            NodeMessage::Reports(batch) => self.take_reports(&node, &batch, now),
            NodeMessage::Presence(presence) => self.take_presence(&node, &presence, now),
            NodeMessage::Drift(report) => self.take_drift(&node, report, now),
            NodeMessage::Ready(ready) => self.take_ready(&node, ready, now),
            NodeMessage::Output(output) => self.take_output(&node, output, now),
            NodeMessage::Want(want) => {
                if self.leadership.plans() {
                    self.out.push(Effect::Ship(node, want));
                }
            }
        }
    }

    /// Takes which generation a node is at, and what it still runs.
    fn take_accepted(&mut self, node: &NodeId, generation: Generation, running: &[TaskId]) {
        let ended = self.rollout_mut().is_some_and(|rollout| rollout.accepted(node, generation, running));
        if ended {
            let (node, running) = (node.clone(), running.to_vec());
            self.persist(Write::Log(LogEntry::Accepted { node, generation, running }));
        }
    }

    /// Ends the node's part of a rollout whose plan its agent has refused: it is not one that an older generation or another plan
    /// explains, so it would be refused again however often it is sent.
    fn take_refusal(&mut self, node: &NodeId, state: &NodeState, now: Now) {
        let Some(refused) = state.refused.as_ref().filter(|refused| refused.topic == "plan") else { return };
        // A state repeats the last refusal, whatever was offered since.
        let known = self.fleet.get(node).and_then(|known| known.state.as_ref()?.refused.as_ref());
        if known == Some(refused) {
            return;
        }
        let Some(generation) = refused.generation.filter(|generation| *generation > state.generation) else { return };
        let (reason, at_ms) = (refused.reason.clone(), now.wall_ms);
        if !self.rollout_mut().is_some_and(|rollout| rollout.refused(node, generation, &reason, at_ms)) {
            return;
        }
        self.log_of(node, Level::Warn, format!("node {node} refuses plan {generation}: {}", line(&reason)), now);
        self.persist(Write::Log(LogEntry::Refused { node: node.clone(), generation, reason, at_ms }));
    }

    fn take_state(&mut self, node: &NodeId, state: NodeState, now: Now) {
        self.meta.generation = self.meta.generation.max(state.generation);
        let known = self.fleet.get(node);
        // A state may overtake reports; then the batch that brings the last of them counts.
        let reported = known.is_some_and(|known| known.has_all(&state.ledger, state.sequence));
        let of_another = known.is_some_and(|known| known.has_plan_of_another(&state));
        if state.phase == Phase::Idle && reported && !of_another {
            self.take_accepted(node, state.generation, &[]);
        }
        // Its receipt was verified. What this planner offers in an earlier term, having lost its own with its disk, nodes refuse.
        match state.receipt.as_ref().and_then(|receipt| self.leadership.outrun(receipt.term)) {
            Some(claim) => {
                self.obey(vec![claim], now);
                self.renew_at = now.mono;
            }
            None => self.take_refusal(node, &state, now),
        }
        let degraded = self.fleet.get(node).and_then(|known| known.degraded().cloned()).unwrap_or_default();
        let key = self.fleet.get(node).and_then(Node::encryption_key);
        self.retained.has_state(node, &state.ledger);
        let Some(folded) = self.fleet.fold_state(node, state) else { return };
        self.take_encryption_key(node, key, now);
        self.take_degraded(node, &degraded, now);
        let commit = self.deployment.active().map(|active| active.commit.id.clone());
        let mut plan = match folded.news {
            StateNews::Past => {
                let reason = "comes from a ledger that the node no longer has";
                if let Some(known) = self.fleet.get_mut(node) {
                    known.reject(reason.to_owned(), String::new());
                }
                false
            }
            StateNews::None | StateNews::Seen => self.has_other_edges(node, &folded.edges),
            // One that is not declared gets no plan, whatever it is busy with.
            StateNews::Unplanned => self.deployment.active().is_none_or(|active| active.declares(node)),
            StateNews::Unexplained => {
                let known = self.fleet.get(node);
                commit.is_some_and(|commit| known.is_some_and(|known| !known.was_tried(&commit)))
            }
        };
        if folded.news != StateNews::Past {
            plan = self.damp_state(node, &folded, plan, now);
        }
        if plan {
            self.log(Level::Debug, format!("node {node} reports what no plan explains"));
            self.deployment.plan_soon(now, false);
        }
        if let Some(first) = folded.facts {
            self.deployment.facts_changed(node, first, now);
        }
        folded.exports.into_iter().for_each(|(task, before)| self.take_export(node, &task, before, now));
    }

    /// Has a node offered its plan again if it cannot read what was encrypted to the key that it had before; also the plan that it has taken,
    /// because the keys of what it still has to fetch for it are in the offer alone.
    fn take_encryption_key(&mut self, node: &NodeId, before: Option<EncryptionKey>, now: Now) {
        let Some(known) = self.fleet.get_mut(node) else { return };
        let key = known.encryption_key();
        if key.is_none() {
            let hint = "it gets no plan: upgrade its agent".to_owned();
            known.reject("its agent announces no key to encrypt to".to_owned(), hint);
        } else if key != before && known.planned.is_some() {
            self.rekeyed.entry(node.clone()).or_insert((now.mono, true)).1 = true;
        }
    }

    /// Offers nodes that have another key their plans, each at once and then at most every `REKEY_PAUSE`: a plan can be large, and a state
    /// that announces another key is small.
    pub(super) fn offer_rekeyed(&mut self, now: Now) {
        let due: Vec<NodeId> =
            self.rekeyed.iter().filter(|(_, (at, _))| *at <= now.mono).map(|(node, _)| node.clone()).collect();
        for node in due {
            // One that has kept its key for that long is offered the plan at once the next time.
            if let Some((_, true)) = self.rekeyed.remove(&node) {
                self.offer_plan(node.clone());
                self.rekeyed.insert(node, (now.mono + REKEY_PAUSE, false));
            }
        }
    }

    /// Reports which tasks of a node no longer work, and which work again; `before` are those that did not work until now.
    fn take_degraded(&mut self, node: &NodeId, before: &BTreeMap<TaskId, String>, at: Now) {
        let now = self.fleet.get(node).and_then(|known| known.degraded().cloned()).unwrap_or_default();
        for (task, why) in now.iter().filter(|(task, _)| !before.contains_key(*task)) {
            self.log_of(node, Level::Warn, format!("{} is degraded: {}", task.at(node), line(why)), at);
            self.event(|| Event::Degraded(task.at(node), Some(why.clone())));
        }
        let active = self.deployment.active().cloned();
        // One that has failed with its last attempt is not degraded any more, and does not work either.
        let works = |task: &TaskId| {
            let desired = active.as_ref().and_then(|active| active.desired.instance(&task.at(node)));
            let applied = self.fleet.get(node).and_then(|known| known.fingerprint(task));
            desired.is_none_or(|desired| applied == Some(desired.resolved.fingerprint))
        };
        let works_again: Vec<&TaskId> = before.keys().filter(|task| !now.contains_key(*task) && works(task)).collect();
        for task in works_again {
            self.log_of(node, Level::Info, format!("{} works again", task.at(node)), at);
            self.event(|| Event::Degraded(task.at(node), None));
        }
    }

    fn take_presence(&mut self, node: &NodeId, presence: &Presence, now: Now) {
        if presence.online {
            self.expect_state(node, &presence.ledger, now);
        }
        let trouble = self.fleet.get(node).and_then(|known| known.trouble.clone());
        if let Some(reason) = presence.trouble.as_ref().filter(|reason| trouble.as_ref() != Some(*reason)) {
            let line = format!("the agent of node {node} cannot go on: {}", line(reason));
            self.log_of(node, Level::Warn, line, now);
        }
        if let Some(changed) = self.fleet.fold_presence(node, presence, now) {
            // It is heard as of now: what was refused before, of the same agent or of another one, is of no more use.
            if let Some(known) = self.fleet.get_mut(node) {
                known.rejected = None;
            }
            let online = presence.online;
            let depends = self.rollout.as_ref().is_some_and(|rollout| rollout.depends_on_presence(node));
            if let Some(rollout) = self.rollout_mut() {
                rollout.rollout.presence(node, online);
            }
            if depends {
                self.persist(Write::Log(LogEntry::Presence { node: node.clone(), online }));
            }
            self.event(|| Event::Node(node.clone(), changed));
        }
        let session = self.fleet.get(node).and_then(|known| known.session.clone());
        self.commands.presence(node, session.as_ref(), now);
    }

    fn take_reports(&mut self, node: &NodeId, batch: &ReportBatch, now: Now) {
        // One that stands by leaves them to be repeated to the one that plans.
        if !self.leadership.plans() {
            return;
        }
        self.expect_state(node, &batch.ledger, now);
        self.expect_presence(node, now);
        for task in self.fleet.fold_running(node, batch) {
            self.event(|| Event::TaskStarted(task.at(node)));
        }
        if let Some(rollout) = self.rollout_mut() {
            rollout.rollout.running(node, &batch.running);
        }
        let news = self.fleet.get_mut(node).and_then(|known| known.unseen(batch));
        if let Some((first, reports)) = news {
            for (i, report) in reports.iter().enumerate() {
                let number = Sequence(first.0.saturating_add(i as u64));
                // Also where the node's state, which may overtake its reports, has brought it already.
                self.drift.fold_report(node, report, now);
                let planned = self.rollout.as_ref().and_then(|rollout| rollout.planned(node, report));
                let agreed = self.agreed(node, &report.task);
                let known = self.fleet.get_mut(node).expect("admitted above");
                let export = report.export.as_ref().and_then(|_| known.exports.get(&report.task).cloned());
                if known.fold_report(&batch.ledger, number, report, planned) {
                    self.take_export(node, &report.task, export, now);
                }
                let otherwise = self.is_left_otherwise(node, report);
                if self.damp_report(node, report, agreed, otherwise, now) {
                    self.deployment.plan_soon(now, false);
                }
                let Some(rollout) = self.rollout_mut() else { continue };
                if rollout.fold(node, report) && self.listeners {
                    self.finished.push(Finished::of(node, report));
                }
            }
            let (node, ledger) = (node.clone(), batch.ledger.clone());
            if let Some((ledger, sequence)) = self.fleet.acked(&node) {
                self.persist(Write::Ack(node.clone(), ledger, sequence));
            }
            self.persist(Write::Log(LogEntry::Reports { node, ledger, first, reports }));
        }
        // After the reports, and only once there are no others: a task that runs no longer may have failed, and keeps its turn then.
        if self.fleet.get(node).is_some_and(|known| known.has_all(&batch.ledger, batch.last)) {
            self.take_accepted(node, batch.generation, &batch.running);
        }
        // Again for what came twice: the agent may have missed the first acknowledgement.
        if !batch.reports.is_empty() {
            self.publish_ack(node);
        }
    }

    /// Whether a node has recorded edges of one of these tasks that are not the desired ones, and the current plan does not see
    /// to it: an older plan, on its way when the current one was made, has had them recorded, which no report shows.
    fn has_other_edges(&self, node: &NodeId, recorded: &[TaskId]) -> bool {
        let (Some(rollout), Some(active)) = (&self.rollout, self.deployment.active()) else { return false };
        let (Some(known), desired) = (self.fleet.get(node), &active.desired) else { return false };
        let Some(at) = desired.node(node) else { return false };
        recorded.iter().filter(|task| !rollout.records_edges(node, task)).any(|task| {
            let (Some(vertex), Some(applied)) = (desired.graph.task(task), known.belief.applied.tasks.get(task)) else {
                return false;
            };
            // What is applied with another fingerprint is a change, and records its edges when it is done.
            let same = vertex.on(at).is_some_and(|instance| instance.resolved.fingerprint == applied.fingerprint);
            same && desired.declared_edges(vertex) != applied.edges
        })
    }

    /// Whether a task is otherwise than desired after this report, and the current plan does not see to it: an older plan has changed it
    /// since, or what the current one took to be applied is in doubt on the node, because of a run for an older one.
    fn is_left_otherwise(&self, node: &NodeId, report: &TaskReport) -> bool {
        let (Some(rollout), Some(active)) = (&self.rollout, self.deployment.active()) else { return false };
        let (Some(known), Some(at)) = (self.fleet.get(node), active.desired.node(node)) else { return false };
        let seen_to = match report.generation >= rollout.head.generation {
            // What failed is tried again with the next change.
            true => !report.outcome.is_success(),
            false => rollout.settles(node, report),
        };
        if seen_to {
            return false;
        }
        let task = active.desired.graph.task(&report.task);
        let pending = task.is_some_and(|task| task.pending_on(at).is_some());
        let desired = task.and_then(|task| task.on(at)).map(|instance| instance.resolved.fingerprint);
        !pending && known.fingerprint(&report.task) != desired && !known.was_tried(&active.commit.id)
    }
}

#[cfg(test)]
mod tests {
    use groundplan_protocol::{
        VERSION,
        ids::{LedgerId, SiteName},
    };

    use super::*;
    use crate::{io::Settings, write::Stored};

    fn batch(generation: u64, first: u64, last: u64, acked: u64) -> NodeMessage {
        NodeMessage::Reports(ReportBatch {
            version: VERSION,
            site: SiteName::new("site").unwrap(),
            node: NodeId::new("n1").unwrap(),
            ledger: LedgerId::new("0123456789abcdef0123456789abcdef").unwrap(),
            first: Sequence(first),
            generation: Generation(generation),
            reports: Vec::new(),
            running: Vec::new(),
            last: Sequence(last),
            acked: Sequence(acked),
        })
    }

    #[test]
    fn numbers_that_nothing_counts_up_to_are_refused() {
        let most = Generation(9);
        for (generation, first, last, acked) in [(7, 3, 9, 2), (0, 1, 0, 0), (PLAUSIBLE, 1, 1, 1)] {
            assert_eq!(implausible(&batch(generation, first, last, acked), most), None);
        }
        let absurd = [(1 << 53, 1, 1, 0), (1, u64::MAX, 1, 0), (1, 1, u64::MAX, 0), (1, 1, 3, 4), (1, 1, 1, u64::MAX)];
        for (generation, first, last, acked) in absurd {
            assert!(implausible(&batch(generation, first, last, acked), most).is_some());
        }
    }

    #[test]
    fn a_planner_whose_generations_are_used_up_goes_on_from_the_middle() {
        let mut stored = Stored::default();
        stored.meta.planner = "one".to_owned();
        stored.meta.generation = Generation(u64::MAX - 2);
        let machine = Machine::restore(&Settings::new([0; 16]), stored, Now::default());
        assert_eq!(machine.meta.generation, Generation(1 << 52));
    }
}
