//! Which nodes, services and tasks are meant; and what is known of nodes for those who bring agents to them or plan without them.

use std::collections::{BTreeMap, BTreeSet};

use groundplan_inventory::hint;
use groundplan_machine::{View, record::Park};
use groundplan_protocol::{
    envelope::PublicKey,
    ids::{NodeId, ServiceId, TaskId},
};

use super::Snapshot;
use crate::{
    api::{
        hosts::{Host, Hosts},
        park::Parked,
        types::{Knowledge, Problem, ProblemKind, VERSION},
    },
    select::Selector,
    trust::TrustError,
};

/// The nodes that any of the selectors means.
pub(crate) fn selected(snapshot: &Snapshot, on: &[Selector]) -> Result<BTreeSet<NodeId>, Problem> {
    let site = snapshot.active()?;
    let mut nodes = BTreeSet::new();
    for selector in on {
        let selected = selector.select(&site.loaded.inventory, &site.loaded.catalog);
        let problem = |e: crate::select::SelectError| Problem::new(ProblemKind::NotFound, e.to_string()).hint(e.hint());
        nodes.append(&mut selected.map_err(problem)?);
    }
    Ok(nodes)
}

/// Whether the site has all of these.
pub(crate) fn has(
    snapshot: &Snapshot,
    services: &BTreeSet<ServiceId>,
    tasks: &BTreeSet<TaskId>,
) -> Result<(), Problem> {
    let graph = &snapshot.active()?.active.desired.graph;
    let not_found = |error: String| {
        Problem::new(ProblemKind::NotFound, error)
            .hint("`groundplan status` lists the nodes, `groundplan show` the tasks")
    };
    let has_service = |service: &ServiceId| graph.tasks.iter().any(|task| task.id.service == *service);
    if let Some(service) = services.iter().find(|service| !has_service(service)) {
        return Err(not_found(format!("the site has no service `{service}`")));
    }
    match tasks.iter().find(|task| graph.task(task).is_none()) {
        Some(task) => Err(not_found(format!("the site has no task `{task}`"))),
        None => Ok(()),
    }
}

/// Whether the active commit declares a node.
pub(crate) fn is_declared(snapshot: &Snapshot, node: &NodeId) -> Result<(), Problem> {
    let site = snapshot.active()?;
    if site.active.declares(node) {
        return Ok(());
    }
    let nodes: Vec<String> = site.active.desired.nodes.iter().map(ToString::to_string).collect();
    let hint = nearest(node.as_str(), &nodes, "`groundplan status` lists the nodes");
    Err(Problem::new(ProblemKind::NotFound, format!("the site has no node `{node}`")).hint(hint))
}

/// A hint that names what is nearest to a name that is unknown.
fn nearest(given: &str, names: &[String], otherwise: &str) -> String {
    let near = hint::nearest(given, names.iter().map(String::as_str));
    near.map_or_else(|| otherwise.to_owned(), |name| format!("did you mean `{name}`?"))
}

/// Why nothing on other nodes waits for a node; none if it is waited for.
pub(crate) fn parked(view: &View, node: &NodeId) -> Option<Parked> {
    // The request first, which can be withdrawn: then what the inventory has shows.
    let request = view.meta.parked.get(node).cloned();
    let request = request.map(|Park { by, reason, since_ms, until_ms }| Parked::Operator {
        operator: by,
        reason,
        since_ms,
        until_ms,
    });
    let inventory = || view.active.as_ref().is_some_and(|active| active.desired.is_parked(node));
    request.or_else(|| inventory().then_some(Parked::Inventory))
}

/// Whether the record of a task may be dropped: its node has it, and the active commit does not want it. Returns whether the node is
/// connected.
pub(crate) fn may_forget(snapshot: &Snapshot, node: &NodeId, task: &TaskId) -> Result<bool, Problem> {
    let site = snapshot.active()?;
    is_declared(snapshot, node)?;
    let Some(known) = snapshot.view.nodes.get(node).filter(|known| known.is_known()) else {
        let error = format!("the node `{node}` has never reported, so nothing is recorded of it");
        return Err(Problem::new(ProblemKind::NotFound, error).hint("`groundplan status` shows which nodes have"));
    };
    if !known.belief.applied.tasks.contains_key(task) {
        let tasks: Vec<String> = known.belief.applied.tasks.keys().map(ToString::to_string).collect();
        let hint =
            nearest(&task.to_string(), &tasks, &format!("`groundplan why {node} {task}` shows what is known of it"));
        return Err(Problem::new(ProblemKind::NotFound, format!("`{node}` has no record of `{task}`")).hint(hint));
    }
    if site.active.desired.wants(&task.at(node)) {
        let error = format!("the active commit wants `{task}` on `{node}`, so its record is in use");
        return Err(Problem::new(ProblemKind::Conflict, error).hint(format!(
            "take it out of the site first, and forget it if its removal fails; `groundplan recheck {task} --on {node}` tries it again"
        )));
    }
    Ok(known.is_online())
}

/// What nodes have reported.
pub(crate) fn knowledge(snapshot: &Snapshot) -> Knowledge {
    let (mut facts, mut exports) = (BTreeMap::new(), BTreeMap::<TaskId, BTreeMap<NodeId, String>>::new());
    for (id, node) in &snapshot.view.nodes {
        if !node.facts.is_empty() {
            facts.insert(id.clone(), (*node.facts).clone());
        }
        for (task, value) in &node.exports {
            exports.entry(task.clone()).or_default().insert(id.clone(), value.clone());
        }
    }
    let view = &snapshot.view;
    let declared = |node: &NodeId| view.active.as_ref().is_some_and(|active| active.declares(node));
    let orphaned = view.nodes.iter().filter(|(id, node)| !declared(id) && !node.belief.applied.tasks.is_empty());
    let orphaned = orphaned.map(|(id, node)| (id.clone(), (*node.belief.applied.tasks).clone())).collect();
    let is_present = |id: &&NodeId| !view.meta.parked.contains_key(*id) && view.nodes[*id].is_online();
    Knowledge {
        version: VERSION,
        facts,
        exports,
        parked: view.meta.parked.keys().cloned().collect(),
        elected: view.meta.elected.clone(),
        present: view.nodes.keys().filter(is_present).cloned().collect(),
        orphaned,
    }
}

/// What is known of the hosts of some nodes; `key` finds the key of a node.
pub(crate) fn hosts(
    snapshot: &Snapshot,
    nodes: BTreeSet<NodeId>,
    key: impl Fn(&NodeId) -> Result<Option<PublicKey>, TrustError>,
) -> Result<Hosts, Problem> {
    let site = snapshot.active()?;
    let mut hosts = Vec::new();
    for node in nodes {
        let key = key(&node).map_err(|e| {
            let hint = format!("repair or remove that file: it names the key of node {node}");
            Problem::new(ProblemKind::Internal, e.to_string()).hint(hint)
        })?;
        let address = site.loaded.inventory.nodes.get(&node).and_then(|declared| declared.address.clone());
        hosts.push(Host { node, address, key });
    }
    let (planner_key, broker) = (snapshot.info.key, snapshot.info.broker.clone());
    Ok(Hosts { version: VERSION, site: site.active.site.clone(), planner_key, broker, hosts })
}
