//! What is at a path: noted before a task takes it, and restored after it.
//!
//! In: a path below the root. Out: a note with owner, group, mode and extended attributes; or the path as the note has it. Restoring
//! replaces whatever file is there, atomically, and no directory that has something in it. All of it works from the opened directory:
//! whoever owns one above may swap it for a link meanwhile.

use std::{
    collections::BTreeMap,
    ffi::OsStr,
    fs::File,
    io,
    os::{fd::AsFd, unix::fs::MetadataExt as _},
};

use groundplan_protocol::plan::OnRemove;
use nix::{
    errno::Errno,
    fcntl::{AtFlags, OFlag, openat, readlinkat},
    sys::stat::{Mode, SFlag, fstat, fstatat},
    unistd::{Gid, Uid, fchownat},
};

use super::{FoundError, FoundStore};
use crate::{
    host::{
        error::HostError,
        fs::{
            files::{self, Access, FileError, Removal, Replace, Sum},
            paths::{Missing, PathError, Place, Root},
            xattrs,
        },
        job::Content,
    },
    machine::{Found, found::Owned},
};

impl FoundStore {
    /// What is at `path`, with the content of a file in the store. With `follow`, a link to a directory counts as that directory.
    pub(crate) fn find(&self, root: &Root, path: &str, follow: bool, on_remove: OnRemove) -> Result<Found, HostError> {
        self.look_up(root, path, follow, on_remove, true)
    }

    /// The same; not `synced`, a content that is kept need not be on the disk yet.
    pub(crate) fn look_up(
        &self,
        root: &Root,
        path: &str,
        follow: bool,
        on_remove: OnRemove,
        synced: bool,
    ) -> Result<Found, HostError> {
        let place = match root.place(path, Missing::Leave) {
            // Where a parent is missing or no directory, nothing can be there.
            Ok(None) | Err(PathError::NotADirectory { .. }) => return Ok(Found::Absent),
            Ok(Some(place)) => place,
            Err(e) => return Err(e.into()),
        };
        let failed = |doing| move |source| FoundError::Read { path: path.to_owned(), doing, source };
        let found = match fstatat(&place.dir, place.name.as_os_str(), AtFlags::AT_SYMLINK_NOFOLLOW) {
            Err(Errno::ENOENT) => return Ok(Found::Absent),
            found => found.map_err(|errno| failed("read its metadata")(errno.into()))?,
        };
        let kind = SFlag::from_bits_truncate(found.st_mode) & SFlag::S_IFMT;
        if (kind == SFlag::S_IFDIR || kind == SFlag::S_IFLNK && follow)
            && let Ok(Some((dir, _))) = root.directory(path, Missing::Leave)
        {
            let dir = open(&dir, OsStr::new(".")).map_err(failed("open it"))?;
            let (access, xattrs) = described(&dir).map_err(failed("read its attributes"))?;
            return Ok(Found::Directory { access, xattrs });
        }
        if kind == SFlag::S_IFLNK {
            let target = readlinkat(&place.dir, place.name.as_os_str());
            let target = target.map_err(|errno| failed("read the link")(errno.into()))?;
            let target = target.to_string_lossy().into_owned();
            return Ok(Found::Link { target, uid: found.st_uid, gid: found.st_gid });
        }
        if kind != SFlag::S_IFREG {
            let what = match kind {
                SFlag::S_IFIFO => "FIFO",
                SFlag::S_IFSOCK => "socket",
                _ => "device",
            };
            return Ok(Found::Other { what: what.to_owned() });
        }
        let mut file = open(&place.dir, &place.name).map_err(failed("open it"))?;
        let (access, xattrs) = described(&file).map_err(failed("read its attributes"))?;
        let (sha256, size, kept) = self.keep(path, &place.real, &mut file, on_remove, synced)?;
        Ok(Found::File { sha256, size, kept, access, xattrs })
    }

