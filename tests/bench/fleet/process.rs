//! What a process takes: proc_pid_stat(5) and proc_pid_status(5).

use std::fs;

/// Clock ticks in a second: a constant of Linux's interface (`USER_HZ`) on every architecture that groundplan runs on.
const TICKS: f64 = 100.0;

/// A running process.
#[derive(Clone, Copy)]
pub(super) struct Process(u32);

impl Process {
    pub(super) fn of(pid: u32) -> Self {
        Self(pid)
    }

    /// CPU time of all its threads so far, in user and system mode.
    pub(super) fn cpu_seconds(self) -> f64 {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.0)).expect("a running process");
        // The name, in parentheses, may hold anything; `utime` and `stime` are the 12th and 13th field after it.
        let fields = stat.rsplit_once(')').expect("a name").1;
        let ticks = fields.split_whitespace().skip(11).take(2).map(|ticks| ticks.parse::<f64>().expect("a number"));
        ticks.sum::<f64>() / TICKS
    }

    /// Has [`Self::peak_mib`] count from now on.
    pub(super) fn forget_peak(self) {
        // Not permitted in some containers: then the peak is that since the process began.
        let _ = fs::write(format!("/proc/{}/clear_refs", self.0), "5");
    }

    /// The most memory that it had resident (`VmHWM`), in MiB.
    pub(super) fn peak_mib(self) -> f64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.0)).expect("a running process");
        let line = status.lines().find(|line| line.starts_with("VmHWM:")).expect("VmHWM");
        let kib: f64 = line.split_whitespace().nth(1).and_then(|kib| kib.parse().ok()).expect("a number");
        kib / 1024.0
    }
}
