//! Bad input: messages that are forged, stale, foreign or broken; trees that are no site; hosts that cannot be written.

use groundplan_protocol::{
    VERSION,
    blob::{BlobRef, Content},
    digest::{Digest, Fingerprint},
    effect::Action,
    envelope::SigningKey,
    ids::{CommitId, Generation, NodeId, SiteName},
    kinds::{File, TaskParams},
    plan::{Edges, NodePlan, OnInterrupt, PlanBody, PlanOffer, PlanText, PlannedTask, TaskSpec},
};
use groundplan_tests::{
    brokers::Kind,
    fleet::{Fleet, SITE},
    publish::{encrypted, publish},
};
use serde_json::Value;

use super::{BOTH, greeting, web, with_both_brokers};

/// A plan for `n1` that would write `/forged`.
fn forged(generation: u64) -> NodePlan {
    let params = TaskParams::File(File {
        source: None,
        content: None,
        path: "/forged".into(),
        owner: None,
        group: None,
        mode: None,
        validate: None,
        force: false,
    });
    NodePlan {
        version: VERSION,
        site: SiteName::new(SITE).unwrap(),
        node: NodeId::new("n1").unwrap(),
        generation: Generation(generation),
        commit: CommitId::new("0".repeat(40)).unwrap(),
        tasks: vec![PlannedTask {
            task: "web.forged".parse().unwrap(),
            action: Action::Create,
            spec: Some(TaskSpec {
                params,
                content: Some(Content::Text("forged".into())),
                ready: None,
                external: vec![],
                on_interrupt: OnInterrupt::default(),
            }),
            fingerprint: Some(Fingerprint(Digest::of(b"forged"))),
            inputs: Default::default(),
            edges: Edges::default(),
            after: vec![],
            gates: vec![],
            triggers: vec![],
            obligation: None,
            since: None,
            from: vec![],
            into: vec![],
            retry: None,
        }],
        edges: Default::default(),
        ledger: None,
    }
}

/// What a planner offers of it, as the one whose key all of the fleet trust.
fn offer(plan: &NodePlan) -> PlanOffer {
    let of = (plan.site.clone(), plan.node.clone(), plan.generation);
    PlanOffer::new(&Fleet::planner_key(), 1 << 40, of, PlanText::of(plan), (0, u64::MAX))
}

fn seal_for_n1(key: &SigningKey, offer: &PlanOffer) -> Vec<u8> {
    encrypted(key, &Fleet::node_key("n1"), offer)
}

/// The entry of node `n1` in a status.
fn n1(status: &Value) -> Value {
    let nodes = status["nodes"].as_array().expect("nodes");
    nodes.iter().find(|n| n["node"] == "n1").cloned().expect("n1")
}

/// The exit code of `groundplan <args>`.
fn exit_code(fleet: &Fleet, args: &[&str]) -> i32 {
    fleet.output("one", args).status.code().expect("it was not killed")
}

with_both_brokers!(messages_that_are_not_for_this_agent, foreign_payloads);

