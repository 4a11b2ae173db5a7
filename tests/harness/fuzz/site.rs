//! Fed: a whole site as one text, see [`super::files`].
//!
//! Checked: loading it gives a site or faults, the same each time and with what was parsed before; each fault has a message and can be
//! shown, in text and as JSON, with nothing in it that a terminal acts on; of a site, each node plan for nodes that
//! have nothing applied decodes as what it was, with each task once and after all that it waits for.

use std::{collections::BTreeSet, sync::Arc};

use groundplan::{
    diagnose, lint,
    site::{Cache, Loaded, load},
};
use groundplan_core::{AppliedState, Knowledge, NodeApplied, Policy, SourceTree, plan, source::MemoryTree};
use groundplan_inventory::Diagnostic;
use groundplan_protocol::{
    ids::{CommitId, Generation},
    plan::NodePlan,
    text::is_hostile,
};

use super::files;

/// See the module.
pub fn check(text: &[u8]) {
    check_tree(&files::tree(text), &Knowledge::default());
}

/// The checks of the module, of a tree and what nodes have reported; with the site, if it is one.
pub fn check_tree(tree: &MemoryTree, knowledge: &Knowledge) -> Option<Loaded> {
    let mut cache = Cache::default();
    let loaded = load(tree, knowledge, &mut cache);
    let again = load(tree, knowledge, &mut cache);
    match (loaded, again) {
        (Err(faults), Err(again)) => {
            assert!(!faults.is_empty());
            assert_eq!(faults, again, "with what was parsed before");
            shown(&faults, tree);
            None
        }
        (Ok(site), Ok(again)) => {
            shown(&lint::warnings(&site, tree), tree);
            assert_eq!(resolved(&site), resolved(&again), "with what was parsed before");
            planned(&site);
            Some(site)
        }
        (Ok(_), Err(faults)) => panic!("loaded, and the second time {faults:#?}"),
        (Err(faults), Ok(_)) => panic!("loaded the second time, and first {faults:#?}"),
    }
}

/// What each instance resolved to.
fn resolved(site: &Loaded) -> Vec<String> {
    let tasks = site.desired.graph.tasks.iter();
    let instances = tasks.flat_map(|task| task.instances.iter().map(move |one| (&task.id, one)));
    instances.map(|(task, one)| format!("{task}@{:?} {:?}", one.node, one.resolved)).collect()
}

fn shown(diagnostics: &[Diagnostic], tree: &MemoryTree) {
    for diagnostic in diagnostics {
        assert!(!diagnostic.message.trim().is_empty(), "{diagnostic:?}");
    }
    let texts = |path: &str| -> Option<Arc<[u8]>> { tree.read(path).ok() };
    let text = diagnose::render(diagnostics, &texts, false);
    assert!(!text.contains(is_hostile), "on a terminal: {text:?}");
    let json = diagnose::to_json(diagnostics, &texts);
    assert_eq!(json.as_array().map(Vec::len), Some(diagnostics.len()));
}

/// Plans it for nodes that have nothing applied.
fn planned(site: &Loaded) {
    let nodes = site.desired.nodes.iter().map(|node| (node.clone(), NodeApplied::default()));
    let applied = AppliedState { nodes: nodes.collect(), ..AppliedState::default() };
    let plan = plan(&site.desired, &applied, &Policy::default());
    let commit = CommitId::new("0".repeat(40)).expect("an id");
    for (node, part) in &plan.nodes {
        let plan = part.node_plan(site.desired.site.clone(), (node.clone(), None), Generation(1), commit.clone());
        let json = serde_json::to_vec(&plan).expect("JSON");
        assert_eq!(serde_json::from_slice::<NodePlan>(&json).expect("a node plan"), plan);
        let mut done = BTreeSet::new();
        for task in &plan.tasks {
            assert!(task.after.iter().all(|after| done.contains(after)), "{} waits for what comes later", task.task);
            assert!(done.insert(&task.task), "{} is there twice", task.task);
        }
    }
}
