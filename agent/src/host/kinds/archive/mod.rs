//! `archive`: the members of a tar or zip archive in a directory: all of it or nothing.
//!
//! The archive is read completely into a staging directory, where each member is checked and files have numbers as names; only
//! then each is renamed to its place below `dest`, and none can leave it. A manifest in the state directory lists what was put
//! there: an update removes members that the archive no longer has, and removal all of them, except those that another archive has
//! put there, too. Devices, set-user-id files and more bytes than allowed are refused with the member's name.

mod error;
mod manifest;
mod members;
mod staging;

use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, Seek, Write},
    os::fd::OwnedFd,
};

use groundplan_protocol::{digest::Digest, ids::TaskId, kinds::Archive};
use nix::{
    fcntl::renameat,
    sys::{
        memfd::{MFdFlags, memfd_create},
        stat::Mode,
    },
    unistd::{Gid, Uid, syncfs},
};

use self::{
    error::ArchiveError,
    manifest::{Entry, Manifest, Origin, Store},
    members::{Limits, Member, Members, What},
    staging::Staging,
};
use super::{
    context::Context,
    kind::{Applied, Check, Kind, blocking},
};
use crate::host::{
    error::HostError,
    fs::{
        files::{self, Access, FileError, Occupant, Removal, Sum},
        paths::{Missing, Root},
    },
    job::Content,
};

/// The directory that an archive was unpacked into, and the members that differ.
type Differing = (Root, BTreeMap<String, Entry>);

/// All that unpacking needs, to be moved to a thread of its own.
struct Job {
    task: TaskId,
    params: Archive,
    root: Root,
    content: Option<(Option<Content>, Sum)>,
    owner: (Uid, Gid),
    store: Store,
    search: String,
}

impl Kind for Archive {
    async fn check(&self, cx: &Context<'_>) -> Result<Check, HostError> {
        let job = Job::new(self, cx)?;
        job.store.take_over(cx.task, cx.others, &self.dest).map_err(ArchiveError::Manifest)?;
        if !cx.is_drift_check() {
            return Ok(blocking(move || job.check()).await??.into());
        }
        let dest = self.dest.clone();
        let Some((tree, differing)) = blocking(move || job.differences()).await?? else {
            cx.differs(&dest, Some("unpacked"), None);
            return Ok(Check::OutOfSync);
        };
        for (path, entry) in &differing {
            note_difference(cx, &tree, &dest, path, entry);
        }
        Ok(differing.is_empty().into())
    }

    async fn apply(&self, cx: &Context<'_>) -> Result<Applied, HostError> {
        let job = Job::new(self, cx)?;
        blocking(move || job.apply()).await??.iter().for_each(|line| cx.report(line));
        Ok(Applied { afresh: false })
    }

    async fn remove(&self, cx: &Context<'_>) -> Result<bool, HostError> {
        let job = Job::new(self, cx)?;
        let (removed, left) = blocking(move || job.remove()).await??;
        left.iter().for_each(|line| cx.report(line));
        Ok(removed)
    }
}

impl Job {
    fn new(params: &Archive, cx: &Context<'_>) -> Result<Self, HostError> {
        let Access { uid, gid, .. } =
            Access::new(&params.dest, params.owner.as_deref(), params.group.as_deref(), None, 0)?;
        let search = cx.host.environment.env.get("PATH").and_then(|path| path.to_str());
        Ok(Self {
            task: cx.task.clone(),
            params: params.clone(),
            root: cx.host.environment.root.clone(),
            content: cx.content.map(|shipped| (shipped.bytes().ok().cloned(), shipped.sum)),
            owner: (uid, gid),
            store: Store::new(&cx.host.state_dir),
            search: search.unwrap_or_default().to_owned(),
        })
    }

