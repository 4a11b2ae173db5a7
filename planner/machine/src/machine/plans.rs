//! From what is desired and applied to plans on their way, and the progress of their rollout.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use groundplan_core::{AppliedState, Policy};
use groundplan_protocol::{VERSION, ids::NodeId, plan::Gates, report::Ack, state::Phase, time::Now, topic::NodeTopic};

use super::{Finished, Machine};
use crate::{
    fleet::Node,
    ids::JobId,
    io::{Effect, Event, Level, Message, OFFER_VALID},
    planning::{PlanJob, Planned, Sent},
    record::LogEntry,
    rollout::{ActiveRollout, RolloutHead, RolloutResult, so_far},
    write::Write,
};

/// How often plans are offered again that their nodes have not taken: well before an offer expires.
const RENEW: Duration = Duration::from_secs(OFFER_VALID.as_secs() / 7);

impl Machine {
    /// Starts to work out a plan from where each node is.
    pub(super) fn start_plan(&mut self, job: JobId) {
        self.forget_undeclared();
        self.drop_settled_requests();
        let Some(active) = self.deployment.active().cloned() else { return };
        let generation = self.meta.generation.max(self.leadership.seen_generation()).next();
        let mut applied = AppliedState::default();
        let mut sent = BTreeMap::new();
        for (id, node) in self.fleet.nodes().iter().filter(|(id, node)| node.is_known() && active.declares(id)) {
            applied.insert(id.clone(), &node.belief);
            if let Some(applied) = applied.nodes.get_mut(id) {
                node.damping.mask(applied);
            }
            // A state that is older than the last report says nothing of what the node does now.
            let latest = node.state.as_ref().filter(|state| state.sequence >= node.belief.sequence);
            let busy = latest.is_some_and(|state| state.phase != Phase::Idle);
            let idle = latest.is_some() && !busy;
            let (planned, ledger) = (node.planned.clone(), node.belief.ledger.clone());
            sent.insert(id.clone(), Sent { planned, ledger, at: node.belief.generation, busy, idle });
        }
        let policy = Policy { check: self.drift.to_check(), parked: self.parked(), forget: self.meta.forget.clone() };
        let (earlier, before) = (self.deployment.take_earlier(), self.rollout.clone());
        let again = self.deployment.wants_retry();
        self.deployment.planning_started(job, generation);
        let job = PlanJob { job, generation, active, earlier, applied, policy, before, sent, again };
        self.out.push(Effect::Plan(Box::new(job)));
    }

    /// Takes up a plan: writes it down, sends it, and begins its rollout.
    pub(super) fn take_planned(&mut self, planned: Planned, now: Now) {
        let Some(planning) = self.deployment.planned(planned.job) else { return };
        let overtaken = planning.generation <= self.leadership.seen_generation();
        if overtaken || !self.leadership.plans() {
            // Agents would refuse it: another planner has used this generation meanwhile.
            planning.requests.into_iter().for_each(|request| self.deployment.wait_for_plan(request, now));
            self.deployment.plan_soon(now, true);
        } else {
            let used = self.use_plan(planned, planning.generation, now);
            let generation = used.then_some(planning.generation);
            self.out.extend(planning.requests.into_iter().map(|request| request.reply(generation)));
        }
        self.release_held(now);
    }

