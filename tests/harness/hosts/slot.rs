//! A slot: what one site of hosts may use of this machine, so that parallel sites never collide, in one run or in several.
//!
//! In: nothing. Out: a number that no other site has while the handle exists, and what derives from it: subnet, link and machine names,
//! a control group for all processes, and a scratch directory. What is left of a run that was killed is swept when its slot is claimed
//! again, by its control groups and its record; never by the name of a process.

use std::{
    fs::{self, File, TryLockError},
    io,
    net::Ipv4Addr,
    path::{Path, PathBuf},
    process::Command,
    thread::sleep,
    time::Duration,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use super::network;

/// Where slots are claimed. Machine-wide, because networks are.
const SLOTS: &str = "/run/groundplan-tests";

/// A claimed slot. Everything in it ends when it is dropped.
pub(super) struct Slot {
    number: u8,
    scratch: PathBuf,
    /// Locked while the slot is in use.
    _lock: File,
}

impl Slot {
    /// Claims a free one, after sweeping what a killed run has left in any.
    pub(super) fn claim() -> io::Result<Self> {
        fs::create_dir_all(SLOTS)?;
        let mut claimed = None;
        for number in 1..=250 {
            let path = Path::new(SLOTS).join(format!("{number}.lock"));
            // Once a slot is claimed, only used ones matter: they are swept.
            if claimed.is_some() && !record(number).exists() {
                continue;
            }
            let lock = File::options().create(true).append(true).open(path)?;
            match lock.try_lock() {
                Ok(()) => sweep(number),
                Err(TryLockError::WouldBlock) => continue,
                Err(TryLockError::Error(e)) => return Err(e),
            }
            if claimed.is_none() && !network::in_use(&network::prefix(number))? {
                claimed = Some((number, lock));
            }
        }
        let Some((number, lock)) = claimed else {
            return Err(io::Error::other("all slots for hosts are taken: 250 sites at a time"));
        };
        let name = fs::read_to_string("/proc/sys/kernel/random/uuid")?;
        let scratch = std::env::temp_dir().join(format!("groundplan-hosts-{number}-{}", name.trim()));
        // The record first: what is not recorded is not swept.
        fs::write(record(number), scratch.as_os_str().as_encoded_bytes())?;
        fs::create_dir_all(&scratch)?;
        Ok(Self { number, scratch, _lock: lock })
    }

    pub(super) fn number(&self) -> u8 {
        self.number
    }

    /// A directory that is the slot's own, on a disk.
    pub(super) fn scratch(&self) -> &Path {
        &self.scratch
    }

    /// The name of the machine with that index on this machine, and of its control group.
    pub(super) fn machine(&self, index: usize) -> String {
        machine(self.number, index)
    }

    /// The address of the machine with that index; of this machine, on the bridge, for `None`.
    pub(super) fn address(&self, index: Option<usize>) -> Ipv4Addr {
        let last = index.map_or(1, |index| u8::try_from(index + 11).expect("at most 200 hosts"));
        Ipv4Addr::new(198, 18, self.number, last)
    }

    /// The control groups for a machine, made: one for each hierarchy that systemd uses.
    pub(super) fn groups(&self, machine: &str) -> io::Result<Vec<PathBuf>> {
        let groups: Vec<PathBuf> = slot_groups(self.number).into_iter().map(|group| group.join(machine)).collect();
        groups.iter().try_for_each(fs::create_dir_all)?;
        Ok(groups)
    }

    /// Puts a process of this machine among those that end with the slot.
    pub(super) fn adopt(&self, pid: u32) -> io::Result<()> {
        self.groups("planner")?.iter().try_for_each(|group| fs::write(group.join("cgroup.procs"), pid.to_string()))
    }

    /// Ends every process of a machine, and removes what they leave.
    pub(super) fn end(&self, machine: &str) {
        slot_groups(self.number).iter().for_each(|group| end_group(&group.join(machine)));
        remove_traces(machine);
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        sweep(self.number);
    }
}

fn machine(number: u8, index: usize) -> String {
    format!("gpt{number}-{index}")
}

fn record(number: u8) -> PathBuf {
    Path::new(SLOTS).join(format!("{number}.scratch"))
}

/// Ends all that runs in a slot whose lock is held by the caller, and removes all that was made for it. What has ended already is
/// left out; what cannot be removed is printed, and tried again at the next start.
fn sweep(number: u8) {
    let Ok(scratch) = fs::read(record(number)) else { return };
    let scratch = PathBuf::from(String::from_utf8_lossy(&scratch).into_owned());
    slot_groups(number).iter().for_each(|group| end_group(group));
    (0..200).for_each(|index| remove_traces(&machine(number, index)));
    network::remove(number);
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let places =
        mounts.lines().filter_map(|line| line.split(' ').nth(1)).filter(|at| Path::new(at).starts_with(&scratch));
    // The innermost last in the table, so first here.
    for place in places.collect::<Vec<_>>().into_iter().rev() {
        let _ = Command::new("umount").arg("--lazy").arg(place).status();
    }
    match fs::remove_dir_all(&scratch) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => {
            eprintln!("{} cannot be removed: {e}", scratch.display());
        }
        _ => {
            let _ = fs::remove_file(record(number));
        }
    }
}

/// The hierarchies of control groups that systemd keeps its units in: the unified one, and where there is the old kind its named one.
fn hierarchies() -> Vec<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let fields = mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>()).filter(|fields| fields.len() > 3);
    let ours =
        fields.filter(|f| f[2] == "cgroup2" || (f[2] == "cgroup" && f[3].split(',').any(|o| o == "name=systemd")));
    ours.map(|fields| PathBuf::from(fields[1])).filter(|at| at.starts_with("/sys/fs/cgroup")).collect()
}

fn slot_groups(number: u8) -> Vec<PathBuf> {
    hierarchies().into_iter().map(|root| root.join(format!("groundplan-tests-{number}"))).collect()
}

/// Kills every process of a control group and removes it.
fn end_group(group: &Path) {
    // New processes may be forked while the old ones are killed, and a killed process takes a moment to leave.
    for _ in 0..500 {
        if !group.exists() {
            return;
        }
        let mut below = Vec::new();
        collect(group, &mut below);
        for group in &below {
            let list = fs::read_to_string(group.join("cgroup.procs")).unwrap_or_default();
            for pid in list.lines().filter_map(|line| line.parse().ok()).filter(|pid| *pid > 0) {
                let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
            }
        }
        // The deepest first.
        below.iter().rev().for_each(|group| drop(fs::remove_dir(group)));
        sleep(Duration::from_millis(10));
    }
    eprintln!("{} still has processes after 5 s", group.display());
}

fn collect(group: &Path, into: &mut Vec<PathBuf>) {
    into.push(group.to_owned());
    for entry in fs::read_dir(group).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            collect(&entry.path(), into);
        }
    }
}

/// What systemd-nspawn leaves behind when it is killed.
fn remove_traces(machine: &str) {
    let _ = fs::remove_dir(Path::new("/run/systemd/nspawn/propagate").join(machine));
    let _ = fs::remove_file(Path::new("/run/systemd/nspawn/unix-export").join(machine));
}
