//! `mount`: a mounted file system or a swap area, with mount(8), umount(8), swapon(8) and /etc/fstab.
//!
//! It is mounted first and written to /etc/fstab afterwards, so that a line that cannot be mounted never blocks a boot. Changed
//! options lead to a remount; another source or type takes the place of what is mounted, which comes back if that fails. A busy
//! file system stays mounted, and the error names the processes that use it. The memory holds the line that was there before,
//! and whether the task mounted the file system and created its directory or file.

mod error;
mod shown;
mod swap;
mod table;

use std::{collections::BTreeSet, fs, path::Path};

use groundplan_protocol::{
    kinds::{Claim, Mount, MountState},
    plan::OnRemove,
};
use serde::{Deserialize, Serialize};

use self::{
    error::{Former, MountError, missing},
    shown::{Shown, is_protected, is_this},
    table::{Mounted, Subject, all_lines, is_same, line_of, mounted_at, with_line, without},
};
use super::{
    context::Context,
    kind::{Applied, Check, Kind},
};
use crate::host::{
    error::{HostError, ToolError},
    found::FoundError,
    fs::{
        files::{self, Access, Text},
        paths::Missing,
    },
    tool::Tool,
};
use crate::machine::Found;

const FSTAB: &str = "/etc/fstab";
const MOST: u64 = 1 << 20;

/// The task's memory: how it found things, and what it changed.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Memory {
    path: String,
    /// Whether it has written /etc/fstab, the line that was there before, and the one that it wrote.
    listed: bool,
    before: Option<String>,
    line: Option<String>,
    /// Whether systemd may not have read /etc/fstab since the task wrote it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    unread: bool,
    /// The options that it mounted with: a change of these leads to a remount.
    mounted: Option<String>,
    made_directory: bool,
    /// Whether it created the empty file that another one is bound to.
    #[serde(default)]
    made_file: bool,
    /// What the kernel showed when it had mounted it.
    #[serde(default)]
    shown: Option<Shown>,
}

impl Kind for Mount {
    fn whole_host(&self) -> bool {
        true
    }