    /// Returns whether there was anything to do.
    fn use_plan(&mut self, planned: Planned, generation: groundplan_protocol::ids::Generation, now: Now) -> bool {
        let Some(active) = self.deployment.active().cloned() else { return false };
        let commit = active.commit.clone();
        // No state was taken since it was started. Most are marked already, and a node that is changed is copied while a view of it is in use.
        let marked = self.fleet.unconsidered().filter(|(id, node)| node.is_known() && active.declares(id));
        let marked: Vec<NodeId> = marked.map(|(id, _)| id.clone()).collect();
        marked.iter().for_each(|id| self.fleet.consider(id));
        let (actions, nodes) = (planned.actions.len(), planned.plans.len());
        self.log(
            Level::Info,
            format!(
                "planned commit {}: {actions} actions, plans for {nodes} nodes, {} pending",
                commit.id,
                planned.pending.len()
            ),
        );
        self.deployment.planned_commit = Some(commit.id.clone());
        for node in &planned.tried {
            if let Some(known) = self.fleet.get_mut(node) {
                known.note_tried(commit.id.clone());
            }
        }
        // What could not be planned before is no news; that it can be now is, even if nothing is to be done.
        let before = self.rollout.as_ref();
        let pending = before.map_or(&[][..], |before| before.rollout.pending());
        let same_commit = before.is_some_and(|before| before.head.commit.id == commit.id);
        let waits_as_before = planned.pending == pending && (pending.is_empty() || same_commit);
        if planned.plans.is_empty() && !planned.supersedes_open && planned.actions.is_empty() && waits_as_before {
            return false;
        }
        self.meta.generation = generation;
        let Planned { actions, mut rollout, parts, plans, kept, .. } = planned;
        let head = RolloutHead { generation, commit, started_ms: now.wall_ms, actions, ended_ms: None, kept };
        for (id, node) in self.fleet.nodes() {
            rollout.presence(id, node.is_online());
        }
        if let Some(before) = self.rollout.take() {
            rollout.take_over_turns(&before.rollout, &active.desired);
            self.persist(Write::History(Box::new(before.superseded(now.wall_ms))));
        }
        rollout.advance();
        self.note_elections(&active);
        // The log ends here: what it alone held of nodes is written with them.
        self.write_nodes();
        self.write_meta();
        self.persist(Write::Rollout(Arc::new(head.clone()), Box::new(rollout.clone())));
        let begun = ActiveRollout::new(head, rollout, parts);
        self.persist(Write::History(Box::new(begun.detail(&|_| false))));
        self.event(|| Event::RolloutStarted(begun.summary()));
        self.rollout = Some(Arc::new(begun));
        self.rollout_dirty = true;
        let published: Vec<NodeId> = plans.iter().map(|(node, _)| node.clone()).collect();
        for (node, plan) in plans {
            if let Some(known) = self.fleet.get_mut(&node) {
                known.planned = Some(plan.note.clone());
            }
            self.persist(Write::Plan(node.clone(), Some(plan)));
            self.offer_plan(node);
        }
        published.iter().for_each(|node| self.publish_gates(node));
        true
    }

    /// The rollout, to be changed: its progress is worked out at the end of the round.
    pub(super) fn rollout_mut(&mut self) -> Option<&mut ActiveRollout> {
        let rollout = self.rollout.as_mut()?;
        self.rollout_dirty = true;
        Some(Arc::make_mut(rollout))
    }

    /// Opens gates whose time has come, and reports how far the rollout is.
    pub(super) fn progress(&mut self, now: Now) {
        if !self.leadership.plans() {
            return;
        }
        if !self.rollout_dirty || self.rollout.is_none() {
            self.rollout_dirty = false;
            // Nothing of it has changed, but it may have waited for nothing but nodes that are planned for by now. Not through
            // `rollout_dirty`: a plan that finds nothing to do leaves an outdated rollout as it is, which would be planned for for ever.
            let waits = self.rollout.as_ref().is_some_and(|rollout| rollout.unplanned > 0);
            return if waits { self.end_rollout(true, now) } else { self.report_idle() };
        }
        let held = self.deployment.holds_gates();
        let rollout = Arc::make_mut(self.rollout.as_mut().expect("checked above"));
        let advanced = if held { None } else { rollout.rollout.advance() };
        // What is held back is looked at again as soon as it may go on.
        self.rollout_dirty = held;
        let finished = std::mem::take(&mut self.finished);
        if !finished.is_empty() && self.listeners {
            let counts = so_far(rollout.rollout.progress());
            for Finished { instance, action, outcome, duration_ms, skipped } in finished {
                self.event(|| Event::TaskFinished { instance, action, outcome, duration_ms, skipped, counts });
            }
        }
        if let Some(grown) = advanced {
            self.persist(Write::Log(LogEntry::Advance));
            grown.iter().for_each(|node| self.publish_gates(node));
        }
        let rollout = Arc::make_mut(self.rollout.as_mut().expect("checked above"));
        let has_run = rollout.rollout.has_run();
        if rollout.rollout.is_outdated() && !self.deployment.plan_is_due() {
            self.deployment.plan_soon(now, false);
        }
        self.end_rollout(has_run, now);
    }

