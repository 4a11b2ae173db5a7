//! Answers to the API's questions.

use std::collections::BTreeSet;

use groundplan_protocol::ids::{InstanceId, NodeId, ServiceId, TaskId};

use super::{Dispatcher, commits::InForce};
use crate::{
    api::{
        server::{Answer, Question, Reply},
        types::{
            Counts, History, InstanceState, NodeStatus, PlannerStatus, Problem, RepositoryStatus, Role, RolloutDetail,
            Status, VERSION, Why, WhyApplied,
        },
    },
    select::Selector,
    store::StoreError,
};

/// Most rollouts in one answer.
const LIMIT: usize = 1000;

pub(super) fn problem(error: impl Into<String>, hint: Option<String>) -> Problem {
    Problem { error: error.into(), hint }
}

fn store(error: &StoreError) -> Problem {
    problem(error.to_string(), error.hint())
}

impl InForce {
    /// The nodes that any of the selectors means.
    pub(super) fn selected(&self, on: &[Selector]) -> Result<BTreeSet<NodeId>, Problem> {
        let mut nodes = BTreeSet::new();
        for selector in on {
            let selected = selector.select(&self.loaded.inventory, &self.loaded.catalog);
            nodes.append(&mut selected.map_err(|e| problem(e.to_string(), Some(e.hint())))?);
        }
        Ok(nodes)
    }

    /// Whether there are all of these.
    pub(super) fn has(&self, services: &BTreeSet<ServiceId>, tasks: &BTreeSet<TaskId>) -> Result<(), Problem> {
        let graph = &self.loaded.desired.graph;
        let list = || Some("`groundplan status` lists the nodes, `groundplan show` the tasks".to_owned());
        let has_service = |service: &ServiceId| graph.tasks.iter().any(|task| task.id.service == *service);
        if let Some(service) = services.iter().find(|service| !has_service(service)) {
            return Err(problem(format!("the site has no service `{service}`"), list()));
        }
        if let Some(task) = tasks.iter().find(|task| graph.task(task).is_none()) {
            return Err(problem(format!("the site has no task `{task}`"), list()));
        }
        Ok(())
    }
}

impl Dispatcher {
    pub(super) fn answer(&mut self, question: Question) -> Answer {
        match question {
            Question::Exec(request, by, telling) => self.exec(*request, by, telling).map(|()| Reply::Exec),
            Question::StopExec(id) => self.stop_exec(&id).map(|()| Reply::Exec),
            Question::ExecRecord(id) => {
                let record = self.exec_record(&id).map_err(|e| store(&e))?;
                let none = || {
                    problem(format!("there is no command `{id}`"), Some("`groundplan history` lists them".to_owned()))
                };
                record.map(|record| Reply::ExecRecord(Box::new(record))).ok_or_else(none)
            }
            Question::Recheck(request) => self.recheck(request).map(Reply::Recheck),
            Question::Look(request) => self.ask_to_look(request).map(Reply::Look),
            Question::Drift(nodes) => Ok(Reply::Drift(Box::new(self.drift(&nodes)))),
            Question::Answered => Ok(Reply::Answered(Box::new(self.answered()))),
            Question::Hosts(request) => self.hosts(&request).map(Reply::Hosts),
            Question::Trust(request) => self.trust(&request).map(Reply::Trust),
            Question::Status => Ok(Reply::Status(Box::new(self.status()))),
            Question::Knowledge => Ok(Reply::Knowledge(Box::new(self.told()))),
            Question::Why(instance) => self.why(&instance).map(|why| Reply::Why(Box::new(why))),
            Question::History(limit) => {
                let mut rollouts = self.store.history(limit.min(LIMIT)).map_err(|e| store(&e))?;
                for known in &mut rollouts {
                    if let Some(running) =
                        self.running.as_ref().filter(|r| r.head.generation == known.summary.generation)
                    {
                        known.summary = running.summary();
                    }
                }
                let rollouts = rollouts.into_iter().map(|r| r.summary).collect();
                let execs = self.exec_history(limit.min(LIMIT)).map_err(|e| store(&e))?;
                Ok(Reply::History(History { version: VERSION, rollouts, execs }))
            }
            Question::Rollout(generation) => {
                let running = self.running.as_ref().filter(|r| generation.is_none_or(|g| g == r.head.generation));
                let found = match (running, generation) {
                    (Some(running), _) => Some(running.detail(&|i| self.at_work(i))),
                    (None, Some(generation)) => self.store.rollout(generation).map_err(|e| store(&e))?,
                    (None, None) => None,
                };
                let none = || {
                    let which = generation
                        .map_or("there was no rollout yet".to_owned(), |g| format!("there is no rollout {g}"));
                    problem(which, Some("`groundplan history` lists them".to_owned()))
                };
                found.map(|detail| Reply::Rollout(Box::new(detail))).ok_or_else(none)
            }
        }
    }

