//! Faults in site files, each with its place; and places, which values keep so that later stages can point at them.
//!
//! Line numbers and the source line are worked out when a diagnostic is shown, from the file's text: here a place is a file
//! and a range of bytes.

use std::{ops::Range, sync::Arc};

/// A range of bytes in a file of the site.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Location {
    /// The file's path in the repository, with `/`.
    pub file: Arc<str>,
    /// Start of the range, in bytes.
    pub start: usize,
    /// End of the range, in bytes, exclusive.
    pub end: usize,
}

impl Location {
    /// A range in a file.
    pub fn new(file: Arc<str>, span: Range<usize>) -> Self {
        Self { file, start: span.start, end: span.end }
    }

    /// The file as a whole.
    pub fn file(file: impl Into<Arc<str>>) -> Self {
        Self { file: file.into(), start: 0, end: 0 }
    }

    /// The range.
    pub fn span(&self) -> Range<usize> {
        self.start..self.end
    }
}

/// A value with its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Located<T> {
    /// The value.
    pub value: T,
    /// Where it stands.
    pub at: Location,
}

impl<T> Located<T> {
    /// Joins the two.
    pub fn new(value: T, at: Location) -> Self {
        Self { value, at }
    }
}

/// A fault in the site's files. Ordered by place, so that a report reads from top to bottom.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Diagnostic {
    /// Where it is.
    pub at: Location,
    /// What is wrong, in one line, without its place.
    pub message: String,
    /// A few words beside the place itself; empty if the message says it all.
    pub label: String,
    /// Further places that belong to it, each with a few words: the other owner of a path, the edges of a cycle.
    pub related: Vec<(Location, String)>,
    /// What to do.
    pub hint: Option<String>,
}

impl Diagnostic {
    /// A fault at a place.
    pub fn new(at: Location, message: impl Into<String>) -> Self {
        Self { at, message: message.into(), label: String::new(), related: Vec::new(), hint: None }
    }

    /// With a few words beside the place.
    #[must_use]
    pub fn label(mut self, label: impl Into<String>) -> Self {
        self.label = label.into();
        self
    }

    /// With what to do.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// With another place that belongs to it.
    #[must_use]
    pub fn related(mut self, at: Location, words: impl Into<String>) -> Self {
        self.related.push((at, words.into()));
        self
    }
}