    /// Ends the rollout if all of it has ended (`has_run`) and no node is left to be planned for.
    fn end_rollout(&mut self, has_run: bool, now: Now) {
        let Some(rollout) = &self.rollout else { return };
        // One that has ended stays so, whatever node comes later.
        let ended = rollout.head.ended_ms.is_some();
        let unplanned = if has_run && !ended { self.unplanned() } else { 0 };
        let Some(rollout) = &mut self.rollout else { return };
        if rollout.unplanned != unplanned {
            Arc::make_mut(rollout).unplanned = unplanned;
        }
        match (has_run && unplanned == 0, ended) {
            (false, true) => {
                // Again under way: what was interrupted runs after all.
                Arc::make_mut(rollout).head.ended_ms = None;
                self.idle_reported = false;
            }
            (false, false) => self.idle_reported = false,
            (true, false) => {
                let rollout = Arc::make_mut(rollout);
                rollout.head.ended_ms = Some(now.wall_ms);
                let detail = rollout.detail(&|_| false);
                let result = if detail.summary.result == RolloutResult::Failed { "failed" } else { "succeeded" };
                self.log(Level::Info, format!("rollout {} ended: it {result}", detail.summary.generation));
                let summary = detail.summary.clone();
                self.persist(Write::History(Box::new(detail)));
                self.event(|| Event::RolloutFinished(summary));
                self.report_idle();
            }
            (true, true) => self.report_idle(),
        }
    }

    /// How many declared nodes are not planned for: connected ones of which no state has come, or for which the plan that is due is the first,
    /// and those whose state the broker may have. What is parked is not waited for.
    fn unplanned(&self) -> usize {
        let Some(active) = self.deployment.active() else { return 0 };
        let due = self.deployment.plan_is_due();
        let waits = |id: &NodeId, node: Option<&Node>| {
            let is_unplanned = |node: &Node| node.is_online() && (!node.is_known() || due && !node.considered);
            node.is_some_and(is_unplanned) || self.awaits_state(id, node)
        };
        let is_parked = |id: &NodeId| self.meta.parked.contains_key(id) || active.desired.is_parked(id);
        let waits = |id: &&NodeId| active.declares(id) && waits(id, self.fleet.get(id)) && !is_parked(id);
        if !self.retained.is_over() {
            return active.desired.nodes.iter().filter(waits).count();
        }
        // Of all others a state has come, or none is waited for, and the last plan was made with it.
        let awaited = self.retained.awaited();
        let left: BTreeSet<&NodeId> = self.fleet.unconsidered().map(|(id, _)| id).chain(&awaited).collect();
        left.into_iter().filter(waits).count()
    }

    fn report_idle(&mut self) {
        let over = self.rollout.as_ref().is_none_or(|rollout| rollout.head.ended_ms.is_some());
        let planned = self.deployment.planned_commit.is_some() && !self.deployment.plan_is_due();
        if over && planned && !self.idle_reported && self.unplanned() == 0 {
            self.event(|| Event::Idle);
            self.idle_reported = true;
        }
    }

    /// Goes on with the rollout that was under way when the planner ended.
    pub(super) fn resume(&mut self, now: Now) {
        let Some(rollout) = self.rollout.as_mut().map(Arc::make_mut) else { return };
        self.rollout_dirty = true;
        let generation = rollout.head.generation;
        let mut log = Vec::new();
        for (id, node) in self.fleet.nodes() {
            let online = node.is_online();
            rollout.rollout.presence(id, online);
            if rollout.depends_on_presence(id) {
                log.push(Write::Log(LogEntry::Presence { node: id.clone(), online }));
            }
        }
        self.log(Level::Info, format!("rollout {generation} is resumed"));
        log.into_iter().for_each(|write| self.persist(write));
        // A node that published its first state while this planner was away.
        let unplanned = |node: &Node| node.is_known() && node.planned.is_none();
        let active = self.deployment.active();
        let declared = |id: &NodeId| active.is_some_and(|active| active.declares(id));
        if self.fleet.nodes().iter().any(|(id, node)| unplanned(node) && declared(id)) {
            self.deployment.plan_soon(now, false);
        }
    }

