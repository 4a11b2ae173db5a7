//! Files, directories and links on the node: read, checked, written and removed.
//!
//! A file is written beside its place, synced, and renamed into it; any failure on the way, such as a full disk, leaves the old file
//! as it was and nothing else. The temporary name follows from the target's name, so that what a killed agent left is swept when
//! that target is next written or removed. A directory is never removed with content. Every error names the path as the operator
//! wrote it. Blocking: callers handle large content off the event loop.

use std::{
    ffi::{OsStr, OsString},
    fs::File,
    io::{self, Read, Write},
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
};

use groundplan_protocol::{
    blob::BlobRef,
    digest::{Digest, Hasher},
};
use nix::{
    errno::Errno,
    fcntl::{AtFlags, OFlag, openat, readlinkat, renameat},
    sys::{
        stat::{
            FchmodatFlags, FileStat, Mode, SFlag, UtimensatFlags, fchmod, fchmodat, fstat, fstatat, mkdirat, utimensat,
        },
        time::TimeSpec,
    },
    unistd::{Gid, Uid, UnlinkatFlags, fchown, fchownat, symlinkat, unlinkat},
};

use super::{
    paths::{Missing, PathError, Place, Root},
    users::{self, UserError},
};
use crate::host::job::Content;

/// Why a file, directory or link could not be read, written or removed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FileError {
    #[error(transparent)]
    Path(#[from] PathError),
    #[error("{path}")]
    Owner { path: String, source: UserError },
    #[error("{path}: cannot {doing}")]
    Io { path: String, doing: &'static str, source: io::Error },
    #[error("{path} is a symbolic link to {target}, and links are not followed here; name the file itself")]
    Link { path: String, target: String },
    #[error("{path}: its content is missing; it has not been fetched")]
    NoContent { path: String },
    #[error("{path} is not a regular file")]
    NoFile { path: String },
    #[error("{path}: {what}; such a file is not edited")]
    NoText { path: String, what: String },
    #[error("{path}: {there} is in the way; it is not replaced, because its content may exist nowhere else")]
    InTheWay { path: String, there: &'static str },
}

impl FileError {
    /// Whether what was to be written is in place although this failed.
    pub(crate) fn is_after_change(&self) -> bool {
        matches!(self, Self::Io { doing: SYNC | OPEN_DIRECTORY, .. })
    }
}

/// What fails after a name was put in place.
const SYNC: &str = "sync its directory";
const OPEN_DIRECTORY: &str = "open its directory";

/// Owner, group and mode of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Access {
    pub(crate) uid: Uid,
    pub(crate) gid: Gid,
    pub(crate) mode: Mode,
}

/// Digest and length, in bytes, of a file's content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Sum {
    pub(crate) digest: Digest,
    pub(crate) size: u64,
}

/// A file's text, with its owner, group and mode.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Text {
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
}

/// What was found at a path that was to be removed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Removal {
    Removed,
    NotThere,
    /// It was left in place, with the reason.
    Left(String),
}

impl Access {
    /// From parameters: the agent's own user and group where none is given, and `default` where no mode is given.
    pub(crate) fn new(
        path: &str,
        owner: Option<&str>,
        group: Option<&str>,
        mode: Option<&str>,
        default: u32,
    ) -> Result<Self, FileError> {
        let failed = |source| FileError::Owner { path: path.to_owned(), source };
        let mode = mode.and_then(groundplan_protocol::kinds::parse_mode).unwrap_or(default);
        Ok(Self {
            uid: owner.map_or_else(|| Ok(Uid::effective()), users::uid).map_err(failed)?,
            gid: group.map_or_else(|| Ok(Gid::effective()), users::gid).map_err(failed)?,
            mode: Mode::from_bits_truncate(mode),
        })
    }

    /// The access of a file, by its metadata.
    fn of(stat: &FileStat) -> Self {
        let mode = Mode::from_bits_truncate(stat.st_mode & 0o7777);
        Self { uid: Uid::from_raw(stat.st_uid), gid: Gid::from_raw(stat.st_gid), mode }
    }

