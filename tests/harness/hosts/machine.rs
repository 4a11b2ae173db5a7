//! One host: a clone of an image, booted with systemd in a container of its own.
//!
//! In: an image, a slot, and files for the host's disk. Out: a host that boots, runs shell lines for the test, is killed,
//! booted again and wiped. A clone is an overlay on the image, or a copy where there are no overlays. Its processes are in a control
//! group of their own, below which nspawn puts them; it ends all of them.

use std::{
    fs::{self, File},
    io,
    net::Ipv4Addr,
    os::unix::{fs::PermissionsExt, process::CommandExt},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

use nix::{
    errno::Errno,
    sys::{
        signal::{Signal, kill},
        wait::{Id, WaitPidFlag, WaitStatus, waitid},
    },
    unistd::Pid,
};

use super::{
    image::install_sources,
    network::{self, run},
    slot::Slot,
};
use crate::processes::children;

/// How long a boot may take on a loaded machine.
const PATIENCE: Duration = Duration::from_secs(120);

/// Keeps nspawn running over reboots of its host, which nspawn reports by this status. `$1` and on are the control groups, then `--`, then
/// nspawn and its arguments.
const MONITOR: &str = r#"
while [ "$1" != -- ]; do echo $$ > "$1/cgroup.procs" || exit 1; shift; done
shift
while :; do
  "$@"
  status=$?
  [ $status = 133 ] || exit $status
done
"#;

/// The result of a shell line in a host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    /// Its exit status; `None` when a signal ended it.
    pub status: Option<i32>,
    /// Standard output, without the last line's end.
    pub out: String,
    /// Standard error, without the last line's end.
    pub err: String,
}

/// A host.
pub(super) struct Machine {
    /// The node that it is.
    pub(super) node: String,
    /// Its name on this machine.
    pub(super) machine: String,
    pub(super) address: Ipv4Addr,
    directory: PathBuf,
    image: PathBuf,
    /// Control groups, one in each hierarchy.
    groups: Vec<PathBuf>,
    bridge: String,
    monitor: Option<Child>,
}

impl Machine {
    pub(super) fn new(slot: &Slot, index: usize, node: &str, image: PathBuf) -> Self {
        Self {
            node: node.to_owned(),
            machine: slot.machine(index),
            address: slot.address(Some(index)),
            directory: slot.scratch().join(node),
            image,
            groups: Vec::new(),
            bridge: network::bridge(slot.number()),
            monitor: None,
        }
    }

    /// Its root directory as this machine sees it.
    pub(super) fn root(&self) -> PathBuf {
        self.directory.join("root")
    }

    /// Gives it a fresh disk with its name and address, and a route by `gateway` if there is one.
    pub(super) fn format(&self, hosts: &str, gateway: Option<Ipv4Addr>) -> io::Result<()> {
        let root = self.root();
        if root.exists() {
            self.release()?;
        }
        clone_of(&self.image, &self.directory)?;
        self.write("etc/hostname", &format!("{}\n", self.node), 0o644)?;
        self.write("etc/hosts", &format!("127.0.0.1 localhost\n{hosts}"), 0o644)?;
        let id = groundplan_protocol::digest::Digest::of(self.directory.as_os_str().as_encoded_bytes());
        let id: String = id.as_bytes().iter().take(16).map(|byte| format!("{byte:02x}")).collect();
        self.write("etc/machine-id", &format!("{id}\n"), 0o444)?;
        let gateway_line = gateway.map(|gateway| format!("Gateway={gateway}\n")).unwrap_or_default();
        let network = format!(
            "[Match]\nName=host0\n\n[Link]\nRequiredForOnline=no\n\n[Network]\nAddress={}/24\n{gateway_line}\
             LinkLocalAddressing=no\nIPv6AcceptRA=no\n",
            self.address
        );
        self.write("etc/systemd/network/10-host0.network", &network, 0o644)?;
        if gateway.is_some() {
            install_sources(&root)?;
        }
        Ok(())
    }

