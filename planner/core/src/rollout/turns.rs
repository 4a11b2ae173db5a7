//! Turns: a service with a rolling limit is disturbed on at most that many nodes at once.
//!
//! A node is due for a turn when one of its limited tasks waits for nothing else. It then gets the gates of all its limited tasks of
//! the service that can run through without waiting for another node, and holds the turn until they are done. So a node that holds a
//! turn can always finish it, and turns cannot deadlock with gates between nodes: what needs another node's turn waits without one
//! of its own. A failed task keeps its turn, so that the damage spreads no further. Turns go in order of node names, past nodes that
//! are offline.

use std::{collections::BTreeSet, ops::Bound};

use groundplan_protocol::ids::{NodeId, ServiceId};

use super::model::{HeldTurn, Limit, NodeEntry, Opens, Rollout};
use crate::{knowledge::Unknown, plan::MAX_LISTED};

impl Rollout {
    /// Takes back turns that are finished, and gives those that are free. Adds to `grown` the nodes for which gates were opened. Returns
    /// whether any turn has changed hands.
    pub(super) fn give_turns(&mut self, grown: &mut BTreeSet<NodeId>) -> bool {
        if self.limits.is_empty() {
            return false;
        }
        let (before, mut given) = (self.to_check(), BTreeSet::new());
        let changed = self.give_noted_turns(&mut given);
        self.check_turns(before, &given);
        if changed {
            self.note_turns();
        }
        grown.extend(given);
        changed
    }

    /// As [`Self::give_turns`], from the nodes that are noted to have changed: any other is as due for a turn as it was.
    pub(super) fn give_noted_turns(&mut self, grown: &mut BTreeSet<NodeId>) -> bool {
        let mut changed = false;
        // Made of all limits, before one is taken out.
        self.kept();
        for service in self.limits.keys().cloned().collect::<Vec<_>>() {
            // Taken out, because opening gates needs the whole rollout; it is put back below.
            let Some(mut limit) = self.limits.remove(&service) else { continue };
            let kept = self.kept();
            let mut noted = kept.changed.remove(&service).unwrap_or_default();
            let mut passed = kept.passed.remove(&service).unwrap_or_default();
            // Holders of earlier rollouts count as well, and depend on what happens on other nodes.
            noted.extend(self.held.iter().filter(|held| held.service == service).map(|held| held.node.clone()));
            changed |= self.take_turns_back(&service, &mut limit, &noted);
            // By name, because turns go in that order: those that have changed and, while a turn is free, those that were passed over.
            let mut last: Option<NodeId> = None;
            loop {
                let full = limit.holders.len() >= limit.at_once as usize;
                let next = |nodes: &BTreeSet<NodeId>| match &last {
                    Some(last) => nodes.range((Bound::Excluded(last.clone()), Bound::Unbounded)).next().cloned(),
                    None => nodes.first().cloned(),
                };
                let next = next(&noted).into_iter().chain(next(&passed).filter(|_| !full)).min();
                let Some(node) = next else { break };
                last = Some(node.clone());
                if !limit.pending.contains(&node) {
                    continue;
                }
                // A holder may go on to further gates without a new turn, whatever the limit.
                let holder = limit.holders.contains(&node);
                if !holder && full {
                    passed.insert(node);
                    continue;
                }
                passed.remove(&node);
                if holder && self.gives_way(&node, &service, &limit) {
                    continue;
                }
                let Some(at) = self.nodes.get(&node).filter(|at| at.online || holder) else { continue };
                let Some((gates, is_last)) = self.turn(at, &service, holder) else { continue };
                // A turn orders and triggers nothing: its gates never fire.
                gates.into_iter().for_each(|gate| self.open(gate, false, grown));
                changed = true;
                if is_last {
                    limit.pending.remove(&node);
                }
                // The limit is taken out, so `open` has not noted it.
                self.kept().changed.entry(service.clone()).or_default().insert(node.clone());
                limit.holders.insert(node);
            }
            self.kept().passed.insert(service.clone(), passed);
            self.limits.insert(service, limit);
        }
        changed
    }

    /// Takes back the turns that nodes have finished, of those that have one now or from an earlier rollout. Returns whether any has changed
    /// hands.
    fn take_turns_back(&self, service: &ServiceId, limit: &mut Limit, nodes: &BTreeSet<NodeId>) -> bool {
        let has_held = |node: &NodeId| self.held.iter().any(|held| held.service == *service && held.node == *node);
        let (mut changed, mut finished) = (false, Vec::new());
        for node in nodes {
            let holder = limit.holders.contains(node);
            if !holder && !has_held(node) {
                continue;
            }
            if !self.holds(node, service) {
                limit.holders.remove(node);
                finished.push((node, holder));
            } else if !holder {
                changed |= limit.holders.insert(node.clone());
            }
        }
        for (node, holder) in finished {
            // One that can go on at once keeps its turn. Where the limit was exceeded meanwhile, because what an earlier rollout left came to
            // light, it has to wait like others.
            let goes_on = limit.holders.len() < limit.at_once as usize && self.goes_on(node, service, limit);
            if goes_on {
                limit.holders.insert(node.clone());
            }
            changed |= goes_on != holder;
        }
        changed
    }