    /// Makes `path` what it was; or why it is left as it is.
    pub(crate) fn restore(&self, root: &Root, path: &str, found: &Found) -> Result<Removal, HostError> {
        match found {
            Found::File { sha256, size, access, xattrs, .. } => {
                let sum = Sum { digest: *sha256, size: *size };
                self.restore_file(root, path, sum, access_of(access), &unpacked(xattrs))
            }
            Found::Link { target, uid, gid } => {
                if files::is_link(root, path, target)? {
                    return Ok(Removal::NotThere);
                }
                if let Some(left) = clear(root, path)? {
                    return Ok(left);
                }
                files::put_link(root, path, target)?;
                if let Some(place) = root.place(path, Missing::Leave)? {
                    let (uid, gid) = (Uid::from_raw(*uid), Gid::from_raw(*gid));
                    own_link(&place, uid, gid).map_err(|errno| {
                        let source = errno.into();
                        FoundError::Read { path: path.to_owned(), doing: "change its owner", source }
                    })?;
                }
                Ok(Removal::Removed)
            }
            Found::Directory { access, xattrs } => restore_directory(root, path, access_of(access), &unpacked(xattrs)),
            Found::Other { what } => Ok(Removal::Left(format!("{path} was a {what}, which is not restored"))),
            _ => Ok(Removal::Left(format!("{path}: it is not known what was there before: left in place"))),
        }
    }

    fn restore_file(
        &self,
        root: &Root,
        path: &str,
        sum: Sum,
        access: Access,
        attributes: &xattrs::Xattrs,
    ) -> Result<Removal, HostError> {
        if let Some(left) = clear(root, path)? {
            return Ok(left);
        }
        let failed = |source| FoundError::Read { path: path.to_owned(), doing: "restore its attributes", source };
        let was = files::is_file(root, path, sum, access)?;
        let content = self.content(&sum.digest);
        let staged = match files::stage_file(root, path, &Content::File(content.clone()), sum, access, Replace::Files) {
            Err(FileError::Io { .. }) if !content.exists() => {
                return Err(FoundError::Lost { path: path.to_owned(), store: content }.into());
            }
            staged => staged?,
        };
        if let Some(staged) = staged {
            xattrs::write(staged.file(), attributes).map_err(failed)?;
            staged.put()?;
            return Ok(Removal::Removed);
        }
        // The content is there already; then the file has its owner and mode as well by now.
        let Some(file) = files::open_file(root, path)? else { return Ok(Removal::NotThere) };
        let same = was && xattrs::read(&file).map_err(failed)? == *attributes;
        xattrs::write(&file, attributes).map_err(failed)?;
        Ok(if same { Removal::NotThere } else { Removal::Removed })
    }
}

/// Changes the owner of a link. Whoever has its directory may have put something else there, and that keeps its owner.
fn own_link(place: &Place, uid: Uid, gid: Gid) -> nix::Result<()> {
    let link = openat(
        &place.dir,
        place.name.as_os_str(),
        OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC,
        Mode::empty(),
    )?;
    if SFlag::from_bits_truncate(fstat(&link)?.st_mode) & SFlag::S_IFMT != SFlag::S_IFLNK {
        return Err(Errno::EINVAL);
    }
    fchownat(&link, "", Some(uid), Some(gid), AtFlags::AT_EMPTY_PATH)
}

/// Makes way for a file or link: a directory goes if it is empty. Or why nothing can be restored there.
fn clear(root: &Root, path: &str) -> Result<Option<Removal>, HostError> {
    if files::occupant(root, path)? != Some(files::Occupant::Directory) {
        return Ok(None);
    }
    Ok(match files::remove_directory(root, path)? {
        Removal::Left(why) => Some(Removal::Left(why)),
        _ => None,
    })
}

fn restore_directory(
    root: &Root,
    path: &str,
    access: Access,
    attributes: &xattrs::Xattrs,
) -> Result<Removal, HostError> {
    let failed = |source| FoundError::Read { path: path.to_owned(), doing: "restore its attributes", source };
    let was = match files::is_directory(root, path, access) {
        Err(FileError::Path(e)) if e.is_not_a_directory() => {
            return Ok(Removal::Left(format!("{path} is not a directory any more: left in place")));
        }
        was => was?,
    };
    let Some((dir, _)) = root.directory(path, Missing::Leave)? else {
        return Ok(Removal::Left(format!("{path} is not there any more: not made again")));
    };
    let dir = open(&dir, OsStr::new(".")).map_err(failed)?;
    let same = was && xattrs::read(&dir).map_err(failed)? == *attributes;
    files::put_directory(root, path, access)?;
    xattrs::write(&dir, attributes).map_err(failed)?;
    Ok(if same { Removal::NotThere } else { Removal::Removed })
}

