//! From what is desired and believed to plans on their way: the core decides, this writes down and sends.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Instant,
};

use groundplan_core::{
    AppliedState, Plan, Policy, Rollout,
    applied::NodeApplied,
    plan::{NodePart, plan},
};
use groundplan_protocol::{
    MAX_PACKET, VERSION,
    blob::BlobRef,
    digest::Digest,
    envelope,
    ids::{CommitId, Generation, NodeId},
    plan::{Gates, NodePlanRef, PlannedTask},
    report::Ack,
    topic::NodeTopic,
};

use super::{
    DEBOUNCE, Dispatcher, Due,
    drift::NodeLook,
    running::{Running, has_gates},
    words::{self, Places},
};
use crate::{
    api::{
        event::Event,
        types::{Commit, NodePresence},
    },
    store::{LogEntry, PlannedReasons, RolloutHead, StoredPlan},
};

/// Room in a packet for its topic and header.
const ROOM: usize = 1024;

impl Dispatcher {
    /// Plans at once, or after a short while in which more news may come.
    pub(super) fn plan_soon(&mut self, now: Instant, at_once: bool) {
        let latest = self.due.as_ref().map_or(now + DEBOUNCE[1], |due| due.latest);
        let at = if at_once { now } else { (now + DEBOUNCE[0]).min(latest) };
        self.due = Some(Due { at, latest });
    }

    /// Plans from where each node is, and sends what that asks for.
    pub(super) fn plan_now(&mut self) {
        self.due = None;
        self.resolve_anew();
        let policy = Policy { check: self.to_check() };
        self.forget_nodes();
        let Some(in_force) = &self.loaded else { return };
        let (commit, desired) = (in_force.commit.clone(), &in_force.loaded.desired);
        let started = Instant::now();
        // Moved there and back: what a large fleet has applied is too much to be copied for every plan.
        let mut applied = AppliedState::default();
        let mut obligations = BTreeMap::new();
        for (node, record) in
            self.nodes.iter_mut().filter(|(node, record)| record.is_known() && desired.node(node).is_some())
        {
            obligations.insert(node.clone(), record.belief.applied.obligations.clone());
            applied.nodes.insert(node.clone(), std::mem::take(&mut record.belief.applied));
        }
        let mut open = BTreeMap::new();
        if let Some(running) = &self.running {
            running.rollout.carry_obligations(&mut applied);
            running.rollout.carry_late_changes(desired, &mut applied);
            open = running.open_nodes();
        }
        let mut plan = plan(desired, &applied, &policy);
        if let Some(earlier) = self.earlier.take() {
            plan.recall(&applied, &earlier);
        }
        let known: Vec<NodeId> = applied.nodes.keys().cloned().collect();
        for (node, NodeApplied { tasks, .. }) in applied.nodes {
            let record = self.nodes.get_mut(&node).expect("taken from there");
            record.belief.applied = NodeApplied { tasks, obligations: obligations.remove(&node).unwrap_or_default() };
        }
        let generation = self.meta.generation.max(self.leader.seen_generation()).next();
        let (plans, kept) = self.node_plans(&plan, &known, &open, generation, &commit.id);
        tracing::info!(
            commit = %commit.id,
            actions = plan.actions.len(),
            pending = plan.pending.len(),
            nodes = plans.len(),
            took = ?started.elapsed(),
            "planned"
        );
        self.planned_commit = Some(commit.id.clone());
        // What could not be planned before is no news; that it can be now is, even if nothing is to be done.
        let running = self.running.as_ref();
        let pending = running.map_or(&[][..], |running| running.rollout.pending());
        let same_commit = running.is_some_and(|running| running.head.commit.id == commit.id);
        let waits_as_before = plan.pending == pending && (plan.pending.is_empty() || same_commit);
        if plans.is_empty() && open.is_empty() && plan.is_empty() && waits_as_before {
            return;
        }
        self.meta.generation = generation;
        self.start_rollout(plan, generation, commit, kept);
        let published: Vec<NodeId> = plans.iter().map(|(node, _)| node.clone()).collect();
        for (node, stored) in plans {
            let record = self.nodes.get_mut(&node).expect("planned from it");
            record.planned = Some((stored.generation, stored.digest.clone()));
            self.publish_node(&node, NodeTopic::Plan, stored.sealed.clone(), true);
            self.group.plans.push((node, Some(stored)));
        }
        for node in published {
            self.publish_gates(&node);
        }
    }

