//! The ssh keys of a user: `.ssh/authorized_keys` in its home (sshd(8)).
//!
//! The user may put any link there, so everything below the home is accessed as if the home were the root. A link to a file in
//! the home is followed, and stays. One that leads out of it is an error: the file behind it may hold the keys of others.
//! What cannot be read is never replaced. Lines are kept byte by byte, and owner and mode where sshd accepts them.

use std::{collections::BTreeSet, path::Path};

use groundplan_protocol::kinds::key_of;
use nix::{
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

/// Why the keys of a user cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub(crate) enum KeysError {
    #[error(
        "{FILE} is a link to {target}, outside of the home; it was left as it is, because the file may hold the keys of others; \
         replace the link by a file, or leave `ssh_keys` out"
    )]
    Elsewhere { target: String },
    #[error("{FILE} has more than {} KiB", MOST >> 10)]
    TooLong,
    #[error(transparent)]
    File(#[from] FileError),
}

const FOLDER: &str = "/.ssh";
const FILE: &str = "/.ssh/authorized_keys";
/// Most that is read of the file, in bytes.
const MOST: u64 = 1 << 20;
/// Most links followed from it to the file with the keys.
const MOST_LINKS: usize = 8;

/// The home and the owner of a key file.
pub(super) struct Place<'a> {
    pub(super) home: &'a Path,
    pub(super) uid: u32,
    pub(super) gid: u32,
}

impl Place<'_> {
    fn root(&self) -> Result<Root, FileError> {
        let home = Root::new("/".into()).directory(&self.home.to_string_lossy(), Missing::Leave)?;
        Ok(home.map_or_else(|| Root::new(self.home.to_owned()), Root::held))
    }

    fn access(&self, mode: u32) -> Access {
        Access { uid: Uid::from_raw(self.uid), gid: Gid::from_raw(self.gid), mode: Mode::from_bits_truncate(mode) }
    }

    /// Owner and mode for what is at a path of the home: as they are, if sshd(8) accepts keys there, else those of a new one.
    fn access_at(&self, root: &Root, path: &str, new: u32) -> Result<Access, KeysError> {
        let found = files::find(root, path, true)?.map(|found| found.access);
        let is_safe = |access: &Access| {
            (access.uid.is_root() || access.uid.as_raw() == self.uid) && access.mode.bits() & 0o022 == 0
        };
        Ok(found.filter(is_safe).unwrap_or_else(|| self.access(new)))
    }

    /// The path of the file below the home, with its links followed.
    fn file(&self, root: &Root) -> Result<String, KeysError> {
        let mut path = FILE.to_owned();
        for _ in 0..MOST_LINKS {
            let Some(target) = files::link_target(root, &path)? else { return Ok(path) };
            let below =
                [self.home, root.path()].into_iter().find_map(|home| Path::new(&target).strip_prefix(home).ok());
            path = match below {
                Some(below) => Path::new("/").join(below),
                None if target.starts_with('/') => return Err(KeysError::Elsewhere { target }),
                None => Path::new(&path).parent().unwrap_or(Path::new("/")).join(&target),
            }
            .to_string_lossy()
            .into_owned();
        }
        Err(KeysError::Elsewhere { target: path })
    }

    /// The content of the file; empty if there is none.
    pub(super) fn read(&self) -> Result<Vec<u8>, KeysError> {
        let root = self.root()?;
        let bytes = files::read_file(&root, &self.file(&root)?, MOST + 1)?.unwrap_or_default();
        if bytes.len() as u64 > MOST { Err(KeysError::TooLong) } else { Ok(bytes) }
    }

    /// Whether the file has that content, owner and mode.
    pub(super) fn is(&self, text: &[u8]) -> Result<bool, KeysError> {
        let root = self.root()?;
        let file = self.file(&root)?;
        Ok(files::is_directory(&root, FOLDER, self.access_at(&root, FOLDER, 0o700)?)?
            && files::is_file(&root, &file, Sum::of_bytes(text), self.access_at(&root, &file, 0o600)?)?)
    }

    pub(super) fn write(&self, text: Vec<u8>) -> Result<(), KeysError> {
        let root = self.root()?;
        let folder = self.access_at(&root, FOLDER, 0o700)?;
        if !files::is_directory(&root, FOLDER, folder)? {
            files::put_directory(&root, FOLDER, folder)?;
        }
        let (file, sum) = (self.file(&root)?, Sum::of_bytes(&text));
        let access = self.access_at(&root, &file, 0o600)?;
        Ok(files::put_file(&root, &file, &Content::Bytes(text), sum, access)?)
    }
}

/// The content with `wanted` and without `unwanted`, lines being compared by the key itself; without any other line if `only`.
pub(super) fn merged(text: &[u8], wanted: &[String], unwanted: &[String], only: bool) -> Vec<u8> {
    if let Ok(text) = std::str::from_utf8(text) {
        return merged_lines(text, wanted, unwanted, only).into_bytes();
    }
    // In another encoding: each byte as one character, so that every line comes back as it was.
    let characters = |bytes: &[u8]| bytes.iter().map(|byte| char::from(*byte)).collect::<String>();
    let wanted: Vec<String> = wanted.iter().map(|line| characters(line.as_bytes())).collect();
    let merged = merged_lines(&characters(text), &wanted, unwanted, only);
    merged.chars().map(|character| character as u8).collect()
}

