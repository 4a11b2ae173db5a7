//! A selector as a tree, before it is resolved against a site.

use std::fmt;

/// A selector, taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Expr {
    Either(Vec<Expr>),
    Both(Vec<Expr>),
    Not(Box<Expr>),
    Term(Term),
}

/// What names nodes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Term {
    All,
    /// A node or a group.
    Name(String),
    Node(String),
    Group(String),
    /// A pattern for nodes' names.
    Like(String),
    Label {
        key: String,
        /// May be a pattern.
        value: String,
    },
    Service(String),
}

impl fmt::Display for Term {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => f.write_str("all"),
            Self::Name(name) | Self::Like(name) => f.write_str(name),
            Self::Node(name) => write!(f, "node:{name}"),
            Self::Group(name) => write!(f, "group:{name}"),
            Self::Label { key, value } => write!(f, "{key}={value}"),
            Self::Service(name) => write!(f, "service:{name}"),
        }
    }
}
