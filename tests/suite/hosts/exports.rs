//! `export` and `wait` on two real hosts: a value of the one in a file of the other, and the other waits for what the one listens on.

use groundplan_tests::{
    fleet::SITE,
    hosts::{Builder, Hosts},
    needs_hosts,
};

/// On h1: a value that is read again when its source changes, and a unit that does not use it.
const DB: &str = r#"
[[task]]
id = "source"
file = { path = "/etc/value", content = "{{ value }}\n# {{ remark }}\n" }

[[task]]
id = "x"
export = { command = "echo >> /var/log/asked; head -n 1 /etc/value" }
run_on = ["source"]

[[task]]
id = "apart"
systemd = { unit = "db-apart.service", content = "[Service]\nExecStart=sleep infinity\n" }
requires = []
"#;

/// On h2: what waits for h1, what uses its value, and what does not.
const APP: &str = r#"
[service]
requires = ["db.x"]

[[task]]
id = "db-listens"
wait = { tcp = "{{ nodes_h1 }}:{{ port }}", timeout = "100s" }

[[task]]
id = "config"
template = { source = "app.conf.j2", path = "/etc/app.conf" }

[[task]]
id = "server"
systemd = { unit = "app.service", content = "[Service]\nExecStart=sleep infinity\n" }
restart_on = ["config"]

[[task]]
id = "other-config"
file = { path = "/etc/other.conf", content = "other" }

[[task]]
id = "other"
systemd = { unit = "other.service", content = "[Service]\nExecStart=sleep infinity\n" }
restart_on = ["other-config"]
"#;

const TEMPLATE: &str = "{% for node, value in exports.db.x | items %}{{ node }} says {{ value }}\n{% endfor %}";
/// Nothing that publishes or uses a value.
const NOTHING: &str = "[[task]]\nid = \"nothing\"\ncommand = { run = \"true\" }\n";
/// Opens a port, for as long as the host is on.
const LISTEN: &str = "systemd-run --quiet --unit=listener --socket-property=ListenStream=7000 sleep infinity";

fn site(builder: &Builder, value: &str, remark: &str, port: u16) -> String {
    let h1 = builder.address("h1");
    format!("name = {SITE:?}\n[vars]\nvalue = {value:?}\nremark = {remark:?}\nnodes_h1 = \"{h1}\"\nport = {port}\n")
}

/// What must not be touched: when units were started, when files were made, how often the value was read.
fn traces(hosts: &Hosts) -> [String; 6] {
    const STARTED: &str = "systemctl show --property ActiveEnterTimestampMonotonic --value ";
    [
        ("h1", format!("{STARTED} db-apart")),
        ("h2", format!("{STARTED} other")),
        ("h2", "stat --format %z-%i /etc/other.conf".to_owned()),
        ("h2", "stat --format %z-%i /etc/app.conf".to_owned()),
        ("h2", format!("{STARTED} app")),
        ("h1", "wc -l < /var/log/asked".to_owned()),
    ]
    .map(|(host, line)| hosts.out(host, &line))
}

