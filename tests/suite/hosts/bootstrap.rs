//! Bare hosts, with nothing but sshd, that get their agents by `groundplan bootstrap`, and what it does about hosts that are not so.

use std::{
    fs,
    path::{Path, PathBuf},
};

use groundplan_tests::{binaries, hosts::Hosts, needs_hosts};
use serde_json::Value;

const UNIT: &str = "/lib/systemd/system/groundplan-agent.service";

/// A supervised process, a file, a step that lasts until `/var/gate` is there and adds a line to `/var/runs`, and a unit that restarts
/// with the file and adds a line to `/var/starts`.
fn service(greeting: &str) -> String {
    format!(
        r#"
[[task]]
id = "worker"
process = {{ run = "exec sleep infinity" }}

[[task]]
id = "config"
requires = []
file = {{ path = "/etc/greeter.conf", content = "{greeting}\n" }}

[[task]]
id = "slow"
command = {{ run = "echo run >> /var/runs; while [ ! -e /var/gate ]; do sleep 0.05; done" }}
run_on = ["config"]

[[task]]
id = "server"
systemd = {{ unit = "greeter.service", enabled = true, content = """
[Service]
ExecStartPre=/bin/sh -c 'echo start >> /var/starts'
ExecStart=/bin/sleep infinity
[Install]
WantedBy=multi-user.target
""" }}
restart_on = ["config"]
"#
    )
}

fn lines(hosts: &Hosts, host: &str, file: &str) -> usize {
    hosts.file(host, file).map_or(0, |text| text.lines().count())
}

/// The agent's own process and all that it supervises: `sleep infinity` of the process and of the unit.
fn pids(hosts: &Hosts, host: &str) -> (String, String) {
    let agent = hosts.out(host, "systemctl show --property MainPID --value groundplan-agent");
    (
        agent,
        hosts.out(
            host,
            "pgrep -x sleep -a | grep infinity | grep -v \"$(systemctl show --property MainPID --value greeter)\"",
        ),
    )
}

fn states(said: &Value) -> Vec<&str> {
    said["nodes"].as_array().expect("nodes").iter().map(|node| node["state"].as_str().expect("a state")).collect()
}

/// A file beside the known hosts, that goes with them.
fn beside(hosts: &Hosts, name: &str) -> PathBuf {
    hosts.ssh_config().with_file_name(name)
}

/// Another build of the agent, as far as digests go: bytes behind a program are not loaded.
fn another(hosts: &Hosts, agent: &Path) -> PathBuf {
    let mut bytes = fs::read(agent).expect("the agent");
    bytes.extend(b"\nanother build\n");
    let path = beside(hosts, "another-agent");
    fs::write(&path, bytes).expect("a file");
    path
}

/// All that bootstrap may have put on a host, with times: equal before and after means untouched.
fn traces(hosts: &Hosts, host: &str) -> String {
    hosts.out(
        host,
        "ls -l --time-style=full-iso /usr/bin/groundplan-agent* /etc/groundplan /lib/systemd/system/groundplan-agent* /etc/systemd/system/*/groundplan-agent* \
         2> /dev/null || true",
    )
}

