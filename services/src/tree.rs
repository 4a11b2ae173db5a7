//! All site files of a tree: which they are, what each says, and what they say together.
//!
//! In: paths and bytes. Out: a [`Model`] and every fault. [`parse`] reads one file and knows no other, so that its result can be
//! kept for as long as path and content stay the same; [`merge`] is cheap and is done for each commit.

use std::sync::Arc;

use groundplan_inventory::{Diagnostic, Inventory, Site};

use crate::model::Catalog;

/// What one file says, with its faults; cheap to clone.
#[derive(Debug, Clone)]
pub struct ParsedFile(Arc<str>);

/// What the files say together. Beside faults it is what could be read, so that later checks can add theirs.
#[derive(Debug, Clone, Default)]
pub struct Model {
    /// The site; `None` if `site.toml` is missing or without a valid name.
    pub site: Option<Site>,
    /// Nodes and groups.
    pub inventory: Inventory,
    /// Services.
    pub catalog: Catalog,
}

/// Whether the file of this path is one that [`parse`] reads.
pub fn wants(path: &str) -> bool {
    path == "site.toml"
}

/// Reads one file, of a path that [`wants`] wants.
pub fn parse(path: &Arc<str>, _bytes: &[u8]) -> ParsedFile {
    ParsedFile(path.clone())
}

/// Puts the files of a tree together, in whatever order they come. `paths` are those of all the files of the tree, also those that
/// [`parse`] does not read. Without diagnostics, the model is complete and valid in itself; references and templates
/// are checked later.
pub fn merge<'a>(
    _files: impl IntoIterator<Item = &'a ParsedFile>,
    _paths: impl IntoIterator<Item = &'a str>,
) -> (Model, Vec<Diagnostic>) {
    (Model::default(), Vec::new())
}