#[test]
fn a_value_of_one_host_reaches_the_other_and_just_what_uses_it() {
    needs_hosts!();
    let builder = Hosts::site(&["h1", "h2"]);
    let [first, remarked, second, elsewhere] =
        [("one", "first", 7000), ("one", "second", 7000), ("two", "second", 7000), ("two", "second", 7001)]
            .map(|(value, remark, port)| site(&builder, value, remark, port));
    let inventory = "[nodes.h1]\ngroups = [\"db\"]\n[nodes.h2]\ngroups = [\"app\"]\n\
                     [groups.db]\nservices = [\"db\"]\n[groups.app]\nservices = [\"app\"]\n";
    let hosts = builder.start(&[
        ("site.toml", &first),
        ("inventory/nodes.toml", inventory),
        ("services/db/service.toml", DB),
        ("services/app/service.toml", APP),
        ("services/app/app.conf.j2", TEMPLATE),
    ]);

    // h1 has published its value; h2 waits for a port without a listener, and does nothing that comes after.
    hosts.wait("the wait on h2", || (hosts.report("app.db-listens", "h2").outcome == "running").then_some(()));
    // Which of the hosts the planner hears of first is left to chance: then the wait may begin before.
    hosts.wait("the value of h1", || (hosts.report("db.x", "h1").outcome == "changed").then_some(()));
    assert_eq!(hosts.sh("h2", "ls /etc/app.conf /etc/other.conf").out, "");
    hosts.out("h1", LISTEN);
    hosts.converged(&hosts.head());
    let waited = hosts.report("app.db-listens", "h2").output;
    let attempts = waited.trim().strip_prefix("succeeded at attempt ").and_then(|n| n.parse::<u32>().ok());
    assert!(attempts.is_some_and(|n| n > 1), "{waited}");
    assert_eq!(hosts.file("h2", "/etc/app.conf").as_deref(), Some("h1 says one\n"));
    let one = traces(&hosts);
    assert_eq!(one[5], "1");

    // Rechecked, the value is read again, and is the same.
    let checked = hosts.recheck(&[], &[]);
    assert!(checked.changed.is_empty() && checked.unchanged.contains(&"db.x@h1".to_owned()), "{checked:?}");
    let again = traces(&hosts);
    assert_eq!((&again[..5], &*again[5]), (&one[..5], "2"));

    // A trigger has it read again, and it is the same: nothing follows. Then it differs: only what uses it is touched.
    hosts.converged(&hosts.commit(&[("site.toml", &remarked)], "the same value"));
    let same = traces(&hosts);
    assert_eq!((&same[..5], &*same[5]), (&one[..5], "3"));
    let commit = hosts.commit(&[("site.toml", &second)], "another value");
    hosts.wait("the value on h2", || (hosts.file("h2", "/etc/app.conf")? == "h1 says two\n").then_some(()));
    hosts.converged(&commit);
    let two = traces(&hosts);
    assert_eq!((&two[..3], &*two[5]), (&one[..3], "4"));
    assert!(two[3] != one[3] && two[4] != one[4], "{two:?} {one:?}");
    assert_eq!(hosts.report("app.server", "h2").outcome, "restarted");
    let why = hosts.ask(&["why", "h2", "app.server"]).expect("an answer").to_string();
    assert!(why.contains("exports.db.x"), "{why}");

    // Without a listener there: it times out with a reason, and what comes after it keeps its state.
    let harder = DB.replace("content = \"{{ value }}", "content = \"three");
    let hasty = APP.replace("100s", "1s");
    let files =
        [("site.toml", &*elsewhere), ("services/db/service.toml", &harder), ("services/app/service.toml", &hasty)];
    hosts.settled(&hosts.commit(&files, "another port"));
    let outcome = hosts.report("app.db-listens", "h2").outcome;
    assert!(outcome.starts_with("failed: gave up after ") && outcome.contains("refused"), "{outcome}");
    assert_eq!(hosts.report("app.config", "h2").outcome, "blocked by app.db-listens");
    assert_eq!(hosts.file("h2", "/etc/app.conf").as_deref(), Some("h1 says two\n"));

    // Fixed, it continues from there.
    hosts.converged(&hosts.commit(&[("site.toml", &second)], "the port that is"));
    assert_eq!(hosts.file("h2", "/etc/app.conf").as_deref(), Some("h1 says three\n"));

    // Removed, the value is published no more.
    let none = DB.replace("[[task]]\nid = \"x\"", "[[task]]\nid = \"x\"\nwhen = \"false\"");
    assert_ne!(none, DB);
    hosts.converged(&hosts.commit(&[("services/db/service.toml", &none)], "no value"));
    assert_eq!(hosts.file("h2", "/etc/app.conf").as_deref(), Some(""), "no node publishes a value");
    let files = [("services/db/service.toml", NOTHING), ("services/app/service.toml", NOTHING)];
    hosts.converged(&hosts.commit(&files, "nothing left"));
    assert_eq!(hosts.sh("h2", "ls /etc/app.conf /etc/other.conf").out, "");
    let node = hosts.ask(&["show", "h1"]).expect("an answer").to_string();
    assert!(!node.contains("three") && !node.contains("db.x"), "{node}");
}
