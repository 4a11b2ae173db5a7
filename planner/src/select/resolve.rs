//! A tree of terms against one site: the nodes that it matches, or an error with what the site has.

use std::collections::{BTreeMap, BTreeSet};

use groundplan_inventory::{Inventory, hint};
use groundplan_protocol::ids::{GroupId, NodeId, ServiceId};
use groundplan_services::Catalog;
use wildmatch::WildMatch;

use super::expr::{Expr, Term};

/// Why a selector gives no nodes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SelectError {
    /// A name that is neither.
    #[error("the site has no node or group `{name}`")]
    Unknown {
        /// The name.
        name: String,
        /// What there is.
        hint: String,
    },
    /// `node:…`.
    #[error("the site has no node `{name}`")]
    NoNode {
        /// The name.
        name: String,
        /// What there is.
        hint: String,
    },
    /// `group:…`.
    #[error("the site has no group `{name}`")]
    NoGroup {
        /// The name.
        name: String,
        /// What there is.
        hint: String,
    },
    /// `service:…`.
    #[error("the site has no service `{name}`")]
    NoService {
        /// The name.
        name: String,
        /// What there is.
        hint: String,
    },
    /// A name that is both.
    #[error("`{name}` is both a node and a group")]
    Ambiguous {
        /// The name.
        name: String,
    },
    /// A label that no node has.
    #[error("no node has a label `{key}`")]
    NoLabel {
        /// Its key.
        key: String,
        /// What there is.
        hint: String,
    },
    /// A label's value that no node has.
    #[error("no node has the label `{key}={value}`")]
    NoValue {
        /// Its key.
        key: String,
        /// Its value.
        value: String,
        /// What there is.
        hint: String,
    },
    /// A pattern that fits no name.
    #[error("no node's name is like `{pattern}`")]
    NoneLike {
        /// The pattern.
        pattern: String,
        /// What there is.
        hint: String,
    },
    /// All parts mean something; together they mean no node.
    #[error("the selector `{selector}` matches no node")]
    Empty {
        /// The selector.
        selector: String,
        /// What its parts match, or what there is.
        hint: String,
    },
}

impl SelectError {
    /// What to do about it.
    pub fn hint(&self) -> String {
        match self {
            Self::Unknown { hint, .. }
            | Self::NoNode { hint, .. }
            | Self::NoGroup { hint, .. }
            | Self::NoService { hint, .. }
            | Self::NoLabel { hint, .. }
            | Self::NoValue { hint, .. }
            | Self::NoneLike { hint, .. }
            | Self::Empty { hint, .. } => hint.clone(),
            Self::Ambiguous { name } => format!("write `node:{name}` or `group:{name}`"),
        }
    }
}

/// What can be named.
pub(super) struct Names<'a> {
    pub(super) inventory: &'a Inventory,
    pub(super) catalog: &'a Catalog,
}

