//! The site's git repository: branches, commits, trees, and notice when a branch moves.
//!
//! In: a path or a URL. Out: commit ids, descriptions of commits, and the tree of a commit as the core's `SourceTree`. Objects are
//! read by libgit2, or by the `git` command where libgit2 cannot open the repository (reftable, SHA-256, partial clones). The network is
//! used by the `git` command only, so that its credentials, proxies and ssh configuration work, and within limits of time. Never writes to
//! a repository except the mirror that it made itself, never checks anything out, never follows a symbolic link or a submodule.

mod ancestry;
mod backend;
mod command;
mod error;
pub(crate) mod follow;
mod lfs;
mod local;
mod objects;
mod process;
mod read;
mod remote;
mod tree;
pub mod watch;
mod work_tree;

use std::{
    path::{Path, PathBuf},
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use groundplan_protocol::ids::CommitId;

use self::{backend::Backend, process::Processes, read::Paths};
pub use self::{error::RepositoryError, read::CommitInfo, remote::is_remote, tree::GitTree, work_tree::WorkTree};

/// An open repository. Cheap to clone; may be used from several threads.
#[derive(Clone)]
pub struct Repository {
    opened: Arc<RwLock<Opened>>,
    /// The URL that it mirrors.
    remote: Option<Arc<str>>,
    processes: Processes,
}

/// How it is read, and where it lies. An empty mirror is opened again once the object format of its remote is known.
#[derive(Clone)]
struct Opened {
    backend: Arc<Backend>,
    paths: Arc<Paths>,
}

impl Opened {
    fn open(path: &Path, discover: bool, processes: &Processes) -> Result<Self, RepositoryError> {
        if !path.exists() {
            return Err(RepositoryError::Missing { path: path.to_owned() });
        }
        let (backend, paths) = Backend::open(path, discover, processes)?;
        Ok(Self { backend: Arc::new(backend), paths: Arc::new(paths) })
    }
}

impl Repository {
    /// Opens a path: a bare repository, a work tree's top, or a `.git` directory.
    ///
    /// # Errors
    /// The path does not exist, is not a repository, or belongs to another user and git does not trust it.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, RepositoryError> {
        Self::open_with(path.as_ref(), false, None)
    }

    /// Opens the repository that contains `path`, as `git` itself would find it; respects `GIT_DIR` and related variables, so that it
    /// works in hooks.
    ///
    /// # Errors
    /// As [`Repository::open`].
    pub fn discover(path: impl AsRef<Path>) -> Result<Self, RepositoryError> {
        Self::open_with(path.as_ref(), true, None)
    }

    /// Opens a path as [`Repository::open`] does, or for a URL a bare mirror of its branches in `state_dir`, as it was fetched before: it
    /// is empty at first. Does not use the network.
    ///
    /// # Errors
    /// As [`Repository::open`], or the mirror cannot be made.
    pub fn open_location(location: &str, state_dir: &Path) -> Result<Self, RepositoryError> {
        if !is_remote(location) {
            return Self::open(location);
        }
        let mirror = remote::mirror(location, state_dir, &Processes::default())?;
        Self::open_with(&mirror, false, Some(location.into()))
    }

    fn open_with(path: &Path, discover: bool, remote: Option<Arc<str>>) -> Result<Self, RepositoryError> {
        let processes = Processes::default();
        let opened = Arc::new(RwLock::new(Opened::open(path, discover, &processes)?));
        Ok(Self { opened, remote, processes })
    }

    fn opened(&self) -> Opened {
        self.opened.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn backend(&self) -> Arc<Backend> {
        self.opened().backend
    }

    fn has_branches(&self) -> bool {
        self.backend().branches().is_ok_and(|branches| !branches.is_empty())
    }

    /// Ends every `git` that runs for it. None is started any more.
    pub(crate) fn stop(&self) {
        self.processes.stop();
    }

    /// Fetches all branches from the mirrored URL; does nothing for a local repository. Blocks on the network: `silence` is how long the
    /// server may send nothing. `progress` is called with what git reports meanwhile.
    ///
    /// # Errors
    /// `git` failed or was ended.
    pub fn fetch(&self, silence: Duration, progress: &mut dyn FnMut(&str)) -> Result<(), RepositoryError> {
        let Some(url) = &self.remote else { return Ok(()) };
        let mirror = self.opened().paths.git_dir.clone();
        // The first time, the mirror gets the format and the default branch of its remote.
        let head = if self.has_branches() { None } else { Some(remote::head(url, silence, &self.processes)?) };
        if let Some(format @ "sha256") = head.as_ref().and_then(|head| head.format)
            && matches!(*self.backend(), Backend::LibGit2(_))
        {
            remote::create_again(&mirror, format, &self.processes)?;
            let opened = Opened::open(&mirror, false, &self.processes)?;
            *self.opened.write().unwrap_or_else(PoisonError::into_inner) = opened;
        }
        remote::fetch(url, &mirror, silence, &self.processes, progress)?;
        if self.default_branch().is_ok_and(|branch| self.has(&branch)) {
            return Ok(());
        }
        // Its default branch has another name by now.
        let head = head.map_or_else(|| remote::head(url, silence, &self.processes), Ok)?;
        match head.branch {
            Some(branch) => remote::set_head(&mirror, &branch, &self.processes),
            None => Ok(()),
        }
    }

    /// Whether it has a branch of that name.
    fn has(&self, branch: &str) -> bool {
        self.backend().branch(branch).is_ok_and(|tip| tip.is_some())
    }

    /// The directories whose files change when a branch moves: that of `HEAD`, and that of `refs`.
    pub(crate) fn git_dirs(&self) -> [PathBuf; 2] {
        let paths = self.opened().paths;
        [paths.git_dir.clone(), paths.common_dir.clone()]
    }

    /// Whether it mirrors a URL and has to be fetched.
    pub fn is_mirror(&self) -> bool {
        self.remote.is_some()
    }

    /// The branch to follow if none is configured: the one that `HEAD` names; of a mirror, that of its remote when it was last asked.
    ///
    /// # Errors
    /// `HEAD` is detached.
    pub fn default_branch(&self) -> Result<String, RepositoryError> {
        self.backend().default_branch()
    }

    /// The commit at the tip of a branch, given with or without `refs/heads/`.
    ///
    /// # Errors
    /// No such branch (the error lists those that exist), or the repository has no commit yet.
    pub fn branch(&self, name: &str) -> Result<CommitId, RepositoryError> {
        let short = name.strip_prefix("refs/heads/").unwrap_or(name);
        let Opened { backend, paths } = self.opened();
        if let Some(commit) = backend.branch(short)? {
            return Ok(commit);
        }
        let mut branches = backend.branches()?;
        if branches.is_empty() {
            return Err(RepositoryError::Empty { path: paths.given.clone() });
        }
        branches.sort();
        Err(RepositoryError::NoBranch { branch: short.to_owned(), branches })
    }

    /// The commit that an expression names, as in gitrevisions(7).
    ///
    /// # Errors
    /// It names no commit.
    pub fn rev_parse(&self, rev: &str) -> Result<CommitId, RepositoryError> {
        let Opened { backend, paths } = self.opened();
        backend.rev_parse(rev).map_err(|error| match error {
            RepositoryError::NoCommit { rev, .. } => {
                RepositoryError::NoCommit { rev, shallow: paths.common_dir.join("shallow").exists() }
            }
            other => other,
        })
    }

    /// The two commits of `BASE..HEAD`; a missing end is `HEAD`.
    ///
    /// # Errors
    /// No `..` in it, or an end names no commit.
    pub fn range(&self, range: &str) -> Result<(CommitId, CommitId), RepositoryError> {
        let (base, target) = range
            .split_once("..")
            .filter(|(_, target)| !target.starts_with('.'))
            .ok_or_else(|| RepositoryError::NoRange { given: range.to_owned() })?;
        let end = |rev: &str| self.rev_parse(if rev.is_empty() { "HEAD" } else { rev });
        Ok((end(base)?, end(target)?))
    }

    /// Subject, author and time of a commit.
    ///
    /// # Errors
    /// It is not in the repository, or no longer.
    pub fn describe(&self, commit: &CommitId) -> Result<CommitInfo, RepositoryError> {
        self.backend().describe(commit)
    }

    /// The tree of a commit. Entries are listed now, files are read when they are needed.
    ///
    /// # Errors
    /// The commit is not in the repository, or no longer; or the repository is damaged.
    pub fn tree(&self, commit: &CommitId) -> Result<GitTree, RepositoryError> {
        let backend = self.backend();
        let entries = backend.entries(commit)?;
        Ok(GitTree::new(backend, entries, self.remote.clone()))
    }
}

#[cfg(test)]
mod tests;
