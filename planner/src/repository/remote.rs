//! Remote repositories: a bare mirror of their branches, maintained by the `git` command.

use std::{
    fs,
    path::{Path, PathBuf},
};

use groundplan_protocol::digest::Digest;

use super::{command, error::RepositoryError};

/// Whether `location` is a URL, or `host:path` for ssh and no existing local path.
pub fn is_remote(location: &str) -> bool {
    let scp_like = || location.split_once(':').is_some_and(|(host, _)| !host.is_empty() && !host.contains('/'));
    location.contains("://") || (scp_like() && !Path::new(location).exists())
}

/// The path of the mirror of `url` below `state_dir`; an empty one is created if it is missing. Each URL has its own mirror, so that
/// branches of a previous one cannot be taken for its own.
pub(super) fn mirror(url: &str, state_dir: &Path) -> Result<PathBuf, RepositoryError> {
    let path = state_dir.join("mirrors").join(format!("{}.git", Digest::of(url.as_bytes()).short()));
    if !path.join("HEAD").exists() {
        fs::create_dir_all(&path).map_err(|source| RepositoryError::Io { path: path.clone(), source })?;
        command::run(&path, &["init", "--quiet", "--bare", "."])?;
    }
    Ok(path)
}

/// Updates the mirror's branches to those of `url`, and deletes branches that were deleted there.
pub(super) fn fetch(url: &str, mirror: &Path) -> Result<(), RepositoryError> {
    command::run(
        mirror,
        &["fetch", "--quiet", "--prune", "--no-tags", "--no-write-fetch-head", "--", url, "+refs/heads/*:refs/heads/*"],
    )?;
    Ok(())
}

/// The branch that the remote's `HEAD` names, by one request over the network.
pub(super) fn default_branch(url: &str) -> Result<String, RepositoryError> {
    let out = command::run(Path::new("."), &["ls-remote", "--symref", "--", url, "HEAD"])?;
    let text = String::from_utf8_lossy(&out);
    let line = text.lines().find_map(|l| l.strip_prefix("ref: refs/heads/")?.split_whitespace().next());
    line.map(str::to_owned).ok_or(RepositoryError::NoDefaultBranch)
}