impl Names<'_> {
    pub(super) fn expr(&self, expr: &Expr) -> Result<BTreeSet<NodeId>, SelectError> {
        match expr {
            Expr::Term(term) => self.term(term),
            Expr::Not(inner) => {
                let without = self.expr(inner)?;
                Ok(self.inventory.nodes.keys().filter(|node| !without.contains(*node)).cloned().collect())
            }
            // Every part is looked at, so that a mistake in any of them is told.
            Expr::Either(parts) => parts.iter().try_fold(BTreeSet::new(), |mut nodes, part| {
                nodes.append(&mut self.expr(part)?);
                Ok(nodes)
            }),
            Expr::Both(parts) => {
                let sets: Vec<BTreeSet<NodeId>> = parts.iter().map(|part| self.expr(part)).collect::<Result<_, _>>()?;
                Ok(sets.into_iter().reduce(|a, b| &a & &b).unwrap_or_default())
            }
        }
    }

    fn term(&self, term: &Term) -> Result<BTreeSet<NodeId>, SelectError> {
        match term {
            Term::All => Ok(self.inventory.nodes.keys().cloned().collect()),
            Term::Name(name) => match (self.node(name), self.group(name)) {
                (Some(_), Some(_)) => Err(SelectError::Ambiguous { name: name.clone() }),
                (Some(nodes), None) | (None, Some(nodes)) => Ok(nodes),
                (None, None) => {
                    let hint = self.choose(name, self.nodes().chain(self.groups()));
                    Err(SelectError::Unknown { name: name.clone(), hint })
                }
            },
            Term::Node(name) => self
                .node(name)
                .ok_or_else(|| SelectError::NoNode { name: name.clone(), hint: self.choose(name, self.nodes()) }),
            Term::Group(name) => self
                .group(name)
                .ok_or_else(|| SelectError::NoGroup { name: name.clone(), hint: self.choose(name, self.groups()) }),
            Term::Like(pattern) => {
                let like = WildMatch::new(pattern);
                let nodes = self.inventory.nodes.keys().filter(|node| like.matches(node.as_str())).cloned();
                some(nodes.collect()).ok_or_else(|| SelectError::NoneLike {
                    pattern: pattern.clone(),
                    hint: self.known("nodes", self.nodes()),
                })
            }
            Term::Label { key, value } => self.label(key, value),
            Term::Service(name) => self.service(name),
        }
    }

    fn label(&self, key: &str, value: &str) -> Result<BTreeSet<NodeId>, SelectError> {
        let like = WildMatch::new(value);
        let has = |labels: &BTreeMap<String, String>| labels.get(key).is_some_and(|v| v == value || like.matches(v));
        let nodes = self.inventory.nodes.iter().filter(|(_, node)| has(&node.labels)).map(|(id, _)| id.clone());
        some(nodes.collect()).ok_or_else(|| {
            let labels = || self.inventory.nodes.values().flat_map(|node| &node.labels);
            let values: BTreeSet<&str> = labels().filter(|(k, _)| *k == key).map(|(_, v)| v.as_str()).collect();
            if values.is_empty() {
                let keys: BTreeSet<&str> = labels().map(|(k, _)| k.as_str()).collect();
                return SelectError::NoLabel { key: key.to_owned(), hint: self.choose(key, keys.into_iter()) };
            }
            let hint = self.choose(value, values.into_iter());
            SelectError::NoValue { key: key.to_owned(), value: value.to_owned(), hint }
        })
    }

    fn service(&self, name: &str) -> Result<BTreeSet<NodeId>, SelectError> {
        let Some(id) = ServiceId::new(name).ok().filter(|id| self.catalog.services.contains_key(id)) else {
            let services = self.catalog.services.keys().map(ServiceId::as_str);
            return Err(SelectError::NoService { name: name.to_owned(), hint: self.choose(name, services) });
        };
        let groups = self.inventory.groups.values().filter(|group| group.services.iter().any(|s| s.value == id));
        Ok(groups.flat_map(|group| group.nodes.iter().cloned()).collect())
    }

    fn node(&self, name: &str) -> Option<BTreeSet<NodeId>> {
        let id = NodeId::new(name).ok()?;
        self.inventory.nodes.contains_key(&id).then(|| BTreeSet::from([id]))
    }

    fn group(&self, name: &str) -> Option<BTreeSet<NodeId>> {
        Some(self.inventory.groups.get(&GroupId::new(name).ok()?)?.nodes.clone())
    }

    fn nodes(&self) -> impl Iterator<Item = &str> {
        self.inventory.nodes.keys().map(NodeId::as_str)
    }

    fn groups(&self) -> impl Iterator<Item = &str> {
        self.inventory.groups.keys().map(GroupId::as_str)
    }

    fn choose<'a>(&self, name: &str, names: impl Iterator<Item = &'a str>) -> String {
        hint::choose(name, &names.collect::<Vec<_>>())
    }

    fn known<'a>(&self, what: &str, names: impl Iterator<Item = &'a str>) -> String {
        match names.collect::<Vec<_>>() {
            names if names.is_empty() => format!("the site has no {what}"),
            names => format!("the site's {what} are {}", hint::list(&names)),
        }
    }

    /// How many nodes each part means, for one that leaves none.
    pub(super) fn parts(&self, expr: &Expr) -> String {
        if self.inventory.nodes.is_empty() {
            return "the site declares no nodes yet: add one in `inventory/`".to_owned();
        }
        let mut terms = Vec::new();
        collect(expr, &mut terms);
        let counted = terms.into_iter().filter_map(|term| {
            let nodes = self.term(term).ok()?.len();
            Some(match nodes {
                0 => format!("`{term}` matches none"),
                1 => format!("`{term}` matches 1 node"),
                n => format!("`{term}` matches {n} nodes"),
            })
        });
        let counted: Vec<String> = counted.collect();
        format!("{}; {}", counted.join(", "), self.known("groups", self.groups()))
    }
}

fn collect<'a>(expr: &'a Expr, terms: &mut Vec<&'a Term>) {
    match expr {
        Expr::Either(parts) | Expr::Both(parts) => parts.iter().for_each(|part| collect(part, terms)),
        Expr::Not(inner) => collect(inner, terms),
        Expr::Term(term) if terms.contains(&term) => {}
        Expr::Term(term) => terms.push(term),
    }
}

/// A set, if anything is in it.
fn some(nodes: BTreeSet<NodeId>) -> Option<BTreeSet<NodeId>> {
    (!nodes.is_empty()).then_some(nodes)
}
