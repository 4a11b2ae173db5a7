//! What was there before a task comes back when the task goes, on a real host.

use groundplan_tests::{hosts::Hosts, needs_hosts};

use super::NOTHING;

const HASH: &str = "$6$saltsalt$qFmFH.bQmmtXzyBY0s9v7Oicd2z4XSIecDzlB5KiA2/jctKu9YterLp8wwnSq.qc.eoxqOmSuNp2xS0ktL3nh/";

/// Tasks that take over what the host has, each with `on_remove` if that is given.
fn tasks(on_remove: &str) -> String {
    let task = |id: &str, kind: &str| format!("[[task]]\nid = \"{id}\"\nrequires = []\n{kind}\n{on_remove}\n\n");
    [
        task("resolver", "file = { path = \"/etc/resolv.conf\", content = \"nameserver 192.0.2.1\\n\" }"),
        task("motd", "file = { path = \"/etc/motd\", content = \"ours\\n\" }"),
        task("equal", "file = { path = \"/etc/equal\", content = \"equal\\n\" }"),
        task("link", "link = { path = \"/etc/current\", target = \"/srv/new\" }"),
        task("folder", "directory = { path = \"/srv/data\", mode = \"0755\" }"),
        task("unit", "systemd = { unit = \"theirs.service\", content = \"[Service]\\nExecStart=/bin/sleep 2222\\n\", dropins = { \"10-x.conf\" = \"[Service]\\nNice=2\\n\" } }"),
        task(
            "user",
            &format!("user = {{ name = \"ann\", uid = 4711, shell = \"/bin/bash\", home = \"/srv/ann\", password = \"{HASH}\", locked = false }}"),
        ),
        task("sysctl", "sysctl = { \"net.ipv4.ip_forward\" = 1 }"),
        task("archive", "archive = { path = \"/srv/tree.tar\", dest = \"/srv/tree\" }"),
        task("mount", "mount = { path = \"/srv/scratch\", source = \"tmpfs\", fstype = \"tmpfs\", options = \"size=2m\" }"),
    ]
    .concat()
}

