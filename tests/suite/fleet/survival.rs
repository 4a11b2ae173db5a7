//! Parts are killed during a rollout: agent, planner, broker. A pending restart still happens, once.

use groundplan_tests::{brokers::Kind, fleet::Fleet};

use super::{greeting, with_both_brokers};

/// A configuration, a slow step after it, and a server that the configuration restarts.
///
/// `/gate` is how a test holds the slow step: it ends once that file is there.
fn slow() -> Vec<(&'static str, &'static str)> {
    vec![
        ("site.toml", "name = \"testsite\"\n[vars]\ngreeting = \"one\"\n"),
        ("inventory/nodes.toml", "[groups.web]\nservices = [\"web\"]\n\n[nodes.n1]\ngroups = [\"web\"]\n"),
        (
            "services/web/service.toml",
            r#"
[[task]]
id = "config"
template = { source = "web.conf.j2", path = "/etc/web.conf" }

[[task]]
id = "slow"
command = { run = "echo run >> runs; while [ ! -e gate ]; do sleep 0.05; done" }
run_on = ["config"]

[[task]]
id = "server"
process = { run = "echo $$ >> starts; exec sleep 100000" }
restart_on = ["config"]
"#,
        ),
        ("services/web/web.conf.j2", "greeting = {{ greeting }}\n"),
    ]
}

/// The fleet of `slow`, converged, its gate closed again.
fn started(kind: Kind) -> Fleet {
    let fleet = Fleet::new(kind, &slow());
    let mut fleet = fleet;
    open(&fleet);
    fleet.start_agent("n1");
    fleet.start_planner("one");
    fleet.converged("one", &fleet.git(&["rev-parse", "HEAD"]));
    assert_eq!(fleet.lines("n1", "starts"), 1);
    std::fs::remove_file(fleet.root("n1").join("gate")).expect("the gate");
    fleet
}

fn open(fleet: &Fleet) {
    std::fs::create_dir_all(fleet.root("n1")).expect("a root");
    std::fs::write(fleet.root("n1").join("gate"), "").expect("the gate");
}

/// Waits until the slow step of the second rollout runs: configuration written, restart pending.
fn in_the_middle(fleet: &Fleet) {
    fleet.wait("the slow step", || (fleet.lines("n1", "runs") == 2).then_some(()));
    assert_eq!(fleet.lines("n1", "starts"), 1, "not restarted yet");
}

with_both_brokers!(
    agent_killed_between_write_and_restart,
    agent_killed_right_after_the_write,
    planner_killed_during_a_rollout,
    broker_wiped_during_a_rollout,
    a_newer_commit_takes_over_a_pending_restart,
);

fn agent_killed_between_write_and_restart(kind: Kind) {
    let mut fleet = started(kind);
    let commit = fleet.commit(&[("site.toml", &greeting("two"))], "two");
    in_the_middle(&fleet);
    fleet.kill_agent("n1");
    open(&fleet);
    fleet.start_agent("n1");
    fleet.converged("one", &commit);
    assert_eq!(fleet.lines("n1", "starts"), 2, "the pending restart happened, once");
}

fn agent_killed_right_after_the_write(kind: Kind) {
    let mut fleet = started(kind);
    let commit = fleet.commit(&[("site.toml", &greeting("two"))], "two");
    // As soon as the file is there: in most runs before the agent has recorded that it wrote it.
    fleet.wait_closely("the file", || (fleet.file("n1", "etc/web.conf")? == "greeting = two\n").then_some(()));
    fleet.kill_agent("n1");
    open(&fleet);
    fleet.start_agent("n1");
    fleet.converged("one", &commit);
    assert_eq!(fleet.lines("n1", "starts"), 2, "the pending restart happened, once");
}

fn planner_killed_during_a_rollout(kind: Kind) {
    let mut fleet = started(kind);
    let commit = fleet.commit(&[("site.toml", &greeting("two"))], "two");
    in_the_middle(&fleet);
    fleet.kill_planner("one");
    open(&fleet);
    fleet.wait("the agent to finish by itself", || (fleet.lines("n1", "starts") == 2).then_some(()));
    fleet.start_planner("one");
    fleet.converged("one", &commit);
    assert_eq!(fleet.lines("n1", "starts"), 2);
    assert_eq!(fleet.lines("n1", "runs"), 2, "nothing was done again");
}

fn broker_wiped_during_a_rollout(kind: Kind) {
    let mut fleet = started(kind);
    let commit = fleet.commit(&[("site.toml", &greeting("two"))], "two");
    in_the_middle(&fleet);
    fleet.broker.stop();
    open(&fleet);
    fleet.wait("the agent to finish by itself", || (fleet.lines("n1", "starts") == 2).then_some(()));
    fleet.broker.restart_wiped();
    fleet.converged("one", &commit);
    let commit = fleet.commit(&[("site.toml", &greeting("three"))], "three");
    fleet.converged("one", &commit);
    assert_eq!(fleet.lines("n1", "starts"), 3, "and the next commit is deployed");
}

fn a_newer_commit_takes_over_a_pending_restart(kind: Kind) {
    let fleet = started(kind);
    fleet.commit(&[("site.toml", &greeting("two"))], "two");
    in_the_middle(&fleet);
    // Touches neither the configuration nor the server; the restart that is pending from the first must survive it.
    let commit = fleet.commit(&[("services/web/extra", "x"), ("README", "x")], "something else");
    fleet.wait("the commit to be known", || fleet.ask("one", &["status"])?.to_string().contains(&commit).then_some(()));
    open(&fleet);
    fleet.converged("one", &commit);
    fleet.wait("the restart", || (fleet.lines("n1", "starts") == 2).then_some(()));
    // What was under way then is left to the newer one: nothing of the older one is open for ever.
    let history = fleet.ask("one", &["history"]).expect("an answer");
    let mut rollouts = history["rollouts"].as_array().expect("rollouts").iter();
    let older = rollouts.find(|rollout| rollout["result"] == "superseded").expect("a superseded rollout");
    let open: u64 =
        ["pending", "waiting", "running"].map(|state| older["counts"][state].as_u64().unwrap()).iter().sum();
    assert_eq!((open, older["counts"]["superseded"].as_u64() > Some(0)), (0, true), "{older:#}");
    let generation = older["generation"].to_string();
    let shown = fleet.ask("one", &["show", &generation]).expect("an answer");
    let states: Vec<_> = shown["instances"].as_array().expect("instances").iter().map(|i| &i["state"]).collect();
    assert!(states.iter().all(|state| **state == "finished"), "{shown:#}");
}
