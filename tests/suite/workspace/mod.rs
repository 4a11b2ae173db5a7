//! The walls of the workspace: who may depend on whom, what the pure crates never touch, and that the agent is one static file.

mod agent_binary;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::Value;

/// The workspace's folder.
fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests/ lies in the workspace").to_owned()
}

/// For every package of the resolved graph: its name and the names of what it depends on, development dependencies left out.
fn dependencies() -> BTreeMap<String, BTreeSet<String>> {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--locked"])
        .current_dir(workspace())
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

const PURE: [(&str, &str); 4] = [
    ("groundplan-protocol", "agent/protocol"),
    ("groundplan-inventory", "inventory"),
    ("groundplan-services", "services"),
    ("groundplan-core", "planner/core"),
];

#[test]
fn pure_crates_know_no_runtime_no_mqtt_and_no_git() {
    let graph = dependencies();
    let banned = [
        "tokio",
        "mio",
        "async-std",
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
    for (package, _) in PURE {
        let all = reachable(&graph, package);
        let found: Vec<_> = banned.iter().filter(|b| all.contains(**b)).collect();
        assert!(found.is_empty(), "{package} reaches {found:?}");
    }
}

#[test]
fn our_packages_depend_one_way() {
    let graph = dependencies();
    let ours = |package: &str| -> Vec<String> {
        reachable(&graph, package).into_iter().filter(|name| name.starts_with("groundplan")).collect()
    };
    assert_eq!(ours("groundplan-protocol"), [] as [&str; 0]);
    assert_eq!(ours("groundplan-inventory"), ["groundplan-protocol"]);
    assert_eq!(ours("groundplan-services"), ["groundplan-inventory", "groundplan-protocol"]);
    assert_eq!(ours("groundplan-core"), ["groundplan-inventory", "groundplan-protocol", "groundplan-services"]);
    assert_eq!(ours("groundplan-agent"), ["groundplan-protocol"], "planner and agent share nothing but the protocol");
    assert!(!ours("groundplan").contains(&"groundplan-agent".to_owned()));
}

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("a folder").map(|e| e.expect("an entry").path()) {
        if entry.is_dir() {
            sources(&entry, found);
        } else if entry.extension().is_some_and(|e| e == "rs") {
            found.push(entry);
        }
    }
}

/// Dependencies are not enough: the standard library does IO too.
#[test]
fn pure_crates_read_no_clock_no_environment_and_no_file() {
    let banned = [
        "std::fs",
        "std::net",
        "std::env",
        "std::process",
        "std::thread",
        "Instant::now",
        "SystemTime",
        "File::open",
        "env!(",
        "println!",
        "eprintln!",
    ];
    let mut faults = Vec::new();
    for (_, folder) in PURE {
        let mut files = Vec::new();
        sources(&workspace().join(folder).join("src"), &mut files);
        assert!(!files.is_empty());
        for file in files {
            let text = fs::read_to_string(&file).expect("a source file");
            // Tests beside the code may do what they like.
            let code = text.split("#[cfg(test)]").next().unwrap_or_default();
            for (number, line) in code.lines().enumerate().filter(|(_, l)| !l.trim_start().starts_with("//")) {
                if let Some(word) = banned.iter().find(|word| line.contains(**word)) {
                    faults.push(format!("{}:{}: {word}", file.display(), number + 1));
                }
            }
        }
    }
    assert!(faults.is_empty(), "{faults:#?}");
}

#[test]
fn every_dependency_says_why_it_is_there() {
    let manifest = fs::read_to_string(workspace().join("Cargo.toml")).expect("the workspace's manifest");
    let section = manifest.split("[workspace.dependencies]").nth(1).expect("dependencies");
    let section = section.split("\n[").next().expect("an end");
    let entries = section.lines().filter(|l| l.contains(" = ") && !l.starts_with("groundplan"));
    let silent: Vec<_> = entries.filter(|l| !l.contains(" # ")).collect();
    assert!(silent.is_empty(), "without a reason: {silent:#?}");
}
