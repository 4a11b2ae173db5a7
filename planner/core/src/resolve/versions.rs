//! Digests of the paths and versions of a tree's files: one for what all services share, one for each service with its plugins.
//!
//! Equal digests mean equal files, so that results computed from these files alone can be reused.

use std::collections::HashMap;

use groundplan_protocol::{
    digest::{Digest, Hasher},
    kinds::TaskParams,
};
use groundplan_services::{Service, plugin};

use crate::{desired::Elected, source::SourceTree};

/// Versions of a tree's parts.
pub(crate) struct Versions<'t> {
    /// Digest of `site.toml` and the inventory.
    pub(crate) global: Digest,
    folders: HashMap<&'t str, Digest>,
    tree: &'t dyn SourceTree,
}

impl<'t> Versions<'t> {
    /// Hashes every entry of a tree once.
    pub(crate) fn of(tree: &'t dyn SourceTree) -> Self {
        let mut global = Hasher::new();
        let mut folders: HashMap<&str, Hasher> = HashMap::new();
        for entry in tree.entries() {
            let hasher = match folder(&entry.path) {
                Some(folder) => folders.entry(folder).or_default(),
                None if &*entry.path == "site.toml" || entry.path.starts_with("inventory/") => &mut global,
                None => continue,
            };
            hasher.field(entry.path.as_bytes());
            hasher.field(entry.version.as_bytes());
            hasher.update(&[entry.kind as u8]);
        }
        let folders = folders.into_iter().map(|(folder, hasher)| (folder, hasher.finish())).collect();
        Self { global: global.finish(), folders, tree }
    }

    /// Digest of all files that may matter to a service, and of where its tasks with `once` are to run.
    pub(crate) fn whole(&self, service: &Service, elected: &[Elected]) -> Digest {
        let mut hasher = Hasher::new();
        for Elected { node, after } in elected {
            hasher.update(&node.0.to_le_bytes());
            hasher.update(&after.map_or(u32::MAX, |after| after.0).to_le_bytes());
        }
        hasher.update(self.global.as_bytes());
        if let Some(own) = self.folders.get(&*service.folder) {
            hasher.update(own.as_bytes());
        }
        for task in &service.tasks {
            let TaskParams::Plugin(used) = &task.params else { continue };
            // The program, and what describes it.
            for end in ["", plugin::SCHEMA] {
                if let Some(file) = self.tree.entry(&format!("{}/{}{end}", plugin::FOLDER, used.name)) {
                    hasher.field(file.path.as_bytes());
                    hasher.field(file.version.as_bytes());
                }
            }
        }
        hasher.finish()
    }
}

/// The service's folder that a path lies in: `services/<name>`.
fn folder(path: &str) -> Option<&str> {
    let rest = path.strip_prefix("services/")?;
    Some(&path[..path.len() - rest.len() + rest.find('/')?])
}
