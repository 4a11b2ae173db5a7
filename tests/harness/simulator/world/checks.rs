//! Invariants that hold at every instant, judged by the hosts' truth and by what was planned.

use std::{collections::BTreeSet, sync::Arc};

use groundplan_agent::machine::{Start, Work, Write};
use groundplan_core::DesiredState;
use groundplan_machine::{io::Effect, rollout::RolloutResult, write as planner};
use groundplan_protocol::{
    digest::Digest,
    ids::{Generation, InstanceId, NodeId, ServiceId, TaskId},
    plan::TriggerSource,
    state::{NodeState, Phase},
};

use super::{
    super::{
        host::Dirt,
        process::{Agent, Job},
        record::{Edges, Record},
        schedule::Fault,
    },
    World,
    agents::is_good,
};

impl World {
    /// The edges of a desired state, worked out once.
    pub(super) fn edges_of(&mut self, desired: &Arc<DesiredState>) -> Arc<Edges> {
        if let Some((_, edges)) = self.edges.iter().find(|(known, _)| Arc::ptr_eq(known, desired)) {
            return edges.clone();
        }
        let edges = Arc::new(Edges::of(desired));
        if self.edges.len() >= 16 {
            self.edges.remove(0);
        }
        self.edges.push((desired.clone(), edges.clone()));
        edges
    }

    /// The host whose agent has this name.
    pub(super) fn slot_of(&self, node: &NodeId) -> Option<usize> {
        self.agents.iter().position(|agent| agent.exists && agent.node == *node)
    }

    /// The record of the plan with this digest.
    fn record_of(&self, digest: &Digest) -> Option<&Record> {
        self.records.iter().rev().find(|record| record.ids.values().any(|id| id == digest))
    }

    /// A rollout that a planner ends has left out no declared node whose agent is connected, as far as that planner can know.
    pub(super) fn check_rollout_end(&mut self, slot: usize, effects: &[Effect]) {
        let ended = effects.iter().find_map(|effect| match effect {
            Effect::Persist(planner::Write::History(detail))
                if detail.summary.finished_ms.is_some() && detail.summary.result == RolloutResult::Succeeded =>
            {
                Some(detail.summary.generation)
            }
            _ => None,
        });
        let Some((ended, machine)) = ended.zip(self.planners[slot].machine.as_ref()) else { return };
        let view = machine.view();
        // One that is written again because another supersedes it has ended before.
        let (Some(rollout), Some(active)) = (&view.rollout, &view.active) else { return };
        if rollout.head.generation != ended {
            return;
        }
        let planned = |node: &NodeId| self.records.iter().any(|plan| plan.planner == slot && plan.known.contains(node));
        let is_parked = |node: &NodeId| view.meta.parked.contains_key(node) || active.desired.is_parked(node);
        let is_online = |node: &NodeId| view.nodes.get(node).is_some_and(|at| at.is_online());
        let left_out = |node: &NodeId| is_online(node) && !planned(node) && !is_parked(node);
        if let Some(node) = active.desired.nodes.iter().find(|node| left_out(node)).cloned() {
            self.violate("no rollout ends before every connected node is planned for", || format!("{node} in {ended}"));
        }
    }

    /// What an agent says is on its disk.
    pub(super) fn check_state(&mut self, slot: usize, state: &NodeState) {
        let disk = &self.agents[slot].disk;
        let generation = disk.plan.as_ref().map_or(Generation(0), |plan| plan.generation);
        let applied = disk.applied.keys().chain(disk.takings.keys()).collect::<BTreeSet<_>>().len();
        if state.sequence > disk.sequence || state.generation != generation || state.applied.len() != applied {
            self.violate("a state says nothing that is not on the disk", || format!("{state:?}"));
        }
    }

