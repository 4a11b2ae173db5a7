//! Processes as the kernel shows them in /proc (proc(5)).

use std::fs;

use nix::{
    errno::Errno,
    sys::signal::{Signal, killpg},
    unistd::Pid,
};

/// What the kernel reports of a process: the fields of proc_pid_stat(5) that are used here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stat {
    /// Whether it has ended and waits only for its parent to collect its status.
    pub(crate) dead: bool,
    pub(crate) group: i32,
    pub(crate) session: i32,
    /// When it started, in clock ticks since the boot.
    pub(crate) start: u64,
}

impl Stat {
    pub(crate) fn of(pid: Pid) -> Option<Self> {
        Self::read(&pid.to_string())
    }

    fn read(pid: &str) -> Option<Self> {
        Self::parse(&String::from_utf8_lossy(&fs::read(format!("/proc/{pid}/stat")).ok()?))
    }

    fn parse(line: &str) -> Option<Self> {
        // The second field is the program's name in parentheses, which may hold anything.
        let fields: Vec<&str> = line.rsplit_once(')')?.1.split_ascii_whitespace().collect();
        let field = |n: usize| fields.get(n - 3).copied();
        Some(Self {
            dead: matches!(field(3)?, "Z" | "X" | "x"),
            group: field(5)?.parse().ok()?,
            session: field(6)?.parse().ok()?,
            start: field(22)?.parse().ok()?,
        })
    }
}

/// Whether any process of `group` runs. Zombies do not count: in a container whose first process does
/// not collect them they stay for long.
pub(crate) fn group_runs(group: Pid) -> bool {
    if killpg(group, None) == Err(Errno::ESRCH) {
        return false;
    }
    let Ok(entries) = fs::read_dir("/proc") else { return true };
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let mut members = names.filter(|name| name.starts_with(|c: char| c.is_ascii_digit()));
    members.any(|pid| Stat::read(&pid).is_some_and(|stat| stat.group == group.as_raw() && !stat.dead))
}

/// Whether `signal` would end the process: it neither handles, ignores nor blocks it, and the default is to end
/// (signal(7)). A process that has not set its handlers yet counts.
pub(crate) fn ends_by(pid: Pid, signal: Signal) -> bool {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    signal != Signal::SIGWINCH && is_default(&status, signal)
}

/// Whether none of the masks in a /proc/PID/status has the signal; `false` if a mask is missing.
fn is_default(status: &str, signal: Signal) -> bool {
    let bit = 1u64 << (signal as i32 - 1);
    let mask = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        u64::from_str_radix(line.trim(), 16).ok()
    };
    ["SigBlk:", "SigIgn:", "SigCgt:"].into_iter().all(|name| mask(name).is_some_and(|mask| mask & bit == 0))
}

/// The time since the boot, as `Stat::start` has it: the kernel reports hundredths of a second, whatever its own tick is.
pub(crate) fn ticks_since_boot() -> u64 {
    let uptime = fs::read_to_string("/proc/uptime").unwrap_or_default();
    let ticks = uptime.split(' ').next().and_then(|seconds| seconds.parse::<f64>().ok()).map_or(0.0, |s| s * 100.0);
    ticks as u64
}

#[cfg(test)]
mod tests {
    use std::{os::unix::process::CommandExt, process::Command};

    use super::*;

    #[test]
    fn stat_of_a_process_with_a_nasty_name() {
        let tail = " S 1 6 7 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 12345 1 1";
        let stat = Stat::parse(&format!("7 (a) b ( Z){tail}"));
        assert_eq!(stat, Some(Stat { dead: false, group: 6, session: 7, start: 12345 }));
        assert_eq!(Stat::parse("7 (x"), None);
    }

    #[test]
    fn what_a_signal_does() {
        let status = "Name:\tx\nSigBlk:\t0000000000000200\nSigIgn:\t0000000000001000\nSigCgt:\t0000000000000001\n";
        let ends = |signal| is_default(status, signal);
        assert!(ends(Signal::SIGINT) && !ends(Signal::SIGHUP), "HUP has a handler");
        assert!(!ends(Signal::SIGUSR1) && !ends(Signal::SIGPIPE), "one is blocked, one ignored");
        assert!(!is_default("", Signal::SIGINT));
    }

    #[test]
    fn a_group_of_the_dead_does_not_run() {
        let mut child = Command::new("sleep").arg("60").process_group(0).spawn().unwrap();
        let group = Pid::from_raw(i32::try_from(child.id()).unwrap());
        assert!(group_runs(group));
        child.kill().unwrap();
        while group_runs(group) {}
        assert_eq!(killpg(group, None), Ok(()));
        child.wait().unwrap();
        assert!(!group_runs(group));
    }
}
