//! What is to become of one instance, and why.

use groundplan_machine::rollout::{InstanceDetail, InstanceState, RolloutDetail, RolloutSummary};
use groundplan_protocol::ids::{InstanceId, NodeId, TaskId};

use super::{
    Snapshot,
    convert::presence,
    select::parked,
    status::{repository, unsteady},
};
use crate::{
    api::types::{Problem, ProblemKind, RepositoryStatus, VERSION, Why, WhyApplied},
    store::{Reader, StoreError},
};

/// How many rollouts of the history are searched.
const SEARCHED: usize = 100;

/// All that is known of an instance.
pub(crate) fn why(snapshot: &Snapshot, store: &Reader, instance: &InstanceId) -> Result<Why, Problem> {
    let view = &snapshot.view;
    let state = view.active.as_ref().map(|active| &*active.desired);
    let desired = state.and_then(|desired| desired.instance(instance));
    let vertex = state.and_then(|state| Some((state.graph.task(&instance.task)?, state.node(&instance.node)?)));
    let pending = vertex.and_then(|(task, node)| task.pending_on(node));
    let off = vertex.and_then(|(task, node)| task.off_on(node));
    let node = view.nodes.get(&instance.node).map(|node| &**node);
    let applied = node.and_then(|node| node.belief.applied.tasks.get(&instance.task));
    let latest = latest_with(snapshot, store, instance)?;
    if desired.is_none() && applied.is_none() && latest.is_none() && pending.is_none() && off.is_none() {
        return Err(no_instance(snapshot, instance));
    }
    let (rollout, record) = latest.map(|(rollout, record)| (rollout.into(), record.into())).unzip();
    Ok(Why {
        version: VERSION,
        instance: instance.clone(),
        desired: desired.is_some(),
        waits_for: pending.into_iter().flat_map(|p| p.waits_for.iter()).map(ToString::to_string).collect(),
        parked: parked(view, &instance.node),
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
        obligation: node.and_then(|node| node.belief.applied.obligations.get(&instance.task)).map(|o| o.effect),
        record,
        rollout,
        degraded: node.and_then(|node| node.degraded()?.get(&instance.task).cloned()),
        presence: presence(node),
        trouble: node.and_then(|node| node.trouble.clone()),
        unsteady: node.and_then(|node| unsteady(&node.damping)),
        held_key: snapshot.held.get(&instance.node).cloned(),
        repository: Some(repository(snapshot)).filter(RepositoryStatus::is_behind),
    })
}

/// The latest rollout that had an instance, with what became of it there.
fn latest_with(
    snapshot: &Snapshot,
    store: &Reader,
    instance: &InstanceId,
) -> Result<Option<(RolloutSummary, InstanceDetail)>, StoreError> {
    if let Some(rollout) = &snapshot.view.rollout
        && let Some(detail) = rollout.detail_of(instance, snapshot.view.runs(instance))
    {
        return Ok(Some((rollout.summary(), detail)));
    }
    let has = |detail: &RolloutDetail| {
        let done = |state: &InstanceState| matches!(state, InstanceState::Finished(_));
        detail.instances.iter().any(|i| i.planned.instance == *instance && done(&i.state))
    };
    let latest = store.history(SEARCHED)?.into_iter().find(has);
    Ok(latest.and_then(|detail| {
        let own = detail.instances.into_iter().find(|i| i.planned.instance == *instance);
        Some((detail.summary, own?))
    }))
}

fn no_instance(snapshot: &Snapshot, instance: &InstanceId) -> Problem {
    let active = match snapshot.active() {
        Ok(site) => &site.active,
        Err(problem) => return problem,
    };
    let desired = &active.desired;
    let not_found = |error: String, hint: String| Problem::new(ProblemKind::NotFound, error).hint(hint);
    if desired.node(&instance.node).is_none() {
        let hint = format!("its nodes are {}", listed(&desired.nodes));
        return not_found(format!("the site has no node `{}`", instance.node), hint);
    }
    let Some(task) = desired.graph.task(&instance.task) else {
        let service = |id: &&TaskId| id.service == instance.task.service;
        let tasks: Vec<&TaskId> = desired.graph.by_id.keys().filter(service).collect();
        let hint = match tasks.is_empty() {
            true => format!("no service `{}` runs anywhere", instance.task.service),
            false => format!("that service has {}", listed(tasks)),
        };
        return not_found(format!("the site has no task `{}`", instance.task), hint);
    };
    let nodes: Vec<&NodeId> = task.instances.iter().map(|i| &desired.nodes[i.node.0 as usize]).collect();
    let once = if desired.once.contains_key(&instance.task) { "once, " } else { "" };
    let hint = match nodes.is_empty() {
        true => "it runs on no node".to_owned(),
        false => format!("it runs {once}on {}", listed(nodes)),
    };
    not_found(format!("node `{}` does not run `{}`", instance.node, instance.task), hint)
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
