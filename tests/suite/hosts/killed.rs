//! An agent that is killed right after a program has done its work, before it could record that, or right before the program does it.
//! What the program did is the task's, and goes with it; what it did not do is done later, or is not the task's at all.

use groundplan_tests::{
    hosts::{Hosts, Image},
    needs_hosts,
};

use super::{NOTHING, packages::publish, recheck};

/// When the agent is killed, and what comes after.
#[derive(Clone, Copy, PartialEq)]
enum Killed {
    /// After the work of the program.
    After,
    /// Before it; the agent carries on once it is back.
    Before,
    /// Before it; the program refuses to do its work after that, until the task is withdrawn.
    BeforeRefusal,
}

/// What shows that the agent was killed.
const MARK: &str = "/run/killed";

/// A program that has the agent killed for the arguments that match, and otherwise does its work.
fn kill_at(hosts: &Hosts, killed: Killed, program: &str, arguments: &str) {
    let kill = format!("touch {MARK}\n    systemctl kill --kill-whom all -s KILL groundplan-agent");
    let at = match killed {
        Killed::After => format!("{program} \"$@\"\n    status=$?\n    rm \"$0\"\n    {kill}\n    exit $status"),
        Killed::Before => format!("rm \"$0\"\n    {kill}\n    exit 1"),
        Killed::BeforeRefusal => format!("[ -e {MARK} ] && {{ echo refused >&2; exit 1; }}\n    {kill}\n    exit 1"),
    };
    let script = format!(
        r#"rm -f {MARK}
cat > /usr/local/sbin/{program} <<'END'
#!/bin/sh
PATH=/usr/sbin:/usr/bin:/sbin:/bin
case "$*" in
{arguments})
    {at};;
esac
exec {program} "$@"
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
findmnt -rn -o TARGET | grep ^/srv/; ls /srv; cat /etc/fstab; ls /run/systemd/generator | grep ^srv-
getent group old new named daemon; getent passwd named
dpkg-query -W -f='${db:Status-Abbrev} ${Package}\n' 'gp-*'; apt-mark showhold; apt-mark showmanual 'gp-*'
systemctl is-enabled idle; systemctl is-active idle
podman images --all --format '{{.ID}} {{.Names}}'
"#;

/// Deploys a task during whose work the agent is killed, until it is done, or refused and free to go.
fn deploy(hosts: &Hosts, killed: Killed, program: &str, arguments: &str, work: &str) {
    kill_at(hosts, killed, program, arguments);
    let commit = hosts.change(&format!("[[task]]\nid = \"x\"\n{work}\n"));
    hosts.wait(&format!("the agent to be killed by {program} {arguments}"), || {
        let killed = hosts.file("h1", MARK).is_some();
        let outcome = hosts.report("s.x", "h1").outcome;
        assert!(killed || !outcome.starts_with("failed"), "{outcome}");
        killed.then_some(())
    });
    hosts.out("h1", "systemctl start groundplan-agent");
    if killed == Killed::BeforeRefusal {
        hosts.settled(&commit);
        let outcome = hosts.report("s.x", "h1").outcome;
        assert!(outcome.contains("refused"), "{program} {arguments}: {outcome}");
        hosts.out("h1", &format!("rm /usr/local/sbin/{program}"));
    } else {
        hosts.converged(&commit);
    }
}

/// The number of the cases that left something behind, and what.
fn left_behind(killed: Killed) -> (usize, String) {
    let hosts = Hosts::site(&["h1"]).image(Image::Podman).serve(NOTHING);
    hosts.converged(&hosts.head());
    publish(&hosts, &["gp-two 1.0 gp-lib", "gp-lib 1.0", "gp-there 1.0 gp-base", "gp-base 1.0"]);
    hosts.out("h1", PREPARE);

    let mut left = Vec::new();
    for (program, arguments, work) in CASES {
        let before = hosts.sh("h1", STATE).out;
        deploy(&hosts, killed, program, arguments, work);
        let is_done = killed != Killed::BeforeRefusal;
        assert!(!is_done || hosts.sh("h1", STATE).out != before, "{work} does something");

        hosts.converged(&hosts.change(NOTHING));
        let after = hosts.sh("h1", STATE).out;
        if after != before {
            left.push(format!("{program} {arguments}: {work}\nbefore:\n{before}\nafter:\n{after}\n\n"));
        }
    }
    (left.len(), left.concat())
}

#[test]
fn what_a_killed_agent_has_done_goes_with_its_task() {
    needs_hosts!();
    let (left, text) = left_behind(Killed::After);
    assert!(left == 0, "{left} tasks left something behind\n{text}");
}

#[test]
fn what_a_killed_agent_was_about_to_do_is_done_and_goes_with_its_task() {
    needs_hosts!();
    let (left, text) = left_behind(Killed::Before);
    assert!(left == 0, "{left} tasks left something behind\n{text}");
}

#[test]
fn what_a_killed_agent_was_about_to_do_and_never_did_is_not_the_tasks() {
    needs_hosts!();
    let (left, text) = left_behind(Killed::BeforeRefusal);
    assert!(left == 0, "{left} tasks changed the host\n{text}");
}

#[test]
fn a_member_that_an_agent_was_killed_over_is_added_and_given_back_once() {
    needs_hosts!();
    let hosts = Hosts::site(&["h1"]).serve(NOTHING);
    hosts.converged(&hosts.head());
    hosts.out("h1", "groupadd -g 4800 old");
    let group = |members: &str| format!("group = {{ name = \"old\", members = [{members}] }}");
    let members = || hosts.out("h1", "getent group old | cut -d: -f4");
    let change = |text: &str| hosts.converged(&hosts.change(&format!("[[task]]\nid = \"x\"\n{}\n", group(text))));
    // Tried twice, it is added once, and given back once: one that an administrator adds after that is not the task's.
    deploy(&hosts, Killed::Before, "gpasswd", "-a*", &group("\"daemon\""));
    assert_eq!(members(), "daemon");
    change("");
    assert_eq!(members(), "");
    hosts.out("h1", "gpasswd -a daemon old");
    recheck(&hosts);
    assert_eq!(members(), "daemon");
    hosts.converged(&hosts.change(NOTHING));
    assert_eq!(members(), "daemon");
    hosts.out("h1", "gpasswd -d daemon old");

    // It is still the task's while it is not given back.
    change("\"daemon\"");
    deploy(&hosts, Killed::Before, "gpasswd", "-d*", &group(""));
    assert_eq!(members(), "");

    // Withdrawn before it is given back.
    change("\"daemon\"");
    assert_eq!(members(), "daemon");
    deploy(&hosts, Killed::BeforeRefusal, "gpasswd", "-d*", &group(""));
    assert_eq!(members(), "daemon");
    hosts.converged(&hosts.change(NOTHING));
    assert_eq!(members(), "");
}

#[test]
fn a_remount_that_an_agent_was_killed_over_is_made() {
    needs_hosts!();
    let hosts = Hosts::site(&["h1"]).serve(NOTHING);
    hosts.converged(&hosts.head());
    let mount = |size: &str| {
        format!(
            "mount = {{ path = \"/srv/there\", source = \"tmpfs\", fstype = \"tmpfs\", options = \"size={size}\" }}"
        )
    };
    let size = || hosts.out("h1", "df --output=size -k /srv/there | tail -1").trim().to_owned();
    hosts.converged(&hosts.change(&format!("[[task]]\nid = \"x\"\n{}\n", mount("1m"))));
    assert_eq!(size(), "1024");
    for (killed, wanted) in [(Killed::Before, "2m"), (Killed::After, "3m")] {
        deploy(&hosts, killed, "mount", "*remount*", &mount(wanted));
        assert_eq!(size(), (wanted[..1].parse::<u32>().unwrap() * 1024).to_string());
    }
    deploy(&hosts, Killed::BeforeRefusal, "mount", "*remount*", &mount("4m"));
    assert_eq!(size(), "3072");
    hosts.converged(&hosts.change(NOTHING));
    assert_eq!(hosts.sh("h1", "findmnt -n /srv/there; ls -d /srv/there; grep /srv/there /etc/fstab").out, "");
}