    /// The plans to be published: for each node that has a part, unless the very same is on its way to it, and an empty one for a
    /// node that is still at an earlier part.
    fn node_plans(
        &mut self,
        plan: &Plan,
        known: &[NodeId],
        open: &BTreeMap<NodeId, bool>,
        generation: Generation,
        commit: &CommitId,
    ) -> (Vec<(NodeId, StoredPlan)>, BTreeMap<NodeId, Generation>) {
        let nothing = NodePart::default();
        let (mut plans, mut kept) = (Vec::new(), BTreeMap::new());
        for node in known {
            let part = plan.nodes.get(node).filter(|part| !part.tasks.is_empty() || !part.edges.is_empty());
            let record = self.nodes.get_mut(node).expect("known");
            let (planned, at) = (record.planned_generation(), record.belief.generation);
            let under_way = open.contains_key(node) || planned > at;
            if part.is_none() && !under_way {
                continue;
            }
            let digest = part.map(digest).unwrap_or_default();
            if let Some(part) = part {
                record.tried = Some((commit.clone(), record.base()));
                // With gates it must not keep its generation: one of them may be open from before. What has failed is to be tried again.
                let same = record.planned.as_ref().is_some_and(|(_, before)| *before == digest);
                let untouched = open.get(node).copied().unwrap_or(true);
                if same && under_way && untouched && planned >= at && !has_gates(part) {
                    kept.insert(node.clone(), planned);
                    continue;
                }
            }
            let part = part.unwrap_or(&nothing);
            plans.push((node.clone(), self.seal_plan(node, part, generation, commit, digest)));
        }
        (plans, kept)
    }

    fn seal_plan(
        &self,
        node: &NodeId,
        part: &NodePart,
        generation: Generation,
        commit: &CommitId,
        digest: Vec<u8>,
    ) -> StoredPlan {
        let site = self.meta.site.clone().expect("a commit is in force");
        let message = part.node_plan(site.clone(), node.clone(), generation, commit.clone());
        let sealed = envelope::seal(&self.key, &message);
        if sealed.len() <= MAX_PACKET - ROOM {
            return StoredPlan { generation, digest, sealed, body: vec![] };
        }
        let body = serde_json::to_vec(&message).expect("wire types have string keys");
        let plan = BlobRef::of(&body);
        let sealed =
            envelope::seal(&self.key, &NodePlanRef { version: VERSION, site, node: node.clone(), generation, plan });
        StoredPlan { generation, digest, sealed, body }
    }

    fn start_rollout(
        &mut self,
        plan: Plan,
        generation: Generation,
        commit: Commit,
        kept: BTreeMap<NodeId, Generation>,
    ) {
        let in_force = self.loaded.as_ref().expect("planned from it");
        let now_ms = super::now_ms();
        let mut places = Places::new(&in_force.tree);
        let actions = plan.actions.iter().map(|planned| PlannedReasons {
            instance: planned.instance.clone(),
            action: planned.action,
            reasons: planned.reasons.iter().map(|reason| places.reason(reason)).collect(),
        });
        let head =
            RolloutHead { generation, commit, started_ms: now_ms, actions: actions.collect(), ended_ms: None, kept };
        drop(places);
        let mut rollout = Rollout::new(&plan, generation);
        for (node, record) in &self.nodes {
            rollout.presence(node, record.presence == NodePresence::Online);
        }
        if let Some(before) = &self.running {
            rollout.take_over_turns(&before.rollout);
        }
        rollout.advance();
        if let Some(before) = &self.running {
            self.group.history.push(before.superseded(now_ms));
        }
        // The log ends here, and what it alone knew goes with it.
        self.write_nodes();
        self.group.log.clear();
        self.group.meta = Some(self.meta.clone());
        self.group.rollout = Some((head.clone(), rollout.clone()));
        let running = Running::new(head, rollout, plan.nodes);
        self.group.history.push(running.detail(&|_| false));
        let summary = running.summary();
        self.running = Some(running);
        self.stirred = true;
        self.tell(Event::RolloutStarted { rollout: summary });
    }

    /// Publishes the open gates of a node, if its plan waits for any.
    fn publish_gates(&mut self, node: &NodeId) {
        let (Some(running), Some(record), Some(site)) = (&self.running, self.nodes.get(node), &self.meta.site) else {
            return;
        };
        let open = running.rollout.open_gates(node);
        if open.is_empty() {
            return;
        }
        let generation = record.planned_generation();
        let gates = Gates { version: VERSION, site: site.clone(), node: node.clone(), generation, open };
        let sealed = envelope::seal(&self.key, &gates);
        self.publish_node(node, NodeTopic::Gates, sealed, true);
    }

    /// Opens gates whose time has come, and tells how far a rollout is.
    pub(super) fn progress(&mut self) {
        if !self.leader.plans() {
            return;
        }
        if !std::mem::take(&mut self.stirred) {
            return self.tell_idle();
        }
        let Some(running) = &mut self.running else { return self.tell_idle() };
        // What comes after an export is planned with its value first.
        let held = self.learned.as_ref().is_some_and(|learned| learned.holds_gates);
        let grown = if held { BTreeSet::new() } else { running.rollout.advance() };
        self.stirred = held;
        let finished = std::mem::take(&mut self.finished);
        if !finished.is_empty() && self.events.receiver_count() > 0 {
            let counts = words::counts(running.rollout.summary());
            for (instance, report) in finished {
                let (action, outcome, duration_ms) = (report.action, report.outcome, report.duration_ms);
                self.tell(Event::TaskFinished { instance, action, outcome, duration_ms, counts });
            }
        }
        if !grown.is_empty() {
            self.group.log.push(LogEntry::Advance);
        }
        for node in grown {
            self.publish_gates(&node);
        }
        let Some(running) = &mut self.running else { return };
        if running.rollout.is_outdated() && self.due.is_none() {
            self.plan_soon(Instant::now(), false);
        }
        let Some(running) = &mut self.running else { return };
        if !running.is_over() {
            // Perhaps again: what was interrupted may run after all.
            running.head.ended_ms = None;
            self.idle_told = false;
            return;
        }
        if running.head.ended_ms.is_none() {
            running.head.ended_ms = Some(super::now_ms());
            let detail = running.detail(&|_| false);
            tracing::info!(generation = %detail.summary.generation, result = ?detail.summary.result, "rollout ended");
            let event = Event::RolloutFinished { rollout: detail.summary.clone() };
            self.group.history.push(detail);
            self.tell(event);
        }
        self.tell_idle();
    }

