//! What values of templates are made of, and where they go.

use std::{collections::BTreeMap, sync::Arc};

/// Names of values that nodes report.
pub(crate) const REPORTED: [&str; 2] = ["facts", "exports"];

/// Where that goes which a template renders to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sink {
    /// A line that a shell runs.
    Shell,
    /// A file, or a parameter: reported values must not begin a new line.
    Line,
    /// An argument of a program or its environment, which may contain anything.
    Argument,
}

/// Where templates go, by name; those without an entry go into a [`Sink::Line`].
pub(crate) type Sinks = BTreeMap<String, Sink>;

/// What a value is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Origin {
    /// Of what the site says, or of a choice between that.
    Site,
    /// Also of reported values, each quoted for a shell.
    Quoted,
    /// A list of such.
    Items,
    /// Of reported values.
    Reported,
}

impl Origin {
    /// That of both put together.
    pub(super) fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::Site, other) => other,
            (own, Self::Site) => own,
            (own, other) if own == other => own,
            _ => Self::Reported,
        }
    }

    /// That of a part of it, or of what something else is made of it.
    pub(super) fn changed(self) -> Self {
        if self == Self::Site { Self::Site } else { Self::Reported }
    }
}

/// The vars that are made of reported values.
pub(crate) type Origins = BTreeMap<Arc<str>, Origin>;
