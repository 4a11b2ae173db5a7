//! The state of the site and its nodes.

use std::collections::{BTreeMap, BTreeSet};

use groundplan_machine::rollout;
use groundplan_protocol::ids::{InstanceId, NodeId, TaskId};

use super::{Snapshot, convert::presence, select::parked};
use crate::api::{
    trouble::Trouble,
    types::{BrokerStatus, FetchStatus, NodeStatus, PlannerStatus, RepositoryStatus, RolloutResult, Status, VERSION},
};

/// The state of all.
pub(crate) fn status(snapshot: &Snapshot) -> Status {
    let mut status = all(snapshot);
    status.troubles = troubles(&status);
    status
}

/// What is wrong, worst first.
fn troubles(status: &Status) -> Vec<Trouble> {
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
    broker.chain(repository).chain(refused).chain(failed).collect()
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
        },
        rollout: view.rollout.as_ref().map(|rollout| rollout.summary().into()),
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
    if let Some(rollout) = &view.rollout {
        for (planned, state) in rollout.states(&|instance| view.runs(instance)) {
            counts.entry(planned.instance.node.clone()).or_default().add(&state);
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
        NodeStatus {
            node: id.clone(),
            declared: declared(id),
            state: view.active.as_ref().and_then(|active| active.desired.lifecycle(id)).unwrap_or_default(),
            parked: parked(view, id),
            presence: presence(node),
            generation: belief.map(|b| b.generation).unwrap_or_default(),
            commit: state.and_then(|s| s.commit.clone()),
            planned: node.map(|node| node.planned_generation()).unwrap_or_default(),
            phase: state.map(|s| s.phase),
            counts: counts.get(id).copied().unwrap_or_default().into(),
            applied: belief.map_or(0, |b| b.applied.tasks.len()),
            waiting: waiting.get(id).cloned().unwrap_or_default(),
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
        }
    };
    names.into_iter().map(status).collect()
}
