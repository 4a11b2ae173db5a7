//! The state of the site and its nodes.

use std::collections::{BTreeMap, BTreeSet};

use groundplan_machine::{
    View,
    damping::Damping,
    rollout::{self, ActiveRollout, InstanceState, PlannedReasons},
};
use groundplan_protocol::{
    ids::{InstanceId, NodeId, TaskId},
    report::Outcome,
    state::Phase,
};

use super::{Snapshot, convert::presence, select::parked, snapshot::StoreFault};
use crate::api::{
    trouble::Trouble,
    types::{
        BrokerStatus, FetchStatus, NodeCondition, NodePresence, NodeStatus, PlannerStatus, RepositoryStatus,
        RolloutResult, RolloutSummary, Status, VERSION,
    },
    unsteady::Unsteady,
};

/// The state of all.
pub(crate) fn status(snapshot: &Snapshot) -> Status {
    let mut status = all(snapshot);
    status.troubles = troubles(&status, snapshot.store.as_ref());
    status
}

/// What is wrong, worst first.
fn troubles(status: &Status, store: Option<&StoreFault>) -> Vec<Trouble> {
    let store = store.map(|fault| Trouble::Store { error: fault.error.clone(), since_ms: fault.since_ms });
    let broker = status.planner.broker.error.iter().map(|error| Trouble::Broker { error: error.clone() });
    let fetch = status.repository.fetch.as_ref().and_then(|fetch| fetch.error.as_ref());
    let repository = status.repository.error.iter().chain(fetch).take(1);
    let repository = repository.map(|error| Trouble::Repository { error: error.clone() });
    let refused = status
        .refused
        .iter()
        .map(|refused| Trouble::RefusedCommit { commit: refused.commit.id.clone(), errors: refused.diagnostics.len() });
    let failed = status.rollout.iter().filter(|rollout| rollout.result == RolloutResult::Failed);
    let failed = failed.map(|rollout| Trouble::FailedRollout {
        generation: rollout.generation,
        failed: rollout.counts.failed,
        blocked: rollout.counts.blocked,
    });
    let declared = || status.nodes.iter().filter(|node| node.declared);
    let agents =
        declared().filter_map(|node| Some(Trouble::Agent { node: node.node.clone(), error: node.trouble.clone()? }));
    let degraded = declared()
        .filter(|node| !node.degraded.is_empty())
        .map(|node| Trouble::Degraded { node: node.node.clone(), tasks: node.degraded.keys().cloned().collect() });
    let planner = store.into_iter().chain(broker).chain(repository).chain(refused);
    let held =
        declared().filter_map(|node| Some(Trouble::HeldKey { node: node.node.clone(), keys: node.held_key.clone()? }));
    let unsteady = declared()
        .filter_map(|node| Some(Trouble::Unsteady { node: node.node.clone(), unsteady: node.unsteady.clone()? }));
    planner.chain(failed).chain(held).chain(agents).chain(unsteady).chain(degraded).collect()
}

/// The latest rollout, with what is known of it beyond its own outcome.
pub(super) fn latest(view: &View, rollout: &ActiveRollout) -> RolloutSummary {
    let degraded = |planned: &&PlannedReasons| {
        let InstanceId { node, task } = &planned.instance;
        view.nodes.get(node).and_then(|node| node.degraded()).is_some_and(|degraded| degraded.contains_key(task))
    };
    let degraded = rollout.head.actions.iter().filter(degraded).count();
    RolloutSummary { unplanned: rollout.unplanned, degraded, ..rollout.summary().into() }
}

fn all(snapshot: &Snapshot) -> Status {
    let (view, info) = (&snapshot.view, &snapshot.info);
    Status {
        version: VERSION,
        site: view.meta.site.clone(),
        repository: repository(snapshot),
        commit: view.meta.active.clone().map(Into::into),
        generation: view.meta.generation,
        planner: PlannerStatus {
            id: info.planner.clone(),
            key: info.key.to_string(),
            program: env!("CARGO_PKG_VERSION").to_owned(),
            role: view.role.clone().into(),
            term: view.term,
            due: view.due,
            broker: BrokerStatus {
                address: info.broker.clone(),
                connected: view.broker.is_ok(),
                error: view.broker.clone().err().flatten(),
            },
            store_error: snapshot.store.as_ref().map(|fault| fault.error.clone()),
        },
        rollout: view.rollout.as_ref().map(|rollout| latest(view, rollout)),
        refused: view.meta.refused.clone().map(Into::into),
        troubles: Vec::new(),
        nodes: nodes(snapshot),
        ignored: view.ignored,
    }
}

/// Where commits come from.
pub(super) fn repository(snapshot: &Snapshot) -> RepositoryStatus {
    let follow = &snapshot.info.follow;
    let fetch = follow.fetching().map(|state| {
        let (failing_since_ms, error) = state.failing.unzip();
        FetchStatus {
            since_ms: state.since_ms,
            progress: state.progress,
            fetched_ms: state.fetched_ms,
            failing_since_ms,
            error,
            next_ms: state.next_ms,
        }
    });
    RepositoryStatus {
        location: snapshot.info.location.clone(),
        branch: follow.branch().unwrap_or_default(),
        error: snapshot.view.repository_error.clone(),
        fetch,
    }
}