    /// Publishes everything again: the broker may have lost it.
    pub(super) fn publish_everything(&mut self, now: Now) {
        let nodes: Vec<NodeId> = self.fleet.nodes().keys().cloned().collect();
        for node in nodes {
            if self.fleet.get(&node).is_some_and(|known| known.planned.is_some()) {
                self.offer_plan(node.clone());
            }
            self.publish_gates(&node);
            self.publish_ack(&node);
        }
        self.drift.forget_published();
        self.publish_checks(&BTreeSet::new(), now);
    }

    /// Offers a node its plan, in the present term. One that has announced no key is offered nothing until it has.
    pub(super) fn offer_plan(&mut self, node: NodeId) {
        if let Some(key) = self.fleet.get(&node).and_then(Node::encryption_key) {
            self.publish(Message::Plan(node, self.leadership.term(), key));
        }
    }

    /// Offers those plans again that their nodes have not taken, before the offers expire, or in a term that counts again.
    pub(super) fn renew_offers(&mut self, now: Now) {
        self.renew_at = now.mono + RENEW;
        let left = self.fleet.nodes().iter().filter(|(_, known)| known.planned.is_some() && !known.has_its_plan());
        let left: Vec<NodeId> = left.map(|(node, _)| node.clone()).collect();
        left.into_iter().for_each(|node| self.offer_plan(node));
    }

    /// Publishes the open gates of a node, if its plan waits for any.
    fn publish_gates(&mut self, node: &NodeId) {
        let (Some(rollout), Some(known), Some(site)) = (&self.rollout, self.fleet.get(node), &self.meta.site) else {
            return;
        };
        let open = rollout.rollout.open_gates(node);
        if let Some(planned) = known.planned.as_ref().filter(|_| !open.is_empty()) {
            let (generation, plan) = (planned.generation, planned.id);
            let gates = Gates { version: VERSION, site: site.clone(), node: node.clone(), generation, plan, open };
            self.publish(Message::Gates(gates));
        }
    }

    /// Publishes which reports of a node are on the disk.
    pub(super) fn publish_ack(&mut self, node: &NodeId) {
        let (Some(site), Some((ledger, sequence))) = (self.meta.site.clone(), self.fleet.acked(node)) else { return };
        self.publish(Message::Ack(Ack { version: VERSION, site, node: node.clone(), ledger, sequence }));
    }

