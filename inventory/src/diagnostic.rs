//! Diagnostics: faults in site files, each with its place. And places, which values keep so that later stages can refer to them.
//!
//! Here a place is a file and a range of bytes. Lines and columns are computed when a diagnostic is shown, from the file's text.

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

    /// The byte range in the file; empty at 0 for the file as a whole.
    pub fn span(&self) -> Range<usize> {
        self.start..self.end
    }
}

/// A value with its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Located<T> {
    /// The value as it was decoded.
    pub value: T,
    /// The place of its text in the site's files.
    pub at: Location,
}

impl<T> Located<T> {
    /// Joins a value and the place that it was read from.
    pub fn new(value: T, at: Location) -> Self {
        Self { value, at }
    }
}

/// A fault in the site's files. Ordered by place, so that a report reads from top to bottom.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Diagnostic {
    /// The place that the report shows.
    pub at: Location,
    /// What is wrong, in one line, without its place.
    pub message: String,
    /// A short text beside the place; empty if the message suffices.
    pub label: String,
    /// Further places that belong to it, each with a short text: the other owner of a path, the edges of a cycle.
    pub related: Vec<(Location, String)>,
    /// What the user can do about it, in one line; none where the message suffices.
    pub hint: Option<String>,
}

impl Diagnostic {
    /// A fault at a place.
    pub fn new(at: Location, message: impl Into<String>) -> Self {
        Self { at, message: message.into(), label: String::new(), related: Vec::new(), hint: None }
    }

    /// Sets the text beside the place.
    #[must_use]
    pub fn label(mut self, label: impl Into<String>) -> Self {
        self.label = label.into();
        self
    }

    /// Sets what to do.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Adds a place that belongs to it, with a short text.
    #[must_use]
    pub fn related(mut self, at: Location, text: impl Into<String>) -> Self {
        self.related.push((at, text.into()));
        self
    }
}
