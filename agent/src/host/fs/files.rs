//! Files, directories and links on the node: read, checked, written and removed.
//!
//! A file is written beside its place, synced, and renamed into it; any failure on the way, such as a full disk, leaves the old file
//! as it was and nothing else. The temporary name follows from the target's name, so that what a killed agent left is swept when
//! that target is next written or removed. The new file has the access control list, the label and the other extended attributes of
//! the one that it replaces. A directory is never removed with content; a pipe, a socket or a device is replaced only where that is
//! allowed. Every error names the path as the operator wrote it. Blocking: callers handle large content off the event loop.

use std::{
    fs::File,
    io::{self, Read, Write},
    path::{Path, PathBuf},
};

use groundplan_protocol::{
    blob::BlobRef,
    digest::{Digest, Hasher},
};
use nix::{
    errno::Errno,
    fcntl::{OFlag, openat, readlinkat, renameat},
    sys::{
        stat::{FileStat, Mode, SFlag, UtimensatFlags, fstat, mkdirat, utimensat},
        time::TimeSpec,
    },
    unistd::{UnlinkatFlags, symlinkat, unlinkat},
};

pub(crate) use super::{access::Access, error::FileError};
use super::{
    attributes::Attributes,
    entry::{
        DIRECTORY, READ, Sweep, directory_access, found_place, kind, make_place, open, special, stat, sweep, sync,
        temporary,
    },
    error::{failed, io_failed},
    paths::{Missing, PathError, Place, Root, controls, path_of},
    text, xattrs,
};
use crate::host::job::Content;

/// Digest and length, in bytes, of a file's content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Sum {
    pub(crate) digest: Digest,
    pub(crate) size: u64,
}

/// A file's text, with its owner, group and mode.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Text {
    /// In whatever encoding: [`write_text`] writes back the bytes that were read.
    pub(crate) text: String,
    pub(crate) access: Access,
}

/// What was found at a path.
#[derive(Debug)]
pub(crate) struct Found {
    /// What it is, for people: `file`, `directory` or something else.
    pub(crate) thing: &'static str,
    pub(crate) access: Access,
}

/// What is at a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Occupant {
    Directory,
    Link,
    File,
    /// A pipe, a socket or a device.
    Special,
}

/// What a new file may take the place of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Replace {
    /// A file or a link.
    Files,
    /// Also a pipe, a socket or a device.
    Special,
}

impl Replace {
    /// By the parameter `force`.
    pub(crate) fn by_force(force: bool) -> Self {
        if force { Self::Special } else { Self::Files }
    }
}

/// What was found at a path that was to be removed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Removal {
    Removed,
    NotThere,
    /// It was left in place, with the reason.
    Left(String),
}

impl From<Sum> for BlobRef {
    fn from(Sum { digest, size }: Sum) -> Self {
        Self { sha256: digest, size }
    }
}

impl Sum {
    pub(crate) fn of_bytes(bytes: &[u8]) -> Self {
        Self { digest: Digest::of(bytes), size: bytes.len() as u64 }
    }

    /// Of all bytes that `reader` gives.
    pub(crate) fn of(mut reader: impl Read) -> io::Result<Self> {
        let (mut hasher, mut size, mut buffer) = (Hasher::new(), 0, vec![0; 64 * 1024]);
        loop {
            let n = match reader.read(&mut buffer) {
                Ok(0) => return Ok(Self { digest: hasher.finish(), size }),
                Ok(n) => n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(e) => return Err(e),
            };
            hasher.update(&buffer[..n]);
            size += n as u64;
        }
    }
}