    async fn find(&self, cx: &Context<'_>) -> Result<(), HostError> {
        let claim = Claim::named("mount point", &self.path);
        if self.is_swap() || !cx.is_unnoted(&claim) {
            return Ok(());
        }
        let note = match mounted(&self.path) {
            Some(Mounted { fstype, source, options, part, .. }) => {
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
        let memory = Memory::of(self, cx);
        let listed = line_of(&fstab, subject(self), self.line().as_deref(), memory.line.as_deref());
        let is_listed = is_same(listed, self.line().as_deref());
        let live = Live::of(self);
        if cx.is_drift_check() {
            self.report_differences(cx, &live, &memory, listed);
        }
        let as_mounted = memory.mounted.is_none() || memory.mounted == self.line();
        Ok(match self.state {
            MountState::Mounted => live.is_as_wanted(self, &memory) && as_mounted && is_listed && !memory.unread,
            MountState::Present => is_listed && !memory.unread,
            MountState::Unmounted => live.is_unmounted(),
            MountState::Absent => live.is_none() && listed.is_none() && !memory.unread,
        }
        .into())
    }

    async fn apply(&self, cx: &Context<'_>) -> Result<Applied, HostError> {
        let mut memory = Memory::of(self, cx);
        memory.path.clone_from(&self.path);
        let live = Live::of(self);
        match self.state {
            MountState::Mounted => put(self, cx, &mut memory, live).await?,
            MountState::Unmounted if !live.is_unmounted() => end(self, cx, false).await?,
            MountState::Absent if !live.is_none() => end(self, cx, true).await?,
            _ => {}
        }
        cx.remember(&memory);
        // After mounting: a line that cannot be mounted would stop the host at its next boot.
        if self.state != MountState::Unmounted {
            let (known, was_unread) = (memory.line.clone(), memory.unread);
            let note = |before| {
                // Nothing on the host would show it to an agent that comes after a kill.
                memory.unread = true;
                // Only the first line found: later ones are the task's own.
                if !memory.listed {
                    (memory.listed, memory.before) = (true, before);
                }
                memory.line = self.line();
                cx.remember_first(&memory)
            };
            list(self, cx, self.line().as_deref(), known.as_deref(), was_unread, note).await?;
            memory.unread = false;
            cx.remember(&memory);
        }
        Ok(Applied { afresh: false })
    }

    async fn remove(&self, cx: &Context<'_>) -> Result<bool, HostError> {
        let memory = Memory::of(self, cx);
        let mut changed = false;
        let delete = cx.on_remove == OnRemove::Delete && self.state == MountState::Mounted;
        // A file system that was mounted before the task stays mounted.
        if (memory.mounted.is_some() || delete) && !Live::of(self).is_none() && self.path != "/" {
            end(self, cx, true).await?;
            changed = true;
        }
        let now = fstab(cx)?.text;
        // A line that was edited since belongs to the administrator.
        let known = memory.line.as_deref();
        let is_ours = is_same(line_of(&now, subject(self), known, known), known);
        if memory.listed && !is_same(memory.before.as_deref(), known) && is_ours {
            let before = memory.before.as_deref().filter(|_| cx.on_remove == OnRemove::Restore);
            list(self, cx, before, known, false, |_| Ok(())).await?;
            changed = true;
        } else if memory.listed && !is_ours {
            // An agent may have been killed right after it wrote the file.
            reload(cx).await?;
        }
        changed |= self.mount_again(cx).await?;
        if memory.made_directory {
            changed |= cx.removed(files::remove_directory(&cx.host.environment.root, &self.path)?);
        }
        if memory.made_file && fs::metadata(&self.path).is_ok_and(|found| found.is_file() && found.len() == 0) {
            changed |= cx.removed(files::remove_file(&cx.host.environment.root, &self.path, false)?);
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
        if self.is_swap() || mounted(&self.path).is_some() {
            return Ok(false);
        }
        let listed = line_of(&fstab(cx)?.text, subject(self), None, None).is_some();
        let args = match listed {
            true => vec!["mount", "--", &self.path],
            false => vec!["mount", "-t", &before.fstype, "-o", &before.options, "--", &before.source, &self.path],
        };
        let is_bind = before.part != "/";
        if is_bind && !listed {
            cx.report(&format!("{} was a bind mount of {}: mount it again by hand", self.path, before.part));
            return Ok(false);
        }
        call(cx, &args).await.map_err(|source| MountError::Again { path: self.path.clone(), source })?;
        Ok(true)
    }
}

/// What is mounted at the path now, or the priority of the swap area in use.
enum Live {
    Nothing,
    Mounted(Mounted),
    Swap(i32),
}

impl Live {
    fn of(mount: &Mount) -> Self {
        if mount.is_swap() {
            return swap::priority(mount).map_or(Self::Nothing, Self::Swap);
        }
        mounted(&mount.path).map_or(Self::Nothing, Self::Mounted)
    }

    fn is_none(&self) -> bool {
        matches!(self, Self::Nothing)
    }

    /// Whether nothing is mounted, though it may be at the next use of the path.
    fn is_unmounted(&self) -> bool {
        match self {
            Self::Mounted(there) => there.is_idle_automount(),
            live => live.is_none(),
        }
    }

    fn is_as_wanted(&self, mount: &Mount, memory: &Memory) -> bool {
        match self {
            Self::Nothing => false,
            Self::Swap(priority) => swap::is_as_wanted(mount, *priority),
            Self::Mounted(there) => {
                let known = memory.shown.as_ref();
                let has = || there.has(mount.options(), is_protected(mount, there, known));
                is_this(mount, there, known) && (there.is_idle_automount() || has())
            }
        }
    }

    /// As text, for people.
    fn words(&self) -> Option<String> {
        match self {
            Self::Nothing => None,
            Self::Swap(priority) => Some(format!("in use, priority {priority}")),
            Self::Mounted(Mounted { fstype, source, options, .. }) => {
                Some(format!("{source}, {fstype}, {}", options.join(",")))
            }
        }
    }
}

/// What its line in /etc/fstab is about.
fn subject(mount: &Mount) -> Subject<'_> {
    match &mount.source {
        Some(source) if mount.is_swap() => Subject::Swap(source),
        _ => Subject::Path(&mount.path),
    }
}

trait Differences {
    fn report_differences(&self, cx: &Context<'_>, live: &Live, memory: &Memory, listed: Option<&str>);
}

impl Differences for Mount {
    /// Notes what is mounted and what /etc/fstab has, where they differ.
    fn report_differences(&self, cx: &Context<'_>, live: &Live, memory: &Memory, listed: Option<&str>) {
        let found = live.words();
        match self.state {
            MountState::Present => {}
            MountState::Mounted if live.is_as_wanted(self, memory) => {}
            MountState::Mounted => {
                let source = self.source.as_deref().unwrap_or("none");
                let wanted = format!("{source}, {}, {}", self.fstype(), self.options());
                cx.differs("mounted", Some(public(&wanted)), found.as_deref().map(public));
            }
            MountState::Unmounted if live.is_unmounted() => {}
            MountState::Absent if live.is_none() => {}
            MountState::Unmounted | MountState::Absent => cx.differs("mounted", None, found.as_deref().map(public)),
        }
        let wanted = self.line();
        if self.state != MountState::Unmounted && !is_same(listed, wanted.as_deref()) {
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

async fn put(mount: &Mount, cx: &Context<'_>, memory: &mut Memory, live: Live) -> Result<(), HostError> {
    let as_mounted = memory.mounted.is_none() || memory.mounted == mount.line();
    if live.is_as_wanted(mount, memory) && as_mounted {
        return Ok(());
    }
    let there = match live {
        Live::Mounted(there) => Some(there),
        Live::Nothing => None,
        Live::Swap(_) => {
            memory.mounted = memory.mounted.as_ref().and(mount.line());
            cx.change(memory, swap::put(cx, mount)).await?;
            return Ok(());
        }
    };
    if mount.is_swap() {
        memory.mounted = mount.line();
        cx.change(memory, swap::put(cx, mount)).await?;
        return Ok(());
    }
    let same = there.as_ref().is_some_and(|there| is_this(mount, there, memory.shown.as_ref()));
    // One that was mounted before the task stays mounted after it.
    let mounted_by_task = if same { memory.mounted.as_ref().and(mount.line()) } else { mount.line() };
    let source = mount.source.as_deref().unwrap_or("none");
    if same {
        // What waits for its first use is mounted then, with the options that /etc/fstab has.
        if !there.as_ref().is_some_and(Mounted::is_idle_automount) {
            // Options do not all show: an agent that is killed here mounts it again.
            let meanwhile = Memory { mounted: mounted_by_task.as_ref().map(|_| String::new()), ..memory.clone() };
            cx.change(&meanwhile, remount(mount, cx, source)).await?;
        }
    } else {
        if let Some(there) = there.as_ref().filter(|_| mount.path == "/") {
            return Err(MountError::Root { found: there.source.clone(), wanted: source.to_owned() }.into());
        }
        make_place(mount, cx, memory)?;
        let args = ["mount", "-t", mount.fstype(), "-o", mount.options(), "--", source, &mount.path];
        let after = Memory { mounted: mounted_by_task.clone(), shown: None, ..memory.clone() };
        let made = async {
            if there.is_some() {
                unmount(cx, &mount.path).await?;
            }
            call(cx, &args).await.map_err(|error| refused(mount, error))
        };
        if let Err(mut error) = cx.change(&after, made).await {
            if let (MountError::Mount { former, .. }, Some(there)) = (&mut error, &there) {
                *former = bring_back(mount, cx, memory, there).await?;
            }
            return Err(error.into());
        }
    }
    let Some(now) = mounted(&mount.path) else {
        return Err(MountError::NotThere { path: mount.path.clone() }.into());
    };
    if !now.is_idle_automount() {
        memory.shown = Some(Shown::new(mount, &now));
    }
    memory.mounted = mounted_by_task;
    Ok(())
}

async fn remount(mount: &Mount, cx: &Context<'_>, source: &str) -> Result<(), MountError> {
    let options = format!("remount,{}", mount.options());
    let args = match &mount.source {
        // Source and path together: with the path alone, options that /etc/fstab still has would come back (mount(8)).
        Some(_) => vec!["mount", "-o", &options, "--", source, &mount.path],
        None => vec!["mount", "-o", &options, "--", &mount.path],
    };
    call(cx, &args).await.map_err(|error| refused(mount, error))
}

/// Runs mount(8). Options may hold a password, so no error quotes them.
async fn call(cx: &Context<'_>, args: &[&str]) -> Result<(), ToolError> {
    Tool::new(args).quiet().run(cx).await.map(drop)
}

fn refused(mount: &Mount, error: ToolError) -> MountError {
    match missing(&error) {
        Some(missing) => missing,
        None => MountError::Mount { path: mount.path.clone(), former: Former::Untouched, source: error },
    }
}

/// Creates a missing mount point: a directory, or an empty file where a file is bound.
fn make_place(mount: &Mount, cx: &Context<'_>, memory: &mut Memory) -> Result<(), HostError> {
    let root = &cx.host.environment.root;
    let is_file = mount.is_bind() && mount.source.as_ref().is_some_and(|source| Path::new(source).is_file());
    if is_file {
        if !root.exists(&mount.path)? {
            memory.made_file = true;
            cx.remember_first(memory)?;
            files::write_text(root, &mount.path, "", Access::new(&mount.path, None, None, None, 0o644)?)?;
        }
    } else if root.directory(&mount.path, Missing::Leave)?.is_none() {
        memory.made_directory = true;
        cx.remember_first(memory)?;
        files::put_directory(root, &mount.path, Access::new(&mount.path, None, None, None, 0o755)?)?;
    }
    Ok(())
}

/// Mounts again what was unmounted for something that cannot be mounted: as the task had mounted it, as /etc/fstab has it, or
/// as the kernel showed it.
async fn bring_back(mount: &Mount, cx: &Context<'_>, memory: &Memory, there: &Mounted) -> Result<Former, HostError> {
    let fstab = fstab(cx)?.text;
    let line = memory.mounted.as_deref().or_else(|| line_of(&fstab, subject(mount), None, memory.line.as_deref()));
    let mut attempts: Vec<[String; 3]> = Vec::new();
    attempts.extend(line.and_then(table::to_mount));
    // A part of a file system was bound from a path that the kernel does not show.
    if there.part == "/" && !there.is_idle_automount() {
        let options = there.options.join(",");
        attempts.push([there.source.clone(), there.fstype.clone(), options]);
    }
    for [source, fstype, options] in attempts {
        if cx.tool(&["mount", "-t", &fstype, "-o", &options, "--", &source, &mount.path]).await.is_ok() {
            return Ok(Former::Back);
        }
    }
    Ok(Former::Lost)
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

/// Gives it another line in /etc/fstab, or none. Before that, `note` gets the line that it has, or all of them where it is to have none.
/// `known` is the line that the task wrote. systemd reads the file if that changes it, and if it has not read an earlier change (`unread`).
async fn list(
    mount: &Mount,
    cx: &Context<'_>,
    line: Option<&str>,
    known: Option<&str>,
    unread: bool,
    note: impl FnOnce(Option<String>) -> Result<(), FoundError>,
) -> Result<(), HostError> {
    let _edit = cx.host.edits.lock().await;
    let Text { text, access } = fstab(cx)?;
    let before = line_of(&text, subject(mount), line, known).map(str::to_owned);
    let (before, new) = match mount.state {
        MountState::Absent if line.is_none() => (all_lines(&text, subject(mount)), without(&text, subject(mount))),
        // In sync, also with a comment or other blanks.
        _ if is_same(before.as_deref(), line) => (before, text.clone()),
        _ => (before.clone(), with_line(&text, before.as_deref(), line)),
    };
    note(before)?;
    if new != text {
        files::write_text(&cx.host.environment.root, FSTAB, &new, access)?;
    }
    if new != text || unread {
        reload(cx).await?;
    }
    Ok(())
}

/// Has systemd read /etc/fstab: it generates its mount units from that, and would mount by the old ones.
async fn reload(cx: &Context<'_>) -> Result<(), HostError> {
    if Path::new("/run/systemd/system").exists() {
        cx.tool(&["systemctl", "daemon-reload"]).await?;
    }
    Ok(())
}

/// Unmounts it, or ends the use of the swap area. `for_good`: with the automount that would mount it again.
async fn end(mount: &Mount, cx: &Context<'_>, for_good: bool) -> Result<(), MountError> {
    if mount.is_swap() {
        return swap::off(cx, mount).await;
    }
    unmount(cx, &mount.path).await?;
    // The automount that mounted it is below it.
    if for_good && mounted(&mount.path).is_some_and(|there| there.is_idle_automount()) {
        unmount(cx, &mount.path).await?;
    }
    Ok(())
}

async fn unmount(cx: &Context<'_>, path: &str) -> Result<(), MountError> {
    cx.tool(&["umount", "--", path]).await.map(drop).map_err(|source| match missing(&source) {
        Some(missing) => missing,
        None => MountError::Unmount { path: path.to_owned(), by: users_of(path), source },
    })
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
