//! Nodes that an operator has parked: for a time or until it is taken back, nothing on other nodes waits for them.
//!
//! In: requests, the time, and the list of the planner that plans, where this one stands by. Out: the list that every plan follows, in the
//! store before anything is published, and in this planner's presence for those that stand by. What the inventory has as parked is no part
//! of it.

use std::collections::BTreeSet;

use groundplan_protocol::{
    ids::NodeId,
    presence::{PARK_LIMIT, ParkedNode, PlannerPresence, fitting},
    time::Now,
};

use super::Machine;
use crate::{
    deployment::{PlanRequest, Wants},
    ids::RequestId,
    io::{Level, Problem},
    record::Park,
};

impl Machine {
    /// Parks a node, or takes that back, and plans: what waited for it may go on.
    pub(super) fn park(
        &mut self,
        request: RequestId,
        node: NodeId,
        park: Option<Park>,
        now: Now,
    ) -> Result<(), Problem> {
        self.may_plan()?;
        match park {
            Some(park) => {
                self.log(Level::Info, format!("{} parked node {node}: {}", park.by, park.reason));
                self.meta.parked.insert(node, park);
            }
            None => {
                self.log(Level::Info, format!("node {node} is parked no longer"));
                self.meta.parked.remove(&node);
            }
        }
        self.write_meta();
        self.publish_presence(true, None);
        self.deployment.wait_for_plan(PlanRequest { request, wants: Wants::Park }, now);
        Ok(())
    }

    /// The nodes that are parked now.
    pub(super) fn parked(&self) -> BTreeSet<NodeId> {
        self.meta.parked.keys().cloned().collect()
    }

    /// Ends what has lasted as long as it was to, and what was asked for a node that has left the inventory.
    pub(super) fn end_parks(&mut self, now: Now) {
        if self.meta.parked.is_empty() || !self.leadership.plans() {
            return;
        }
        let active = self.deployment.active().cloned();
        let ended = |(node, park): &(&NodeId, &Park)| {
            park.until_ms.is_some_and(|until| until <= now.wall_ms)
                || active.as_ref().is_some_and(|active| !active.declares(node))
        };
        let ended: Vec<NodeId> = self.meta.parked.iter().filter(ended).map(|(node, _)| node.clone()).collect();
        if ended.is_empty() {
            return;
        }
        for node in ended {
            self.log(Level::Info, format!("node {node} is parked no longer: its time is over, or it was removed"));
            self.meta.parked.remove(&node);
        }
        self.write_meta();
        self.publish_presence(true, None);
        self.deployment.plan_soon(now, true);
    }

    /// The parked nodes, for the presence: as many as it has room for.
    pub(super) fn parked_nodes(&self) -> Vec<ParkedNode> {
        let all = self.meta.parked.iter().map(|(node, Park { by, reason, since_ms, until_ms })| ParkedNode {
            node: node.clone(),
            by: by.clone(),
            reason: reason.clone(),
            since_ms: *since_ms,
            until_ms: *until_ms,
        });
        fitting(all, PARK_LIMIT)
    }

    /// Keeps the list of the planner that this one stands by for, so that a take-over carries on with it.
    pub(super) fn follow_parks(&mut self, presence: &PlannerPresence) {
        if !self.leadership.is_followed(presence) {
            return;
        }
        let value = |parked: &ParkedNode| {
            let ParkedNode { node, by, reason, since_ms, until_ms } = parked.clone();
            (node, Park { by, reason, since_ms, until_ms })
        };
        let theirs = presence.parked.iter().map(value).collect();
        if self.meta.parked != theirs {
            self.meta.parked = theirs;
            self.write_meta();
        }
    }
}
