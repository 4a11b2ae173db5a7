//! From a validated site and its tree to the desired state: placement, references, templates, fingerprints.
//!
//! In: site, inventory, catalog and the tree that all three were read from. Out: the desired state, or every fault of the tree at
//! once. No IO but through the tree. A [`Cache`] that is passed in again makes the next commit cheap and never changes a result: what it
//! holds is used only while everything that it was computed from is the same, places included.

mod claims;
mod content;
mod draft;
mod error;
mod external;
mod files;
mod fingerprint;
mod instances;
mod known;
mod memo;
mod plugin;
mod report;
mod resolver;
mod run;
mod sizes;
mod task;
mod versions;

#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use groundplan_inventory::{Diagnostic, Inventory, Rollout, Site, decode::Toggle};
use groundplan_protocol::{
    digest::Digest,
    ids::{Capability, ServiceId, TaskId},
    kinds::TaskParams,
    plan::Retry,
    ready::Ready,
};
use groundplan_services::{Catalog, Plugins, Service, Task};

use self::{
    claims::Owner,
    files::{Contents, Files},
    instances::Instances,
    resolver::{Home, Resolver},
    run::{Faults, KnownTask, Run},
    versions::Versions,
};
use crate::{
    desired::{DesiredState, Edge, Elected, Instance, InstanceGraph, Once, TaskIx, TaskVertex},
    graph::{self, Links},
    knowledge::{Knowledge, Unknown},
    placement::{Placed, Placement},
    render::{Limits, ServiceFacts, SiteFacts},
    source::SourceTree,
};

/// What one resolution keeps for the next, keyed by content: results are the same with and without it.
#[derive(Debug, Default)]
pub struct Cache {
    now: u64,
    facts: Option<(Digest, Arc<SiteFacts>)>,
    contents: Contents,
    max_rendered: u64,
    services: HashMap<ServiceId, KnownService>,
}

impl Cache {
    /// The values that all services see alike: the kept ones, if they are of this version.
    fn facts(&mut self, version: Digest, site: &Site, inventory: &Inventory) -> Arc<SiteFacts> {
        let kept = self.facts.take().filter(|(kept, _)| *kept == version);
        let facts = kept.map_or_else(|| Arc::new(SiteFacts::of(site, inventory)), |(_, facts)| facts);
        self.facts = Some((version, facts.clone()));
        facts
    }
}

/// What is kept of a service.
#[derive(Debug, Default)]
struct KnownService {
    /// Version of its `service.toml`: with another one, nothing below is used.
    declaration: Option<Arc<str>>,
    /// Digest of all files that could matter to it, if all of it was resolved without a fault.
    whole: Option<Digest>,
    /// Its tasks, in file order.
    tasks: Vec<KnownTask>,
}

/// Resolves a site with the values that its nodes reported. `site`, `inventory` and `catalog` come from the files of `tree`, `plugins` from
/// its programs; `tree` gives each content its own version.
///
/// Returns the desired state if and only if there are no diagnostics, here or from reading the files; those are not repeated here.
/// Diagnostics are in the order of their places.
pub fn resolve(
    site: &Site,
    inventory: &Inventory,
    catalog: &Catalog,
    plugins: &Plugins,
    tree: &dyn SourceTree,
    knowledge: &Knowledge,
    cache: &mut Cache,
) -> (Option<DesiredState>, Vec<Diagnostic>) {
    let mut faults = Vec::new();
    let placement = Placement::of(inventory, catalog, knowledge, &mut faults);
    let links = graph::link(graph::Input { placement: &placement, site }, &mut faults);

    let versions = Versions::of(tree);
    cache.now += 1;
    cache.contents.limit = site.max_file;
    // What was rendered within another limit may be too long, or short enough, within this one.
    if cache.max_rendered != site.max_rendered {
        cache.max_rendered = site.max_rendered;
        cache.services.clear();
    }
    let mut run = Run {
        now: cache.now,
        facts: cache.facts(versions.global, site, inventory),
        known: Arc::new(known::of(&placement, knowledge)),
        misfit: knowledge.misfit,
        limits: Limits::new(site.max_rendered),
        plugins,
        nodes: &placement.nodes,
        contents: &mut cache.contents,
        faults: Faults::default(),
    };
    // Before any task is resolved: what reads an export must not see those of tasks that do not exist.
    known::leave_out(&placement, &links, tree, &mut run);
    let probes = external::probes(site, &mut run);
    cache.services.retain(|id, _| catalog.services.contains_key(id));
    for number in 0..placement.services.len() {
        let known = cache.services.entry(placement.services[number].id.clone()).or_default();
        let part = Part { placement: &placement, links: &links, probes: &probes, tree, versions: &versions };
        part.service(number, &mut run, known);
    }
    faults.append(&mut run.faults.all);
    cache.contents.prune(cache.now);
    let tasks: Vec<&KnownTask> =
        placement.services.iter().filter_map(|placed| cache.services.get(placed.id)).flat_map(|k| &k.tasks).collect();
    let owners = owners(&tasks);
    sizes::limit(&placement, &owners, site.max_node, &mut faults);
    let owners = wherever_elected(&placement, owners);
    claims::conflicts(&placement, &owners, &mut faults);
    claims::pairs(&placement, &owners, &mut faults);
    claims::declared(&placement, &owners, &mut faults);
    known::check_order(&placement, &links, &tasks, &mut faults);

    faults.sort();
    // Faults of reading the files are not repeated in `faults`; what they concern has fewer instances than nodes.
    let complete =
        tasks.iter().enumerate().all(|(task, known)| known.instances.count() == placement.nodes_of(task).len());
    let state = (complete && faults.is_empty()).then(|| DesiredState {
        site: site.name.clone(),
        nodes: inventory.nodes.keys().cloned().collect(),
        node_places: inventory.nodes.values().map(|node| node.at.clone()).collect(),
        lifecycles: inventory.nodes.values().map(|node| node.lifecycle).collect(),
        graph: assemble(&placement, &links, &tasks, site),
        rollouts: rollouts(site, catalog),
        retry: usual(site.rollout.retry),
        once: once(&placement),
        node_inputs: known::node_inputs(&placement, &tasks),
    });
    (state, faults)
}

