//! What a valid site contains that is probably not meant: warnings, which refuse nothing.
//!
//! In: a loaded site and the tree it was read from. Out: warnings in the order of their places. Reads the files of services, so it is for
//! `groundplan check` and not for the planner's loop. It warns only of what can be seen without running anything: a var counts as used if
//! its name occurs in any text that may be a template.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use groundplan_core::{
    SourceTree,
    source::{Entry, EntryKind},
};
use groundplan_inventory::{Diagnostic, Inventory, Location, Var, hint};
use groundplan_protocol::kinds::TaskParams;
use groundplan_services::{Plugins, Service, Task};
use serde_json::Value;

use crate::site::Loaded;

/// The longest file that is searched for names of vars, in bytes; in a longer one any name may occur.
const SEARCHED: u64 = 1 << 20;

/// What other tools read at the top of a repository.
const FOREIGN: [&str; 13] = [
    "ansible.cfg",
    "groups.toml",
    "hosts",
    "hosts.ini",
    "hosts.yaml",
    "hosts.toml",
    "hosts.yml",
    "inventory.ini",
    "inventory.toml",
    "inventory.yaml",
    "inventory.yml",
    "nodes.toml",
    "top.sls",
];

/// All warnings about a site.
pub fn warnings(site: &Loaded, tree: &dyn SourceTree) -> Vec<Diagnostic> {
    let mut found = same_address(&site.inventory);
    found.extend(unused_vars(site, tree));
    let tasks = site.catalog.services.values().flat_map(|service| &service.tasks);
    found.extend(tasks.flat_map(|task| plugin_keys(task, &site.plugins)));
    found.extend(tree.entries().iter().filter_map(stray));
    found.sort();
    found.dedup();
    found
}

/// Nodes with an address that an earlier node has.
fn same_address(inventory: &Inventory) -> Vec<Diagnostic> {
    let mut first = HashMap::new();
    let mut found = Vec::new();
    for (id, node) in &inventory.nodes {
        let Some(address) = node.address.as_ref().map(|address| address.to_ascii_lowercase()) else { continue };
        let Some((other, at)) = first.get(&address) else {
            first.insert(address, (id, &node.at));
            continue;
        };
        found.push(
            Diagnostic::warning(
                node.at.clone(),
                format!("the nodes `{other}` and `{id}` have the same address {address}"),
            )
            .related(Location::clone(at), "the other node")
            .hint("give each its own, or leave the address out where nothing reads it"),
        );
    }
    found
}

/// Vars that no template can read.
fn unused_vars(site: &Loaded, tree: &dyn SourceTree) -> Vec<Diagnostic> {
    let own: BTreeMap<_, _> = site.catalog.services.iter().map(|(id, service)| (id, words(service, tree))).collect();
    let settings: Vec<(&String, &Var)> =
        site.site.vars.iter().chain(site.inventory.nodes.values().flat_map(|node| &node.vars)).collect();
    let defaults =
        || site.catalog.services.iter().flat_map(|(id, service)| service.vars.iter().map(move |var| (id, var)));
    let mut shared = Words::default();
    for external in site.site.external.values() {
        shared.value(&serde_json::to_value(&external.ready).unwrap_or_default());
    }
    // A value may be a template itself.
    settings
        .iter()
        .map(|(_, var)| var)
        .chain(defaults().map(|(_, (_, var))| var).collect::<Vec<_>>().iter())
        .for_each(|var| shared.value(&var.value));
    let everywhere = |name: &str| shared.has(name) || own.values().any(|words| words.has(name));
    let mut unused: BTreeSet<(&Location, &str)> =
        settings.iter().filter(|(name, _)| !everywhere(name)).map(|(name, var)| (&var.at, name.as_str())).collect();
    unused.extend(
        defaults()
            .filter(|(id, (name, _))| !shared.has(name) && !own[id].has(name))
            .map(|(_, (name, var))| (&var.at, name.as_str())),
    );
    let used: BTreeSet<&str> = defaults().map(|(_, (name, _))| name.as_str()).filter(|name| everywhere(name)).collect();
    let warning = |(at, name): (&Location, &str)| {
        let near = hint::nearest(name, used.iter().copied()).map(|near| format!("did you mean `{near}`?"));
        Diagnostic::warning(at.clone(), format!("nothing reads the var `{name}`"))
            .hint(near.unwrap_or_else(|| "read it in a template, or remove it".to_owned()))
    };
    unused.into_iter().map(warning).collect()
}

