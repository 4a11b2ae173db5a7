//! An unprivileged user of a node, or of the planner's machine: sees neither files nor command lines.

use std::{
    fs,
    os::unix::fs::{FileTypeExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

use groundplan_tests::{
    brokers::Kind,
    fleet::{Fleet, texts},
};

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
process = { run = "echo started; exec sleep 600" }

[[task]]
id = "command"
command = { run = "echo output" }
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
            // What git writes into a mirror has its own modes; no other user gets into the mirrors.
            seen += if entry.ends_with("mirrors") { 1 } else { open_to_others(&entry, found) };
        }
        seen += usize::from(meta.file_type().is_socket());
    }
    seen
}

#[test]
fn what_planner_and_agent_keep_is_for_their_own_user() {
    let mut fleet = Fleet::new(Kind::Embedded, &texts(&site(SERVICE)));
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
    let ran = fleet.output("one", &["exec", "--on", "all", "echo hello"]);
    assert!(ran.status.success(), "{ran:?}");

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

/// What shows of a running command is never this.
const SECRET: &str = "s3cr3t-0f-a-c0mmand";

const COMMANDS: &str = r#"
[[task]]
id = "guarded"
command = { run = "sleep 0.2; : SECRET", unless = "sleep 0.2; test -z SECRET" }

[[task]]
id = "file"
file = { path = "/valid", content = "x", validate = { command = "sleep 0.2; test SECRET != %s" } }
ready = { command = "sleep 0.2; : SECRET" }

[[task]]
id = "export"
export = { command = "sleep 0.2; : SECRET; echo 1" }

[[task]]
id = "inherits"
command = { run = "sleep 0.2; : SECRET; env > $GROUNDPLAN_ROOT/env" }

[[task]]
id = "fails"
command = { run = "sleep 0.2; : SECRET; exit 3" }
"#;

/// Processes in whose arguments the secret is, those of `but` left out.
fn shown(but: &str) -> Vec<String> {
    let processes = fs::read_dir("/proc").expect("processes").flatten();
    let lines = processes.filter_map(|process| fs::read(process.path().join("cmdline")).ok());
    let lines = lines.map(|line| String::from_utf8_lossy(&line).replace('\0', " "));
    lines.filter(|line| line.contains(SECRET) && !line.contains(but)).collect()
}

#[test]
fn no_command_line_shows_in_ps_or_in_a_report() {
    let files = site(&COMMANDS.replace("SECRET", SECRET));
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let watch = scope.spawn(|| {
            let (mut looks, mut seen) = (0, Vec::new());
            while !done.load(Ordering::Relaxed) {
                // What an operator types is among the arguments of their own program.
                seen.extend(shown(" exec "));
                looks += 1;
                thread::yield_now();
            }
            (looks, seen)
        });
        // The watch ends also where something here panics.
        let run = std::panic::catch_unwind(|| {
            let fleet = Fleet::started(Kind::Embedded, &texts(&files), &["n1"]);
            let commit = fleet.git(&["rev-parse", "HEAD"]);
            let status = fleet.failed("one", &commit).to_string();
            let line = format!("sleep 0.2; : {SECRET}; exit 4");
            let ran = fleet.output("one", &["exec", "--on", "all", &line]);
            assert!(String::from_utf8_lossy(&ran.stdout).contains("exited with 4"), "{ran:?}");
            (status, fleet.logged("n1"), fleet.file("n1", "env").expect("the task ran"))
        });
        done.store(true, Ordering::Relaxed);
        let (looks, seen) = watch.join().expect("the watch");
        let (status, log, env) = run.expect("the fleet");
        assert!(seen.is_empty(), "of {looks} looks: {seen:#?}");
        assert!(looks > 100, "{looks}");
        assert!(status.contains("the command exited with 3"), "{status}");
        for (what, text) in [("status", status), ("log", log), ("environment", env)] {
            assert!(!text.contains(SECRET), "{what}: {text}");
        }
    });
}
