//! Which file uses items of which other file, and where that goes in a circle.
//!
//! In: a crate's modules. Out: for each pair of files the items; and the shortest circle through each pair that lies on one. A path counts for
//! the file that defines the item, not for those that pass it on. A `pub use` alone passes on and uses nothing. Methods are not seen: they are
//! called without a path.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    fmt::Write,
    path::{Path, PathBuf},
};

use super::modules::{Crate, Id};

/// Longest chain of imports that is followed; past it the chain leads to itself.
const LONGEST_CHAIN: usize = 32;

/// What a path leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Target {
    Module(Id),
    Item {
        module: Id,
        name: String,
    },
    /// Another crate, or a local name.
    Foreign,
}

/// For each file, the files that it uses and the items it uses of them.
type Uses = BTreeMap<PathBuf, BTreeMap<PathBuf, BTreeSet<String>>>;

/// Every circle between the files of the crate with this root, as text: `a.rs → b.rs (its items) → a.rs (its items)`,
/// with paths below `base`.
pub(super) fn circles(root: &Path, base: &Path) -> BTreeSet<String> {
    let uses = uses(&Crate::read(root));
    let mut found = BTreeSet::new();
    for (from, targets) in &uses {
        for to in targets.keys() {
            if let Some(way) = shortest_way(&uses, to, from) {
                found.insert(describe(&uses, way, base));
            }
        }
    }
    found
}

/// The files from `from` to `to`, both included, if one leads to the other.
fn shortest_way<'u>(uses: &'u Uses, from: &'u PathBuf, to: &'u PathBuf) -> Option<Vec<&'u PathBuf>> {
    let mut before: BTreeMap<&PathBuf, &PathBuf> = BTreeMap::new();
    let mut open = VecDeque::from([from]);
    while let Some(file) = open.pop_front() {
        if file == to {
            let mut way = vec![to];
            while *way.last()? != from {
                way.push(before[way.last()?]);
            }
            way.reverse();
            return Some(way);
        }
        for next in uses.get(file).into_iter().flat_map(BTreeMap::keys) {
            if next != from && !before.contains_key(next) {
                before.insert(next, file);
                open.push_back(next);
            }
        }
    }
    None
}

/// The circle as text. It begins with its first file in the alphabet, so that one found from several of its files is one.
fn describe(uses: &Uses, mut circle: Vec<&PathBuf>, base: &Path) -> String {
    let first = (0..circle.len()).min_by_key(|place| circle[*place]).expect("a circle has files");
    circle.rotate_left(first);
    circle.push(circle[0]);
    let name = |file: &Path| file.strip_prefix(base).unwrap_or(file).display().to_string();
    let mut text = name(circle[0]);
    for pair in circle.windows(2) {
        let items: Vec<_> = uses[pair[0]][pair[1]].iter().map(String::as_str).collect();
        let _ = write!(text, " → {} ({})", name(pair[1]), items.join(", "));
    }
    text
}

fn uses(all: &Crate) -> Uses {
    let mut uses = Uses::new();
    for (id, module) in all.modules.iter().enumerate() {
        let mut add = |target: Target| {
            if let Target::Item { module: definer, name } = target {
                let definer = &all.modules[definer].file;
                if *definer != module.file {
                    uses.entry(module.file.clone()).or_default().entry(definer.clone()).or_default().insert(name);
                }
            }
        };
        for import in &module.imports {
            // What is passed on is used where its name stands elsewhere in the module.
            if import.name.as_ref().is_some_and(|name| !import.public || module.words.contains(name)) {
                add(all.resolve(id, &import.path, 0));
            }
        }
        for path in &module.paths {
            add(all.resolve(id, path, 0));
        }
        // Names that come with a `*`.
        for word in &module.words {
            if !all.is_bound(id, word) {
                add(all.resolve(id, std::slice::from_ref(word), 0));
            }
        }
    }
    uses
}

impl Crate {
    /// Whether the module itself defines or imports that name.
    fn is_bound(&self, id: Id, name: &str) -> bool {
        let module = &self.modules[id];
        let imported = module.imports.iter().any(|import| import.name.as_deref() == Some(name));
        imported || module.items.contains(name) || module.children.contains_key(name)
    }

    /// What a path in a module leads to.
    fn resolve(&self, id: Id, path: &[String], depth: usize) -> Target {
        let mut at = match path[0].as_str() {
            "crate" => Target::Module(0),
            "self" => Target::Module(id),
            "super" => Target::Module(self.modules[id].parent.unwrap_or(0)),
            name => self.lookup(id, name, path.len() > 1, depth).unwrap_or(Target::Foreign),
        };
        for (place, name) in path.iter().enumerate().skip(1) {
            // What follows an item is a variant or an associated item.
            let Target::Module(module) = at else { break };
            at = if name == "super" {
                Target::Module(self.modules[module].parent.unwrap_or(0))
            } else {
                let more = place + 1 < path.len();
                // What is found nowhere was defined by a macro of the module.
                let defined_by_macro = || Target::Item { module, name: name.clone() };
                self.lookup(module, name, more, depth).unwrap_or_else(defined_by_macro)
            };
        }
        at
    }

    /// What a name means in a module. A module and an item may have the same one: `more` is whether the path continues after it.
    fn lookup(&self, id: Id, name: &str, more: bool, depth: usize) -> Option<Target> {
        if depth > LONGEST_CHAIN {
            return None;
        }
        let module = &self.modules[id];
        let child = module.children.get(name).map(|child| Target::Module(*child));
        let item = module.items.contains(name).then(|| Target::Item { module: id, name: name.to_owned() });
        let imports = module.imports.iter().filter(|import| import.name.as_deref() == Some(name));
        // An import of another crate's item may have the crate's name, and then leads to itself.
        let imports = imports.filter(|import| import.path[0] != name || import.path.len() > 1);
        let imported: Vec<_> = imports.map(|import| self.resolve(id, &import.path, depth + 1)).collect();
        let is_module = |target: &Target| matches!(target, Target::Module(_));
        let mut found: Vec<_> = child.into_iter().chain(item).chain(imported).collect();
        if found.is_empty() {
            let everything = module.imports.iter().filter(|import| import.name.is_none());
            found = everything
                .filter_map(|import| match self.resolve(id, &import.path, depth + 1) {
                    Target::Module(other) if other != id => self.lookup(other, name, more, depth + 1),
                    _ => None,
                })
                .collect();
        }
        found.iter().find(|target| is_module(target) == more).or(found.first()).cloned()
    }
}