/// Each line is one thing that the tasks take over.
const LOOK: &str = "
    readlink /etc/resolv.conf || cat /etc/resolv.conf
    cat /etc/motd; stat -c '%a %u:%g' /etc/motd; command -v getfacl > /dev/null && getfacl -c /etc/motd
    cat /etc/equal
    readlink /etc/current
    stat -c '%a %U' /srv/data
    cat /etc/systemd/system/theirs.service /etc/systemd/system/theirs.service.d/*
    systemctl is-active theirs; systemctl show -P ExecStart theirs | grep -o 'sleep [0-9]*'
    getent passwd ann; getent shadow ann | cut -d: -f2; ls -d /home/ann /srv/ann 2> /dev/null
    cat /proc/sys/net/ipv4/ip_forward
    cd /srv/tree; grep -r . | sort; stat -c '%n %a %u:%g %N' a equal link new sub 2> /dev/null
    findmnt -rno SOURCE,FSTYPE /srv/scratch; grep scratch /etc/fstab; cat /srv/scratch/x 2> /dev/null; true";

fn prepare(hosts: &Hosts) {
    hosts.out(
        "h1",
        "set -e
        rm -f /etc/resolv.conf; mkdir -p /run/stub; echo stub > /run/stub/resolv.conf; ln -s ../run/stub/resolv.conf /etc/resolv.conf
        echo theirs > /etc/motd; chmod 640 /etc/motd; chown 1:2 /etc/motd
        if command -v setfacl > /dev/null; then setfacl -m u:daemon:r /etc/motd; fi
        echo equal > /etc/equal
        mkdir -p /srv/old /srv/data /srv/scratch; ln -s /srv/old /etc/current
        chown daemon /srv/data; chmod 2750 /srv/data
        printf '[Service]\\nExecStart=/bin/sleep 1111\\n' > /etc/systemd/system/theirs.service
        mkdir /etc/systemd/system/theirs.service.d
        printf '[Service]\\nNice=1\\n' > /etc/systemd/system/theirs.service.d/10-x.conf
        systemctl daemon-reload; systemctl start theirs
        useradd -m -u 4000 -s /bin/sh ann; echo 'ann:$6$old$hash' | chpasswd -e; usermod -L ann
        echo 0 > /proc/sys/net/ipv4/ip_forward
        mkdir -p /srv/tree/sub; cd /srv/tree; echo packed > a; echo equal > equal; echo packed > link; echo packed > new; echo packed > sub/a
        tar -cf /srv/tree.tar *; rm new link; for file in a sub/a; do echo theirs > $file; chmod 640 $file; chown 1:2 $file; done
        ln -s sub link; chmod 600 equal; chmod 750 sub
        echo 'none /srv/scratch ramfs mode=700 0 0' >> /etc/fstab; mount /srv/scratch",
    );
}

#[test]
fn what_was_there_comes_back() {
    needs_hosts!();
    let hosts = Hosts::site(&["h1"]).serve(NOTHING);
    hosts.converged(&hosts.head());
    prepare(&hosts);
    let before = hosts.out("h1", LOOK);

    hosts.converged(&hosts.change(&tasks("")));
    let during = hosts.out("h1", LOOK);
    for ours in [
        "nameserver 192.0.2.1",
        "ours",
        "/srv/new",
        "755 root",
        "sub/a:packed",
        "sleep 2222",
        "Nice=2",
        "ann:x:4711:",
        HASH,
        "tmpfs",
    ] {
        assert!(during.contains(ours), "{ours} in {during}");
    }
    // The node lists what it keeps.
    let node = hosts.wait("the list of what is kept", || {
        let node = hosts.ask(&["show", "h1"])?;
        let kept: Vec<_> = node["found"]["first"].as_array()?.iter().map(|thing| &thing["claim"]).collect();
        let claims = [
            "path /etc/resolv.conf",
            "path /etc/equal",
            "path /etc/systemd/system/theirs.service",
            "replaced path /srv/tree/a",
            "user ann",
        ];
        claims.iter().all(|claim| kept.iter().any(|kept| *kept == claim)).then_some(node.clone())
    });
    assert!(!node.to_string().contains("$6$old"), "no password's hash leaves the node");

    hosts.converged(&hosts.commit(&[("services/s/service.toml", NOTHING)], "remove"));
    assert_eq!(hosts.out("h1", LOOK), before);
    hosts.wait("nothing to be kept", || hosts.ask(&["show", "h1"])?["found"].is_null().then_some(()));

    // Everything stays.
    hosts.converged(&hosts.change(&tasks("on_remove = \"keep\"")));
    let during = hosts.out("h1", LOOK);
    hosts.converged(&hosts.commit(&[("services/s/service.toml", NOTHING)], "remove again"));
    assert_eq!(hosts.out("h1", LOOK), during);
}

#[test]
fn a_policy_that_is_changed_alone_reaches_the_node() {
    needs_hosts!();
    let hosts = Hosts::site(&["h1"]).serve(NOTHING);
    hosts.converged(&hosts.head());
    hosts.out("h1", "echo theirs > /etc/motd");
    let task = |more: &str| {
        format!("[[task]]\nid = \"motd\"\nfile = {{ path = \"/etc/motd\", content = \"ours\\n\" }}\n{more}\n")
    };
    hosts.converged(&hosts.change(&task("")));
    let commit = hosts.change(&task("on_remove = \"delete\""));
    hosts.converged(&commit);
    // Nothing is carried out, and so nothing is reported: the node's state shows that it has the plan.
    hosts.wait("the plan on the node", || (hosts.ask(&["show", "h1"])?["commit"] == commit.as_str()).then_some(()));
    hosts.converged(&hosts.commit(&[("services/s/service.toml", NOTHING)], "remove"));
    assert_eq!(hosts.file("h1", "/etc/motd"), None);
}

#[test]
fn a_killed_agent_restores_what_it_found() {
    needs_hosts!();
    let hosts = Hosts::site(&["h1"]).serve(NOTHING);
    hosts.converged(&hosts.head());
    hosts.out("h1", "echo theirs > /etc/motd; chmod 640 /etc/motd");
    // The file is written, and the job goes on until its probe answers: the agent is killed in between.
    let task = "[[task]]\nid = \"motd\"\nfile = { path = \"/etc/motd\", content = \"ours\\n\" }\n\
                ready = { command = \"test -e /run/go\", timeout = \"120s\" }\n";
    let commit = hosts.change(task);
    hosts.wait("the file", || (hosts.file("h1", "/etc/motd").as_deref() == Some("ours\n")).then_some(()));
    hosts.out("h1", "systemctl kill -s KILL groundplan-agent; touch /run/go");
    hosts.converged(&commit);
    hosts.converged(&hosts.commit(&[("services/s/service.toml", NOTHING)], "remove"));
    assert_eq!(hosts.out("h1", "cat /etc/motd; stat -c %a /etc/motd"), "theirs\n640");
}
