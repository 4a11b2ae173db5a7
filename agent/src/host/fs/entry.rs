//! What is at a place: found, opened, synced and swept; the steps that all work on files is made of.
//!
//! Nothing here follows a link at the place itself, waits for the other end of a pipe, or creates anything but missing parents.

use std::{
    ffi::{OsStr, OsString},
    fs::File,
    os::{fd::OwnedFd, unix::ffi::OsStrExt},
};

use groundplan_protocol::digest::Digest;
use nix::{
    errno::Errno,
    fcntl::{AtFlags, OFlag, openat},
    sys::stat::{FileStat, Mode, SFlag, fstat, fstatat},
    unistd::{UnlinkatFlags, unlinkat},
};

use super::{
    access::Access,
    error::{FileError, OPEN_DIRECTORY, SYNC, failed, io_failed},
    paths::{Missing, PathError, Place, Root},
};

/// Flags to open what may be anything: neither blocks on a FIFO nor follows a link.
pub(super) const READ: OFlag =
    OFlag::O_RDONLY.union(OFlag::O_NOFOLLOW).union(OFlag::O_NONBLOCK).union(OFlag::O_CLOEXEC);

/// Flags to open a directory, so that its metadata can be read and changed.
pub(super) const DIRECTORY: OFlag = OFlag::O_RDONLY.union(OFlag::O_DIRECTORY).union(OFlag::O_CLOEXEC);

/// Opens what is at `place`; `None` if it may not be read, is gone or has become a link.
pub(super) fn open(place: &Place, path: &str) -> Result<Option<File>, FileError> {
    match openat(&place.dir, place.name.as_os_str(), READ, Mode::empty()) {
        Ok(file) => Ok(Some(file.into())),
        Err(Errno::EACCES | Errno::ENOENT | Errno::ELOOP) => Ok(None),
        Err(e) => Err(failed(path, "open it")(e)),
    }
}

/// The access of a directory that was opened with O_PATH.
pub(super) fn directory_access(path: &str, dir: &OwnedFd) -> Result<Access, FileError> {
    match openat(dir, ".", DIRECTORY, Mode::empty()) {
        Ok(dir) => Access::of(path, &dir.into()),
        Err(Errno::EACCES) => Ok(Access::of_stat(&fstat(dir).map_err(failed(path, "read its metadata"))?)),
        Err(e) => Err(failed(path, "open the directory")(e)),
    }
}

/// What a file is that is neither a regular file, a directory nor a link, for people.
pub(super) fn special(kind: SFlag) -> &'static str {
    match kind {
        SFlag::S_IFIFO => "a named pipe",
        SFlag::S_IFSOCK => "a socket",
        _ => "a device",
    }
}

pub(super) fn make_place(root: &Root, path: &str) -> Result<Place, FileError> {
    Ok(root.place(path, Missing::Create)?.ok_or_else(|| PathError::Unnamed { path: path.to_owned() })?)
}

/// The place of something to remove; `None` if a parent is not a directory, so that nothing can be there.
pub(super) fn found_place(root: &Root, path: &str) -> Result<Option<Place>, FileError> {
    match root.place(path, Missing::Leave) {
        Err(PathError::NotADirectory { .. }) => Ok(None),
        result => Ok(result?),
    }
}

pub(super) fn stat(place: &Place, path: &str) -> Result<Option<FileStat>, FileError> {
    match fstatat(&place.dir, place.name.as_os_str(), AtFlags::AT_SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some(stat)),
        Err(Errno::ENOENT) => Ok(None),
        Err(e) => Err(failed(path, "read its metadata")(e)),
    }
}

pub(super) fn kind(stat: &FileStat) -> SFlag {
    SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT
}

/// Syncs the directory of a place, so that its names are durable.
pub(super) fn sync(place: &Place, path: &str) -> Result<(), FileError> {
    let dir = match openat(&place.dir, ".", DIRECTORY, Mode::empty()) {
        Ok(dir) => File::from(dir),
        // A directory that may be written and not read: it cannot be synced.
        Err(Errno::EACCES) => return Ok(()),
        Err(e) => return Err(failed(path, OPEN_DIRECTORY)(e)),
    };
    dir.sync_all().map_err(io_failed(path, SYNC))
}

/// The temporary name beside `target`: always the same for one target, and never too long.
pub(super) fn temporary(target: &OsStr) -> OsString {
    format!(".groundplan-{}.tmp", Digest::of(target.as_bytes()).short()).into()
}

/// Removes what an interrupted write left.
pub(super) fn sweep(place: &Place) {
    // It need not exist; and if it cannot be removed, the write itself fails.
    let _ = unlinkat(&place.dir, temporary(&place.name).as_os_str(), UnlinkatFlags::NoRemoveDir);
}

/// Removes the temporary file when the write does not complete.
pub(super) struct Sweep<'a> {
    place: &'a Place,
    armed: bool,
}

impl<'a> Sweep<'a> {
    pub(super) fn new(place: &'a Place) -> Self {
        Self { place, armed: true }
    }

    pub(super) fn done(mut self) {
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