    /// What an agent is about to write, with `unsaved` reports that are not on its disk yet.
    pub(super) fn check_agent_write(&mut self, slot: usize, write: &Write, unsaved: u64) {
        let agent = &mut self.agents[slot];
        let node = agent.node.clone();
        match write {
            Write::Plan(plan) => {
                let last = agent.accepted.last_key_value().map_or(Generation(0), |(last, _)| *last);
                agent.accepted.insert(plan.generation, plan.digest);
                let last_report = agent.disk.sequence.0 + unsaved;
                let knows = |record: &Record| record.reported.get(&node).is_some_and(|last| last.0 >= last_report);
                let of_it = |record: &&Record| record.ids.values().any(|id| *id == plan.digest);
                if !self.records.iter().rev().find(of_it).is_some_and(knows) {
                    agent.outdated.insert(plan.generation);
                }
                if plan.generation <= last {
                    let generation = plan.generation;
                    self.violate("no older generation is applied", || {
                        format!("{node} takes {generation} after {last}")
                    });
                }
                // What is under an older number is what an agent without a fence would take.
                let made = self.record_of(&plan.digest).is_some_and(|record| record.generation == plan.generation);
                if !made {
                    self.violate("agents take what a planner made", || {
                        format!("{node}: generation {}", plan.generation)
                    });
                }
            }
            Write::Report(number, report) => {
                let expected = agent.disk.sequence.0 + 1;
                let known = agent.unsynced.iter().filter(|write| matches!(write, Write::Report(..))).count() as u64;
                let digest = agent.accepted.get(&report.generation).copied();
                if let Some(digest) = digest.filter(|_| is_good(&report.outcome)) {
                    self.done.entry(digest).or_default().insert(report.task.clone());
                }
                if number.0 < expected + known {
                    self.violate("reports are numbered without gaps", || format!("{node}: {number}"));
                }
            }
            _ => {}
        }
    }

    /// Whether a job may start: what it comes after on other nodes is done. Returns the rolling limit that it is under.
    pub(super) fn check_start(
        &mut self,
        slot: usize,
        generation: Generation,
        start: &Start,
    ) -> Option<(ServiceId, u32)> {
        let agent = &self.agents[slot];
        let node = agent.node.clone();
        let plan = agent.disk.plan.as_ref()?;
        if plan.generation != generation {
            let accepted = plan.generation;
            self.violate("no older generation is applied", || format!("{node} runs {generation} at {accepted}"));
            return None;
        }
        let record = self.record_of(&plan.digest)?;
        // What the agent carries out on its own, from an earlier plan, is in no order with other nodes.
        let limited = record.tasks.get(&node)?.get(&start.task)?.clone();
        let limit = limited.and_then(|service| Some((service.clone(), *record.edges.limits.get(&service)?)));
        if generation <= agent.plans_before {
            return None;
        }
        if matches!(start.work, Work::Remove { .. }) {
            return limit;
        }
        let edges = record.edges.clone();
        if matches!(start.work, Work::Apply { .. }) && edges.once.contains(&start.task) {
            self.check_once(slot, &start.task, &edges);
        }
        let record = self.record_of(&self.agents[slot].disk.plan.as_ref()?.digest)?;
        let target = start.task.at(&node);
        let early = record.before(&target).into_iter().find(|source| !self.is_done(record, source, slot));
        if let Some(early) = early {
            self.violate("gates hold", || format!("{target} starts for {generation} before {early} is done"));
        }
        limit
    }

    /// A task that runs once begins on a node only after every other one has given it up: unless an operator has parked that one, it has left
    /// the inventory, or planners have lost what they had elected.
    fn check_once(&mut self, slot: usize, task: &TaskId, edges: &Edges) {
        let agent = &self.agents[slot];
        let faults = [Fault::LoseDisk, Fault::Contend, Fault::RenameNode, Fault::RemoveNode];
        let forgotten = faults.iter().any(|fault| self.faults.contains_key(fault));
        // One that came by it before, such as a node that has left the inventory and come back, does not begin.
        if self.parked || forgotten || agent.disk.applied.contains_key(task) {
            return;
        }
        let has = |other: &Agent| other.disk.applied.contains_key(task) || other.jobs.contains_key(task);
        let others = self.agents.iter().filter(|other| other.exists && other.node != agent.node);
        let other = others.filter(|other| edges.nodes.contains(&other.node)).find(|other| has(other));
        if let Some((other, node)) = other.map(|other| (other.node.clone(), agent.node.clone())) {
            self.violate("what runs once runs nowhere else", || format!("{task} begins on {node}, and is on {other}"));
        }
    }

    fn is_done(&self, record: &Record, source: &InstanceId, slot: usize) -> bool {
        if self.agents[slot].node == source.node {
            // Its end may not be on the disk yet.
            return !self.agents[slot].jobs.contains_key(&source.task);
        }
        let digest = match record.kept.get(&source.node) {
            None => record.ids.get(&source.node),
            Some(kept) => {
                let older = |other: &&Record| other.planner == record.planner && other.generation == *kept;
                self.records.iter().rev().filter(older).find_map(|other| other.ids.get(&source.node))
            }
        };
        digest.and_then(|digest| self.done.get(digest)).is_some_and(|done| done.contains(&source.task))
    }