fn messages_that_are_not_for_this_agent(kind: Kind) {
    let fleet = Fleet::started(kind, &web(), &BOTH);
    fleet.converged("one", &fleet.git(&["rev-parse", "HEAD"]));
    let agent = fleet.agent_pid("n1");
    let ours = SigningKey::from_seed([7; 32]);
    let theirs = SigningKey::from_seed([9; 32]);
    let mut huge = offer(&forged(1000));
    huge.body = PlanBody::Blob(BlobRef { sha256: huge.receipt.plan, size: 2 << 30 });
    let expired = PlanOffer { not_after_ms: 1_790_000_000_000, ..offer(&forged(1000)) };
    let mut truncated = seal_for_n1(&ours, &offer(&forged(1000)));
    truncated.truncate(truncated.len() / 2);
    let elsewhere = NodePlan { site: SiteName::new("elsewhere").unwrap(), ..forged(1000) };
    let other_node = NodePlan { node: NodeId::new("n2").unwrap(), ..forged(1000) };
    let cases = [
        ("signed", seal_for_n1(&theirs, &offer(&forged(1000)))),
        ("elsewhere", seal_for_n1(&ours, &offer(&elsewhere))),
        ("n2", seal_for_n1(&ours, &offer(&other_node))),
        ("generation", seal_for_n1(&ours, &offer(&forged(0)))),
        ("envelope", truncated),
        ("2 GiB", seal_for_n1(&ours, &huge)),
        ("expired", seal_for_n1(&ours, &expired)),
        ("decrypted", encrypted(&ours, &theirs, &offer(&forged(1000)))),
        ("ledger", seal_for_n1(&ours, &offer(&forged(1000)))),
    ];
    for (word, payload) in cases {
        publish(fleet.broker.address(), &format!("groundplan/1/{SITE}/node/n1/plan"), payload, false);
        fleet.wait(&format!("the refusal to name `{word}`"), || {
            n1(&fleet.ask("one", &["status"])?)["refused"].to_string().contains(word).then_some(())
        });
        fleet.wait("the agent's log to name it too", || fleet.logged("n1").contains(word).then_some(()));
    }
    assert_eq!(fleet.file("n1", "forged"), None);
    let commit = fleet.commit(&[("site.toml", &greeting("two"))], "two");
    fleet.converged("one", &commit);
    assert_eq!(fleet.agent_pid("n1"), agent, "the agent still runs");
    assert_eq!(fleet.lines("n1", "starts"), 2);
}

fn foreign_payloads(kind: Kind) {
    let fleet = Fleet::started(kind, &web(), &BOTH);
    fleet.converged("one", &fleet.git(&["rev-parse", "HEAD"]));
    let topics = [
        "node/n1/plan",
        "node/n1/gates",
        "node/n1/ack",
        "node/n1/state",
        "node/n1/report",
        "node/n1/presence",
        "node/n1/want",
        "node/unknown/state",
        "planner",
    ];
    for topic in topics {
        for payload in
            [&b"\xff\xfe\0"[..], b"{}", b"[1,2", b"null", b"{\"payload\":\"\",\"payloadType\":\"x\",\"signatures\":[]}"]
        {
            publish(fleet.broker.address(), &format!("groundplan/1/{SITE}/{topic}"), payload.to_vec(), false);
        }
    }
    let commit = fleet.commit(&[("site.toml", &greeting("two"))], "two");
    let status = fleet.converged("one", &commit);
    assert!(status["ignored"].as_u64().is_some_and(|n| n > 0), "the planner counts them: {status:#}");
    fleet.wait("the agent's count", || n1(&fleet.ask("one", &["status"])?)["ignored"].as_u64().filter(|n| *n > 0));
    for node in BOTH {
        assert_eq!(fleet.lines(node, "starts"), 2);
    }
}

#[test]
fn a_broken_commit_is_refused_and_the_last_good_one_stays() {
    let fleet = Fleet::started(Kind::Embedded, &web(), &BOTH);
    let good = fleet.git(&["rev-parse", "HEAD"]);
    fleet.converged("one", &good);
    let broken = fleet.commit(&[("services/web/web.conf.j2", "greeting = {{ greting }}\n")], "a slip");
    let status = fleet.wait("the refusal", || {
        let status = fleet.ask("one", &["status"])?;
        status["refused"].to_string().contains(&broken).then_some(status)
    });
    assert!(status["refused"].to_string().contains("greting"), "{status:#}");
    assert!(status["refused"].to_string().contains("greeting"), "the nearest name is offered: {status:#}");
    assert_eq!(fleet.file("n1", "etc/web.conf").as_deref(), Some("greeting = one\n"));
    assert_eq!(status["troubles"][0]["is"], "refused_commit", "{status:#}");
    assert_eq!(exit_code(&fleet, &["status", "--exit-code"]), 2);
    assert_eq!(exit_code(&fleet, &["status"]), 0);
    let fixed = fleet.commit(&[("services/web/web.conf.j2", "hello = {{ greeting }}\n")], "fixed");
    fleet.converged("one", &fixed);
    assert_eq!(fleet.file("n1", "etc/web.conf").as_deref(), Some("hello = one\n"));
    assert_eq!(exit_code(&fleet, &["status", "--exit-code"]), 0, "nothing is wrong any more");
    let history = fleet.ask("one", &["history", "--kind", "refused"]).expect("a history");
    let refusals = history["refusals"].as_array().expect("refused commits");
    assert_eq!(refusals.len(), 1, "{history:#}");
    assert_eq!((&refusals[0]["commit"]["id"], &history["rollouts"]), (&broken.into(), &Value::Array(vec![])));
    assert!(refusals[0]["diagnostics"].to_string().contains("greting"), "{history:#}");
    let text = fleet.text("one", &["history"]);
    let line = text.lines().find(|line| line.contains("a slip")).unwrap_or_else(|| panic!("{text}"));
    assert!(line.contains("refused") && line.contains("1 error"), "{line}");
}