    fn tell_idle(&mut self) {
        let over = self.running.as_ref().is_none_or(|running| running.head.ended_ms.is_some());
        if over && self.due.is_none() && self.planned_commit.is_some() && !self.idle_told {
            self.tell(Event::Idle);
            self.idle_told = true;
        }
    }

    /// Goes on with the rollout that was under way.
    pub(super) fn resume(&mut self) {
        let Some(running) = &mut self.running else { return };
        self.stirred = true;
        let over = running.head.ended_ms.is_some();
        tracing::info!(generation = %running.head.generation, "resumed");
        for (node, record) in &self.nodes {
            let online = record.presence == NodePresence::Online;
            running.rollout.presence(node, online);
            if !over {
                self.group.log.push(LogEntry::Presence { node: node.clone(), online });
            }
        }
        if let Some(in_force) = &self.loaded {
            let desired = &in_force.loaded.desired;
            // Heard of for the first time while this planner was away.
            let mut unplanned = self.nodes.iter().filter(|(_, record)| record.is_known() && record.planned.is_none());
            if unplanned.any(|(node, _)| desired.node(node).is_some()) {
                self.plan_soon(Instant::now(), false);
            }
        }
    }

    /// Says everything again: the broker may have lost it.
    pub(super) fn publish_everything(&mut self) {
        let nodes: Vec<NodeId> = self.nodes.keys().cloned().collect();
        for node in nodes {
            match self.store.plan(&node) {
                Ok(Some(plan)) => self.publish_node(&node, NodeTopic::Plan, plan.sealed, true),
                Ok(None) => {}
                Err(error) => {
                    tracing::error!(error = &error as &dyn std::error::Error, %node, "its plan cannot be published")
                }
            }
            self.publish_gates(&node);
            self.publish_ack(&node);
        }
        self.publish_looks_again();
    }

    /// Publishes which reports of a node are on the disk.
    pub(super) fn publish_ack(&mut self, node: &NodeId) {
        let (Some(site), Some(record)) = (&self.meta.site, self.nodes.get(node)) else { return };
        if let Some((ledger, sequence)) = record.acked.clone() {
            let ack = Ack { version: VERSION, site: site.clone(), node: node.clone(), ledger, sequence };
            let sealed = envelope::seal(&self.key, &ack);
            self.publish_node(node, NodeTopic::Ack, sealed, false);
        }
    }

    /// Puts nodes into the group that are not on the disk as they are here.
    pub(super) fn write_nodes(&mut self) {
        for (node, record) in self.nodes.iter_mut().filter(|(_, record)| record.dirty) {
            record.dirty = false;
            self.group.nodes.push((node.clone(), Some(record.stored())));
        }
    }

    /// Clears what is retained for nodes that the inventory no longer has.
    pub(super) fn forget_nodes(&mut self) {
        let Some(in_force) = &self.loaded else { return };
        let gone = |(node, record): (&NodeId, &super::NodeRecord)| {
            let gone = (record.planned.is_some() || record.look.is_published())
                && !in_force.loaded.inventory.nodes.contains_key(node);
            gone.then(|| node.clone())
        };
        let gone: Vec<NodeId> = self.nodes.iter().filter_map(gone).collect();
        for node in gone {
            tracing::info!(%node, "no longer in the inventory: its plan is withdrawn");
            self.publish_node(&node, NodeTopic::Plan, vec![], true);
            self.publish_node(&node, NodeTopic::Gates, vec![], true);
            self.publish_node(&node, NodeTopic::Check, vec![], true);
            self.group.plans.push((node.clone(), None));
            if let Some(record) = self.nodes.get_mut(&node) {
                record.planned = None;
                record.look = NodeLook::default();
            }
            if let Some(running) = &mut self.running {
                running.rollout.forget(&node);
            }
        }
    }
}

/// Digest of what a part asks for.
fn digest(part: &NodePart) -> Vec<u8> {
    let tasks: Vec<PlannedTask> = part.tasks.iter().map(groundplan_core::plan::PlanTask::to_wire).collect();
    let edges: BTreeMap<_, _> = part.edges.iter().map(|(task, edges)| (task, &**edges)).collect();
    let json = serde_json::to_vec(&(tasks, edges)).expect("wire types have string keys");
    Digest::of(&json).as_bytes().to_vec()
}
