//! `archive`: the members of a tar or zip archive in a directory: all of it or nothing.
//!
//! The archive is read completely into a staging directory, where each member is checked and files have numbers as names; only
//! then each is renamed to its place below `dest`, and none can leave it. A manifest in the state directory lists what was put
//! there: an update removes members that the archive no longer has, and removal all of them, except those that were changed since,
//! and those that another archive has put there, too. What a member takes the place of is noted first, and comes back when it goes.
//! Paths that other tasks claim are left to them. Devices, set-user-id files and more bytes than allowed are refused with the
//! member's name.

mod error;
mod job;
mod manifest;
mod members;
mod place;
mod replaced;
mod staging;

use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, Seek, Write},
    os::fd::OwnedFd,
};

use groundplan_protocol::{digest::Digest, kinds::Archive};
use nix::{
    fcntl::renameat,
    sys::{
        memfd::{MFdFlags, memfd_create},
        stat::Mode,
    },
    unistd::syncfs,
};

use self::{
    error::ArchiveError,
    job::Job,
    manifest::{Entry, Manifest, Origin, Put, Store},
    members::{Limits, Member, Members, What},
    place::Room,
    replaced::Notes,
    staging::Staging,
};
use super::{
    context::Context,
    kind::{Applied, Check, Kind, blocking},
};
use crate::host::{
    error::HostError,
    fs::{
        files::{self, Access, FileError, Removal, Sum},
        paths::{Missing, Root},
    },
    job::Content,
};

/// The directory that an archive was unpacked into, and the members that differ.
type Differing = (Root, BTreeMap<String, Entry>);

impl Kind for Archive {
    async fn check(&self, cx: &Context<'_>) -> Result<Check, HostError> {
        let job = Job { from: cx.others.to_vec(), ..Job::new(self, cx)? };
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
        let job = Job { from: cx.others.to_vec(), ..Job::new(self, cx)? };
        carry_out(job, false, cx).await?;
        Ok(Applied { afresh: false })
    }

    async fn remove(&self, cx: &Context<'_>) -> Result<bool, HostError> {
        // What it took over from tasks that are about to go as well is its own to remove: their manifests are of what was there before.
        let job = Job { from: cx.yielding.to_vec(), ..Job::new(self, cx)? };
        // A task that is to take it over, and has not been carried out yet, finds there what this one has unpacked, and it stays.
        if let Some(params) = cx.params {
            for heir in cx.host.claims.heirs(params, cx.task, cx.others) {
                let from = [cx.task.clone()];
                job.store.take_over(&heir, &from, &self.dest).map_err(ArchiveError::Manifest)?;
            }
        }
        carry_out(job, true, cx).await
    }

    fn given_up(&self, cx: &Context<'_>) {
        // Also where all was left in place: to others, its manifest would say that a task still has it.
        let store = Store::new(&cx.host.state_dir);
        if let Err(error) = store.forget(cx.task, &self.dest) {
            cx.report(&format!("the manifest of {} cannot be removed: {error}", self.dest));
        }
        let mut notes = Notes::new();
        replaced::drop_unused(&cx.host.found, &store, &self.dest, &mut notes);
        keep_notes(cx, notes);
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
            found: cx.host.found.clone(),
            on_remove: cx.on_remove,
            search: search.unwrap_or_default().to_owned(),
            from: Vec::new(),
            claimed: cx.host.claims.below(&params.dest, cx.task),
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
        let Some(dest) = self.root.directory(&self.params.dest, Missing::Leave)? else { return Ok(false) };
        let (_, sha256) = self.open()?;
        let tree = Root::held(dest);
        let mut members = manifest.members.iter().chain(&manifest.spared);
        Ok(manifest.from == Some(self.origin(sha256)) && members.all(|(path, entry)| self.is_right(&tree, path, entry)))
    }

