//! Drift under the policy `heal`: it is repaired, in turns, with only the restarts that follow from it.

use std::fs;

use groundplan_tests::{brokers::Kind, fleet::Fleet};
use serde_json::Value;

use super::{BOTH, web, with_both_brokers};

with_both_brokers!(
    a_changed_policy_applies_to_reported_drift,
    a_repair_restarts_what_follows,
    healing_waits_for_its_turn,
    what_drifts_again_at_once_is_not_healed_at_once,
    what_failed_in_a_rollout_is_not_healed
);

/// The server, with a policy of its own and rolling limits.
fn service(policy: &str) -> String {
    let (_, text) = web().into_iter().find(|(path, _)| *path == "services/web/service.toml").expect("a service");
    format!("{text}\n[drift]\npolicy = {policy:?}\n\n[rollout]\nmax_unavailable = 1\n")
}

/// A site whose nodes check every second.
fn site() -> Vec<(&'static str, &'static str)> {
    let mut files = web();
    for (path, text) in &mut files {
        if *path == "site.toml" {
            *text = "name = \"testsite\"\n[vars]\ngreeting = \"one\"\n[drift]\ninterval = \"1s\"\n";
        }
    }
    files
}

fn drift(fleet: &Fleet, args: &[&str]) -> Value {
    let args: Vec<&str> = ["drift"].iter().chain(args).copied().collect();
    fleet.run_json("one", &args).1.expect("an answer")
}

/// Edits the configuration on a node out of band.
fn tamper(fleet: &Fleet, node: &str) {
    fs::write(fleet.root(node).join("etc/web.conf"), "greeting = another\n").expect("a file");
}

fn a_changed_policy_applies_to_reported_drift(kind: Kind) {
    let fleet = Fleet::started(kind, &web(), &BOTH);
    fleet.converged("one", &fleet.git(&["rev-parse", "HEAD"]));
    tamper(&fleet, "n1");
    let before = fleet.ask("one", &["status"]).expect("a status")["generation"].clone();
    let report = drift(&fleet, &["--on", "n1", "web.config"]);
    assert_eq!(report["nodes"][0]["drifted"]["web.config"]["policy"], "report", "{report:#}");
    assert_eq!(fleet.ask("one", &["status"]).expect("a status")["generation"], before, "a check is no plan");
    assert!(fleet.run_json("one", &["drift", "--on", "unknown"]).1.is_none(), "the site has no such node");

    let commit = fleet.commit(&[("services/web/service.toml", &service("heal"))], "heal");
    fleet.converged("one", &commit);
    fleet.wait("the file", || (fleet.file("n1", "etc/web.conf")? == "greeting = one\n").then_some(()));
    fleet.wait("the restart", || (fleet.lines("n1", "starts") == 2).then_some(()));
    assert_eq!(fleet.lines("n2", "starts"), 1);
}

fn a_repair_restarts_what_follows(kind: Kind) {
    let mut files = site();
    let text = service("heal");
    files.retain(|(path, _)| *path != "services/web/service.toml");
    files.push(("services/web/service.toml", &text));
    let fleet = Fleet::started(kind, &files, &BOTH);
    fleet.converged("one", &fleet.git(&["rev-parse", "HEAD"]));
    for round in 2..4 {
        tamper(&fleet, "n1");
        fleet.wait("the file", || (fleet.file("n1", "etc/web.conf")? == "greeting = one\n").then_some(()));
        fleet.wait("the restart", || (fleet.lines("n1", "starts") == round).then_some(()));
    }
    assert_eq!(fleet.lines("n2", "starts"), 1);
    let why = fleet.ask("one", &["why", "n1", "web.server"]).expect("an explanation");
    assert!(why.to_string().contains("drifted"), "the chain ends at the drift: {why:#}");
    let report = drift(&fleet, &[]);
    assert!(report["nodes"].as_array().expect("nodes").iter().all(|n| n["drifted"].is_null()), "{report:#}");
}

