//! Tasks that run on one node of their service: which one is elected, that it stays, and when another one takes over. And tasks that fail
//! and are tried again.

use std::fs;

use groundplan_tests::{brokers::Kind, fleet::Fleet};
use serde_json::Value;

use super::with_both_brokers;

with_both_brokers!(
    a_node_that_is_there_is_elected_and_stays,
    a_change_waits_for_the_elected_node_until_it_is_parked,
    another_node_takes_over_from_one_that_is_away_for_too_long,
    a_rolling_limit_does_not_keep_another_node_from_taking_over,
    no_other_node_runs_it_before_the_former_one_has_given_it_up,
    what_fails_is_tried_again,
    what_has_failed_is_tried_again_on_request,
);

const INVENTORY: &str = "inventory/nodes.toml";
const APP: &str = "services/app/service.toml";

/// Nodes, those in capitals without a group.
fn inventory(nodes: &str) -> String {
    let node = |name: char| match name.is_uppercase() {
        true => format!("[nodes.{}]\n\n", name.to_lowercase()),
        false => format!("[nodes.{name}]\ngroups = [\"app\"]\n\n"),
    };
    format!("[groups.app]\nservices = [\"app\"]\n\n{}", nodes.chars().map(node).collect::<String>())
}

/// A schema that is changed on one node, and a configuration that comes after it everywhere.
fn app(once: &str, version: &str) -> String {
    format!(
        "[[task]]\nid = \"schema\"\nonce = {once}\ncommand = {{ run = \"echo {version} >> schema.runs\" }}\n\n[[task]]\nid = \"conf\"\n\
         file = {{ path = \"/app.conf\", content = \"{version}\" }}\n"
    )
}

fn fleet(kind: Kind, nodes: &str, service: &str) -> Fleet {
    Fleet::new(kind, &[("site.toml", "name = \"testsite\"\n"), (INVENTORY, &inventory(nodes)), (APP, service)])
}

