//! What a template sees while it is rendered, and the log of what it read.
//!
//! In: values, and which service and node. Out: values, each noted in a [`Log`] when it is read, in order. A result depends on nothing
//! but the answers to what its log holds: that makes results reusable, and reasons are made of it.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt, mem,
    sync::{Arc, Mutex, PoisonError},
};

use groundplan_protocol::ids::TaskId;
use minijinja::{
    Error, ErrorKind, Value,
    value::{Enumerator, Object, ObjectRepr},
};

use super::{
    facts::{Fact, ServiceFacts, SiteFacts, var_fault},
    known::{FACTS, Known, parts},
};

/// Names that only the node has values for.
pub(crate) const ON_NODE: [&str; 1] = ["secrets"];

/// Names that every template sees.
pub(crate) const GIVEN: [&str; 7] = ["node", "groups", "site", "service", "external", "facts", "exports"];

/// Something that a template, or the resolution of its task, read.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Access {
    Var(Arc<str>),
    Node(Field),
    Group(Arc<str>),
    GroupNames,
    External(Arc<str>),
    ExternalNames,
    SiteName,
    /// A fact of the node, by its path; the empty one is all of them.
    Fact(Arc<str>),
    /// What a task has published on a node.
    Export(TaskId, Arc<str>),
    /// Which nodes a task publishes on.
    Exporters(TaskId),
    /// A template below the service's folder.
    Template(Arc<str>),
    /// A file below the service's folder, as it is.
    Source(Arc<str>),
    /// The file of that name in `plugins/`: a program, or what describes one.
    Plugin(Arc<str>),
    /// The probes of the external capabilities that the task requires.
    Probes,
}

/// A field of `node`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Field {
    Name,
    Address,
    Labels,
    Groups,
}

impl Field {
    /// All fields, each with its name in templates.
    pub(crate) const ALL: [(&str, Self); 4] =
        [("name", Self::Name), ("address", Self::Address), ("labels", Self::Labels), ("groups", Self::Groups)];

    /// Its name in templates.
    pub(crate) fn name(self) -> &'static str {
        Self::ALL.into_iter().find_map(|(name, field)| (field == self).then_some(name)).unwrap_or_default()
    }
}

/// What was read, in order. Behind a lock because the engine requires shared objects to be `Sync`.
#[derive(Debug, Default)]
pub(crate) struct Log(Mutex<Vec<Access>>);

impl Log {
    /// Notes what a template has read; each access once, in the order of the first.
    pub(crate) fn note(&self, access: Access) {
        let mut log = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !log.contains(&access) {
            log.push(access);
        }
    }

