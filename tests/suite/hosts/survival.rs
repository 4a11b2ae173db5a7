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
}