    /// The members that are not as they were unpacked. The archive itself is not needed and may be missing. `None` if no manifest
    /// shows what was unpacked, or its directory is missing.
    fn differences(&self) -> Result<Option<Differing>, HostError> {
        let Some(dest) = self.root.directory(&self.params.dest, Missing::Leave)? else { return Ok(None) };
        let tree = Root::held(dest);
        let Some(mut manifest) = self.store.load(&self.task, &self.params.dest) else {
            let in_sync = self.params.creates.as_ref().map_or(Ok(false), |path| self.root.exists(path))?;
            return Ok(in_sync.then(|| (tree, BTreeMap::new())));
        };
        manifest.members.append(&mut manifest.spared);
        manifest.members.retain(|path, entry| !self.is_right(&tree, path, entry));
        Ok(manifest.from.is_some().then_some((tree, manifest.members)))
    }

    /// Whether there is nothing to do about a member. An error counts as a difference: applying reports it.
    fn is_right(&self, tree: &Root, path: &str, entry: &Entry) -> bool {
        self.claimant(path).is_some() || self.is_in_sync(tree, &format!("/{path}"), entry).unwrap_or(false)
    }

    /// Whether a member is as it was unpacked.
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

    fn apply(&self, notes: &mut Notes) -> Result<Vec<String>, HostError> {
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
        let (mut members, tree) = (staging.members(), Root::held((dir, real)));
        let put = before.as_ref().map(Manifest::put).unwrap_or_default();
        let (mut now, obstacles, mut left, taken) = self.plan(&tree, &mut members, &put)?;
        now.made_dest = made_dest;
        // 3. Note what members are about to replace: from here on it can be brought back, whatever happens.
        self.note_replaced(&tree, &taken, notes)?;
        for (path, entries) in put.iter().filter(|(path, _)| now.spared.contains_key(*path)) {
            self.hand_on(path, entries, notes)?;
        }
        // 4. Record the old and the new members together: if the agent is killed from here on, removal finds them all. Without
        //    `from`, the manifest counts as out of sync, so that the task is applied again.
        self.store.save(&self.task, &now.with(&put)).map_err(ArchiveError::Manifest)?;
        // 5. Put the members in place, in the order of their paths: directories come before their content. What the task put where
        //    something of another type is to be now goes first.
        self.remove_members(&tree, &obstacles, None)?;
        for (path, member) in &members {
            let made = matches!(now.members[path], Entry::Directory { made: true, .. });
            self.put(&staging, &tree, path, member, made)
                .map_err(|source| ArchiveError::Place { member: path.clone(), source: Box::new(source.into()) })?;
        }
        // 6. Remove what only the old archive had, make all durable, and only then record the archive as unpacked.
        let is_kept = |path: &String| now.members.contains_key(path) || now.spared.contains_key(path);
        let dropped = put.into_iter().filter(|(path, _)| !is_kept(path)).collect();
        left.extend(self.remove_members(&tree, &dropped, Some(notes))?.1);
        let synced = staged_fs(&staging.dir);
        synced.map_err(|source| ArchiveError::Stage { path: dest.clone(), source })?;
        now.from = Some(self.origin(sha256));
        self.store.save(&self.task, &now).map_err(ArchiveError::Manifest)?;
        replaced::drop_unused(&self.found, &self.store, dest, notes);
        Ok(left)
    }

    /// Finds a place for each member; those whose paths other tasks claim are taken out of `members`. Returns the new manifest,
    /// what the task itself put in the way, the reports on what is left to others, and where files and links are that no archive has
    /// put there.
    fn plan(
        &self,
        tree: &Root,
        members: &mut BTreeMap<String, Member>,
        put: &Put,
    ) -> Result<(Manifest, Put, Vec<String>, Vec<String>), HostError> {
        let dest = &self.params.dest;
        let mut now = Manifest::new(dest);
        let (mut obstacles, mut own, mut left, mut taken) = (Put::new(), Vec::new(), Vec::new(), Vec::new());
        let others = self.unpacked_by_others();
        for (path, member) in &*members {
            // Below what is removed first, whatever a link there leads to, nothing is.
            let is_below = |one: &String| path.strip_prefix(one.as_str()).is_some_and(|rest| rest.starts_with('/'));
            let room = match own.iter().any(is_below) {
                true => Room::Free,
                false => self.room(tree, path, member, put, &others)?,
            };
            match (self.claimant(path), room) {
                (Some(other), Room::Taken) => {
                    left.push(format!("in {dest}: /{path} belongs to {other}: left to it"));
                    now.spared.insert(path.clone(), Entry::of(member, false));
                    continue;
                }
                (_, Room::Own) => {
                    obstacles.extend(place::below(put, path));
                    own.push(path.clone());
                }
                // A directory stays as it is; and what this task or another archive has put there was not there before.
                (_, Room::Taken)
                    if member.what != What::Directory
                        && !put.contains_key(path)
                        && !others.contains(&self.absolute(path)) =>
                {
                    taken.push(path.clone());
                }
                _ => {}
            }
            // A directory that an earlier version of the task made is still the task's to remove.
            let is_own = |entry: &Entry| matches!(entry, Entry::Directory { made: true, .. });
            let was_made = put.get(path).is_some_and(|entries| entries.iter().any(is_own));
            now.members.insert(path.clone(), Entry::of(member, room != Room::Taken || was_made));
        }
        members.retain(|path, _| now.members.contains_key(path));
        Ok((now, obstacles, left, taken))
    }

