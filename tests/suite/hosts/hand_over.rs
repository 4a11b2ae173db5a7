//! Hand-over on a real host: a service is renamed, then each of its tasks, and nothing that they own is touched; then it goes.

use groundplan_tests::{
    fleet::{SITE, texts},
    hosts::Hosts,
    needs_hosts,
};

use super::drifted;

/// The tasks of a service, each with `prefix` before its id. The program of the unit waits for ever.
fn tasks(prefix: &str, greeting: &str) -> String {
    let tasks = r#"
[[task]]
id = "PREteam"
group = { name = "team", gid = 4242 }

[[task]]
id = "PREbob"
user = { name = "bob", uid = 4711, groups = ["team"], remove_home = true }

[[task]]
id = "PREplace"
directory = { path = "/srv/place", owner = "bob" }

[[task]]
id = "PREscratch"
mount = { path = "/srv/scratch", source = "tmpfs", fstype = "tmpfs", options = "size=1m" }

[[task]]
id = "PREgreeting"
file = { path = "/srv/greeting", content = "GREETING" }

[[task]]
id = "PRElink"
link = { path = "/srv/link", target = "greeting" }

[[task]]
id = "PREoption"
ini = { path = "/etc/app.conf", section = "a", option = "b", value = "ours" }

[[task]]
id = "PREline"
line = { path = "/etc/ports", line = "Port 2200", match = "^#?Port " }

[[task]]
id = "PREpages"
archive = { path = "/root/pages.tar", dest = "/srv/pages" }

[[task]]
id = "PREforward"
sysctl = { "net.ipv4.ip_forward" = 1 }

[[task]]
id = "PREserver"
systemd = { unit = "waiter.service", content = "[Service]\nExecStart=/bin/sleep infinity\n", enabled = false, state = "started" }
"#;
    tasks.replace("PRE", prefix).replace("GREETING", greeting)
}

/// What would show that something went and came again: identities, times, and contents that cannot be restored.
fn traces(hosts: &Hosts) -> String {
    hosts.out(
        "h1",
        "getent passwd bob; getent group team; stat -c '%n %i %w' /home/bob /srv/place /srv/link /srv/pages/a; \
         cat /home/bob/letter /srv/scratch/note; findmnt -rno ID,TARGET /srv/scratch; \
         systemctl show --property InvocationID --property ActiveEnterTimestampMonotonic waiter; cat /etc/app.conf /etc/ports; \
         cat /proc/sys/net/ipv4/ip_forward",
    )
}

fn site(hosts: &Hosts, service: &str) -> String {
    let address = hosts.address("h1");
    format!("[groups.g]\nservices = [{service:?}]\n\n[nodes.h1]\ngroups = [\"g\"]\naddress = \"{address}\"\n")
}

