//! Turns: a service with a limit is disturbed on so many nodes at once, and no more.
//!
//! A node asks for a turn when one of its limited tasks waits for nothing else. It is given the gates of all its limited tasks
//! of the service that can then run through without waiting for another node, and holds its turn until they are done. So
//! whoever holds a turn can finish it, and gates between nodes cannot lock with turns: what needs another node's turn
//! waits without one. A task that failed keeps the turn: the damage goes no further. Turns go round in order of names, past
//! the nodes that are offline.

use std::collections::BTreeSet;

use groundplan_protocol::ids::{NodeId, ServiceId};

use super::model::{Held, Limit, NodeEntry, Opens, Rollout};

impl Rollout {
    /// Takes turns back that are finished, and gives those that are free.
    pub(super) fn give_turns(&mut self, told: &mut BTreeSet<NodeId>) {
        for (service, mut limit) in std::mem::take(&mut self.limits) {
            let held = self.held.iter().filter(|held| held.service == service).map(|held| held.node.clone());
            let mut holders: BTreeSet<_> = std::mem::take(&mut limit.holders).into_iter().chain(held).collect();
            holders.retain(|node| self.holds(node, &service) || self.goes_on(node, &service, &limit));
            let mut given_out = BTreeSet::new();
            for node in limit.pending.iter() {
                let holder = holders.contains(node);
                if !holder && holders.len() >= limit.at_once as usize {
                    continue;
                }
                // A node that is out of service, and gave way to others meanwhile, goes on when one of these has finished.
                let damaged = holder && self.is_damaged(node, &service) && !self.is_under_way(node, &service);
                let busy = |other: &&NodeId| *other != node && self.is_under_way(other, &service);
                if damaged && holders.iter().filter(busy).count() >= limit.at_once as usize {
                    continue;
                }
                let Some(at) = self.nodes.get(node).filter(|at| at.online || holder) else { continue };
                let Some((gates, last)) = self.turn(at, &service, holder) else { continue };
                gates.into_iter().for_each(|gate| self.open(gate, false, told));
                holders.insert(node.clone());
                if last {
                    given_out.insert(node.clone());
                }
            }
            limit.pending.retain(|node| !given_out.contains(node));
            limit.holders = holders;
            self.limits.insert(service, limit);
        }
    }

    /// Whether a node that has done all it was given can go on at once.
    fn goes_on(&self, node: &NodeId, service: &ServiceId, limit: &Limit) -> bool {
        let at = self.nodes.get(node).filter(|at| at.online && limit.pending.contains(node));
        at.is_some_and(|at| self.turn(at, service, false).is_some())
    }

    /// Whether a node is in the midst of a turn, or is out of service since an earlier rollout.
    fn holds(&self, node: &NodeId, service: &ServiceId) -> bool {
        self.is_under_way(node, service) || self.is_damaged(node, service)
    }

    /// Whether a node is in the midst of a turn: a gate of the service is open and its task is not done, here or in the
    /// rollout before.
    fn is_under_way(&self, node: &NodeId, service: &ServiceId) -> bool {
        if self.held.iter().any(|held| held.node == *node && held.service == *service && !held.failed) {
            return true;
        }
        let entries = self.nodes.get(node).into_iter().flat_map(|at| &at.order).map(|i| &self.entries[*i as usize]);
        entries.filter(|entry| !entry.succeeded()).any(|entry| {
            let mut gates = entry.gates.iter().map(|gate| &self.gates[*gate as usize]);
            gates.any(|gate| gate.open.is_some() && matches!(&gate.opens, Opens::Turn { service: s } if s == service))
        })
    }

    /// Whether a node keeps a turn of an earlier rollout because its task failed. One that waits by this rollout's order for a turn of
    /// another node does not: it would wait for itself.
    fn is_damaged(&self, node: &NodeId, service: &ServiceId) -> bool {
        let mut failed = self.held.iter().filter(|h| h.node == *node && h.service == *service && h.failed);
        failed.any(|held| !self.waits_for_turn_elsewhere(held, service))
    }

    /// Whether the task of an earlier rollout's turn has to wait, in this one, for something that needs a turn on another node.
    fn waits_for_turn_elsewhere(&self, held: &Held, service: &ServiceId) -> bool {
        let (mut open, mut seen) = (Vec::from_iter(self.find(&held.node, &held.task)), BTreeSet::new());
        while let Some(i) = open.pop() {
            let entry = &self.entries[i as usize];
            if entry.succeeded() || !seen.insert(i) {
                continue;
            }
            open.extend(&entry.after);
            for gate in entry.gates.iter().map(|gate| &self.gates[*gate as usize]).filter(|gate| gate.open.is_none()) {
                match &gate.opens {
                    Opens::Turn { service: s } if s == service && entry.instance.node != held.node => return true,
                    Opens::Done { waits_for, .. } => open.extend(waits_for),
                    Opens::Turn { .. } | Opens::Unknown => {}
                }
            }
        }
        false
    }

    /// The gates to open for a node's turn, and whether these are its last ones; none if it has no use for a turn now.
    fn turn(&self, at: &NodeEntry, service: &ServiceId, holder: bool) -> Option<(Vec<u32>, bool)> {
        let mut flows = BTreeSet::new();
        let mut gates = Vec::new();
        let (mut ready, mut last) = (holder, true);
        for i in &at.order {
            let entry = &self.entries[*i as usize];
            let mut turn = None;
            let mut closed = false;
            for g in &entry.gates {
                let gate = &self.gates[*g as usize];
                match &gate.opens {
                    _ if gate.open.is_some() => {}
                    Opens::Turn { service: s } if s == service => turn = Some(*g),
                    _ => closed = true,
                }
            }
            let done = |i: &u32| self.entries[*i as usize].succeeded();
            let passes = |i: &u32| done(i) || flows.contains(i);
            let flowing = entry.outcome.is_none() && !closed && entry.after.iter().all(passes);
            if let Some(gate) = turn {
                if flowing {
                    ready |= entry.after.iter().all(done);
                    gates.push(gate);
                } else {
                    last = false;
                }
            }
            if flowing {
                flows.insert(*i);
            }
        }
        (ready && !gates.is_empty()).then_some((gates, last))
    }
}
