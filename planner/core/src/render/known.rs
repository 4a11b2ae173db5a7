//! Values reported by nodes, as templates name them: `facts` and `exports`.
//!
//! In: [`Knowledge`], and which tasks export on which nodes. Out: values by path, made at first use. A value has no place of its own:
//! results that come from equal values are equal, whichever node reported them.

use std::{
    collections::BTreeMap,
    sync::{Arc, OnceLock},
};

use groundplan_inventory::Location;
use groundplan_protocol::{
    ids::{NodeId, TaskId},
    kinds::Export,
};
use minijinja::{Value, value::Serde};

use super::facts::Fact;
use crate::knowledge::{Facts, Knowledge};

/// The names below `facts`.
pub(crate) const FACTS: [&str; 10] =
    ["addresses", "arch", "cpus", "hostname", "init", "kernel", "local", "memory", "os", "package_manager"];

/// Those that have parts, and which; `local` has whatever the host's own programs report.
const PARTS: [(&str, &[&str]); 4] = [
    ("kernel", &["release"]),
    ("local", &[]),
    ("memory", &["total_mib"]),
    ("os", &["codename", "id", "like", "name", "version"]),
];

/// The names below a fact that has parts; empty if any name is allowed.
pub(crate) fn parts(name: &str) -> Option<&'static [&'static str]> {
    PARTS.iter().find(|(fact, _)| *fact == name).map(|(_, parts)| *parts)
}

/// The reported values that one resolution uses.
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

/// An `export` task, with the value that each node has reported of it.
#[derive(Debug, Clone)]
pub(crate) struct Exported {
    pub(crate) task: TaskId,
    /// Whether it runs once: then its value needs no node's name.
    pub(crate) once: bool,
    pub(crate) at: Location,
    /// By node, in name order; `None` where nothing is published yet, or what is does not fit.
    values: BTreeMap<String, Option<Arc<Fact>>>,
    /// Why the value of a node does not fit, in place of it.
    refused: BTreeMap<String, String>,
    names: Arc<Fact>,
}

impl Exported {
    /// An `export` on these nodes, with the values that are known and that its parameters allow: a node may report anything.
    pub(crate) fn new(
        task: TaskId,
        declared: (&Export, bool, Location),
        nodes: &[&NodeId],
        knowledge: &Knowledge,
    ) -> Self {
        let (export, once, at) = declared;
        let published = knowledge.exports.get(&task);
        let mut exported =
            Self { task, once, at, values: BTreeMap::new(), refused: BTreeMap::new(), names: fact(Value::UNDEFINED) };
        for node in nodes {
            let text = published.and_then(|published| published.get(*node));
            let fault = text.and_then(|text| export.fault(text));
            let value = text.filter(|_| fault.is_none()).map(|text| fact(Value::from(text.as_str())));
            exported.values.insert(node.as_str().to_owned(), value);
            exported.refused.extend(fault.map(|fault| (node.as_str().to_owned(), fault)));
        }
        exported.name();
        exported
    }

    /// Why the value that a node has reported is not used.
    pub(crate) fn refused(&self, node: &str) -> Option<&str> {
        self.refused.get(node).map(String::as_str)
    }

    /// Removes a node, on which its `when` is false.
    pub(crate) fn remove(&mut self, node: &NodeId) {
        self.values.remove(node.as_str());
        self.name();
    }

    fn name(&mut self) {
        self.names = fact(self.values.keys().map(|node| Value::from(node.as_str())).collect());
    }

    pub(crate) fn nodes(&self) -> impl Iterator<Item = &str> {
        self.values.keys().map(String::as_str)
    }
}

fn fact(value: Value) -> Arc<Fact> {
    Fact::new(value, Location::file(""))
}

impl Known {
    /// The facts of the nodes, in their order; exports are added later.
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

    /// The `export` task of that service and name, if it is declared.
    pub(crate) fn exported(&self, service: &str, task: &str) -> Option<&Exported> {
        self.exports.get(service)?.get(task)
    }

    /// All `export` tasks, by service and task.
    pub(crate) fn exports(&self) -> &BTreeMap<String, BTreeMap<String, Exported>> {
        &self.exports
    }

    /// Whether a node has reported its facts.
    pub(crate) fn has_facts(&self, node: usize) -> bool {
        self.hosts[node].is_some()
    }

    /// A node's fact, by its path such as `os.id`; the empty path is all of them.
    pub(crate) fn fact(&self, node: usize, path: &str) -> Option<&Arc<Fact>> {
        self.hosts[node].as_ref()?.values().get(path)
    }

    /// What a task has published on a node: none if there is no such instance, `Some(None)` if it has not published yet.
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
            // Made at the first use: not every node's facts are read.
            let mut values = BTreeMap::from([(String::new(), fact(Value::from(Serde(&*self.facts))))]);
            for (name, reported) in &*self.facts {
                values.insert(name.clone(), fact(Value::from(Serde(reported))));
                if let (Some(_), Some(inner)) = (parts(name), reported.as_object()) {
                    let inner =
                        inner.iter().map(|(part, value)| (format!("{name}.{part}"), fact(Value::from(Serde(value)))));
                    values.extend(inner);
                }
            }
            values
        })
    }
}
