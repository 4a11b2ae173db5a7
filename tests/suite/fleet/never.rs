//! What never was cannot block: a failed task that is withdrawn, a removal that fails, `groundplan forget`.

use std::fs;

use groundplan_tests::{
    brokers::Kind,
    fleet::{Fleet, texts},
};
use serde_json::Value;

use super::with_both_brokers;

with_both_brokers!(
    a_failed_task_is_replaced_and_reverted,
    what_a_failed_update_made_elsewhere_goes_with_its_revert,
    a_preview_names_what_comes_back,
    a_removal_that_fails_is_tried_again,
    a_removal_that_fails_is_forgotten,
    a_request_to_forget_outlives_a_take_over,
    what_must_not_be_removed_refuses_the_commit
);

const NGINX: &str = "user www-data;\nevents {\n    worker_connections 768;\n}\n";
const SERVICE: &str = "services/web/service.toml";

/// A service with these tasks, each on node `n1`.
fn tasks(tasks: &[&str]) -> String {
    let file = "[[task]]\nid = \"motd\"\nfile = { content = \"hi\\n\", path = \"/etc/motd\" }\n";
    [&[file], tasks].concat().join("\n")
}

fn site(service: &str) -> Vec<(&'static str, String)> {
    vec![
        ("site.toml", "name = \"testsite\"\n".to_owned()),
        ("inventory/nodes.toml", "[groups.all]\nservices = [\"web\"]\n\n[nodes.n1]\n".to_owned()),
        (SERVICE, service.to_owned()),
    ]
}

fn fleet(kind: Kind, service: &str) -> Fleet {
    Fleet::started(kind, &texts(&site(service)), &["n1"])
}

/// The outcome of a task in the latest rollout.
fn outcome(fleet: &Fleet, task: &str) -> Value {
    let why = fleet.ask("one", &["why", "n1", task]).expect("an answer");
    why["record"].clone()
}

fn a_failed_task_is_replaced_and_reverted(kind: Kind) {
    let ini = "[[task]]\nid = \"tune\"\nini = { path = \"/etc/nginx.conf\", section = \"events\", option = \"worker_connections\", value = 1024 }\n";
    let line = "[[task]]\nid = \"workers\"\nline = { path = \"/etc/nginx.conf\", line = \"    worker_connections 1024;\", match = 'worker_connections' }\n";
    let fleet = fleet(kind, &tasks(&[]));
    fleet.converged("one", &fleet.git(&["rev-parse", "HEAD"]));
    fs::write(fleet.root("n1").join("etc/nginx.conf"), NGINX).expect("a file");

    let bad = fleet.commit(&[(SERVICE, &tasks(&[ini]))], "an ini that cannot be");
    fleet.failed("one", &bad);
    assert_eq!(fleet.file("n1", "etc/nginx.conf").as_deref(), Some(NGINX));

    let good = fleet.commit(&[(SERVICE, &tasks(&[line]))], "a line instead");
    fleet.converged("one", &good);
    let edited = NGINX.replace("768", "1024");
    assert_eq!(
        fleet.file("n1", "etc/nginx.conf").as_deref(),
        Some(edited.as_str()),
        "{:#}",
        outcome(&fleet, "web.workers")
    );

    // Back to what failed: the line is taken back, and the ini fails as before; then without either.
    fleet.git(&["revert", "--no-edit", "HEAD"]);
    fleet.failed("one", &fleet.git(&["rev-parse", "HEAD"]));
    assert_eq!(fleet.file("n1", "etc/nginx.conf").as_deref(), Some(NGINX));
    let without = fleet.commit(&[(SERVICE, &tasks(&[]))], "neither");
    fleet.converged("one", &without);
    assert_eq!(fleet.file("n1", "etc/nginx.conf").as_deref(), Some(NGINX));
}

