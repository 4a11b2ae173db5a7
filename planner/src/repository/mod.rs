//! The site's git repository: branches, commits, trees, and word when a branch moves.
//!
//! In: a path or a URL. Out: commit ids, commits in a few words, and the tree of a commit as the core's `SourceTree`. Objects are
//! read by libgit2, or by the `git` command where libgit2 cannot open the repository (reftable, SHA-256). The network is the `git`
//! command's alone, so that its credentials, proxies and ssh configuration work. Never writes to a repository but the mirror
//! that it made itself, never checks anything out, never follows a symbolic link or a submodule.

mod command;
mod error;
mod objects;
mod remote;
mod tree;
pub mod watch;

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use groundplan_protocol::ids::CommitId;

use self::{command::GitCommand, objects::Objects};
pub use self::{error::RepositoryError, remote::is_remote, tree::GitTree};

/// An open repository. Cheap to clone; may be used from several threads.
#[derive(Clone)]
pub struct Repository {
    backend: Arc<Backend>,
    paths: Arc<Paths>,
    remote: Option<Arc<str>>,
}

/// Who reads.
enum Backend {
    LibGit2(Objects),
    Git(GitCommand),
}

/// Where a repository lies.
#[derive(Debug, Clone)]
struct Paths {
    /// As given.
    given: PathBuf,
    /// The directory with `HEAD` (a work tree's own, for linked work trees).
    git_dir: PathBuf,
    /// The directory with `refs` and `objects`.
    common_dir: PathBuf,
}

/// A commit in a few words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommitInfo {
    /// Its id.
    pub id: CommitId,
    /// The first line of its message.
    pub subject: String,
    /// Its author's name.
    pub author: String,
    /// When it was committed, in seconds since the Unix epoch.
    pub time: i64,
}

impl Repository {
    /// Opens a path: a bare repository, a work tree's top, or a `.git` directory.
    ///
    /// # Errors
    /// Not there, not a repository, or one of another user that git does not trust.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, RepositoryError> {
        Self::open_with(path.as_ref(), false)
    }

    /// Opens the repository that `path` lies in, as `git` itself would find it; heeds `GIT_DIR` and its like, so that it works in hooks.
    ///
    /// # Errors
    /// As [`Repository::open`].
    pub fn discover(path: impl AsRef<Path>) -> Result<Self, RepositoryError> {
        Self::open_with(path.as_ref(), true)
    }

    /// Opens a path as [`Repository::open`] does, or a URL through a bare mirror of its branches in `state_dir`, fetched first.
    /// Blocks on the network in the latter case.
    ///
    /// # Errors
    /// As [`Repository::open`], or what `git fetch` says.
    pub fn open_location(location: &str, state_dir: &Path) -> Result<Self, RepositoryError> {
        if !is_remote(location) {
            return Self::open(location);
        }
        let mirror = remote::mirror(location, state_dir)?;
        let mut repository = Self::open(&mirror)?;
        repository.remote = Some(location.into());
        match repository.fetch() {
            // What was mirrored before serves until the remote answers again.
            Err(error) if repository.has_branches() => {
                tracing::warn!(%error, "cannot fetch; going on with what was mirrored")
            }
            fetched => fetched?,
        }
        Ok(repository)
    }

    fn has_branches(&self) -> bool {
        let branches = match &*self.backend {
            Backend::LibGit2(objects) => objects.branches(),
            Backend::Git(git) => git.branches(),
        };
        branches.is_ok_and(|branches| !branches.is_empty())
    }

    fn open_with(path: &Path, discover: bool) -> Result<Self, RepositoryError> {
        if !path.exists() {
            return Err(RepositoryError::Missing { path: path.to_owned() });
        }
        let (backend, paths) = match Objects::open(path, discover) {
            Ok((objects, paths)) => (Backend::LibGit2(objects), paths),
            Err(error) if error.is_unsupported() => {
                let (git, paths) = GitCommand::open(path, discover)?;
                (Backend::Git(git), paths)
            }
            Err(error) => return Err(error),
        };
        Ok(Self { backend: Arc::new(backend), paths: Arc::new(paths), remote: None })
    }

    /// Fetches all branches from where the repository was mirrored; nothing to do for a local one. Blocks on the network.
    ///
    /// # Errors
    /// What `git fetch` says.
    pub fn fetch(&self) -> Result<(), RepositoryError> {
        match &self.remote {
            Some(url) => remote::fetch(url, &self.paths.git_dir),
            None => Ok(()),
        }
    }

    /// The directories in which a moving branch shows: that of `HEAD`, and that of `refs`.
    pub(crate) fn git_dirs(&self) -> [&Path; 2] {
        [&self.paths.git_dir, &self.paths.common_dir]
    }

    /// Whether it is a mirror of a remote one.
    pub fn is_mirror(&self) -> bool {
        self.remote.is_some()
    }

    /// The branch to follow if none is named: the one that `HEAD` names, at the remote if there is one.
    ///
    /// # Errors
    /// `HEAD` names none.
    pub fn default_branch(&self) -> Result<String, RepositoryError> {
        if let Some(url) = &self.remote {
            return remote::default_branch(url);
        }
        match &*self.backend {
            Backend::LibGit2(objects) => objects.default_branch(),
            Backend::Git(git) => git.default_branch(),
        }
    }

    /// The commit at the tip of a branch.
    ///
    /// # Errors
    /// No such branch, with those that there are; or no commit at all yet.
    pub fn branch(&self, name: &str) -> Result<CommitId, RepositoryError> {
        let short = name.strip_prefix("refs/heads/").unwrap_or(name);
        let found = match &*self.backend {
            Backend::LibGit2(objects) => objects.branch(short)?,
            Backend::Git(git) => git.branch(short)?,
        };
        if let Some(commit) = found {
            return Ok(commit);
        }
        let mut branches = match &*self.backend {
            Backend::LibGit2(objects) => objects.branches()?,
            Backend::Git(git) => git.branches()?,
        };
        if branches.is_empty() {
            return Err(RepositoryError::Empty { path: self.paths.given.clone() });
        }
        branches.sort();
        Err(RepositoryError::NoBranch { branch: short.to_owned(), branches })
    }

    /// The commit that an expression names, as in gitrevisions(7).
    ///
    /// # Errors
    /// It names none.
    pub fn rev_parse(&self, rev: &str) -> Result<CommitId, RepositoryError> {
        match &*self.backend {
            Backend::LibGit2(objects) => objects.rev_parse(rev),
            Backend::Git(git) => git.rev_parse(rev),
        }
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

    /// A commit in a few words.
    ///
    /// # Errors
    /// It is not there (any more).
    pub fn describe(&self, commit: &CommitId) -> Result<CommitInfo, RepositoryError> {
        match &*self.backend {
            Backend::LibGit2(objects) => objects.describe(commit),
            Backend::Git(git) => git.describe(commit),
        }
    }

    /// The tree of a commit. Entries are listed now, files read when asked for.
    ///
    /// # Errors
    /// The commit is not there (any more), or the repository is damaged.
    pub fn tree(&self, commit: &CommitId) -> Result<GitTree, RepositoryError> {
        let entries = match &*self.backend {
            Backend::LibGit2(objects) => objects.entries(commit)?,
            Backend::Git(git) => git.entries(commit)?,
        };
        Ok(GitTree::new(self.backend.clone(), entries))
    }
}

#[cfg(test)]
mod tests;
