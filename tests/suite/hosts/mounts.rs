//! Mounts that the kernel shows in another way than they were asked for, on a real host: an image on a loop device, file systems in
//! user space, a device that is write-protected, an automount that waits, a swap area, the root, a bound file. None of them is mounted
//! again by a recheck, also not by an agent that was killed since. And one of an administrator, whose end cannot be noted.
//!
//! The host is a container: it gets the device files of its machine, and what it has of loop devices and swap areas is the machine's.

use groundplan_tests::{
    hosts::{Hosts, Image},
    needs_hosts,
};

use super::{NOTHING, drifted, recheck};

/// A disk of the test, in which the swap area is: one on an overlay is refused by the kernel.
const PREPARE: &str = r#"
set -e
node() { [ -e /dev/$1 ] || mknod /dev/$1 $2 $3 $4; }
node loop-control c 10 237; node fuse c 10 229; node autofs c 10 235
for n in $(seq 0 15); do node loop$n b 7 $n; done
truncate -s 8M /srv/image /srv/protected /srv/disk
for image in /srv/image /srv/protected /srv/disk; do mkfs.ext4 -q $image; done
mkdir -p /srv/area /srv/source /srv/low /srv/up /srv/work
mount -o loop /srv/disk /srv/area
dd if=/dev/zero of=/srv/area/swap bs=1M count=2 status=none
chmod 600 /srv/area/swap
mkswap -q /srv/area/swap
echo bound > /srv/source/x; echo low > /srv/low/x
# Whether there is an automount at all is found out when systemd starts.
systemctl daemon-reexec
losetup --read-only --find --show /srv/protected
"#;

