//! What nodes report: facts that decide where a task is, and values that one node publishes for others.

use std::{fs, os::unix::fs::PermissionsExt as _};

use groundplan_tests::{brokers::Kind, fleet::Fleet};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use super::with_both_brokers;

with_both_brokers!(a_fact_selects_the_nodes_of_a_task, an_export_is_planned_before_what_comes_after_it);

/// Makes a node report this role as a fact, at once if its agent runs.
fn set_role(fleet: &Fleet, node: &str, role: &str, running: bool) {
    let folder = fleet.facts_dir(node);
    fs::create_dir_all(&folder).expect("a folder");
    let (path, new) = (folder.join("role"), folder.join(".role"));
    fs::write(&new, format!("#!/bin/sh\necho '\"{role}\"'\n")).expect("a program");
    fs::set_permissions(&new, fs::Permissions::from_mode(0o755)).expect("an executable");
    fs::rename(new, path).expect("the program in place");
    if running {
        let pid = i32::try_from(fleet.agent_pid(node)).expect("a process id");
        kill(Pid::from_raw(pid), Signal::SIGHUP).expect("a running agent");
    }
}

fn a_fact_selects_the_nodes_of_a_task(kind: Kind) {
    let files = [
        ("site.toml", "name = \"testsite\"\n"),
        ("inventory/nodes.toml", "[groups.all]\nservices = [\"s\"]\n\n[nodes.n1]\n\n[nodes.n2]\n"),
        (
            "services/s/service.toml",
            "[[task]]\nid = \"db\"\nwhen = \"facts.local.role == 'db'\"\nfile = { path = \"/db\", content = \"{{ facts.local.role }} on {{ facts.arch }}\" }\n",
        ),
    ];
    let mut fleet = Fleet::new(kind, &files);
    set_role(&fleet, "n1", "db", false);
    set_role(&fleet, "n2", "web", false);
    fleet.start_planner("one");
    fleet.start_agent("n1");
    let head = fleet.git(&["rev-parse", "HEAD"]);
    // n2 has not reported: nothing is wrong, but the rollout is not finished.
    let status = fleet.wait("the rollout to wait for n2", || {
        let status = fleet.rollout_of("one", &head)?;
        (status["rollout"]["result"] == "waiting" && fleet.file("n1", "db").is_some()).then_some(status)
    });
    assert_eq!(status["nodes"][0]["facts"]["local"]["role"], "db", "{status:#}");
    assert_eq!(status["nodes"][1]["waiting"]["s.db"][0], "facts of node n2", "{status:#}");
    let why = fleet.ask("one", &["why", "n2", "s.db"]).expect("an answer");
    assert_eq!(why["waits_for"], serde_json::json!(["facts of node n2"]), "{why:#}");

    fleet.start_agent("n2");
    fleet.converged("one", &head);
    assert!(fleet.file("n1", "db").expect("a file").starts_with("db on "));
    assert_eq!(fleet.file("n2", "db"), None);

    // The next planner reads the facts from its store.
    fleet.kill_planner("one");
    fleet.start_planner("one");
    set_role(&fleet, "n2", "db", true);
    fleet.wait("the task on n2", || fleet.file("n2", "db"));
    set_role(&fleet, "n1", "web", true);
    fleet.wait("the removal on n1", || fleet.file("n1", "db").is_none().then_some(()));
    let shown = fleet.wait("the end", || {
        let shown = fleet.ask("one", &["show"])?;
        (shown["result"] == "succeeded").then_some(shown)
    });
    let reason = &shown["instances"][0]["reasons"][0];
    assert_eq!(
        (reason["kind"].as_str(), reason["input"].as_str(), reason["before"].as_str(), reason["after"].as_str()),
        (Some("off"), Some("facts.local.role"), Some("db"), Some("web")),
        "{shown:#}"
    );
}

fn an_export_is_planned_before_what_comes_after_it(kind: Kind) {
    const DB: &str = r#"
[[task]]
id = "seed"
file = { path = "/seed", content = "{{ seed }}" }

[[task]]
id = "port"
export = { command = "cat port" }
run_on = ["seed"]

[[task]]
id = "note"
file = { path = "/note", content = "{{ exports.db.port[node.name] }}" }

[[task]]
id = "near"
process = { run = "echo $$ >> near; exec sleep 100000" }
restart_on = ["port", "note"]

[[task]]
id = "apart"
process = { run = "echo $$ >> apart; exec sleep 100000" }
requires = []
"#;
    const APP: &str = r#"
[service]
requires = ["db.port"]

[[task]]
id = "config"
file = { path = "/config", content = "port {{ exports.db.port.n1 }}" }

[[task]]
id = "server"
process = { run = "echo $$ >> starts; exec sleep 100000" }
restart_on = ["config"]
"#;
    let site = |seed: &str| format!("name = \"testsite\"\n[vars]\nseed = \"{seed}\"\n");
    let first = site("one");
    let files = [
        ("site.toml", first.as_str()),
        (
            "inventory/nodes.toml",
            "[groups.db]\nservices = [\"db\"]\n[groups.app]\nservices = [\"app\"]\n\n[nodes.n1]\ngroups = [\"db\"]\n\n[nodes.n2]\ngroups = [\"app\"]\n",
        ),
        ("services/db/service.toml", DB),
        ("services/app/service.toml", APP),
    ];
    let mut fleet = Fleet::new(kind, &files);
    let port = |fleet: &Fleet, value: &str| {
        fs::create_dir_all(fleet.root("n1")).expect("a folder");
        fs::write(fleet.root("n1").join("port"), value).expect("a file");
    };
    let starts = |fleet: &Fleet| [("n1", "near"), ("n1", "apart"), ("n2", "starts")].map(|(n, f)| fleet.lines(n, f));
    port(&fleet, "1");
    fleet.start_agent("n1");
    fleet.start_agent("n2");
    fleet.start_planner("one");
    fleet.converged("one", &fleet.git(&["rev-parse", "HEAD"]));
    assert_eq!(fleet.file("n2", "config").as_deref(), Some("port 1"));
    assert_eq!(fleet.file("n1", "note").as_deref(), Some("1"));
    assert_eq!(starts(&fleet), [1, 1, 1]);

    fleet.kill_planner("one");
    fleet.start_planner("one");
    // It runs again with the same result: only what its run itself restarts follows.
    let commit = fleet.commit(&[("site.toml", &site("two"))], "the same port");
    fleet.converged("one", &commit);
    assert_eq!(fleet.file("n2", "config").as_deref(), Some("port 1"));
    let before = starts(&fleet);
    assert_eq!(before[1..], [1, 1]);

    port(&fleet, "2");
    let commit = fleet.commit(&[("site.toml", &site("three"))], "another port");
    fleet.wait("the other port on n2", || (fleet.file("n2", "config")? == "port 2").then_some(()));
    fleet.converged("one", &commit);
    assert_eq!(fleet.file("n1", "note").as_deref(), Some("2"));
    assert_eq!(starts(&fleet), [before[0] + 1, 1, 2], "only what uses it restarts, once");
    let why = fleet.ask("one", &["why", "n2", "app.server"]).expect("an answer");
    let reason = &why["record"]["reasons"][1];
    assert_eq!(
        (reason["input"].as_str(), reason["before"].as_str(), reason["after"].as_str()),
        (Some("exports.db.port[n1]"), Some("1"), Some("2")),
        "{why:#}"
    );
}
