//! Placement: node → groups → services → tasks.
//!
//! In: inventory and catalog. Out: every task of the catalog, numbered by service and file order, with the nodes that run it.
//! A service that several groups of a node list runs there once; a task with `once` runs on the node that is elected for it.

use std::collections::{BTreeMap, HashMap};

use groundplan_inventory::{DeclaredIn, Diagnostic, Inventory, Lifecycle};
use groundplan_protocol::ids::{NodeId, ServiceId, TaskId, TaskName};
use groundplan_services::{Catalog, Service, Task};

use crate::{
    desired::{Elected, NodeIx},
    knowledge::Knowledge,
    nearest::did_you_mean,
};

/// Which nodes run which services and tasks. Tasks, services and nodes are numbers: indices of these lists.
pub(crate) struct Placement<'a> {
    /// The services, in name order.
    pub(crate) services: Vec<Placed<'a>>,
    /// The tasks: those of each service in file order, service by service.
    pub(crate) tasks: Vec<Declared<'a>>,
    /// The nodes, in name order.
    pub(crate) nodes: Vec<&'a NodeId>,
    /// The nodes that tasks with `once` run on, by task.
    elected: HashMap<usize, Elected>,
    by_name: HashMap<&'a str, usize>,
    by_task: HashMap<(usize, &'a str), usize>,
}

/// A service and the nodes that run it.
pub(crate) struct Placed<'a> {
    pub(crate) id: &'a ServiceId,
    pub(crate) service: &'a Service,
    /// The nodes that run it, in name order.
    pub(crate) nodes: Vec<NodeIx>,
    /// The number of its first task.
    pub(crate) first: usize,
}

/// A declared task, by its number among all tasks of the site.
#[derive(Clone, Copy)]
pub(crate) struct Declared<'a> {
    /// The number of its service.
    pub(crate) service: usize,
    pub(crate) task: &'a Task,
}

impl<'a> Placement<'a> {
    /// Places all tasks; a service that a group lists and no folder declares is a fault.
    pub(crate) fn of(
        inventory: &'a Inventory,
        catalog: &'a Catalog,
        knowledge: &Knowledge,
        faults: &mut Vec<Diagnostic>,
    ) -> Self {
        let mut services = Vec::with_capacity(catalog.services.len());
        let (mut tasks, mut by_task) = (Vec::new(), HashMap::new());
        for (number, (id, service)) in catalog.services.iter().enumerate() {
            services.push(Placed { id, service, nodes: Vec::new(), first: tasks.len() });
            for task in &service.tasks {
                by_task.insert((number, task.id.as_str()), tasks.len());
                tasks.push(Declared { service: number, task });
            }
        }
        let by_name: HashMap<_, _> = services.iter().enumerate().map(|(i, s)| (s.id.as_str(), i)).collect();
        let runs = groups(inventory, catalog, &by_name, faults);
        for (number, node) in inventory.nodes.values().enumerate() {
            let node_ix = NodeIx(number as u32);
            for service in node.groups.iter().filter_map(|group| runs.get(group.as_str())).flatten() {
                let nodes = &mut services[*service].nodes;
                // Nodes come in order, so a service that a node has by two groups is the last one here.
                if nodes.last() != Some(&node_ix) {
                    nodes.push(node_ix);
                }
            }
        }
        let nodes = inventory.nodes.keys().collect();
        let mut placement = Self { services, tasks, nodes, elected: HashMap::new(), by_name, by_task };
        placement.elect(inventory, knowledge);
        placement
    }

    /// Elects a node for each task with `once`.
    fn elect(&mut self, inventory: &Inventory, knowledge: &Knowledge) {
        let is_present = |node: NodeIx| {
            let id = self.nodes[node.0 as usize];
            knowledge.present.contains(id) && inventory.nodes[id].lifecycle == Lifecycle::Active
        };
        let elect = |task: usize| {
            let held = knowledge.elected.get(&self.id(task)).and_then(|node| self.node(node));
            let elected = Elected::of(&self.services[self.tasks[task].service].nodes, held, is_present)?;
            Some((task, Elected { after: elected.after.filter(|_| knowledge.not_given_up), ..elected }))
        };
        let once = (0..self.tasks.len()).filter(|task| self.tasks[*task].task.once.is_some());
        self.elected = once.filter_map(elect).collect();
    }

    /// The number of a node.
    fn node(&self, id: &NodeId) -> Option<NodeIx> {
        self.nodes.binary_search(&id).ok().map(|i| NodeIx(i as u32))
    }

    /// Where a task with `once` is to run; none for another task, and for one that runs nowhere.
    pub(crate) fn elected(&self, task: usize) -> Option<Elected> {
        self.elected.get(&task).copied()
    }

    /// The number of a service.
    pub(crate) fn service(&self, id: &ServiceId) -> Option<usize> {
        self.by_name.get(id.as_str()).copied()
    }

    /// The number of a task of a service.
    pub(crate) fn task(&self, service: usize, task: &TaskName) -> Option<usize> {
        self.by_task.get(&(service, task.as_str())).copied()
    }

    /// The nodes that run a task, in name order; whether its `when` holds there is not known here.
    pub(crate) fn nodes_of(&self, task: usize) -> &[NodeIx] {
        let declared = self.tasks[task];
        let nodes = &self.services[declared.service].nodes;
        match self.elected.get(&task) {
            Some(elected) => std::slice::from_ref(&elected.node),
            None => nodes,
        }
    }

    /// The task's id as text, `service.task`, for messages.
    pub(crate) fn name(&self, task: usize) -> String {
        self.id(task).to_string()
    }

    /// The id of a task, by its number.
    pub(crate) fn id(&self, task: usize) -> TaskId {
        let declared = self.tasks[task];
        TaskId { service: self.services[declared.service].id.clone(), task: declared.task.id.clone() }
    }
}

/// The services of each group, by number.
fn groups<'a>(
    inventory: &'a Inventory,
    catalog: &Catalog,
    by_name: &HashMap<&str, usize>,
    faults: &mut Vec<Diagnostic>,
) -> BTreeMap<&'a str, Vec<usize>> {
    let mut runs = BTreeMap::new();
    for (id, group) in &inventory.groups {
        let mut numbers = Vec::with_capacity(group.services.len());
        for service in &group.services {
            match by_name.get(service.value.as_str()) {
                Some(number) => numbers.push(*number),
                None => {
                    let message = format!("there is no service `{}`", service.value);
                    let near = did_you_mean(service.value.as_str(), catalog.services.keys().map(ServiceId::as_str));
                    let hint = near.unwrap_or_else(|| format!("declare it in services/{}/service.toml", service.value));
                    let file = DeclaredIn::File(format!("services/{}/service.toml", service.value).into());
                    faults.push(Diagnostic::new(service.at.clone(), message).hint(hint).missing_from([file]));
                }
            }
        }
        runs.insert(id.as_str(), numbers);
    }
    runs
}
