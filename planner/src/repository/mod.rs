//! The site's git repository: branches, commits, trees, and notice when a branch moves.
//!
//! In: a path or a URL. Out: commit ids, descriptions of commits, and the tree of a commit as the core's `SourceTree`. Objects are
//! read by libgit2, or by the `git` command where libgit2 cannot open the repository (reftable, SHA-256). The network is used by the
//! `git` command only, so that its credentials, proxies and ssh configuration work. Never writes to a repository except the mirror
//! that it made itself, never checks anything out, never follows a symbolic link or a submodule.

mod ancestry;
mod backend;
mod command;
mod error;
mod local;
mod objects;
mod read;
mod remote;
mod tree;
pub mod watch;
mod work_tree;

use std::{path::Path, sync::Arc};

use groundplan_protocol::ids::CommitId;

use self::{backend::Backend, read::Paths};
pub use self::{error::RepositoryError, read::CommitInfo, remote::is_remote, tree::GitTree, work_tree::WorkTree};

/// An open repository. Cheap to clone; may be used from several threads.
#[derive(Clone)]
pub struct Repository {
    backend: Arc<Backend>,
    paths: Arc<Paths>,
    /// The URL that it mirrors.
    remote: Option<Arc<str>>,
}

impl Repository {
    /// Opens a path: a bare repository, a work tree's top, or a `.git` directory.
    ///
    /// # Errors
    /// The path does not exist, is not a repository, or belongs to another user and git does not trust it.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, RepositoryError> {
        Self::open_with(path.as_ref(), false)
    }

    /// Opens the repository that contains `path`, as `git` itself would find it; respects `GIT_DIR` and related variables, so that it
    /// works in hooks.
    ///
    /// # Errors
    /// As [`Repository::open`].
    pub fn discover(path: impl AsRef<Path>) -> Result<Self, RepositoryError> {
        Self::open_with(path.as_ref(), true)
    }

    /// Opens a path as [`Repository::open`] does, or a URL through a bare mirror of its branches in `state_dir`, which is fetched first.
    /// Blocks on the network in the latter case.
    ///
    /// # Errors
    /// As [`Repository::open`], or `git fetch` failed and the mirror is still empty.
    pub fn open_location(location: &str, state_dir: &Path) -> Result<Self, RepositoryError> {
        if !is_remote(location) {
            return Self::open(location);
        }
        let mirror = remote::mirror(location, state_dir)?;
        let mut repository = Self::open(&mirror)?;
        repository.remote = Some(location.into());
        match repository.fetch() {
            // What was mirrored before is used until the remote answers again.
            Err(error) if repository.has_branches() => {
                tracing::warn!(%error, "cannot fetch; using the branches that were mirrored before")
            }
            fetched => fetched?,
        }
        Ok(repository)
    }

    fn has_branches(&self) -> bool {
        self.backend.branches().is_ok_and(|branches| !branches.is_empty())
    }

    fn open_with(path: &Path, discover: bool) -> Result<Self, RepositoryError> {
        if !path.exists() {
            return Err(RepositoryError::Missing { path: path.to_owned() });
        }
        let (backend, paths) = Backend::open(path, discover)?;
        Ok(Self { backend: Arc::new(backend), paths: Arc::new(paths), remote: None })
    }

    /// Fetches all branches from the mirrored URL; does nothing for a local repository. Blocks on the network.
    ///
    /// # Errors
    /// `git fetch` failed.
    pub fn fetch(&self) -> Result<(), RepositoryError> {
        match &self.remote {
            Some(url) => remote::fetch(url, &self.paths.git_dir),
            None => Ok(()),
        }
    }

    /// The directories whose files change when a branch moves: that of `HEAD`, and that of `refs`.
    pub(crate) fn git_dirs(&self) -> [&Path; 2] {
        [&self.paths.git_dir, &self.paths.common_dir]
    }

    /// Whether it mirrors a URL and has to be fetched.
    pub fn is_mirror(&self) -> bool {
        self.remote.is_some()
    }

    /// The branch to follow if none is configured: the one that `HEAD` names, of the remote if there is one (which blocks on the network).
    ///
    /// # Errors
    /// `HEAD` is detached, or the remote does not answer.
    pub fn default_branch(&self) -> Result<String, RepositoryError> {
        match &self.remote {
            Some(url) => remote::default_branch(url),
            None => self.backend.default_branch(),
        }
    }

    /// The commit at the tip of a branch, given with or without `refs/heads/`.
    ///
    /// # Errors
    /// No such branch (the error lists those that exist), or the repository has no commit yet.
    pub fn branch(&self, name: &str) -> Result<CommitId, RepositoryError> {
        let short = name.strip_prefix("refs/heads/").unwrap_or(name);
        if let Some(commit) = self.backend.branch(short)? {
            return Ok(commit);
        }
        let mut branches = self.backend.branches()?;
        if branches.is_empty() {
            return Err(RepositoryError::Empty { path: self.paths.given.clone() });
        }
        branches.sort();
        Err(RepositoryError::NoBranch { branch: short.to_owned(), branches })
    }

    /// The commit that an expression names, as in gitrevisions(7).
    ///
    /// # Errors
    /// It names no commit.
    pub fn rev_parse(&self, rev: &str) -> Result<CommitId, RepositoryError> {
        self.backend.rev_parse(rev)
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
        self.backend.describe(commit)
    }

    /// The tree of a commit. Entries are listed now, files are read when they are needed.
    ///
    /// # Errors
    /// The commit is not in the repository, or no longer; or the repository is damaged.
    pub fn tree(&self, commit: &CommitId) -> Result<GitTree, RepositoryError> {
        Ok(GitTree::new(self.backend.clone(), self.backend.entries(commit)?))
    }
}

#[cfg(test)]
mod tests;
