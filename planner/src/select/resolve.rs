//! Resolves an expression against one site: the nodes that it matches, or an error with the names that the site has.

use std::collections::{BTreeMap, BTreeSet};

use groundplan_inventory::{Inventory, hint};
use groundplan_protocol::ids::{GroupId, NodeId, ServiceId};
use groundplan_services::Catalog;
use wildmatch::WildMatch;

use super::expr::{Expr, Term};

/// A selector that does not match any node, or names something that the site does not have.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SelectError {
    /// A name of neither a node nor a group.
    #[error("the site has no node or group `{name}`")]
    Unknown {
        /// The name in the selector.
        name: String,
        /// A similar name, or the names that exist.
        hint: String,
    },
    /// `node:…` with an unknown name.
    #[error("the site has no node `{name}`")]
    NoNode {
        /// The name in the selector.
        name: String,
        /// A similar name, or the names that exist.
        hint: String,
    },
    /// `group:…` with an unknown name.
    #[error("the site has no group `{name}`")]
    NoGroup {
        /// The name in the selector.
        name: String,
        /// A similar name, or the names that exist.
        hint: String,
    },
    /// `service:…` with an unknown name.
    #[error("the site has no service `{name}`")]
    NoService {
        /// The name in the selector.
        name: String,
        /// A similar name, or the names that exist.
        hint: String,
    },
    /// A name of both a node and a group.
    #[error("`{name}` is both a node and a group")]
    Ambiguous {
        /// The name in the selector.
        name: String,
    },
    /// A label that no node has.
    #[error("no node has a label `{key}`")]
    NoLabel {
        /// The key of the label.
        key: String,
        /// A similar name, or the names that exist.
        hint: String,
    },
    /// A label with another value on every node.
    #[error("no node has the label `{key}={value}`")]
    NoValue {
        /// The key of the label.
        key: String,
        /// The value in the selector.
        value: String,
        /// A similar name, or the names that exist.
        hint: String,
    },
    /// A pattern without a match.
    #[error("no node's name matches `{pattern}`")]
    NoMatch {
        /// The pattern in the selector.
        pattern: String,
        /// A similar name, or the names that exist.
        hint: String,
    },
    /// Every part exists, but together they match no node.
    #[error("the selector `{selector}` matches no node")]
    Empty {
        /// The text of the selector.
        selector: String,
        /// How many nodes each part matches.
        hint: String,
    },
}

impl SelectError {
    /// The next step, or the names to choose from.
    pub fn hint(&self) -> String {
        match self {
            Self::Unknown { hint, .. }
            | Self::NoNode { hint, .. }
            | Self::NoGroup { hint, .. }
            | Self::NoService { hint, .. }
            | Self::NoLabel { hint, .. }
            | Self::NoValue { hint, .. }
            | Self::NoMatch { hint, .. }
            | Self::Empty { hint, .. } => hint.clone(),
            Self::Ambiguous { name } => format!("write `node:{name}` or `group:{name}`"),
        }
    }
}

/// Everything that a selector can name.
pub(super) struct Names<'a> {
    pub(super) inventory: &'a Inventory,
    pub(super) catalog: &'a Catalog,
}

impl Names<'_> {
    /// The nodes that an expression matches; may be empty.
    pub(super) fn expr(&self, expr: &Expr) -> Result<BTreeSet<NodeId>, SelectError> {
        match expr {
            Expr::Term(term) => self.term(term),
            Expr::Not(inner) => {
                let without = self.expr(inner)?;
                Ok(self.inventory.nodes.keys().filter(|node| !without.contains(*node)).cloned().collect())
            }
            // All parts are resolved, even if the result is certain earlier: an unknown name in any of them must be reported.
            Expr::Or(parts) => parts.iter().try_fold(BTreeSet::new(), |mut nodes, part| {
                nodes.append(&mut self.expr(part)?);
                Ok(nodes)
            }),
            Expr::And(parts) => {
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
            Term::Pattern(pattern) => {
                let matcher = WildMatch::new(pattern);
                let nodes = self.inventory.nodes.keys().filter(|node| matcher.matches(node.as_str())).cloned();
                non_empty(nodes.collect()).ok_or_else(|| SelectError::NoMatch {
                    pattern: pattern.clone(),
                    hint: self.known("nodes", self.nodes()),
                })
            }
            Term::Label { key, value } => self.label(key, value),
            Term::Service(name) => self.service(name),
        }
    }

    fn label(&self, key: &str, value: &str) -> Result<BTreeSet<NodeId>, SelectError> {
        let matcher = WildMatch::new(value);
        let has = |labels: &BTreeMap<String, String>| labels.get(key).is_some_and(|v| v == value || matcher.matches(v));
        let nodes = self.inventory.nodes.iter().filter(|(_, node)| has(&node.labels)).map(|(id, _)| id.clone());
        non_empty(nodes.collect()).ok_or_else(|| {
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

    /// How many nodes each part matches, as the hint for an empty result.
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

/// Collects the terms of an expression, each once, in the order of the text.
fn collect<'a>(expr: &'a Expr, terms: &mut Vec<&'a Term>) {
    match expr {
        Expr::Or(parts) | Expr::And(parts) => parts.iter().for_each(|part| collect(part, terms)),
        Expr::Not(inner) => collect(inner, terms),
        Expr::Term(term) if terms.contains(&term) => {}
        Expr::Term(term) => terms.push(term),
    }
}

/// The set, or `None` if it is empty.
fn non_empty(nodes: BTreeSet<NodeId>) -> Option<BTreeSet<NodeId>> {
    (!nodes.is_empty()).then_some(nodes)
}
