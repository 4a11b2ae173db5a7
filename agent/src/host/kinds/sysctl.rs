//! `sysctl`: kernel parameters, set in /proc/sys and kept in a file of the task's own in /etc/sysctl.d.
//!
//! The note of each parameter holds the value that it had before, which is restored when the parameter is no longer wanted, unless it was changed
//! out of band since then. If the kernel refuses one of several, those that were just set are set back.

use std::{collections::BTreeMap, fs, io};

use groundplan_protocol::{
    ids::TaskId,
    kinds::{Claim, Sysctl},
    plan::OnRemove,
};

use super::{
    context::Context,
    kind::{Applied, Check, Kind},
};
use crate::host::{
    error::{HostError, KindError},
    fs::files::{self, Access, Removal, Sum},
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

impl Kind for Sysctl {
    fn whole_host(&self) -> bool {
        true
    }

    async fn find(&self, cx: &Context<'_>) -> Result<(), HostError> {
        for (key, wanted) in self.wanted() {
            let claim = Claim::named("kernel parameter", &key);
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
        let mut in_sync = memory(cx).keys().all(|key| wanted.contains_key(key));
        for (key, value) in &wanted {
            in_sync &= cx.same(key, value, &get(key)?);
        }
        let sum = Sum::of_bytes(text(&wanted).as_bytes());
        in_sync &= cx.is_file(&path(cx.task), sum, access()?, true)?;
        Ok(in_sync.into())
    }

    async fn apply(&self, cx: &Context<'_>) -> Result<Applied, HostError> {
        let (wanted, mut memory) = (self.wanted(), memory(cx));
        // Parameters that are no longer wanted.
        for (key, old) in memory.iter().filter(|(key, _)| !wanted.contains_key(*key)) {
            if cx.held_by_another(&Claim::named("kernel parameter", key)).is_none() && cx.on_remove == OnRemove::Restore
            {
                set(key, found(cx, key).as_ref().unwrap_or(old))?;
            }
        }
        memory.retain(|key, _| wanted.contains_key(key));
        let mut done: Vec<(&String, String)> = Vec::new();
        for (key, value) in &wanted {
            let old = get(key)?;
            if old == *value {
                continue;
            }
            // All or nothing: the parameters of a task belong together, and a failed task must not leave half of them
            // changed.
            if let Err(error) = set(key, value) {
                for (key, old) in done.iter().rev() {
                    set(key, old)?;
                }
                return Err(error.into());
            }
            done.push((key, old));
        }
        for (key, old) in done {
            // The value from before the task counts, not one that an earlier version of it set.
            memory.entry(key.clone()).or_insert(old);
        }
        cx.remember(serde_json::to_value(&memory).unwrap_or_default());
        files::write_text(&cx.host.environment.root, &path(cx.task), &text(&wanted), access()?)?;
        Ok(Applied { afresh: false })
    }

    async fn remove(&self, cx: &Context<'_>) -> Result<bool, HostError> {
        let removed = files::remove_file(&cx.host.environment.root, &path(cx.task), false)?;
        let mut changed = removed == Removal::Removed;
        let wanted = self.wanted();
        let mut before = memory(cx);
        before.extend(wanted.keys().filter_map(|key| Some((key.clone(), found(cx, key)?))));
        for (key, old) in before.into_iter().filter(|_| cx.on_remove == OnRemove::Restore) {
            if cx.held_by_another(&Claim::named("kernel parameter", &key)).is_some() {
                continue;
            }
            match get(&key) {
                // Only what the task set is set back.
                Ok(now) if wanted.get(&key).is_some_and(|ours| *ours != now) => {
                    cx.report(&format!("{key} is `{now}` now, changed out of band: left as it is"));
                }
                Ok(now) => {
                    set(&key, &old)?;
                    changed |= now != old;
                }
                Err(error) => cx.report(&format!("{error}: nothing to set back")),
            }
        }
        Ok(changed)
    }
}

/// The value that a parameter had before any task set it.
fn found(cx: &Context<'_>, key: &str) -> Option<String> {
    match cx.found(&Claim::named("kernel parameter", key))? {
        Found::Value { value } => Some(value),
        _ => None,
    }
}

/// The memory: the values that the task found when it changed them, by parameter.
fn memory(cx: &Context<'_>) -> Values {
    cx.memory().and_then(|memory| serde_json::from_value(memory.clone()).ok()).unwrap_or_default()
}

fn path(task: &TaskId) -> String {
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
        assert_eq!(path(&"net-base.forward".parse().unwrap()), "/etc/sysctl.d/60-groundplan-net-base.forward.conf");
    }
}