fn what_a_failed_update_made_elsewhere_goes_with_its_revert(kind: Kind) {
    let file = |path: &str, ready: &str| {
        format!("[[task]]\nid = \"conf\"\nfile = {{ path = \"{path}\", content = \"ours\\n\" }}\n{ready}")
    };
    let line = |path: &str, ready: &str| {
        format!("[[task]]\nid = \"entry\"\nline = {{ path = \"{path}\", line = \"ours\" }}\n{ready}")
    };
    let never = "ready = { command = \"false\", timeout = \"100ms\" }\n";
    let here = tasks(&[&file("/a.conf", ""), &line("/a.txt", "")]);
    let there = tasks(&[&file("/b.conf", never), &line("/b.txt", never)]);
    let fleet = fleet(kind, &tasks(&[]));
    fleet.converged("one", &fleet.git(&["rev-parse", "HEAD"]));
    for name in ["a.conf", "b.conf", "a.txt", "b.txt"] {
        fs::write(fleet.root("n1").join(name), "theirs\n").expect("a file");
    }
    let files = || ["a.conf", "b.conf", "a.txt", "b.txt"].map(|name| fleet.file("n1", name).unwrap_or_default());
    fleet.converged("one", &fleet.commit(&[(SERVICE, &here)], "here"));
    assert_eq!(files(), ["ours\n", "theirs\n", "theirs\nours\n", "theirs\n"]);

    for _ in 0..2 {
        fleet.failed("one", &fleet.commit(&[(SERVICE, &there)], "there, never ready"));
        assert_eq!(files()[1..2], ["ours\n"]);
        fleet.converged("one", &fleet.commit(&[(SERVICE, &here)], "back"));
        assert_eq!(files(), ["ours\n", "theirs\n", "theirs\nours\n", "theirs\n"]);
    }
    // Withdrawn after the failure, both places are as they were.
    fleet.failed("one", &fleet.commit(&[(SERVICE, &there)], "there, never ready"));
    fleet.converged("one", &fleet.commit(&[(SERVICE, &tasks(&[]))], "neither"));
    assert_eq!(files(), ["theirs\n"; 4]);
}

fn a_preview_names_what_comes_back(kind: Kind) {
    let file =
        |id: &str| format!("[[task]]\nid = \"{id}\"\nfile = {{ path = \"/{id}.conf\", content = \"ours\\n\" }}\n");
    let fleet = fleet(kind, &tasks(&[]));
    fleet.converged("one", &fleet.git(&["rev-parse", "HEAD"]));
    fs::write(fleet.root("n1").join("old.conf"), "theirs\n").expect("a file");
    fleet.converged("one", &fleet.commit(&[(SERVICE, &tasks(&[&file("old"), &file("new")]))], "two files"));
    // Not committed, so that nothing is done.
    fs::write(fleet.repository().join(SERVICE), tasks(&[])).expect("a file");
    let directory = fleet.repository();
    let plan = |more: &[&str]| {
        let args = [&["plan", "-C", directory.to_str().expect("UTF-8")], more].concat();
        String::from_utf8(fleet.output("one", &args).stdout).expect("UTF-8")
    };
    let rows = fleet.wait("the node's report to be of the two files", || {
        let plan = plan(&[]);
        plan.contains("brings back").then_some(plan)
    });
    let rows: Vec<&str> = rows.lines().filter(|line| line.starts_with("remove (restore)")).collect();
    assert!(rows[0].contains("web.new") && !rows[0].contains("brings back"), "{rows:#?}");
    assert!(rows[1].contains("web.old") && rows[1].contains("brings back path /old.conf (file) ← "), "{rows:#?}");
    let json: Value = serde_json::from_str(&plan(&["--format", "json"])).expect("JSON");
    assert_eq!(json["actions"][1]["restores"], serde_json::json!(["path /old.conf (file)"]), "{json:#}");
}

fn a_removal_that_fails_is_tried_again(kind: Kind) {
    let ini =
        "[[task]]\nid = \"tune\"\nini = { path = \"/etc/app.ini\", section = \"a\", option = \"b\", value = 1 }\n";
    let fleet = fleet(kind, &tasks(&[ini]));
    fleet.converged("one", &fleet.git(&["rev-parse", "HEAD"]));
    let path = fleet.root("n1").join("etc/app.ini");
    let written = fs::read_to_string(&path).expect("a file");
    let damage = || fs::write(&path, "[a\nb = 1\n").expect("a file");
    let repair = || fs::write(&path, &written).expect("a file");

    // With the next commit, also one that changes nothing else.
    damage();
    fleet.failed("one", &fleet.commit(&[(SERVICE, &tasks(&[]))], "without the ini"));
    repair();
    fleet.converged("one", &fleet.commit(&[(SERVICE, &format!("# Again.\n{}", tasks(&[])))], "again"));
    assert!(!path.exists());

    // Without a commit, once an operator asks for it: as long as the host is not repaired, it fails again.
    fleet.converged("one", &fleet.commit(&[(SERVICE, &tasks(&[ini]))], "the ini"));
    damage();
    fleet.failed("one", &fleet.commit(&[(SERVICE, &tasks(&[]))], "without the ini"));
    assert!(!fleet.output("one", &["recheck"]).status.success());
    assert!(path.exists());
    repair();
    let recheck = fleet.output("one", &["recheck"]);
    assert!(recheck.status.success(), "{}", String::from_utf8_lossy(&recheck.stderr));
    assert!(!path.exists());
}

