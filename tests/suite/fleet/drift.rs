//! Drift: the agents check, the planner shows the result, and nothing is changed. For healing see `healing`.

use std::fs;

use groundplan_tests::{brokers::Kind, fleet::Fleet};
use serde_json::{Value, json};

use super::{web, with_both_brokers};

with_both_brokers!(a_drift_check_reports_and_changes_nothing);

/// The part of a node in the output of `groundplan drift`.
fn of<'a>(drift: &'a Value, node: &str) -> &'a Value {
    let nodes = drift["nodes"].as_array().expect("nodes");
    nodes.iter().find(|of| of["node"] == node).unwrap_or_else(|| panic!("no {node} in {drift:#}"))
}

fn a_drift_check_reports_and_changes_nothing(kind: Kind) {
    let mut fleet = Fleet::started(kind, &web(), &["n1", "n2"]);
    fleet.converged("one", &fleet.git(&["rev-parse", "HEAD"]));
    let clean = fleet.ask("one", &["drift"]).expect("nothing has drifted");
    assert_eq!((&of(&clean, "n1")["check"]["checked"], &of(&clean, "n1")["check"]["left_out"]), (&json!(2), &json!(0)));

    let edited = fleet.root("n1").join("etc/web.conf");
    fs::write(&edited, "greeting = another\n").expect("a file");
    fs::remove_file(fleet.root("n2").join("etc/web.conf")).expect("a file");
    let (good, drift) = fleet.run_json("one", &["drift"]);
    let drift = drift.expect("an answer");
    assert!(!good, "by the exit code: {drift:#}");
    let config = &of(&drift, "n1")["drifted"]["web.config"];
    assert_eq!((&config["policy"], &config["healing"]), (&json!("report"), &json!(false)), "{drift:#}");
    let diff = config["differences"][0]["diff"].as_str().unwrap_or_default();
    assert!(diff.contains("\n-greeting = one\n+greeting = another\n"), "{drift:#}");
    let missing = json!([{ "what": "file", "expected": "present" }]);
    assert_eq!(of(&drift, "n2")["drifted"]["web.config"]["differences"], missing);
    assert_eq!(fs::read_to_string(&edited).expect("a file"), "greeting = another\n", "it is left alone");
    assert_eq!(fleet.lines("n1", "starts"), 1);

    // The check of the next agent on this node counts, whatever its revision. Its ledger still has the digest of what was shipped.
    fleet.kill_agent("n1");
    fs::write(&edited, "greeting = a third\n").expect("a file");
    fleet.start_agent("n1");
    let next = fleet.wait("the next agent's report", || {
        let drift = fleet.run_json("one", &["drift", "--on", "n1"]).1?;
        let diff = of(&drift, "n1")["drifted"]["web.config"]["differences"][0]["diff"].as_str()?.to_owned();
        diff.contains("+greeting = a third").then_some(drift)
    });
    assert_eq!(next["nodes"].as_array().map(Vec::len), Some(1));

    // Repaired by hand: nothing is left, without a requested check.
    fleet.ask("one", &["recheck"]).expect("an answer");
    let last = fleet.wait("the agents' own second check", || {
        let (good, last) = fleet.run_json("one", &["drift", "--last"]);
        good.then_some(last?)
    });
    assert_eq!(of(&last, "n1")["drifted"], Value::Null);
    assert_eq!(fs::read_to_string(&edited).expect("a file"), "greeting = one\n");
}