    /// Whether no more nodes of a service are unavailable than its limit permits: those that are worked on, and those on which something
    /// failed. Where these are too many already, one of them may be repaired: that makes no other one unavailable.
    pub(super) fn check_limits(&mut self, slot: usize, task: &TaskId) {
        let Some(job) = self.agents[slot].jobs.get(task) else { return };
        let (Some((service, mut limit)), generation) = (job.rolling.clone(), job.generation) else { return };
        let floor = Generation(self.turns_known_from);
        // A turn that a node has while it is parked limits no other, also not those that have theirs when it no longer is.
        let was_parked = |agent: &Agent, since: Generation| {
            self.records.iter().any(|record| record.generation >= since && record.parked.contains(&agent.node))
        };
        let is_broken = |agent: &Agent, counts: &dyn Fn(&TaskId) -> bool| {
            let is_of = |of: &ServiceId, at: Generation| *of == service && at >= floor && !was_parked(agent, at);
            let mut broken = agent.broken.iter().filter(|(_, (of, generation))| is_of(of, *generation));
            broken.any(|(task, _)| counts(task))
        };
        if is_broken(&self.agents[slot], &|_| true) {
            self.agents[slot].repairs.insert(service.clone(), generation);
        }
        let repairs = self.agents[slot].repairs.get(&service) == Some(&generation);
        let current = self.current.map(|current| &self.records[current]);
        // A parked node is not counted, also while it carries out its part.
        let declared = |node: &NodeId| {
            current.is_none_or(|current| current.declared.contains(node) && !current.parked.contains(node))
        };
        let (mut worked_on, mut unavailable) = (BTreeSet::new(), BTreeSet::new());
        for (number, agent) in self.agents.iter().enumerate().filter(|(_, agent)| declared(&agent.node)) {
            let counts = |job: &&Job| job.generation >= floor && !was_parked(agent, job.generation);
            for job in agent.jobs.values().filter(counts) {
                if let Some((_, other)) = job.rolling.as_ref().filter(|(of, _)| *of == service) {
                    limit = limit.max(*other);
                    worked_on.insert(number);
                }
            }
            let counts = |task: &TaskId| {
                let target = task.at(&agent.node);
                // What failed and waits by the plan for the same service on other nodes, or for values that others are to bring, gives
                // way to these.
                let others = |source: &InstanceId| source.task.service == service && source.node != agent.node;
                let gives_way = |by: &Record| by.held_back.contains(&target) || by.reaches(&target, &others);
                current.is_none_or(|current| current.asks_for(&target) && !gives_way(current))
            };
            if is_broken(agent, &counts) {
                unavailable.insert(number);
            }
        }
        unavailable.extend(&worked_on);
        let nodes = if repairs { worked_on } else { unavailable };
        if nodes.len() > limit as usize {
            let names: Vec<String> = nodes.iter().map(|number| self.agents[*number].node.to_string()).collect();
            self.violate("rolling limits hold", || {
                format!("{service} is disturbed on {} at once; the limit is {limit}", names.join(", "))
            });
        }
    }

    /// A job under a rolling limit has ended.
    pub(super) fn job_ended(&mut self, slot: usize, job: &Job, good: bool) {
        let broken = &mut self.agents[slot].broken;
        match &job.rolling {
            Some((service, _)) if !good => {
                drop(broken.insert(job.start.task.clone(), (service.clone(), job.generation)))
            }
            _ => drop(broken.remove(&job.start.task)),
        }
    }

    /// Something on a host has changed: what it triggers has to act.
    pub(super) fn changed(&mut self, slot: usize, job: &Job) {
        self.last_change += 1;
        let number = self.last_change;
        let agent = &self.agents[slot];
        let source = job.start.task.at(&agent.node);
        let Some(record) = agent.accepted.get(&job.generation).and_then(|digest| self.record_of(digest)) else {
            return;
        };
        let latest = self.current.map(|current| &self.records[current]);
        let triggers = |record: &Record| record.edges.triggers.get(&source).cloned().unwrap_or_default();
        let still = latest.map(triggers);
        let mut dirt = Vec::new();
        if matches!(job.start.work, Work::Remove { .. }) {
            // What is removed is in no commit any more: what it triggers is as it was the last time. It may be acted on.
            let before = self.records.iter().rev().find_map(|record| record.edges.triggers.get(&source));
            for (target, effect) in before.into_iter().flatten() {
                if let Some(at) = self.slot_of(&target.node) {
                    dirt.push((at, target.task.clone(), Dirt { number, effect: *effect, must: false }));
                }
            }
        }
        for (target, effect) in triggers(record) {
            if still.as_ref().is_some_and(|still| !still.contains_key(&target)) {
                continue;
            }
            let Some(at) = self.slot_of(&target.node) else { continue };
            if !self.agents[at].host.tasks.contains_key(&target.task) {
                continue;
            }
            // Also what no plan has because the source is on a parked node: the next one has it, where the planner knows what is applied.
            let is_apart = record.parked.contains(&source.node) && target.node != source.node;
            let is_apart = is_apart && record.known.contains(&target.node);
            let must = record.actions.contains_key(&target) || is_apart;
            dirt.push((at, target.task, Dirt { number, effect, must }));
        }
        for (at, task, dirt) in dirt {
            self.agents[at].host.dirt.entry(task).or_default().insert(source.clone(), dirt);
        }
    }

