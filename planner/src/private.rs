//! Files that only the planner's own user may read: they hold keys, parameters and the output of commands.
//!
//! In: paths below the state directory, and options to open them with. Out: open files of mode 0600 in directories of mode 0700, whatever
//! the umask and whoever may enter the directories above. What was there before with a wider mode loses the rest when it is opened; what
//! belongs to another user is theirs to protect. All that the planner and `groundplan up` keep for themselves is created here; files of a
//! site are not.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use nix::{
    sys::stat::{Mode, fchmod},
    unistd::Uid,
};
use tokio::net::{UnixListener, UnixSocket};

/// The rights of all but the owner.
const OTHERS: u32 = 0o077;

/// How many connections may wait to be accepted.
const BACKLOG: u32 = 1024;

/// Opens a file, which gets mode 0600 if `options` create it.
pub(crate) fn open(path: &Path, options: &mut OpenOptions) -> io::Result<File> {
    let file = options.mode(0o600).open(path)?;
    tighten(&file)?;
    Ok(file)
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
    let mut new = path.as_os_str().to_owned();
    new.push(".new");
    let new = PathBuf::from(new);
    let mut file = open(&new, File::options().write(true).create(true).truncate(true))?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&new, path)?;
    path.parent().map_or(Ok(()), |dir| File::open(dir)?.sync_all())
}

/// Listens on a socket to which only the user may connect, from its first moment on.
pub(crate) fn listen(path: &Path) -> io::Result<UnixListener> {
    let socket = UnixSocket::new_stream()?;
    // Linux gives the file the mode that the socket has when it is bound, less the umask (unix(7) leaves it out): none can connect before
    // a later chmod.
    fchmod(&socket, Mode::from_bits_truncate(0o600))?;
    socket.bind(path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
    socket.listen(BACKLOG)
}

/// Takes from all but the owner what an earlier release, or a copy, gave them.
fn tighten(file: &File) -> io::Result<()> {
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
        let [wide, old, inner] = ["wide", "wide/old", "wide/a/b"].map(|name| dir.path().join(name));
        fs::create_dir(&wide).unwrap();
        fs::write(&old, "old").unwrap();
        for (path, mode) in [(&wide, 0o777), (&old, 0o666)] {
            fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        }
        append(&old).unwrap().write_all(b" new").unwrap();
        assert_eq!((mode(&old), &*fs::read_to_string(&old).unwrap()), (0o600, "old new"));
        replace(&wide.join("a.key"), b"x").unwrap();
        assert_eq!(mode(&wide.join("a.key")), 0o600);
        parents(&inner).unwrap();
        assert_eq!([&wide, &wide.join("a"), &inner].map(|path| mode(path)), [0o777, 0o700, 0o700]);
        directory(&wide).unwrap();
        assert_eq!(mode(&wide), 0o700);
    }

    #[tokio::test]
    async fn a_socket_is_private_before_it_answers() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("socket");
        let _listener = listen(&path).unwrap();
        assert_eq!(mode(&path), 0o600);
        tokio::net::UnixStream::connect(&path).await.unwrap();
    }
}
