//! Paths of tasks, found below the root without ever leaving it.
//!
//! In: a path as the operator wrote it, absolute on the node. Out: a handle on its parent directory, and its last name.
//! Resolved one component at a time through directory handles, so that no component can be swapped in between. With the
//! root `/`, symbolic links among the parents are followed as on any host (`/var/run`); with another root a link that is
//! absolute or climbs above the root is an error. The last component is never followed here.
//!
//! A link that a user made, or may have put where it is, leads only to a directory of that user, as with systemd's `CHASE_SAFE`: the
//! agent works as root, and would write for the user where only root may. What is done at a place goes through its handle, which
//! stays on the directory that was checked.

use std::{
    ffi::{OsStr, OsString},
    io,
    os::{
        fd::{AsRawFd as _, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::{Component, Path, PathBuf},
    sync::Arc,
};

use nix::{
    errno::Errno,
    fcntl::{AtFlags, OFlag, open, openat, readlinkat},
    sys::stat::{Mode, fchmod, fstat, fstatat, mkdirat},
    unistd::Uid,
};

use super::users;

/// Most links followed on one path, as in the kernel (path_resolution(7)).
const MAX_LINKS: usize = 40;

const DIRECTORY: OFlag = OFlag::O_PATH.union(OFlag::O_DIRECTORY).union(OFlag::O_NOFOLLOW).union(OFlag::O_CLOEXEC);

/// Why a path cannot be resolved below the root.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PathError {
    #[error("{path}: the symbolic link {link} leads out of the root")]
    Escapes { path: String, link: String },
    /// `link` is the link with its target, and who has it under control.
    #[error(
        "{path}: the symbolic link {link} and leads to what is not theirs: it is not followed; name the path that it leads to, or replace the link"
    )]
    Unsafe { path: String, link: String },
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
pub(crate) struct Root {
    path: PathBuf,
    /// The directory itself, where others may put another one at its path.
    held: Option<Arc<OwnedFd>>,
}

/// The place of a file: its directory, opened, and its name there.
#[derive(Debug)]
pub(crate) struct Place {
    pub(crate) dir: OwnedFd,
    pub(crate) name: OsString,
    /// The real path on this host, with links resolved.
    pub(crate) real: PathBuf,
}

impl Root {
    pub(crate) fn new(path: PathBuf) -> Self {
        Self { path, held: None }
    }

    /// A directory that was found below another root.
    pub(crate) fn held((dir, path): (OwnedFd, PathBuf)) -> Self {
        Self { path, held: Some(Arc::new(dir)) }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
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
            Ok(Some(place)) => fstatat(&place.dir, place.name.as_os_str(), AtFlags::AT_SYMLINK_NOFOLLOW).is_ok(),
            Ok(None) | Err(PathError::NotADirectory { .. }) => false,
            Err(e) => return Err(e),
        })
    }
}

/// A path to an open directory that stays on it, for what takes only paths.
pub(crate) fn path_of(dir: &OwnedFd) -> PathBuf {
    format!("/proc/self/fd/{}", dir.as_raw_fd()).into()
}

/// The user who has a link under control: who owns it, or the directory that it is in. `None` for root, and for the agent's own.
/// Where the two are different users, what the link leads to cannot be of both.
pub(super) fn controls(dir: u32, link: u32, before: Option<u32>) -> Result<Option<u32>, u32> {
    let mut found = before;
    for uid in [dir, link] {
        match found {
            _ if uid == 0 || uid == Uid::effective().as_raw() => {}
            Some(other) if other != uid => return Err(other),
            _ => found = Some(uid),
        }
    }
    Ok(found)
}

/// A link that was followed and that a user has under control: what it leads to must be theirs.
struct Bound {
    user: u32,
    /// The link and its target.
    link: String,
    /// How many names are left to be walked where it leads to.
    left: usize,
    /// Whether the directory there is still to be checked.
    due: bool,
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
    bound: Option<Bound>,
}

impl<'a> Walk<'a> {
    fn new(root: &'a Root, path: &'a str, missing: Missing) -> Result<Self, PathError> {
        let top = match &root.held {
            Some(dir) => dir.try_clone(),
            None => open(&root.path, DIRECTORY.difference(OFlag::O_NOFOLLOW), Mode::empty()).map_err(io::Error::from),
        };
        let top = top.map_err(|source| PathError::Io {
            path: path.to_owned(),
            doing: "open the root",
            part: root.path.display().to_string(),
            source,
        })?;
        Ok(Self { root, path, missing, top, entered: Vec::new(), followed: String::new(), bound: None })
    }

