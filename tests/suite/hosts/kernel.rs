//! What is set on the machine itself, on a real host: `sysctl`, `module`, `mount`, `cron`, `selinux`.
//!
//! The hosts are containers: of kernel parameters they have only net.*, they cannot load modules, and none has SELinux.

use groundplan_tests::{hosts::Hosts, needs_hosts};

use super::{drifted, recheck};

const ONE: &str = r#"
[[task]]
id = "forward"
sysctl = { "net.ipv4.ip_forward" = 1, "net.core.somaxconn" = 1024, "net.ipv4.ip_default_ttl" = 65 }

[[task]]
id = "scratch"
mount = { path = "/srv/scratch", source = "tmpfs", fstype = "tmpfs", options = "size=1m,nosuid,nodev" }

[[task]]
id = "bound"
mount = { path = "/srv/bound", source = "/usr/share", fstype = "none", options = "bind,ro" }

[[task]]
id = "context"
selinux = { path = "/srv", type = "var_t", recursive = true }
"#;

#[test]
fn parameters_and_mounts_come_change_and_go() {
    needs_hosts!();
    let hosts = Hosts::site(&["h1"]).serve("[service]\n");
    hosts.converged(&hosts.head());
    let live = || {
        hosts.out("h1", "sysctl -n net.ipv4.ip_forward net.core.somaxconn 2>/dev/null || cat /proc/sys/net/ipv4/ip_forward /proc/sys/net/core/somaxconn")
    };
    hosts.sh("h1", "echo 0 > /proc/sys/net/ipv4/ip_forward; echo '# mine' > /etc/fstab; mkdir -p /srv/bound");
    let before = live();

    // Create.
    hosts.converged(&hosts.change(ONE));
    assert_eq!(live(), "1\n1024");
    let kept = hosts.file("h1", "/etc/sysctl.d/99-zz-groundplan-s.forward.conf").expect("a file for the next boot");
    assert!(
        kept.ends_with("net.core.somaxconn = 1024\nnet.ipv4.ip_default_ttl = 65\nnet.ipv4.ip_forward = 1\n"),
        "{kept}"
    );
    // At boot it is the last one, after /etc/sysctl.conf.
    hosts.out("h1", "echo 'net.ipv4.ip_forward = 0' > /etc/sysctl.conf; ln -sf ../sysctl.conf /etc/sysctl.d/99-sysctl.conf; /lib/systemd/systemd-sysctl || true");
    assert_eq!(live(), "1\n1024");
    let fstab = "# mine\ntmpfs /srv/scratch tmpfs size=1m,nosuid,nodev 0 0\n/usr/share /srv/bound none bind,ro 0 0\n";
    assert_eq!(hosts.file("h1", "/etc/fstab").as_deref(), Some(fstab));
    let mounts = hosts.out("h1", "findmnt -rno TARGET,FSTYPE,OPTIONS /srv/scratch");
    assert!(mounts.contains("tmpfs") && mounts.contains("nosuid") && mounts.contains("size=1024k"), "{mounts}");
    assert_ne!(hosts.sh("h1", "touch /srv/bound/x").status, Some(0), "it is read-only");
    assert!(hosts.out("h1", "ls /srv/bound").contains("doc"));
    let context = hosts.report("s.context", "h1");
    assert_eq!(
        (context.outcome.as_str(), context.output.as_str()),
        ("unchanged", "skipped: this host has no SELinux, or it is disabled\n")
    );

    // No change.
    recheck(&hosts);
    let all = ["s.forward", "s.scratch", "s.bound"];
    for task in all {
        assert_eq!(hosts.report(task, "h1").outcome, "unchanged", "{task}");
    }

    // Drift.
    hosts.out(
        "h1",
        "echo 0 > /proc/sys/net/ipv4/ip_forward; mount -o remount,exec,suid /srv/scratch; umount /srv/bound",
    );
    let drift = drifted(&hosts);
    let scratch = "s.scratch mounted: tmpfs, tmpfs, size=1m,nosuid,nodev -> tmpfs, tmpfs, rw,";
    assert!(drift[2].starts_with(scratch), "{drift:?}");
    let bound = "s.bound mounted: /usr/share, none, bind,ro -> -";
    assert_eq!(
        (drift.len(), drift[0].as_str(), drift[1].as_str()),
        (3, bound, "s.forward net.ipv4.ip_forward: 1 -> 0")
    );
    recheck(&hosts);
    for task in all {
        assert_eq!(hosts.report(task, "h1").outcome, "changed", "{task}");
    }
    assert_eq!(live(), "1\n1024");
    assert!(hosts.out("h1", "findmnt -rno OPTIONS /srv/scratch").contains("nosuid"));

    // Update: another value and a parameter that is given back; a remount that keeps what is there.
    hosts.out("h1", "echo precious > /srv/scratch/x; echo 70 > /proc/sys/net/ipv4/ip_default_ttl");
    let two = ONE.replace(r#""net.ipv4.ip_forward" = 1, "#, "").replace(r#", "net.ipv4.ip_default_ttl" = 65"#, "");
    let two = two.replace("1024", "2048").replace("size=1m", "size=2m");
    hosts.converged(&hosts.change(&two));
    let forward = before.lines().next().unwrap_or_default();
    assert_eq!(live(), format!("{forward}\n2048"));
    // What an operator has set since is not overwritten by an old value.
    assert_eq!(hosts.out("h1", "cat /proc/sys/net/ipv4/ip_default_ttl"), "70");
    let report = hosts.report("s.forward", "h1").output;
    assert!(report.contains("net.ipv4.ip_default_ttl is `70` now, changed out of band: left as it is"), "{report}");
    assert_eq!(
        hosts.out("h1", "cat /srv/scratch/x; findmnt -rno OPTIONS /srv/scratch | grep -o size=2048k"),
        "precious\nsize=2048k"
    );

    // Who uses it is named, and it stays.
    hosts.out("h1", "cd /srv/scratch && { setsid sleep 1000 >/dev/null 2>&1 & }");
    hosts.settled(&hosts.change(&two.replace("nodev\"", "nodev\", state = \"absent\"")));
    let outcome = hosts.report("s.scratch", "h1").outcome;
    assert!(outcome.contains("/srv/scratch cannot be unmounted: it is used by sleep ("), "{outcome}");
    hosts.out("h1", "killall sleep 2>/dev/null || kill $(ps -C sleep -o pid=)");

    // Removal: all is as it was found.
    hosts.converged(&hosts.commit(&[("services/s/service.toml", "[service]\n")], "remove"));
    assert_eq!(live(), before);
    assert_eq!(hosts.file("h1", "/etc/fstab").as_deref(), Some("# mine\n"));
    assert_eq!(
        hosts
            .out("h1", "grep -c /srv/ /proc/self/mountinfo; ls -d /srv/* /etc/sysctl.d/*groundplan* 2>/dev/null; true"),
        "0\n/srv/bound"
    );
}

/// Stands for swapon(8) and swapoff(8): a swap area would be one of the whole machine.
const SWAP: &str = r#"#!/bin/sh
for last; do :; done
case $0 in
*swapoff) grep -v "^$last " /srv/swaps > /srv/swaps.new; cat /srv/swaps.new > /srv/swaps;;
*) pri=-2; case "$*" in *pri=*) pri=$(echo "$*" | sed 's/.*pri=\([0-9]*\).*/\1/');; esac
   echo "$last file 1024 0 $pri" >> /srv/swaps;;
