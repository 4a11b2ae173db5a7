//! What goes to nodes beside plans: drift checks, and orders to run or stop commands.

use std::collections::{BTreeMap, BTreeSet};

use groundplan_protocol::{
    VERSION,
    drift::DriftReport,
    exec::{Exec, ExecOutput, ExecReady, Order},
    ids::{ExecId, NodeId},
    time::Now,
};

use super::Machine;
use crate::{
    command::{CommandEvent, Outcome},
    fleet::Node,
    io::{Delivery, Effect, Level, Message},
    write::Write,
};

impl Machine {
    /// Publishes to each declared node when it is to check for drift, where that has changed; to those in `asked` that it is to check
    /// now. Returns the number of each such request.
    pub(super) fn publish_checks(&mut self, asked: &BTreeSet<NodeId>, now: Now) -> BTreeMap<NodeId, u64> {
        let Some(active) = self.deployment.active().cloned() else { return BTreeMap::new() };
        if !self.leadership.plans() {
            return BTreeMap::new();
        }
        let (requests, numbers) = self.drift.requests(&active, asked, now);
        requests.into_iter().for_each(|request| self.publish(Message::Check(request)));
        numbers
    }

    /// Takes what a drift check found.
    pub(super) fn take_drift(&mut self, node: &NodeId, report: DriftReport, now: Now) {
        let Some(known) = self.fleet.get(node) else { return };
        // It is of a ledger that the node no longer has.
        if known.belief.ledger.as_ref().is_some_and(|ledger| *ledger != report.ledger) {
            return;
        }
        let (drifted, checked) = (report.drifted.len(), report.checked);
        if !self.drift.fold(node, report) {
            return;
        }
        self.log(Level::Debug, format!("node {node} has checked {checked} tasks for drift: {drifted} have drifted"));
        let Some(active) = self.deployment.active().cloned() else { return };
        let more = self.drift.choose(node, &active, now);
        if (more || self.has_unhealed(node, now)) && self.leadership.plans() {
            self.deployment.plan_soon(now, false);
        }
    }

    /// Whether something on a node that was to be repaired by policy was tried, did not succeed, and may be tried again.
    fn has_unhealed(&self, node: &NodeId, now: Now) -> bool {
        let (Some(active), Some(known)) = (self.deployment.active(), self.fleet.get(node)) else { return false };
        known.belief.applied.tasks.iter().any(|(task, applied)| {
            let desired = active.desired.instance(&task.at(node));
            desired.is_some_and(|desired| desired.resolved.fingerprint != applied.fingerprint)
                && self.drift.may_retry(node, task, active, now)
        })
    }

    /// Chooses again what is to be repaired, on all nodes: the policies may be others than before.
    pub(super) fn choose_all(&mut self, now: Now) {
        let Some(active) = self.deployment.active().cloned() else { return };
        let nodes: Vec<NodeId> = self.drift.nodes().keys().cloned().collect();
        let more = nodes.iter().filter(|node| self.drift.choose(node, &active, now)).count() > 0;
        if more && self.leadership.plans() {
            self.deployment.plan_soon(now, false);
        }
    }

    /// Takes that a node is ready to run a command.
    pub(super) fn take_ready(&mut self, node: &NodeId, ready: ExecReady, now: Now) {
        let id = ready.id.clone();
        // The agent would give it up by itself a moment later.
        if !self.commands.ready(node, ready, now) && self.leadership.plans() {
            self.order(node.clone(), id, Order::Stop);
        }
    }

    /// Takes a node's output of a command.
    pub(super) fn take_output(&mut self, node: &NodeId, output: ExecOutput, now: Now) {
        let (id, ended) = (output.id.clone(), output.end.is_some());
        let known = self.commands.output(node, output, now);
        // No planner follows it any more. One that stands by cannot know.
        if !known && !ended && self.leadership.plans() {
            self.order(node.clone(), id, Order::Stop);
        }
    }

    /// Carries out what came of commands.
    pub(super) fn take_command_outcomes(&mut self) {
        for outcome in self.commands.take() {
            match outcome {
                Outcome::Order(node, id, order) => self.order(node, id, order),
                Outcome::Record(record) => self.persist(Write::Command(record)),
                Outcome::Event(id, event) => {
                    if let CommandEvent::Finished { record } = &event {
                        self.log(Level::Info, format!("command {id} has ended: {:?}", record.result));
                    }
                    self.out.push(Effect::CommandEvent(id, event));
                }
            }
        }
    }

    fn order(&mut self, node: NodeId, id: ExecId, order: Order) {
        let Some(site) = self.meta.site.clone() else { return };
        // An order to stop holds whenever it comes, also from a planner that has just ceased to plan; one to run only now.
        let late = order == Order::Stop;
        let delivery = match late {
            _ if self.stopping => Delivery::Urgent,
            true => Delivery::Late,
            false => Delivery::Now,
        };
        if self.leadership.plans() || late {
            // A connected agent has announced its key a moment after its presence: the order is given again.
            let Some(key) = self.fleet.get(&node).and_then(Node::encryption_key) else { return };
            let exec = Exec { version: VERSION, site, node, id, order };
            self.out.push(Effect::Publish(Message::Exec(exec, key, delivery)));
        }
    }
}
