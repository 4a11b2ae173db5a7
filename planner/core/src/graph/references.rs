//! References by name, made into edges between tasks by number.
//!
//! In: `requires`, `needed_by`, `restart_on`, `reload_on`, `run_on` of tasks and services. Out: edges and external capabilities, or
//! what is wrong with a name. `config`: this service, the same node, or all nodes if it runs once. `mariadb.start`: every node that
//! runs it. `mariadb.start@node`: that node. `database/ready`: every node of its provider.

use groundplan_inventory::{DeclaredIn, Diagnostic, Located, Location};
use groundplan_protocol::ids::{Capability, NodeId, ServiceId, TaskId, TaskName};
use groundplan_services::Reference;

use super::{
    capabilities::{Capabilities, Provider},
    link::{How, Input, Link, Links},
};
use crate::{
    desired::{NodeIx, Scope},
    nearest::did_you_mean,
};

/// Makes edges, task by task.
pub(super) struct Linker<'a, 'f> {
    input: Input<'a>,
    capabilities: Capabilities<'a>,
    links: Links<'a>,
    faults: &'f mut Vec<Diagnostic>,
}

/// What a reference refers to.
enum Target<'a> {
    /// Instances of a task.
    Task(usize, Scope),
    /// An external capability.
    External(&'a Capability),
}

impl<'a, 'f> Linker<'a, 'f> {
    /// Starts without edges; faults of references are added to `faults`.
    pub(super) fn new(input: Input<'a>, capabilities: Capabilities<'a>, faults: &'f mut Vec<Diagnostic>) -> Self {
        let count = input.placement.tasks.len();
        let links = Links { to: vec![Vec::new(); count], external: vec![Vec::new(); count] };
        Self { input, capabilities, links, faults }
    }

