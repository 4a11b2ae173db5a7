//! One interface to the two ways of reading a repository.

use std::{path::Path, sync::Arc};

use groundplan_core::source::Entry;
use groundplan_protocol::ids::CommitId;

use super::{
    command::GitCommand,
    error::RepositoryError,
    objects::Objects,
    process::Processes,
    read::{CommitInfo, Paths},
};

/// How an open repository is read.
pub(super) enum Backend {
    /// In this process.
    LibGit2(Objects),
    /// By the `git` command, for formats that libgit2 does not support: reftable, SHA-256, partial clones.
    Git(GitCommand),
}

impl Backend {
    /// Opens `path` with libgit2 if it can, else with the `git` command. `discover` also searches the directories above and respects
    /// `GIT_DIR`.
    pub(super) fn open(path: &Path, discover: bool, processes: &Processes) -> Result<(Self, Paths), RepositoryError> {
        match Objects::open(path, discover, processes) {
            Ok((objects, paths)) => Ok((Self::LibGit2(objects), paths)),
            Err(error) if error.is_unsupported() => {
                let (git, paths) = GitCommand::open(path, discover, processes)?;
                Ok((Self::Git(git), paths))
            }
            Err(error) => Err(error),
        }
    }

    /// The `git` command in the repository.
    pub(super) fn command(&self) -> &GitCommand {
        match self {
            Self::LibGit2(objects) => objects.command(),
            Self::Git(git) => git,
        }
    }

    /// The branch that `HEAD` names, without `refs/heads/`.
    pub(super) fn default_branch(&self) -> Result<String, RepositoryError> {
        match self {
            Self::LibGit2(objects) => objects.default_branch(),
            Self::Git(git) => git.default_branch(),
        }
    }

    /// The tip of a branch, `None` if there is no such branch.
    pub(super) fn branch(&self, name: &str) -> Result<Option<CommitId>, RepositoryError> {
        match self {
            Self::LibGit2(objects) => objects.branch(name),
            Self::Git(git) => git.branch(name),
        }
    }

    /// The names of all branches, in no particular order.
    pub(super) fn branches(&self) -> Result<Vec<String>, RepositoryError> {
        match self {
            Self::LibGit2(objects) => objects.branches(),
            Self::Git(git) => git.branches(),
        }
    }

    /// The commit that an expression names, as in gitrevisions(7).
    pub(super) fn rev_parse(&self, rev: &str) -> Result<CommitId, RepositoryError> {
        match self {
            Self::LibGit2(objects) => objects.rev_parse(rev),
            Self::Git(git) => git.rev_parse(rev),
        }
    }

    /// Subject, author and time of a commit.
    pub(super) fn describe(&self, commit: &CommitId) -> Result<CommitInfo, RepositoryError> {
        match self {
            Self::LibGit2(objects) => objects.describe(commit),
            Self::Git(git) => git.describe(commit),
        }
    }

    /// Whether a commit has another one in its history; none where only the `git` command knows.
    pub(super) fn has_before(&self, of: &CommitId, before: &CommitId) -> Result<Option<bool>, RepositoryError> {
        match self {
            Self::LibGit2(objects) => objects.has_before(of, before).map(Some),
            Self::Git(_) => Ok(None),
        }
    }

    /// Every file, link and submodule of a commit, sorted by path.
    pub(super) fn entries(&self, commit: &CommitId) -> Result<Arc<[Entry]>, RepositoryError> {
        match self {
            Self::LibGit2(objects) => objects.entries(commit),
            Self::Git(git) => git.entries(commit),
        }
    }

    /// The bytes of a file by its object id; the error is the cause alone.
    pub(super) fn blob(&self, oid: &str) -> Result<Arc<[u8]>, String> {
        match self {
            Self::LibGit2(objects) => objects.blob(oid),
            Self::Git(git) => git.blob(oid),
        }
    }

    /// Reads a file by its object id in pieces, each with the length of the whole; `take` returns whether to go on.
    pub(super) fn scan(&self, oid: &str, take: &mut dyn FnMut(u64, &[u8]) -> bool) -> Result<(), String> {
        match self {
            Self::LibGit2(objects) => objects.scan(oid, take),
            Self::Git(git) => git.scan(oid, take),
        }
    }
}