    /// Whether a holder leaves what it still has to do to others for now.
    fn gives_way(&self, node: &NodeId, service: &ServiceId, limit: &Limit) -> bool {
        let (holders, at_once) = (&limit.holders, limit.at_once as usize);
        // Where the limit is lower than in an earlier rollout, nodes that hold turns from there may be too many. They give them back
        // without this one's gates: an agent finishes what it has begun, and reports what it has not.
        let carried = self.carries(node, service) && !self.has_open(node, service);
        if carried && holders.len() > at_once {
            return true;
        }
        // An unavailable node that gave way to others meanwhile goes on when one of these has finished.
        let damaged = self.is_damaged(node, service) && !self.is_under_way(node, service);
        let busy = |other: &&NodeId| *other != node && self.is_under_way(other, service);
        damaged && holders.iter().filter(busy).count() >= at_once
    }

    /// Whether a node that has done everything in its turn can go on to further gates at once: then it keeps the turn, so that one node
    /// is finished before the next one is disturbed.
    fn goes_on(&self, node: &NodeId, service: &ServiceId, limit: &Limit) -> bool {
        let at = self.nodes.get(node).filter(|at| at.online && limit.pending.contains(node));
        at.is_some_and(|at| self.turn(at, service, false).is_some())
    }

    /// Whether a node holds a turn: it has begun one and not finished it, or is unavailable since an earlier rollout. A parked node counts as
    /// unavailable for a time that no other node waits for.
    fn holds(&self, node: &NodeId, service: &ServiceId) -> bool {
        !self.parked.contains(node) && (self.is_under_way(node, service) || self.is_damaged(node, service))
    }

    /// Whether a node has begun a turn and not finished it, in this rollout or in one before it.
    fn is_under_way(&self, node: &NodeId, service: &ServiceId) -> bool {
        self.carries(node, service) || self.has_open(node, service)
    }

    /// Whether a node may still be in a turn of an earlier rollout.
    fn carries(&self, node: &NodeId, service: &ServiceId) -> bool {
        self.held.iter().any(|held| held.node == *node && held.service == *service && !held.failed)
    }

    /// Whether a gate of the service is open on a node, and its task is not done.
    fn has_open(&self, node: &NodeId, service: &ServiceId) -> bool {
        let entries =
            self.nodes.get(node).into_iter().flat_map(|at| at.order.iter()).map(|i| &self.entries[*i as usize]);
        entries.filter(|entry| !entry.succeeded()).any(|entry| {
            let mut gates = entry.gates.iter().map(|gate| &self.gates[*gate as usize]);
            gates.any(|gate| gate.open.is_some() && matches!(&gate.opens, Opens::Turn { service: s } if s == service))
        })
    }

    /// Whether a node keeps a turn of an earlier rollout because its task failed. Not if that task waits, by the order of this rollout,
    /// for something that needs a turn on another node: the two would wait for each other for ever.
    fn is_damaged(&self, node: &NodeId, service: &ServiceId) -> bool {
        let mut failed = self.held.iter().filter(|h| h.node == *node && h.service == *service && h.failed);
        failed.any(|held| !self.waits_for_turn_elsewhere(held, service))
    }

    /// Whether the task of a turn from an earlier rollout waits, in this one, for something that needs a turn on another node.
    fn waits_for_turn_elsewhere(&self, held: &HeldTurn, service: &ServiceId) -> bool {
        // Backwards through everything that is not done: what is before the task on its node, what its closed gates wait for, and the
        // exports of which it needs the values.
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
                    Opens::Done { waits_for, .. } => open.extend(waits_for.iter()),
                    Opens::Turn { .. } => {}
                    // Not all values are listed where they are many: then one of them may need a turn.
                    Opens::Unknown if entry.unknown.len() >= MAX_LISTED => return true,
                    Opens::Unknown => {
                        for unknown in &entry.unknown {
                            match unknown {
                                // The node gives up what it removes.
                                Unknown::Export { task, node } | Unknown::GivenUp { task, node } => {
                                    open.extend(self.find(node, task))
                                }
                                // Whatever is still to change may bring one that fits.
                                Unknown::Fit { .. } => return true,
                                // Reported whatever the node is doing.
                                Unknown::Node(_) | Unknown::Facts(_) | Unknown::Fact { .. } => {}
                            }
                        }
                    }
                }
            }
        }
        false
    }

    /// The gates to open for a node's turn, and whether these are its last ones; none if a turn would not let it go on now.
    fn turn(&self, at: &NodeEntry, service: &ServiceId, holder: bool) -> Option<(Vec<u32>, bool)> {
        // Entries that would run through if this turn were given: everything before them is done or runs through, and no gate but
        // those of the turn is closed.
        let mut flows = BTreeSet::new();
        let mut gates = Vec::new();
        // Ready: some task waits for the turn alone. Without that, the turn would be held while its node waits for others.
        let (mut ready, mut last) = (holder, true);
        for i in at.order.iter() {
            let entry = &self.entries[*i as usize];
            // Of the closed gates: is one for this turn, and are there others?
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
                    // It waits for something else still, and will need a turn then.
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