    fn to(mut self, directory: &str) -> Result<Option<(OwnedFd, PathBuf)>, PathError> {
        // The components that are still to be walked, the next one last.
        let mut rest: Vec<OsString> = names(Path::new(directory));
        let mut links = 0;
        loop {
            self.check(rest.len())?;
            let Some(name) = rest.pop() else { break };
            if name == ".." {
                // It may lead above what was checked.
                self.bound.iter_mut().for_each(|bound| bound.due = true);
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
                    // A user's link would have it made wherever it leads.
                    if let Some(bound) = self.bound.take_if(|bound| bound.due) {
                        return Err(self.not_theirs(bound));
                    }
                    // Opened in the next round like any other, since someone may have replaced it by a link.
                    self.create(&name)?;
                    rest.push(name);
                }
                // A link, or a file, for which `link` returns the error. The target's components are walked like the others.
                Err(Errno::ENOTDIR | Errno::ELOOP) => {
                    links += 1;
                    let target = self.link(&name, links, rest.len())?;
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
        let real = self.entered.iter().fold(self.root.path.clone(), |path, (_, name)| path.join(name));
        let dir = self.entered.pop().map_or(self.top, |(dir, _)| dir);
        Ok(Some((dir, real)))
    }

    fn on_host(&self) -> bool {
        self.root.path == Path::new("/")
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
        // The umask of the agent does not count. By a handle: its name may be a link by now.
        let flags = DIRECTORY.difference(OFlag::O_PATH);
        let dir = openat(self.here(), name, flags, Mode::empty()).map_err(|e| self.io("open", name, e))?;
        fchmod(&dir, mode).map_err(|e| self.io("set the mode of", name, e))
    }

    /// The target of the link `name`, after which `left` names are to be walked.
    fn link(&mut self, name: &OsStr, links: usize, left: usize) -> Result<PathBuf, PathError> {
        if links > MAX_LINKS {
            return Err(self.io("follow", name, Errno::ELOOP));
        }
        let failed = |e| self.io("read the link", name, e);
        // One handle for owner and target: the name may be another link's in between.
        let flags = DIRECTORY.difference(OFlag::O_DIRECTORY);
        let link = openat(self.here(), name, flags, Mode::empty()).map_err(failed)?;
        let target: PathBuf = match readlinkat(&link, "") {
            Ok(target) => target.into(),
            Err(Errno::EINVAL | Errno::ENOENT) => {
                return Err(PathError::NotADirectory { path: self.path.to_owned(), part: self.part(name) });
            }
            Err(e) => return Err(failed(e)),
        };
        let [dir, owner] = [fstat(self.here()).map_err(failed)?.st_uid, fstat(&link).map_err(failed)?.st_uid];
        let bound =
            |user| Bound { user, link: format!("{} to {}", self.part(name), target.display()), left, due: true };
        let before = self.bound.as_ref().filter(|bound| bound.due).map(|bound| bound.user);
        match controls(dir, owner, before) {
            // On the way to where another leads, only the end of that is checked.
            Ok(_) if before.is_some() => {}
            Ok(Some(user)) => self.bound = Some(bound(user)),
            Ok(None) => {}
            Err(user) => return Err(self.not_theirs(bound(user))),
        }
        Ok(target)
    }

    /// Checks the directory that a user's link leads to, once the walk is there.
    fn check(&mut self, left: usize) -> Result<(), PathError> {
        if let Some(mut bound) = self.bound.take_if(|bound| bound.due && left <= bound.left) {
            if !fstat(self.here()).is_ok_and(|found| found.st_uid == bound.user) {
                return Err(self.not_theirs(bound));
            }
            bound.due = false;
            self.bound = Some(bound);
        }
        Ok(())
    }

    fn not_theirs(&self, Bound { user, link, .. }: Bound) -> PathError {
        let user = users::user_name(Uid::from_raw(user));
        let link = format!("{link} is under the control of the user {user}");
        PathError::Unsafe { path: self.path.to_owned(), link }
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