fn nodes(snapshot: &Snapshot) -> Vec<NodeStatus> {
    let view = &snapshot.view;
    let mut counts = BTreeMap::<NodeId, rollout::Counts>::new();
    let mut waiting = BTreeMap::<NodeId, BTreeMap<TaskId, Vec<String>>>::new();
    let mut failed = BTreeMap::<NodeId, BTreeMap<TaskId, String>>::new();
    if let Some(rollout) = &view.rollout {
        for (planned, state) in rollout.states(&|instance| view.runs(instance)) {
            let InstanceId { node, task } = &planned.instance;
            counts.entry(node.clone()).or_default().add(&state);
            let error = match state {
                InstanceState::Finished(Outcome::Failed { error }) => error,
                InstanceState::Finished(outcome @ Outcome::Interrupted) => outcome.to_string(),
                _ => continue,
            };
            failed.entry(node.clone()).or_default().insert(task.clone(), error);
        }
        for pending in rollout.rollout.pending() {
            let InstanceId { node, task } = pending.instance.clone();
            let waits_for = pending.waits_for.iter().map(ToString::to_string).collect();
            waiting.entry(node).or_default().insert(task, waits_for);
        }
    }
    let declared = |node: &NodeId| view.active.as_ref().is_some_and(|active| active.declares(node));
    let inventory = view.active.iter().flat_map(|active| &active.desired.nodes);
    let names: BTreeSet<&NodeId> = inventory.chain(view.nodes.keys()).collect();
    let status = |id: &NodeId| {
        let node = view.nodes.get(id).map(|node| &**node);
        let state = node.and_then(|node| node.state.as_ref());
        let belief = node.map(|node| &node.belief);
        let mut status = NodeStatus {
            node: id.clone(),
            declared: declared(id),
            state: view.active.as_ref().and_then(|active| active.desired.lifecycle(id)).unwrap_or_default(),
            parked: parked(view, id),
            presence: presence(node),
            condition: NodeCondition::Unknown,
            generation: belief.map(|b| b.generation).unwrap_or_default(),
            commit: state.and_then(|s| s.commit.clone()),
            planned: node.map(|node| node.planned_generation()).unwrap_or_default(),
            phase: state.map(|s| s.phase),
            counts: counts.get(id).copied().unwrap_or_default().into(),
            applied: belief.map_or(0, |b| b.applied.tasks.len()),
            waiting: waiting.get(id).cloned().unwrap_or_default(),
            failed: failed.get(id).cloned().unwrap_or_default(),
            degraded: node.and_then(|node| node.degraded().cloned()).unwrap_or_default(),
            trouble: node.and_then(|node| node.trouble.clone()),
            unsteady: node.and_then(|node| unsteady(&node.damping)),
            held_key: snapshot.held.get(id).cloned(),
            drifted: view.drift.get(id).map_or(0, |drift| drift.drifted()),
            obligations: belief
                .map(|b| b.applied.obligations.iter().map(|(task, o)| (task.clone(), o.effect)).collect())
                .unwrap_or_default(),
            refused: state.and_then(|s| s.refused.clone()),
            ignored: state.map_or(0, |s| s.ignored),
            rejected: node.and_then(|node| node.rejected.clone()).map(Into::into),
            last_seen_ms: node.and_then(|node| node.seen_ms),
            session: node.and_then(|node| node.session.clone()),
            agent: state.map(|s| s.agent.clone()),
            facts: node.map(|node| (*node.facts).clone()).unwrap_or_default(),
            exports: node.map(|node| node.exports.clone()).unwrap_or_default(),
            found: state.map(|s| s.found.clone()).unwrap_or_default(),
        };
        let is_known = node.is_some_and(|node| node.is_known()) && !view.awaited.contains(id);
        status.condition = condition(&status, is_known);
        status
    };
    names.into_iter().map(status).collect()
}

/// That a node contradicts itself, if it waits for that.
pub(super) fn unsteady(damping: &Damping) -> Option<Unsteady> {
    let until_ms = damping.until_ms?;
    Some(Unsteady { times: damping.times, until_ms, tasks: damping.tasks().into_iter().collect() })
}

/// How a node stands; `known` is whether its state was received.
fn condition(node: &NodeStatus, known: bool) -> NodeCondition {
    let pending = node.counts.open() > 0
        || node.phase == Some(Phase::Fetching)
        || !node.waiting.is_empty()
        || node.planned > node.generation
        || !node.obligations.is_empty();
    if !node.declared {
        NodeCondition::NotDeclared
    } else if node.counts.failed + node.counts.blocked > 0 {
        NodeCondition::Failed
    } else if !known || node.presence == NodePresence::Unknown {
        NodeCondition::Unknown
    } else if !node.degraded.is_empty() {
        NodeCondition::Degraded
    } else if pending {
        NodeCondition::Pending
    } else if node.drifted > 0 {
        NodeCondition::Drifted
    } else {
        NodeCondition::Converged
    }
}