/// Up to `most` bytes of the file at `path`; `None` if there is nothing. Links are followed below the root.
pub(crate) fn read_file(root: &Root, path: &str, most: u64) -> Result<Option<Vec<u8>>, FileError> {
    let (mut at, mut user) = (path.to_owned(), None);
    for _ in 0..MOST_LINKS {
        let Some(place) = root.place(&at, Missing::Leave)? else { return Ok(None) };
        let Some(stat) = stat(&place, path)? else { return Ok(None) };
        match kind(&stat) {
            SFlag::S_IFREG => {
                let file = openat(&place.dir, place.name.as_os_str(), READ, Mode::empty());
                let file = File::from(file.map_err(failed(path, "open it"))?);
                let owner = fstat(&file).map_err(failed(path, "read its metadata"))?.st_uid;
                if user.is_some_and(|user| user != owner) {
                    return Err(failed(path, "follow a user's link to a file that is not theirs")(Errno::EPERM));
                }
                let mut bytes = Vec::new();
                file.take(most).read_to_end(&mut bytes).map_err(io_failed(path, "read it"))?;
                return Ok(Some(bytes));
            }
            SFlag::S_IFLNK => {
                let target = readlinkat(&place.dir, place.name.as_os_str()).map_err(failed(path, "follow it"))?;
                let dir = fstat(&place.dir).map_err(failed(path, "follow it"))?.st_uid;
                // Of two users, what both lead to can be of neither.
                user = controls(dir, stat.st_uid, user).unwrap_or(Some(u32::MAX));
                let directory = at.rsplit_once('/').map_or("", |(directory, _)| directory);
                let directory = if directory.is_empty() { "/" } else { directory };
                // Through the root again, which refuses a target outside of it.
                let next = Path::new(directory).join(target);
                at = next.into_os_string().into_string().map_err(|_| failed(path, "follow it")(Errno::EILSEQ))?;
            }
            _ => return Err(failed(path, "read it, because it is not a regular file")(Errno::EINVAL)),
        }
    }
    Err(failed(path, "follow it")(Errno::ELOOP))
}

/// What is at `path`: with `follow`, a link to a directory counts as a directory; any other link as a link.
pub(crate) fn find(root: &Root, path: &str, follow: bool) -> Result<Option<Found>, FileError> {
    let Some(place) = root.place(path, Missing::Leave)? else { return Ok(None) };
    let Some(stat) = stat(&place, path)? else { return Ok(None) };
    let thing = match kind(&stat) {
        SFlag::S_IFREG => "file",
        SFlag::S_IFDIR => "directory",
        SFlag::S_IFLNK => match root.directory(path, Missing::Leave) {
            Ok(Some((dir, _))) if follow => {
                return Ok(Some(Found { thing: "directory", access: directory_access(path, &dir)? }));
            }
            _ => "a symbolic link",
        },
        _ => "neither file nor directory",
    };
    let access = match kind(&stat) {
        SFlag::S_IFREG | SFlag::S_IFDIR => match open(&place, path)? {
            Some(file) => Access::of(path, &file)?,
            None => Access::of_stat(&stat),
        },
        _ => Access::of_stat(&stat),
    };
    Ok(Some(Found { thing, access }))
}

/// Digest and length of an open file, and its bytes, if they are at most `most`.
pub(crate) fn read_sum(path: &str, mut file: File, most: usize) -> Result<(Sum, Option<Vec<u8>>), FileError> {
    let failed = io_failed(path, "read it");
    // One byte more shows whether there is more; a large file is hashed without being held in memory.
    let mut bytes = Vec::new();
    (&mut file).take(most as u64 + 1).read_to_end(&mut bytes).map_err(&failed)?;
    if bytes.len() <= most {
        return Ok((Sum::of_bytes(&bytes), Some(bytes)));
    }
    Ok((Sum::of(bytes.as_slice().chain(file)).map_err(&failed)?, None))
}

/// Whether `path` is a file with that content and access.
pub(crate) fn is_file(root: &Root, path: &str, sum: Sum, access: Access) -> Result<bool, FileError> {
    let Some(place) = root.place(path, Missing::Leave)? else { return Ok(false) };
    let Some(stat) = stat(&place, path)? else { return Ok(false) };
    // Most differences show in the size, without reading the file.
    if kind(&stat) != SFlag::S_IFREG || u64::try_from(stat.st_size) != Ok(sum.size) {
        return Ok(false);
    }
    let Some(file) = open(&place, path)? else { return Ok(false) };
    Ok(Access::of(path, &file)? == access && Sum::of(file).map_err(io_failed(path, "read it"))? == sum)
}