esac
"#;

fn odd_mounts(old: &str, swap: &str) -> String {
    format!(
        r#"
[[task]]
id = "two"
requires = []
mount = {{ path = "/srv/two", source = "tmpfs", fstype = "tmpfs", options = "size=3m" }}

[[task]]
id = "name"
requires = []
mount = {{ path = "/srv/name", source = "/etc/machine-id", fstype = "none", options = "bind" }}

[[task]]
id = "root"
requires = []
mount = {{ path = "/", source = "overlay", fstype = "overlay", options = "noatime" }}

[[task]]
id = "swap"
requires = []
mount = {{ path = "none", source = "/srv/area", fstype = "swap", options = "{swap}" }}

[[task]]
id = "old"
requires = []
mount = {{ path = "/srv/old", {old} }}
"#
    )
}

#[test]
fn the_root_swap_files_and_lines_of_others() {
    needs_hosts!();
    let hosts = Hosts::site(&["h1"]).serve("[service]\n");
    hosts.converged(&hosts.head());
    let fstab = "# mine\ntmpfs /srv/two tmpfs size=1m,noauto 0 0 # one\n/dev/x /srv/two ext4 noauto 0 0 # two\n\
                 /dev/none-a none swap noauto 0 0\n";
    hosts.out("h1", &format!("printf '{fstab}' > /etc/fstab"));
    hosts.out("h1", "cp /proc/swaps /srv/swaps; mount --bind /srv/swaps /proc/swaps; touch /srv/area");
    hosts.out("h1", &format!("cat > /usr/local/sbin/swapon <<'END'\n{SWAP}END\nchmod 755 /usr/local/sbin/swapon; ln -s swapon /usr/local/sbin/swapoff"));
    let swaps = || hosts.out("h1", "grep /srv/area /proc/swaps || true");

    let tmpfs = r#"source = "tmpfs", fstype = "tmpfs", options = "size=1m""#;
    hosts.converged(&hosts.change(&odd_mounts(tmpfs, "defaults")));
    // Comments and other lines stay, and each swap area has a line of its own.
    let now = hosts.file("h1", "/etc/fstab").unwrap_or_default();
    let kept = "# mine\ntmpfs /srv/two tmpfs size=3m 0 0 # one\n/dev/x /srv/two ext4 noauto 0 0 # two\n\
                /dev/none-a none swap noauto 0 0\n";
    assert!(now.starts_with(kept), "{now}");
    assert!(now.contains("\n/srv/area none swap defaults 0 0\n"), "{now}");
    assert_eq!(hosts.out("h1", "cat /srv/name"), hosts.out("h1", "cat /etc/machine-id"));
    assert!(hosts.out("h1", "findmnt -rno OPTIONS /").contains("noatime"));
    assert_eq!(swaps(), "/srv/area file 1024 0 -2");
    recheck(&hosts);
    for task in ["two", "name", "root", "swap", "old"] {
        assert_eq!(hosts.report(&format!("s.{task}"), "h1").outcome, "unchanged", "{task}");
    }

    // What cannot be mounted leaves what was there; another priority is another use of the swap area.
    let none = r#"source = "/dev/no-such-disk", fstype = "ext4""#;
    hosts.settled(&hosts.change(&odd_mounts(none, "pri=7")));
    let outcome = hosts.report("s.old", "h1").outcome;
    assert!(outcome.contains("and what was mounted there before is mounted again"), "{outcome}");
    assert!(hosts.out("h1", "findmnt -rno FSTYPE,OPTIONS /srv/old").contains("size=1024k"));
    assert_eq!(swaps(), "/srv/area file 1024 0 7");
    assert!(!hosts.file("h1", "/etc/fstab").unwrap_or_default().contains("no-such-disk"));

    // Removal.
    hosts.converged(&hosts.change("[service]\n"));
    assert_eq!(hosts.file("h1", "/etc/fstab").as_deref(), Some(fstab));
    assert_eq!((swaps(), hosts.sh("h1", "ls -d /srv/name /srv/old").out), (String::new(), String::new()));
    assert_eq!(hosts.sh("h1", "findmnt -rno TARGET /srv/two /srv/name /srv/old").out, "");
}

