//! Requests of operators.

use std::collections::{BTreeMap, BTreeSet};

use groundplan_protocol::{
    ids::{InstanceId, NodeId, ServiceId, SessionId, TaskId},
    time::Now,
};

use super::Machine;
use crate::{
    command::CommandRequest,
    deployment::{PlanRequest, Wants},
    ids::RequestId,
    io::{Effect, Level, Problem, Reply, Request},
    record::Park,
};

impl Machine {
    pub(super) fn take_request(&mut self, id: RequestId, request: Request, now: Now) {
        let reply = match request {
            Request::Recheck { nodes, services, tasks } => match self.recheck(id, &nodes, &services, &tasks, now) {
                // Its reply comes with the plan.
                Ok(()) => return,
                Err(problem) => Err(problem),
            },
            Request::Retry => match self.retry(id, now) {
                Ok(true) => return,
                Ok(false) => Ok(Reply::Retry(None)),
                Err(problem) => Err(problem),
            },
            Request::Forget { instance, forget } => match self.forget(id, instance, forget, now) {
                Ok(()) => return,
                Err(problem) => Err(problem),
            },
            Request::Park { node, by, reason, span } => {
                let since_ms = now.wall_ms;
                let until_ms = span.map(|span| since_ms.saturating_add(span.as_millis() as u64));
                match self.park(id, node, Some(Park { by, reason, since_ms, until_ms }), now) {
                    Ok(()) => return,
                    Err(problem) => Err(problem),
                }
            }
            Request::Unpark(node) => match self.park(id, node, None, now) {
                Ok(()) => return,
                Err(problem) => Err(problem),
            },
            Request::CheckDrift(nodes) => self.may_plan().map(|()| Reply::CheckDrift(self.publish_checks(&nodes, now))),
            Request::RunCommand(request) => self.run_command(*request, now).map(|()| Reply::CommandStarted),
            Request::StopCommand(id) => self.commands.stop(&id, now).map(|()| Reply::CommandStopping),
        };
        self.out.push(Effect::Reply(id, reply));
    }

    /// Whether this planner may plan for the active commit.
    pub(super) fn may_plan(&self) -> Result<(), Problem> {
        if !self.leadership.plans() {
            return Err(Problem::NotPlanning { planner: self.leadership.standby_of().map(str::to_owned) });
        }
        self.deployment.active().map(|_| ()).ok_or(Problem::NoActiveCommit)
    }

    fn recheck(
        &mut self,
        request: RequestId,
        nodes: &BTreeSet<NodeId>,
        services: &BTreeSet<ServiceId>,
        tasks: &BTreeSet<TaskId>,
        now: Now,
    ) -> Result<(), Problem> {
        self.may_plan()?;
        let Some(active) = self.deployment.active().cloned() else { return Err(Problem::NoActiveCommit) };
        let desired = &active.desired;
        let all = services.is_empty() && tasks.is_empty();
        let is_named = |task: &TaskId| all || services.contains(&task.service) || tasks.contains(task);
        let (mut named, mut left_out) = (Vec::<InstanceId>::new(), Vec::new());
        for task in desired.graph.tasks.iter().filter(|task| is_named(&task.id)) {
            for instance in &task.instances {
                let node = &desired.nodes[instance.node.0 as usize];
                if !nodes.is_empty() && !nodes.contains(node) {
                    continue;
                }
                let list = if instance.resolved.spec.params.can_check() { &mut named } else { &mut left_out };
                list.push(task.id.at(node));
            }
        }
        // A plan that is being worked out does not have it yet: only a later one answers.
        let under_way = self.deployment.planning().map_or(self.meta.generation, |planning| planning.generation);
        let first = under_way.max(self.meta.generation).next();
        for instance in named {
            if self.fleet.get(&instance.node).is_some_and(|known| known.is_known()) {
                self.drift.ask(&instance, first);
            }
        }
        self.deployment.wait_for_plan(PlanRequest { request, wants: Wants::Recheck { left_out } }, now);
        Ok(())
    }

    /// Plans again, which tries what has failed: its nodes do not have it applied. Returns whether anything has.
    fn retry(&mut self, request: RequestId, now: Now) -> Result<bool, Problem> {
        self.may_plan()?;
        let Some(active) = self.deployment.active() else { return Err(Problem::NoActiveCommit) };
        let counts = self.rollout.as_ref().map(|rollout| rollout.summary().counts);
        let failed = counts.is_some_and(|counts| counts.failed + counts.blocked > 0);
        // One that waits for its next attempt is reported as degraded.
        let mut nodes = self.fleet.nodes().iter().filter(|(id, _)| active.declares(id));
        if !failed && !nodes.any(|(_, node)| node.degraded().is_some()) {
            return Ok(false);
        }
        self.deployment.wait_for_plan(PlanRequest { request, wants: Wants::Retry }, now);
        Ok(true)
    }

    fn run_command(&mut self, mut request: CommandRequest, now: Now) -> Result<(), Problem> {
        self.may_plan()?;
        if let Some(active) = self.deployment.active() {
            request.nodes.retain(|node| active.declares(node));
        }
        let session = |node: &NodeId| Some((node.clone(), self.fleet.get(node)?.session.clone()?));
        let online: BTreeMap<NodeId, SessionId> = request.nodes.iter().filter_map(session).collect();
        let (id, by, on, nodes) = (&request.id, &request.by, &request.on, request.nodes.len());
        let line = format!("command {id} of {by} runs on {nodes} nodes: {on}");
        self.log(Level::Info, line);
        self.commands.begin(request, &online, now)
    }
}