    fn is_of(&self, stat: &FileStat) -> bool {
        self.owns(stat) && stat.st_mode & 0o7777 == self.mode.bits()
    }

    fn owns(&self, stat: &FileStat) -> bool {
        stat.st_uid == self.uid.as_raw() && stat.st_gid == self.gid.as_raw()
    }

    /// Sets it on an open file. The mode comes last, because a change of owner clears set-user-id bits.
    fn give(&self, path: &str, file: &File) -> Result<(), FileError> {
        let stat = fstat(file).map_err(failed(path, "read its metadata"))?;
        if !self.owns(&stat) {
            fchown(file, Some(self.uid), Some(self.gid)).map_err(failed(path, "change its owner"))?;
        }
        fchmod(file, self.mode).map_err(failed(path, "change its mode"))
    }
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
    let mut at = path.to_owned();
    for _ in 0..MOST_LINKS {
        let Some(place) = root.place(&at, Missing::Leave)? else { return Ok(None) };
        let Some(stat) = stat(&place, path)? else { return Ok(None) };
        match kind(&stat) {
            SFlag::S_IFREG => {
                let file = openat(&place.dir, place.name.as_os_str(), READ, Mode::empty());
                let file = File::from(file.map_err(failed(path, "open it"))?);
                let mut bytes = Vec::new();
                file.take(most).read_to_end(&mut bytes).map_err(io_failed(path, "read it"))?;
                return Ok(Some(bytes));
            }
            SFlag::S_IFLNK => {
                let target = readlinkat(&place.dir, place.name.as_os_str()).map_err(failed(path, "follow it"))?;
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
                let access = Access::of(&fstat(&dir).map_err(failed(path, "read its metadata"))?);
                return Ok(Some(Found { thing: "directory", access }));
            }
            _ => "a symbolic link",
        },
        _ => "neither file nor directory",
    };
    Ok(Some(Found { thing, access: Access::of(&stat) }))
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
    Ok(kind(&stat) == SFlag::S_IFREG && access.is_of(&stat) && holds(&place, path, &stat, sum)?)
}

/// Makes `path` a file with that content and access, atomically.
pub(crate) fn put_file(root: &Root, path: &str, content: &Content, sum: Sum, access: Access) -> Result<(), FileError> {
    match stage_file(root, path, content, sum, access)? {
        Some(staged) => staged.put(),
        None => Ok(()),
    }
}

/// A file beside its place, written and synced, with its owner and mode. Dropped, it is removed.
#[derive(Debug)]
pub(crate) struct Staged {
    place: Place,
    path: String,
    done: bool,
}