fn a_removal_that_fails_is_forgotten(kind: Kind) {
    const DAMAGED: &str = "[a\nb = 1\n";
    let ini =
        "[[task]]\nid = \"tune\"\nini = { path = \"/etc/app.ini\", section = \"a\", option = \"b\", value = 1 }\n";
    let link = |name: &str| format!("[[task]]\nid = \"{name}\"\nlink = {{ path = \"/{name}\", target = \"x\" }}\n");
    let mut fleet = fleet(kind, &tasks(&[ini]));
    fleet.converged("one", &fleet.git(&["rev-parse", "HEAD"]));
    fs::write(fleet.root("n1").join("etc/app.ini"), DAMAGED).expect("a file");

    // The removal fails, and does not hold back what is new.
    let commit = fleet.commit(&[(SERVICE, &tasks(&[&link("one")]))], "without the ini");
    fleet.failed("one", &commit);
    assert!(fleet.root("n1").join("one").is_symlink(), "what is new is there");
    let rollout = fleet.ask("one", &["show", "latest"]).expect("the rollout");
    assert!(rollout.to_string().contains("groundplan forget n1 web.tune"), "{rollout:#}");

    // What is not there, or in use, cannot be forgotten.
    for (node, task) in [("n2", "web.tune"), ("n1", "web.tun"), ("n1", "web.motd")] {
        assert!(!fleet.run_json("one", &["forget", node, task]).0, "{node} {task}");
    }

    // The request outlives the absence of the node, the planner, and a newer plan.
    fleet.terminate_agent("n1");
    fleet.wait("the node to be away", || {
        let status = fleet.ask("one", &["status"])?;
        (status["nodes"][0]["presence"] == "offline").then_some(())
    });
    let planned = fleet.ask("one", &["forget", "n1", "web.tune", "--reason", "damaged by hand"]).expect("an answer");
    assert_eq!(planned["online"], false, "{planned:#}");
    fleet.kill_planner("one");
    fleet.start_planner("one");
    let commit = fleet.commit(&[(SERVICE, &tasks(&[&link("one"), &link("two")]))], "one more");
    // Before the agent is back: it would carry out the plan before, which the broker retains.
    fleet.wait("the newer plan", || {
        (fleet.ask("one", &["show", "latest"])?["commit"]["id"] == commit.as_str()).then_some(())
    });
    fleet.start_agent("n1");
    fleet.converged("one", &commit);
    assert_eq!(fleet.file("n1", "etc/app.ini").as_deref(), Some(DAMAGED), "the host is as it was");
    let rollout = fleet.ask("one", &["show", "latest"]).expect("the rollout").to_string();
    assert!(rollout.contains("forgotten") && rollout.contains("damaged by hand"), "{rollout}");
    assert!(!fleet.run_json("one", &["forget", "n1", "web.tune"]).0, "the record is dropped");

    // The list has the reason as well, for the rollouts in which it was to be dropped, and for no other.
    let history = fleet.ask("one", &["history"]).expect("an answer");
    let rollouts = history["rollouts"].as_array().expect("rollouts");
    let forgotten: Vec<&Value> = rollouts.iter().map(|rollout| &rollout["forgotten"]).collect();
    assert_eq!(forgotten[0][0]["instance"], "web.tune@n1", "{history:#}");
    assert_eq!(forgotten[0][0]["why"], "damaged by hand", "{history:#}");
    assert!(forgotten.last().is_some_and(|first| first.is_null()), "{history:#}");
    let mut list = fleet.run("one", &["history"]);
    let text = fleet.wait("the list", || list.ended()).out;
    let line = text.lines().nth(1).unwrap_or_default();
    assert!(line.contains("; drops the record of web.tune@n1: "), "{text}");
    assert!(line.ends_with(" asked for it: damaged by hand"), "{text}");
}

