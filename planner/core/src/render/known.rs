//! What nodes have told, as templates name it: `facts` and `exports`.
//!
//! In: [`Knowledge`], and which tasks export on which nodes. Out: values by path, made when somebody asks. A value has no place of its
//! own: results that come from equal values are equal, on whatever nodes.

use std::{
    collections::BTreeMap,
    sync::{Arc, OnceLock},
};

use groundplan_inventory::Location;
use groundplan_protocol::ids::{NodeId, TaskId};
use minijinja::{Value, value::Serde};

use super::facts::Fact;
use crate::knowledge::{Facts, Knowledge};

/// What may stand below `facts`.
pub(crate) const FACTS: [&str; 10] =
    ["addresses", "arch", "cpus", "hostname", "init", "kernel", "local", "memory", "os", "package_manager"];

/// Those that have parts, and which; `local` has whatever the host's own programs tell.
const PARTS: [(&str, &[&str]); 4] = [
    ("kernel", &["release"]),
    ("local", &[]),
    ("memory", &["total_mib"]),
    ("os", &["codename", "id", "like", "name", "version"]),
];

/// What may stand below a fact that has parts.
pub(crate) fn parts(name: &str) -> Option<&'static [&'static str]> {
    PARTS.iter().find(|(fact, _)| *fact == name).map(|(_, parts)| *parts)
}

/// What is known for one resolution.
#[derive(Debug, Clone, Default)]
pub(crate) struct Known {
    /// By node number.
    hosts: Vec<Option<Host>>,
    /// By service and task.
    exports: BTreeMap<String, BTreeMap<String, Exported>>,
}

#[derive(Debug, Clone)]
struct Host {
    facts: Arc<Facts>,
    values: OnceLock<BTreeMap<String, Arc<Fact>>>,
}

/// An `export` task.
#[derive(Debug, Clone)]
pub(crate) struct Exported {
    pub(crate) task: TaskId,
    /// Whether it runs once: then its value needs no node's name.
    pub(crate) once: bool,
    /// Where it is declared.
    pub(crate) at: Location,
    /// By node, in name order; `None` where nothing is published yet.
    values: BTreeMap<String, Option<Arc<Fact>>>,
    names: Arc<Fact>,
}

impl Exported {
    /// On these nodes, with what is known of it.
    pub(crate) fn new(task: TaskId, once: bool, at: Location, nodes: &[&NodeId], knowledge: &Knowledge) -> Self {
        let told = knowledge.exports.get(&task);
        let value = |node: &NodeId| told?.get(node).map(|text| fact(Value::from(text.as_str())));
        let values = nodes.iter().map(|node| (node.as_str().to_owned(), value(node))).collect();
        let mut exported = Self { task, once, at, values, names: fact(Value::UNDEFINED) };
        exported.name();
        exported
    }

    /// Takes a node away, on which there is no such task after all.
    pub(crate) fn remove(&mut self, node: &NodeId) {
        self.values.remove(node.as_str());
        self.name();
    }

    fn name(&mut self) {
        self.names = fact(self.values.keys().map(|node| Value::from(node.as_str())).collect());
    }

    /// Its nodes.
    pub(crate) fn nodes(&self) -> impl Iterator<Item = &str> {
        self.values.keys().map(String::as_str)
    }
}

fn fact(value: Value) -> Arc<Fact> {
    Fact::new(value, Location::file(""))
}

impl Known {
    /// What is known of the nodes in their order, and no exports.
    pub(crate) fn of<'n>(knowledge: &Knowledge, nodes: impl Iterator<Item = &'n NodeId>) -> Self {
        let host = |node: &NodeId| {
            let facts = knowledge.facts.get(node)?.clone();
            Some(Host { facts, values: OnceLock::new() })
        };
        Self { hosts: nodes.map(host).collect(), exports: BTreeMap::new() }
    }

    /// Adds an `export` task.
    pub(crate) fn export(&mut self, exported: Exported) {
        let TaskId { service, task } = &exported.task;
        let tasks = self.exports.entry(service.to_string()).or_default();
        tasks.insert(task.to_string(), exported);
    }

    /// An `export` task, to be changed.
    pub(crate) fn exported_mut(&mut self, task: &TaskId) -> Option<&mut Exported> {
        self.exports.get_mut(task.service.as_str())?.get_mut(task.task.as_str())
    }

    /// An `export` task.
    pub(crate) fn exported(&self, service: &str, task: &str) -> Option<&Exported> {
        self.exports.get(service)?.get(task)
    }

    /// The services that export, and what.
    pub(crate) fn exports(&self) -> &BTreeMap<String, BTreeMap<String, Exported>> {
        &self.exports
    }

    /// Whether a node has told its facts.
    pub(crate) fn has_facts(&self, node: usize) -> bool {
        self.hosts[node].is_some()
    }

    /// A node's fact, by its path such as `os.id`; the empty path is all of them.
    pub(crate) fn fact(&self, node: usize, path: &str) -> Option<&Arc<Fact>> {
        self.hosts[node].as_ref()?.values().get(path)
    }

    /// What a task has published on a node: no such instance, or nothing yet, or a value.
    pub(crate) fn value(&self, task: &TaskId, node: &str) -> Option<Option<&Arc<Fact>>> {
        Some(self.exported(task.service.as_str(), task.task.as_str())?.values.get(node)?.as_ref())
    }

    /// The names of the nodes that publish it.
    pub(crate) fn names(&self, task: &TaskId) -> Option<&Arc<Fact>> {
        Some(&self.exported(task.service.as_str(), task.task.as_str())?.names)
    }
}

impl Host {
    fn values(&self) -> &BTreeMap<String, Arc<Fact>> {
        self.values.get_or_init(|| {
            let mut values = BTreeMap::from([(String::new(), fact(Value::from(Serde(&*self.facts))))]);
            for (name, told) in &*self.facts {
                values.insert(name.clone(), fact(Value::from(Serde(told))));
                if let (Some(_), Some(inner)) = (parts(name), told.as_object()) {
                    let inner =
                        inner.iter().map(|(part, told)| (format!("{name}.{part}"), fact(Value::from(Serde(told)))));
                    values.extend(inner);
                }
            }
            values
        })
    }
}
