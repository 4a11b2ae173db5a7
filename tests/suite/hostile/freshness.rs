//! A broker keeps signed messages, and brings them when it likes.

use std::fs;

use groundplan_tests::{
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
