//! An agent that is killed right after a program has done its work, before it could record that: what the program did is the task's, and
//! goes with it.

use groundplan_tests::{
    hosts::{Hosts, Image},
    needs_hosts,
};

use super::{NOTHING, packages::publish};

/// A program that does its work, and for the arguments that match has the agent killed.
fn kill_after(hosts: &Hosts, program: &str, arguments: &str) {
    let script = format!(
        r#"cat > /usr/local/sbin/{program} <<'END'
#!/bin/sh
PATH=/usr/sbin:/usr/bin:/sbin:/bin
{program} "$@"
status=$?
case "$*" in
{arguments})
    rm /usr/local/sbin/{program}
    systemctl kill --kill-whom all -s KILL groundplan-agent;;
esac
exit $status
END
chmod 755 /usr/local/sbin/{program}"#
    );
    hosts.out("h1", &script);
}

/// The program that is in use, the arguments after which the agent is killed, and the task's work.
const CASES: [(&str, &str, &str); 13] = [
    (
        "mount",
        "*/srv/there",
        r#"mount = { path = "/srv/there", source = "tmpfs", fstype = "tmpfs", options = "size=1m" }"#,
    ),
    ("systemctl", "daemon-reload", r#"mount = { path = "/srv/listed", source = "tmpfs", fstype = "tmpfs" }"#),
    ("groupadd", "*new", r#"group = { name = "new" }"#),
    ("groupmod", "*old", r#"group = { name = "old", gid = 4900 }"#),
    ("gpasswd", "-a*", r#"group = { name = "old", members = ["daemon"] }"#),
    ("useradd", "*named", r#"user = { name = "named" }"#),
    ("apt-get", "*install*", r#"package = { names = ["gp-two"] }"#),
    ("apt-mark", "hold*", r#"package = { names = ["gp-there"], hold = true }"#),
    ("apt-mark", "manual*", r#"package = "gp-base""#),
    ("systemctl", "*enable?idle*", r#"systemd = { unit = "idle.service", enabled = true, state = "started" }"#),
    ("systemctl", "*start?idle*", r#"systemd = { unit = "idle.service", enabled = true, state = "started" }"#),
    ("systemctl", "*mask?idle*", r#"systemd = { unit = "idle.service", masked = true }"#),
    ("podman", "import*", r#"image = { name = "localhost/some:1", path = "/srv/rootfs.tar", rootfs = true }"#),
];

const PREPARE: &str = r#"
groupadd -g 4800 old
groupadd -g 4810 named
printf '[Service]\nExecStart=/bin/sleep infinity\n[Install]\nWantedBy=multi-user.target\n' > /lib/systemd/system/idle.service
systemctl daemon-reload
mkdir -p /srv/rootfs/bin && cp /bin/true /srv/rootfs/bin/ && tar -C /srv/rootfs -cf /srv/rootfs.tar .
apt-get update -qq && apt-get install -qq gp-there > /dev/null
"#;

/// All that the tasks change.
const STATE: &str = r#"
findmnt -rn -o TARGET | grep ^/srv/; ls /srv; cat /etc/fstab
getent group old new named daemon; getent passwd named
dpkg-query -W -f='${db:Status-Abbrev} ${Package}\n' 'gp-*'; apt-mark showhold; apt-mark showmanual 'gp-*'
systemctl is-enabled idle; systemctl is-active idle
podman images --all --format '{{.ID}} {{.Names}}'
"#;

#[test]
fn what_a_killed_agent_has_done_goes_with_its_task() {
    needs_hosts!();
    let hosts = Hosts::site(&["h1"]).image(Image::Podman).serve(NOTHING);
    hosts.converged(&hosts.head());
    publish(&hosts, &["gp-two 1.0 gp-lib", "gp-lib 1.0", "gp-there 1.0 gp-base", "gp-base 1.0"]);
    hosts.out("h1", PREPARE);

    let mut left = Vec::new();
    for (program, arguments, work) in CASES {
        let before = hosts.sh("h1", STATE).out;
        kill_after(&hosts, program, arguments);
        let commit = hosts.change(&format!("[[task]]\nid = \"x\"\n{work}\n"));
        let wrapper = format!("/usr/local/sbin/{program}");
        hosts.wait(&format!("the agent to be killed by {program} {arguments}"), || {
            let killed = hosts.file("h1", &wrapper).is_none();
            let outcome = hosts.report("s.x", "h1").outcome;
            assert!(killed || !outcome.starts_with("failed"), "{outcome}");
            killed.then_some(())
        });
        hosts.out("h1", "systemctl start groundplan-agent");
        hosts.converged(&commit);
        assert_ne!(hosts.sh("h1", STATE).out, before, "{work} does something");

        hosts.converged(&hosts.change(NOTHING));
        let after = hosts.sh("h1", STATE).out;
        if after != before {
            left.push(format!("{program} {arguments}: {work}\nbefore:\n{before}\nafter:\n{after}\n\n"));
        }
    }
    assert!(left.is_empty(), "{} tasks left something behind\n{}", left.len(), left.concat());
}
