//! `sysctl`: kernel parameters, set in /proc/sys and kept in a file of the task's own in /etc/sysctl.d.
//!
//! The note of each parameter holds the value that it had before any task, and the memory those that this task found and set. The
//! former is restored when the parameter is no longer wanted, unless it was changed out of band since then. If the kernel refuses
//! one of several, those that were just set are set back. The file comes after those of others, /etc/sysctl.conf among them
//! (sysctl.d(5)); what comes later still and sets another value is named in the report.

use std::{collections::BTreeMap, fs, io};

use groundplan_protocol::{ids::TaskId, kinds::Sysctl, plan::OnRemove};
use serde::{Deserialize, Serialize};

use super::{
    context::Context,
    kind::{Applied, Check, Kind},
};
use crate::host::{
    error::{HostError, KindError},
    fs::{
        files::{self, Access, Removal, Sum},
        paths::Missing,
    },
};
use crate::machine::Found;

/// Why a kernel parameter could not be brought in sync.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SysctlError {
    #[error(
        "this host has no kernel parameter `{key}`: the name is wrong, or the module that it belongs to is not loaded"
    )]
    Unknown { key: String },
    #[error("`{key}` may not be set here; in a container only parameters of its own namespaces may, such as net.*")]
    Forbidden { key: String, source: io::Error },
    #[error("the kernel refuses `{value}` for `{key}`")]
    Refused { key: String, value: String, source: io::Error },
    #[error("the kernel set `{key}` to `{found}` instead of `{value}`")]
    Other { key: String, value: String, found: String },
    #[error("cannot read `{key}`")]
    Read { key: String, source: io::Error },
}

impl KindError for SysctlError {}

type Values = BTreeMap<String, String>;

/// The folders of settings for the next boot (sysctl.d(5)).
const FOLDERS: [&str; 4] = ["/etc/sysctl.d", "/run/sysctl.d", "/usr/local/lib/sysctl.d", "/usr/lib/sysctl.d"];
/// Most that is read of a file of others, in bytes.
const MOST: u64 = 1 << 20;

/// The task's memory, by parameter.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Memory {
    /// The values that the task found.
    before: Values,
    /// The values that it set.
    #[serde(default)]
    set: Values,
}

impl Memory {
    fn of(cx: &Context<'_>) -> Self {
        let Some(memory) = cx.memory() else { return Self::default() };
        // Earlier agents kept only the values that they found.
        let found = || Values::deserialize(memory).map(|before| Self { before, set: Values::new() });
        Self::deserialize(memory).or_else(|_| found()).unwrap_or_default()
    }

    /// Restores the value that `key` had before the task, unless an operator has changed it since, or another task has it;
    /// whether that changed anything. `applied`: the values of the task's record; what was set last may have been a failed update's.
    fn give_back(&self, cx: &Context<'_>, key: &str, old: &str, applied: &Values) -> Result<bool, SysctlError> {
        let is_anothers = cx.held_by_another(&Sysctl::claim_of(key)).is_some();
        if is_anothers || cx.on_remove != OnRemove::Restore {
            return Ok(false);
        }
        let noted = found(cx, key);
        let old = noted.as_deref().unwrap_or(old);
        let now = match get(key) {
            Ok(now) => now,
            Err(error) => {
                cx.report(&format!("{error}: nothing to set back"));
                return Ok(false);
            }
        };
        let mut ours = [self.set.get(key), applied.get(key)].into_iter().flatten().peekable();
        if ours.peek().is_some() && !ours.any(|ours| *ours == now) {
            cx.report(&format!("{key} is `{now}` now, changed out of band: left as it is"));
            return Ok(false);
        }
        if now != old {
            set(key, old)?;
        }
        Ok(now != old)
    }
}

impl Kind for Sysctl {
    fn whole_host(&self) -> bool {
        true
    }

    async fn find(&self, cx: &Context<'_>) -> Result<(), HostError> {
        for (key, wanted) in self.wanted() {
            let claim = Sysctl::claim_of(&key);
            if cx.is_unnoted(&claim) {
                let value = get(&key)?;
                // After a power loss it may be the task's own.
                if cx.found(&claim).is_none() || value != wanted {
                    cx.note_found(&claim, Found::Value { value })?;
                }
            }
        }
        Ok(())
    }

