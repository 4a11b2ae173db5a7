//! Messages of the broker: checked, folded in, and their effects put down.
//!
//! A message that is not signed by its node's key changes nothing. Folding is idempotent: what comes twice, late or from a ledger
//! that is gone is told apart by numbers.

use std::{collections::BTreeMap, time::Instant};

use groundplan_protocol::{
    blob::Want,
    drift::DriftReport,
    envelope::{self, Message, OpenError},
    exec::ExecOutput,
    ids::{NodeId, Sequence, TaskId},
    presence::{PlannerPresence, Presence},
    report::ReportBatch,
    state::{NodeState, Phase},
    topic::{NodeTopic, Topic},
};

use super::{
    Dispatcher,
    node::{NodeRecord, StateNews, key_hint},
};
use crate::{
    api::{event::Event, types::NodePresence},
    store::LogEntry,
};

/// How many nodes that the inventory does not have are remembered by name: whoever may publish could invent any number.
const STRANGERS: usize = 1000;

/// What was reported after a node's belief was stored.
pub(super) fn refold(nodes: &mut BTreeMap<NodeId, NodeRecord>, log: &[LogEntry]) {
    for entry in log {
        let LogEntry::Reports { node, ledger, first, reports } = entry else { continue };
        let record = nodes.entry(node.clone()).or_default();
        for (i, report) in reports.iter().enumerate() {
            if record.belief.fold_report(ledger, Sequence(first.0 + i as u64), report, None) {
                record.fold_export(report);
                record.dirty = true;
            }
        }
    }
}

impl Dispatcher {
    pub(super) fn on_message(&mut self, topic: &str, payload: &[u8], now: Instant) {
        let Some(site) = self.meta.site.clone() else { return };
        match Topic::parse(&site, topic) {
            // A cleared retained message, such as an operator's or a test's.
            Some(_) if payload.is_empty() => {}
            Some(Topic::Planner) => match envelope::open::<PlannerPresence>(payload, &[self.key.public()], &site) {
                Ok(presence) => {
                    let orders = self.leader.presence(&presence, now);
                    self.obey(orders);
                }
                Err(error) => {
                    self.ignored += 1;
                    tracing::debug!(%error, "not a planner's presence");
                }
            },
            Some(Topic::Node(node, NodeTopic::State)) => {
                self.with(&node, payload, |m: &NodeState| &m.node, |this, state| this.on_state(&node, state));
            }
            Some(Topic::Node(node, NodeTopic::Report)) => {
                self.with(&node, payload, |m: &ReportBatch| &m.node, |this, batch| this.on_reports(&node, &batch));
            }
            Some(Topic::Node(node, NodeTopic::Presence)) => {
                self.with(&node, payload, |m: &Presence| &m.node, |this, presence| this.on_presence(&node, &presence));
                self.exec_presence(&node, now);
            }
            Some(Topic::Node(node, NodeTopic::Drift)) => {
                self.with(&node, payload, |m: &DriftReport| &m.node, |this, report| this.on_drift(&node, report));
            }
            Some(Topic::Node(node, NodeTopic::Output)) => {
                self.with(&node, payload, |m: &ExecOutput| &m.node, |this, word| this.on_output(&node, word, now));
            }
            Some(Topic::Node(node, NodeTopic::Want)) => {
                self.with(&node, payload, |m: &Want| &m.node, |this, want| this.on_want(&node, &want));
            }
            _ => self.ignored += 1,
        }
    }

    /// Opens a node's message and hands it on, or counts it.
    fn with<M: Message>(
        &mut self,
        node: &NodeId,
        payload: &[u8],
        of: impl Fn(&M) -> &NodeId,
        take: impl FnOnce(&mut Self, M),
    ) {
        let site = self.meta.site.clone().expect("connected for it");
        let inventory = self.loaded.as_ref().map(|l| &l.loaded.inventory);
        let declared = inventory.is_some_and(|i| i.nodes.contains_key(node));
        let key = self.keys.key(node, inventory);
        let refusal = match key {
            Ok(Some(key)) => match envelope::open::<M>(payload, &[key], &site) {
                Ok(message) if of(&message) == node => {
                    if let Some(record) = self.record(node, declared) {
                        record.seen_ms = Some(super::now_ms());
                        take(self, message);
                    }
                    return;
                }
                Ok(message) => (format!("is signed by it, but for node `{}`", of(&message)), String::new()),
                Err(OpenError::Signature) => {
                    let hint = format!("if the node was rebuilt: {}", key_hint(&self.state_dir, node));
                    ("is not signed by the node's key".to_owned(), hint)
                }
                Err(error @ (OpenError::Version { .. } | OpenError::Site(_))) => {
                    (error.to_string(), "use the same release and site for planner and agent".to_owned())
                }
                Err(_) => {
                    self.ignored += 1;
                    return;
                }
            },
            Ok(None) if declared => ("no key of the node is known".to_owned(), key_hint(&self.state_dir, node)),
            Ok(None) => ("the inventory does not have the node".to_owned(), "declare it in the inventory".to_owned()),
            Err(error) => (error.to_string(), key_hint(&self.state_dir, node)),
        };
        let (reason, hint) = refusal;
        match self.record(node, declared) {
            Some(record) => {
                if record.rejected.as_ref().is_none_or(|r| r.reason != reason) {
                    tracing::warn!(%node, reason, hint, "a message is refused");
                }
                record.reject(reason, hint);
            }
            None => self.ignored += 1,
        }
    }