fn tasks(device: &str) -> String {
    let task = |id: &str, mount: &str| format!("[[task]]\nid = \"{id}\"\nrequires = []\nmount = {{ {mount} }}\n\n");
    [
        task("image", r#"path = "/srv/m/image", source = "/srv/image", fstype = "ext4", options = "loop,noatime""#),
        task("bindfs", r#"path = "/srv/m/bindfs", source = "/srv/source", fstype = "fuse.bindfs", options = "ro""#),
        task("program", r#"path = "/srv/m/program", source = "bindfs#/srv/source", fstype = "fuse""#),
        task(
            "layers",
            r#"path = "/srv/m/layers", source = "overlay", fstype = "fuse.fuse-overlayfs", options = "lowerdir=/srv/low,upperdir=/srv/up,workdir=/srv/work""#,
        ),
        task("protected", &format!(r#"path = "/srv/m/protected", source = "{device}", fstype = "ext4""#)),
        task(
            "automount",
            r#"path = "/srv/m/auto", source = "tmpfs", fstype = "tmpfs", options = "size=1m,noauto,x-systemd.automount""#,
        ),
        task("swap", r#"path = "none", source = "/srv/area/swap", fstype = "swap""#),
        task("root", r#"path = "/", source = "overlay", fstype = "overlay", options = "noatime""#),
        task("bound", r#"path = "/srv/m/bound", source = "/etc/machine-id", fstype = "none", options = "bind,ro""#),
    ]
    .concat()
}

const TASKS: [&str; 9] = ["image", "bindfs", "program", "layers", "protected", "automount", "swap", "root", "bound"];

/// Gives back what is the machine's, also after a panic.
struct Machine<'a> {
    hosts: &'a Hosts,
    device: String,
}

impl Drop for Machine<'_> {
    fn drop(&mut self) {
        let line = format!("swapoff /srv/area/swap; umount /srv/m/protected; losetup --detach {}", self.device);
        self.hosts.sh("h1", &line);
    }
}

#[test]
fn what_the_kernel_shows_in_another_way_stays_mounted() {
    needs_hosts!();
    let image = Image::With(["bindfs", "fuse-overlayfs"].map(str::to_owned).into());
    let hosts = Hosts::site(&["h1"]).image(image).serve(NOTHING);
    hosts.converged(&hosts.head());
    // Of the machine: where it lacks one of these, the test fails and names it.
    let device = hosts.out("h1", PREPARE);
    let _machine = Machine { hosts: &hosts, device: device.clone() };
    hosts.out("h1", "printf 'tmpfs /srv/m/auto tmpfs size=1m,noauto,x-systemd.automount 0 0\\n' > /etc/fstab");
    hosts.out("h1", "mkdir -p /srv/m/auto; systemctl daemon-reload; systemctl start srv-m-auto.automount");

    hosts.converged(&hosts.change(&tasks(&device)));
    // Not how much of the area is in use: that is for the kernel to decide.
    const MOUNTS: &str =
        "grep -E ' (/srv/m/[a-z]+|/) ' /proc/self/mountinfo; awk '/srv.area/ { print $1, $3, $5 }' /proc/swaps";
    let mounts = || hosts.out("h1", MOUNTS);
    let first = mounts();
    for shown in [
        "ext4 /dev/loop",
        " - fuse",
        "fuse.fuse-overlayfs fuse-overlayfs",
        &format!("ext4 {device} ro"),
        "autofs systemd-1",
        "/srv/area/swap",
        "/etc/machine-id /srv/m/bound",
    ] {
        assert!(first.contains(shown), "{shown}:\n{first}");
    }
    let read = "cat /srv/m/bindfs/x /srv/m/program/x /srv/m/layers/x; cmp /srv/m/bound /etc/machine-id && echo same";
    assert_eq!(hosts.out("h1", read), "bound\nbound\nlow\nsame");
    assert_ne!(hosts.sh("h1", "touch /srv/m/protected/x").status, Some(0), "it is read-only");

    // Every mount has a number of its own, and its options are in the line: one that is mounted again shows here.
    let stays = |when: &str| {
        recheck(&hosts);
        for task in TASKS {
            assert_eq!(hosts.report(&format!("s.{task}"), "h1").outcome, "unchanged", "{task} {when}");
        }
        assert_eq!(mounts(), first, "{when}");
    };
    stays("after it was mounted");
    hosts.out("h1", "systemctl kill --kill-whom main -s KILL groundplan-agent; systemctl start groundplan-agent");
    stays("after the agent was killed");

    // What differs is seen all the same.
    hosts.out("h1", "umount /srv/m/layers; mount -o remount,atime,relatime /srv/m/image; swapoff /srv/area/swap");
    let drift = drifted(&hosts);
    let named: Vec<&str> = drift.iter().filter_map(|line| line.split(' ').next()).collect();
    assert_eq!(named, ["s.image", "s.layers", "s.swap"], "{drift:?}");
    recheck(&hosts);
    for task in ["image", "layers", "swap"] {
        assert_eq!(hosts.report(&format!("s.{task}"), "h1").outcome, "changed", "{task}");
    }

    // The first use of the automount mounts what /etc/fstab has; that is in sync as well.
    let used = "ls /srv/m/auto; grep ' /srv/m/auto ' /proc/self/mountinfo | sed 's/.* - //; s/ .*//'";
    assert_eq!(hosts.out("h1", used), "autofs\ntmpfs");
    recheck(&hosts);
    assert_eq!(hosts.report("s.automount", "h1").outcome, "unchanged");

    // Removal: nothing of it is left, and what was there before is.
    hosts.converged(&hosts.change(NOTHING));
    let left = hosts.out(
        "h1",
        "grep -E ' /srv/m/' /proc/self/mountinfo | grep -v '/srv/m/auto'; grep /srv/area /proc/swaps; ls /srv/m",
    );
    assert_eq!(left, "auto");
    assert!(hosts.out("h1", "cat /etc/fstab").starts_with("tmpfs /srv/m/auto tmpfs size=1m"));
}

#[test]
fn what_is_mounted_stays_where_its_end_cannot_be_noted() {
    needs_hosts!();
    let hosts = Hosts::site(&["h1"]).serve(NOTHING);
    hosts.converged(&hosts.head());
    // The agent's notes have room for what was found, and not for the long name of what is to be mounted instead.
    hosts.out(
        "h1",
        "mkdir -p /var/lib/groundplan/found; mount -t tmpfs -o size=4k,mode=700 tmpfs /var/lib/groundplan/found
         mkdir /srv/theirs; mount -t tmpfs theirs /srv/theirs; touch /srv/theirs/file",
    );
    let source = "s".repeat(2500);
    let task = format!(
        "[[task]]\nid = \"x\"\nmount = {{ path = \"/srv/theirs\", source = \"{source}\", fstype = \"tmpfs\" }}\n"
    );
    hosts.settled(&hosts.change(&task));
    let outcome = hosts.report("s.x", "h1").outcome;
    assert!(outcome.contains("what was there cannot be kept"), "{outcome}");
    let mounted = || hosts.out("h1", "findmnt -n -o SOURCE /srv/theirs; ls /srv/theirs");
    assert_eq!(mounted(), "theirs\nfile");
    hosts.converged(&hosts.change(NOTHING));
    assert_eq!(mounted(), "theirs\nfile");
}
