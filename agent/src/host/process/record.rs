//! Records of supervised processes on disk, so that an agent that was killed at any point finds them again.
//!
//! Before a start, the intent is written; between fork and exec the new process writes its own id into a locked file; after
//! the start the record is completed with the id and start time. So every started process has a record, and none is started
//! twice. Nothing is synced: records must survive the agent only; when the host goes down, so does every process, and the boot
//! id shows that.

use std::{
    fs::{self, File},
    io::{self, Read, Write},
    path::PathBuf,
};

use groundplan_protocol::{ids::TaskId, kinds::Process};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

use super::proc::{Stat, ticks_since_boot};
use crate::private;

/// How long after its intent a process can have been forked, in clock ticks (hundredths of a second).
const LONGEST_START: u64 = 1000;

/// The record of a supervised process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Record {
    /// The process as it was described when it was started.
    pub(crate) process: Process,
    /// The boot that it was started in.
    pub(crate) boot: String,
    /// When the start began, in clock ticks since the boot.
    pub(crate) begun: u64,
    /// The process that it became; absent while it is being started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) identity: Option<ProcessIdentity>,
    /// When it was started, in milliseconds since the Unix epoch.
    pub(crate) since_ms: u64,
    /// How often it was started again since then, because it ended by itself.
    pub(crate) restarts: u32,
}

/// A process, distinguished from all others that ever have its id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ProcessIdentity {
    pid: i32,
    /// When it started, in clock ticks since the boot (field 22 of proc_pid_stat(5)).
    start: u64,
}

impl ProcessIdentity {
    pub(crate) fn pid(self) -> Pid {
        Pid::from_raw(self.pid)
    }

    /// The process that has `pid` now.
    pub(crate) fn of(pid: Pid) -> Option<Self> {
        Some(Self { pid: pid.as_raw(), start: Stat::of(pid)?.start })
    }

    pub(crate) fn is_alive(self) -> bool {
        Stat::of(self.pid()).is_some_and(|stat| stat.start == self.start && !stat.dead)
    }
}

/// The directory of records.
#[derive(Debug, Clone)]
pub(crate) struct Records {
    dir: PathBuf,
    boot: String,
}

impl Records {
    pub(crate) fn new(dir: PathBuf) -> io::Result<Self> {
        private::directory(&dir)?;
        let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id")?.trim().to_owned();
        Ok(Self { dir, boot })
    }

    /// The record of a start that begins now.
    pub(crate) fn intent(&self, process: Process, since_ms: u64, restarts: u32) -> Record {
        Record { process, boot: self.boot.clone(), begun: ticks_since_boot(), identity: None, since_ms, restarts }
    }

    pub(crate) fn write(&self, task: &TaskId, record: &Record) -> io::Result<()> {
        let text = serde_json::to_vec(record)?;
        let (path, temporary) = (self.path(task, "json"), self.path(task, "json.tmp"));
        private::create(&temporary)?.write_all(&text)?;
        fs::rename(temporary, path)
    }

    /// Opens the file that the new process writes its id to. The lock on it is held until the process has become its
    /// program: the process shares it.
    pub(crate) fn pid_file(&self, task: &TaskId) -> io::Result<File> {
        let file = private::create(&self.path(task, "pid"))?;
        file.lock()?;
        Ok(file)
    }

    pub(crate) fn forget(&self, task: &TaskId) -> io::Result<()> {
        for extension in ["json", "pid"] {
            match fs::remove_file(self.path(task, extension)) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
                _ => {}
            }
        }
        Ok(())
    }

    /// All records that can be read. One that cannot was torn by a power loss, which also ended the process.
    pub(crate) fn all(&self) -> io::Result<Vec<(TaskId, Record)>> {
        let mut records = Vec::new();
        for entry in fs::read_dir(&self.dir)? {
            let path = entry?.path();
            let task = path.file_name().and_then(|name| name.to_str()?.strip_suffix(".json")?.parse().ok());
            let record = fs::read(&path).ok().and_then(|text| serde_json::from_slice(&text).ok());
            records.extend(task.zip(record));
        }
        Ok(records)
    }

    /// The process of `record`, if it still runs.
    pub(crate) fn running(&self, task: &TaskId, record: &Record) -> Option<ProcessIdentity> {
        // Process ids begin again with each boot.
        if record.boot != self.boot {
            return None;
        }
        match record.identity {
            Some(identity) => identity.is_alive().then_some(identity),
            None => self.started_on_intent(task, record),
        }
    }

    /// The process of a start during which the agent was killed.
    fn started_on_intent(&self, task: &TaskId, record: &Record) -> Option<ProcessIdentity> {
        let mut file = File::open(self.path(task, "pid")).ok()?;
        file.lock().ok()?;
        let mut text = String::new();
        file.read_to_string(&mut text).ok()?;
        let pid = Pid::from_raw(text.parse().ok()?);
        let stat = Stat::of(pid)?;
        // It leads a session of its own, and started when the intent was written: its id has not been reused since.
        let in_time = (record.begun.saturating_sub(2)..record.begun + LONGEST_START).contains(&stat.start);
        let ours = stat.session == pid.as_raw() && in_time && !stat.dead;
        ours.then_some(ProcessIdentity { pid: pid.as_raw(), start: stat.start })
    }

    fn path(&self, task: &TaskId, extension: &str) -> PathBuf {
        self.dir.join(format!("{task}.{extension}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_distinguished_from_others_with_its_id() {
        let me = ProcessIdentity::of(Pid::this()).unwrap();
        assert!(me.is_alive() && me.start <= ticks_since_boot());
        assert!(!ProcessIdentity { start: me.start + 1, ..me }.is_alive());
    }
}
