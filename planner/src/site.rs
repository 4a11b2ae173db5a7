//! A tree of files → a whole site: read, parsed, merged and resolved.
//!
//! In: a [`SourceTree`] and what was parsed before. Out: the validated site with its desired state, or every fault of every
//! stage that could still run, in the order of their places. Knows which files make up a site and nothing of what stands in
//! them; reads through the tree only, so a commit, a folder and a test's map are all the same to it.

use groundplan_core::{DesiredState, SourceTree};
use groundplan_inventory::{Diagnostic, Inventory, Location, Site};
use groundplan_services::Catalog;

/// A site, whole and without fault.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// `site.toml`.
    pub site: Site,
    /// Its nodes and groups.
    pub inventory: Inventory,
    /// Its services.
    pub catalog: Catalog,
    /// All instances that it asks for.
    pub desired: DesiredState,
}

/// What was parsed before, by path and version of content: a commit of one file parses one file. Holds what the last load used.
#[derive(Debug, Default)]
pub struct Cache {}

/// Loads the site of `tree`.
///
/// # Errors
/// Every fault found, sorted by place. A tree without `site.toml` has exactly one.
pub fn load(tree: &dyn SourceTree, _cache: &mut Cache) -> Result<Loaded, Vec<Diagnostic>> {
    let missing = tree.entry("site.toml").is_none();
    let word = if missing { "this is no groundplan site: there is no `site.toml`" } else { "cannot be loaded yet" };
    Err(vec![Diagnostic::new(Location::file("site.toml"), word)])
}
