//! Drift on a real host: a file edited, a unit stopped, a package removed, a user deleted out of band.

use groundplan_tests::{fleet::SITE, hosts::Hosts, needs_hosts};
use serde_json::{Value, json};

use super::packages::publish;

/// A service of which a file, a unit, a package and a user are tampered with; one unit follows the file, another nothing.
fn service(name: &str, policy: &str) -> String {
    let unit = |unit: &str| {
        format!(
            r#"systemd = {{ unit = "{name}-{unit}.service", enabled = true, content = "[Service]\nExecStart=/bin/sleep infinity\n[Install]\nWantedBy=multi-user.target\n" }}"#
        )
    };
    let [follower, stopped, still] = ["follower", "stopped", "still"].map(unit);
    format!(
        r#"
[drift]
policy = "{policy}"

[[task]]
id = "config"
file = {{ path = "/etc/{name}.conf", content = "a = 1\nb = 2\n", mode = "0640" }}

[[task]]
id = "follower"
{follower}
restart_on = ["config"]

[[task]]
id = "stopped"
requires = []
{stopped}

[[task]]
id = "still"
requires = []
{still}

[[task]]
id = "tool"
requires = []
package = "gp-{name}"

[[task]]
id = "user"
requires = []
user = {{ name = "{name}", shell = "/bin/sh", groups = ["audio"] }}
"#
    )
}

fn site(interval: &str) -> String {
    format!("name = {SITE:?}\n[drift]\ninterval = \"{interval}\"\n")
}

/// When each unit was started last.
fn starts(hosts: &Hosts, name: &str) -> [String; 3] {
    ["follower", "stopped", "still"].map(|unit| {
        hosts.out("h1", &format!("systemctl show -p ExecMainStartTimestampMonotonic --value {name}-{unit}"))
    })
}

fn tamper(hosts: &Hosts, name: &str) {
    let lines = [
        format!("sed -i 's/b = 2/b = 3/' /etc/{name}.conf"),
        format!("systemctl disable --now {name}-stopped"),
        format!("dpkg -r gp-{name}"),
        format!("userdel {name}"),
    ];
    lines.iter().for_each(|line| drop(hosts.out("h1", line)));
}

/// What differs of a task, each as `what: expected -> found`.
fn differences(drift: &Value, task: &str) -> Vec<String> {
    let differences = drift["nodes"][0]["drifted"][task]["differences"].as_array().cloned().unwrap_or_default();
    let text = |value: &Value| value.as_str().unwrap_or("-").to_owned();
    differences
        .iter()
        .map(|d| format!("{}: {} -> {}", text(&d["what"]), text(&d["expected"]), text(&d["found"])))
        .collect()
}

fn drifted(drift: &Value) -> Vec<&str> {
    drift["nodes"][0]["drifted"].as_object().into_iter().flatten().map(|(task, _)| task.as_str()).collect()
}

/// All that was tampered with of a service: `true` if it is as it was tampered with, `false` if it is as it should be.
fn is_tampered(hosts: &Hosts, name: &str) -> Option<bool> {
    let line = format!(
        "grep -c 'b = 3' /etc/{name}.conf; systemctl is-active {name}-stopped; systemctl is-enabled {name}-stopped; \
         dpkg-query -W -f='${{db:Status-Abbrev}}\\n' gp-{name}; id -nG {name}"
    );
    let now = hosts.sh("h1", &line).out;
    match now.split_whitespace().collect::<Vec<_>>().as_slice() {
        ["1", "inactive", "disabled", ..] if !now.contains("ii") && !now.contains("audio") => Some(true),
        ["0", "active", "enabled", "ii", name_of, "audio"] if *name_of == name => Some(false),
        _ => None,
    }
}