    /// What is noted, each once, in the order in which it was first read.
    pub(crate) fn seen(&self) -> Vec<Access> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Takes what is noted, and leaves the log empty.
    pub(crate) fn take(&self) -> Vec<Access> {
        mem::take(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// What a template is rendered for: a service on a node, or the site as a whole.
#[derive(Debug, Clone)]
pub(crate) struct RenderContext {
    pub(crate) site: Arc<SiteFacts>,
    pub(crate) service: Option<Arc<ServiceFacts>>,
    pub(crate) node: Option<usize>,
    pub(crate) known: Arc<Known>,
}

impl RenderContext {
    /// The answer to an access that is a value; `None` if there is none.
    pub(crate) fn fact(&self, access: &Access) -> Option<&Arc<Fact>> {
        let node = || Some(&self.site.nodes[self.node?]);
        match access {
            Access::Var(name) => self.var(name),
            Access::Node(Field::Name) => Some(&node()?.name),
            Access::Node(Field::Address) => node()?.address.as_ref(),
            Access::Node(Field::Labels) => Some(&node()?.labels),
            Access::Node(Field::Groups) => Some(&node()?.groups),
            Access::Group(name) => self.site.groups.get(name),
            Access::GroupNames => Some(&self.site.group_names),
            Access::External(name) => self.site.externals.get(name),
            Access::ExternalNames => Some(&self.site.external_names),
            Access::SiteName => Some(&self.site.name),
            Access::Fact(path) => self.known.fact(self.node?, path),
            Access::Export(task, node) => self.known.value(task, node)?,
            Access::Exporters(task) => self.known.names(task),
            Access::Template(_) | Access::Source(_) | Access::Plugin(_) | Access::Probes => None,
        }
    }

    /// Whether an access reads a value that a node has not reported yet.
    pub(crate) fn is_unknown(&self, access: &Access) -> bool {
        match access {
            Access::Fact(_) => self.node.is_some_and(|node| !self.known.has_facts(node)),
            Access::Export(task, node) => matches!(self.known.value(task, node), Some(None)),
            _ => false,
        }
    }

    /// The var of that name: the node's own, its groups', the site's, the service's default.
    fn var(&self, name: &str) -> Option<&Arc<Fact>> {
        let node = self.node.and_then(|node| self.site.nodes[node].vars.get(name));
        node.or_else(|| self.site.vars.get(name)).or_else(|| self.service.as_ref()?.vars.get(name))
    }

    /// Whether the answer to an access may differ from node to node.
    pub(crate) fn varies(&self, access: &Access) -> bool {
        match access {
            Access::Node(_) | Access::Fact(_) => true,
            Access::Var(name) => self.site.node_vars.contains_key(name),
            _ => false,
        }
    }

    /// The names of all vars that are set here, and those that every template sees.
    pub(crate) fn names(&self) -> BTreeSet<&str> {
        let node = self.node.map(|node| &self.site.nodes[node].vars);
        let service = self.service.as_ref().map(|service| &service.vars);
        let vars = node.into_iter().chain([&self.site.vars]).chain(service).flat_map(|facts| facts.keys());
        vars.map(|name| &**name).chain(GIVEN).collect()
    }

    /// Whether a template here sees something of that name.
    pub(crate) fn defines(&self, name: &str) -> bool {
        match name {
            "node" | "facts" | "exports" => self.node.is_some(),
            "service" => self.service.is_some(),
            "groups" | "site" | "external" => true,
            _ => self.var(name).is_some(),
        }
    }

    fn ask(&self, log: &Log, access: Access) -> Option<Value> {
        let value = self.fact(&access).map(|fact| fact.value.clone());
        log.note(access);
        value
    }
}

/// What renders the texts of a var.
pub(super) trait RenderVar: fmt::Debug + Send + Sync {
    /// The value of a var with all that it holds rendered, or an error value. `root` is what its texts see, with the var among those that
    /// are open.
    fn rendered(&self, name: &str, value: &Value, root: &Arc<Root>) -> Value;
}

/// The root of what a template sees.
#[derive(Debug)]
pub(crate) struct Root {
    pub(crate) place: RenderContext,
    pub(crate) log: Arc<Log>,
    /// Undefined names that have been reported: they are defined as [`Nothing`], so that the next one is found.
    pub(crate) reported: BTreeSet<String>,
    /// What vars are rendered with.
    pub(super) vars: Arc<dyn RenderVar>,
    /// The vars that are being rendered, outermost first.
    pub(super) open: Vec<Arc<str>>,
    /// Those that are rendered already: each is, once for one rendering, however often it is used.
    pub(super) done: Arc<Mutex<BTreeMap<Arc<str>, Value>>>,
}

impl Root {
    /// A var as a template sees it.
    fn var(self: &Arc<Self>, name: &str) -> Option<Value> {
        let access = Access::Var(name.into());
        let fact = self.place.fact(&access).cloned();
        self.log.note(access);
        let fact = fact?;
        if !fact.has_templates() {
            return Some(fact.value.clone());
        }
        let mut open = self.open.clone();
        open.push(name.into());
        if self.open.iter().any(|outer| &**outer == name) {
            let way = open.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(" → ");
            return Some(var_fault(name, &format!("it needs itself: {way}")).into());
        }
        if let Some(value) = self.done.lock().unwrap_or_else(PoisonError::into_inner).get(name) {
            return Some(value.clone());
        }
        let (place, log, reported) = (self.place.clone(), self.log.clone(), self.reported.clone());
        let (vars, done) = (self.vars.clone(), self.done.clone());
        let value = self.vars.rendered(name, &fact.value, &Arc::new(Self { place, log, reported, vars, open, done }));
        self.done.lock().unwrap_or_else(PoisonError::into_inner).insert(name.into(), value.clone());
        Some(value)
    }
}

impl Object for Root {
    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        let name = key.as_str()?;
        let branch = |kind| Some(Value::from_object(Branch { kind, root: self.clone() }));
        match name {
            "node" => self.place.node.and_then(|_| branch(Kind::Node)),
            "service" => self.place.service.as_ref().and_then(|_| branch(Kind::Service)),
            "groups" => branch(Kind::Groups),
            "site" => branch(Kind::Site),
            "external" => branch(Kind::External),
            // Reported once, they are defined as nothing, so that the next undefined name is found.
            "facts" | "exports" if self.reported.contains(name) => Some(Value::from_object(Nothing)),
            "facts" if self.place.node.is_some() => {
                Some(Value::from_object(HostFacts { part: None, root: self.clone() }))
            }
            "exports" if self.place.node.is_some() => Some(Value::from_object(Exports { root: self.clone() })),
            _ if self.reported.contains(name) => Some(Value::from_object(Nothing)),
            // Never a var: only the node has these values, and nothing is rendered there yet.
            _ if ON_NODE.contains(&name) => None,
            _ => self.var(name),
        }
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        Enumerator::NonEnumerable
    }
}

/// Whether a value is one of the given names or below one. These read what they contain from the site, and keep nothing.
pub(super) fn is_given(value: &Value) -> bool {
    let Some(object) = value.as_object() else { return false };
    object.is::<Branch>()
        || object.is::<HostFacts>()
        || object.is::<Exports>()
        || object.is::<ExportsOf>()
        || object.is::<ByNode>()
        || object.is::<Nothing>()
}

/// `node`, `groups`, `site`, `service`, `external`.
#[derive(Debug)]
struct Branch {
    kind: Kind,
    root: Arc<Root>,
}

#[derive(Debug, Clone, Copy)]
enum Kind {
    Node,
    Groups,
    Site,
    Service,
    External,
}

impl Object for Branch {
    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        let name = key.as_str()?;
        let ask = |access| self.root.place.ask(&self.root.log, access);
        match self.kind {
            Kind::Node => {
                let (_, field) = Field::ALL.into_iter().find(|(field, _)| *field == name)?;
                ask(Access::Node(field))
            }
            Kind::Groups => ask(Access::Group(name.into())),
            Kind::External => ask(Access::External(name.into())),
            Kind::Site => (name == "name").then(|| ask(Access::SiteName)).flatten(),
            // Part of the task's id: never a reason for a change.
            Kind::Service => {
                (name == "name").then(|| Some(self.root.place.service.as_ref()?.name.value.clone())).flatten()
            }
        }
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        let names = |access: Access| {
            let names = self.root.place.ask(&self.root.log, access);
            Enumerator::Values(names.and_then(|names| Some(names.try_iter().ok()?.collect())).unwrap_or_default())
        };
        match self.kind {
            Kind::Node => Enumerator::Str(&["name", "address", "labels", "groups"]),
            Kind::Site | Kind::Service => Enumerator::Str(&["name"]),
            Kind::Groups => names(Access::GroupNames),
            Kind::External => names(Access::ExternalNames),
        }
    }
}

/// A value that is an error wherever it is used, even where an undefined value is not: for a name that can never be defined.
fn misspelt(expression: &str) -> Option<Value> {
    Some(Error::new(ErrorKind::UndefinedError, format!("`{expression}` is undefined")).into())
}

/// `facts`, or a fact that has parts.
#[derive(Debug)]
struct HostFacts {
    part: Option<&'static str>,
    root: Arc<Root>,
}

impl HostFacts {
    fn ask(&self, path: String) -> Option<Value> {
        self.root.place.ask(&self.root.log, Access::Fact(path.into()))
    }
}

impl Object for HostFacts {
    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        let name = key.as_str()?;
        match self.part {
            None => match FACTS.iter().find(|fact| **fact == name) {
                Some(fact) if parts(fact).is_some() => {
                    Some(Value::from_object(Self { part: Some(fact), root: self.root.clone() }))
                }
                Some(_) => self.ask(name.to_owned()),
                None => misspelt(&format!("facts.{name}")),
            },
            Some(part) => {
                let allowed = parts(part).unwrap_or_default();
                match allowed.is_empty() || allowed.contains(&name) {
                    true => self.ask(format!("{part}.{name}")),
                    false => misspelt(&format!("facts.{part}.{name}")),
                }
            }
        }
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        let all = self.ask(self.part.unwrap_or_default().to_owned());
        Enumerator::Values(all.and_then(|all| Some(all.try_iter().ok()?.collect())).unwrap_or_default())
    }
}

