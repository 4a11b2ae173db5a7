//! Hosts that converge, are cut off, killed, rebooted and wiped: they end where the commit wants them, and nothing runs twice.

use groundplan_tests::{hosts::Hosts, needs_hosts};

/// A unit, its program's configuration, and the unit started. Every start adds a line to `/var/log/starts`.
fn service(greeting: &str) -> String {
    format!(
        r#"
[vars]
greeting = "{greeting}"

[[task]]
id = "unit"
file = {{ path = "/etc/systemd/system/greeter.service", content = """
[Service]
ExecStartPre=/bin/sh -c 'echo start >> /var/log/starts'
ExecStart=/bin/sleep infinity
[Install]
WantedBy=multi-user.target
""" }}

[[task]]
id = "load"
command = {{ run = "systemctl daemon-reload" }}
run_on = ["unit"]

[[task]]
id = "config"
file = {{ path = "/etc/greeter.conf", content = "hello from {{{{ node.name }}}}: {{{{ greeting }}}}\n" }}

[[task]]
id = "server"
systemd = {{ unit = "greeter.service", enabled = true, state = "started" }}
restart_on = ["config"]
"#
    )
}

fn starts(hosts: &Hosts, host: &str) -> usize {
    hosts.file(host, "/var/log/starts").map_or(0, |text| text.lines().count())
}

#[test]
fn two_hosts_converge() {
    needs_hosts!();
    let hosts = Hosts::site(&["h1", "h2"]).serve(&service("one"));
    hosts.converged(&hosts.head());
    for host in ["h1", "h2"] {
        assert_eq!(hosts.file(host, "/etc/greeter.conf"), Some(format!("hello from {host}: one\n")));
        assert_eq!(hosts.out(host, "systemctl is-active greeter"), "active");
        assert_eq!(hosts.out(host, "systemctl is-enabled greeter"), "enabled");
        assert_eq!(starts(&hosts, host), 1);
        assert_eq!(hosts.out(host, "hostname"), host);
    }
    hosts.converged(&hosts.change(&service("two")));
    for host in ["h1", "h2"] {
        assert_eq!(starts(&hosts, host), 2, "restarted once");
        assert!(hosts.report("s.server", host).changed);
        assert_eq!(hosts.report("s.config", host).outcome, "changed");
    }
    // Out of band, on one of them.
    hosts.out("h1", "echo drifted > /etc/greeter.conf");
    let rechecked = hosts.recheck(&["s.config", "s.unit"], &[]);
    assert_eq!(rechecked.changed[0], "s.config@h1", "{rechecked:?}");
    assert!(["s.config@h2", "s.unit@h1"].iter().all(|i| rechecked.unchanged.iter().any(|u| u == i)), "{rechecked:?}");
    assert_eq!(hosts.file("h1", "/etc/greeter.conf").as_deref(), Some("hello from h1: two\n"));
    assert_eq!((starts(&hosts, "h1"), starts(&hosts, "h2")), (3, 2), "a repair restarts what follows from it");
}

/// A file, a step that lasts until `/var/gate` is there, and a server that both restart. The step adds a line to `/var/runs`.
fn gated(greeting: &str) -> String {
    let slow = r#"
[[task]]
id = "slow"
command = { run = "echo run >> /var/runs; while [ ! -e /var/gate ]; do sleep 0.05; done" }
run_on = ["config"]

[[task]]
id = "server""#;
    service(greeting).replace("\n[[task]]\nid = \"server\"", slow)
}

fn runs(hosts: &Hosts, host: &str) -> usize {
    hosts.file(host, "/var/runs").map_or(0, |text| text.lines().count())
}

fn presence(hosts: &Hosts, host: &str) -> Option<String> {
    let status = hosts.ask(&["status"])?;
    let node = status["nodes"].as_array()?.iter().find(|node| node["node"] == host)?.clone();
    Some(node["presence"].as_str()?.to_owned())
}