#[test]
fn drift_is_reported_left_alone_and_healed() {
    needs_hosts!();
    let inventory = "[groups.g]\nservices = [\"kept\", \"cared\"]\n\n[nodes.h1]\ngroups = [\"g\"]\n";
    let empty = "# Nothing.\n";
    let hosts = Hosts::start(
        &["h1"],
        &[
            ("site.toml", &site("0s")),
            ("inventory/nodes.toml", inventory),
            ("services/kept/service.toml", empty),
            ("services/cared/service.toml", empty),
        ],
    );
    hosts.converged(&hosts.head());
    publish(&hosts, &["gp-kept 1.0", "gp-cared 1.0"]);
    let report = [
        ("services/kept/service.toml", &*service("kept", "report")),
        ("services/cared/service.toml", &*service("cared", "report")),
    ];
    hosts.converged(&hosts.commit(&report, "both"));
    let clean = hosts.drift(&[]);
    assert_eq!((drifted(&clean).len(), &clean["nodes"][0]["check"]["checked"]), (0, &json!(12)), "{clean:#}");
    assert_eq!(clean["nodes"][0]["failed"], Value::Null, "{clean:#}");
    let before = ["kept", "cared"].map(|name| starts(&hosts, name));

    // Under `report` it is reported, and left alone.
    ["kept", "cared"].iter().for_each(|name| tamper(&hosts, name));
    let drift = hosts.drift(&[]);
    let all = ["config", "stopped", "tool", "user"];
    let expected: Vec<String> =
        ["cared", "kept"].iter().flat_map(|name| all.map(|task| format!("{name}.{task}"))).collect();
    assert_eq!(drifted(&drift), expected, "{drift:#}");
    let diff = drift["nodes"][0]["drifted"]["kept.config"]["differences"][0]["diff"].as_str().unwrap_or_default();
    assert!(diff.ends_with(" a = 1\n-b = 2\n+b = 3\n"), "{drift:#}");
    assert_eq!(differences(&drift, "kept.config"), ["content: - -> -"]);
    assert_eq!(differences(&drift, "kept.stopped"), ["active: active -> inactive", "enabled: enabled -> disabled"]);
    assert_eq!(differences(&drift, "kept.tool"), ["package gp-kept: installed -> -"]);
    assert_eq!(differences(&drift, "kept.user"), ["user kept: present -> -"]);
    assert_eq!(drift["nodes"][0]["drifted"]["kept.user"]["healing"], json!(false));
    assert_eq!(["kept", "cared"].map(|name| is_tampered(&hosts, name)), [Some(true); 2]);
    hosts.out("h1", "useradd -M -s /bin/false -G video kept; chmod 600 /etc/kept.conf; chgrp daemon /etc/kept.conf");
    let drift = hosts.drift(&["kept"]);
    assert_eq!(differences(&drift, "kept.user"), ["groups: audio -> video", "shell: /bin/sh -> /bin/false"]);
    let owners = [
        "content: - -> something else, not reported: only its owner may read the file",
        "mode: 0640 -> 0600",
        "group: root -> daemon",
    ];
    assert_eq!(differences(&drift, "kept.config"), owners);
    hosts.out("h1", "userdel kept");

    // Under `heal` it is repaired, with the one restart that follows from it.
    hosts.commit(&[("services/cared/service.toml", &*service("cared", "heal"))], "take care");
    hosts.drift(&[]);
    hosts.wait("the repair under `heal`", || (is_tampered(&hosts, "cared") == Some(false)).then_some(()));
    let left = hosts.wait("the report of the repair", || {
        let drift = hosts.drift(&["--last"]);
        drifted(&drift).iter().all(|task| task.starts_with("kept.")).then_some(drift)
    });
    assert_eq!(drifted(&left), ["kept.config", "kept.stopped", "kept.tool", "kept.user"], "{left:#}");
    let [follower, stopped, still] = starts(&hosts, "cared");
    assert_ne!((&follower, &stopped), (&before[1][0], &before[1][1]), "one follows the file, one was down");
    assert_eq!(still, before[1][2]);
    assert_eq!(is_tampered(&hosts, "kept"), Some(true));
    let [kept_follower, _, kept_still] = starts(&hosts, "kept");
    assert_eq!([&kept_follower, &kept_still], [&before[0][0], &before[0][2]]);

    // By itself, at an interval.
    hosts.commit(&[("site.toml", &*site("1s"))], "look often");
    hosts.out("h1", "rm /etc/cared.conf");
    hosts.wait("the file to come back and its follower to be restarted", || {
        let [again, ..] = starts(&hosts, "cared");
        (hosts.file("h1", "/etc/cared.conf").as_deref() == Some("a = 1\nb = 2\n") && again != follower).then_some(())
    });
    assert_eq!(starts(&hosts, "cared")[1..], [stopped, still]);
    assert_eq!(is_tampered(&hosts, "kept"), Some(true));
}
