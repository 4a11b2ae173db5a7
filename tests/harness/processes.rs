//! Processes that a test started, identified by id and start time, so that no other process with the same id is ended.
//!
//! In: ids of processes that the tests started. Out: their start times (proc_pid_stat(5)), their descendants, and their end. Never searches for
//! a process by its name or its command line.

use std::{fs, path::Path};

use nix::{
    sys::signal::{Signal, kill, killpg},
    unistd::Pid,
};
use serde_json::Value;

/// A process: its id, and when it started in clock ticks since the boot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identity {
    /// Its id.
    pub pid: u32,
    /// When it started.
    pub start: u64,
}

impl Identity {
    /// The process that has `pid` now.
    pub fn of(pid: u32) -> Option<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The name, in parentheses, may hold anything; the start time is the 20th field after it.
        let fields = stat.rsplit_once(')')?.1;
        Some(Self { pid, start: fields.split_whitespace().nth(19)?.parse().ok()? })
    }

    /// Whether it still runs.
    pub fn is_alive(self) -> bool {
        Self::of(self.pid) == Some(self)
    }

    /// Sends it SIGINT, as Ctrl-C does, if it still runs.
    pub fn interrupt(self) {
        if self.is_alive() {
            let _ = kill(self.raw(), Signal::SIGINT);
        }
    }

    /// Ends it with SIGKILL, if it still runs.
    pub fn end(self) {
        if self.is_alive() {
            // It may end by itself in between.
            let _ = kill(self.raw(), Signal::SIGKILL);
        }
    }

    /// Ends it and its process group, which it leads, if it still runs.
    pub fn end_group(self) {
        if self.is_alive() {
            let _ = killpg(self.raw(), Signal::SIGKILL);
        }
    }

    fn raw(self) -> Pid {
        Pid::from_raw(self.pid.try_into().expect("the kernel's ids are small"))
    }
}

/// The direct children of a process.
pub fn children(pid: u32) -> Vec<u32> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let lists = tasks.filter_map(|task| fs::read_to_string(task.path().join("children")).ok());
    lists.flat_map(|list| list.split_whitespace().filter_map(|pid| pid.parse().ok()).collect::<Vec<_>>()).collect()
}

/// All descendants of a process.
pub fn descendants(pid: u32) -> Vec<Identity> {
    let mut found = Vec::new();
    let mut open = children(pid);
    while let Some(pid) = open.pop() {
        found.extend(Identity::of(pid));
        open.extend(children(pid));
    }
    found
}

/// The processes in an agent's records, each a leader of its group: `agent/src/host/process/record.rs`.
pub fn supervised(records: &Path) -> Vec<Identity> {
    let paths = fs::read_dir(records).into_iter().flatten().flatten().map(|entry| entry.path());
    let records = paths.filter(|path| path.extension().is_some_and(|e| e == "json"));
    records.filter_map(|path| recorded(&path)).collect()
}

fn recorded(path: &Path) -> Option<Identity> {
    let record: Value = serde_json::from_slice(&fs::read(path).ok()?).ok()?;
    let number = |value: &Value| value.as_u64();
    if let Some(pid) = number(&record["identity"]["pid"]) {
        return Some(Identity { pid: pid.try_into().ok()?, start: number(&record["identity"]["start"])? });
    }
    // The agent was killed in the middle of the start: the process wrote its id itself, within ten seconds.
    let process = Identity::of(fs::read_to_string(path.with_extension("pid")).ok()?.parse().ok()?)?;
    let begun = number(&record["begun"])?;
    (begun.saturating_sub(2)..begun + 1000).contains(&process.start).then_some(process)
}
