//! A stolen node key makes up generations: the planner believes only those that a planner signed, so that the others are not locked out.

use groundplan_protocol::{
    digest::Digest,
    envelope::{PlanReceipt, SigningKey, seal},
    ids::{Generation, LedgerId, NodeId, SiteName},
    state::NodeState,
};
use groundplan_tests::{
    brokers::Kind,
    fleet::{Fleet, SITE, texts},
    publish::publish,
};

const NODES: [&str; 2] = ["n1", "n2"];

fn site(content: &str) -> Vec<(&'static str, String)> {
    let task = format!("[[task]]\nid = \"t\"\nfile = {{ path = \"/t\", content = \"{content}\" }}\n");
    vec![
        ("site.toml", format!("name = \"{SITE}\"\n")),
        ("inventory/nodes.toml", "[nodes.n1]\n\n[nodes.n2]\n\n[groups.all]\nservices = [\"s\"]\n".to_owned()),
        ("services/s/service.toml", task),
    ]
}

fn commit(fleet: &Fleet, content: &str) -> String {
    fleet.commit(&texts(&site(content)), content)
}

/// A state as the agent of `n2` would publish it, at any generation.
fn state(revision: u64, generation: Generation, receipt: Option<PlanReceipt>) -> NodeState {
    let (site, node) = (SiteName::new(SITE).unwrap(), NodeId::new("n2").unwrap());
    let ledger = LedgerId::new("0123456789abcdef0123456789abcdef").unwrap();
    let encryption_key = Some(Fleet::node_key("n2").decryption().public());
    NodeState { revision, generation, receipt, encryption_key, ..NodeState::empty(site, node, ledger) }
}

fn generation(fleet: &Fleet) -> u64 {
    fleet.wait("the generation of n1", || fleet.ask("one", &["show", "n1"])?["generation"].as_u64())
}

fn rejections(fleet: &Fleet) -> u64 {
    fleet.ask("one", &["show", "n2"]).and_then(|node| node["rejected"]["count"].as_u64()).unwrap_or(0)
}

/// All that the thief of `n2`'s key can make up.
fn attack(fleet: &Fleet) {
    let (site, n1, n2) = (SiteName::new(SITE).unwrap(), NodeId::new("n1").unwrap(), NodeId::new("n2").unwrap());
    let (theirs, planner) = (Fleet::node_key("n2"), Fleet::planner_key());
    let made_up = |key: &SigningKey, node: &NodeId, of: u64| {
        Some(PlanReceipt::sign(key, &site, node, Generation(of), (Digest::of(b"{}"), 1)))
    };
    let cases = [
        (1 << 48, None),
        ((1 << 53) - 1, None),
        (u64::MAX - 2, None),
        (u64::MAX - 2, made_up(&planner, &n2, u64::MAX - 2)),
        (1 << 48, made_up(&theirs, &n2, 1 << 48)),
        // What a planner did sign, but for another node, or another generation.
        (1 << 48, made_up(&planner, &n1, 1 << 48)),
        (1 << 48, made_up(&planner, &n2, 1)),
    ];
    for (revision, (claimed, receipt)) in (1 << 40..).zip(cases) {
        let before = rejections(fleet);
        let forged = seal(&theirs, &state(revision, Generation(claimed), receipt));
        publish(fleet.broker.address(), &format!("groundplan/1/{SITE}/node/n2/state"), forged, true);
        fleet.wait(&format!("the refusal of generation {claimed}"), || (rejections(fleet) > before).then_some(()));
    }
}

fn a_stolen_node_key_does_not_use_up_the_generations(kind: Kind) {
    let mut fleet = Fleet::started(kind, &texts(&site("one")), &NODES);
    fleet.converged("one", &fleet.git(&["rev-parse", "HEAD"]));
    fleet.terminate_agent("n2");
    attack(&fleet);
    let file = |fleet: &Fleet, content: &str| {
        fleet.wait("the file", || (fleet.file("n1", "t")? == content).then_some(()));
    };
    commit(&fleet, "two");
    file(&fleet, "two");
    let at = generation(&fleet);
    assert!(at < 1000, "{at}");

    // Without its store, the planner goes on from what the nodes' receipts prove; the forged states are still at the broker.
    fleet.kill_planner("one");
    std::fs::remove_dir_all(fleet.planner_state("one")).expect("the planner's disk");
    fleet.start_planner("one");
    commit(&fleet, "three");
    file(&fleet, "three");
    attack(&fleet);
    commit(&fleet, "four");
    file(&fleet, "four");
    let after = generation(&fleet);
    assert!(after > at && after < 1000, "{at}, {after}");
    // The node itself is back as soon as it has its key to itself.
    fleet.start_agent("n2");
    fleet.converged("one", &fleet.git(&["rev-parse", "HEAD"]));
}

#[test]
fn a_stolen_node_key_does_not_use_up_the_generations_embedded() {
    a_stolen_node_key_does_not_use_up_the_generations(Kind::Embedded);
}

#[test]
fn a_stolen_node_key_does_not_use_up_the_generations_mosquitto() {
    a_stolen_node_key_does_not_use_up_the_generations(Kind::Mosquitto);
}