/// Whether `path` is a file with that content, whatever its access.
pub(crate) fn has_content(root: &Root, path: &str, sum: Sum) -> Result<bool, FileError> {
    let Some(place) = root.place(path, Missing::Leave)? else { return Ok(false) };
    let Some(stat) = stat(&place, path)? else { return Ok(false) };
    Ok(kind(&stat) == SFlag::S_IFREG && holds(&place, path, &stat, sum)?)
}

/// The SELinux label of what is at `path`, be it a link; `None` if there is nothing, or it has none.
pub(crate) fn label(root: &Root, path: &str) -> Result<Option<String>, FileError> {
    let Some(place) = root.place(path, Missing::Leave)? else { return Ok(None) };
    match xattrs::label(&path_of(&place.dir).join(&place.name)) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        result => result.map_err(io_failed(path, "read its label")),
    }
}

/// Makes `path` a file with that content and access, atomically. A pipe, a socket or a device is not replaced.
pub(crate) fn put_file(root: &Root, path: &str, content: &Content, sum: Sum, access: Access) -> Result<(), FileError> {
    replace(root, path, content, sum, access, Replace::Files)
}

/// Makes `path` a file with that content and access, atomically, in place of what `over` allows.
pub(crate) fn replace(
    root: &Root,
    path: &str,
    content: &Content,
    sum: Sum,
    access: Access,
    over: Replace,
) -> Result<(), FileError> {
    match stage_file(root, path, content, sum, access, over)? {
        Some(staged) => staged.put(),
        None => Ok(()),
    }
}

/// A file beside its place, written and synced, with its owner and mode. Dropped, it is removed.
#[derive(Debug)]
pub(crate) struct Staged {
    place: Place,
    /// The file itself: whoever has the directory may have put another one at its name.
    file: File,
    path: String,
    done: bool,
}

impl Staged {
    /// Its path until it is put in place.
    pub(crate) fn path(&self) -> PathBuf {
        self.place.real.with_file_name(temporary(&self.place.name))
    }

    /// The open file, for its attributes.
    pub(crate) fn file(&self) -> &File {
        &self.file
    }

    /// Renames it to its place.
    pub(crate) fn put(mut self) -> Result<(), FileError> {
        let place = &self.place;
        renameat(&place.dir, temporary(&place.name).as_os_str(), &place.dir, place.name.as_os_str())
            .map_err(failed(&self.path, "put it in place"))?;
        self.done = true;
        sync(&self.place, &self.path)
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        if !self.done {
            sweep(&self.place);
        }
    }
}

/// Writes the new content of `path` beside it; `None` if the file has that content already, and then has the access as well.
pub(crate) fn stage_file(
    root: &Root,
    path: &str,
    content: &Content,
    sum: Sum,
    access: Access,
    over: Replace,
) -> Result<Option<Staged>, FileError> {
    let place = make_place(root, path)?;
    // The temporary name is derived from the file's, so a killed agent's leftover is found and does not block this write.
    sweep(&place);
    let mut before = None;
    match stat(&place, path)?.map(|stat| (kind(&stat), stat)) {
        None | Some((SFlag::S_IFLNK, _)) => {}
        // Replacing a directory would delete all files in it.
        Some((SFlag::S_IFDIR, _)) => return Err(in_the_way(path, "a directory")),
        Some((SFlag::S_IFREG, stat)) => {
            before = open(&place, path)?;
            // Not rewritten: a new inode would be a change for programs that watch the file.
            if let Some(file) = &before
                && holds(&place, path, &stat, sum)?
                && (!is_shared(&place, file).map_err(failed(path, "read its metadata"))?
                    || Access::of(path, file)? == access)
            {
                access.give(path, file)?;
                return Ok(None);
            }
        }
        Some((kind, _)) if over == Replace::Files => {
            return Err(FileError::NeedsForce { path: path.to_owned(), there: special(kind) });
        }
        Some(_) => {}
    }
    let flags = OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_WRONLY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    // Private until owner and mode are set: no other user may open it in between.
    let mode = Mode::from_bits_truncate(0o600);
    let file =
        openat(&place.dir, temporary(&place.name).as_os_str(), flags, mode).map_err(failed(path, "create it"))?;
    let mut staged = Staged { place, file: file.into(), path: path.to_owned(), done: false };
    write(&mut staged.file, content).map_err(io_failed(path, "write it"))?;
    match before {
        Some(before) => inherit(path, &before, &staged.file, content, access)?,
        None => access.give_new(path, &staged.file)?,
    }
    // Before the rename: after a power loss the name must not lead to an empty file.
    staged.file.sync_all().map_err(io_failed(path, "write it"))?;
    Ok(Some(staged))
}

