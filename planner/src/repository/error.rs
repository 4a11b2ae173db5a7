//! Errors of repositories, in terms that an operator can act on.

use std::{io, path::PathBuf};

use groundplan_protocol::ids::CommitId;

/// Why a repository, or something in it, cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum RepositoryError {
    /// The path does not exist.
    #[error("{} does not exist", path.display())]
    Missing {
        /// The path that was opened.
        path: PathBuf,
    },
    /// The path is something else.
    #[error("{} is not a git repository", path.display())]
    NotARepository {
        /// The path that was opened.
        path: PathBuf,
    },
    /// Git refuses repositories of other users (safe.directory in git-config(1)).
    #[error("{} belongs to another user, and git does not trust it", path.display())]
    Owner {
        /// The path that was opened.
        path: PathBuf,
    },
    /// A format that libgit2 does not support; handled inside this module.
    #[error("libgit2 cannot open {}", path.display())]
    Unsupported {
        /// The path that was opened.
        path: PathBuf,
        /// The error of libgit2.
        #[source]
        source: git2::Error,
    },
    /// No branch has a commit.
    #[error("{} is empty: it has no commit yet", path.display())]
    Empty {
        /// The path that was opened.
        path: PathBuf,
    },
    /// An unknown branch.
    #[error("there is no branch `{branch}`; the branches are: {}", branches.join(", "))]
    NoBranch {
        /// Its name, without `refs/heads/`.
        branch: String,
        /// All branches, sorted.
        branches: Vec<String>,
    },
    /// `HEAD` is detached or missing.
    #[error("HEAD of the repository names no branch")]
    NoDefaultBranch,
    /// A revision that does not resolve to a commit.
    #[error("`{rev}` names no commit")]
    NoCommit {
        /// The revision, as in gitrevisions(7).
        rev: String,
        /// Whether the repository is shallow, so that the commit may exist elsewhere.
        shallow: bool,
    },
    /// Not of the form `BASE..HEAD`.
    #[error("`{given}` is not a range of commits of the form `BASE..HEAD`")]
    NoRange {
        /// The text that was given.
        given: String,
    },
    /// A commit that has disappeared.
    #[error("commit {commit} is not in the repository; a force-push and git's garbage collection may have removed it")]
    Vanished {
        /// Its id.
        commit: CommitId,
    },
    /// A tree that is larger than a planner can hold.
    #[error("the tree of the commit is not listed: {why}")]
    Unlisted {
        /// What is too large about it.
        why: String,
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
        /// Its standard error.
        stderr: String,
    },
    /// The `git` command was ended.
    #[error("`git {what}` {} {after} s and was ended", if *silent { "was silent for" } else { "took more than" })]
    Limit {
        /// Its subcommand.
        what: String,
        /// The limit, in seconds.
        after: u64,
        /// Whether it was silent, else it took too long.
        silent: bool,
    },
    /// The `git` command printed too much, and was ended.
    #[error("`git {what}` printed more than {} MiB and was ended", most >> 20)]
    Printed {
        /// Its subcommand.
        what: String,
        /// The limit, in bytes.
        most: usize,
    },
    /// A file of a commit cannot be read, though it is there.
    #[error("`{path}` of commit {commit} cannot be read: {cause}")]
    File {
        /// Its path.
        path: String,
        /// The commit.
        commit: CommitId,
        /// Why not.
        cause: String,
    },
    /// A directory or file could not be read or created.
    #[error("cannot use {}", path.display())]
    Io {
        /// Its path.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
}

impl RepositoryError {
    /// The next step, where there is a typical one.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Missing { .. } | Self::NotARepository { .. } => {
                Some("give the path of a git repository, bare or with a work tree".to_owned())
            }
            Self::Owner { path } => Some(format!(
                "run as its owner, or mark it as trusted: git config --global --add safe.directory {}",
                path.canonicalize().unwrap_or_else(|_| path.clone()).display()
            )),
            Self::Empty { .. } => Some("commit a site and push it; `groundplan init` creates one".to_owned()),
            Self::NoBranch { branch, branches } => {
                let near = branches.iter().min_by_key(|b| distance(branch, b))?;
                Some(match distance(branch, near) <= 2 {
                    true => format!("did you mean `{near}`?"),
                    false => "choose one of them with --branch".to_owned(),
                })
            }
            Self::NoCommit { shallow: true, .. } => Some(
                "the repository is shallow, so nothing can be compared with what came before its first commit: \
                 `git fetch --unshallow` gets the rest"
                    .to_owned(),
            ),
            Self::Limit { .. } => {
                Some("see whether the server answers; `--fetch-timeout` sets how long it may be silent".to_owned())
            }
            Self::NoDefaultBranch => Some("choose a branch with --branch".to_owned()),
            Self::NoGit(_) => Some("install git, or add its directory to PATH".to_owned()),
            _ => None,
        }
    }

    pub(super) fn is_unsupported(&self) -> bool {
        matches!(self, Self::Unsupported { .. })
    }
}

/// Levenshtein distance. Quadratic, which is no problem for names of branches.
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