/// `exports`.
#[derive(Debug)]
struct Exports {
    root: Arc<Root>,
}

impl Object for Exports {
    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        let service = key.as_str()?;
        match self.root.place.known.exports().contains_key(service) {
            true => Some(Value::from_object(ExportsOf { service: service.to_owned(), root: self.root.clone() })),
            false => misspelt(&format!("exports.{service}")),
        }
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        Enumerator::NonEnumerable
    }
}

/// `exports.<service>`.
#[derive(Debug)]
struct ExportsOf {
    service: String,
    root: Arc<Root>,
}

impl Object for ExportsOf {
    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        let name = key.as_str()?;
        let Some(exported) = self.root.place.known.exported(&self.service, name) else {
            return misspelt(&format!("exports.{}.{name}", self.service));
        };
        let task = exported.task.clone();
        if !exported.once {
            return Some(Value::from_object(ByNode { task, root: self.root.clone() }));
        }
        // Which node it runs on is a part of the answer: another one is another input.
        self.root.place.ask(&self.root.log, Access::Exporters(task.clone()));
        let node = exported.nodes().next()?;
        self.root.place.ask(&self.root.log, Access::Export(task, node.into()))
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        Enumerator::NonEnumerable
    }
}

/// `exports.<service>.<task>` of a task that runs on several nodes.
#[derive(Debug)]
struct ByNode {
    task: TaskId,
    root: Arc<Root>,
}

impl Object for ByNode {
    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        let place = &self.root.place;
        let node = key.as_str()?;
        if place.known.value(&self.task, node).is_none() {
            place.ask(&self.root.log, Access::Exporters(self.task.clone()));
            return None;
        }
        place.ask(&self.root.log, Access::Export(self.task.clone(), node.into()))
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        let names = self.root.place.ask(&self.root.log, Access::Exporters(self.task.clone()));
        Enumerator::Values(names.and_then(|names| Some(names.try_iter().ok()?.collect())).unwrap_or_default())
    }
}

/// Stands in for an undefined name once that is reported: has every attribute, is empty, prints nothing.
#[derive(Debug)]
struct Nothing;

impl Object for Nothing {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Iterable
    }

    fn get_value(self: &Arc<Self>, _: &Value) -> Option<Value> {
        Some(Value::from_object(Self))
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        Enumerator::Empty
    }
}