/// Whether the file may be one from elsewhere, to which a user who has the directory has given a second name there.
fn is_shared(place: &Place, file: &File) -> nix::Result<bool> {
    Ok(fstat(file)?.st_nlink > 1 && controls(fstat(&place.dir)?.st_uid, 0, None) != Ok(None))
}

/// Sets the access of a file that takes the place of `before`, and the extended attributes of that.
fn inherit(path: &str, before: &File, file: &File, content: &Content, access: Access) -> Result<(), FileError> {
    let is_program = is_program(content).map_err(io_failed(path, "read the new content"))?;
    let attributes = Attributes::of(before, is_program).map_err(io_failed(path, "read its extended attributes"))?;
    // A change of owner clears capabilities, so it comes first. The access control list comes before the mode, whose bits for the
    // group would else be rights of the group until then.
    access.own(path, file)?;
    attributes.give(file).map_err(io_failed(path, "keep its extended attributes"))?;
    access.give(path, file)
}

/// Whether it is a program in the sense of execve(2), to which capabilities apply.
fn is_program(content: &Content) -> io::Result<bool> {
    const ELF: &[u8] = b"\x7fELF";
    match content {
        Content::Bytes(bytes) => Ok(bytes.starts_with(ELF)),
        Content::File(path) => {
            let mut head = Vec::new();
            File::open(path)?.take(ELF.len() as u64).read_to_end(&mut head)?;
            Ok(head == ELF)
        }
    }
}

/// Opens the regular file at `path`; `None` if it is missing.
pub(crate) fn open_file(root: &Root, path: &str) -> Result<Option<File>, FileError> {
    let Some(place) = root.place(path, Missing::Leave)? else { return Ok(None) };
    let file = match openat(&place.dir, place.name.as_os_str(), READ, Mode::empty()) {
        Ok(file) => File::from(file),
        Err(Errno::ENOENT) => return Ok(None),
        Err(Errno::ELOOP) => {
            let target = readlinkat(&place.dir, place.name.as_os_str()).map_err(failed(path, "read the link"))?;
            return Err(FileError::Link { path: path.to_owned(), target: target.to_string_lossy().into_owned() });
        }
        Err(e) => return Err(failed(path, "open it")(e)),
    };
    let stat = fstat(&file).map_err(failed(path, "read its metadata"))?;
    if kind(&stat) == SFlag::S_IFREG { Ok(Some(file)) } else { Err(FileError::NoFile { path: path.to_owned() }) }
}

/// Reads the file at `path`, of at most `most` bytes; `None` if it is missing.
pub(crate) fn read_text(root: &Root, path: &str, most: u64) -> Result<Option<Text>, FileError> {
    let Some(mut file) = open_file(root, path)? else { return Ok(None) };
    let mut bytes = Vec::new();
    (&mut file).take(most + 1).read_to_end(&mut bytes).map_err(io_failed(path, "read it"))?;
    if bytes.len() as u64 > most {
        return Err(FileError::NoText { path: path.to_owned(), what: format!("has more than {} KiB", most >> 10) });
    }
    Ok(Some(Text { text: text::text(&bytes), access: Access::of(path, &file)? }))
}

