//! A tree of files → a whole site: read, parsed, its plugins asked, merged and resolved.
//!
//! In: a [`SourceTree`] and what was parsed before. Out: the validated site with its desired state, or every fault of every
//! stage, in the order of their places. Decides what becomes of files that are not there as files, and nothing of what stands
//! in them; reads through the tree only, so a commit, a folder and a test's map are all the same to it.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
    thread,
};

use groundplan_core::{
    DesiredState, Knowledge, SourceTree,
    resolve::{self, resolve},
    source::{Entry, EntryKind},
};
use groundplan_inventory::{Diagnostic, Inventory, Location, Site, diagnostic::first_faults};
use groundplan_services::{Catalog, Model, ParsedFile, Plugins, tree};

use crate::plugins;

/// The file that makes a tree a site.
const SITE: &str = "site.toml";

/// A site, whole and without fault.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// The settings of `site.toml`.
    pub site: Site,
    /// Its nodes and groups.
    pub inventory: Inventory,
    /// The services, by id.
    pub catalog: Catalog,
    /// The kinds of task that its own programs add.
    pub plugins: Plugins,
    /// All instances that it asks for.
    pub desired: Arc<DesiredState>,
}

/// What was parsed before: a commit that changes one file parses one file. Holds what the last load used.
#[derive(Debug, Default)]
pub struct Cache {
    /// By path; a file of another version is parsed again.
    parsed: HashMap<Arc<str>, (Arc<str>, ParsedFile)>,
    plugins: plugins::Cache,
    resolved: resolve::Cache,
}

/// The stack for loading a site, in bytes. Address space only, until it is used: what templates and files may nest is limited so that this
/// is enough.
const STACK: usize = 256 << 20;

/// Loads the site of `tree` with what is known of its nodes. On a thread of its own, for its stack.
///
/// # Errors
/// Every fault found, sorted by place. A tree without `site.toml` has exactly one.
pub fn load(tree: &dyn SourceTree, knowledge: &Knowledge, cache: &mut Cache) -> Result<Loaded, Vec<Diagnostic>> {
    thread::scope(|scope| {
        let loader = thread::Builder::new().name("load".to_owned()).stack_size(STACK);
        let loading = loader.spawn_scoped(scope, || load_here(tree, knowledge, &mut *cache));
        match loading.map(thread::ScopedJoinHandle::join) {
            Ok(Ok(loaded)) => loaded,
            Ok(Err(panic)) => std::panic::resume_unwind(panic),
            Err(error) => {
                Err(vec![Diagnostic::new(Location::file(SITE), format!("there is no thread to load it: {error}"))])
            }
        }
    })
}

fn load_here(tree: &dyn SourceTree, knowledge: &Knowledge, cache: &mut Cache) -> Result<Loaded, Vec<Diagnostic>> {
    if tree.entry(SITE).is_none() {
        return Err(vec![no_site(tree)]);
    }
    let mut faults: Vec<Diagnostic> = tree.entries().iter().filter_map(not_a_file).collect();
    // What these paths, or files below them, would declare is not known.
    let mut unread: BTreeSet<Arc<str>> = faults.iter().map(|fault| fault.at.file.clone()).collect();
    let mut parsed = HashMap::new();
    for entry in tree.entries().iter().filter(|e| e.kind == EntryKind::File && tree::wants(&e.path)) {
        let known = cache.parsed.remove(&entry.path).filter(|(version, _)| *version == entry.version);
        let file = match known {
            Some((_, file)) => file,
            None => match tree.read(&entry.path) {
                Ok(bytes) => tree::parse(&entry.path, &bytes),
                Err(e) => {
                    unread.insert(entry.path.clone());
                    faults.push(Diagnostic::new(
                        Location::file(entry.path.clone()),
                        format!("cannot be read: {}", e.cause),
                    ));
                    continue;
                }
            },
        };
        parsed.insert(entry.path.clone(), (entry.version.clone(), file));
    }
    cache.parsed = parsed;
    let plugins = plugins::describe(tree, &mut cache.plugins, &mut faults);
    let files = tree.entries().iter().filter_map(|e| cache.parsed.get(&e.path)).map(|(_, file)| file);
    let (model, found) = tree::merge(files, tree.entries().iter().map(|e| &*e.path), &plugins);
    faults.extend(found);
    unread.extend(model.unread.iter().cloned());
    let mut desired = None;
    if let Some(site) = &model.site {
        let Model { inventory, catalog, .. } = &model;
        let (resolved, found) = resolve(site, inventory, catalog, &plugins, tree, knowledge, &mut cache.resolved);
        faults.extend(found);
        desired = resolved;
    }
    first_faults(&mut faults, &unread);
    faults.sort();
    faults.dedup();
    match (model.site, desired) {
        (Some(site), Some(desired)) if faults.is_empty() => {
            let Model { inventory, catalog, .. } = model;
            Ok(Loaded { site, inventory, catalog, plugins, desired: Arc::new(desired) })
        }
        _ => Err(faults),
    }
}

