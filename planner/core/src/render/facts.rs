//! What templates may name, as values with their places: vars, the node, groups, external capabilities, the site.
//!
//! In: site and inventory. Out: [`Fact`]s, one for each value, shared by all nodes that have it. Built once for as long as inventory
//! and `site.toml` stay the same; digests are computed at first use.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::{Arc, OnceLock},
};

use groundplan_inventory::{External, Inventory, Location, Node, Site, Vars};
use groundplan_protocol::digest::{Digest, Hasher};
use groundplan_services::Service;
use minijinja::{
    Error, ErrorKind, Value,
    value::{Serde, ValueKind},
};

use super::{origin::Origins, reported, syntax::is_template};

/// Longest value that a reason shows, in bytes.
const SHOWN: usize = 80;

/// How the messages of faults in vars begin.
pub(super) const VAR_FAULT: &str = "the var `";

/// An error of the var `name`.
pub(super) fn var_fault(name: &str, message: &str) -> Error {
    Error::new(ErrorKind::InvalidOperation, format!("{VAR_FAULT}{name}`: {message}"))
}

/// Whether any text in a value is a template.
fn has_templates(value: &Value) -> bool {
    match value.kind() {
        ValueKind::String => value.as_str().is_some_and(is_template),
        ValueKind::Seq => value.try_iter().is_ok_and(|mut items| items.any(|item| has_templates(&item))),
        ValueKind::Map => entries(value).any(|(_, value)| has_templates(&value)),
        _ => false,
    }
}

fn entries(map: &Value) -> impl Iterator<Item = (Value, Value)> {
    map.try_iter().into_iter().flatten().filter_map(|key| Some((key.clone(), map.get_item(&key).ok()?)))
}

/// A value and where it is set.
#[derive(Debug)]
pub(crate) struct Fact {
    pub(crate) value: Value,
    pub(crate) at: Location,
    shown: Option<String>,
    digests: OnceLock<Digests>,
    templates: OnceLock<bool>,
}

#[derive(Debug, Clone, Copy)]
struct Digests {
    value: Digest,
    placed: Digest,
}

impl Fact {
    pub(crate) fn new(value: Value, at: Location) -> Arc<Self> {
        Arc::new(Self { value, at, shown: None, digests: OnceLock::new(), templates: OnceLock::new() })
    }

    /// The texts in it that are templates.
    fn templates(&self) -> Vec<Arc<str>> {
        let mut texts = Vec::new();
        if self.has_templates() {
            reported::texts_of(&self.value, &mut texts);
        }
        texts
    }

    /// Whether any text in it is a template; of a var, it is rendered where it is used.
    pub(super) fn has_templates(&self) -> bool {
        *self.templates.get_or_init(|| has_templates(&self.value))
    }

    fn digests(&self) -> &Digests {
        self.digests.get_or_init(|| {
            let value = Digest::of(&serde_json::to_vec(&self.value).unwrap_or_default());
            // Of the value's digest instead of the value, and with fields of fixed length first: no two different facts
            // give the same bytes.
            let mut placed = Hasher::new();
            placed.update(value.as_bytes());
            placed.update(&(self.at.start as u64).to_be_bytes());
            placed.update(&(self.at.end as u64).to_be_bytes());
            placed.field(self.at.file.as_bytes());
            Digests { value, placed: placed.finish() }
        })
    }

    /// Digest of the value.
    pub(crate) fn digest(&self) -> Digest {
        self.digests().value
    }

    /// Digest of the value and its place. A result names places, so it is reused only where these are the same too.
    pub(crate) fn placed(&self) -> Digest {
        self.digests().placed
    }

    /// The value, if it is short and of one line.
    pub(crate) fn shown(&self) -> Option<String> {
        let text = match (&self.shown, self.value.as_str()) {
            (Some(shown), _) => shown.clone(),
            (None, Some(text)) => text.to_owned(),
            (None, None) => serde_json::to_string(&self.value).ok()?,
        };
        short(text)
    }
}

