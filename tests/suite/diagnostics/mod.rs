//! Trees with many faults: each is reported, at its place, with texts that are snapshots.

mod mistakes;
mod schemas;

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use groundplan::{diagnose, site};
use groundplan_core::source::MemoryTree;
use groundplan_inventory::Diagnostic;

/// The files of a fixture.
struct Fixture {
    files: BTreeMap<String, Arc<[u8]>>,
}

impl Fixture {
    fn open(name: &str) -> Self {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures").join(name);
        let mut files = BTreeMap::new();
        let mut folders: Vec<PathBuf> = vec![root.clone()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(&folder).expect("the fixture is there") {
                let path = entry.expect("an entry").path();
                if path.is_dir() {
                    folders.push(path);
                    continue;
                }
                let below = path.strip_prefix(&root).expect("below the root").to_str().expect("UTF-8").to_owned();
                files.insert(below, fs::read(&path).expect("a file").into());
            }
        }
        Self { files }
    }

    fn faults(&self) -> Vec<Diagnostic> {
        let tree = MemoryTree::new(self.files.iter().map(|(path, bytes)| (path.as_str(), bytes.to_vec())));
        site::load(&tree, &groundplan_core::Knowledge::default(), &mut site::Cache::default())
            .expect_err("the tree is broken")
    }

    fn text(&self) -> String {
        diagnose::render(&self.faults(), &|path| self.files.get(path).cloned(), false)
    }
}

#[test]
fn every_fault_of_a_tree_is_reported_at_once() {
    insta::assert_snapshot!(Fixture::open("broken").text());
}

#[test]
fn the_same_faults_in_json_have_line_and_column() {
    let fixture = Fixture::open("broken");
    let json = diagnose::to_json(&fixture.faults(), &|path| fixture.files.get(path).cloned());
    let faults = json.as_array().expect("a list");
    assert!(faults.len() >= 20, "{}", faults.len());
    for fault in faults {
        assert!(fault["line"].as_u64() > Some(0) && fault["column"].as_u64() > Some(0), "{fault}");
        assert!(fault["message"].as_str().is_some_and(|message| !message.is_empty()), "{fault}");
    }
    let wide = faults.iter().find(|fault| fault["message"].as_str().is_some_and(|m| m.contains("lables")));
    assert_eq!(wide.map(|fault| (fault["line"].as_u64(), fault["column"].as_u64())), Some((Some(15), Some(1))));
}