    /// Opens the archive; with its digest.
    fn open(&self) -> Result<(File, Digest), HostError> {
        if let Some(path) = &self.params.path {
            let Some(mut file) = files::open_file(&self.root, path)? else {
                return Err(ArchiveError::NotThere { path: path.clone() }.into());
            };
            let found = Sum::of(&file).map_err(ArchiveError::Read)?.digest;
            if let Some(wanted) = self.params.digest().filter(|wanted| *wanted != found) {
                return Err(ArchiveError::Digest { path: path.clone(), found, wanted }.into());
            }
            file.rewind().map_err(ArchiveError::Read)?;
            return Ok((file, found));
        }
        let (content, sum) = self.content.as_ref().ok_or(HostError::NoContent)?;
        let file = match content {
            None => return Err(HostError::NoContent),
            Some(Content::File(path)) => File::open(path),
            Some(Content::Bytes(bytes)) => memory(bytes),
        };
        Ok((file.map_err(ArchiveError::Read)?, sum.digest))
    }

    fn origin(&self, sha256: Digest) -> Origin {
        let (uid, gid) = self.owner;
        let Archive { strip_components: strip, setuid, .. } = self.params;
        Origin { sha256, strip, owner: (uid.as_raw(), gid.as_raw()), setuid }
    }

    fn access(&self, mode: u32) -> Access {
        Access { uid: self.owner.0, gid: self.owner.1, mode: Mode::from_bits_truncate(mode) }
    }

    fn check(&self) -> Result<bool, HostError> {
        let Some(manifest) = self.store.load(&self.task, &self.params.dest) else {
            return Ok(self.params.creates.as_ref().map_or(Ok(false), |path| self.root.exists(path))?);
        };
        let Some((_, real)) = self.root.directory(&self.params.dest, Missing::Leave)? else { return Ok(false) };
        let (_, sha256) = self.open()?;
        let tree = Root::new(real);
        let is_in_sync =
            |(path, entry): (&String, &Entry)| self.is_in_sync(&tree, &format!("/{path}"), entry).unwrap_or(false);
        Ok(manifest.from == Some(self.origin(sha256)) && manifest.members.iter().all(is_in_sync))
    }

    /// The members that are not as they were unpacked. The archive itself is not needed and may be missing. `None` if no manifest
    /// shows what was unpacked, or its directory is missing.
    fn differences(&self) -> Result<Option<Differing>, HostError> {
        let Some((_, real)) = self.root.directory(&self.params.dest, Missing::Leave)? else { return Ok(None) };
        let tree = Root::new(real);
        let Some(mut manifest) = self.store.load(&self.task, &self.params.dest) else {
            let in_sync = self.params.creates.as_ref().map_or(Ok(false), |path| self.root.exists(path))?;
            return Ok(in_sync.then(|| (tree, BTreeMap::new())));
        };
        manifest.members.retain(|path, entry| !self.is_in_sync(&tree, &format!("/{path}"), entry).unwrap_or(false));
        Ok(manifest.from.is_some().then_some((tree, manifest.members)))
    }

    /// Whether a member is as it was unpacked. An error counts as a difference: applying reports it.
    fn is_in_sync(&self, tree: &Root, path: &str, entry: &Entry) -> Result<bool, FileError> {
        match entry {
            Entry::Directory { made: true, mode } => files::is_directory(tree, path, self.access(*mode)),
            Entry::Directory { .. } => Ok(tree.directory(path, Missing::Leave)?.is_some()),
            Entry::File { mode, size, sha256 } => {
                files::is_file(tree, path, Sum { digest: *sha256, size: *size }, self.access(*mode))
            }
            Entry::Link { target } => files::is_link(tree, path, target),
        }
    }