/// Makes `path` a file with that text and access; a text that [`read_text`] returned becomes the bytes that were read.
pub(crate) fn write_text(root: &Root, path: &str, text: &str, access: Access) -> Result<(), FileError> {
    let bytes = text::bytes(text);
    let sum = Sum::of_bytes(&bytes);
    put_file(root, path, &Content::Bytes(bytes), sum, access)
}

/// What is at `path`; `None` if nothing is.
pub(crate) fn occupant(root: &Root, path: &str) -> Result<Option<Occupant>, FileError> {
    let Some(place) = root.place(path, Missing::Leave)? else { return Ok(None) };
    Ok(stat(&place, path)?.map(|stat| match kind(&stat) {
        SFlag::S_IFDIR => Occupant::Directory,
        SFlag::S_IFLNK => Occupant::Link,
        SFlag::S_IFREG => Occupant::File,
        _ => Occupant::Special,
    }))
}

/// When the file or directory at `path` was last changed, in seconds since the Unix epoch; `None` if there is none.
pub(crate) fn changed_at(root: &Root, path: &str) -> Result<Option<i64>, FileError> {
    let Some(place) = root.place(path, Missing::Leave)? else { return Ok(None) };
    Ok(stat(&place, path)?.map(|stat| stat.st_mtime))
}

/// Sets when the file or directory at `path` was last changed, in seconds since the Unix epoch.
pub(crate) fn set_changed_at(root: &Root, path: &str, seconds: i64) -> Result<(), FileError> {
    let Some(place) = root.place(path, Missing::Leave)? else { return Ok(()) };
    let (kept, changed) = (TimeSpec::UTIME_OMIT, TimeSpec::new(seconds, 0));
    utimensat(&place.dir, place.name.as_os_str(), &kept, &changed, UtimensatFlags::NoFollowSymlink)
        .map_err(failed(path, "set its time"))
}

/// Whether `path` is a directory with that access.
pub(crate) fn is_directory(root: &Root, path: &str, access: Access) -> Result<bool, FileError> {
    let Some((dir, _)) = root.directory(path, Missing::Leave)? else { return Ok(false) };
    Ok(directory_access(path, &dir)? == access)
}

/// Makes `path` a directory with that access.
pub(crate) fn put_directory(root: &Root, path: &str, access: Access) -> Result<(), FileError> {
    let place = make_place(root, path)?;
    // Private until owner and mode are set.
    let is_new = match mkdirat(&place.dir, place.name.as_os_str(), Mode::from_bits_truncate(0o700)) {
        Ok(()) => sync(&place, path).map(|()| true)?,
        Err(Errno::EEXIST) => false,
        Err(e) => return Err(failed(path, "create the directory")(e)),
    };
    // A link to a directory counts as a directory.
    let dir = match root.directory(path, Missing::Leave) {
        Ok(Some((dir, _))) => dir,
        Err(PathError::NotADirectory { .. }) => return Err(in_the_way(path, "something that is not a directory")),
        Ok(None) => return Err(in_the_way(path, "a link that leads nowhere")),
        Err(e) => return Err(e.into()),
    };
    // The handle was opened with O_PATH: through it nothing can be changed.
    let dir = File::from(openat(&dir, ".", DIRECTORY, Mode::empty()).map_err(failed(path, "open the directory"))?);
    if is_new { access.give_new(path, &dir) } else { access.give(path, &dir) }
}

/// Whether `path` is a symbolic link to `target`.
pub(crate) fn is_link(root: &Root, path: &str, target: &str) -> Result<bool, FileError> {
    Ok(link_target(root, path)?.is_some_and(|found| found == target))
}

/// The target of the symbolic link at `path`; `None` if there is none.
pub(crate) fn link_target(root: &Root, path: &str) -> Result<Option<String>, FileError> {
    let Some(place) = root.place(path, Missing::Leave)? else { return Ok(None) };
    match readlinkat(&place.dir, place.name.as_os_str()) {
        Ok(found) => Ok(Some(found.to_string_lossy().into_owned())),
        Err(Errno::ENOENT | Errno::EINVAL) => Ok(None),
        Err(e) => Err(failed(path, "read the link")(e)),
    }
}

