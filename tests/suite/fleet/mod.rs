//! End to end, with real processes: repository, broker, planner, agents. Each test once with the embedded broker and once with
//! Mosquitto. Assertions are about what the nodes show: files, and how often a process was started.

mod api;
mod bad_input;
mod content;
mod drift;
mod exec;
mod full_disk;
mod healing;
mod hostile;
mod knowledge;
mod late_keys;
mod never;
mod once;
mod parked;
mod plugins;
mod recheck;
mod remote;
mod simulated;
mod survival;
mod takeover;
mod troubles;

use groundplan_tests::{brokers::Kind, fleet::Fleet};

/// Makes a test of each function, for each broker.
macro_rules! with_both_brokers {
    ($($name:ident),* $(,)?) => {
        mod embedded {
            $(#[test] fn $name() { super::$name(groundplan_tests::brokers::Kind::Embedded) })*
        }
        mod mosquitto {
            $(#[test] fn $name() { super::$name(groundplan_tests::brokers::Kind::Mosquitto) })*
        }
    };
}
use with_both_brokers;

/// A server whose configuration is a template, on nodes `n1` and `n2`. Every start of it adds its process id to `/starts`.
pub(crate) fn web() -> Vec<(&'static str, &'static str)> {
    vec![
        ("site.toml", "name = \"testsite\"\n[vars]\ngreeting = \"one\"\n"),
        (
            "inventory/nodes.toml",
            "[groups.web]\nservices = [\"web\"]\n\n[nodes.n1]\ngroups = [\"web\"]\n\n[nodes.n2]\ngroups = [\"web\"]\n",
        ),
        (
            "services/web/service.toml",
            r#"
[service]
description = "a server"

[[task]]
id = "config"
template = { source = "web.conf.j2", path = "/etc/web.conf" }

[[task]]
id = "server"
process = { run = "echo $$ >> starts; exec sleep 100000" }
restart_on = ["config"]
"#,
        ),
        ("services/web/web.conf.j2", "greeting = {{ greeting }}\n"),
    ]
}

/// `site.toml` with another greeting: one line changed.
pub(crate) fn greeting(text: &str) -> String {
    format!("name = \"testsite\"\n[vars]\ngreeting = \"{text}\"\n")
}

const BOTH: [&str; 2] = ["n1", "n2"];

with_both_brokers!(
    first_push_and_a_one_line_change,
    a_comment_touches_nothing,
    a_removed_service_goes_away,
    offline_over_three_commits
);

fn first_push_and_a_one_line_change(kind: Kind) {
    let fleet = Fleet::started(kind, &web(), &BOTH);
    fleet.converged("one", &fleet.git(&["rev-parse", "HEAD"]));
    for node in BOTH {
        assert_eq!(fleet.file(node, "etc/web.conf").as_deref(), Some("greeting = one\n"));
        assert_eq!(fleet.lines(node, "starts"), 1, "created means started once, not restarted");
    }
    let commit = fleet.commit(&[("site.toml", &greeting("two"))], "another greeting");
    fleet.converged("one", &commit);
    for node in BOTH {
        assert_eq!(fleet.file(node, "etc/web.conf").as_deref(), Some("greeting = two\n"));
        fleet.wait("the restart", || (fleet.lines(node, "starts") == 2).then_some(()));
    }
    let why = fleet.ask("one", &["why", "n1", "web.server"]).expect("an explanation");
    assert!(why.to_string().contains("greeting"), "the chain ends at the input that changed: {why}");
    let history = fleet.ask("one", &["history"]).expect("a history");
    assert!(history.to_string().contains(&commit), "{history}");
}

fn a_comment_touches_nothing(kind: Kind) {
    let fleet = Fleet::started(kind, &web(), &BOTH);
    fleet.converged("one", &fleet.git(&["rev-parse", "HEAD"]));
    let text = format!("# a comment\n{}", greeting("one"));
    let commit = fleet.commit(&[("site.toml", &text)], "a comment");
    fleet.wait("the commit to be known", || {
        let status = fleet.ask("one", &["status"])?;
        status.to_string().contains(&commit).then_some(())
    });
    // A change after it, to wait for.
    let commit = fleet.commit(&[("services/web/web.conf.j2", "greeting = {{ greeting }}\nmore\n")], "a change");
    fleet.converged("one", &commit);
    for node in BOTH {
        assert_eq!(fleet.lines(node, "starts"), 2, "one start and one restart, none for the comment");
    }
}

fn a_removed_service_goes_away(kind: Kind) {
    let fleet = Fleet::started(kind, &web(), &BOTH);
    fleet.converged("one", &fleet.git(&["rev-parse", "HEAD"]));
    let pid = fleet.file("n2", "starts").expect("a started server").trim().to_owned();
    let inventory = "[groups.web]\nservices = [\"web\"]\n\n[nodes.n1]\ngroups = [\"web\"]\n\n[nodes.n2]\n";
    let commit = fleet.commit(&[("inventory/nodes.toml", inventory)], "n2 serves no more");
    fleet.converged("one", &commit);
    assert_eq!(fleet.file("n2", "etc/web.conf"), None);
    assert!(!std::path::Path::new(&format!("/proc/{pid}")).exists(), "its process was stopped");
    assert_eq!(fleet.lines("n1", "starts"), 1, "the other node was left alone");
}

fn offline_over_three_commits(kind: Kind) {
    let mut fleet = Fleet::started(kind, &web(), &BOTH);
    fleet.converged("one", &fleet.git(&["rev-parse", "HEAD"]));
    fleet.kill_agent("n2");
    let mut last = String::new();
    for (number, text) in ["two", "three", "four"].into_iter().enumerate() {
        last = fleet.commit(&[("site.toml", &greeting(text))], text);
        fleet.wait("the node that is there", || {
            let there = fleet.file("n1", "etc/web.conf")? == format!("greeting = {text}\n");
            (there && fleet.lines("n1", "starts") == number + 2).then_some(())
        });
    }
    assert_eq!(fleet.file("n2", "etc/web.conf").as_deref(), Some("greeting = one\n"));
    fleet.start_agent("n2");
    fleet.converged("one", &last);
    assert_eq!(fleet.file("n2", "etc/web.conf").as_deref(), Some("greeting = four\n"));
    assert_eq!(fleet.lines("n1", "starts"), 4);
    assert_eq!(fleet.lines("n2", "starts"), 2, "one plan from where it was: one restart, not three");
}