/// Opens what may be anything: neither follows a link nor blocks on a FIFO.
fn open(dir: &impl AsFd, name: &OsStr) -> io::Result<File> {
    let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
    Ok(openat(dir, name, flags, Mode::empty())?.into())
}

/// Owner, group, mode and extended attributes of an open file.
fn described(file: &File) -> io::Result<(Owned, BTreeMap<String, String>)> {
    let found = file.metadata()?;
    let hex = |value: Vec<u8>| value.iter().map(|byte| format!("{byte:02x}")).collect();
    let xattrs = xattrs::read(file)?.into_iter().map(|(name, value)| (name, hex(value))).collect();
    Ok((Owned { uid: found.uid(), gid: found.gid(), mode: found.mode() & 0o7777 }, xattrs))
}

fn access_of(owned: &Owned) -> Access {
    Access { uid: Uid::from_raw(owned.uid), gid: Gid::from_raw(owned.gid), mode: Mode::from_bits_truncate(owned.mode) }
}

fn unpacked(xattrs: &BTreeMap<String, String>) -> xattrs::Xattrs {
    let byte =
        |pair: &[u8]| Some((char::from(pair[0]).to_digit(16)? << 4 | char::from(*pair.get(1)?).to_digit(16)?) as u8);
    let bytes = |hex: &str| hex.as_bytes().chunks(2).map_while(byte).collect();
    xattrs.iter().map(|(name, hex)| (name.clone(), bytes(hex))).collect()
}

#[cfg(test)]
mod tests {
    use std::{
        fs,
        os::unix::fs::symlink,
        sync::atomic::{AtomicBool, Ordering},
        thread,
    };

    use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};

    use super::*;

    /// How often each of the two is to be seen while the folder is swapped: the folder itself, and the link in its place.
    const OFTEN: usize = 100;

    #[test]
    fn a_folder_that_is_swapped_for_a_link_leads_nowhere_outside() {
        let temp = tempfile::tempdir().unwrap();
        let [outside, top, state] = ["outside", "root", "state"].map(|name| temp.path().join(name));
        for (dir, content) in [(&outside, "precious"), (&top.join("folder"), "theirs")] {
            fs::create_dir_all(dir.join("sub")).unwrap();
            fs::write(dir.join("file"), content).unwrap();
            symlink("there", dir.join("link")).unwrap();
        }
        symlink(&outside, top.join("swapped")).unwrap();
        fs::create_dir(&state).unwrap();
        let attributes = || xattrs::read(&File::open(outside.join("sub")).unwrap()).unwrap();
        let described = || {
            let of = |name: &str| {
                let found = fs::symlink_metadata(outside.join(name)).unwrap();
                (found.uid(), found.gid(), found.mode())
            };
            (["sub", "file", "link"].map(of), fs::read_link(outside.join("link")).unwrap(), attributes())
        };
        let before = described();

        let (root, done) = (Root::new(top.clone()), AtomicBool::new(false));
        let store = FoundStore::open(&state, 1 << 20).unwrap().0;
        let (mut here, mut elsewhere) = (0, 0);
        thread::scope(|scope| {
            scope.spawn(|| {
                let (folder, swapped) = (top.join("folder"), top.join("swapped"));
                while !done.load(Ordering::Relaxed) {
                    renameat2(AT_FDCWD, &folder, AT_FDCWD, &swapped, RenameFlags::RENAME_EXCHANGE).unwrap();
                }
            });
            let access = Owned { uid: 1, gid: 1, mode: 0o750 };
            let marks = BTreeMap::from([("user.origin".to_owned(), "00".to_owned())]);
            let directory = Found::Directory { access, xattrs: marks };
            let mut n = 0;
            while here < OFTEN || elsewhere < OFTEN {
                // Another target each time, so that there is always something to restore.
                n += 1;
                let link = Found::Link { target: format!("target-{n}"), uid: 1, gid: 1 };
                match store.restore(&root, "/folder/link", &link) {
                    Ok(_) => here += 1,
                    Err(_) => elsewhere += 1,
                }
                let _ = store.restore(&root, "/folder/sub", &directory);
                if let Ok(Found::File { sha256, .. }) = store.find(&root, "/folder/file", false, OnRemove::Delete) {
                    assert_eq!(sha256, Sum::of_bytes(b"theirs").digest, "what is read is what is in the folder");
                }
            }
            done.store(true, Ordering::Relaxed);
        });
        assert_eq!(described(), before);
    }
}