/// Makes `path` a symbolic link to `target`.
pub(crate) fn put_link(root: &Root, path: &str, target: &str) -> Result<(), FileError> {
    let place = make_place(root, path)?;
    sweep(&place);
    if stat(&place, path)?.is_some_and(|stat| kind(&stat) == SFlag::S_IFDIR) {
        return Err(in_the_way(path, "a directory"));
    }
    let temporary = temporary(&place.name);
    let swept = Sweep::new(&place);
    symlinkat(target, &place.dir, temporary.as_os_str()).map_err(failed(path, "create the link"))?;
    renameat(&place.dir, temporary.as_os_str(), &place.dir, place.name.as_os_str())
        .map_err(failed(path, "put the link in place"))?;
    swept.done();
    sync(&place, path)
}

/// Removes the file or link at `path`; with `link_only`, only a link.
pub(crate) fn remove_file(root: &Root, path: &str, link_only: bool) -> Result<Removal, FileError> {
    let Some(place) = found_place(root, path)? else { return Ok(Removal::NotThere) };
    sweep(&place);
    let Some(stat) = stat(&place, path)? else { return Ok(Removal::NotThere) };
    match kind(&stat) {
        SFlag::S_IFDIR => return Ok(Removal::Left(format!("{path} is a directory now: left in place"))),
        SFlag::S_IFLNK => {}
        _ if link_only => return Ok(Removal::Left(format!("{path} is not a link any more: left in place"))),
        _ => {}
    }
    match unlinkat(&place.dir, place.name.as_os_str(), UnlinkatFlags::NoRemoveDir) {
        Ok(()) => sync(&place, path).map(|()| Removal::Removed),
        Err(Errno::ENOENT) => Ok(Removal::NotThere),
        Err(e) => Err(failed(path, "remove it")(e)),
    }
}

/// Removes the directory at `path` if it is empty.
pub(crate) fn remove_directory(root: &Root, path: &str) -> Result<Removal, FileError> {
    let Some(place) = found_place(root, path)? else { return Ok(Removal::NotThere) };
    match unlinkat(&place.dir, place.name.as_os_str(), UnlinkatFlags::RemoveDir) {
        Ok(()) => sync(&place, path).map(|()| Removal::Removed),
        Err(Errno::ENOENT) => Ok(Removal::NotThere),
        Err(Errno::ENOTEMPTY | Errno::EEXIST) => Ok(Removal::Left(format!("{path} is not empty: left in place"))),
        Err(Errno::EBUSY) => Ok(Removal::Left(format!("{path} is in use, as a mount point is: left in place"))),
        Err(Errno::ENOTDIR) => Ok(Removal::Left(format!("{path} is not a directory any more: left in place"))),
        Err(e) => Err(failed(path, "remove the directory")(e)),
    }
}

/// Most links that are followed from one file to the next.
const MOST_LINKS: usize = 16;

/// Whether the file at `place` has that content. One that may not be read counts as different.
fn holds(place: &Place, path: &str, stat: &FileStat, sum: Sum) -> Result<bool, FileError> {
    // Most differences show in the size, without reading the file.
    if u64::try_from(stat.st_size) != Ok(sum.size) {
        return Ok(false);
    }
    let Some(file) = open(place, path)? else { return Ok(false) };
    Ok(Sum::of(file).map_err(io_failed(path, "read it"))? == sum)
}

fn write(file: &mut File, content: &Content) -> io::Result<()> {
    match content {
        Content::Bytes(bytes) => file.write_all(bytes),
        Content::File(path) => io::copy(&mut File::open(path)?, file).map(drop),
    }
}

fn in_the_way(path: &str, there: &'static str) -> FileError {
    FileError::InTheWay { path: path.to_owned(), there }
}