/// A server that spoils its own configuration whenever it starts.
fn what_drifts_again_at_once_is_not_healed_at_once(kind: Kind) {
    let mut files = web();
    let text = service("heal").replace("echo $$ >> starts;", "echo spoiled > etc/web.conf; echo $$ >> starts;");
    files.retain(|(path, _)| !matches!(*path, "services/web/service.toml" | "site.toml"));
    files.push(("services/web/service.toml", &text));
    files.push(("site.toml", "name = \"testsite\"\n[vars]\ngreeting = \"one\"\n[drift]\ninterval = \"0s\"\n"));
    let fleet = Fleet::started(kind, &files, &["n1"]);
    fleet.converged("one", &fleet.git(&["rev-parse", "HEAD"]));
    drift(&fleet, &[]);
    fleet.wait("the restart", || (fleet.lines("n1", "starts") == 2).then_some(()));
    let report = fleet.wait("the next check", || {
        let report = drift(&fleet, &[]);
        (!report["nodes"][0]["drifted"]["web.config"]["tried_ms"].is_null()).then_some(report)
    });
    assert_eq!(report["nodes"][0]["drifted"]["web.config"]["healing"], false, "{report:#}");
    assert_eq!(fleet.lines("n1", "starts"), 2, "a restart after each check would have no end");
}

fn healing_waits_for_its_turn(kind: Kind) {
    let mut files = site();
    let text = service("heal").replace(
        "restart_on = [\"config\"]",
        "restart_on = [\"config\"]\nready = { command = \"test ! -e wait\", interval = \"50ms\" }",
    );
    files.retain(|(path, _)| *path != "services/web/service.toml");
    files.push(("services/web/service.toml", &text));
    let fleet = Fleet::started(kind, &files, &BOTH);
    fleet.converged("one", &fleet.git(&["rev-parse", "HEAD"]));
    let wait = |node: &str| fleet.root(node).join("wait");
    for node in BOTH {
        fs::write(wait(node), "").expect("a file");
        tamper(&fleet, node);
    }
    // The first one is unavailable until it is ready; the other's configuration may be written, but it restarts after that.
    let first = fleet.wait("a restart", || BOTH.into_iter().find(|node| fleet.lines(node, "starts") == 2));
    let other = BOTH.into_iter().find(|node| *node != first).expect("the other");
    fleet
        .wait("the other's configuration", || (fleet.file(other, "etc/web.conf")? == "greeting = one\n").then_some(()));
    let turn = fleet.wait("the other to wait", || {
        let why = fleet.ask("one", &["why", other, "web.server"])?;
        (why["record"]["state"] == "pending").then_some(why)
    });
    assert!(turn.to_string().contains("drifted"), "{turn:#}");
    assert_eq!(fleet.lines(other, "starts"), 1);
    for node in [first, other] {
        fs::remove_file(wait(node)).expect("its file");
        fleet.wait("the restart", || (fleet.lines(node, "starts") == 2).then_some(()));
        assert_eq!(fleet.file(node, "etc/web.conf").as_deref(), Some("greeting = one\n"));
    }
}

fn what_failed_in_a_rollout_is_not_healed(kind: Kind) {
    let files = [
        ("site.toml", "name = \"testsite\"\n[drift]\npolicy = \"heal\"\ninterval = \"1s\"\n"),
        ("inventory/nodes.toml", "[groups.all]\nservices = [\"job\"]\n\n[nodes.n1]\n"),
        (
            "services/job/service.toml",
            "[[task]]\nid = \"file\"\nfile = { path = \"/there\", content = \"one\\n\" }\n\n\
             [[task]]\nid = \"bad\"\ncommand = { run = \"echo ran >> runs; false\", creates = \"/never\" }\n",
        ),
    ];
    let fleet = Fleet::started(kind, &files, &["n1"]);
    fleet.failed("one", &fleet.git(&["rev-parse", "HEAD"]));
    for _ in 0..3 {
        let report = drift(&fleet, &[]);
        assert_eq!(report["nodes"][0]["check"]["checked"], 1, "what failed is left to the next commit: {report:#}");
    }
    // What drifts beside it is healed nevertheless.
    fs::write(fleet.root("n1").join("there"), "two\n").expect("a file");
    fleet.wait("the file", || (fleet.file("n1", "there")? == "one\n").then_some(()));
    assert!(fleet.lines("n1", "runs") <= 2, "only with the plan that healed the file, not with every check");
}