    fn apply(&self) -> Result<Vec<String>, HostError> {
        // 1. Read the whole archive into a staging directory below `dest`: on the same file system, so that each member is put in
        //    place by a rename, and before the first rename everything is unpacked and checked.
        let (archive, sha256) = self.open()?;
        let dest = &self.params.dest;
        let before = self.store.load(&self.task, dest);
        let is_missing = self.root.directory(dest, Missing::Leave)?.is_none();
        if is_missing {
            files::put_directory(&self.root, dest, self.access(0o755))?;
        }
        let (dir, real) = self.root.directory(dest, Missing::Create)?.ok_or(HostError::NoContent)?;
        let (limits, name) =
            (self.limits(), format!(".groundplan-{}.tmp", Digest::of(self.task.to_string().as_bytes()).short()));
        let staged =
            Staging::new(&dir, real.join(&name), &name, self.owner, Members::new(limits)).and_then(|mut staging| {
                staging.read(archive, self.params.format, &self.search)?;
                Ok(staging)
            });
        let made_dest = is_missing || before.as_ref().is_some_and(|before| before.made_dest);
        let mut staging = match staged {
            Ok(staging) => staging,
            Err(error) => {
                if is_missing {
                    // Nothing was unpacked, so the directory is not left behind either.
                    files::remove_directory(&self.root, dest)?;
                }
                return Err(error.into());
            }
        };
        // 2. Check that every member has a place, before any is put there: an obstacle must not leave half an archive.
        let (members, tree) = (staging.members(), Root::new(real));
        let mut now = Manifest { dest: dest.clone(), made_dest, from: None, members: BTreeMap::new() };
        for (path, member) in &members {
            let free = self
                .room(&tree, path, member)
                .map_err(|source| ArchiveError::InTheWay { member: path.clone(), source })?;
            // A directory that an earlier version of the task made is still the task's to remove.
            let was_made = before
                .as_ref()
                .is_some_and(|before| matches!(before.members.get(path), Some(Entry::Directory { made: true, .. })));
            now.members.insert(path.clone(), Entry::of(member, free || was_made));
        }
        // 3. Record the old and the new members together: if the agent is killed from here on, removal finds them all. Without
        //    `from`, the manifest counts as out of sync, so that the task is applied again.
        let mut all = now.clone();
        let old = before.map(|before| before.members).unwrap_or_default();
        for (path, entry) in &old {
            all.members.entry(path.clone()).or_insert_with(|| entry.clone());
        }
        self.store.save(&self.task, &all).map_err(ArchiveError::Manifest)?;
        // 4. Put the members in place, in the order of their paths: directories come before their content.
        for (path, member) in &members {
            let made = matches!(now.members[path], Entry::Directory { made: true, .. });
            self.put(&staging, &tree, path, member, made)
                .map_err(|source| ArchiveError::Place { member: path.clone(), source })?;
        }
        // 5. Remove what only the old archive had, make all durable, and only then record the archive as unpacked.
        let dropped = old.into_iter().filter(|(path, _)| !members.contains_key(path)).collect();
        let (_, left) = self.remove_members(&tree, &dropped)?;
        let synced = staged_fs(&staging.dir);
        synced.map_err(|source| ArchiveError::Stage { path: dest.clone(), source })?;
        now.from = Some(self.origin(sha256));
        self.store.save(&self.task, &now).map_err(ArchiveError::Manifest)?;
        Ok(left)
    }

    fn limits(&self) -> Limits {
        let Archive { strip_components, setuid, .. } = self.params;
        Limits { size: self.params.max_size(), strip: strip_components as usize, setuid }
    }

    /// Checks that nothing is in the way of a member; returns whether its place is free.
    fn room(&self, tree: &Root, path: &str, member: &Member) -> Result<bool, FileError> {
        let path = format!("/{path}");
        let in_the_way = |there| FileError::InTheWay { path: path.clone(), there };
        match (files::occupant(tree, &path)?, &member.what) {
            (None, _) => Ok(true),
            (Some(Occupant::File), What::Directory) => Err(in_the_way("something that is not a directory")),
            // A link to a directory below `dest` may stay.
            (Some(Occupant::Link), What::Directory) => match tree.directory(&path, Missing::Leave)? {
                Some(_) => Ok(false),
                None => Err(in_the_way("a link that leads nowhere")),
            },
            (Some(Occupant::Directory), What::File { .. } | What::Link { .. }) => Err(in_the_way("a directory")),
            _ => Ok(false),
        }
    }

    fn put(&self, staging: &Staging, tree: &Root, path: &str, member: &Member, made: bool) -> Result<(), FileError> {
        let path = format!("/{path}");
        let failed = |source: io::Error| FileError::Io { path: path.clone(), doing: "put it in place", source };
        let staged = match &member.what {
            What::Directory if made => return files::put_directory(tree, &path, self.access(member.mode)),
            What::Directory => return Ok(()),
            What::File { staged, .. } => staged.to_string(),
            What::Link { target } => {
                staging::symlink(staging, target, "link", self.owner).map_err(|e| failed(e.into()))?;
                "link".to_owned()
            }
        };
        let missing = || failed(io::ErrorKind::NotFound.into());
        let place = tree.place(&path, Missing::Leave)?.ok_or_else(missing)?;
        renameat(&staging.dir, staged.as_str(), &place.dir, place.name.as_os_str()).map_err(|e| failed(e.into()))
    }

