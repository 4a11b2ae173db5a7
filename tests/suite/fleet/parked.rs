//! Nodes that are not there: those that never reported, are away, parked, orphaned or decommissioned.

use std::fs;

use groundplan_tests::{brokers::Kind, fleet::Fleet};
use serde_json::Value;

use super::with_both_brokers;

with_both_brokers!(
    what_comes_after_a_node_that_was_never_heard_from_waits_for_it,
    a_parked_node_lets_others_go_and_its_change_follows,
    a_node_that_is_away_holds_back_what_follows_a_change_there_alone,
    a_node_leaves_the_inventory_and_comes_back
);

const INVENTORY: &str = "inventory/nodes.toml";
const DB: &str = "services/db/service.toml";
const APP: &str = "services/app/service.toml";

fn inventory(db: &str) -> String {
    format!(
        "[groups.db]\nservices = [\"db\"]\n\n[groups.app]\nservices = [\"app\"]\n\n{db}[nodes.app]\ngroups = [\"app\"]\n"
    )
}

fn db(content: &str) -> String {
    format!(
        "[[task]]\nid = \"conf\"\nfile = {{ path = \"/db.conf\", content = \"{content}\" }}\n\n[[task]]\nid = \"ready\"\n\
         file = {{ path = \"/db.ready\", content = \"\" }}\n"
    )
}

/// The application runs a program that notes each start.
fn app(content: &str) -> String {
    format!(
        "[[task]]\nid = \"conf\"\nfile = {{ path = \"/app.conf\", content = \"{content}\" }}\nrequires = [\"db.ready\"]\n\n[[task]]\n\
         id = \"server\"\nprocess = {{ run = \"echo ran >> app.runs; exec sleep 100000\" }}\nrestart_on = [\"db.conf\"]\n"
    )
}

const ACTIVE: &str = "[nodes.db]\ngroups = [\"db\"]\n\n";
const PARKED: &str = "[nodes.db]\ngroups = [\"db\"]\nstate = \"parked\"\n\n";
const DECOMMISSIONED: &str = "[nodes.db]\ngroups = [\"db\"]\nstate = \"decommissioned\"\n\n";

fn fleet(kind: Kind, node: &str) -> Fleet {
    let (nodes, db, app) = (inventory(node), db("1"), app("1"));
    Fleet::new(kind, &[("site.toml", "name = \"testsite\"\n"), (INVENTORY, &nodes), (DB, &db), (APP, &app)])
}

fn node(fleet: &Fleet, name: &str) -> Value {
    let status = fleet.ask("one", &["status"]).unwrap_or_default();
    status["nodes"].as_array().into_iter().flatten().find(|of| of["node"] == name).cloned().unwrap_or_default()
}

