//! The walls of the workspace: which package may depend on which, what the pure crates never touch, that no files import each other in a circle,
//! and that the agent is one static file.

mod agent_binary;
mod circles;
mod pages;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use groundplan_tests::binaries;
use serde_json::Value;

/// The workspace's folder.
fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests/ lies in the workspace").to_owned()
}

/// For every package of the resolved graph: its name and the names of what it depends on, development dependencies left out.
fn dependencies() -> BTreeMap<String, BTreeSet<String>> {
    let output = binaries::cargo()
        .args(["metadata", "--format-version", "1", "--locked"])
        .output()
        .expect("cargo metadata runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let packages = metadata["packages"].as_array().expect("packages");
    let names: BTreeMap<&str, &str> =
        packages.iter().map(|p| (p["id"].as_str().expect("id"), p["name"].as_str().expect("name"))).collect();
    let nodes = metadata["resolve"]["nodes"].as_array().expect("nodes");
    nodes
        .iter()
        .map(|node| {
            let normal = |dep: &&Value| dep["dep_kinds"].as_array().expect("kinds").iter().any(|k| k["kind"] != "dev");
            let deps = node["deps"].as_array().expect("deps").iter().filter(normal);
            let deps = deps.map(|dep| names[dep["pkg"].as_str().expect("pkg")].to_owned()).collect();
            (names[node["id"].as_str().expect("id")].to_owned(), deps)
        })
        .collect()
}

/// Everything that `package` depends on, however far away.
fn reachable(graph: &BTreeMap<String, BTreeSet<String>>, package: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut next = vec![package.to_owned()];
    while let Some(name) = next.pop() {
        next.extend(graph[&name].iter().filter(|dep| found.insert((*dep).clone())).cloned());
    }
    found
}

/// The pure crates and their folders. One whose folder is not there is left out.
const PURE: [(&str, &str); 5] = [
    ("groundplan-protocol", "agent/protocol"),
    ("groundplan-inventory", "inventory"),
    ("groundplan-services", "services"),
    ("groundplan-core", "planner/core"),
    ("groundplan-machine", "planner/machine"),
];

fn pure() -> impl Iterator<Item = (&'static str, &'static str)> {
    PURE.into_iter().filter(|(_, folder)| workspace().join(folder).exists())
}

#[test]
fn pure_crates_depend_on_no_runtime_no_mqtt_and_no_git() {
    let graph = dependencies();
    let banned = [
        "tokio",
        "mio",
        "async-std",
        "futures",
        "rumqttc",
        "git2",
        "libgit2-sys",
        "notify",
        "redb",
        "axum",
        "hyper",
        "nix",
        "rustls",
        "tempfile",
        "rand",
    ];
    for (package, _) in pure() {
        let all = reachable(&graph, package);
        let found: Vec<_> = banned.iter().filter(|b| all.contains(**b)).collect();
        assert!(found.is_empty(), "{package} reaches {found:?}");
    }
}

#[test]
fn our_packages_depend_one_way() {
    let graph = dependencies();
    let core = ["groundplan-inventory", "groundplan-protocol", "groundplan-services"];
    let ours = |package: &str| -> Vec<String> {
        reachable(&graph, package).into_iter().filter(|name| name.starts_with("groundplan")).collect()
    };
    assert_eq!(ours("groundplan-protocol"), [] as [&str; 0]);
    assert_eq!(ours("groundplan-inventory"), ["groundplan-protocol"]);
    assert_eq!(ours("groundplan-services"), ["groundplan-inventory", "groundplan-protocol"]);
    assert_eq!(ours("groundplan-core"), core);
    if pure().any(|(package, _)| package == "groundplan-machine") {
        assert_eq!(ours("groundplan-machine"), [&["groundplan-core"][..], &core].concat());
        let own: Vec<_> = graph["groundplan-machine"].iter().filter(|name| name.starts_with("groundplan")).collect();
        assert_eq!(own, ["groundplan-core", "groundplan-protocol"]);
    }
    assert_eq!(
        ours("groundplan-broker"),
        ["groundplan-protocol"],
        "the broker uses the topics and nothing else of ours"
    );
    assert_eq!(ours("groundplan-agent"), ["groundplan-protocol"], "planner and agent share nothing but the protocol");
    assert!(!ours("groundplan").contains(&"groundplan-agent".to_owned()));
}

/// The source files in a folder, without those of tests.
fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("a folder").map(|e| e.expect("an entry").path()) {
        if entry.file_stem().is_some_and(|name| name.to_string_lossy().ends_with("tests")) {
            continue;
        }
        if entry.is_dir() {
            sources(&entry, found);
        } else if entry.extension().is_some_and(|e| e == "rs") {
            found.push(entry);
        }
    }
}

/// Dependencies are not enough: the standard library does IO too.
#[test]
fn pure_crates_use_no_clock_no_randomness_no_environment_and_no_file() {
    let banned = [
        "std::fs",
        "std::net",
        "std::env",
        "std::process",
        "std::thread",
        "Instant::now",
        "SystemTime",
        "RandomState",
        "async fn",
        "async move",
        ".await",
        "File::open",
        "env!(",
        "println!",
        "eprintln!",
    ];
    let mut faults = Vec::new();
    for (_, folder) in pure() {
        let mut files = Vec::new();
        sources(&workspace().join(folder).join("src"), &mut files);
        assert!(!files.is_empty());
        for file in files {
            let text = fs::read_to_string(&file).expect("a source file");
            // Tests beside the code may use all of these.
            let code = text.split("#[cfg(test)]\nmod ").next().unwrap_or_default();
            for (number, line) in code.lines().enumerate().filter(|(_, l)| !l.trim_start().starts_with("//")) {
                // Not within a longer name, such as `awaited`.
                let has = |word: &&&str| {
                    let mut ends = line.match_indices(**word).map(|(at, _)| &line[at + word.len()..]);
                    ends.any(|rest| !word.ends_with(char::is_alphabetic) || !rest.starts_with(char::is_alphabetic))
                };
                if let Some(word) = banned.iter().find(has) {
                    faults.push(format!("{}:{}: {word}", file.display(), number + 1));
                }
            }
        }
    }
    assert!(faults.is_empty(), "{faults:#?}");
}

#[test]
fn every_dependency_has_a_reason() {
    let manifest = fs::read_to_string(workspace().join("Cargo.toml")).expect("the workspace's manifest");
    let section = manifest.split("[workspace.dependencies]").nth(1).expect("dependencies");
    let section = section.split("\n[").next().expect("an end");
    let entries = section.lines().filter(|l| l.contains(" = ") && !l.starts_with("groundplan"));
    let silent: Vec<_> = entries.filter(|l| !l.contains(" # ")).collect();
    assert!(silent.is_empty(), "without a reason: {silent:#?}");
}

/// The page that shows newcomers around names files: each of them is there.
#[test]
fn files_that_the_architecture_page_names_exist() {
    let page = fs::read_to_string(workspace().join("docs/architecture.md")).expect("the page");
    let mut files = Vec::new();
    for folder in ["agent", "inventory", "planner", "services", "tests"] {
        sources(&workspace().join(folder), &mut files);
    }
    let named = page.split('`').skip(1).step_by(2).filter(|code| code.ends_with(".rs") && !code.contains(' '));
    let there = |name: &str| files.iter().any(|file| file.ends_with(name));
    let (found, missing): (Vec<&str>, Vec<&str>) = named.partition(|name| there(name));
    assert!(found.len() > 30, "{found:?}");
    assert!(missing.is_empty(), "not there: {missing:#?}");
}
