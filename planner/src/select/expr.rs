//! A selector as a tree, before it is resolved against a site.

use std::fmt;

/// A boolean expression over terms.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Expr {
    /// `a,b`: two parts at least.
    Or(Vec<Expr>),
    /// `a&b`: two parts at least.
    And(Vec<Expr>),
    Not(Box<Expr>),
    Term(Term),
}

/// A part without operators.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Term {
    All,
    /// A name without prefix: of a node or a group, not of both.
    Name(String),
    Node(String),
    Group(String),
    /// A wildcard pattern for names of nodes.
    Pattern(String),
    Label {
        key: String,
        /// A value, or a wildcard pattern.
        value: String,
    },
    Service(String),
}

impl fmt::Display for Term {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => f.write_str("all"),
            Self::Name(name) | Self::Pattern(name) => f.write_str(name),
            Self::Node(name) => write!(f, "node:{name}"),
            Self::Group(name) => write!(f, "group:{name}"),
            Self::Label { key, value } => write!(f, "{key}={value}"),
            Self::Service(name) => write!(f, "service:{name}"),
        }
    }
}