impl Staged {
    /// Its path until it is put in place.
    pub(crate) fn path(&self) -> PathBuf {
        self.place.real.with_file_name(temporary(&self.place.name))
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
) -> Result<Option<Staged>, FileError> {
    let place = make_place(root, path)?;
    // The temporary name is derived from the file's, so a killed agent's leftover is found and does not block this write.
    sweep(&place);
    match stat(&place, path)? {
        // Replacing a directory would delete all files in it.
        Some(stat) if kind(&stat) == SFlag::S_IFDIR => return Err(in_the_way(path, "a directory")),
        // Not rewritten: a new inode would be a change for programs that watch the file.
        Some(stat) if kind(&stat) == SFlag::S_IFREG && holds(&place, path, &stat, sum)? => {
            let file = openat(&place.dir, place.name.as_os_str(), READ, Mode::empty());
            access.give(path, &file.map_err(failed(path, "open it"))?.into())?;
            return Ok(None);
        }
        _ => {}
    }
    let flags = OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_WRONLY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    // Private until owner and mode are set: no other user may open it in between.
    let mode = Mode::from_bits_truncate(0o600);
    let file =
        openat(&place.dir, temporary(&place.name).as_os_str(), flags, mode).map_err(failed(path, "create it"))?;
    let staged = Staged { place, path: path.to_owned(), done: false };
    let mut file = File::from(file);
    write(&mut file, content).map_err(io_failed(path, "write it"))?;
    access.give(path, &file)?;
    // Before the rename: after a power loss the name must not lead to an empty file.
    file.sync_all().map_err(io_failed(path, "write it"))?;
    Ok(Some(staged))
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
    let Some(file) = open_file(root, path)? else { return Ok(None) };
    let stat = fstat(&file).map_err(failed(path, "read its metadata"))?;
    let no_text = |what| FileError::NoText { path: path.to_owned(), what };
    let mut bytes = Vec::new();
    file.take(most + 1).read_to_end(&mut bytes).map_err(io_failed(path, "read it"))?;
    if bytes.len() as u64 > most {
        return Err(no_text(format!("has more than {} KiB", most >> 10)));
    }
    let text = String::from_utf8(bytes).map_err(|e| {
        let line = e.as_bytes()[..e.utf8_error().valid_up_to()].iter().filter(|byte| **byte == b'\n').count() + 1;
        no_text(format!("line {line} is not UTF-8"))
    })?;
    Ok(Some(Text { text, access: Access::of(&stat) }))
}

/// Makes `path` a file with that text and access.
pub(crate) fn write_text(root: &Root, path: &str, text: &str, access: Access) -> Result<(), FileError> {
    let content = Content::Bytes(text.as_bytes().to_vec());
    put_file(root, path, &content, Sum::of_bytes(text.as_bytes()), access)
}

/// What is at `path`; `None` if nothing is.
pub(crate) fn occupant(root: &Root, path: &str) -> Result<Option<Occupant>, FileError> {
    let Some(place) = root.place(path, Missing::Leave)? else { return Ok(None) };
    Ok(stat(&place, path)?.map(|stat| match kind(&stat) {
        SFlag::S_IFDIR => Occupant::Directory,
        SFlag::S_IFLNK => Occupant::Link,
        _ => Occupant::File,
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
    Ok(access.is_of(&fstat(&dir).map_err(failed(path, "read its metadata"))?))
}

/// Makes `path` a directory with that access.
pub(crate) fn put_directory(root: &Root, path: &str, access: Access) -> Result<(), FileError> {
    let place = make_place(root, path)?;
    // Private until owner and mode are set.
    match mkdirat(&place.dir, place.name.as_os_str(), Mode::from_bits_truncate(0o700)) {
        Ok(()) => sync(&place, path)?,
        Err(Errno::EEXIST) => {}
        Err(e) => return Err(failed(path, "create the directory")(e)),
    }
    // A link to a directory counts as a directory.
    let (dir, real) = match root.directory(path, Missing::Leave) {
        Ok(Some(found)) => found,
        Err(PathError::NotADirectory { .. }) => return Err(in_the_way(path, "something that is not a directory")),
        Ok(None) => return Err(in_the_way(path, "a link that leads nowhere")),
        Err(e) => return Err(e.into()),
    };
    let found = fstat(&dir).map_err(failed(path, "read its metadata"))?;
    if !access.owns(&found) {
        fchownat(&dir, "", Some(access.uid), Some(access.gid), AtFlags::AT_EMPTY_PATH)
            .map_err(failed(path, "change its owner"))?;
    }
    // The mode cannot be changed through a handle that was opened with O_PATH, but through its name in the parent.
    let parent = real.parent().unwrap_or(&real);
    let parent = File::open(parent).map_err(io_failed(path, "open its parent"))?;
    let name = real.file_name().unwrap_or(OsStr::new("."));
    fchmodat(&parent, name, access.mode, FchmodatFlags::FollowSymlink).map_err(failed(path, "change its mode"))
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
    let swept = Sweep { place: &place, armed: true };
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

/// Flags to open what may be anything: neither blocks on a FIFO nor follows a link.
const READ: OFlag = OFlag::O_RDONLY.union(OFlag::O_NOFOLLOW).union(OFlag::O_NONBLOCK).union(OFlag::O_CLOEXEC);

/// Whether the file at `place` has that content. One that may not be read counts as different.
fn holds(place: &Place, path: &str, stat: &FileStat, sum: Sum) -> Result<bool, FileError> {
    // Most differences show in the size, without reading the file.
    if u64::try_from(stat.st_size) != Ok(sum.size) {
        return Ok(false);
    }
    match openat(&place.dir, place.name.as_os_str(), READ, Mode::empty()) {
        Ok(file) => Ok(Sum::of(File::from(file)).map_err(io_failed(path, "read it"))? == sum),
        Err(Errno::EACCES | Errno::ENOENT | Errno::ELOOP) => Ok(false),
        Err(e) => Err(failed(path, "open it")(e)),
    }
}

fn write(file: &mut File, content: &Content) -> io::Result<()> {
    match content {
        Content::Bytes(bytes) => file.write_all(bytes),
        Content::File(path) => io::copy(&mut File::open(path)?, file).map(drop),
    }
}

fn make_place(root: &Root, path: &str) -> Result<Place, FileError> {
    Ok(root.place(path, Missing::Create)?.ok_or_else(|| PathError::Unnamed { path: path.to_owned() })?)
}

/// The place of something to remove; `None` if a parent is not a directory, so that nothing can be there.
fn found_place(root: &Root, path: &str) -> Result<Option<Place>, FileError> {
    match root.place(path, Missing::Leave) {
        Err(PathError::NotADirectory { .. }) => Ok(None),
        result => Ok(result?),
    }
}

fn stat(place: &Place, path: &str) -> Result<Option<FileStat>, FileError> {
    match fstatat(&place.dir, place.name.as_os_str(), AtFlags::AT_SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some(stat)),
        Err(Errno::ENOENT) => Ok(None),
        Err(e) => Err(failed(path, "read its metadata")(e)),
    }
}

fn kind(stat: &FileStat) -> SFlag {
    SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT
}

/// Syncs the directory of a place, so that its names are durable.
fn sync(place: &Place, path: &str) -> Result<(), FileError> {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let dir = match openat(&place.dir, ".", flags, Mode::empty()) {
        Ok(dir) => File::from(dir),
        // A directory that may be written and not read: it cannot be synced.
        Err(Errno::EACCES) => return Ok(()),
        Err(e) => return Err(failed(path, OPEN_DIRECTORY)(e)),
    };
    dir.sync_all().map_err(io_failed(path, SYNC))
}

/// The temporary name beside `target`: always the same for one target, and never too long.
fn temporary(target: &OsStr) -> OsString {
    format!(".groundplan-{}.tmp", Digest::of(target.as_bytes()).short()).into()
}

/// Removes what an interrupted write left.
fn sweep(place: &Place) {
    // It need not exist; and if it cannot be removed, the write itself fails.
    let _ = unlinkat(&place.dir, temporary(&place.name).as_os_str(), UnlinkatFlags::NoRemoveDir);
}

/// Removes the temporary file when the write does not complete.
struct Sweep<'a> {
    place: &'a Place,
    armed: bool,
}

impl Sweep<'_> {
    fn done(mut self) {
        self.armed = false;
    }
}

impl Drop for Sweep<'_> {
    fn drop(&mut self) {
        if self.armed {
            sweep(self.place);
        }
    }
}

fn in_the_way(path: &str, there: &'static str) -> FileError {
    FileError::InTheWay { path: path.to_owned(), there }
}

fn failed(path: &str, doing: &'static str) -> impl Fn(Errno) -> FileError {
    move |e| FileError::Io { path: path.to_owned(), doing, source: e.into() }
}

fn io_failed(path: &str, doing: &'static str) -> impl Fn(io::Error) -> FileError {
    move |source| FileError::Io { path: path.to_owned(), doing, source }
}
