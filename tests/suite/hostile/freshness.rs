//! A broker keeps signed messages, and brings them when it likes.

use std::{fs, os::unix::fs::PermissionsExt as _, process::Command};

use groundplan_tests::{
    binaries,
    brokers::Kind,
    fleet::{Fleet, SITE},
    publish::{publish, retained},
};

use crate::fleet::{greeting, web};

#[test]
fn a_plan_from_before_does_not_count_for_a_node_that_lost_its_ledger() {
    let mut fleet = Fleet::started(Kind::Mosquitto, &web(), &["n1", "n2"]);
    fleet.converged("one", &fleet.git(&["rev-parse", "HEAD"]));
    let topic = format!("groundplan/1/{SITE}/node/n1/plan");
    let old = retained(fleet.broker.address(), &topic);
    let commit = fleet.commit(&[("site.toml", &greeting("two"))], "two");
    fleet.converged("one", &commit);

    // The node loses what it has recorded, and its planner is away: only the broker is there.
    fleet.terminate_planner("one");
    fleet.terminate_agent("n1");
    for file in ["ledger.redb", "started"] {
        fs::remove_file(fleet.agent_state("n1").join(file)).expect("the agent's ledger");
    }
    let config = fleet.root("n1").join("etc/web.conf");
    fs::remove_file(&config).expect("what was applied");
    publish(fleet.broker.address(), &topic, old, true);
    fleet.start_agent("n1");
    fleet.wait("the plan to be weighed", || fleet.logged("n1").contains("is for ledger").then_some(()));
    assert!(!config.exists(), "the plan from before was carried out");

    // The planner answers for the ledger that the node has now.
    fleet.start_planner("one");
    fleet.wait("the file", || (fleet.file("n1", "etc/web.conf")? == "greeting = two\n").then_some(()));
    fleet.converged("one", &commit);
}

#[test]
fn an_agent_that_hears_nothing_new_says_so() {
    let mut fleet = Fleet::new(Kind::Mosquitto, &web());
    let agent = fleet.repository().with_file_name("impatient-agent");
    let script = format!("#!/bin/sh\nexec {} --silence 3s \"$@\"\n", binaries::agent().display());
    fs::write(&agent, script).expect("a script");
    fs::set_permissions(&agent, fs::Permissions::from_mode(0o755)).expect("its mode");
    fleet.use_agent(agent);
    fleet.start_planner("one");
    for node in ["n1", "n2"] {
        fleet.start_agent(node);
    }
    fleet.converged("one", &fleet.git(&["rev-parse", "HEAD"]));

    // A planner shows itself each minute: to this agent, it is as silent as one whose messages are kept back.
    let silent = |fleet: &Fleet| fleet.text("one", &["status"]).contains("no planner was heard for 3s");
    fleet.wait("the silence in the status", || silent(&fleet).then_some(()));
    let check = |fleet: &Fleet| {
        let state = fleet.agent_state("n1");
        let output =
            Command::new(binaries::agent()).args(["--check", "--silence", "3s", "--state-dir"]).arg(state).output();
        let output = output.expect("the agent runs");
        (output.status.code(), String::from_utf8(output.stdout).expect("text"))
    };
    let (code, text) = check(&fleet);
    assert!(code == Some(1) && text.contains("and none since"), "{code:?} {text}");

    // What was signed before shows nothing, however often it comes.
    let topic = format!("groundplan/1/{SITE}/heartbeat");
    let old = retained(fleet.broker.address(), &topic);
    for _ in 0..20 {
        publish(fleet.broker.address(), &topic, old.clone(), true);
    }
    let commit = fleet.commit(&[("site.toml", &greeting("two"))], "two");
    fleet.converged("one", &commit);
    assert!(silent(&fleet) && !fleet.logged("n1").contains("heard again"), "{}", fleet.logged("n1"));

    fleet.terminate_planner("one");
    fleet.start_planner("one");
    fleet.wait("a planner to be heard", || fleet.logged("n1").contains("a planner is heard again").then_some(()));
}