#[test]
fn a_force_push_is_planned_from_where_each_node_is() {
    let fleet = Fleet::started(Kind::Embedded, &web(), &BOTH);
    let first = fleet.git(&["rev-parse", "HEAD"]);
    fleet.converged("one", &first);
    let second = fleet.commit(&[("site.toml", &greeting("two"))], "two");
    fleet.converged("one", &second);
    fleet.git(&["reset", "-q", "--hard", &first]);
    fleet.converged("one", &first);
    assert_eq!(fleet.file("n1", "etc/web.conf").as_deref(), Some("greeting = one\n"));
    assert_eq!(fleet.lines("n1", "starts"), 3);
}

#[test]
fn a_tree_that_is_no_site_leaves_the_last_good_state() {
    let fleet = Fleet::started(Kind::Embedded, &web(), &BOTH);
    fleet.converged("one", &fleet.git(&["rev-parse", "HEAD"]));
    let broken = fleet.commit(&[("site.toml", "")], "no site any more");
    fleet.wait("the refusal", || fleet.ask("one", &["status"])?["refused"].to_string().contains(&broken).then_some(()));
    std::os::unix::fs::symlink("/etc/passwd", fleet.repository().join("services/web/link")).unwrap();
    let linked = r#"
[[task]]
id = "config"
file = { source = "link", path = "/etc/web.conf" }
"#;
    let broken = fleet.commit(&[("site.toml", &greeting("one")), ("services/web/service.toml", linked)], "a link");
    let status = fleet.wait("the refusal", || {
        let status = fleet.ask("one", &["status"])?;
        status["refused"].to_string().contains(&broken).then_some(status)
    });
    assert!(status["refused"].to_string().contains("symbolic link"), "{status:#}");
    assert_eq!(fleet.file("n1", "etc/web.conf").as_deref(), Some("greeting = one\n"));
}

#[test]
fn a_host_that_cannot_be_written_fails_that_task_and_blocks_what_depends_on_it() {
    let mut fleet = Fleet::new(Kind::Embedded, &web());
    // A file where the folder should be.
    std::fs::create_dir_all(fleet.root("n1")).unwrap();
    std::fs::write(fleet.root("n1").join("etc"), "in the way").unwrap();
    for node in BOTH {
        fleet.start_agent(node);
    }
    fleet.start_planner("one");
    let status = fleet.failed("one", &fleet.git(&["rev-parse", "HEAD"]));
    assert_eq!(fleet.lines("n1", "starts"), 0, "what depends on it waits: {status:#}");
    assert_eq!(fleet.lines("n2", "starts"), 1, "everything else proceeds");
    assert_eq!(status["troubles"][0]["is"], "failed_rollout", "{status:#}");
    assert_eq!(exit_code(&fleet, &["status", "--exit-code"]), 2);
    let why = fleet.ask("one", &["why", "n1", "web.server"]).expect("an explanation").to_string();
    assert!(why.contains("web.config"), "{why}");
    let why = fleet.ask("one", &["why", "n1", "web.config"]).expect("an explanation").to_string();
    assert!(why.contains("/etc"), "the path is named: {why}");
    std::fs::remove_file(fleet.root("n1").join("etc")).unwrap();
    let commit = fleet.commit(&[], "again");
    fleet.converged("one", &commit);
    assert_eq!(fleet.lines("n1", "starts"), 1);
}