    fn record(&mut self, node: &NodeId, declared: bool) -> Option<&mut NodeRecord> {
        let room = declared || self.nodes.contains_key(node) || {
            let declared = self.loaded.as_ref().map_or(0, |l| l.loaded.inventory.nodes.len());
            self.nodes.len() < declared + STRANGERS
        };
        room.then(|| self.nodes.entry(node.clone()).or_default())
    }

    fn on_state(&mut self, node: &NodeId, state: NodeState) {
        self.meta.generation = self.meta.generation.max(state.generation);
        let commit = self.loaded.as_ref().map(|l| l.commit.id.clone());
        let Some(record) = self.nodes.get_mut(node) else { return };
        if let Some(running) = self.running.as_mut().filter(|_| state.phase == Phase::Idle) {
            running.accepted(node, state.generation, &[]);
            self.stirred = true;
        }
        let (facts, exports) = (record.facts.clone(), record.exports.clone());
        let news = record.fold_state(state);
        let told = (record.facts != facts).then_some(facts.is_empty());
        let published = exports_differ(&exports, &record.exports);
        let plan = match news {
            StateNews::Past => {
                record.reject("comes from a ledger that the node no longer has".to_owned(), String::new());
                false
            }
            StateNews::None | StateNews::Seen => false,
            StateNews::Rebuilt => true,
            // What was tried from here and failed is not tried again before something changes.
            StateNews::Unexplained => commit.is_some_and(|c| record.tried != Some((c, record.base()))),
        };
        if plan {
            tracing::debug!(%node, "has news that no plan explains");
            self.plan_soon(Instant::now(), false);
        }
        if let Some(first) = told {
            self.on_facts(node, first);
        }
        published.iter().for_each(|task| self.on_export(task));
    }

    fn on_presence(&mut self, node: &NodeId, presence: &Presence) {
        let Some(record) = self.nodes.get_mut(node) else { return };
        let word = if presence.online { NodePresence::Online } else { NodePresence::Offline };
        record.session = presence.session.clone().filter(|_| presence.online);
        if std::mem::replace(&mut record.presence, word) == word {
            return;
        }
        if !presence.online {
            record.running.clear();
        }
        if let Some(running) = &mut self.running {
            running.rollout.presence(node, presence.online);
            self.stirred = true;
            if running.head.ended_ms.is_none() {
                self.group.log.push(LogEntry::Presence { node: node.clone(), online: presence.online });
            }
        }
        self.tell(Event::Node { node: node.clone(), presence: word });
    }

    fn on_reports(&mut self, node: &NodeId, batch: &ReportBatch) {
        // One that stands by leaves them to be repeated to the one that plans.
        if !self.leader.plans() {
            return;
        }
        let Some(record) = self.nodes.get_mut(node) else { return };
        let started: Vec<_> = batch.running.iter().filter(|task| !record.running.contains(task)).cloned().collect();
        record.running.clone_from(&batch.running);
        if let Some(running) = &mut self.running {
            running.rollout.running(node, &batch.running);
            running.accepted(node, batch.generation, &batch.running);
            self.stirred = true;
        }
        let news = record.news(batch);
        for task in started {
            self.tell(Event::TaskStarted { instance: task.at(node) });
        }
        if let Some((first, reports)) = news {
            for (i, report) in reports.iter().enumerate() {
                let number = Sequence(first.0.saturating_add(i as u64));
                let record = self.nodes.get_mut(node).expect("looked up above");
                // Also where the node's state, which may overtake its reports, has told of it already.
                record.look.fold_report(report, Instant::now());
                let planned = self.running.as_ref().and_then(|running| running.planned(node, report));
                if record.belief.fold_report(&batch.ledger, number, report, planned) {
                    record.dirty = true;
                    if record.fold_export(report) {
                        self.on_export(&report.task);
                    }
                }
                let Some(running) = &mut self.running else { continue };
                self.stirred = true;
                if running.fold(node, report) && self.events.receiver_count() > 0 {
                    self.finished.push((report.task.at(node), report.clone()));
                }
            }
            let (node, ledger) = (node.clone(), batch.ledger.clone());
            if let Some((ledger, sequence)) = self.nodes.get(&node).and_then(|r| r.acked.clone()) {
                self.group.acks.push((node.clone(), ledger, sequence));
            }
            self.group.log.push(LogEntry::Reports { node, ledger, first, reports });
        }
        // Told again for what came twice: the agent may have missed the first word.
        if !batch.reports.is_empty() {
            self.publish_ack(node);
        }
    }
}

/// The tasks of which another value is published than before, or none any more.
fn exports_differ(before: &BTreeMap<TaskId, String>, after: &BTreeMap<TaskId, String>) -> Vec<TaskId> {
    let gone = before.keys().filter(|task| !after.contains_key(task));
    let new = after.iter().filter(|(task, value)| before.get(task) != Some(value)).map(|(task, _)| task);
    gone.chain(new).cloned().collect()
}
