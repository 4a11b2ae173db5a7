//! `reboot` on real hosts: they go down, come back, and the rollout goes on, once.

use groundplan_tests::{hosts::Hosts, needs_hosts};
use serde_json::Value;

/// What comes before, the reboot with these parameters, and what comes after; the kernel's version triggers another one.
fn service(kernel: &str, params: &str) -> String {
    format!(
        r#"
[[task]]
id = "kernel"
file = {{ path = "/etc/kernel-version", content = "{kernel}" }}

[[task]]
id = "before"
command = {{ run = "cat /proc/sys/kernel/random/boot_id >> /var/log/before" }}

[[task]]
id = "down"
reboot = {{ {params} }}
run_on = ["kernel"]
requires = ["kernel", "before"]

[[task]]
id = "after"
command = {{ run = "cat /proc/sys/kernel/random/boot_id >> /var/log/after" }}
on_interrupt = "fail"
run_on = ["down"]
"#
    )
}

fn lines(hosts: &Hosts, path: &str) -> Vec<String> {
    hosts.file("h1", path).unwrap_or_default().lines().map(str::to_owned).collect()
}

#[test]
fn goes_on_where_it_was() {
    needs_hosts!();
    let hosts = Hosts::site(&["h1"]).serve(&service("1", ""));
    hosts.converged(&hosts.head());
    let boot = hosts.boot_id("h1").expect("a host that is on");
    let [first] = &lines(&hosts, "/var/log/before")[..] else { panic!("once") };
    assert_ne!(*first, boot, "the host has been down");
    assert_eq!(lines(&hosts, "/var/log/after"), std::slice::from_ref(&boot));
    assert_eq!(hosts.report("s.down", "h1").outcome, "changed");
    assert_eq!(hosts.report("s.down", "h1").output, "the host has been down and is back\n");

    // Asked to be checked again it stays up; planned again there is nothing.
    hosts.ask(&["recheck", "s.down"]).expect("an answer");
    assert_eq!(hosts.report("s.down", "h1").outcome, "unchanged");
    assert_eq!(hosts.boot_id("h1").as_ref(), Some(&boot));

    // A change of what it hangs on.
    hosts.converged(&hosts.change(&service("2", "")));
    let second = hosts.boot_id("h1").expect("a host that is on");
    assert_ne!(second, boot);
    assert_eq!(lines(&hosts, "/var/log/before"), std::slice::from_ref(first));
    assert_eq!(lines(&hosts, "/var/log/after"), [boot, second.clone()]);
    assert_eq!(hosts.report("s.down", "h1").outcome, "run");

    // A guard; and a host that reports that it needs no reboot.
    for params in ["only_if = \"test -e /var/lib/outdated\"", "needed = true"] {
        hosts.converged(&hosts.change(&service("2", params)));
        assert_eq!(hosts.report("s.down", "h1").outcome, "unchanged");
        assert_eq!(hosts.boot_id("h1").as_ref(), Some(&second));
    }

    // A host that cannot go down: what comes after is blocked, everything else proceeds.
    hosts.out("h1", "systemctl mask --runtime reboot.target");
    hosts.settled(&hosts.change(&service("3", "timeout = \"5s\"")));
    let outcome = hosts.report("s.down", "h1").outcome;
    assert!(outcome.starts_with("failed: `systemctl --no-wall --no-block reboot` exited with 1: "), "{outcome}");
    assert_eq!(hosts.report("s.after", "h1").outcome, "blocked by s.down");
    assert_eq!(hosts.file("h1", "/etc/kernel-version").as_deref(), Some("3"));
    assert_eq!(hosts.sh("h1", "ls /var/lib/groundplan/reboot").out, "");

    // Removed from the site: nothing to be done.
    hosts.converged(
        &hosts.change("[[task]]\nid = \"kernel\"\nfile = { path = \"/etc/kernel-version\", content = \"3\" }\n"),
    );
    assert_eq!(hosts.boot_id("h1").as_ref(), Some(&second));
}

/// A reboot beside a command that runs long at its first attempt.
const BESIDE: &str = r#"
[[task]]
id = "long"
command = { run = "cat /proc/sys/kernel/random/boot_id >> /var/log/long; sync; test $(wc -l < /var/log/long) -gt 1 || sleep 600", unless = "false" }

[[task]]
id = "begun"
requires = []
wait = { command = "test -e /var/log/long" }

[[task]]
id = "down"
requires = ["begun"]
reboot = {}

[[task]]
id = "after"
command = { run = "cat /proc/sys/kernel/random/boot_id >> /var/log/after", unless = "false" }
requires = ["down", "long"]
"#;

#[test]
fn killed_while_it_waits_it_goes_down_once() {
    needs_hosts!();
    let mut hosts = Hosts::site(&["h1", "h2"]).serve(BESIDE);
    let before = ["h1", "h2"].map(|host| hosts.boot_id(host).expect("a host that is on"));
    for host in ["h1", "h2"] {
        // Both run: the reboot waits for the other.
        hosts.wait("the marker and the long command", || {
            hosts.file(host, "/var/lib/groundplan/reboot/s.down.json")?;
            hosts.file(host, "/var/log/long")
        });
    }
    // The agent is killed on the one: its successor requests the reboot again. Power fails on the other: that counts as the reboot.
    hosts.out("h1", "systemctl kill --signal KILL --kill-who main groundplan-agent");
    hosts.kill("h2");
    hosts.boot("h2");
    hosts.converged(&hosts.head());
    for (host, before) in ["h1", "h2"].into_iter().zip(before) {
        let now = hosts.boot_id(host).expect("a host that is on");
        let long: Vec<String> = hosts.file(host, "/var/log/long").expect("it ran").lines().map(str::to_owned).collect();
        let after = hosts.file(host, "/var/log/after").expect("it ran");
        assert_ne!(now, before);
        assert_eq!(after, format!("{now}\n"), "{host}: after it, once, in the boot that is the last");
        assert_eq!((long.len(), &long[0]), (2, &before), "{host}");
    }
    let state: Value = hosts.ask(&["status"]).expect("an answer");
    assert_eq!(state["rollout"]["result"], "succeeded");
}
