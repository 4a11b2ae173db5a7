//! Owner, group and mode of files, also of those that have an access control list.
//!
//! With a list the group's bits in `st_mode` are its mask, not what the group may do. A mode is compared with what owner, owning
//! group and others may do, and set without a change for the users and groups that the list names.

use std::fs::File;

use nix::{
    sys::stat::{FileStat, Mode, fchmod, fstat},
    unistd::{Gid, Uid, fchown},
};

use super::{
    attributes,
    error::{CHANGE_ACL, CHANGE_MODE, FileError, failed, io_failed},
    users,
};

/// Owner, group and mode of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Access {
    pub(crate) uid: Uid,
    pub(crate) gid: Gid,
    pub(crate) mode: Mode,
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

    /// The access by metadata alone; right for what has no access control list.
    pub(super) fn of_stat(stat: &FileStat) -> Self {
        let mode = Mode::from_bits_truncate(stat.st_mode & 0o7777);
        Self { uid: Uid::from_raw(stat.st_uid), gid: Gid::from_raw(stat.st_gid), mode }
    }

    /// The access of an open file.
    pub(crate) fn of(path: &str, file: &File) -> Result<Self, FileError> {
        let access = Self::of_stat(&fstat(file).map_err(failed(path, "read its metadata"))?);
        let acl = attributes::acl(file).map_err(io_failed(path, "read its access control list"))?;
        let mode = acl.map_or(access.mode.bits(), |acl| access.mode.bits() & 0o7000 | acl.mode());
        Ok(Self { mode: Mode::from_bits_truncate(mode), ..access })
    }

    fn owns(&self, stat: &FileStat) -> bool {
        stat.st_uid == self.uid.as_raw() && stat.st_gid == self.gid.as_raw()
    }

    /// Sets owner and group of an open file.
    pub(super) fn own(&self, path: &str, file: &File) -> Result<(), FileError> {
        let stat = fstat(file).map_err(failed(path, "read its metadata"))?;
        if !self.owns(&stat) {
            fchown(file, Some(self.uid), Some(self.gid)).map_err(failed(path, "change its owner"))?;
        }
        Ok(())
    }

    /// Sets it on an open file. The mode comes last, because a change of owner clears set-user-id bits.
    pub(super) fn give(&self, path: &str, file: &File) -> Result<(), FileError> {
        self.own(path, file)?;
        let mut mode = self.mode;
        if let Some(acl) = attributes::acl(file).map_err(io_failed(path, "read its access control list"))? {
            let wanted = acl.with_mode(mode.bits());
            if wanted != acl {
                attributes::set_acl(file, &wanted).map_err(io_failed(path, CHANGE_ACL))?;
            }
            // With the group's bits it is the mask that is set: to what it is.
            mode = Mode::from_bits_truncate(mode.bits() & 0o7000 | wanted.bits());
        }
        fchmod(file, mode).map_err(failed(path, CHANGE_MODE))
    }

    /// Sets it on a file or directory that has just been made. A list that it inherited counts as far as the mode allows, as for
    /// whatever is made with that mode (acl(5), object creation).
    pub(super) fn give_new(&self, path: &str, file: &File) -> Result<(), FileError> {
        self.own(path, file)?;
        fchmod(file, self.mode).map_err(failed(path, CHANGE_MODE))?;
        self.give(path, file)
    }
}
