//! The ssh keys of a user: `.ssh/authorized_keys` in its home (sshd(8)).
//!
//! The user may put any link there, so everything below the home is accessed as if the home were the root: a link that leads
//! out of it is an error, and the file itself is replaced, never written through a link.

use std::{
    fs::File,
    io::{self, Read},
    path::Path,
};

use groundplan_protocol::kinds::key_of;
use nix::{
    fcntl::{OFlag, openat},
    sys::stat::Mode,
    unistd::{Gid, Uid},
};

use crate::host::{
    fs::{
        files::{self, Access, FileError, Sum},
        paths::{Missing, Root},
    },
    job::Content,
};

const FOLDER: &str = "/.ssh";
const FILE: &str = "/.ssh/authorized_keys";
/// Most that is read of the file, in bytes.
const MOST: u64 = 1 << 20;

/// The home and the owner of a key file.
pub(super) struct Place<'a> {
    pub(super) home: &'a Path,
    pub(super) uid: u32,
    pub(super) gid: u32,
}

impl Place<'_> {
    fn root(&self) -> Root {
        // Links on the way to the home are followed: the user does not control them.
        Root::new(self.home.canonicalize().unwrap_or_else(|_| self.home.to_owned()))
    }

    fn access(&self, mode: u32) -> Access {
        Access { uid: Uid::from_raw(self.uid), gid: Gid::from_raw(self.gid), mode: Mode::from_bits_truncate(mode) }
    }

    /// The text of the file; empty if there is none.
    pub(super) fn read(&self) -> Result<String, FileError> {
        let Some(place) = self.root().place(FILE, Missing::Leave)? else { return Ok(String::new()) };
        let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
        // A link, or a file that may not be read: it is replaced as a whole.
        let Ok(file) = openat(&place.dir, place.name.as_os_str(), flags, Mode::empty()) else {
            return Ok(String::new());
        };
        let file = File::from(file);
        let io = |source: io::Error| FileError::Io { path: FILE.to_owned(), doing: "read it", source };
        if !file.metadata().map_err(io)?.is_file() {
            return Ok(String::new());
        }
        let mut bytes = Vec::new();
        file.take(MOST).read_to_end(&mut bytes).map_err(io)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// Whether the file has that text, owner and mode.
    pub(super) fn is(&self, text: &str) -> Result<bool, FileError> {
        let root = self.root();
        Ok(files::is_directory(&root, FOLDER, self.access(0o700))?
            && files::is_file(&root, FILE, Sum::of_bytes(text.as_bytes()), self.access(0o600))?)
    }

    pub(super) fn write(&self, text: &str) -> Result<(), FileError> {
        let root = self.root();
        if !files::is_directory(&root, FOLDER, self.access(0o700))? {
            files::put_directory(&root, FOLDER, self.access(0o700))?;
        }
        let content = Content::Bytes(text.as_bytes().to_vec());
        files::put_file(&root, FILE, &content, Sum::of_bytes(text.as_bytes()), self.access(0o600))
    }
}

/// The text with `wanted` and without `unwanted`, lines being compared by the key itself; without any other line if `only`.
pub(super) fn merged(text: &str, wanted: &[String], unwanted: &[String], only: bool) -> String {
    let is_among = |keys: &[String], key: &str| keys.iter().any(|one| key_of(one).unwrap_or(one) == key);
    let mut lines: Vec<&str> = Vec::new();
    for line in text.lines() {
        let line = match key_of(line).filter(|_| !line.trim_start().starts_with('#')) {
            Some(key) if is_among(wanted, key) => {
                // Replaced by the wanted line, options and comment included, and only once.
                let line = wanted.iter().find(|one| key_of(one) == Some(key)).map_or(line, |line| line.trim());
                if lines.contains(&line) {
                    continue;
                }
                line
            }
            Some(key) if only || is_among(unwanted, key) => continue,
            None if only => continue,
            _ => line,
        };
        lines.push(line);
    }
    for line in wanted.iter().map(|line| line.trim()) {
        if !lines.contains(&line) {
            lines.push(line);
        }
    }
    lines.iter().flat_map(|line| [line, "\n"]).collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    fn key(n: u32, comment: &str) -> String {
        format!("ssh-ed25519 AAAA{n} {comment}")
    }

    #[test]
    fn keys_are_compared_without_their_comments() {
        let text = format!("# mine\n{}\n{}\n", key(1, "old"), key(2, "b"));
        let merge = |wanted: &[String], unwanted: &[String], only| merged(&text, wanted, unwanted, only);
        assert_eq!(merge(&[key(1, "new")], &[], false), format!("# mine\n{}\n{}\n", key(1, "new"), key(2, "b")));
        assert_eq!(merge(&[key(3, "c")], &[], true), format!("{}\n", key(3, "c")));
        assert_eq!(merge(&[], &[key(2, "")], false), format!("# mine\n{}\n", key(1, "old")));
        assert_eq!(merge(&[], &["AAAA2".to_owned()], false), format!("# mine\n{}\n", key(1, "old")));
        let same = merge(&[key(2, "b")], &[], false);
        assert_eq!((same.as_str(), merged(&same, &[key(2, "b")], &[], false)), (text.as_str(), same.clone()));
        assert_eq!(merged("", &[key(1, "a")], &[], false), format!("{}\n", key(1, "a")));
    }

    #[test]
    fn links_lead_nowhere_outside() {
        let dir = tempfile::tempdir().unwrap();
        let (home, outside) = (dir.path().join("home"), dir.path().join("outside"));
        std::fs::create_dir_all(&home).unwrap();
        std::fs::create_dir_all(&outside).unwrap();
        let (uid, gid) = (Uid::effective().as_raw(), Gid::effective().as_raw());
        let place = Place { home: &home, uid, gid };
        place.write("one\n").unwrap();
        assert!(place.is("one\n").unwrap() && place.read().unwrap() == "one\n");
        let mode = |path: &str| std::fs::metadata(home.join(path)).unwrap().permissions().mode() & 0o7777;
        assert_eq!((mode(".ssh"), mode(".ssh/authorized_keys")), (0o700, 0o600));

        // The file is a link: it is replaced.
        std::fs::write(outside.join("shadow"), "precious").unwrap();
        std::fs::remove_file(home.join(".ssh/authorized_keys")).unwrap();
        symlink(outside.join("shadow"), home.join(".ssh/authorized_keys")).unwrap();
        assert_eq!(place.read().unwrap(), "");
        place.write("two\n").unwrap();
        assert_eq!(std::fs::read_to_string(outside.join("shadow")).unwrap(), "precious");

        // The folder is a link out of the home: refused.
        std::fs::remove_dir_all(home.join(".ssh")).unwrap();
        symlink(&outside, home.join(".ssh")).unwrap();
        assert!(place.write("three\n").unwrap_err().to_string().contains("leads out of the root"));
        assert!(!outside.join("authorized_keys").exists());
    }
}