#[test]
fn renamed_services_and_tasks_keep_what_they_own() {
    needs_hosts!();
    let builder = Hosts::site(&["h1"]);
    let name = format!("name = {SITE:?}\n");
    let hosts = builder.start(&[("site.toml", &name), ("inventory/nodes.toml", "[nodes.h1]\n")]);
    hosts.converged(&hosts.head());
    hosts.out(
        "h1",
        "echo 0 > /proc/sys/net/ipv4/ip_forward; printf '[a]\\nb = theirs\\n' > /etc/app.conf; echo '#Port 22' > /etc/ports; \
         mkdir /tmp/p; echo a > /tmp/p/a; tar -C /tmp/p -cf /root/pages.tar a",
    );
    let first = hosts.commit(
        &[("inventory/nodes.toml", &site(&hosts, "old")), ("services/old/service.toml", &tasks("", "hello\\n"))],
        "first",
    );
    hosts.converged(&first);
    hosts.out("h1", "echo dear > /home/bob/letter; echo here > /srv/scratch/note");
    let before = traces(&hosts);
    assert!(before.contains("Port 2200") && before.contains("b = ours") && before.contains("4711"), "{before}");

    // The service is renamed, and one file changes with it.
    let renamed = [
        ("inventory/nodes.toml", site(&hosts, "new")),
        ("services/old/service.toml", String::new()),
        ("services/new/service.toml", tasks("", "good day\\n")),
    ];
    let renamed = hosts.commit(&texts(&renamed), "renamed");
    hosts.converged(&renamed);
    assert_eq!(traces(&hosts), before);
    assert_eq!(hosts.file("h1", "/srv/greeting").as_deref(), Some("good day\n"));
    for task in ["team", "bob", "place", "scratch", "link", "option", "line", "pages", "forward", "server"] {
        // Their own files of kernel parameters are named after the tasks.
        let outcome = if task == "forward" { "changed" } else { "unchanged" };
        for service in ["new", "old"] {
            assert_eq!(hosts.report(&format!("{service}.{task}"), "h1").outcome, outcome, "{service}.{task}");
        }
    }
    assert_eq!(hosts.report("new.greeting", "h1").outcome, "changed");
    assert_eq!(drifted(&hosts), [""; 0]);

    // Every task is renamed.
    let again = hosts.commit(&[("services/new/service.toml", &tasks("the-", "good day\\n"))], "ids");
    hosts.converged(&again);
    assert_eq!(traces(&hosts), before);
    assert_eq!(drifted(&hosts), [""; 0]);

    // What was there before the first of them comes back with the end of the last.
    let gone = hosts.commit(
        &[("inventory/nodes.toml", &site(&hosts, "new")), ("services/new/service.toml", "[service]\n")],
        "gone",
    );
    hosts.converged(&gone);
    assert_eq!(hosts.file("h1", "/etc/app.conf").as_deref(), Some("[a]\nb = theirs\n"));
    assert_eq!(hosts.file("h1", "/etc/ports").as_deref(), Some("#Port 22\n"));
    assert_eq!(
        hosts.out("h1", "cat /proc/sys/net/ipv4/ip_forward; ls /srv; ls /etc/sysctl.d | grep groundplan || true"),
        "0"
    );
    assert_eq!(hosts.sh("h1", "getent passwd bob || getent group team || test -e /home/bob").status, Some(1));
    assert_eq!(hosts.out("h1", "systemctl list-units --all --plain --no-legend 'waiter*'"), "");
}

/// A server that takes a while to end, and writes down when it has its port and when it gives it up.
const SERVER: &str = r#"#!/usr/bin/perl
use strict;
use IO::Socket::INET;
sub note { open(my $log, '>>', '/var/log/served') or die; syswrite($log, "$_[0]\n"); }
my $server = IO::Socket::INET->new(LocalAddr => '127.0.0.1', LocalPort => 8080, Listen => 5, ReuseAddr => 1);
if (!$server) { note("no port"); exit 1; }
note("begins");
my $asked = 0;
$SIG{TERM} = sub { $asked = 1 };
# It answers while it drains.
for (my $left = 20; $left > 0; $left-- if $asked) { my $in = ''; vec($in, fileno($server), 1) = 1; select($in, undef, undef, 0.1); }
note("ends");
"#;

#[test]
fn a_renamed_process_does_not_run_beside_its_predecessor() {
    needs_hosts!();
    let builder = Hosts::site(&["h1"]);
    let name = format!("name = {SITE:?}\n");
    let hosts = builder.start(&[("site.toml", &name), ("inventory/nodes.toml", "[nodes.h1]\n")]);
    hosts.converged(&hosts.head());
    let service = |program: &str| {
        let ready = "ready = { tcp = 8080 }";
        format!(
            "[[task]]\nid = \"program\"\nfile = {{ source = \"server.pl\", path = \"{program}\", mode = \"0755\" }}\n\n\
             [[task]]\nid = \"server\"\nprocess = {{ run = [\"{program}\"] }}\n{ready}\n"
        )
    };
    let files = |name: &str, text: String| {
        [(format!("services/{name}/service.toml"), text), (format!("services/{name}/server.pl"), SERVER.to_owned())]
    };
    let commit = |files: &[(String, String)], of: &str| {
        let mut files: Vec<_> = files.iter().map(|(path, text)| (path.as_str(), text.as_str())).collect();
        let inventory = site(&hosts, of);
        files.push(("inventory/nodes.toml", &inventory));
        hosts.converged(&hosts.commit(&files, of))
    };
    commit(&files("old", service("/srv/server")), "old");
    // The same program, then another one on the same port.
    for (before, after, program) in [("old", "new", "/srv/server"), ("new", "newer", "/srv/other")] {
        let gone = files(before, String::new()).map(|(path, _)| (path, String::new()));
        commit(&[&gone[..], &files(after, service(program))].concat(), after);
    }
    assert_eq!(hosts.file("h1", "/var/log/served").as_deref(), Some("begins\nends\nbegins\nends\nbegins\n"));
}
