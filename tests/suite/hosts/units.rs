//! systemd units on a real host: shipped, changed, masked, broken, and given back.

use std::time::{Duration, Instant};

use groundplan_tests::{hosts::Hosts, needs_hosts};
use serde_json::Value;

use super::{NOTHING, drifted, recheck};

/// A service that notes each of its starts, a timer with its service, a unit template with an instance, and two units that were
/// there before.
fn units(content: &str, limit: u32, more: &str) -> String {
    format!(
        r#"
[[task]]
id = "demo"
systemd = {{ unit = "demo.service", enabled = true, content = """
{content}
[Install]
WantedBy=multi-user.target
""", dropins = {{ "10-limit.conf" = "[Service]\nLimitNOFILE={limit}\n" }} }}

[[task]]
id = "tick"
requires = []
systemd = {{ unit = "tick.service", state = "any", content = "[Service]\nType=oneshot\nExecStart=/bin/true\n" }}

[[task]]
id = "timer"
systemd = {{ unit = "tick.timer", content = "[Timer]\nOnCalendar=yearly\n" }}

[[task]]
id = "worker"
requires = []
systemd = {{ unit = "worker@.service", content = "[Service]\nExecStart=/bin/sleep infinity\n" }}

[[task]]
id = "one"
systemd = {{ unit = "worker@one.service" }}

[[task]]
id = "theirs"
requires = []
systemd = {{ unit = "theirs.service", enabled = false, state = "stopped" }}

[[task]]
id = "unwanted"
requires = []
systemd = {{ unit = "unwanted.service", masked = true }}
{more}
"#
    )
}

const DEMO: &str = "[Service]\nExecStartPre=/bin/sh -c 'echo start >> /var/log/demo'\nExecStart=/bin/sleep infinity";
const THEIRS: &str = "[Service]\nExecStart=/bin/sleep infinity\n[Install]\nWantedBy=multi-user.target\n";

fn reloads(hosts: &Hosts) -> usize {
    hosts
        .out("h1", "journalctl --sync; journalctl -b -o cat _PID=1 | grep -c '^Reloading' || true")
        .trim()
        .parse()
        .expect("a number")
}

fn starts(hosts: &Hosts) -> usize {
    hosts.file("h1", "/var/log/demo").map_or(0, |text| text.lines().count())
}

#[test]
fn units_come_change_break_and_go() {
    needs_hosts!();
    let hosts = Hosts::site(&["h1"]).serve(NOTHING);
    hosts.converged(&hosts.head());
    for unit in ["theirs", "unwanted"] {
        hosts.out("h1", &format!("printf '{THEIRS}' > /lib/systemd/system/{unit}.service; systemctl daemon-reload"));
        hosts.out("h1", &format!("systemctl enable --now {unit}"));
    }

    // Create.
    hosts.converged(&hosts.change(&units(DEMO, 1111, "")));
    let states =
        "systemctl is-active demo tick.timer worker@one theirs unwanted; systemctl is-enabled demo theirs unwanted";
    let wanted = "active\nactive\nactive\ninactive\ninactive\nenabled\ndisabled\nmasked";
    assert_eq!(hosts.sh("h1", states).out.trim(), wanted);
    assert_eq!(starts(&hosts), 1);
    assert_eq!(hosts.out("h1", "systemctl show -P LimitNOFILE demo").trim(), "1111");

    // No change.
    let all = ["s.demo", "s.tick", "s.timer", "s.worker", "s.one", "s.theirs", "s.unwanted"];
    let before = reloads(&hosts);
    recheck(&hosts);
    for task in all {
        assert_eq!(hosts.report(task, "h1").outcome, "unchanged", "{task}");
    }
    assert_eq!((starts(&hosts), reloads(&hosts)), (1, before), "nothing is restarted or read again");

    // Update: a drop-in is read once, and the unit restarted once.
    hosts.converged(&hosts.change(&units(DEMO, 2222, "")));
    assert_eq!((starts(&hosts), reloads(&hosts)), (2, before + 1));
    assert_eq!(hosts.out("h1", "systemctl show -P LimitNOFILE demo").trim(), "2222");
    hosts.converged(&hosts.change(&units(&format!("[Unit]\nDescription=changed\n{DEMO}"), 2222, "")));
    assert_eq!(starts(&hosts), 3);
    assert_eq!(hosts.out("h1", "systemctl show -P Description demo").trim(), "changed");

    // Drift.
    hosts.out("h1", "systemctl disable --now demo; systemctl unmask unwanted; systemctl start unwanted theirs");
    hosts.out("h1", "echo '[Service]' > /etc/systemd/system/demo.service.d/10-limit.conf");
    let expected = [
        "s.demo /etc/systemd/system/demo.service.d/10-limit.conf: content: - -> something else",
        "s.demo active: active -> inactive",
        "s.demo enabled: enabled -> disabled",
        "s.theirs active: inactive -> active",
        "s.unwanted masked: masked -> not masked",
        "s.unwanted active: inactive -> active",
    ];
    assert_eq!(drifted(&hosts), expected);
    recheck(&hosts);
    assert_eq!(hosts.sh("h1", states).out.trim(), wanted);
    assert_eq!(hosts.out("h1", "systemctl show -P LimitNOFILE demo").trim(), "2222");
    assert_eq!(starts(&hosts), 4);

    // Failure: what runs goes on, what comes after it waits, all else goes on.
    let more = "[[task]]\nid = \"after\"\nrequires = [\"demo\"]\nfile = { path = \"/etc/after\", content = \"\" }\n\
                [[task]]\nid = \"beside\"\nrequires = []\nfile = { path = \"/etc/beside\", content = \"\" }\n";
    let pid = hosts.out("h1", "systemctl show -P MainPID demo");
    hosts.settled(&hosts.change(&units("[Service]\nType=simple", 2222, more)));
    let outcome = hosts.report("s.demo", "h1").outcome;
    assert!(outcome.contains("cannot load the new files of demo.service") && outcome.contains("Refusing"), "{outcome}");
    assert!(hosts.report("s.after", "h1").outcome.starts_with("blocked"));
    assert!(hosts.file("h1", "/etc/beside").is_some() && hosts.file("h1", "/etc/after").is_none());
    assert_eq!(hosts.out("h1", "systemctl show -P MainPID demo"), pid);
    hosts.settled(&hosts.change(&units("[Service]\nExecStart=/nowhere/program", 2222, "")));
    let outcome = hosts.report("s.demo", "h1").outcome;
    // The journal's line that names the program may come a moment after that of its end.
    let is_named = outcome.contains("/nowhere/program") || outcome.contains("status=203/EXEC");
    assert!(outcome.contains("demo.service") && is_named, "{outcome}");

    // Removal.
    hosts.converged(&hosts.change(NOTHING));
    assert_eq!(hosts.sh("h1", "systemctl is-active theirs unwanted").out.trim(), "active\nactive");
    assert_eq!(hosts.sh("h1", "systemctl is-enabled theirs unwanted").out.trim(), "enabled\nenabled");
    assert_eq!(hosts.out("h1", "ls /etc/systemd/system | grep -E 'demo|tick|worker' || true"), "");
    assert_eq!(hosts.out("h1", "systemctl list-units --all --plain --no-legend 'demo*' 'tick*' 'worker@one*'"), "");
}

