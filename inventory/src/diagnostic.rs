//! Diagnostics: faults in site files, each with its place. And places, which values keep so that later stages can refer to them.
//!
//! Here a place is a file and a range of bytes. Lines and columns are computed when a diagnostic is shown, from the file's text.

use std::{collections::BTreeSet, ops::Range, sync::Arc};

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

/// Whether a diagnostic refuses the site.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum Severity {
    /// The site is refused as a whole.
    #[default]
    Error,
    /// The site is accepted; something in it is probably not as it was meant.
    Warning,
}

/// Files of a site in which a name may be declared.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DeclaredIn {
    /// `site.toml`.
    Site,
    /// Any file below `inventory/`.
    Inventory,
    /// The `service.toml` of any service.
    Services,
    /// The file of this path.
    File(Arc<str>),
}

impl DeclaredIn {
    /// Whether the file of this path is one of them, or the folder of this path contains one.
    pub fn contains(&self, path: &str) -> bool {
        match self {
            Self::Site => path == "site.toml",
            Self::Inventory => path == "inventory" || path.starts_with("inventory/"),
            Self::Services => path == "services" || path.starts_with("services/"),
            Self::File(file) => file.strip_prefix(path).is_some_and(|below| below.is_empty() || below.starts_with('/')),
        }
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
    /// Whether it refuses the site.
    pub severity: Severity,
    /// Where the name that it reports as missing may be declared; empty for all other faults. See [`first_faults`].
    pub missing_from: Vec<DeclaredIn>,
}

impl Diagnostic {
    /// A fault at a place.
    pub fn new(at: Location, message: impl Into<String>) -> Self {
        Self {
            at,
            message: message.into(),
            label: String::new(),
            related: Vec::new(),
            hint: None,
            severity: Severity::Error,
            missing_from: Vec::new(),
        }
    }

    /// Something that is accepted and probably not as it was meant.
    pub fn warning(at: Location, message: impl Into<String>) -> Self {
        Self { severity: Severity::Warning, ..Self::new(at, message) }
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

    /// Says that a name is missing, and where it may be declared.
    #[must_use]
    pub fn missing_from(mut self, files: impl IntoIterator<Item = DeclaredIn>) -> Self {
        self.missing_from.extend(files);
        self
    }
}

/// Leaves out the faults that may only follow from others: a name is missing, and one of the files that may declare it is among `unread`,
/// the paths of those that could not be read whole. Each of these has a fault of its own.
pub fn first_faults(faults: &mut Vec<Diagnostic>, unread: &BTreeSet<Arc<str>>) {
    let follows =
        |fault: &&Diagnostic| fault.missing_from.iter().any(|files| unread.iter().any(|path| files.contains(path)));
    let first: Vec<_> = faults.iter().filter(|fault| !follows(fault)).cloned().collect();
    // A site is never refused without a fault.
    if !first.is_empty() {
        *faults = first;
    }
}