#[test]
fn three_bare_hosts_side_by_side_and_upgraded_in_mid_rollout() {
    needs_hosts!();
    let names = ["h1", "h2", "h3"];
    let agent = binaries::static_agent();
    let program = agent.to_str().expect("a path");
    let hosts = Hosts::site(&names).bare().serve(&service("one"));
    hosts.wait("the first commit", || hosts.ask(&["status"]).filter(|status| !status["commit"].is_null()));

    // What would be done, and then it is done.
    let (good, said) = hosts.bootstrap(&["all", "--agent", program, "--dry-run"]);
    assert!(good && states(&said) == ["would"; 3], "{said:#}");
    assert!(names.iter().all(|host| traces(&hosts, host).is_empty()), "{}", traces(&hosts, "h1"));
    names.iter().for_each(|host| drop(hosts.out(host, "touch /var/gate")));
    let (good, said) = hosts.bootstrap(&["all", "--agent", program]);
    assert!(good && states(&said) == ["installed"; 3], "{said:#}");
    hosts.converged(&hosts.head());
    for host in names {
        assert_eq!((lines(&hosts, host, "/var/runs"), lines(&hosts, host, "/var/starts")), (1, 1));
        assert_eq!(hosts.out(host, "systemctl is-enabled groundplan-agent"), "enabled");
        let modes = hosts.out(
            host,
            &format!(
                "stat -c '%a %U %n' /usr/bin/groundplan-agent /etc/groundplan/agent.toml {UNIT}; ls -A /etc/groundplan"
            ),
        );
        let expected = format!(
            "755 root /usr/bin/groundplan-agent\n600 root /etc/groundplan/agent.toml\n644 root {UNIT}\nagent.toml"
        );
        assert_eq!(modes, expected);
        assert_eq!(
            hosts.file(host, UNIT).as_deref(),
            Some(include_str!("../../../packaging/systemd/groundplan-agent.service"))
        );
    }

    // The second time it finds all as it should be.
    let before: Vec<_> = names.iter().map(|host| (traces(&hosts, host), pids(&hosts, host))).collect();
    let (good, said) = hosts.bootstrap(&["all", "--agent", program]);
    assert!(good && states(&said) == ["as_it_was"; 3], "{said:#}");
    let after: Vec<_> = names.iter().map(|host| (traces(&hosts, host), pids(&hosts, host))).collect();
    assert_eq!(before, after);

    // An operator's own key in the configuration stays: on one host tasks are not waited for.
    hosts.out(
        "h3",
        "printf '# ours\\nstop_timeout = \"1s\"\\n' >> /etc/groundplan/agent.toml; systemctl restart groundplan-agent",
    );
    let before: Vec<_> = names.iter().map(|host| pids(&hosts, host)).collect();
    names.iter().for_each(|host| drop(hosts.out(host, "rm /var/gate")));
    let commit = hosts.change(&service("two"));
    for host in names {
        hosts.wait("the slow step", || (lines(&hosts, host, "/var/runs") == 2).then_some(()));
    }
    let another = another(&hosts, &agent);
    let upgrade = hosts
        .bootstrap_command(&["all", "--agent", another.to_str().expect("a path")])
        .spawn()
        .expect("groundplan runs");
    for host in names {
        let stopping = "journalctl --quiet --unit groundplan-agent | grep -q 'stopping; 1 tasks still run'";
        hosts.wait("the agent to be asked to stop", || (hosts.sh(host, stopping).status == Some(0)).then_some(()));
    }
    for host in ["h1", "h2"] {
        assert_eq!(lines(&hosts, host, "/var/starts"), 1, "the restart is still owed");
        hosts.out(host, "touch /var/gate");
    }
    let upgraded = upgrade.wait_with_output().expect("groundplan ends");
    let said: Value = serde_json::from_slice(&upgraded.stdout).expect("JSON");
    assert!(upgraded.status.success() && states(&said) == ["upgraded"; 3], "{said:#}");
    // On that one the step was cut off, and begins again.
    hosts.wait("the slow step again", || (lines(&hosts, "h3", "/var/runs") == 3).then_some(()));
    hosts.out("h3", "touch /var/gate");
    hosts.converged(&commit);
    for (host, (agent, processes)) in names.iter().zip(before) {
        assert_eq!(lines(&hosts, host, "/var/starts"), 2, "the restart that was owed on {host}, once");
        assert_eq!(hosts.report("s.server", host).outcome, "restarted");
        assert_eq!(lines(&hosts, host, "/var/runs"), if *host == "h3" { 3 } else { 2 });
        let now = pids(&hosts, host);
        assert_eq!(now.1, processes, "what is supervised was left alone on {host}");
        assert_ne!(now.0, agent);
        let leftover = hosts.out(host, "ls -A /etc/groundplan; ls /usr/bin/groundplan-agent*");
        assert_eq!(leftover, "agent.toml\n/usr/bin/groundplan-agent");
    }
    assert!(
        hosts
            .file("h3", "/etc/groundplan/agent.toml")
            .is_some_and(|text| text.ends_with("# ours\nstop_timeout = \"1s\"\n"))
    );
    // The process is supervised as before.
    assert!(hosts.recheck(&["s.worker"], &[]).unchanged.len() == 3);
}
