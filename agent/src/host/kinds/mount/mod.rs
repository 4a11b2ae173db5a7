//! `mount`: a mounted file system, with mount(8), umount(8) and /etc/fstab.
//!
//! It is mounted first and written to /etc/fstab afterwards, so that a line that cannot be mounted never blocks a boot. Changed
//! options lead to a remount, another source or type is mounted again. A busy file system stays mounted, and the error names
//! the processes that use it. The memory holds the line that was there before, and whether the task mounted the file system
//! and created its directory.

mod table;

use std::{collections::BTreeSet, fs, os::unix::fs::MetadataExt, path::Path};

use groundplan_protocol::{
    kinds::{Claim, Mount, MountState},
    plan::OnRemove,
};
use serde::{Deserialize, Serialize};

use self::table::{Mounted, line_of, mounted_at, with_line};
use super::{
    context::Context,
    kind::{Applied, Check, Kind},
};
use crate::host::{
    error::{HostError, KindError, ToolError},
    fs::{
        files::{self, Access, Text},
        paths::Missing,
    },
};
use crate::machine::Found;

const FSTAB: &str = "/etc/fstab";
const MOST: u64 = 1 << 20;

/// Why a mount could not be brought in sync.
#[derive(Debug, thiserror::Error)]
pub(crate) enum MountError {
    #[error("this host has no `{program}`; install util-linux")]
    Missing { program: String },
    #[error("{path} cannot be mounted; /etc/fstab is as it was")]
    Mount { path: String, source: ToolError },
    #[error("{path} cannot be unmounted{}", used(by))]
    Unmount { path: String, by: String, source: ToolError },
    #[error("{path}: what was mounted there before cannot be mounted again")]
    Again { path: String, source: ToolError },
    #[error("mount reported success, but nothing is mounted at {path}")]
    NotThere { path: String },
}

impl KindError for MountError {}

fn used(by: &str) -> String {
    if by.is_empty() { String::new() } else { format!(": it is used by {by}") }
}

/// The task's memory: how it found things, and what it changed.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Memory {
    path: String,
    /// Whether it has written /etc/fstab, the line that was there before, and the one that it wrote.
    listed: bool,
    before: Option<String>,
    line: Option<String>,
    /// The options that it mounted with: a change of these leads to a remount.
    mounted: Option<String>,
    made_directory: bool,
}

impl Kind for Mount {
    fn whole_host(&self) -> bool {
        true
    }

    async fn find(&self, cx: &Context<'_>) -> Result<(), HostError> {
        let claim = Claim::named("mount point", &self.path);
        if !cx.is_unnoted(&claim) {
            return Ok(());
        }
        let note = match mounted(&self.path) {
            Some(Mounted { fstype, source, options, part }) => {
                let before = MountedBefore { fstype, source, options: options.join(","), part };
                let fields = serde_json::to_value(before).unwrap_or_default();
                Found::Fields { what: "mount".to_owned(), fields }
            }
            None => Found::Absent,
        };
        cx.note_found(&claim, note)
    }

    async fn check(&self, cx: &Context<'_>) -> Result<Check, HostError> {
        let fstab = fstab(cx)?.text;
        let listed = line_of(&fstab, &self.path);
        let there = mounted(&self.path);
        let memory = Memory::of(self, cx);
        if cx.is_drift_check() {
            self.report_differences(cx, there.as_ref(), listed);
        }
        let as_mounted = memory.mounted.is_none() || memory.mounted == self.line();
        Ok(match self.state {
            MountState::Mounted => {
                let right = there.is_some_and(|there| is_this(self, &there) && there.has(self.options()));
                right && as_mounted && listed == self.line().as_deref()
            }
            MountState::Present => listed == self.line().as_deref(),
            MountState::Unmounted => there.is_none(),
            MountState::Absent => there.is_none() && listed.is_none(),
        }
        .into())
    }

    async fn apply(&self, cx: &Context<'_>) -> Result<Applied, HostError> {
        let mut memory = Memory::of(self, cx);
        memory.path.clone_from(&self.path);
        let there = mounted(&self.path);
        match self.state {
            MountState::Mounted => put(self, cx, &mut memory, there).await?,
            MountState::Unmounted | MountState::Absent if there.is_some() => unmount(cx, &self.path).await?,
            _ => {}
        }
        // After mounting: a line that cannot be mounted would stop the host at its next boot.
        if self.state != MountState::Unmounted {
            let before = list(cx, &self.path, self.line().as_deref()).await?;
            // Only the first line found: later ones are the task's own.
            if !memory.listed {
                (memory.listed, memory.before) = (true, before);
            }
            memory.line = self.line();
        }
        cx.remember(serde_json::to_value(&memory).unwrap_or_default());
        Ok(Applied { afresh: false })
    }