/// What `groundplan` prints for people, errors included.
fn text(fleet: &Fleet, args: &[&str]) -> String {
    let output = fleet.output("one", args);
    [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat()
}

/// The preview of what a commit of these files would do.
fn preview(fleet: &Fleet, files: &[(&str, &str)]) -> String {
    for (path, text) in files {
        fs::write(fleet.repository().join(path), text).expect("a file of the work tree");
    }
    text(fleet, &["plan", "-C", &fleet.repository().display().to_string()])
}

fn what_comes_after_a_node_that_was_never_heard_from_waits_for_it(kind: Kind) {
    let mut fleet = fleet(kind, ACTIVE);
    fleet.start_planner("one");
    fleet.start_agent("app");
    let waits = || {
        let status = fleet.ask("one", &["status"])?;
        (status["rollout"]["result"] == "waiting").then_some(())
    };
    fleet.wait("a rollout that waits", waits);
    assert_eq!(fleet.file("app", "app.conf"), None);
    let why = text(&fleet, &["why", "app", "app.conf"]);
    assert!(why.contains("waits for the first report of node db"), "{why}");
    assert!(why.contains("`groundplan park`"), "{why}");

    // It comes: its part first, then what waited.
    fleet.start_agent("db");
    fleet.converged("one", &fleet.git(&["rev-parse", "HEAD"]));
    assert_eq!(fleet.file("app", "app.conf").as_deref(), Some("1"));

    // A planner that has lost its store waits in the same way, for a change that comes after the other node.
    fleet.kill_planner("one");
    fleet.kill_agent("db");
    fs::remove_dir_all(fleet.planner_state("one")).expect("the planner's state");
    fleet.broker.restart_wiped();
    let commit = fleet.commit(&[(APP, &app("2"))], "the application alone");
    fleet.start_planner("one");
    fleet.wait("a rollout that waits", || {
        let status = fleet.ask("one", &["status"])?;
        (status["rollout"]["result"] == "waiting").then_some(())
    });
    assert_eq!(fleet.file("app", "app.conf").as_deref(), Some("1"));
    fleet.start_agent("db");
    fleet.converged("one", &commit);
    assert_eq!(fleet.file("app", "app.conf").as_deref(), Some("2"));
}

fn a_parked_node_lets_others_go_and_its_change_follows(kind: Kind) {
    let mut fleet = fleet(kind, PARKED);
    fleet.start_planner("one");
    fleet.start_agent("app");
    // The inventory has it as parked: the application starts without it, and the rollout is over.
    fleet.converged("one", &fleet.git(&["rev-parse", "HEAD"]));
    assert_eq!(fleet.file("app", "app.conf").as_deref(), Some("1"));
    assert_eq!(node(&fleet, "db")["parked"]["by"], "inventory");
    let commit = fleet.commit(&[(INVENTORY, &inventory(ACTIVE))], "the database is to come");
    fleet.start_agent("db");
    fleet.converged("one", &commit);
    let runs = fleet.file("app", "app.runs");

    // It goes away before a change that the application is to follow.
    fleet.kill_agent("db");
    fleet.wait("a node that is away", || (node(&fleet, "db")["presence"] == "offline").then_some(()));
    let commit = fleet.commit(&[(DB, &db("2")), (APP, &app("2"))], "both");
    fleet.wait("a task that waits for the node", || {
        let why = fleet.ask("one", &["why", "app", "app.conf"])?;
        (why["rollout"]["commit"]["id"] == commit.as_str() && why["record"]["state"] == "waiting").then_some(())
    });
    let parked = text(&fleet, &["park", "db", "--for", "4h", "--reason", "a new disk"]);
    assert!(parked.contains("db is parked for 4h: nothing on other nodes waits for it"), "{parked}");
    fleet.converged("one", &commit);
    assert_eq!(fleet.file("app", "app.conf").as_deref(), Some("2"));
    assert_eq!(fleet.file("app", "app.runs"), runs, "the database has not changed yet");
    let status = text(&fleet, &["status"]);
    assert!(status.contains("more: a new disk"), "{status}");
    let why = text(&fleet, &["why", "db", "db.conf"]);
    assert!(why.contains("db is parked by"), "{why}");
    let plan = preview(&fleet, &[(DB, &db("3"))]);
    fleet.git(&["checkout", "-q", "."]);
    assert!(plan.contains("db is parked: nothing on other nodes waits for it"), "{plan}");

    // It is still parked after the planner has been killed, and what follows from its change is carried out once.
    fleet.kill_planner("one");
    fleet.start_planner("one");
    fleet.wait("a planner that answers", || (node(&fleet, "db")["parked"]["reason"] == "a new disk").then_some(()));
    fleet.start_agent("db");
    fleet.wait("the database's change", || (fleet.file("db", "db.conf")? == "2").then_some(()));
    let more = format!("{}ran\n", runs.clone().unwrap_or_default());
    fleet.wait("what follows", || (fleet.file("app", "app.runs")? == more).then_some(()));
    fleet.converged("one", &commit);
    let unparked = text(&fleet, &["unpark", "db"]);
    assert!(unparked.contains("db is parked no longer"), "{unparked}");
    fleet.converged("one", &commit);
    assert_eq!(fleet.file("app", "app.runs"), Some(more), "once");
    let again = text(&fleet, &["unpark", "db"]);
    assert!(again.contains("node db is not parked"), "{again}");

    // What is refused: reasons that would forge lines, times that are none.
    for (args, error) in [
        (["--for", "1h", "--reason", "a\nb"], "a reason has one line"),
        (["--for", "1h", "--reason", " "], "a reason is missing"),
        (["--for", "0s", "--reason", "x"], "a node is parked for 1s to 8760h"),
        (["--for", "99999h", "--reason", "x"], "a node is parked for 1s to 8760h"),
    ] {
        let refused = text(&fleet, &[&["park", "db"][..], &args].concat());
        assert!(refused.contains(error), "{refused}");
        assert!(node(&fleet, "db")["parked"].is_null());
    }
    // A request can be withdrawn although the inventory has the node as parked.
    let commit = fleet.commit(&[(INVENTORY, &inventory(PARKED))], "parked by the inventory");
    fleet.converged("one", &commit);
    text(&fleet, &["park", "db", "--reason", "and by request"]);
    assert_eq!(node(&fleet, "db")["parked"]["by"], "operator");
    let withdrawn = text(&fleet, &["unpark", "db"]);
    assert!(withdrawn.contains("db stays parked, because the inventory has it as parked"), "{withdrawn}");
    let commit = fleet.commit(&[(INVENTORY, &inventory(ACTIVE))], "active again");
    fleet.converged("one", &commit);

    // A time that is over ends it.
    text(&fleet, &["park", "db", "--for", "1s", "--reason", "a moment"]);
    fleet.wait("the end of its time", || node(&fleet, "db")["parked"].is_null().then_some(()));
}

fn a_node_that_is_away_holds_back_what_follows_a_change_there_alone(kind: Kind) {
    let mut fleet = fleet(kind, ACTIVE);
    fleet.start_planner("one");
    fleet.start_agent("app");
    fleet.start_agent("db");
    fleet.converged("one", &fleet.git(&["rev-parse", "HEAD"]));
    fleet.kill_agent("db");
    fleet.wait("a node that is away", || (node(&fleet, "db")["presence"] == "offline").then_some(()));
    // Nothing changes on the node that is away: its dependents do not wait.
    let commit = fleet.commit(&[(APP, &app("2"))], "the application alone");
    fleet.converged("one", &commit);
    assert_eq!(fleet.file("app", "app.conf").as_deref(), Some("2"));
}

fn a_node_leaves_the_inventory_and_comes_back(kind: Kind) {
    let mut fleet = fleet(kind, ACTIVE);
    fleet.start_planner("one");
    fleet.start_agent("app");
    fleet.start_agent("db");
    fleet.converged("one", &fleet.git(&["rev-parse", "HEAD"]));

    let independent = app("1").replace("requires = [\"db.ready\"]\n", "").replace("restart_on = [\"db.conf\"]\n", "");
    let commit = fleet.commit(&[(APP, &independent)], "without the database");
    fleet.converged("one", &commit);
    let plan = preview(&fleet, &[(INVENTORY, &inventory(""))]);
    assert!(plan.contains("db is orphaned, with 2 tasks left running"), "{plan}");
    assert!(plan.contains("state = \"decommissioned\""), "{plan}");
    let commit = fleet.commit(&[], "the node is gone");
    fleet.converged("one", &commit);
    fleet.wait("an orphan", || (node(&fleet, "db")["declared"] == false).then_some(()));
    let status = text(&fleet, &["status"]);
    assert!(status.contains("orphaned: 2 tasks left running"), "{status}");

    // It comes back with one difference: the preview lists that alone.
    let plan = preview(&fleet, &[(INVENTORY, &inventory(ACTIVE)), (DB, &db("2"))]);
    assert!(plan.contains("1 update on 1 of 2 nodes"), "{plan}");
    let commit = fleet.commit(&[], "the node is back");
    fleet.converged("one", &commit);
    assert_eq!(fleet.file("db", "db.conf").as_deref(), Some("2"));

    // For good: first all that is on it goes.
    let plan = preview(&fleet, &[(INVENTORY, &inventory(DECOMMISSIONED))]);
    assert!(plan.contains("node db is decommissioned (inventory/nodes.toml:7)"), "{plan}");
    assert!(plan.contains("2 removes on 1 of 2 nodes"), "{plan}");
    let commit = fleet.commit(&[], "the node is to go");
    fleet.converged("one", &commit);
    assert_eq!(fleet.file("db", "db.conf"), None);
    let status = text(&fleet, &["status"]);
    assert!(status.contains("decommissioned: nothing is left on it"), "{status}");

    // A host under another name is recognised by its address.
    let old = inventory("[nodes.db]\ngroups = [\"db\"]\naddress = \"192.0.2.7\"\n\n");
    fleet.commit(&[(INVENTORY, &old)], "with an address");
    let plan = preview(&fleet, &[(INVENTORY, &old.replace("[nodes.db]", "[nodes.store]"))]);
    assert!(plan.contains("its host is declared as store now"), "{plan}");
}