/// `text`, if it is short and of one line.
pub(crate) fn short(text: String) -> Option<String> {
    (text.len() <= SHOWN && !text.contains(['\n', '\r'])).then_some(text)
}

/// Values that templates may name, by the name below their object.
pub(crate) type Facts = BTreeMap<Arc<str>, Arc<Fact>>;

/// What all services see alike.
#[derive(Debug)]
pub(crate) struct SiteFacts {
    /// The value of `site.name`.
    pub(crate) name: Arc<Fact>,
    /// The vars of `site.toml`.
    pub(crate) vars: Facts,
    /// The nodes, by number.
    pub(crate) nodes: Vec<NodeFacts>,
    /// The names of all vars that any node or group sets, each with how many nodes have it.
    pub(crate) node_vars: HashMap<Arc<str>, usize>,
    /// The values of `groups.<name>`: the nodes of each, in name order.
    pub(crate) groups: Facts,
    /// The names of all groups.
    pub(crate) group_names: Arc<Fact>,
    /// The values of `external["<capability>"]`, by capability.
    pub(crate) externals: Facts,
    /// The names of all external capabilities.
    pub(crate) external_names: Arc<Fact>,
    /// The templates in vars of the site and of nodes, by var; found at first use.
    templates: OnceLock<Vec<(Arc<str>, Arc<str>)>>,
}

/// What templates may name of a node.
#[derive(Debug)]
pub(crate) struct NodeFacts {
    pub(crate) name: Arc<Fact>,
    pub(crate) address: Option<Arc<Fact>>,
    pub(crate) labels: Arc<Fact>,
    pub(crate) groups: Arc<Fact>,
    /// Its vars, those of its groups merged in.
    pub(crate) vars: Facts,
}

/// What only one service sees.
#[derive(Debug)]
pub(crate) struct ServiceFacts {
    /// The value of `service.name`.
    pub(crate) name: Arc<Fact>,
    /// The vars that its `service.toml` sets, which site, groups and nodes override.
    pub(crate) vars: Facts,
    origins: OnceLock<Arc<Origins>>,
}

impl ServiceFacts {
    /// Reads them from a service.
    pub(crate) fn of(name: &str, service: &Service) -> Self {
        let vars = service.vars.iter();
        Self {
            name: Fact::new(name.into(), service.at.clone()),
            vars: vars
                .map(|(name, var)| (name.as_str().into(), Fact::new(Value::from(Serde(&var.value)), var.at.clone())))
                .collect(),
            origins: OnceLock::new(),
        }
    }

    /// The vars that are made of what nodes report, on any node. By name: where one var of a name is, all are.
    pub(crate) fn origins(&self, site: &SiteFacts) -> Arc<Origins> {
        let found = || {
            let own: Vec<_> = self.vars.iter().map(|(name, fact)| (name, fact.templates())).collect();
            let own = own.iter().flat_map(|(name, texts)| texts.iter().map(|text| (*name, &**text)));
            let site = site.templates().iter().map(|(name, text)| (name, &**text));
            Arc::new(reported::of_vars(&own.chain(site).collect::<Vec<_>>()))
        };
        self.origins.get_or_init(found).clone()
    }
}

impl SiteFacts {
    /// Reads them from site and inventory.
    pub(crate) fn of(site: &Site, inventory: &Inventory) -> Self {
        let file = || Location::file("site.toml");
        let mut interned = Interned::default();
        let nodes: Vec<_> = inventory.nodes.iter().map(|(id, node)| interned.node(id.as_str(), node)).collect();
        // Each node once, shared by all groups that have it.
        let values: HashMap<&str, Value> =
            inventory.nodes.keys().zip(&nodes).map(|(id, node)| (id.as_str(), node.as_value())).collect();
        let groups: Facts = inventory
            .groups
            .iter()
            .map(|(id, group)| {
                let members = group.nodes.iter().filter_map(|n| values.get(n.as_str()).cloned());
                let value = Value::from(members.collect::<Vec<_>>());
                let names: Vec<_> = group.nodes.iter().map(|n| n.as_str()).collect();
                let shown = Some(names.join(", "));
                let at = group.at.clone();
                (
                    id.as_str().into(),
                    Arc::new(Fact { value, at, shown, digests: OnceLock::new(), templates: OnceLock::new() }),
                )
            })
            .collect();
        let externals: Facts =
            site.external.iter().map(|(name, external)| (name.as_str().into(), of_external(external))).collect();
        let names = |facts: &Facts| Fact::new(facts.keys().map(|name| Value::from(&**name)).collect(), file());
        let (group_names, external_names) = (names(&groups), names(&externals));
        Self {
            name: Fact::new(site.name.as_str().into(), file()),
            vars: interned.vars(&site.vars),
            node_vars: count(&nodes),
            nodes,
            groups,
            group_names,
            externals,
            external_names,
            templates: OnceLock::new(),
        }
    }