/// Two hosts, converged, their gates shut again, and a second rollout in its slow step on both.
fn in_the_middle() -> (Hosts, String) {
    let hosts = Hosts::site(&["h1", "h2"]).serve(&gated("one"));
    for host in ["h1", "h2"] {
        hosts.out(host, "touch /var/gate");
    }
    hosts.converged(&hosts.head());
    for host in ["h1", "h2"] {
        assert_eq!((runs(&hosts, host), starts(&hosts, host)), (1, 1));
        hosts.out(host, "rm /var/gate");
    }
    let commit = hosts.change(&gated("two"));
    for host in ["h1", "h2"] {
        hosts.wait("the slow step", || (runs(&hosts, host) == 2).then_some(()));
    }
    (hosts, commit)
}

#[test]
fn cut_off_during_a_rollout_and_back() {
    needs_hosts!();
    let (hosts, commit) = in_the_middle();
    hosts.cut("h2");
    hosts.wait("the planner to miss it", || (presence(&hosts, "h2")? == "offline").then_some(()));
    for host in ["h1", "h2"] {
        hosts.out(host, "touch /var/gate");
    }
    // Both continue: one is followed, the other carries out its plan by itself.
    for host in ["h1", "h2"] {
        hosts.wait("the restart", || (starts(&hosts, host) == 2).then_some(()));
    }
    hosts.wait("the report of the connected one", || {
        (hosts.report("s.server", "h1").outcome == "restarted").then_some(())
    });
    let running = hosts.ask(&["status"]).expect("a status");
    assert_eq!(running["rollout"]["result"], "running", "the planner has no report of it yet");
    hosts.join("h2");
    hosts.converged(&commit);
    assert_eq!(hosts.report("s.server", "h2").outcome, "restarted");
    for host in ["h1", "h2"] {
        assert_eq!((runs(&hosts, host), starts(&hosts, host)), (2, 2), "nothing ran twice on {host}");
    }
}

#[test]
fn killed_during_a_rollout_and_booted() {
    needs_hosts!();
    let (mut hosts, commit) = in_the_middle();
    hosts.out("h1", "touch /var/gate");
    // The gate stays closed: what was interrupted is found after the boot, and runs again.
    hosts.kill("h2");
    hosts.wait("the other one", || (starts(&hosts, "h1") == 2).then_some(()));
    hosts.boot("h2");
    hosts.wait("the slow step again", || (runs(&hosts, "h2") == 3).then_some(()));
    hosts.out("h2", "touch /var/gate");
    hosts.converged(&commit);
    assert_eq!(hosts.file("h2", "/etc/greeter.conf").as_deref(), Some("hello from h2: two\n"));
    assert_eq!(starts(&hosts, "h1"), 2);
    // Started by systemd at the boot, with the new configuration or not: the pending restart came after.
    assert_eq!(starts(&hosts, "h2"), 3);
}

#[test]
fn rebooted_and_wiped() {
    needs_hosts!();
    let mut hosts = Hosts::site(&["h1", "h2"]).serve(&service("one"));
    hosts.converged(&hosts.head());
    // An orderly reboot: the address is there again, the agent comes back, nothing is done twice.
    hosts.reboot("h1");
    hosts.converged(&hosts.change(&service("two")));
    assert_eq!(hosts.file("h1", "/etc/greeter.conf").as_deref(), Some("hello from h1: two\n"));
    assert_eq!(starts(&hosts, "h1"), 3, "the first start, the boot's, and the restart");
    // A fresh disk under the same name: everything in the commit, from nothing, without another commit.
    hosts.wipe("h2");
    hosts.wait("all of it on the fresh host", || (starts(&hosts, "h2") == 1).then_some(()));
    hosts.converged(&hosts.head());
    assert_eq!(hosts.file("h2", "/etc/greeter.conf").as_deref(), Some("hello from h2: two\n"));
    assert_eq!(hosts.out("h2", "systemctl is-enabled greeter"), "enabled");
    assert_eq!(starts(&hosts, "h1"), 3, "the other one was left alone");
}