fn no_site(tree: &dyn SourceTree) -> Diagnostic {
    let what = if tree.entries().is_empty() { "there is nothing here" } else { "there is no `site.toml`" };
    Diagnostic::new(Location::file(SITE), format!("this is not a groundplan site: {what}"))
        .hint("`groundplan init` lays out a site; name its top folder if it is elsewhere")
}

/// A link or submodule where a site's files are looked for: reported, because what lies behind it is not read.
fn not_a_file(entry: &Entry) -> Option<Diagnostic> {
    let path = &*entry.path;
    let below = |folder: &str| path.strip_prefix(folder).is_some_and(|rest| !rest.contains('/'));
    let needed = tree::wants(path)
        || matches!(path, "inventory" | "plugins" | "services")
        || (path.starts_with("inventory/") && entry.kind == EntryKind::Submodule)
        || below("services/")
        || below("plugins/");
    let (what, hint) = match entry.kind {
        EntryKind::File => return None,
        EntryKind::Symlink => {
            ("a symbolic link, which is never followed", "commit the file or folder itself in its place")
        }
        EntryKind::Submodule => ("a submodule, whose files are not in this repository", "commit its files themselves"),
    };
    needed.then(|| Diagnostic::new(Location::file(entry.path.clone()), format!("`{path}` is {what}")).hint(hint))
}

#[cfg(test)]
mod tests {
    use groundplan_core::source::ReadError;

    use super::*;

    struct Files(Vec<Entry>);

    impl SourceTree for Files {
        fn entries(&self) -> &[Entry] {
            &self.0
        }

        fn read(&self, path: &str) -> Result<Arc<[u8]>, ReadError> {
            Err(ReadError { path: path.to_owned(), cause: "the disk is gone".to_owned() })
        }
    }

    fn faults(entries: &[(&str, EntryKind)]) -> Vec<String> {
        let entries = entries.iter().map(|(path, kind)| Entry {
            path: (*path).into(),
            kind: *kind,
            version: "1".into(),
            executable: false,
        });
        let found = load(&Files(entries.collect()), &Knowledge::default(), &mut Cache::default()).expect_err("faults");
        found.into_iter().map(|d| format!("{}: {}", d.at.file, d.message)).collect()
    }

    #[test]
    fn what_is_no_site_gets_one_clear_word() {
        assert_eq!(faults(&[]), ["site.toml: this is not a groundplan site: there is nothing here"]);
        let other = [("README.md", EntryKind::File)];
        assert_eq!(faults(&other), ["site.toml: this is not a groundplan site: there is no `site.toml`"]);
    }

    #[test]
    fn links_submodules_and_unreadable_files_are_told_where_they_matter() {
        let found = faults(&[
            ("docs", EntryKind::Symlink),
            ("inventory", EntryKind::Submodule),
            ("services/a", EntryKind::Symlink),
            ("services/b/extra", EntryKind::Symlink),
            ("site.toml", EntryKind::File),
        ]);
        for words in [
            "inventory: `inventory` is a submodule, whose files are not in this repository",
            "services/a: `services/a` is a symbolic link, which is never followed",
            "site.toml: cannot be read: the disk is gone",
        ] {
            assert!(found.iter().any(|t| t == words), "{words} is not in {found:#?}");
        }
        assert!(!found.iter().any(|t| t.starts_with("docs") || t.contains("extra")), "{found:#?}");
    }
}