    fn templates(&self) -> &[(Arc<str>, Arc<str>)] {
        self.templates.get_or_init(|| {
            let facts = self.nodes.iter().flat_map(|node| &node.vars).chain(&self.vars);
            // A var of a group is one fact, however many nodes have it.
            let mut seen = HashSet::new();
            let new = facts.filter(|(_, fact)| seen.insert(Arc::as_ptr(fact)));
            new.flat_map(|(name, fact)| fact.templates().into_iter().map(|text| (name.clone(), text))).collect()
        })
    }
}

fn count(nodes: &[NodeFacts]) -> HashMap<Arc<str>, usize> {
    let mut counts = HashMap::new();
    for name in nodes.iter().flat_map(|node| node.vars.keys()) {
        match counts.get_mut(name) {
            Some(count) => *count += 1,
            None => _ = counts.insert(name.clone(), 1),
        }
    }
    counts
}

fn of_external(external: &External) -> Arc<Fact> {
    let vars: BTreeMap<String, Value> =
        external.vars.iter().map(|(name, var)| (name.clone(), Value::from(Serde(&var.value)))).collect();
    let mut value = BTreeMap::from([("vars", Value::from(vars))]);
    if let Some(address) = &external.address {
        value.insert("address", address.as_str().into());
    }
    Fact::new(value.into(), external.at.clone())
}

impl NodeFacts {
    /// The node as `groups.<name>` lists it.
    fn as_value(&self) -> Value {
        let mut value = BTreeMap::from([
            ("name", self.name.value.clone()),
            ("labels", self.labels.value.clone()),
            ("groups", self.groups.value.clone()),
        ]);
        if let Some(address) = &self.address {
            value.insert("address", address.value.clone());
        }
        value.into()
    }
}

/// One copy of each name, and of each var of a group that many nodes have. Within one commit, vars with the same place are the same.
#[derive(Default)]
struct Interned {
    names: HashMap<String, Arc<str>>,
    facts: HashMap<Location, Arc<Fact>>,
}

impl Interned {
    fn vars(&mut self, vars: &Vars) -> Facts {
        let mut facts = Facts::new();
        for (name, var) in vars {
            let name = match self.names.get(name) {
                Some(name) => name.clone(),
                None => self.names.entry(name.clone()).or_insert_with(|| name.as_str().into()).clone(),
            };
            let fact = match self.facts.get(&var.at) {
                Some(fact) => fact.clone(),
                None => {
                    let fact = Fact::new(Value::from(Serde(&var.value)), var.at.clone());
                    self.facts.entry(var.at.clone()).or_insert(fact).clone()
                }
            };
            facts.insert(name, fact);
        }
        facts
    }

    fn node(&mut self, id: &str, node: &Node) -> NodeFacts {
        let fact = |value| Fact::new(value, node.at.clone());
        let labels: BTreeMap<&str, &str> = node.labels.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
        NodeFacts {
            name: fact(id.into()),
            address: node.address.as_deref().map(|address| fact(address.into())),
            labels: fact(Value::from(Serde(labels))),
            groups: fact(node.groups.iter().map(|g| Value::from(g.as_str())).collect()),
            vars: self.vars(&node.vars),
        }
    }
}