#[test]
fn what_the_machine_refuses_fails_with_a_reason() {
    needs_hosts!();
    let hosts = Hosts::site(&["h1"]).serve(
        r#"
[[task]]
id = "unknown"
requires = []
sysctl = { "net.ipv4.no_such_thing" = 1 }

[[task]]
id = "refused"
requires = []
sysctl = { "net.core.somaxconn" = 512, "net.ipv4.ip_default_ttl" = "long" }

[[task]]
id = "forbidden"
requires = []
sysctl = { "kernel.panic" = 7 }

[[task]]
id = "module"
requires = []
module = { name = "no_such_module" }

[[task]]
id = "mount"
requires = []
mount = { path = "/srv/none", source = "/dev/no-such-disk", fstype = "ext4" }

[[task]]
id = "cron"
requires = []
cron = { schedule = "@daily", run = "true" }

[[task]]
id = "good"
requires = []
sysctl = { "net.ipv4.ip_forward" = 1 }
"#,
    );
    hosts.settled(&hosts.head());
    let expect = |task: &str, word: &str| {
        let outcome = hosts.report(task, "h1").outcome;
        assert!(outcome.starts_with("failed") && outcome.contains(word), "{task}: {outcome}");
    };
    expect("s.unknown", "this host has no kernel parameter `net.ipv4.no_such_thing`");
    expect("s.refused", "the kernel refuses `long` for `net.ipv4.ip_default_ttl`");
    expect("s.forbidden", "`kernel.panic` may not be set here; in a container only");
    expect("s.module", "");
    expect("s.mount", "/srv/none cannot be mounted; /etc/fstab is as it was");
    expect("s.cron", "this host has no cron; install it by a `package` task, or use a timer");
    let module = hosts.report("s.module", "h1").outcome;
    let words =
        ["this host has no `modprobe`; install kmod", "this host is a container, and the host below it loads modules"];
    assert!(words.iter().any(|word| module.contains(word)), "{module}");
    assert_ne!(hosts.out("h1", "cat /proc/sys/net/core/somaxconn"), "512", "what was set a moment before is set back");
    assert!(!hosts.file("h1", "/etc/fstab").unwrap_or_default().contains("no-such-disk"));
    assert_eq!(hosts.report("s.good", "h1").outcome, "changed");

    // The file that keeps a module from loading is made, repaired and removed: there may be no module loaded here.
    let one = "[[task]]\nid = \"module\"\nmodule = { name = \"floppy\", state = \"absent\", blacklist = true }\n";
    let path = "/etc/modprobe.d/groundplan-floppy.conf";
    hosts.converged(&hosts.change(one));
    assert!(hosts.file("h1", path).is_some_and(|text| text.ends_with("\nblacklist floppy\n")));
    hosts.out("h1", &format!("rm {path}"));
    recheck(&hosts);
    assert_eq!(hosts.report("s.module", "h1").outcome, "changed");
    recheck(&hosts);
    assert_eq!(hosts.report("s.module", "h1").outcome, "unchanged");
    hosts.converged(&hosts.change(&one.replace(", blacklist = true", "")));
    assert_eq!(hosts.file("h1", path), None);
    hosts.converged(&hosts.commit(&[("services/s/service.toml", "[service]\n")], "remove"));
}