    /// Removes its disk.
    fn release(&self) -> io::Result<()> {
        // Not mounted, if it is a copy.
        let _ = run("umount", &["--lazy", &self.root().to_string_lossy()]);
        fs::remove_dir_all(&self.directory)
    }

    /// Writes a file on its disk.
    pub(super) fn write(&self, path: &str, text: &str, mode: u32) -> io::Result<()> {
        let path = self.root().join(path);
        fs::create_dir_all(path.parent().expect("a path in the root"))?;
        fs::write(&path, text)?;
        fs::set_permissions(path, fs::Permissions::from_mode(mode))
    }

    /// Begins to boot it.
    pub(super) fn power_on(&mut self, slot: &Slot) -> io::Result<()> {
        assert!(self.monitor.is_none(), "{} is on already", self.node);
        self.groups = slot.groups(&self.machine)?;
        let log = File::options().create(true).append(true).open(self.directory.join("console.log"))?;
        let mut monitor = Command::new("sh");
        monitor.args(["-c", MONITOR, "monitor"]).args(&self.groups).args(["--", "systemd-nspawn", "--quiet"]);
        monitor.arg("-D").arg(self.root()).args(["-M", &self.machine, "--register=no", "--keep-unit"]);
        monitor.arg(format!("--hostname={}", self.node)).arg(format!("--network-bridge={}", self.bridge));
        // Containers inside use the kernel's keyrings and load programs that filter devices; a test uses a swap area.
        monitor.arg("--system-call-filter=@keyring bpf @swap");
        monitor.args(["--resolv-conf=off", "--timezone=off", "--link-journal=no", "--console=passive", "--boot"]);
        // Without the terminal's signals: the slot ends it.
        monitor.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).process_group(0);
        self.monitor = Some(monitor.spawn()?);
        Ok(())
    }

    /// Waits until systemd has started all units of the boot, and whatever these have started.
    pub(super) fn wait_up(&self) -> io::Result<()> {
        let deadline = Instant::now() + PATIENCE;
        let mut last = "no process".to_owned();
        // Once the monitor has ended, nothing can come up.
        let is_running = |pid| fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z "));
        while Instant::now() < deadline && self.monitor.as_ref().is_some_and(|monitor| is_running(monitor.id())) {
            if let Some(leader) = self.leader() {
                let output = enter(leader, &["sh", "-c", SETTLED])?;
                last = String::from_utf8_lossy(&output.stdout).trim().to_owned();
                if output.status.success() {
                    return Ok(());
                }
            }
            sleep(Duration::from_millis(20));
        }
        let console = fs::read_to_string(self.directory.join("console.log")).unwrap_or_default();
        Err(io::Error::other(format!(
            "{} did not boot, or not in {PATIENCE:?}: {last}; its console:\n{console}",
            self.node
        )))
    }

    /// Its first process, by this machine's numbers.
    fn leader(&self) -> Option<u32> {
        let nspawn = children(self.monitor.as_ref()?.id());
        let below = nspawn.into_iter().flat_map(children);
        // Nspawn starts helpers for a moment: the leader is process 1 inside.
        below.into_iter().find(|pid| {
            let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
            let numbers = status.lines().find_map(|line| line.strip_prefix("NSpid:")).unwrap_or_default();
            let numbers: Vec<&str> = numbers.split_whitespace().collect();
            numbers.len() > 1 && numbers.last() == Some(&"1")
        })
    }

    /// Its root directory as its processes see it.
    pub(super) fn live_root(&self) -> Option<PathBuf> {
        Some(format!("/proc/{}/root", self.leader()?).into())
    }

    /// Which boot it is in; `None` while it is off, or between two.
    pub(super) fn boot_id(&self) -> Option<String> {
        let output = enter(self.leader()?, &["cat", "/proc/sys/kernel/random/boot_id"]).ok()?;
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
    }

    /// Runs a shell line in it.
    pub(super) fn sh(&self, line: &str) -> io::Result<Output> {
        let deadline = Instant::now() + PATIENCE;
        let leader = loop {
            match self.leader() {
                Some(leader) => break leader,
                None if self.monitor.is_none() => return Err(io::Error::other(format!("{} is off", self.node))),
                None if Instant::now() > deadline => return Err(io::Error::other(format!("{} is down", self.node))),
                None => sleep(Duration::from_millis(20)),
            }
        };
        let output = enter(leader, &["sh", "-c", line])?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim_end_matches('\n').to_owned();
        Ok(Output { status: output.status.code(), out: text(&output.stdout), err: text(&output.stderr) })
    }

    /// Ends it as a power cut does.
    pub(super) fn power_off(&mut self, slot: &Slot) {
        slot.end(&self.machine);
        if let Some(mut monitor) = self.monitor.take() {
            let _ = monitor.wait();
        }
        // The kernel removes it a moment later; by then the next boot may need the name.
        let _ = network::remove_link(&self.machine);
    }
}

