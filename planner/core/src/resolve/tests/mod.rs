//! Whole sites in, desired states or diagnostics out, as text.

mod cached;
mod edges;
mod exports;
mod faults;
mod inputs;
mod known;
mod limits;
mod plugins;
mod reported;
mod values;
mod vars;

use std::{fmt::Write as _, sync::Arc};

use groundplan_inventory::{Diagnostic, Location};
use groundplan_services::{
    plugin::{self, Description, ParamCheck, Plugins, Violation},
    tree as site_files,
};

use super::{Cache, resolve};
use crate::knowledge::Knowledge;
use crate::{
    desired::{DesiredState, Instance, Scope},
    source::{EntryKind, MemoryTree, SourceTree},
};

/// A tree from a text in which `=== <path>` begins a file.
pub(super) fn tree(text: &str) -> MemoryTree {
    let files = text.split("=== ").skip(1).map(|file| file.split_once('\n').unwrap_or((file, "")));
    MemoryTree::new(files)
}

/// Reads and resolves a tree.
pub(super) fn resolved(tree: &MemoryTree, cache: &mut Cache) -> (Option<DesiredState>, Vec<Diagnostic>) {
    resolved_with(tree, &Knowledge::default(), cache)
}

/// Reads and resolves a tree with what is known of its nodes.
pub(super) fn resolved_with(
    tree: &MemoryTree,
    knowledge: &Knowledge,
    cache: &mut Cache,
) -> (Option<DesiredState>, Vec<Diagnostic>) {
    let wanted = tree.entries().iter().filter(|e| e.kind == EntryKind::File && site_files::wants(&e.path));
    let parsed: Vec<_> = wanted.map(|e| site_files::parse(&e.path, &tree.read(&e.path).expect("a file"))).collect();
    let plugins = plugins(tree);
    let (model, mut faults) = site_files::merge(&parsed, tree.entries().iter().map(|e| &*e.path), &plugins);
    let site = model.site.unwrap_or_else(|| panic!("no site: {faults:#?}"));
    let (state, more) = resolve(&site, &model.inventory, &model.catalog, &plugins, tree, knowledge, cache);
    faults.extend(more);
    (state, faults)
}

/// The plugins of a tree, in which each program is what it would print.
fn plugins(tree: &MemoryTree) -> Plugins {
    let mut plugins = Plugins::default();
    for entry in tree.entries() {
        let Some(name) = entry.path.strip_prefix("plugins/") else { continue };
        let description = Description::read(&tree.read(&entry.path).expect("a file"), &compile).expect("a description");
        plugins.known.insert(plugin::name(name).expect("a name"), Arc::new(description));
    }
    plugins
}

/// A schema that lists parameters with their types: `{ "zone": "string" }`. All of them are required.
#[derive(Debug)]
struct ListedParams(serde_json::Map<String, serde_json::Value>);

fn compile(schema: &serde_json::Value) -> Result<Box<dyn ParamCheck>, String> {
    Ok(Box::new(ListedParams(schema.as_object().cloned().ok_or("no object")?)))
}

impl ParamCheck for ListedParams {
    fn violations(&self, params: &serde_json::Map<String, serde_json::Value>) -> Vec<Violation> {
        let mut violations = Vec::new();
        let mut add = |param: &str, message: String, hint: Option<&str>| {
            violations.push(Violation { param: param.to_owned(), message, hint: hint.map(str::to_owned) });
        };
        for key in params.keys().filter(|key| !self.0.contains_key(*key)) {
            add(key, format!("has no parameter `{key}`"), Some("use another"));
        }
        for (key, kind) in &self.0 {
            match (params.get(key), kind.as_str()) {
                (None, Some("string")) => add("", format!("has no `{key}`"), Some("add it")),
                (Some(serde_json::Value::String(text)), Some("string")) if text.len() < 3 => {
                    add(key, format!("\"{text}\" is shorter than 3 characters"), None);
                }
                (Some(serde_json::Value::Array(items)), Some("integers")) => {
                    for (i, item) in items.iter().enumerate().filter(|(_, item)| !item.is_i64()) {
                        add(&format!("{key}[{i}]"), format!("{item} is not of type \"integer\""), None);
                    }
                }
                _ => {}
            }
        }
        violations
    }
}

