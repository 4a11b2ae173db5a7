//! Paths of tasks, found below the root without ever leaving it.
//!
//! In: a path as the operator wrote it, absolute on the node. Out: a handle on its parent directory, and its last name.
//! Resolved one component at a time through directory handles, so that no component can be swapped in between. With the
//! root `/`, symbolic links among the parents are followed as on any host (`/var/run`); with another root a link that is
//! absolute or climbs above the root is an error. The last component is never followed here.

use std::{
    ffi::{OsStr, OsString},
    io,
    os::{
        fd::{AsFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::{Component, Path, PathBuf},
};

use nix::{
    errno::Errno,
    fcntl::{OFlag, open, openat, readlinkat},
    sys::stat::{FchmodatFlags, Mode, fchmodat, mkdirat},
};

/// Most links followed on one path, as in the kernel (path_resolution(7)).
const MAX_LINKS: usize = 40;

const DIRECTORY: OFlag = OFlag::O_PATH.union(OFlag::O_DIRECTORY).union(OFlag::O_NOFOLLOW).union(OFlag::O_CLOEXEC);

/// Why a path cannot be resolved below the root.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PathError {
    #[error("{path}: the symbolic link {link} leads out of the root")]
    Escapes { path: String, link: String },
    #[error("{path}: {part} is not a directory")]
    NotADirectory { path: String, part: String },
    #[error("{path}: cannot {doing} {part}")]
    Io { path: String, doing: &'static str, part: String, source: io::Error },
    #[error("{path}: not a path to a file")]
    Unnamed { path: String },
}

impl PathError {
    /// Whether a file is where a directory should be.
    pub(crate) fn is_not_a_directory(&self) -> bool {
        matches!(self, Self::NotADirectory { .. })
    }
}

/// What to do about missing parents.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Missing {
    /// Create them, with mode 0755.
    Create,
    /// Leave them: nothing is found.
    Leave,
}

/// The directory below which all paths of tasks are.
#[derive(Debug, Clone)]
pub(crate) struct Root(PathBuf);

/// The place of a file: its directory, opened, and its name there.
#[derive(Debug)]
pub(crate) struct Place {
    pub(crate) dir: OwnedFd,
    pub(crate) name: OsString,
    /// The real path on this host, with links resolved.
    pub(crate) real: PathBuf,
}

impl Root {
    pub(crate) fn new(dir: PathBuf) -> Self {
        Self(dir)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    /// The place of `path`; `None` if a parent is missing and is not to be created.
    pub(crate) fn place(&self, path: &str, missing: Missing) -> Result<Option<Place>, PathError> {
        let (parent, name) = match path.rsplit_once('/') {
            Some((parent, name)) if !matches!(name, "" | "." | "..") => (parent, name),
            _ => return Err(PathError::Unnamed { path: path.to_owned() }),
        };
        let walk = Walk::new(self, path, missing)?;
        Ok(walk.to(parent)?.map(|(dir, real)| Place { dir, name: name.into(), real: real.join(name) }))
    }

    /// The directory `path` with all its links followed; `None` if it is missing.
    pub(crate) fn directory(&self, path: &str, missing: Missing) -> Result<Option<(OwnedFd, PathBuf)>, PathError> {
        Walk::new(self, path, missing)?.to(path)
    }

    /// Whether anything is at `path`; the last component may be any file, even a dangling link.
    pub(crate) fn exists(&self, path: &str) -> Result<bool, PathError> {
        Ok(match self.place(path, Missing::Leave) {
            Ok(Some(place)) => std::fs::symlink_metadata(&place.real).is_ok(),
            Ok(None) | Err(PathError::NotADirectory { .. }) => false,
            Err(e) => return Err(e),
        })
    }
}

/// A walk from the root downwards.
struct Walk<'a> {
    root: &'a Root,
    path: &'a str,
    missing: Missing,
    top: OwnedFd,
    /// The directories below the root that the walk has entered, outermost first.
    entered: Vec<(OwnedFd, OsString)>,
    /// The last link that was followed, as seen on the node.
    followed: String,
}

impl<'a> Walk<'a> {
    fn new(root: &'a Root, path: &'a str, missing: Missing) -> Result<Self, PathError> {
        let flags = DIRECTORY.difference(OFlag::O_NOFOLLOW);
        let top = open(&root.0, flags, Mode::empty()).map_err(|e| PathError::Io {
            path: path.to_owned(),
            doing: "open the root",
            part: root.0.display().to_string(),
            source: e.into(),
        })?;
        Ok(Self { root, path, missing, top, entered: Vec::new(), followed: String::new() })
    }

    fn to(mut self, directory: &str) -> Result<Option<(OwnedFd, PathBuf)>, PathError> {
        // The components that are still to be walked, the next one last.
        let mut rest: Vec<OsString> = names(Path::new(directory));
        let mut links = 0;
        while let Some(name) = rest.pop() {
            if name == ".." {
                // On a host, `..` of `/` is `/`; below another root it would be a directory outside.
                if self.entered.pop().is_none() && !self.on_host() {
                    return Err(self.escapes());
                }
                continue;
            }
            // Without following links: the kernel would follow them out of the root.
            match openat(self.here(), name.as_os_str(), DIRECTORY, Mode::empty()) {
                Ok(dir) => self.entered.push((dir, name)),
                Err(Errno::ENOENT) if self.missing == Missing::Leave => return Ok(None),
                Err(Errno::ENOENT) => {
                    // Opened in the next round like any other, since someone may have replaced it by a link.
                    self.create(&name)?;
                    rest.push(name);
                }
                // A link, or a file, for which `link` returns the error. The target's components are walked like the others.
                Err(Errno::ENOTDIR | Errno::ELOOP) => {
                    links += 1;
                    let target = self.link(&name, links)?;
                    self.followed = self.part(&name);
                    if target.is_absolute() {
                        if !self.on_host() {
                            return Err(self.escapes());
                        }
                        self.entered.clear();
                    }
                    rest.extend(names(&target));
                }
                Err(e) => return Err(self.io("open", &name, e)),
            }
        }
        let real = self.entered.iter().fold(self.root.0.clone(), |path, (_, name)| path.join(name));
        let dir = self.entered.pop().map_or(self.top, |(dir, _)| dir);
        Ok(Some((dir, real)))
    }

    fn on_host(&self) -> bool {
        self.root.0 == Path::new("/")
    }

    fn here(&self) -> &OwnedFd {
        self.entered.last().map_or(&self.top, |(dir, _)| dir)
    }

    fn create(&self, name: &OsStr) -> Result<(), PathError> {
        let mode = Mode::from_bits_truncate(0o755);
        match mkdirat(self.here(), name, mode) {
            // Another job has created it meanwhile.
            Err(Errno::EEXIST) => return Ok(()),
            result => result.map_err(|e| self.io("create the directory", name, e))?,
        }
        // The umask of the agent does not count.
        fchmodat(self.here(), name, mode, FchmodatFlags::FollowSymlink).map_err(|e| self.io("set the mode of", name, e))
    }

    /// The target of the link `name`.
    fn link(&self, name: &OsStr, links: usize) -> Result<PathBuf, PathError> {
        if links > MAX_LINKS {
            return Err(self.io("follow", name, Errno::ELOOP));
        }
        match readlinkat(self.here().as_fd(), name) {
            Ok(target) => Ok(target.into()),
            Err(Errno::EINVAL) => Err(PathError::NotADirectory { path: self.path.to_owned(), part: self.part(name) }),
            Err(e) => Err(self.io("read the link", name, e)),
        }
    }

    /// `name` here, as seen on the node.
    fn part(&self, name: &OsStr) -> String {
        let mut part = String::new();
        for name in self.entered.iter().map(|(_, name)| name.as_os_str()).chain([name]) {
            part.push('/');
            part.push_str(&String::from_utf8_lossy(name.as_bytes()));
        }
        part
    }

    fn escapes(&self) -> PathError {
        PathError::Escapes { path: self.path.to_owned(), link: self.followed.clone() }
    }

    fn io(&self, doing: &'static str, name: &OsStr, source: Errno) -> PathError {
        PathError::Io { path: self.path.to_owned(), doing, part: self.part(name), source: source.into() }
    }
}

/// The names in `path`, last first.
fn names(path: &Path) -> Vec<OsString> {
    let name = |part: Component<'_>| match part {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some("..".into()),
        _ => None,
    };
    path.components().rev().filter_map(name).collect()
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::symlink};

    use super::*;

    fn real(root: &Path, path: &str) -> Result<Option<PathBuf>, String> {
        let place = Root::new(root.to_owned()).place(path, Missing::Leave);
        place.map(|place| place.map(|p| p.real.strip_prefix(root).unwrap().to_owned())).map_err(|e| e.to_string())
    }

    #[test]
    fn links_stay_below_the_root() {
        let dir = tempfile::tempdir().unwrap();
        let (outside, root) = (dir.path().join("outside"), dir.path().join("root"));
        fs::create_dir_all(&outside).unwrap();
        fs::create_dir_all(root.join("var/lib")).unwrap();
        symlink("lib/../lib", root.join("var/good")).unwrap();
        symlink(&outside, root.join("absolute")).unwrap();
        symlink("../../outside", root.join("var/climbs")).unwrap();
        symlink("loop", root.join("loop")).unwrap();
        fs::write(root.join("file"), "").unwrap();

        assert_eq!(real(&root, "/var/good/x").unwrap().unwrap(), Path::new("var/lib/x"));
        assert_eq!(real(&root, "/var/none/x"), Ok(None));
        for (path, error) in [
            ("/absolute/x", "/absolute/x: the symbolic link /absolute leads out of the root"),
            ("/var/climbs/x", "/var/climbs/x: the symbolic link /var/climbs leads out of the root"),
            ("/loop/x", "/loop/x: cannot follow /loop"),
            ("/file/x", "/file/x: /file is not a directory"),
            ("/var/..", "/var/..: not a path to a file"),
        ] {
            assert_eq!(real(&root, path), Err(error.to_owned()));
        }
        assert!(fs::read_dir(&outside).unwrap().next().is_none());
    }

    #[test]
    fn on_a_host_links_are_followed() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("there")).unwrap();
        symlink(dir.path().join("there"), dir.path().join("here")).unwrap();
        let path = dir.path().join("here/x");
        let place = Root::new("/".into()).place(path.to_str().unwrap(), Missing::Leave).unwrap().unwrap();
        assert_eq!(place.real, dir.path().canonicalize().unwrap().join("there/x"));
    }

    #[test]
    fn missing_parents_are_created() {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::new(dir.path().to_owned());
        assert!(!root.exists("/a/b/c").unwrap());
        root.place("/a/b/c", Missing::Create).unwrap().unwrap();
        let mode =
            std::os::unix::fs::PermissionsExt::mode(&fs::metadata(dir.path().join("a/b")).unwrap().permissions());
        assert_eq!(mode & 0o7777, 0o755);
    }
}