/// Makes a clone of an image in a directory of its own: an overlay, or a copy where there are no overlays. Returns its root.
pub(super) fn clone_of(image: &Path, directory: &Path) -> io::Result<PathBuf> {
    let [root, upper, work] = ["root", "upper", "work"].map(|name| directory.join(name));
    [&root, &upper, &work].into_iter().try_for_each(fs::create_dir_all)?;
    let options = format!("lowerdir={},upperdir={},workdir={}", image.display(), upper.display(), work.display());
    let place = root.to_string_lossy();
    if run("mount", &["-t", "overlay", "overlay", "-o", &options, &place]).is_err() {
        run("cp", &["-a", "--reflink=auto", "--", &format!("{}/.", image.display()), &place])?;
    }
    Ok(root)
}

/// Succeeds once the boot is over; prints what is left. That systemd is `degraded` alone shows no more than that a unit failed: it may have
/// dropped the others, or may still be starting some of them.
const SETTLED: &str = "
state=$(systemctl is-system-running --wait)
jobs=$(systemctl list-jobs --plain --no-legend --no-pager | grep -v '^No jobs')
target=$(systemctl is-active multi-user.target)
echo \"$state; multi-user.target is $target; $jobs\"
[ \"$state\" = running ] || systemctl list-units --state=failed --plain --no-legend --no-pager
case $state in running | degraded) [ -z \"$jobs\" ] && [ \"$target\" = active ];; *) false;; esac";

/// Runs a command in all namespaces of a host.
fn enter(leader: u32, command: &[&str]) -> io::Result<std::process::Output> {
    let mut enter = Command::new("nsenter");
    enter.args(["--all", "--target", &leader.to_string(), "--"]).args(command).stdin(Stdio::null());
    enter.env_clear().env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
    enter.env("HOME", "/root").env("LC_ALL", "C.UTF-8");
    let enter = enter.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    let pid = Pid::from_raw(enter.id().cast_signed());
    // A host that goes down stops its processes before it ends them, and nsenter then stops itself as well, as a shell's job would. It
    // must go on: until it has reaped its child, the host's process namespace is not gone, and the host does not come back.
    let continued = std::thread::spawn(move || {
        let ends_or_stops = WaitPidFlag::WEXITED | WaitPidFlag::WSTOPPED | WaitPidFlag::WNOWAIT;
        loop {
            match waitid(Id::Pid(pid), ends_or_stops) {
                Ok(WaitStatus::Stopped(..)) => drop(kill(pid, Signal::SIGCONT)),
                Err(Errno::EINTR) => {}
                Ok(_) | Err(_) => break,
            }
        }
    });
    let output = enter.wait_with_output();
    continued.join().expect("the loop above does not panic");
    output
}

/// Puts a program on a disk.
pub(super) fn install_program(program: &Path, at: &Path) -> io::Result<()> {
    fs::copy(program, at)?;
    fs::set_permissions(at, fs::Permissions::from_mode(0o755))
}