fn text(fleet: &Fleet, args: &[&str]) -> String {
    let output = fleet.output("one", args);
    [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat()
}

fn is_away(fleet: &Fleet, node: &str) {
    fleet.wait("a node that is away", || {
        let status = fleet.ask("one", &["status"])?;
        let of = status["nodes"].as_array()?.iter().find(|of| of["node"] == node)?.clone();
        (of["presence"] == "offline").then_some(())
    });
}

/// Waits until a task of a commit waits for something.
fn waits(fleet: &Fleet, commit: &str, node: &str, task: &str) -> String {
    fleet.wait("a task that waits", || {
        fleet.rollout_of("one", commit)?;
        let why = fleet.ask("one", &["why", node, task])?;
        let waits =
            why["record"]["state"] == "waiting" || why["waits_for"].as_array().is_some_and(|all| !all.is_empty());
        waits.then_some(())
    });
    text(fleet, &["why", node, task])
}

fn runs(fleet: &Fleet, nodes: [&str; 3]) -> [usize; 3] {
    nodes.map(|node| fleet.lines(node, "schema.runs"))
}

const NODES: [&str; 3] = ["a", "b", "c"];

fn a_node_that_is_there_is_elected_and_stays(kind: Kind) {
    let mut fleet = fleet(kind, "abc", &app("true", "1"));
    fleet.start_planner("one");
    fleet.start_agent("c");
    fleet.wait("the task on the node that is there", || (fleet.lines("c", "schema.runs") > 0).then_some(()));
    fleet.start_agent("b");
    let head = fleet.git(&["rev-parse", "HEAD"]);
    fleet.converged("one", &head);
    assert_eq!(runs(&fleet, NODES), [0, 0, 1]);
    let why = text(&fleet, &["why", "b", "app.schema"]);
    assert!(why.contains("it runs once, on `c`"), "{why}");

    // Nodes that sort first come, and the planner is killed, or loses its store: the task stays, and does not run again.
    fleet.start_agent("a");
    fleet.converged("one", &head);
    let commit = fleet.commit(&[(APP, &app("true", "1").replace("content = \"1\"", "content = \"2\""))], "the file");
    fleet.converged("one", &commit);
    fleet.kill_planner("one");
    fleet.start_planner("one");
    let commit = fleet.commit(&[(APP, &app("true", "1").replace("content = \"1\"", "content = \"3\""))], "the file");
    fleet.converged("one", &commit);
    fleet.kill_planner("one");
    fs::remove_dir_all(fleet.planner_state("one")).expect("the planner's state");
    fleet.start_planner("one");
    let commit = fleet.commit(&[(APP, &app("true", "1"))], "the file as it was");
    fleet.converged("one", &commit);
    assert_eq!(fleet.file("a", "app.conf").as_deref(), Some("1"));
    assert_eq!(runs(&fleet, NODES), [0, 0, 1]);
}

fn a_change_waits_for_the_elected_node_until_it_is_parked(kind: Kind) {
    let mut fleet = fleet(kind, "abc", &app("true", "1"));
    fleet.start_planner("one");
    fleet.start_agent("b");
    fleet.wait("the task on the node that is there", || (fleet.lines("b", "schema.runs") > 0).then_some(()));
    fleet.start_agent("a");
    fleet.start_agent("c");
    fleet.converged("one", &fleet.git(&["rev-parse", "HEAD"]));

    fleet.kill_agent("b");
    is_away(&fleet, "b");
    let commit = fleet.commit(&[(APP, &app("true", "2"))], "another schema");
    let why = waits(&fleet, &commit, "c", "app.conf");
    assert!(why.contains("app.schema@b"), "the node that it waits for is named: {why}");
    assert_eq!(fleet.file("c", "app.conf").as_deref(), Some("1"));

    // Its operator says that it is out: another one runs it, and those that waited go on.
    text(&fleet, &["park", "b", "--reason", "a new disk"]);
    fleet.converged("one", &commit);
    assert_eq!(fleet.file("c", "app.conf").as_deref(), Some("2"));
    assert_eq!(runs(&fleet, NODES), [1, 1, 0]);
    // What it took over stays where it is now.
    fleet.start_agent("b");
    text(&fleet, &["unpark", "b"]);
    fleet.wait("the node that is back", || (fleet.file("b", "app.conf").as_deref() == Some("2")).then_some(()));
    fleet.converged("one", &commit);
    assert_eq!(runs(&fleet, NODES), [1, 1, 0]);
}

fn another_node_takes_over_from_one_that_is_away_for_too_long(kind: Kind) {
    let service = |run: &str| {
        format!(
            "[[task]]\nid = \"schema\"\nonce = {{ failover = \"1s\" }}\ncommand = {{ run = \"echo ran >> schema.runs\" }}\n\n[[task]]\nid = \
             \"scheduler\"\nonce = {{ failover = \"1s\" }}\nprocess = {{ run = \"echo {run} >> starts; exec sleep 100000\" }}\n\n[[task]]\n\
             id = \"conf\"\nfile = {{ path = \"/app.conf\", content = \"{run}\" }}\n"
        )
    };
    let mut fleet = fleet(kind, "abc", &service("1"));
    fleet.start_planner("one");
    fleet.start_agent("a");
    fleet.wait("the process on the first node", || (fleet.lines("a", "starts") > 0).then_some(()));
    fleet.start_agent("b");
    fleet.start_agent("c");
    let head = fleet.git(&["rev-parse", "HEAD"]);
    fleet.converged("one", &head);

    fleet.kill_agent("a");
    fleet.wait("the process on another node", || (fleet.lines("b", "starts") > 0).then_some(()));
    let status = text(&fleet, &["why", "b", "app.scheduler"]);
    assert!(status.contains("runs once, and on b from now on"), "{status}");
    // What was done and leaves nothing is done.
    assert_eq!(runs(&fleet, NODES), [1, 0, 0]);
    // The others do not wait for the one that is away.
    let commit = fleet.commit(&[(APP, &service("2"))], "another");
    fleet.wait("the configuration", || (fleet.file("c", "app.conf").as_deref() == Some("2")).then_some(()));
    // It is back: it gives up what it ran, and takes nothing back.
    fleet.start_agent("a");
    fleet.converged("one", &commit);
    fleet.wait("one process", || {
        let why = fleet.ask("one", &["why", "a", "app.scheduler"])?;
        (why["applied"] == "not").then_some(())
    });
    fleet.converged("one", &commit);
    assert_eq!(NODES.map(|node| fleet.lines(node, "starts")), [1, 2, 0]);
    assert_eq!(runs(&fleet, NODES), [1, 0, 0]);
}

fn a_rolling_limit_does_not_keep_another_node_from_taking_over(kind: Kind) {
    let service = "[rollout]\nmax_unavailable = 1\n\n[[task]]\nid = \"schema\"\nonce = { failover = \"1s\" }\ncommand = { run = \"echo ran >> \
                   schema.runs; while [ -e hold ]; do sleep 0.05; done\" }\n";
    let mut fleet = fleet(kind, "abc", service);
    fs::create_dir_all(fleet.root("a")).expect("a folder");
    fs::write(fleet.root("a").join("hold"), "").expect("a file");
    fleet.start_planner("one");
    fleet.start_agent("a");
    fleet.wait("the task on the first node", || (fleet.lines("a", "schema.runs") > 0).then_some(()));
    fleet.start_agent("b");
    fleet.start_agent("c");
    // The one that is away has begun, and holds the only turn.
    fleet.kill_agent("a");
    fleet.wait("the task on another node", || (runs(&fleet, NODES)[1..].iter().sum::<usize>() > 0).then_some(()));
    fs::remove_file(fleet.root("a").join("hold")).expect("a file");
    fleet.start_agent("a");
    fleet.converged("one", &fleet.git(&["rev-parse", "HEAD"]));
    assert_eq!(runs(&fleet, NODES)[1..].iter().sum::<usize>(), 1);
}

fn no_other_node_runs_it_before_the_former_one_has_given_it_up(kind: Kind) {
    let service = "[[task]]\nid = \"scheduler\"\nonce = true\nprocess = { run = \"echo ran >> starts; exec sleep 100000\" }\n\n[[task]]\n\
                   id = \"conf\"\nfile = { path = \"/app.conf\", content = \"1\" }\n";
    let mut fleet = fleet(kind, "ab", service);
    fleet.start_planner("one");
    fleet.start_agent("a");
    fleet.wait("the process on the first node", || (fleet.lines("a", "starts") > 0).then_some(()));
    fleet.start_agent("b");
    fleet.converged("one", &fleet.git(&["rev-parse", "HEAD"]));
    fleet.kill_agent("a");
    is_away(&fleet, "a");
    fs::write(fleet.repository().join(INVENTORY), inventory("Ab")).expect("a file of the work tree");
    let preview = text(&fleet, &["plan", "-C", &fleet.repository().display().to_string()]);
    assert!(preview.contains("create") && preview.contains("app.scheduler"), "{preview}");
    let commit = fleet.commit(&[(INVENTORY, &inventory("Ab"))], "a leaves the group");
    let why = waits(&fleet, &commit, "b", "app.scheduler");
    assert!(why.contains("waits for node a to give up app.scheduler, which runs on one node only"), "{why}");
    assert_eq!(fleet.lines("b", "starts"), 0);
    fleet.start_agent("a");
    fleet.converged("one", &commit);
    fleet.wait("the process on the other node", || (fleet.lines("b", "starts") > 0).then_some(()));
    fleet.converged("one", &commit);
    assert_eq!((fleet.lines("a", "starts"), fleet.lines("b", "starts")), (1, 1));
}

/// A link into a folder that a regular file is in the way of.
fn failing(retry: &str) -> String {
    format!(
        "[rollout]\nretry = {retry}\n\n[[task]]\nid = \"conf\"\nfile = {{ path = \"/etc/app/app.conf\", content = \"1\" }}\n\n[[task]]\n\
         id = \"after\"\nfile = {{ path = \"/after\", content = \"1\" }}\n"
    )
}

fn blocked(fleet: &mut Fleet) -> String {
    fs::create_dir_all(fleet.root("a").join("etc")).expect("a folder");
    fs::write(fleet.root("a").join("etc/app"), "in the way").expect("a file");
    fleet.start_planner("one");
    fleet.start_agent("a");
    fleet.git(&["rev-parse", "HEAD"])
}

fn node(status: &Value) -> &Value {
    &status["nodes"][0]
}

fn what_fails_is_tried_again(kind: Kind) {
    let mut fleet = fleet(kind, "a", &failing("{ attempts = 100, backoff = \"1s\" }"));
    let commit = blocked(&mut fleet);
    // It is shown at once, and the rollout goes on.
    fleet.wait("a failed attempt", || {
        let status = fleet.ask("one", &["status"])?;
        let why = node(&status)["degraded"]["app.conf"].as_str()?.to_owned();
        assert_eq!(status["rollout"]["result"], "running", "{status:#}");
        (why.starts_with("attempt ") && why.contains(" of 100 failed, the next one follows ")).then_some(())
    });
    assert_eq!(fleet.output("one", &["status", "--exit-code"]).status.code(), Some(2));
    fleet.wait("another failed attempt", || {
        let status = fleet.ask("one", &["status"])?;
        let attempt = node(&status)["degraded"]["app.conf"].as_str()?.strip_prefix("attempt ")?.split(' ').next()?;
        (attempt.parse::<u32>().ok()? > 1).then_some(())
    });
    fs::remove_file(fleet.root("a").join("etc/app")).expect("what is in the way");
    fleet.converged("one", &commit);
    assert_eq!(fleet.file("a", "after").as_deref(), Some("1"));
    assert_eq!(fleet.output("one", &["status", "--exit-code"]).status.code(), Some(0));
}

fn what_has_failed_is_tried_again_on_request(kind: Kind) {
    let mut fleet = fleet(kind, "a", &failing("false"));
    let commit = blocked(&mut fleet);
    fleet.failed("one", &commit);
    let output = fleet.output("one", &["retry"]);
    assert_eq!(output.status.code(), Some(1), "it fails again");
    fs::remove_file(fleet.root("a").join("etc/app")).expect("what is in the way");
    let output = fleet.output("one", &["retry"]);
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(fleet.file("a", "after").as_deref(), Some("1"));
    let again = text(&fleet, &["retry"]);
    assert!(again.starts_with("nothing has failed: there is nothing to try again"), "{again}");

    // What waits for its next attempt is tried at once.
    fs::remove_dir_all(fleet.root("a").join("etc/app")).expect("what was created");
    fs::write(fleet.root("a").join("etc/app"), "in the way").expect("a file");
    let service = failing("{ backoff = \"1h\" }").replace("content = \"1\"", "content = \"2\"");
    let commit = fleet.commit(&[(APP, &service)], "two");
    fleet.wait("a failed attempt", || {
        let status = fleet.ask("one", &["status"])?;
        node(&status)["degraded"]["app.conf"].as_str()?.contains("the next one follows 3600 s after it").then_some(())
    });
    fs::remove_file(fleet.root("a").join("etc/app")).expect("what is in the way");
    let output = fleet.output("one", &["retry"]);
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    fleet.converged("one", &commit);
    assert_eq!(fleet.file("a", "after").as_deref(), Some("2"));
}