#[test]
fn the_links_of_an_enabled_unit_follow_its_file() {
    needs_hosts!();
    let hosts = Hosts::site(&["h1"]).serve(NOTHING);
    hosts.converged(&hosts.head());
    let unit = "[Service]\\nExecStart=/bin/sleep infinity\\n[Install]\\nWantedBy=multi-user.target\\n";
    hosts.out("h1", &format!("printf '{unit}' > /lib/systemd/system/both.service; systemctl daemon-reload"));
    let link = || hosts.sh("h1", "readlink /etc/systemd/system/multi-user.target.wants/both.service").out;
    let task = |content: &str| {
        format!("[[task]]\nid = \"both\"\nsystemd = {{ unit = \"both.service\", enabled = true{content} }}\n")
    };
    let (shipped, plain) = (task(&format!(", content = \"{unit}\"")), task(""));
    let (own, theirs) = ("/etc/systemd/system/both.service", "/lib/systemd/system/both.service");
    for (text, target) in [(&*shipped, own), (&*plain, theirs), (&*shipped, own), (NOTHING, "")] {
        hosts.converged(&hosts.change(text));
        assert_eq!(link(), target, "{text}");
    }
    // It was enabled before.
    hosts.out("h1", "systemctl --quiet enable both.service");
    for (text, target) in [(&*shipped, own), (NOTHING, theirs)] {
        hosts.converged(&hosts.change(text));
        assert_eq!(link(), target, "{text}");
    }
}

/// A service that runs until there is a file for it, and then fails: once for all, or to be started again by systemd.
const FAILING: &str = r#"
[[task]]
id = "once"
requires = []
systemd = { unit = "once.service", content = "[Service]\nExecStart=/bin/sh -c 'while [ ! -e /run/stop-once ]; do sleep 0.1; done; exit 3'\n" }

[[task]]
id = "again"
requires = []
systemd = { unit = "again.service", content = "[Unit]\nStartLimitIntervalSec=0\n[Service]\nRestart=always\nRestartSec=100ms\nExecStart=/bin/sh -c 'sleep 0.5; [ ! -e /run/stop-again ] && exec sleep infinity; exit 3'\n" }
"#;

fn degraded(hosts: &Hosts) -> Option<Value> {
    Some(hosts.ask(&["status"])?["nodes"][0]["degraded"].clone())
}

#[test]
fn a_unit_that_fails_after_its_start_is_degraded_within_seconds() {
    needs_hosts!();
    let hosts = Hosts::site(&["h1"]).serve(FAILING);
    let status = hosts.converged(&hosts.head());
    assert_eq!(status["nodes"][0]["condition"], "converged", "{status:#}");

    hosts.out("h1", "touch /run/stop-once");
    let begun = Instant::now();
    let found = hosts.wait("the failure", || degraded(&hosts).filter(|found| !found.is_null()));
    assert!(begun.elapsed() < Duration::from_secs(30), "no drift check was due");
    assert!(found["s.once"].as_str().is_some_and(|why| why.contains("failed (exit-code)")), "{found}");
    hosts.out("h1", "rm /run/stop-once; systemctl start once.service");
    hosts.wait("the unit to be reported as running", || degraded(&hosts).filter(Value::is_null));

    // One that systemd starts again and again is up at most moments.
    hosts.out("h1", "touch /run/stop-again; systemctl kill --signal=KILL again.service");
    hosts.wait("the restarts", || degraded(&hosts)?["s.again"].as_str().map(drop));
    hosts.out("h1", "rm /run/stop-again");
    hosts.wait("the unit to run on", || degraded(&hosts).filter(Value::is_null));
    let status = hosts.ask(&["status"]).expect("a status");
    assert_eq!(status["nodes"][0]["condition"], "converged", "{status:#}");
}