    async fn check(&self, cx: &Context<'_>) -> Result<Check, HostError> {
        let wanted = self.wanted();
        let mut in_sync = Memory::of(cx).before.keys().all(|key| wanted.contains_key(key));
        for (key, value) in &wanted {
            in_sync &= cx.same(key, value, &get(key)?);
        }
        let sum = Sum::of_bytes(text(&wanted).as_bytes());
        in_sync &= cx.is_file(&path(cx.task), sum, access()?, true)?;
        in_sync &= !cx.host.environment.root.exists(&former_path(cx.task))?;
        Ok(in_sync.into())
    }

    async fn apply(&self, cx: &Context<'_>) -> Result<Applied, HostError> {
        let (wanted, mut memory) = (self.wanted(), Memory::of(cx));
        // Parameters that are no longer wanted.
        for (key, old) in memory.before.iter().filter(|(key, _)| !wanted.contains_key(*key)) {
            memory.give_back(cx, key, old, &Values::new())?;
        }
        memory.before.retain(|key, _| wanted.contains_key(key));
        let mut former = Values::new();
        for (key, value) in &wanted {
            let old = get(key)?;
            if old != *value {
                // The value from before the task counts, not one that an earlier version of it set.
                memory.before.entry(key.clone()).or_insert_with(|| old.clone());
                former.insert(key.clone(), old);
            }
        }
        memory.set = wanted.clone();
        memory.set.retain(|key, _| memory.before.contains_key(key));
        cx.change(&memory, async { Ok::<_, HostError>(set_all(&wanted, &former)?) }).await?;
        let root = &cx.host.environment.root;
        files::write_text(root, &path(cx.task), &text(&wanted), access()?)?;
        files::remove_file(root, &former_path(cx.task), false)?;
        for later in later(cx, &wanted) {
            cx.report(&later);
        }
        Ok(Applied { afresh: false })
    }

    async fn remove(&self, cx: &Context<'_>) -> Result<bool, HostError> {
        let mut changed = false;
        for path in [path(cx.task), former_path(cx.task)] {
            changed |= files::remove_file(&cx.host.environment.root, &path, false)? == Removal::Removed;
        }
        let (memory, applied) = (Memory::of(cx), self.wanted());
        let mut before = memory.before.clone();
        before.extend(applied.keys().filter_map(|key| Some((key.clone(), found(cx, key)?))));
        for (key, old) in &before {
            changed |= memory.give_back(cx, key, old, &applied)?;
        }
        Ok(changed)
    }
}

/// The value that a parameter had before any task set it.
fn found(cx: &Context<'_>, key: &str) -> Option<String> {
    match cx.found(&Sysctl::claim_of(key))? {
        Found::Value { value } => Some(value),
        _ => None,
    }
}

/// What sets another value at boot, after the task's own file.
fn later(cx: &Context<'_>, wanted: &Values) -> Vec<String> {
    let root = &cx.host.environment.root;
    let own = path(cx.task);
    let name = own.rsplit('/').next().unwrap_or_default().to_owned();
    let mut files = Vec::new();
    for folder in FOLDERS {
        let Ok(Some((_, real))) = root.directory(folder, Missing::Leave) else { continue };
        let entries = fs::read_dir(real).into_iter().flatten().flatten();
        let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
        files.extend(names.filter(|other| other.ends_with(".conf") && *other > name).map(|other| (other, folder)));
    }
    // A file in one folder hides those of its name in the next.
    files.sort_by(|one, other| one.0.cmp(&other.0));
    files.dedup_by(|later, first| later.0 == first.0);
    let mut files: Vec<String> = files.into_iter().map(|(name, folder)| format!("{folder}/{name}")).collect();
    // Where systemd does not set them, `sysctl --system` reads it last.
    if !std::path::Path::new("/run/systemd/system").exists() {
        files.push("/etc/sysctl.conf".to_owned());
    }
    let mut found = Vec::new();
    for file in files {
        let bytes = files::read_file(root, &file, MOST).ok().flatten().unwrap_or_default();
        for (key, value) in settings(&String::from_utf8_lossy(&bytes)) {
            let ours = wanted.iter().find(|(ours, _)| self::file(ours) == self::file(&key));
            if let Some((key, _)) = ours.filter(|(_, ours)| **ours != value) {
                found.push(format!("at boot, {file} sets {key} to `{value}` after this task"));
            }
        }
    }
    found
}

/// The settings in a file (sysctl.d(5)), with values as the kernel shows them.
fn settings(text: &str) -> impl Iterator<Item = (String, String)> {
    let lines = text.lines().map(str::trim).filter(|line| !line.starts_with(['#', ';']));
    lines.filter_map(|line| {
        let (key, value) = line.split_once('=')?;
        let value = value.split_whitespace().collect::<Vec<_>>().join(" ");
        Some((key.trim().trim_start_matches('-').to_owned(), value))
    })
}

