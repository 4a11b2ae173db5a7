//! Requests to drop a record, from an operator until the node has done so.
//!
//! In: requests, what nodes have, and the list of the planner that plans, where this one stands by. Out: the list that every plan
//! follows, in the store before anything is published, and in this planner's presence for those that stand by.

use groundplan_core::applied::Forget;
use groundplan_protocol::{
    ids::InstanceId,
    presence::{FORGET_LIMIT, PendingForget, PlannerPresence, fitting},
    time::Now,
};

use super::Machine;
use crate::{
    deployment::{PlanRequest, Wants},
    ids::RequestId,
    io::{Level, Problem},
};

impl Machine {
    /// Records the request, so that it outlives this planner's process and the absence of the node, and plans.
    pub(super) fn forget(
        &mut self,
        request: RequestId,
        instance: InstanceId,
        forget: Forget,
        now: Now,
    ) -> Result<(), Problem> {
        self.may_plan()?;
        self.log(Level::Info, format!("{} asked for the record of {instance} to be dropped", forget.by));
        self.meta.forget.insert(instance, forget);
        self.write_meta();
        self.publish_presence(true, None);
        self.deployment.wait_for_plan(PlanRequest { request, wants: Wants::Forget }, now);
        Ok(())
    }

    /// Drops requests to forget what a node no longer has, or what is desired again: that record is in use.
    pub(super) fn drop_settled_requests(&mut self) {
        let Some(active) = self.deployment.active().cloned() else { return };
        let fleet = &self.fleet;
        let mut dropped = Vec::new();
        self.meta.forget.retain(|instance, _| {
            let recorded = fleet.get(&instance.node).is_some_and(|node| node.fingerprint(&instance.task).is_some());
            let keeps = recorded && active.declares(&instance.node) && !active.desired.wants(instance);
            if !keeps {
                dropped.push(instance.clone());
            }
            keeps
        });
        for instance in &dropped {
            self.log(Level::Info, format!("the request to forget {instance} is settled"));
        }
        if !dropped.is_empty() {
            self.write_meta();
            if self.leadership.plans() {
                self.publish_presence(true, None);
            }
        }
    }

    /// Those that are pending, for the presence: as many as it has room for.
    pub(super) fn pending_forgets(&self) -> Vec<PendingForget> {
        let pending = self.meta.forget.iter().map(|(instance, Forget { by, reason })| PendingForget {
            instance: instance.clone(),
            by: by.clone(),
            reason: reason.clone(),
        });
        fitting(pending, FORGET_LIMIT)
    }

    /// Keeps the list of the planner that this one stands by for, so that a take-over carries on with it.
    pub(super) fn follow_forgets(&mut self, presence: &PlannerPresence) {
        if !self.leadership.is_followed(presence) {
            return;
        }
        let value = |pending: &PendingForget| {
            (pending.instance.clone(), Forget { by: pending.by.clone(), reason: pending.reason.clone() })
        };
        let theirs = presence.forget.iter().map(value).collect();
        if self.meta.forget != theirs {
            self.meta.forget = theirs;
            let (planner, pending) = (&presence.planner, presence.forget.len());
            self.log(Level::Info, format!("requests to forget that planner {planner} has pending: {pending}"));
            self.write_meta();
        }
    }
}