fn a_request_to_forget_outlives_a_take_over(kind: Kind) {
    const DAMAGED: &str = "[a\nb = 1\n";
    let ini =
        "[[task]]\nid = \"tune\"\nini = { path = \"/etc/app.ini\", section = \"a\", option = \"b\", value = 1 }\n";
    let mut fleet = fleet(kind, &tasks(&[ini]));
    fleet.converged("one", &fleet.git(&["rev-parse", "HEAD"]));
    fs::write(fleet.root("n1").join("etc/app.ini"), DAMAGED).expect("a file");
    let commit = fleet.commit(&[(SERVICE, &tasks(&[]))], "without the ini");
    fleet.failed("one", &commit);

    let role = |fleet: &Fleet, planner: &str| {
        let status = fleet.ask(planner, &["status"])?;
        Some(status["planner"]["role"]["is"].as_str()?.to_owned())
    };
    fleet.terminate_agent("n1");
    fleet.wait("the node to be away", || {
        let status = fleet.ask("one", &["status"])?;
        (status["nodes"][0]["presence"] == "offline").then_some(())
    });
    // One stands by from before the request, and one that begins to stand by after it.
    fleet.start_planner("two");
    fleet.wait("the second planner to stand by", || (role(&fleet, "two")? == "standby").then_some(()));
    fleet.ask("one", &["forget", "n1", "web.tune", "--reason", "damaged by hand"]).expect("an answer");
    fleet.start_planner("three");
    for planner in ["two", "three"] {
        fleet.wait("it to have the request", || {
            fleet.logged(&format!("planner-{planner}")).contains("has pending: 1").then_some(())
        });
    }
    fleet.kill_planner("one");
    fleet.wait("another planner to take over", || {
        ["two", "three"].iter().any(|planner| role(&fleet, planner).as_deref() == Some("planning")).then_some(())
    });
    let planner = ["two", "three"].into_iter().find(|planner| role(&fleet, planner).as_deref() == Some("planning"));
    let planner = planner.expect("one of them plans");
    fleet.wait("its plan to drop the record", || {
        fleet.ask(planner, &["show", "latest"])?.to_string().contains("damaged by hand").then_some(())
    });
    fleet.start_agent("n1");
    fleet.converged(planner, &commit);
    assert_eq!(fleet.file("n1", "etc/app.ini").as_deref(), Some(DAMAGED), "the host is as it was");
    let rollout = fleet.ask(planner, &["show", "latest"]).expect("the rollout").to_string();
    assert!(rollout.contains("damaged by hand"), "{rollout}");
}

fn what_must_not_be_removed_refuses_the_commit(kind: Kind) {
    let data = |prevent: bool| {
        format!("[[task]]\nid = \"data\"\nprevent_destroy = {prevent}\ndirectory = {{ path = \"/data\" }}\n")
    };
    let fleet = fleet(kind, &tasks(&[&data(true)]));
    let mut active = fleet.git(&["rev-parse", "HEAD"]);
    fleet.converged("one", &active);

    // Taken out of the service, and with the whole service; and a path that it gives up.
    let nodes = "[groups.all]\nservices = []\n\n[nodes.n1]\n";
    let elsewhere = data(false).replace("/data", "/elsewhere");
    for files in
        [[(SERVICE, tasks(&[]))], [("inventory/nodes.toml", nodes.to_owned())], [(SERVICE, tasks(&[&elsewhere]))]]
    {
        let refused = fleet.commit(&texts(&files), "without the data");
        let status = fleet.wait("the commit to be refused", || {
            let status = fleet.ask("one", &["status"])?;
            (status["refused"]["commit"]["id"] == refused.as_str()).then_some(status)
        });
        assert_eq!(status["commit"]["id"], active.as_str(), "{status:#}");
        let place = format!("`prevent_destroy = true` ({SERVICE} of commit {})", &active[..9]);
        assert!(status["refused"].to_string().contains(&place), "{status:#}");
        assert!(fleet.root("n1").join("data").is_dir());
        fleet.git(&["revert", "--no-edit", "HEAD"]);
        active = fleet.git(&["rev-parse", "HEAD"]);
        fleet.wait("the revert to be active", || {
            (fleet.ask("one", &["status"])?["commit"]["id"] == active.as_str()).then_some(())
        });
    }

    // First it is allowed, and then done. Nothing is applied again for it.
    let allowed = fleet.commit(&[(SERVICE, &tasks(&[&data(false)]))], "it may go");
    fleet.converged("one", &allowed);
    let gone = fleet.commit(&[(SERVICE, &tasks(&[]))], "it goes");
    fleet.converged("one", &gone);
    assert!(!fleet.root("n1").join("data").exists());
}
