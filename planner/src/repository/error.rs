//! What can be wrong with a repository, in the operator's words.

use std::{io, path::PathBuf};

use groundplan_protocol::ids::CommitId;

/// Why a repository, or something in it, cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum RepositoryError {
    /// Nothing there.
    #[error("{} does not exist", path.display())]
    Missing {
        /// The path.
        path: PathBuf,
    },
    /// Something else there.
    #[error("{} is not a git repository", path.display())]
    NotARepository {
        /// The path.
        path: PathBuf,
    },
    /// Git's check of ownership.
    #[error("{} belongs to another user, and git does not trust it", path.display())]
    Owner {
        /// The path.
        path: PathBuf,
    },
    /// A repository in a format that libgit2 does not know; never leaves this module.
    #[error("libgit2 cannot open {}", path.display())]
    Unsupported {
        /// The path.
        path: PathBuf,
        /// Its word.
        #[source]
        source: git2::Error,
    },
    /// No commit yet.
    #[error("{} is empty: it has no commit yet", path.display())]
    Empty {
        /// The path.
        path: PathBuf,
    },
    /// No such branch.
    #[error("there is no branch `{branch}`; there are: {}", branches.join(", "))]
    NoBranch {
        /// The branch.
        branch: String,
        /// Those that there are.
        branches: Vec<String>,
    },
    /// `HEAD` names no branch.
    #[error("HEAD of the repository names no branch")]
    NoDefaultBranch,
    /// An expression that names no commit.
    #[error("`{rev}` names no commit")]
    NoCommit {
        /// The expression.
        rev: String,
    },
    /// Not of the form `BASE..HEAD`.
    #[error("`{given}` is not a range of commits: `BASE..HEAD`")]
    NoRange {
        /// What was given.
        given: String,
    },
    /// A commit that was there once.
    #[error("commit {commit} is not in the repository; a force-push and git's garbage collection may have removed it")]
    Vanished {
        /// The commit.
        commit: CommitId,
    },
    /// libgit2 could not read.
    #[error("cannot read the repository")]
    Read(#[source] git2::Error),
    /// The `git` command could not be started.
    #[error("cannot run `git`")]
    NoGit(#[source] io::Error),
    /// The `git` command failed.
    #[error("`git {what}` failed: {stderr}")]
    Git {
        /// Its subcommand.
        what: String,
        /// What it said.
        stderr: String,
    },
    /// A directory or file could not be read or made.
    #[error("cannot use {}", path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

impl RepositoryError {
    /// What to do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Missing { .. } | Self::NotARepository { .. } => {
                Some("name a git repository, bare or with a work tree".to_owned())
            }
            Self::Owner { path } => Some(format!(
                "run as its owner, or say that you trust it: git config --global --add safe.directory {}",
                path.canonicalize().unwrap_or_else(|_| path.clone()).display()
            )),
            Self::Empty { .. } => Some("commit a site and push it; `groundplan init` makes one".to_owned()),
            Self::NoBranch { branch, branches } => {
                let near = branches.iter().min_by_key(|b| distance(branch, b))?;
                Some(match distance(branch, near) <= 2 {
                    true => format!("did you mean `{near}`?"),
                    false => "name one of them with --branch".to_owned(),
                })
            }
            Self::NoDefaultBranch => Some("name a branch with --branch".to_owned()),
            Self::NoGit(_) => Some("install git, or add its directory to PATH".to_owned()),
            _ => None,
        }
    }

    pub(super) fn is_unsupported(&self) -> bool {
        matches!(self, Self::Unsupported { .. })
    }
}

/// How many letters differ (Levenshtein's distance); names of branches are short.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, y) in b.iter().enumerate() {
            let cost = (diagonal + usize::from(x != *y)).min(row[j] + 1).min(row[j + 1] + 1);
            diagonal = std::mem::replace(&mut row[j + 1], cost);
        }
    }
    row[b.len()]
}