/// The desired state of a tree without faults.
pub(super) fn state(text: &str) -> DesiredState {
    let tree = tree(text);
    let (state, faults) = resolved(&tree, &mut Cache::default());
    state.unwrap_or_else(|| panic!("{}", diagnostics(&tree, &faults)))
}

/// An instance, by `service.task@node`.
pub(super) fn instance<'s>(state: &'s DesiredState, id: &str) -> &'s Instance {
    state.instance(&id.parse().expect("an id")).unwrap_or_else(|| panic!("no {id}"))
}

/// Diagnostics as text: place, what stands there, message, label, related places, hint.
pub(super) fn diagnostics(tree: &MemoryTree, faults: &[Diagnostic]) -> String {
    let mut out = String::new();
    for fault in faults {
        write!(out, "{}: {}", place(tree, &fault.at), fault.message).unwrap();
        if !fault.label.is_empty() {
            write!(out, " ({})", fault.label).unwrap();
        }
        for (at, words) in &fault.related {
            write!(out, "\n  {}: {words}", place(tree, at)).unwrap();
        }
        if let Some(hint) = &fault.hint {
            write!(out, "\n  hint: {hint}").unwrap();
        }
        out.push('\n');
    }
    out
}

fn place(tree: &MemoryTree, at: &Location) -> String {
    let bytes = tree.read(&at.file).unwrap_or_default();
    let text = std::str::from_utf8(&bytes).unwrap_or_default();
    let line = text[..at.start].matches('\n').count() + 1;
    let excerpt = text[at.span()].lines().next().unwrap_or_default();
    format!("{}:{line} ‹{excerpt}›", at.file)
}

/// The graph as text, a line a task, in its order.
pub(super) fn graph(state: &DesiredState) -> String {
    let mut out = String::new();
    for task in &state.graph.tasks {
        let nodes: Vec<_> = task.instances.iter().map(|i| state.nodes[i.node.0 as usize].as_str()).collect();
        write!(out, "{} on {}", task.id, nodes.join(" ")).unwrap();
        for edge in &task.edges {
            let scope = match edge.scope {
                Scope::SameNode => "@.".to_owned(),
                Scope::AllNodes => String::new(),
                Scope::OneNode(node) => format!("@{}", state.nodes[node.0 as usize]),
            };
            let verb = edge.trigger.map_or("after".to_owned(), |effect| effect.to_string());
            write!(out, "; {verb} {}{scope}", state.graph.tasks[edge.from.0 as usize].id).unwrap();
        }
        out.push('\n');
    }
    out
}

/// Checks the diagnostics of a tree.
pub(super) fn check_faults(text: &str, expect: &str) {
    let tree = tree(text);
    let (state, faults) = resolved(&tree, &mut Cache::default());
    assert_eq!(diagnostics(&tree, &faults).trim_end(), expect.trim());
    assert_eq!(state.is_none(), !faults.is_empty());
}

/// Checks the graph of a tree.
pub(super) fn check_graph(text: &str, expect: &str) {
    assert_eq!(graph(&state(text)).trim_end(), expect.trim());
}

/// A site of nodes n0, n1 and n2, on which the group `all` runs these services.
pub(super) fn on_all(services: &[&str]) -> String {
    let services: Vec<_> = services.iter().map(|s| format!("{s:?}")).collect();
    format!(
        "=== site.toml\nname = \"test\"\n=== inventory/nodes.toml\n[nodes.n0]\n[nodes.n1]\n[nodes.n2]\n[groups.all]\nservices = [{}]\n",
        services.join(", ")
    )
}
