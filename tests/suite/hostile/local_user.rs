//! An unprivileged user of a node, or of the planner's machine: sees no files.

use std::{
    fs,
    os::unix::fs::{FileTypeExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use groundplan_tests::{brokers::Kind, fleet::Fleet};

/// A site with what makes an agent and a planner create each kind of file.
fn site(service: &str) -> Vec<(&'static str, String)> {
    vec![
        ("site.toml", "name = \"testsite\"\n".to_owned()),
        ("inventory/nodes.toml", "[nodes.n1]\n\n[groups.all]\nservices = [\"s\"]\n".to_owned()),
        ("services/s/service.toml", service.to_owned()),
        // Too large to come within the plan.
        ("services/s/large", "0123456789abcdef\n".repeat(40_000)),
    ]
}

const SERVICE: &str = r#"
[[task]]
id = "replaced"
file = { path = "/was/there", content = "new" }

[[task]]
id = "large"
file = { path = "/large", source = "large" }

[[task]]
id = "process"
process = { command = "echo started; exec sleep 600" }

[[task]]
id = "command"
command = "echo output"
"#;

/// Every file and folder below `dir` that others than its owner may do anything with.
fn open_to_others(dir: &Path, found: &mut Vec<(PathBuf, String)>) -> usize {
    let mut seen = 0;
    for entry in fs::read_dir(dir).expect("a folder").map(|entry| entry.expect("an entry").path()) {
        let meta = fs::symlink_metadata(&entry).expect("what is there");
        seen += 1;
        if meta.permissions().mode() & 0o077 != 0 && !meta.file_type().is_symlink() {
            found.push((entry.clone(), format!("{:o}", meta.permissions().mode())));
        }
        if meta.is_dir() {
            // What git writes into a mirror has its own modes; nobody else gets into the mirrors.
            seen += if entry.ends_with("mirrors") { 1 } else { open_to_others(&entry, found) };
        }
        seen += usize::from(meta.file_type().is_socket());
    }
    seen
}

#[test]
fn what_planner_and_agent_keep_is_for_their_own_user() {
    let files = site(SERVICE);
    let files: Vec<(&str, &str)> = files.iter().map(|(path, text)| (*path, text.as_str())).collect();
    let mut fleet = Fleet::new(Kind::Embedded, &files);
    let url = format!("file://{}", fleet.repository().display());
    fleet.serve_from(&["--repo", &url, "--branch", "main"], &[]);
    let states = [fleet.planner_state("one"), fleet.agent_state("n1")];
    // Directories that an operator made for all to enter, and what an earlier release left in them.
    for (state, old) in [(&states[0], &["planner.redb"][..]), (&states[1], &["started", "log/s.process.log"][..])] {
        for name in old {
            let path = state.join(name);
            fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
            fs::write(&path, "").expect("a file");
            fs::set_permissions(&path, fs::Permissions::from_mode(0o666)).expect("a mode");
        }
        fs::set_permissions(state, fs::Permissions::from_mode(0o777)).expect("a mode");
    }
    fs::create_dir_all(fleet.root("n1").join("was")).expect("a folder");
    fs::write(fleet.root("n1").join("was/there"), "secret").expect("a file");
    fleet.start_agent("n1");
    fleet.start_planner("one");
    let commit = fleet.git(&["rev-parse", "HEAD"]);
    fleet.converged("one", &commit);
    assert!(fleet.run_json("one", &["exec", "n1", "--", "echo", "hello"]).0);

    let mut open = Vec::new();
    let seen: usize = states.iter().map(|state| open_to_others(state, &mut open)).sum();
    // The harness puts public keys there, as an operator would.
    open.retain(|(path, _)| path.extension().is_none_or(|end| end != "pub"));
    assert!(open.is_empty(), "others may use {open:#?}");
    for name in ["blobs", "found", "log/s.process.log", "process", "ledger.redb", "started"] {
        assert!(states[1].join(name).exists(), "{name}");
    }
    for name in ["planner.redb", "planner.sock", "mirrors"] {
        assert!(states[0].join(name).exists(), "{name}");
    }
    assert!(seen > 12, "{seen}");
}