    /// A removal or an update took a link away: no task that its plan leads to may have it.
    pub(super) fn check_taken_away(&mut self, slot: usize, job: &Job, path: &str) {
        let agent = &self.agents[slot];
        // Where tasks exchange what they own, a plan that was made without the last reports may take one to have what another one has by
        // now. Neither it nor the agent can tell, and the next plan repairs it.
        let by_update = self.setup.profile.exchanges || matches!(job.start.work, Work::Apply { .. });
        if by_update && agent.outdated.contains(&job.generation) {
            return;
        }
        let node = agent.node.clone();
        let record = agent.accepted.get(&job.generation).and_then(|digest| self.record_of(digest));
        if record.and_then(|record| record.links.get(&node)).is_some_and(|links| links.contains_key(path)) {
            let task = &job.start.task;
            self.violate("what changes hands is not taken away", || format!("{task} on {node} took {path} with it"));
        }
    }

    /// An effect was carried out that nothing called for.
    pub(super) fn needless(&mut self, slot: usize, job: &Job) {
        let node = self.agents[slot].node.clone();
        self.note(|| format!("{node}: nothing called for {:?} of {}", job.start.effect, job.start.task));
        // Where a plan replaced one under way, a node may have acted before or after what the newer plan has it act on.
        // And where a parked node changed something while the rollout went on: whether an effect came after that, no one can tell.
        if !self.setup.profile.rough && !self.overlapped && !self.parked {
            self.violate("no effect happens for nothing", || {
                format!("{:?} of {} on {node}", job.start.effect, job.start.task)
            });
        }
    }

    /// A planner has taken up a plan: what its commit does not ask for any more need not be done.
    pub(super) fn plan_taken_up(&mut self, number: usize) {
        let before = self.current.replace(number).map(|before| &self.records[before]);
        self.overlapped |= self.agents.iter().any(|agent| {
            let idle = agent.machine.as_ref().is_none_or(|machine| machine.phase() == Phase::Idle);
            // The plan before may still be on its way: then the agent takes both, one right after the other.
            let id = before.and_then(|before| before.ids.get(&agent.node));
            let on_its_way = id.is_some_and(|id| !agent.accepted.values().any(|accepted| accepted == id));
            !agent.jobs.is_empty() || !idle || on_its_way
        });
        self.counts.plans += 1;
        let record = &self.records[number];
        if record.without_memory.is_some() {
            self.turns_known_from = self.turns_known_from.max(record.generation.0);
        }
        for agent in self.agents.iter_mut() {
            let node = agent.node.clone();
            let obligations = &agent.disk.obligations;
            for (task, dirt) in &mut agent.host.dirt {
                let target = task.at(&node);
                dirt.retain(|source, dirt| {
                    let targets = record.edges.triggers.get(source);
                    !dirt.must || targets.is_some_and(|targets| targets.contains_key(&target))
                });
                // A planner without memory knows of other nodes' changes only what this one reported as an obligation.
                let Some(reported) = &record.without_memory else { continue };
                let on_disk = obligations.get(task).is_some_and(|stored| {
                    stored.fired.is_some() || stored.open.iter().any(|(on, _)| matches!(on, TriggerSource::Gate(_)))
                });
                if !(on_disk && reported.contains(&target)) {
                    dirt.iter_mut().filter(|(source, _)| source.node != node).for_each(|(_, dirt)| dirt.must = false);
                }
            }
            agent.host.dirt.retain(|_, dirt| !dirt.is_empty());
            agent.broken.retain(|task, (service, _)| {
                let asked_for = record.actions.contains_key(&task.at(&node));
                asked_for && record.edges.limits.contains_key(service)
            });
        }
    }
}