    /// Clears what is retained for nodes that the inventory no longer declares.
    fn forget_undeclared(&mut self) {
        let Some(active) = self.deployment.active().cloned() else { return };
        let planned = self.fleet.nodes().iter().filter(|(id, node)| node.planned.is_some() && !active.declares(id));
        let mut removed: BTreeSet<NodeId> = planned.map(|(id, _)| id.clone()).collect();
        removed.extend(self.drift.forget_undeclared(&active));
        for node in removed {
            self.log(Level::Info, format!("node {node} is no longer in the inventory: its plan is withdrawn"));
            for topic in [NodeTopic::Plan, NodeTopic::Gates, NodeTopic::Check] {
                self.publish(Message::Clear(node.clone(), topic));
            }
            self.persist(Write::Plan(node.clone(), None));
            if let Some(known) = self.fleet.get_mut(&node) {
                known.planned = None;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use groundplan_core::Belief;
    use groundplan_protocol::{
        digest::Digest,
        encryption::EncryptionKey,
        envelope::{PlanReceipt, SigningKey},
        ids::{Generation, LedgerId, SiteName},
        state::NodeState,
    };

    use super::*;
    use crate::{
        ids::Receipt,
        io::{Incoming, Input, NodeMessage, Settings},
        record::{PlanNote, StoredNode},
        write::Stored,
    };

    fn key() -> EncryptionKey {
        SigningKey::from_seed([1; 32]).decryption().public()
    }

    /// A planner with a plan that its node has not taken, once it plans.
    fn planning() -> (Machine, Now) {
        let node = NodeId::new("n1").unwrap();
        let mut stored = Stored::default();
        stored.meta.planner = "one".to_owned();
        stored.meta.site = SiteName::new("site").ok();
        stored.meta.generation = Generation(3);
        let ledger = LedgerId::new("0123456789abcdef0123456789abcdef").ok();
        let empty = NodeState::empty("site".parse().unwrap(), node.clone(), ledger.clone().unwrap());
        let state = Some(NodeState { encryption_key: Some(key()), ..empty });
        let belief = Belief { ledger, ..Belief::default() };
        stored.nodes.insert(node.clone(), StoredNode { belief, state, ..StoredNode::default() });
        stored.plans.insert(node, PlanNote { generation: Generation(3), asks: vec![1], id: Digest::of(b"{}") });
        let mut now = Now::default();
        let mut machine = Machine::restore(&Settings::new([1; 16]), stored, now);
        machine.handle(Input::Connected { fresh: true }, now);
        for _ in 0..10 {
            now.mono = machine.deadline().max(now.mono);
            let claims = machine.handle(Input::Tick, now).into_iter().filter_map(|effect| match effect {
                Effect::Publish(Message::Presence { presence, retain: true }) => Some(Incoming::Planner(presence)),
                _ => None,
            });
            for message in claims.collect::<Vec<_>>() {
                machine.handle(Input::Message { receipt: Receipt(1), message }, now);
            }
            if machine.leadership.plans() {
                return (machine, now);
            }
        }
        panic!("it does not plan");
    }

    fn offers(effects: &[Effect]) -> usize {
        effects.iter().filter(|effect| matches!(effect, Effect::Publish(Message::Plan(..)))).count()
    }

    #[test]
    fn a_planner_that_has_lost_its_term_goes_on_above_that_of_a_receipt_and_offers_again() {
        let (mut machine, mut now) = planning();
        machine.handle(Input::Tick, now);
        assert_eq!(machine.leadership.term(), 1);
        let (site, node) = (SiteName::new("site").unwrap(), NodeId::new("n1").unwrap());
        let of = (Digest::of(b"another"), 9);
        let receipt = PlanReceipt::sign(&SigningKey::from_seed([1; 32]), &site, &node, Generation(2), of);
        let state = serde_json::json!({
            "version": VERSION, "site": site, "node": node, "ledger": "0123456789abcdef0123456789abcdef", "revision": 1,
            "generation": 2, "receipt": receipt, "encryption_key": key(), "phase": "idle", "sequence": 0, "agent": "0",
            "refused": { "topic": "plan", "generation": 3, "reason": "is of a planner in term 1", "at_ms": 1 },
        });
        let state = NodeMessage::State(Box::new(serde_json::from_value(state).unwrap()));
        let mut effects =
            machine.handle(Input::Message { receipt: Receipt(2), message: Incoming::Node(node.clone(), state) }, now);
        now.mono = machine.deadline().max(now.mono);
        effects.extend(machine.handle(Input::Tick, now));
        let is_offer = |effect: &Effect| matches!(effect, Effect::Publish(Message::Plan(of, 10, _)) if *of == node);
        assert!(effects.iter().any(is_offer), "{effects:?}");
    }

    #[test]
    fn what_a_node_has_not_taken_is_offered_again_well_before_the_offer_expires() {
        let (mut machine, mut now) = planning();
        machine.handle(Input::Tick, now);
        let mut count = 0;
        let until = now.mono + OFFER_VALID;
        while now.mono < until {
            now.mono = machine.deadline().max(now.mono);
            count += offers(&machine.handle(Input::Tick, now));
        }
        assert_eq!(count, 7, "once a day");
        // One that it has taken is not.
        let known = machine.fleet.get_mut(&NodeId::new("n1").unwrap()).unwrap();
        known.belief.generation = Generation(3);
        machine.renew_at = now.mono;
        assert_eq!(offers(&machine.handle(Input::Tick, now)), 0);
    }

    /// Announces keys for `n1`, one state for each, and counts what is offered to which.
    struct Announcer(u64);

    impl Announcer {
        fn announce(&mut self, machine: &mut Machine, key: Option<EncryptionKey>, now: Now) -> Vec<EncryptionKey> {
            self.0 += 1;
            let known = machine.fleet.get(&NodeId::new("n1").unwrap()).unwrap();
            let (generation, ledger) = (known.belief.generation, known.belief.ledger.clone().unwrap());
            let empty = NodeState::empty("site".parse().unwrap(), "n1".parse().unwrap(), ledger);
            let state = Box::new(NodeState { encryption_key: key, revision: self.0, generation, ..empty });
            let message = Incoming::Node("n1".parse().unwrap(), NodeMessage::State(state));
            offered(machine.handle(Input::Message { receipt: Receipt(self.0), message }, now))
        }
    }

    /// The keys that plans are offered to.
    fn offered(effects: Vec<Effect>) -> Vec<EncryptionKey> {
        let keys = effects.into_iter().filter_map(|effect| match effect {
            Effect::Publish(Message::Plan(_, _, key)) => Some(key),
            _ => None,
        });
        keys.collect()
    }

    #[test]
    fn a_node_with_another_key_gets_its_plan_again_also_if_it_has_taken_it() {
        let (mut machine, now) = planning();
        machine.handle(Input::Tick, now);
        machine.fleet.get_mut(&NodeId::new("n1").unwrap()).unwrap().belief.generation = Generation(3);
        let other = SigningKey::from_seed([2; 32]).decryption().public();
        // The keys of what it still has to fetch are in the offer alone, and it cannot read the one that the broker has.
        let mut announcer = Announcer(0);
        assert_eq!(announcer.announce(&mut machine, Some(key()), now), []);
        assert_eq!(announcer.announce(&mut machine, Some(other), now), [other]);
    }

    #[test]
    fn a_node_that_changes_its_key_all_the_time_gets_few_offers_and_the_last_key_counts() {
        let (mut machine, mut now) = planning();
        machine.handle(Input::Tick, now);
        let keys = [1, 2].map(|seed| SigningKey::from_seed([seed; 32]).decryption().public());
        let (mut announcer, mut offers) = (Announcer(0), Vec::new());
        for n in 0..1001 {
            now.mono += Duration::from_millis(10);
            offers.extend(announcer.announce(&mut machine, Some(keys[n % 2]), now));
        }
        assert!(offers.len() < 5, "{} offers in 10 s", offers.len());
        for _ in 0..20 {
            now.mono = machine.deadline().max(now.mono);
            offers.extend(offered(machine.handle(Input::Tick, now)));
        }
        assert_eq!(offers.last(), Some(&keys[0]));
    }

    #[test]
    fn a_plan_goes_to_the_key_that_the_node_announces_last_and_to_none_without() {
        let (mut machine, mut now) = planning();
        machine.handle(Input::Tick, now);
        let node = NodeId::new("n1").unwrap();
        let mut announcer = Announcer(0);
        assert_eq!(announcer.announce(&mut machine, Some(key()), now), [], "it was offered to that key");
        let other = SigningKey::from_seed([2; 32]).decryption().public();
        assert_eq!(announcer.announce(&mut machine, Some(other), now), [other]);
        assert_eq!(announcer.announce(&mut machine, None, now), []);
        let rejected = machine.fleet.get(&node).unwrap().rejected.clone().unwrap();
        assert!(rejected.hint.contains("upgrade its agent"), "{rejected:?}");
        machine.renew_at = now.mono;
        assert_eq!(offers(&machine.handle(Input::Tick, now)), 0);
        now.mono += Duration::from_secs(10);
        assert_eq!(announcer.announce(&mut machine, Some(key()), now), [key()]);
    }
}