/// The tasks as owners of what they claim, by number.
fn owners<'a>(tasks: &[&'a KnownTask]) -> Vec<Owner<'a>> {
    let owner = |(task, known): (usize, &&'a KnownTask)| Owner {
        task,
        instances: known.instances.resolved.as_slice().into(),
        distinct: &known.distinct,
    };
    tasks.iter().enumerate().map(owner).collect()
}

/// The same with each task that runs once on all nodes that may be elected, as it is on the one that is: a commit must not become faulty
/// because another node takes over.
fn wherever_elected<'a>(placement: &Placement<'_>, mut owners: Vec<Owner<'a>>) -> Vec<Owner<'a>> {
    for owner in owners.iter_mut().filter(|owner| placement.elected(owner.task).is_some()) {
        let Some(Instance { resolved, .. }) = owner.instances.first().cloned() else { continue };
        let candidates = placement.services[placement.tasks[owner.task].service].nodes.iter();
        owner.instances = candidates.map(|node| Instance { node: *node, resolved: resolved.clone() }).collect();
    }
    owners
}

/// What the resolution of one service needs.
struct Part<'p, 'a> {
    placement: &'p Placement<'p>,
    links: &'p Links<'p>,
    probes: &'p BTreeMap<&'a Capability, Ready>,
    tree: &'p dyn SourceTree,
    versions: &'p Versions<'p>,
}

impl Part<'_, '_> {
    /// Resolves a service, as far as its kept results are out of date.
    fn service(&self, number: usize, run: &mut Run<'_>, known: &mut KnownService) {
        let placed = &self.placement.services[number];
        let whole = self.versions.whole(placed.service, &self.elected(placed));
        // The digest is of files alone: what reads reported values is looked up again.
        let asks = |task: &KnownTask| !task.instances.facts.is_empty() || !task.instances.exports.is_empty();
        if known.whole == Some(whole) && !known.tasks.iter().any(asks) {
            return;
        }
        let declaration = self.tree.entry(&placed.service.at.file).map(|entry| entry.version.clone());
        if declaration.is_none() || known.declaration != declaration {
            *known = KnownService { declaration, ..KnownService::default() };
        }
        known.tasks.resize_with(placed.service.tasks.len(), KnownTask::default);
        let faults = run.faults.all.len();
        let home = Home {
            facts: Arc::new(ServiceFacts::of(placed.id.as_str(), placed.service)),
            files: Files { tree: self.tree, folder: &placed.service.folder },
        };
        for (i, known) in known.tasks.iter_mut().enumerate() {
            self.task(placed, placed.first + i, &home, run, known);
        }
        let complete = (placed.first..)
            .zip(&known.tasks)
            .all(|(task, known)| known.instances.count() == self.placement.nodes_of(task).len());
        known.whole = (complete && run.faults.all.len() == faults).then_some(whole);
    }

    /// Where the tasks with `once` of a service are to run.
    fn elected(&self, placed: &Placed<'_>) -> Vec<Elected> {
        let tasks = placed.first..placed.first + placed.service.tasks.len();
        tasks.filter_map(|task| self.placement.elected(task)).collect()
    }