    async fn remove(&self, cx: &Context<'_>) -> Result<bool, HostError> {
        let memory = Memory::of(self, cx);
        let mut changed = false;
        let delete = cx.on_remove == OnRemove::Delete && self.state == MountState::Mounted;
        // A file system that was mounted before the task stays mounted.
        if (memory.mounted.is_some() || delete) && mounted(&self.path).is_some() {
            unmount(cx, &self.path).await?;
            changed = true;
        }
        let now = fstab(cx)?.text;
        // A line that was edited since belongs to the administrator.
        let is_ours = line_of(&now, &self.path) == memory.line.as_deref();
        if memory.listed && memory.before != memory.line && is_ours {
            let before = memory.before.as_deref().filter(|_| cx.on_remove == OnRemove::Restore);
            list(cx, &self.path, before).await?;
            changed = true;
        }
        changed |= self.mount_again(cx).await?;
        if memory.made_directory {
            changed |= cx.removed(files::remove_directory(&cx.host.environment.root, &self.path)?);
        }
        Ok(changed)
    }
}

/// The file system that was mounted before any task took the path.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct MountedBefore {
    fstype: String,
    source: String,
    options: String,
    part: String,
}

trait Restore {
    async fn mount_again(&self, cx: &Context<'_>) -> Result<bool, HostError>;
}

impl Restore for Mount {
    /// Mounts what was mounted before, if nothing is mounted now; whether it did. By /etc/fstab where that has a line for it again.
    async fn mount_again(&self, cx: &Context<'_>) -> Result<bool, HostError> {
        let claim = Claim::named("mount point", &self.path);
        let (Some(Found::Fields { fields, .. }), OnRemove::Restore) = (cx.found(&claim), cx.on_remove) else {
            return Ok(false);
        };
        let Ok(before) = MountedBefore::deserialize(fields) else { return Ok(false) };
        if mounted(&self.path).is_some() {
            return Ok(false);
        }
        let listed = line_of(&fstab(cx)?.text, &self.path).is_some();
        let args = match listed {
            true => vec!["mount", "--", &self.path],
            false => vec!["mount", "-t", &before.fstype, "-o", &before.options, "--", &before.source, &self.path],
        };
        let is_bind = before.part != "/";
        if is_bind && !listed {
            cx.report(&format!("{} was a bind mount of {}: mount it again by hand", self.path, before.part));
            return Ok(false);
        }
        cx.tool(&args).await.map_err(|source| MountError::Again { path: self.path.clone(), source })?;
        Ok(true)
    }
}

trait Differences {
    fn report_differences(&self, cx: &Context<'_>, there: Option<&Mounted>, listed: Option<&str>);
}

impl Differences for Mount {
    /// Notes what is mounted and what /etc/fstab has, where they differ.
    fn report_differences(&self, cx: &Context<'_>, there: Option<&Mounted>, listed: Option<&str>) {
        let words =
            |Mounted { fstype, source, options, .. }: &Mounted| format!("{source}, {fstype}, {}", options.join(","));
        let found = there.map(words);
        match (self.state, there) {
            (MountState::Present, _) => {}
            (MountState::Mounted, Some(there)) if is_this(self, there) && there.has(self.options()) => {}
            (MountState::Mounted, _) => {
                let source = self.source.as_deref().unwrap_or("none");
                let wanted = format!("{source}, {}, {}", self.fstype(), self.options());
                cx.differs("mounted", Some(public(&wanted)), found.as_deref().map(public));
            }
            (_, None) => {}
            (_, Some(_)) => cx.differs("mounted", None, found.as_deref().map(public)),
        }
        let wanted = self.line();
        if self.state != MountState::Unmounted && listed != wanted.as_deref() {
            cx.differs(FSTAB, wanted.as_deref().map(public), listed.map(public));
        }
    }
}

/// The text, unless its options may contain a password or a key, such as `password=` of cifs and `secret=` of ceph.
fn public(text: &str) -> &str {
    const SECRETS: [&str; 5] = ["pass", "secret", "key", "token", "cred"];
    let lower = text.to_ascii_lowercase();
    if SECRETS.iter().any(|word| lower.contains(word)) { "not reported, because it may contain a secret" } else { text }
}

/// Whether the wanted file system is mounted, as far as the kernel shows it.
fn is_this(mount: &Mount, there: &Mounted) -> bool {
    let Some(source) = mount.source.as_deref() else { return true };
    let is_bind = mount.options().split(',').any(|option| matches!(option, "bind" | "rbind"));
    if is_bind {
        // One directory may have two names.
        let identity = |path: &str| fs::metadata(path).ok().map(|found| (found.dev(), found.ino()));
        return identity(source).is_some_and(|it| Some(it) == identity(&mount.path));
    }
    let tag = |tag: &str, dir: &str| {
        let name = source.strip_prefix(tag)?.trim_matches('"');
        fs::canonicalize(Path::new("/dev/disk").join(dir).join(name)).ok()
    };
    let device = tag("UUID=", "by-uuid")
        .or_else(|| tag("LABEL=", "by-label"))
        .or_else(|| tag("PARTUUID=", "by-partuuid"))
        .or_else(|| tag("PARTLABEL=", "by-partlabel"))
        .or_else(|| source.starts_with("/dev/").then(|| fs::canonicalize(source).ok()).flatten());
    let found = fs::canonicalize(&there.source).unwrap_or_else(|_| there.source.clone().into());
    let right_type = matches!(mount.fstype(), "auto" | "none") || there.fstype.starts_with(mount.fstype());
    right_type && (there.source == source || device.is_some_and(|device| device == found))
}

async fn put(mount: &Mount, cx: &Context<'_>, memory: &mut Memory, there: Option<Mounted>) -> Result<(), HostError> {
    let root = &cx.host.environment.root;
    let same = there.as_ref().is_some_and(|there| is_this(mount, there));
    if there.is_some() && !same {
        unmount(cx, &mount.path).await?;
    }
    if root.directory(&mount.path, Missing::Leave)?.is_none() {
        files::put_directory(root, &mount.path, Access::new(&mount.path, None, None, None, 0o755)?)?;
        memory.made_directory = true;
    }
    let right = there.is_some_and(|there| there.has(mount.options()));
    if same && right && (memory.mounted.is_none() || memory.mounted == mount.line()) {
        return Ok(());
    }
    let source = mount.source.as_deref().unwrap_or("none");
    let remount = format!("remount,{}", mount.options());
    let args = match same {
        // Source and path together: with the path alone, options that /etc/fstab still has would come back (mount(8)).
        true if mount.source.is_some() => vec!["mount", "-o", &remount, "--", source, &mount.path],
        true => vec!["mount", "-o", &remount, "--", &mount.path],
        false => vec!["mount", "-t", mount.fstype(), "-o", mount.options(), "--", source, &mount.path],
    };
    cx.tool(&args).await.map_err(|source| match missing(&source) {
        Some(missing) => missing,
        None => MountError::Mount { path: mount.path.clone(), source },
    })?;
    if mounted(&mount.path).is_none() {
        return Err(MountError::NotThere { path: mount.path.clone() }.into());
    }
    // One that was mounted before the task stays mounted after it.
    if !same || memory.mounted.is_some() {
        memory.mounted = mount.line();
    }
    Ok(())
}

impl Memory {
    fn of(mount: &Mount, cx: &Context<'_>) -> Self {
        let memory = cx.memory().and_then(|memory| Self::deserialize(memory).ok());
        memory.filter(|memory: &Self| memory.path == mount.path).unwrap_or_default()
    }
}

fn mounted(path: &str) -> Option<Mounted> {
    mounted_at(&fs::read_to_string("/proc/self/mountinfo").unwrap_or_default(), path)
}

fn fstab(cx: &Context<'_>) -> Result<Text, HostError> {
    match files::read_text(&cx.host.environment.root, FSTAB, MOST)? {
        Some(found) => Ok(found),
        None => Ok(Text { text: String::new(), access: Access::new(FSTAB, None, None, None, 0o644)? }),
    }
}

/// Gives a path another line in /etc/fstab, or none; returns the line that it had.
async fn list(cx: &Context<'_>, path: &str, line: Option<&str>) -> Result<Option<String>, HostError> {
    let _edit = cx.host.edits.lock().await;
    let Text { text, access } = fstab(cx)?;
    let before = line_of(&text, path).map(str::to_owned);
    if before.as_deref() != line {
        files::write_text(&cx.host.environment.root, FSTAB, &with_line(&text, path, line), access)?;
        // systemd generates its mount units from the file, and would mount by the old ones.
        if Path::new("/run/systemd/system").exists() {
            cx.tool(&["systemctl", "daemon-reload"]).await?;
        }
    }
    Ok(before)
}

async fn unmount(cx: &Context<'_>, path: &str) -> Result<(), MountError> {
    cx.tool(&["umount", "--", path]).await.map(drop).map_err(|source| match missing(&source) {
        Some(missing) => missing,
        None => MountError::Unmount { path: path.to_owned(), by: users_of(path), source },
    })
}

fn missing(error: &ToolError) -> Option<MountError> {
    match error {
        ToolError::Missing { program } => Some(MountError::Missing { program: program.clone() }),
        _ => None,
    }
}

/// The processes that have a file below `path` open, run a program from there, or have it as their working directory.
fn users_of(path: &str) -> String {
    let is_below = |link: &Path| fs::read_link(link).is_ok_and(|target| target.starts_with(path));
    let uses = |process: &Path| {
        let open = fs::read_dir(process.join("fd")).into_iter().flatten().flatten().map(|fd| fd.path());
        ["cwd", "root", "exe"].map(|name| process.join(name)).into_iter().chain(open).any(|link| is_below(&link))
    };
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten().filter_map(|entry| {
        let pid: u32 = entry.file_name().to_str()?.parse().ok()?;
        let name = fs::read_to_string(entry.path().join("comm")).ok()?;
        uses(&entry.path()).then(|| format!("{} ({pid})", name.trim()))
    });
    processes.take(10).collect::<BTreeSet<_>>().into_iter().collect::<Vec<_>>().join(", ")
}