    fn at_work(&self, instance: &InstanceId) -> bool {
        self.nodes.get(&instance.node).is_some_and(|record| record.running.contains(&instance.task))
    }

    fn role(&self) -> Role {
        match self.leader.standby_of() {
            Some(planner) => Role::Standby { planner: planner.to_owned() },
            None if self.leader.plans() => Role::Planning,
            None => Role::Starting,
        }
    }

    fn status(&self) -> Status {
        Status {
            version: VERSION,
            site: self.meta.site.clone(),
            repository: RepositoryStatus {
                location: self.config.repository.clone(),
                branch: self.branch.clone(),
                error: self.repository_error.clone(),
            },
            commit: self.meta.good.clone(),
            generation: self.meta.generation,
            planner: PlannerStatus {
                id: self.meta.planner.clone(),
                key: self.key.public().to_string(),
                program: env!("CARGO_PKG_VERSION").to_owned(),
                role: self.role(),
                term: self.leader.term(),
                due: self.due.is_some() || self.learned.is_some(),
                broker: self.broker.clone(),
            },
            rollout: self.running.as_ref().map(|r| r.summary()),
            refused: self.meta.refused.clone(),
            nodes: self.node_statuses(),
            ignored: self.ignored,
        }
    }

    fn node_statuses(&self) -> Vec<NodeStatus> {
        let mut counts = std::collections::BTreeMap::<NodeId, Counts>::new();
        if let Some(running) = &self.running {
            for (planned, state) in running.states(&|i| self.at_work(i)) {
                counts.entry(planned.instance.node.clone()).or_default().add(&state);
            }
        }
        let mut waiting = std::collections::BTreeMap::<NodeId, std::collections::BTreeMap<TaskId, Vec<String>>>::new();
        for pending in self.running.iter().flat_map(|running| running.rollout.pending()) {
            let InstanceId { node, task } = pending.instance.clone();
            let waits_for = pending.waits_for.iter().map(ToString::to_string).collect();
            waiting.entry(node).or_default().insert(task, waits_for);
        }
        let inventory = self.loaded.as_ref().map(|l| &l.loaded.inventory.nodes);
        let declared = inventory.into_iter().flat_map(|nodes| nodes.keys());
        let names: BTreeSet<&NodeId> = declared.chain(self.nodes.keys()).collect();
        let mut status = |node: &NodeId| {
            let record = self.nodes.get(node);
            let state = record.and_then(|r| r.state.as_ref());
            let belief = record.map(|r| &r.belief);
            NodeStatus {
                node: node.clone(),
                declared: inventory.is_some_and(|nodes| nodes.contains_key(node)),
                presence: record.map(|r| r.presence).unwrap_or_default(),
                generation: belief.map(|b| b.generation).unwrap_or_default(),
                commit: state.and_then(|s| s.commit.clone()),
                planned: record.map(|r| r.planned_generation()).unwrap_or_default(),
                phase: state.map(|s| s.phase),
                counts: counts.remove(node).unwrap_or_default(),
                applied: belief.map_or(0, |b| b.applied.tasks.len()),
                waiting: waiting.remove(node).unwrap_or_default(),
                drifted: record.map_or(0, |r| r.look.drifted()),
                obligations: belief
                    .map(|b| b.applied.obligations.iter().map(|(task, o)| (task.clone(), o.effect)).collect())
                    .unwrap_or_default(),
                refused: state.and_then(|s| s.refused.clone()),
                ignored: state.map_or(0, |s| s.ignored),
                rejected: record.and_then(|r| r.rejected.clone()),
                last_seen_ms: record.and_then(|r| r.seen_ms),
                session: record.and_then(|r| r.session.clone()),
                agent: state.map(|s| s.agent.clone()),
                facts: record.map(|r| (*r.facts).clone()).unwrap_or_default(),
                exports: record.map(|r| r.exports.clone()).unwrap_or_default(),
            }
        };
        names.into_iter().map(&mut status).collect()
    }