fn merged_lines(text: &str, wanted: &[String], unwanted: &[String], only: bool) -> String {
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

/// The keys that a file has, without type and comment.
pub(super) fn keys_in(text: &[u8]) -> BTreeSet<String> {
    let text = String::from_utf8_lossy(text);
    let lines = text.lines().filter(|line| !line.trim_start().starts_with('#'));
    lines.filter_map(|line| key_of(line)).map(str::to_owned).collect()
}

/// The lines of a file that are not in it any more.
pub(super) fn replaced(before: &[u8], after: &[u8]) -> Vec<String> {
    let lines = |text: &[u8]| text.split(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect::<Vec<_>>();
    let after = lines(after);
    let gone = lines(before).into_iter().filter(|line| !line.trim_ascii().is_empty() && !after.contains(line));
    // In another encoding than UTF-8 it could not be noted, and so not come back as it was.
    gone.filter_map(|line| String::from_utf8(line).ok()).collect()
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
        let merge = |wanted: &[String], unwanted: &[String], only| merged_lines(&text, wanted, unwanted, only);
        assert_eq!(merge(&[key(1, "new")], &[], false), format!("# mine\n{}\n{}\n", key(1, "new"), key(2, "b")));
        assert_eq!(merge(&[key(3, "c")], &[], true), format!("{}\n", key(3, "c")));
        assert_eq!(merge(&[], &[key(2, "")], false), format!("# mine\n{}\n", key(1, "old")));
        assert_eq!(merge(&[], &["AAAA2".to_owned()], false), format!("# mine\n{}\n", key(1, "old")));
        let same = merge(&[key(2, "b")], &[], false);
        assert_eq!((same.as_str(), merged_lines(&same, &[key(2, "b")], &[], false)), (text.as_str(), same.clone()));
        assert_eq!(merged_lines("", &[key(1, "a")], &[], false), format!("{}\n", key(1, "a")));
        let latin = b"# M\xfcller\nssh-ed25519 AAAA2 caf\xe9\n";
        let wanted = [key(3, "J\u{f6}rg")];
        assert_eq!(merged(latin, &wanted, &[], false), [&latin[..], wanted[0].as_bytes(), b"\n"].concat());
    }

    #[test]
    fn the_file_stays_what_it_is_and_links_lead_nowhere_outside() {
        let dir = tempfile::tempdir().unwrap();
        let (home, outside) = (dir.path().join("home"), dir.path().join("outside"));
        std::fs::create_dir_all(&home).unwrap();
        std::fs::create_dir_all(&outside).unwrap();
        let (uid, gid) = (Uid::effective().as_raw(), Gid::effective().as_raw());
        let place = Place { home: &home, uid, gid };
        place.write(b"one\n".to_vec()).unwrap();
        assert!(place.is(b"one\n").unwrap() && place.read().unwrap() == b"one\n");
        let mode = |path: &str| std::fs::metadata(home.join(path)).unwrap().permissions().mode() & 0o7777;
        assert_eq!((mode(".ssh"), mode(".ssh/authorized_keys")), (0o700, 0o600));

        // Modes that sshd accepts stay, others are made private.
        let set = |path: &str, mode| {
            std::fs::set_permissions(home.join(path), std::fs::Permissions::from_mode(mode)).unwrap()
        };
        for (before, after) in [(0o644, 0o644), (0o400, 0o400), (0o664, 0o600)] {
            set(".ssh", before | 0o111);
            set(".ssh/authorized_keys", before);
            place.write(format!("{before}\n").into_bytes()).unwrap();
            assert!(place.is(format!("{before}\n").as_bytes()).unwrap());
            let folder = if before == after { before | 0o111 } else { 0o700 };
            assert_eq!((mode(".ssh"), mode(".ssh/authorized_keys")), (folder, after));
        }
        set(".ssh", 0o700);

        // The file is a link out of the home: neither read, nor replaced, nor written to.
        let file = home.join(".ssh/authorized_keys");
        let link = |target: &Path| {
            std::fs::remove_file(&file).unwrap();
            symlink(target, &file).unwrap();
        };
        std::fs::write(outside.join("shadow"), "precious").unwrap();
        for target in [outside.join("shadow"), "../../outside/shadow".into()] {
            link(&target);
            assert!(place.read().is_err() && place.is(b"").is_err() && place.write(b"two\n".to_vec()).is_err());
        }
        link(&outside.join("shadow"));
        let error = place.read().unwrap_err().to_string();
        assert!(
            error.contains("/.ssh/authorized_keys is a link to ") && error.contains("outside of the home"),
            "{error}"
        );
        assert_eq!(std::fs::read_to_string(outside.join("shadow")).unwrap(), "precious");
        assert!(file.is_symlink());

        // A link within the home is followed, and stays.
        std::fs::write(home.join("keys"), "three\n").unwrap();
        for target in [home.join("keys"), "../keys".into()] {
            link(&target);
            let text = [place.read().unwrap(), b"four\n".to_vec()].concat();
            place.write(text.clone()).unwrap();
            assert!(file.is_symlink() && place.is(&text).unwrap());
        }
        assert_eq!(std::fs::read_to_string(home.join("keys")).unwrap(), "three\nfour\nfour\n");

        // What is no file, or too long, is not replaced.
        std::fs::remove_file(&file).unwrap();
        std::fs::create_dir(&file).unwrap();
        assert!(place.read().is_err());
        std::fs::remove_dir(&file).unwrap();
        std::fs::write(&file, vec![b'#'; MOST as usize + 1]).unwrap();
        assert!(place.read().unwrap_err().to_string().contains("more than 1024 KiB"));

        // The folder is a link out of the home: refused.
        std::fs::remove_dir_all(home.join(".ssh")).unwrap();
        symlink(&outside, home.join(".ssh")).unwrap();
        assert!(place.write(b"three\n".to_vec()).unwrap_err().to_string().contains("leads out of the root"));
        assert!(!outside.join("authorized_keys").exists());
    }
}
