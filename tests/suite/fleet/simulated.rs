//! Many simulated agents at one planner: that they can be measured with, and what a broker does to so many messages.

use std::time::Instant;

use groundplan_broker::Limits;
use groundplan_tests::{
    brokers::{Kind, Options, TestBroker},
    fleet::{Fleet, PATIENCE, SITE},
    simulated::{
        Mark, Settings, SimulatedAgents,
        site::{Shape, Site},
    },
};
use nix::sys::signal::Signal;
use serde_json::Value;

fn texts(files: &[(String, String)]) -> Vec<(&str, &str)> {
    files.iter().map(|(path, text)| (path.as_str(), text.as_str())).collect()
}

fn agents(fleet: &Fleet, site: &Site) -> SimulatedAgents {
    let embedded = fleet.embedded_address();
    SimulatedAgents::start(Settings {
        broker: embedded.unwrap_or_else(|| fleet.broker.address()),
        site: SITE.parse().unwrap(),
        planner: Fleet::planner_key().public(),
        nodes: site.agents(|node| embedded.map(|_| fleet.password(node.as_str()))),
    })
}

fn wait_for(fleet: &Fleet, agents: &SimulatedAgents, nodes: usize, mark: &Mark) {
    let took = agents.wait_for(nodes, mark, Instant::now(), PATIENCE);
    let done = agents.settled_since(mark);
    assert!(took.is_some(), "{done} of {nodes} nodes are done\n{}", fleet.logged("planner-one"));
}

/// The nodes of which the planner has not received all.
fn incomplete(status: &Value, tasks: usize) -> Vec<&str> {
    let nodes = status["nodes"].as_array().unwrap();
    let is_complete =
        |node: &&Value| !node["phase"].is_null() && node["applied"] == tasks && node["presence"] == "online";
    nodes.iter().filter(|node| !is_complete(node)).map(|node| node["node"].as_str().unwrap()).collect()
}

fn follow(kind: Kind, shape: Shape) {
    let site = Site { shape, nodes: 20, tasks: 6 };
    let mut fleet = Fleet::new(Kind::Mosquitto, &texts(&site.inventory()));
    if kind == Kind::Embedded {
        fleet.embed_broker();
    }
    let agents = agents(&fleet, &site);
    fleet.start_planner("one");
    let mut mark = agents.mark();
    let mut deployed = |files: &[(String, String)], nodes: usize| {
        let commit = fleet.commit(&texts(files), "more");
        wait_for(&fleet, &agents, nodes, &mark);
        let status = fleet.converged("one", &commit);
        assert_eq!(incomplete(&status, 6), [""; 0]);
        mark = agents.mark();
    };
    deployed(&site.services(), 20);
    deployed(&[site.text("one")], 20);
    deployed(&[site.own("one")], 1);
    agents.begin_again();
    wait_for(&fleet, &agents, 20, &mark);
    let mark = agents.mark();
    agents.leave();
    let commit = fleet.commit(&texts(&[site.text("two")]), "while all are away");
    agents.come_back();
    wait_for(&fleet, &agents, 20, &mark);
    assert_eq!(incomplete(&fleet.converged("one", &commit), 6), [""; 0]);
}

#[test]
fn simulated_agents_follow_commits() {
    follow(Kind::Mosquitto, Shape::Plain);
}

#[test]
fn simulated_agents_follow_commits_of_a_planner_with_its_own_broker() {
    follow(Kind::Embedded, Shape::Plain);
}

#[test]
fn simulated_agents_wait_for_each_other() {
    follow(Kind::Mosquitto, Shape::Barrier);
    follow(Kind::Mosquitto, Shape::Rolling);
}

/// A broker that drops what its queue for a client has no room for, as Mosquitto does beyond 1000 messages unless it is configured.
fn forgetful() -> TestBroker {
    let limits = Limits { max_in_flight: 20, ..Limits::default() };
    TestBroker::start_with(Kind::Mosquitto, Options { limits, mosquitto_queue: 100, ..Options::default() })
}

#[test]
fn a_planner_without_its_store_asks_for_what_the_broker_drops() {
    let site = Site { shape: Shape::Plain, nodes: 300, tasks: 4 };
    let mut fleet = Fleet::around(forgetful(), &texts(&site.inventory()));
    let commit = fleet.commit(&texts(&site.services()), "tasks");
    let agents = agents(&fleet, &site);
    // State and presence of each are retained: 600 messages, of which the broker sends a new client 120.
    fleet.wait("what the agents write", || (agents.traffic().confirmed >= 600).then_some(()));
    let mark = agents.mark();
    fleet.start_planner("one");
    let status = fleet.converged("one", &commit);
    assert_eq!(incomplete(&status, 4), [""; 0], "the rollout is said to have succeeded");
    assert_eq!(agents.settled_since(&mark), 300);
    let next = fleet.commit(&texts(&[site.text("next")]), "next");
    wait_for(&fleet, &agents, 300, &mark);
    fleet.converged("one", &next);
}

#[test]
fn a_planner_asks_for_what_the_broker_drops_of_agents_that_come_at_one_moment() {
    let site = Site { shape: Shape::Plain, nodes: 300, tasks: 4 };
    let mut fleet = Fleet::around(forgetful(), &texts(&site.inventory()));
    fleet.start_planner("one");
    let commit = fleet.commit(&texts(&site.services()), "tasks");
    fleet.wait("a plan of the commit", || fleet.rollout_of("one", &commit));
    // A planner that is busy for a moment: of what they write meanwhile, the broker has room for a part.
    fleet.signal_planner("one", Signal::SIGSTOP);
    let agents = agents(&fleet, &site);
    let mark = agents.mark();
    fleet.wait("what the agents write", || (agents.traffic().confirmed >= 600).then_some(()));
    fleet.signal_planner("one", Signal::SIGCONT);
    wait_for(&fleet, &agents, 300, &mark);
    let complete = || fleet.planned("one", &commit).filter(|status| incomplete(status, 4).is_empty());
    fleet.wait("the state of each node", complete);
}