    fn limits(&self) -> Limits {
        let Archive { strip_components, setuid, .. } = self.params;
        Limits { size: self.params.max_size(), strip: strip_components as usize, setuid }
    }

    fn put(&self, staging: &Staging, tree: &Root, path: &str, member: &Member, made: bool) -> Result<(), FileError> {
        let path = format!("/{path}");
        let failed = |source: io::Error| FileError::Io { path: path.clone(), doing: "put it in place", source };
        let staged = match &member.what {
            What::Directory if made => return files::put_directory(tree, &path, self.access(member.mode)),
            What::Directory => return Ok(()),
            What::File { staged, .. } => staged.to_string(),
            What::Link { target } => {
                staging::symlink(staging, target, staging::LINK, self.owner).map_err(|e| failed(e.into()))?;
                staging::LINK.to_owned()
            }
        };
        let missing = || failed(io::ErrorKind::NotFound.into());
        let place = tree.place(&path, Missing::Leave)?.ok_or_else(missing)?;
        renameat(&staging.dir, staged.as_str(), &place.dir, place.name.as_os_str()).map_err(|e| failed(e.into()))
    }

    fn remove(&self, notes: &mut Notes) -> Result<(bool, Vec<String>), HostError> {
        let dest = &self.params.dest;
        let Some(manifest) = self.store.load(&self.task, dest) else { return Ok((false, Vec::new())) };
        let (mut removed, mut left) = (false, Vec::new());
        if let Some(found) = self.root.directory(dest, Missing::Leave)? {
            (removed, left) = self.remove_members(&Root::held(found), &manifest.put(), Some(notes))?;
            let others = self.store.others(&self.task, &self.from, dest);
            if manifest.made_dest && !others.iter().any(|other| other.dest == *dest) {
                match files::remove_directory(&self.root, dest)? {
                    Removal::Left(why) => left.push(why),
                    Removal::Removed => removed = true,
                    Removal::NotThere => {}
                }
            }
        }
        self.store.pass_on(&self.task, &self.from, &manifest).map_err(ArchiveError::Manifest)?;
        self.store.forget(&self.task, dest).map_err(ArchiveError::Manifest)?;
        Ok((removed, left))
    }
}

/// Unpacks the archive, or removes what was unpacked; whether anything was changed. One function for both: work on another thread is
/// code of its own for each.
async fn carry_out(job: Job, removes: bool, cx: &Context<'_>) -> Result<bool, HostError> {
    let work = move || {
        let mut notes = Notes::new();
        let done = if removes { job.remove(&mut notes) } else { job.apply(&mut notes).map(|left| (true, left)) };
        (done, notes)
    };
    let (done, notes) = blocking(work).await?;
    // Also after a failure: what is noted is not found again.
    keep_notes(cx, notes);
    let (changed, left) = done?;
    left.iter().for_each(|line| cx.report(line));
    Ok(changed)
}

/// Has the ledger keep what was found, or drop it.
fn keep_notes(cx: &Context<'_>, notes: Notes) {
    notes.into_iter().for_each(|(key, found)| cx.keep_note(key, found));
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