    fn task(&self, placed: &Placed<'_>, number: usize, home: &Home<'_>, run: &mut Run<'_>, known: &mut KnownTask) {
        let probes = external::of_task(self.probes, &self.links.external[number]);
        let now = run.now;
        let task = &placed.service.tasks[number - placed.first];
        let mut resolver = Resolver { run, home, task, probes: &probes };
        let nodes = self.placement.nodes_of(number);
        if nodes.is_empty() {
            resolver.check();
        }
        known.instances = resolver.instances(nodes, &mut known.memo);
        if let Some(after) = self.placement.elected(number).and_then(|elected| elected.after) {
            let node = self.placement.nodes[after.0 as usize].clone();
            known.instances.hold(&Unknown::GivenUp { task: self.placement.id(number), node });
        }
        known.memo.prune(now);
        known.distinct.clear();
        known.memo.each(&mut |resolved| known.distinct.push(resolved.clone()));
    }
}

/// The graph, in topological order.
fn assemble(placement: &Placement<'_>, links: &Links<'_>, known: &[&KnownTask], site: &Site) -> InstanceGraph {
    let order = graph::order(placement, links);
    let mut places = vec![TaskIx(0); order.len()];
    for (place, task) in order.iter().enumerate() {
        places[*task] = TaskIx(place as u32);
    }
    let mut tasks = Vec::with_capacity(order.len());
    let mut by_id = Vec::with_capacity(order.len());
    for task in order {
        let declared = placement.tasks[task];
        let id = TaskId::new(placement.services[declared.service].id.clone(), declared.task.id.clone());
        let edge = |link: &graph::Link<'_>| Edge { from: places[link.from], scope: link.scope, trigger: link.trigger };
        let mut edges: Vec<_> = links.to[task].iter().map(edge).collect();
        edges.sort();
        by_id.push((id.clone(), places[task]));
        let Instances { resolved, pending, off, .. } = &known[task].instances;
        let (instances, pending, off) = (resolved.clone(), pending.clone(), off.clone());
        let conflicts: BTreeSet<_> = declared.task.conflicts.iter().map(|resource| resource.value.clone()).collect();
        let conflicts = conflicts.into_iter().collect();
        tasks.push(TaskVertex {
            id,
            at: declared.task.at.clone(),
            instances,
            pending,
            off,
            edges,
            prevent_destroy: declared.task.prevent_destroy.clone(),
            conflicts,
            retry: retry(declared.task, placement.services[declared.service].service, site),
            on_remove: declared.task.on_remove,
        });
    }
    InstanceGraph { tasks, by_id: by_id.into_iter().collect() }
}

/// Rolling limits: the service's own, else the site's; only of services that have one.
fn rollouts(site: &Site, catalog: &Catalog) -> BTreeMap<ServiceId, Rollout> {
    let merged = catalog.services.iter().map(|(id, service)| {
        let max_unavailable = service.rollout.or(site.rollout).max_unavailable;
        (id.clone(), Rollout { max_unavailable, retry: None })
    });
    merged.filter(|(_, rollout)| *rollout != Rollout::default()).collect()
}

/// Whether a task is tried again after it has failed: as it says itself, else as its service or the site says. What a program of the site
/// does is no state that could be compared with what is desired, so a command is tried again only if its task says so.
fn retry(task: &Task, service: &Service, site: &Site) -> Option<Retry> {
    let given = usual(service.rollout.or(site.rollout).retry);
    match task.retry {
        Some(Toggle::Off) => None,
        Some(Toggle::On) => Some(given.unwrap_or_default()),
        Some(Toggle::With(retry)) => Some(retry),
        None => given.filter(|_| !matches!(task.params, TaskParams::Command(_))),
    }
}

/// What a service or the site says of tasks that fail.
fn usual(given: Option<Toggle<Retry>>) -> Option<Retry> {
    match given? {
        Toggle::Off => None,
        Toggle::On => Some(Retry::default()),
        Toggle::With(retry) => Some(retry),
    }
}

/// The tasks with `once` that run anywhere.
fn once(placement: &Placement<'_>) -> BTreeMap<TaskId, Once> {
    let elected = |task: usize| {
        let (elected, declared) = (placement.elected(task)?, placement.tasks[task]);
        let candidates = placement.services[declared.service].nodes.as_slice().into();
        let failover = declared.task.once.and_then(|once| once.failover);
        Some((placement.id(task), Once { candidates, elected, failover }))
    };
    (0..placement.tasks.len()).filter_map(elected).collect()
}