    /// Returns the edges, not tidied yet.
    pub(super) fn finish(mut self) -> Links<'a> {
        for external in &mut self.links.external {
            external.sort();
            external.dedup();
        }
        self.links
    }

    /// Makes the edges of all tasks.
    pub(super) fn link_all(&mut self) {
        let placement = self.input.placement;
        for number in 0..placement.services.len() {
            let service_wide = self.service_wide(number);
            let placed = &placement.services[number];
            for i in 0..placed.service.tasks.len() {
                let task = placed.first + i;
                for (target, at) in &service_wide {
                    self.add(task, target, How::Requires, at);
                }
                self.task(task, i);
            }
        }
    }

    /// The targets of a service's own `requires`, which all its tasks come after.
    fn service_wide(&mut self, number: usize) -> Vec<(Target<'a>, &'a Location)> {
        let placed = &self.input.placement.services[number];
        let mut targets = Vec::with_capacity(placed.service.requires.len());
        for reference in &placed.service.requires {
            let Some(target) = self.resolve(number, reference) else { continue };
            match target {
                // It would be a cycle through every task of the service; one fault here is clearer than a cycle for each.
                Target::Task(task, _) if self.input.placement.tasks[task].service == number => {
                    let message =
                        format!("service `{}` requires its own task `{}`", placed.id, self.input.placement.name(task));
                    let hint = "what a service requires comes before all its tasks: list it in `requires` of the tasks that need it";
                    self.faults.push(Diagnostic::new(reference.at.clone(), message).hint(hint));
                }
                target => targets.push((target, &reference.at)),
            }
        }
        targets
    }

    /// Makes the edges of one task, the `i`th of its file.
    fn task(&mut self, number: usize, i: usize) {
        let declared = self.input.placement.tasks[number];
        let (service, task) = (declared.service, declared.task);
        match &task.requires {
            Some(requires) => {
                for reference in requires {
                    if let Some(target) = self.resolve(service, reference) {
                        self.add(number, &target, How::Requires, &reference.at);
                    }
                }
            }
            // File order: without `requires` of its own, a task comes after the one before it in the file.
            None if i > 0 => {
                let before = Target::Task(number - 1, self.local_scope(number - 1));
                self.add(number, &before, How::FileOrder, &task.at);
            }
            None => {}
        }
        // Triggers order as well, in addition to `requires` or the file order.
        for trigger in &task.triggers {
            if let Some(target) = self.resolve(service, &trigger.on) {
                self.add(number, &target, How::Trigger(trigger.effect), &trigger.on.at);
            }
        }
        for reference in &task.needed_by {
            self.needed_by(number, service, reference);
        }
    }

    /// Makes an edge that is declared at its source: the same that the target would get if it required this task.
    fn needed_by(&mut self, number: usize, service: usize, reference: &'a Located<Reference>) {
        let scope = match &reference.value {
            Reference::Local(_) => self.local_scope(number),
            Reference::Task(_) => Scope::AllNodes,
            // An edge leads to all instances of its target: one to a single instance cannot be represented, and no site needs it.
            Reference::Instance(task, _) => {
                let message = format!("`needed_by` cannot name one node: `{}`", reference.value);
                let hint = format!("name the task, `{task}`: all its instances then wait");
                return self.faults.push(Diagnostic::new(reference.at.clone(), message).hint(hint));
            }
            Reference::Capability(capability) => {
                let message = format!("`needed_by` cannot name a capability: `{capability}`");
                let hint = match self.capabilities.provider(capability) {
                    Some(Provider::Task(task)) => {
                        format!("name the task that provides it: `{}`", self.input.placement.name(task))
                    }
                    _ => "name a task".to_owned(),
                };
                return self.faults.push(Diagnostic::new(reference.at.clone(), message).hint(hint));
            }
        };
        if let Some(Target::Task(target, _)) = self.resolve(service, reference) {
            self.add(target, &Target::Task(number, scope), How::NeededBy, &reference.at);
        }
    }

    fn add(&mut self, to: usize, target: &Target<'a>, how: How, at: &'a Location) {
        match *target {
            Target::Task(from, scope) => {
                let trigger = if let How::Trigger(effect) = how { Some(effect) } else { None };
                self.links.to[to].push(Link { from, scope, trigger, how, at });
            }
            // No plan changes it, so a trigger on it never fires: it only orders.
            Target::External(capability) => self.links.external[to].push(capability),
        }
    }

    /// Which instances of a task a reference within its service stands for. One that runs once may be on another node: all others wait
    /// for it there.
    fn local_scope(&self, task: usize) -> Scope {
        if self.input.placement.tasks[task].task.once.is_some() { Scope::AllNodes } else { Scope::SameNode }
    }

    /// What a reference in a file of `service` refers to; none if it refers to nothing, which is reported.
    fn resolve(&mut self, service: usize, reference: &'a Located<Reference>) -> Option<Target<'a>> {
        let found = match &reference.value {
            Reference::Local(task) => self.local(service, task),
            Reference::Task(id) => self.find(id).map(|task| Target::Task(task, Scope::AllNodes)),
            Reference::Instance(id, node) => self.instance(id, node),
            Reference::Capability(capability) => self.capability(capability),
        };
        match found {
            Ok(target) => Some(target),
            Err(fault) => {
                let diagnostic = Diagnostic::new(reference.at.clone(), fault.message).missing_from(fault.missing_from);
                self.faults.push(Diagnostic { hint: fault.hint, ..diagnostic });
                None
            }
        }
    }

    /// A task of the same service, on the same node.
    fn local(&self, service: usize, task: &TaskName) -> Found<Target<'a>> {
        let placement = self.input.placement;
        match self.find_in(service, task) {
            Ok(task) => Ok(Target::Task(task, self.local_scope(task))),
            Err(fault) if fault.hint.is_none() => {
                // The name of a service in the place of a task's.
                let named = ServiceId::new(task.as_str()).ok().and_then(|id| placement.service(&id));
                let last = named.and_then(|named| placement.services[named].service.tasks.last());
                let hint =
                    last.map(|last| format!("`{task}` is a service: name a task of it, such as `{task}.{}`", last.id));
                Err(NameFault { hint, ..fault })
            }
            Err(fault) => Err(fault),
        }
    }

    /// A task of any service.
    fn find(&self, id: &TaskId) -> Found<usize> {
        let placement = self.input.placement;
        match placement.service(&id.service) {
            Some(service) => self.find_in(service, &id.task),
            None => Err(NameFault {
                message: format!("there is no service `{}`", id.service),
                hint: did_you_mean(id.service.as_str(), placement.services.iter().map(|s| s.id.as_str())),
                missing_from: vec![file_of(&id.service)],
            }),
        }
    }

    /// A task of a service.
    fn find_in(&self, service: usize, task: &TaskName) -> Found<usize> {
        let placed = &self.input.placement.services[service];
        match self.input.placement.task(service, task) {
            Some(task) => Ok(task),
            None => Err(NameFault {
                message: format!("service `{}` has no task `{task}`", placed.id),
                hint: did_you_mean(task.as_str(), placed.service.tasks.iter().map(|t| t.id.as_str())),
                missing_from: vec![file_of(placed.id)],
            }),
        }
    }

    /// A task on a node. It is a fault if the node does not run it: the edge would never have a source.
    fn instance(&self, id: &TaskId, node: &NodeId) -> Found<Target<'a>> {
        let placement = self.input.placement;
        let task = self.find(id)?;
        let Ok(number) = placement.nodes.binary_search(&node) else {
            return Err(NameFault {
                message: format!("there is no node `{node}`"),
                hint: did_you_mean(node.as_str(), placement.nodes.iter().map(|n| n.as_str())),
                missing_from: vec![DeclaredIn::Inventory],
            });
        };
        if placement.tasks[task].task.once.is_some() {
            return Err(NameFault {
                message: format!("`{id}` runs on one node only, and which that is may change"),
                hint: Some(format!("write `{id}`, which stands for it on the node where it runs")),
                missing_from: Vec::new(),
            });
        }
        let number = NodeIx(number as u32);
        let nodes = placement.nodes_of(task);
        if nodes.binary_search(&number).is_ok() {
            return Ok(Target::Task(task, Scope::OneNode(number)));
        }
        let on = |nodes: &[NodeIx]| match nodes {
            [] => "no node runs it".to_owned(),
            nodes => {
                let names = nodes.iter().take(3).map(|n| format!("`{}`", placement.nodes[n.0 as usize]));
                let more = if nodes.len() > 3 { format!(" and {} more", nodes.len() - 3) } else { String::new() };
                format!("it runs on {}{more}", names.collect::<Vec<_>>().join(", "))
            }
        };
        Err(NameFault {
            message: format!("`{id}` does not run on node `{node}`"),
            hint: Some(on(nodes)),
            missing_from: vec![DeclaredIn::Inventory],
        })
    }

    /// The provider of a capability. It is a fault if it runs on no node: what requires the capability would not wait for anything.
    fn capability(&self, name: &'a Capability) -> Found<Target<'a>> {
        let placement = self.input.placement;
        match self.capabilities.provider(name) {
            Some(Provider::External) => Ok(Target::External(name)),
            Some(Provider::Task(task)) if placement.nodes_of(task).is_empty() => {
                let service = placement.services[placement.tasks[task].service].id;
                Err(NameFault {
                    message: format!(
                        "capability `{name}` is provided by `{}`, which runs on no node",
                        placement.name(task)
                    ),
                    hint: Some(format!("let a group with nodes in it list the service `{service}`")),
                    missing_from: vec![DeclaredIn::Inventory],
                })
            }
            Some(Provider::Task(task)) => Ok(Target::Task(task, Scope::AllNodes)),
            None => Err(NameFault {
                message: format!("no task provides the capability `{name}`"),
                hint: Some(self.capabilities.hint(name)),
                missing_from: vec![DeclaredIn::Site, DeclaredIn::Services],
            }),
        }
    }
}

/// What a name refers to.
type Found<T> = Result<T, NameFault>;

/// The file that declares a service.
fn file_of(service: &ServiceId) -> DeclaredIn {
    DeclaredIn::File(format!("services/{service}/service.toml").into())
}

/// What is wrong with a name.
struct NameFault {
    message: String,
    hint: Option<String>,
    /// Where it may be declared nevertheless.
    missing_from: Vec<DeclaredIn>,
}
