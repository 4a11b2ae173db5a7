//! Remote repositories: a bare mirror of their branches, kept by the `git` command.

use std::{
    fs,
    path::{Path, PathBuf},
};

use groundplan_protocol::digest::Digest;

use super::{command, error::RepositoryError};

/// Whether `location` is a URL, or `host:path` as ssh takes it, and nothing of that name lies here.
pub fn is_remote(location: &str) -> bool {
    let scp_like = || location.split_once(':').is_some_and(|(host, _)| !host.is_empty() && !host.contains('/'));
    location.contains("://") || (scp_like() && !Path::new(location).exists())
}

/// The mirror of `url` below `state_dir`; made, empty, if it is not there. Another URL gets another mirror.
pub(super) fn mirror(url: &str, state_dir: &Path) -> Result<PathBuf, RepositoryError> {
    let path = state_dir.join("mirrors").join(format!("{}.git", Digest::of(url.as_bytes()).short()));
    if !path.join("HEAD").exists() {
        fs::create_dir_all(&path).map_err(|source| RepositoryError::Io { path: path.clone(), source })?;
        command::run(&path, &["init", "--quiet", "--bare", "."])?;
    }
    Ok(path)
}

/// Brings the mirror's branches to those of `url`; branches that are gone there go here.
pub(super) fn fetch(url: &str, mirror: &Path) -> Result<(), RepositoryError> {
    command::run(
        mirror,
        &["fetch", "--quiet", "--prune", "--no-tags", "--no-write-fetch-head", "--", url, "+refs/heads/*:refs/heads/*"],
    )?;
    Ok(())
}

/// The branch that the remote's `HEAD` names.
pub(super) fn default_branch(url: &str) -> Result<String, RepositoryError> {
    let out = command::run(Path::new("."), &["ls-remote", "--symref", "--", url, "HEAD"])?;
    let text = String::from_utf8_lossy(&out);
    let line = text.lines().find_map(|l| l.strip_prefix("ref: refs/heads/")?.split_whitespace().next());
    line.map(str::to_owned).ok_or(RepositoryError::NoDefaultBranch)
}
