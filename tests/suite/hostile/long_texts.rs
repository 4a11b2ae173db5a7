//! A stolen node key reports texts that are too long, or meant for a terminal: the planner keeps to the limits that agents keep.

use std::collections::BTreeMap;

use groundplan_protocol::{
    VERSION,
    envelope::seal,
    ids::{Generation, LedgerId, NodeId, Sequence, SiteName},
    limits::REASON_LIMIT,
    presence::Presence,
    report::{Outcome, Output, ReportBatch, TaskReport},
    state::{FACTS_LIMIT, NodeState, Refused},
    text::is_hostile,
};
use groundplan_tests::{
    brokers::Kind,
    fleet::{Fleet, SITE},
    publish::{encrypted, publish},
};
use serde_json::{Value, json};

const FILES: [(&str, &str); 3] = [
    ("site.toml", "name = \"testsite\"\n"),
    ("inventory/nodes.toml", "[nodes.n1]\n\n[nodes.n2]\n\n[groups.all]\nservices = [\"s\"]\n"),
    ("services/s/service.toml", "[[task]]\nid = \"t\"\nfile = { path = \"/t\", content = \"1\" }\n"),
];

fn long() -> String {
    format!("\u{1b}[2J\u{202e}{}", "x".repeat(500_000))
}

fn ledger() -> LedgerId {
    LedgerId::new("0123456789abcdef0123456789abcdef").unwrap()
}

fn names() -> (SiteName, NodeId) {
    (SiteName::new(SITE).unwrap(), NodeId::new("n2").unwrap())
}

fn state(revision: u64, facts: Value) -> NodeState {
    let (site, node) = names();
    let Value::Object(facts) = facts else { unreachable!() };
    NodeState {
        revision,
        facts: facts.into_iter().collect(),
        degraded: BTreeMap::from([("s.t".parse().unwrap(), long())]),
        agent: long(),
        refused: Some(Refused { topic: long(), generation: None, reason: long(), at_ms: 0 }),
        encryption_key: Some(Fleet::node_key("n2").decryption().public()),
        ..NodeState::empty(site, node, ledger())
    }
}

fn presence(trouble: String) -> Presence {
    let (site, node) = names();
    let session = Some("0123456789abcdef".parse().unwrap());
    Presence {
        version: VERSION,
        site,
        node,
        online: true,
        agent: "1".to_owned(),
        ledger: ledger(),
        session,
        trouble: Some(trouble),
    }
}

fn send(fleet: &Fleet, topic: &str, sealed: Vec<u8>) {
    publish(fleet.broker.address(), &format!("groundplan/1/{SITE}/node/n2/{topic}"), sealed, true);
}

/// All texts of an answer.
fn texts<'a>(value: &'a Value, out: &mut Vec<&'a str>) {
    match value {
        Value::String(text) => out.push(text),
        Value::Array(all) => all.iter().for_each(|value| texts(value, out)),
        Value::Object(all) => all.values().for_each(|value| texts(value, out)),
        _ => {}
    }
}

fn is_harmless(what: &str, answer: &Value) {
    let mut all = Vec::new();
    texts(answer, &mut all);
    for text in all {
        assert!(text.chars().count() <= REASON_LIMIT + 20, "{what}: {} bytes: {text:.100}", text.len());
        assert!(!text.chars().any(is_hostile), "{what}: {text:.100?}");
    }
}

#[test]
fn what_a_node_reports_is_cut_and_escaped_or_refused() {
    let mut fleet = Fleet::started(Kind::Mosquitto, &FILES, &["n1", "n2"]);
    fleet.converged("one", &fleet.git(&["rev-parse", "HEAD"]));
    fleet.terminate_agent("n2");
    let key = Fleet::node_key("n2");
    let show = || fleet.ask("one", &["show", "n2"]);

    send(&fleet, "state", seal(&key, &state(1, json!({ "a": "x".repeat(FACTS_LIMIT) }))));
    let refused =
        fleet.wait("the refusal of the facts", || show().filter(|node| node["rejected"]["count"].as_u64() == Some(1)));
    assert_eq!(refused["rejected"]["reason"], "its facts have more than 64 KiB");
    assert!(refused["facts"]["a"].is_null());

    send(&fleet, "state", seal(&key, &state(2, json!({ "a": "fits" }))));
    is_harmless("show", &fleet.wait("the state", || show().filter(|node| node["facts"]["a"] == "fits")));
    is_harmless("status", &fleet.ask("one", &["status"]).expect("an answer"));

    let report = |head: String| TaskReport {
        generation: Generation(1),
        plan: None,
        task: "s.t".parse().unwrap(),
        action: groundplan_protocol::effect::Action::Create,
        outcome: Outcome::Failed { error: long() },
        fingerprint: None,
        claims: Vec::new(),
        contends: Vec::new(),
        started_ms: 0,
        duration_ms: 0,
        output: Some(Output { head, ..Output::default() }),
        export: None,
    };
    let (site, node) = names();
    let batch = ReportBatch {
        version: VERSION,
        site,
        node,
        ledger: ledger(),
        first: Sequence(1),
        generation: Generation(1),
        reports: vec![report("y".repeat(500_000))],
        running: Vec::new(),
        last: Sequence(1),
        acked: Sequence(0),
    };
    send(&fleet, "report", encrypted(&key, &Fleet::planner_key(), &batch));

    // It contradicts itself two hundred times, each time with another text.
    for n in 0..200 {
        send(&fleet, "presence", seal(&key, &presence(format!("{n}\u{1b}[2J{}", "x".repeat(4000)))));
    }
    let last = fleet.wait("the last presence", || {
        show().filter(|node| node["trouble"].as_str().is_some_and(|trouble| trouble.starts_with("199")))
    });
    is_harmless("presence", &last);
    let log = fleet.logged("planner-one");
    assert!(log.matches("cannot go on").count() < 70, "{} lines", log.matches("cannot go on").count());
    assert!(log.lines().all(|line| line.len() < 1000 && !line.chars().any(is_hostile)));
}