/// After `99-sysctl.conf`, the name under which systemd reads /etc/sysctl.conf.
fn path(task: &TaskId) -> String {
    format!("/etc/sysctl.d/99-zz-groundplan-{task}.conf")
}

/// The name that earlier agents gave it.
fn former_path(task: &TaskId) -> String {
    format!("/etc/sysctl.d/60-groundplan-{task}.conf")
}

fn text(wanted: &Values) -> String {
    let lines = wanted.iter().map(|(key, value)| format!("{key} = {value}\n"));
    ["# Written by groundplan; changes are overwritten.\n".to_owned()].into_iter().chain(lines).collect()
}

fn access() -> Result<Access, HostError> {
    Ok(Access::new("/etc/sysctl.d", None, None, None, 0o644)?)
}

/// The file of a parameter (sysctl(8)): its first separator decides which of `.` and `/` separates directories.
fn file(key: &str) -> String {
    let swapped = |c| match c {
        '.' => '/',
        '/' => '.',
        c => c,
    };
    let path: String = match key.find(['.', '/']).map(|at| &key[at..=at]) {
        Some(".") => key.chars().map(swapped).collect(),
        _ => key.to_owned(),
    };
    format!("/proc/sys/{path}")
}

fn get(key: &str) -> Result<String, SysctlError> {
    match fs::read_to_string(file(key)) {
        Ok(text) => Ok(text.split_whitespace().collect::<Vec<_>>().join(" ")),
        Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::IsADirectory) => {
            Err(SysctlError::Unknown { key: key.to_owned() })
        }
        Err(source) => Err(SysctlError::Read { key: key.to_owned(), source }),
    }
}

/// Sets those of the values that differ from the `former` ones: all or none, since the parameters of a task belong together.
fn set_all(wanted: &Values, former: &Values) -> Result<(), SysctlError> {
    for (at, key) in former.keys().enumerate() {
        if let Err(error) = set(key, &wanted[key]) {
            for (key, old) in former.iter().take(at) {
                set(key, old)?;
            }
            return Err(error);
        }
    }
    Ok(())
}

fn set(key: &str, value: &str) -> Result<(), SysctlError> {
    let (key, value) = (key.to_owned(), value.to_owned());
    let written = fs::OpenOptions::new().write(true).open(file(&key)).and_then(|mut file| {
        // In one write: the kernel takes each write for a complete value.
        io::Write::write_all(&mut file, value.as_bytes())
    });
    if let Err(source) = written {
        return Err(match source.kind() {
            io::ErrorKind::NotFound => SysctlError::Unknown { key },
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
                SysctlError::Forbidden { key, source }
            }
            _ => SysctlError::Refused { key, value, source },
        });
    }
    let found = get(&key)?;
    if found == value { Ok(()) } else { Err(SysctlError::Other { key, value, found }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_paths() {
        for (key, path) in [
            ("kernel.ostype", "/proc/sys/kernel/ostype"),
            ("kernel/ostype", "/proc/sys/kernel/ostype"),
            ("net.ipv4.conf.eth0/1.rp_filter", "/proc/sys/net/ipv4/conf/eth0.1/rp_filter"),
            ("net/ipv4/conf/eth0.1/rp_filter", "/proc/sys/net/ipv4/conf/eth0.1/rp_filter"),
        ] {
            assert_eq!(file(key), path);
        }
        assert_eq!(get("kernel.ostype").unwrap(), "Linux");
        let error = get("kernel.no_such").unwrap_err().to_string();
        assert!(error.starts_with("this host has no kernel parameter `kernel.no_such`"), "{error}");
        assert_eq!(path(&"net-base.forward".parse().unwrap()), "/etc/sysctl.d/99-zz-groundplan-net-base.forward.conf");
        assert!(path(&"s.t".parse().unwrap()).as_str() > "/etc/sysctl.d/99-sysctl.conf");
        let text = "# a = 1\n;b=2\n-net.ipv4.ip_forward=0\n net/core/x =  1\t2 \nnonsense\n";
        let expected = [("net.ipv4.ip_forward", "0"), ("net/core/x", "1 2")].map(|(k, v)| (k.to_owned(), v.to_owned()));
        assert_eq!(settings(text).collect::<Vec<_>>(), expected);
    }
}
