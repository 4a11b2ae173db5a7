//! Files that only the agent's own user may read: they hold parameters, outputs and contents of other users' files.
//!
//! In: paths below the state directory, and options to open them with. Out: open files of mode 0600 in directories of mode 0700, whatever
//! the umask and whoever may enter the directories above. What was there before with a wider mode loses the rest when it is opened; what
//! belongs to another user is theirs to protect. Everything that the agent keeps for itself is created here; what tasks put on the host is not.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _},
    path::Path,
};

use nix::unistd::Uid;

/// The rights of all but the owner.
const OTHERS: u32 = 0o077;

/// Opens a file, which gets mode 0600 if `options` create it.
pub(crate) fn open(path: &Path, options: &mut OpenOptions) -> io::Result<File> {
    let file = options.mode(0o600).open(path)?;
    tighten(&file)?;
    Ok(file)
}

/// An empty file to write to, in the place of what was in it.
pub(crate) fn create(path: &Path) -> io::Result<File> {
    open(path, File::options().write(true).create(true).truncate(true))
}

/// A file to append to, which need not exist.
pub(crate) fn append(path: &Path) -> io::Result<File> {
    open(path, File::options().append(true).create(true))
}

/// Creates a directory that holds only private files, and those above it that are missing.
pub(crate) fn directory(path: &Path) -> io::Result<()> {
    parents(path)?;
    tighten(&File::open(path)?)
}

/// Creates a directory and those above it that are missing, for its owner only. One that is there may be of use to others: it stays as it is.
pub(crate) fn parents(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// Replaces the content of a file, which may be missing, in one step: after a power loss it has the old or the new one.
pub(crate) fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let temporary = path.with_extension("tmp");
    let mut file = create(&temporary)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&temporary, path)?;
    path.parent().map_or(Ok(()), |dir| File::open(dir)?.sync_all())
}

/// Takes from all but the owner what an earlier release, or a copy, gave them.
pub(crate) fn tighten(file: &File) -> io::Result<()> {
    let found = file.metadata()?;
    if found.mode() & OTHERS == 0 || found.uid() != Uid::effective().as_raw() {
        return Ok(());
    }
    match file.set_permissions(fs::Permissions::from_mode(found.mode() & 0o7777 & !OTHERS)) {
        // A key on a mounted volume, for example: whoever mounts it decides.
        Err(e) if e.kind() == io::ErrorKind::ReadOnlyFilesystem => Ok(()),
        done => done,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().mode() & 0o7777
    }

    #[test]
    fn what_is_made_is_private_and_what_was_there_becomes_so() {
        let dir = tempfile::tempdir().unwrap();
        let [open, old, inner] = ["open", "open/old", "open/a/b"].map(|name| dir.path().join(name));
        fs::create_dir(&open).unwrap();
        fs::write(&old, "old").unwrap();
        for (path, wide) in [(&open, 0o777), (&old, 0o666)] {
            fs::set_permissions(path, fs::Permissions::from_mode(wide)).unwrap();
        }
        append(&old).unwrap().write_all(b" new").unwrap();
        assert_eq!((mode(&old), &*fs::read_to_string(&old).unwrap()), (0o600, "old new"));
        replace(&open.join("new.json"), b"x").unwrap();
        assert_eq!(mode(&open.join("new.json")), 0o600);
        assert!(!open.join("new.tmp").exists());
        // What others may use is left alone, what is for private files only is not.
        parents(&inner).unwrap();
        assert_eq!([&open, &open.join("a"), &inner].map(|path| mode(path)), [0o777, 0o700, 0o700]);
        directory(&open).unwrap();
        assert_eq!(mode(&open), 0o700);
        // A program stays one.
        fs::set_permissions(&old, fs::Permissions::from_mode(0o755)).unwrap();
        create(&old).unwrap();
        assert_eq!(mode(&old), 0o700);
    }
}