#[test]
fn what_a_failed_update_set_is_the_tasks() {
    needs_hosts!();
    let task = |ttl: u32, ready: &str| {
        format!(
            "[[task]]\nid = \"ttl\"\nrequires = []\nsysctl = {{ \"net.ipv4.ip_default_ttl\" = {ttl} }}\n{ready}\n\
             [[task]]\nid = \"name\"\nrequires = []\nhostname = {{ name = \"host{ttl}\", pretty = \"Host {ttl}\" }}\n{ready}"
        )
    };
    let hosts = Hosts::site(&["h1"]).serve(super::NOTHING);
    let shown = || {
        hosts.out("h1", "cat /proc/sys/net/ipv4/ip_default_ttl /proc/sys/kernel/hostname /etc/hostname /etc/machine-info 2>/dev/null; true")
    };
    hosts.converged(&hosts.head());
    let found = shown();
    hosts.converged(&hosts.change(&task(66, "")));
    hosts.settled(&hosts.change(&task(67, "ready = { command = \"false\", timeout = \"100ms\" }\n")));
    assert_eq!(shown(), "67\nhost67\nhost67\nPRETTY_HOSTNAME=\"Host 67\"");
    hosts.converged(&hosts.change(super::NOTHING));
    assert_eq!(shown(), found);
}

#[test]
fn what_a_removal_kept_is_found_by_the_next_task() {
    needs_hosts!();
    let task = |more: &str| {
        let module = "module = { name = \"gp_none\", state = \"absent\", blacklist = true }";
        format!("[[task]]\nid = \"module\"\n{module}\n{more}")
    };
    let hosts = Hosts::site(&["h1"]).serve(&task("on_remove = \"keep\"\n"));
    let file = || hosts.file("h1", "/etc/modprobe.d/groundplan-gp_none.conf");
    hosts.converged(&hosts.head());
    let kept = file();
    assert!(kept.is_some());
    hosts.converged(&hosts.change(super::NOTHING));
    assert_eq!(file(), kept);
    for more in ["", "on_remove = \"delete\"\n"] {
        hosts.converged(&hosts.change(&task(more)));
        hosts.converged(&hosts.change(super::NOTHING));
        assert_eq!(file(), kept.clone().filter(|_| more.is_empty()));
    }
}