    fn why(&self, instance: &InstanceId) -> Result<Why, Problem> {
        let state = self.loaded.as_ref().map(|l| &l.loaded.desired);
        let desired = state.and_then(|desired| desired.instance(instance));
        let vertex = state.and_then(|state| Some((state.graph.task(&instance.task)?, state.node(&instance.node)?)));
        let pending = vertex.and_then(|(task, node)| task.pending_on(node));
        let off = vertex.and_then(|(task, node)| task.off_on(node));
        let record = self.nodes.get(&instance.node);
        let applied = record.and_then(|r| r.belief.applied.tasks.get(&instance.task));
        let latest = self.latest_with(instance).map_err(|e| store(&e))?;
        if desired.is_none() && applied.is_none() && latest.is_none() && pending.is_none() && off.is_none() {
            return Err(self.no_instance(instance));
        }
        Ok(Why {
            version: VERSION,
            instance: instance.clone(),
            desired: desired.is_some(),
            waits_for: pending.into_iter().flat_map(|p| p.waits_for.iter()).map(ToString::to_string).collect(),
            off: off.map(|off| {
                let inputs = off.inputs.iter().map(|i| format!("{} is {}", i.name, i.value.as_deref().unwrap_or("…")));
                let inputs = inputs.collect::<Vec<_>>().join(", ");
                if inputs.is_empty() { off.when.clone() } else { format!("{} ({inputs})", off.when) }
            }),
            applied: match (desired, applied) {
                (_, None) => WhyApplied::Not,
                (Some(d), Some(a)) if d.resolved.fingerprint == a.fingerprint => WhyApplied::AsDesired,
                (_, Some(_)) => WhyApplied::Otherwise,
            },
            owed: record.and_then(|r| r.belief.applied.obligations.get(&instance.task)).map(|o| o.effect),
            record: latest.as_ref().and_then(|r| r.instances.iter().find(|i| i.instance == *instance).cloned()),
            rollout: latest.map(|r| r.summary),
            presence: record.map(|r| r.presence).unwrap_or_default(),
        })
    }

    /// The latest rollout that had an instance.
    fn latest_with(&self, instance: &InstanceId) -> Result<Option<RolloutDetail>, StoreError> {
        if let Some(running) = &self.running
            && running.head.actions.iter().any(|a| a.instance == *instance)
        {
            let mut detail = running.detail(&|i| self.at_work(i));
            detail.instances.retain(|i| i.instance == *instance);
            return Ok(Some(detail));
        }
        let has = |detail: &RolloutDetail| {
            let done = |state: &InstanceState| matches!(state, InstanceState::Finished { .. });
            detail.instances.iter().any(|i| i.instance == *instance && done(&i.state))
        };
        Ok(self.store.history(100)?.into_iter().find(has))
    }

    fn no_instance(&self, instance: &InstanceId) -> Problem {
        let Some(in_force) = &self.loaded else {
            return problem("no good commit was read yet", Some("`groundplan status` says why".to_owned()));
        };
        let desired = &in_force.loaded.desired;
        if desired.node(&instance.node).is_none() {
            let hint = format!("its nodes are {}", listed(&desired.nodes));
            return problem(format!("the site has no node `{}`", instance.node), Some(hint));
        }
        let Some(task) = desired.graph.task(&instance.task) else {
            let service = |id: &&TaskId| id.service == instance.task.service;
            let tasks: Vec<&TaskId> = desired.graph.by_id.keys().filter(service).collect();
            let hint = match tasks.is_empty() {
                true => format!("no service `{}` runs anywhere", instance.task.service),
                false => format!("that service has {}", listed(tasks)),
            };
            return problem(format!("the site has no task `{}`", instance.task), Some(hint));
        };
        let nodes: Vec<&NodeId> = task.instances.iter().map(|i| &desired.nodes[i.node.0 as usize]).collect();
        let hint = format!("it runs on {}", listed(nodes));
        problem(format!("node `{}` does not run `{}`", instance.node, instance.task), Some(hint))
    }
}

/// Names for a hint: the first few, and how many more there are.
fn listed<T: std::fmt::Display>(names: impl IntoIterator<Item = T>) -> String {
    const MOST: usize = 8;
    let names: Vec<String> = names.into_iter().map(|name| format!("`{name}`")).collect();
    match names.len().checked_sub(MOST) {
        Some(more) if more > 0 => format!("{} and {more} more", names[..MOST].join(", ")),
        _ => names.join(", "),
    }
}