    fn remove(&self) -> Result<(bool, Vec<String>), HostError> {
        let dest = &self.params.dest;
        let Some(manifest) = self.store.load(&self.task, dest) else { return Ok((false, Vec::new())) };
        let (mut removed, mut left) = (false, Vec::new());
        if let Some((_, real)) = self.root.directory(dest, Missing::Leave)? {
            (removed, left) = self.remove_members(&Root::new(real), &manifest.members)?;
            if manifest.made_dest && self.store.others(&self.task, dest).is_empty() {
                match files::remove_directory(&self.root, dest)? {
                    Removal::Left(why) => left.push(why),
                    Removal::Removed => removed = true,
                    Removal::NotThere => {}
                }
            }
        }
        self.store.forget(&self.task, dest).map_err(ArchiveError::Manifest)?;
        Ok((removed, left))
    }

    /// Removes what the task unpacked, the innermost first; whether anything was removed, and what was left in place.
    fn remove_members(&self, tree: &Root, entries: &BTreeMap<String, Entry>) -> Result<(bool, Vec<String>), HostError> {
        let others = if entries.is_empty() { Vec::new() } else { self.store.others(&self.task, &self.params.dest) };
        let (mut removed, mut left) = (false, Vec::new());
        for (path, entry) in
            entries.iter().rev().filter(|(path, _)| !others.iter().any(|o| o.members.contains_key(*path)))
        {
            let at = format!("/{path}");
            let removal = match entry {
                Entry::Directory { made: false, .. } => continue,
                Entry::Directory { .. } => files::remove_directory(tree, &at),
                Entry::File { .. } => files::remove_file(tree, &at, false),
                Entry::Link { .. } => files::remove_file(tree, &at, true),
            };
            match removal.map_err(|source| ArchiveError::Place { member: path.clone(), source })? {
                Removal::Removed => removed = true,
                Removal::NotThere => {}
                Removal::Left(why) => left.push(format!("in {}: {why}", self.params.dest)),
            }
        }
        Ok((removed, left))
    }
}

/// Notes how a member differs from what was unpacked.
fn note_difference(cx: &Context<'_>, tree: &Root, dest: &str, path: &str, entry: &Entry) {
    let at = format!("{dest}/{path}");
    let wanted = match entry {
        Entry::Directory { .. } => "directory",
        Entry::File { .. } => "file",
        Entry::Link { .. } => "a symbolic link",
    };
    match files::find(tree, &format!("/{path}"), matches!(entry, Entry::Directory { .. })) {
        Ok(None) => cx.differs(&at, Some("present"), None),
        Ok(Some(found)) if found.thing == wanted => {
            let wanted = match entry {
                Entry::File { mode, .. } | Entry::Directory { mode, .. } => Some(format!("{mode:04o}")),
                Entry::Link { .. } => None,
            };
            let mode = format!("{:04o}", found.access.mode.bits());
            match wanted.filter(|wanted| *wanted != mode) {
                Some(wanted) => cx.differs(&format!("{at}: mode"), Some(&wanted), Some(&mode)),
                None => cx.differs(&at, Some("as it was unpacked"), Some("changed")),
            }
        }
        Ok(Some(found)) => cx.differs(&at, Some(wanted), Some(found.thing)),
        Err(_) => cx.differs(&at, Some("as it was unpacked"), Some("something else")),
    }
}

/// Syncs the whole file system, which is cheaper than file by file.
fn staged_fs(dir: &OwnedFd) -> io::Result<()> {
    Ok(syncfs(dir)?)
}

/// Bytes as a file, so that there is one way to read archives.
fn memory(bytes: &[u8]) -> io::Result<File> {
    let mut file: File = memfd_create(c"archive", MFdFlags::MFD_CLOEXEC)?.into();
    file.write_all(bytes)?;
    file.rewind()?;
    Ok(file)
}