/// The words of all texts that may be templates.
#[derive(Default)]
struct Words {
    words: HashSet<String>,
    /// Whether there is a text that was not searched.
    any: bool,
}

impl Words {
    fn has(&self, word: &str) -> bool {
        self.any || self.words.contains(word)
    }

    fn text(&mut self, text: &str) {
        let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').filter(|word| !word.is_empty());
        words.for_each(|word| _ = self.words.insert(word.to_owned()));
    }

    fn value(&mut self, value: &Value) {
        match value {
            Value::String(text) => self.text(text),
            Value::Array(list) => list.iter().for_each(|value| self.value(value)),
            Value::Object(map) => map.values().for_each(|value| self.value(value)),
            _ => {}
        }
    }
}

/// The words of a service's tasks and files.
fn words(service: &Service, tree: &dyn SourceTree) -> Words {
    let mut words = Words::default();
    for task in &service.tasks {
        task.params.given().values().for_each(|value| words.value(value));
        words.value(&serde_json::to_value(&task.ready).unwrap_or_default());
        task.when.iter().for_each(|when| words.text(when));
    }
    let below = format!("{}/", service.folder);
    let files = tree.entries().iter().filter(|entry| entry.kind == EntryKind::File && entry.path.starts_with(&below));
    for entry in files.filter(|entry| entry.path != service.at.file) {
        let mut bytes = Vec::new();
        let mut short = false;
        let read = tree.scan(&entry.path, &mut |length, piece| {
            short = length <= SEARCHED;
            bytes.extend_from_slice(piece);
            short
        });
        match String::from_utf8(bytes) {
            // What is no text is no template.
            Ok(text) if read.is_ok() && short => words.text(&text),
            Err(_) if read.is_ok() && short => {}
            _ => words.any = true,
        }
    }
    words
}

/// Parameters of a plugin's task that its schema does not mention and does not forbid.
fn plugin_keys(task: &Task, plugins: &Plugins) -> Vec<Diagnostic> {
    let TaskParams::Plugin(plugin) = &task.params else { return Vec::new() };
    let Some(description) = plugins.known.get(&plugin.name) else { return Vec::new() };
    let warning = |key: groundplan_services::plugin::Violation| {
        let at = task.places.get(&key.param).unwrap_or(&task.kind_at).clone();
        let warning = Diagnostic::warning(at, format!("the {} {}", plugin.name, key.message));
        Diagnostic { hint: key.hint, ..warning }
    };
    description.unmentioned(&plugin.params).into_iter().map(warning).collect()
}

/// A file that is probably meant to be read, and is not.
fn stray(entry: &Entry) -> Option<Diagnostic> {
    let path = &*entry.path;
    let name = path.rsplit('/').next().unwrap_or_default();
    // Notes for people, and files of other tools such as editors and git.
    if name.starts_with('.') || name.to_ascii_uppercase().starts_with("README") || name.ends_with(".md") {
        return None;
    }
    let hint = match path.split('/').collect::<Vec<_>>()[..] {
        ["inventory", ..] if !name.ends_with(".toml") => "nodes and groups are declared in files that end with .toml",
        ["services", _] => "a service is a folder with a service.toml: services/<name>/service.toml",
        ["services", _, "service.yml" | "service.yaml" | "service.json"] => "a service is declared in service.toml",
        ["site.yml" | "site.yaml" | "site.json" | "Site.toml"] => "the site is described in site.toml",
        ["service.toml" | "services.toml"] | ["service" | "Services", _, "service.toml"] => {
            "a service is a folder of services/ with a service.toml: services/<name>/service.toml"
        }
        ["playbook.yml" | "playbook.yaml"] | ["roles", _, "tasks", "main.yml" | "main.yaml"] => {
            "tasks are declared in services: services/<name>/service.toml"
        }
        ["group_vars" | "host_vars", ..] if name.ends_with(".yml") || name.ends_with(".yaml") => {
            "groups and nodes have their vars in the inventory: `vars = { … }` in `[groups.<name>]` and `[nodes.<name>]`"
        }
        ["inventories" | "nodes" | "hosts" | "groups", ..] if name.ends_with(".toml") => {
            "nodes and groups are declared below inventory/, in files that end with .toml"
        }
        [name] if FOREIGN.contains(&name) => {
            "nodes and groups are declared below inventory/, in files that end with .toml"
        }
        _ => return None,
    };
    Some(Diagnostic::warning(Location::file(path), format!("`{path}` is not read")).hint(hint))
}
