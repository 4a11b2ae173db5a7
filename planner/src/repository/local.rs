//! The `git` command for what the command line asks of a repository on this machine; the planner never asks this.

use std::path::{Path, PathBuf};

use super::{command, error::RepositoryError};

/// Runs `git` in `dir` with these variables, and returns its standard output without the last newline.
pub(super) fn git(dir: &Path, env: &[(&str, PathBuf)], args: &[&str]) -> Result<String, RepositoryError> {
    // Without the variables of the environment by which `git` finds a repository: they may be those of a hook.
    let mut command = command::git(dir, false);
    let out = command.envs(env.iter().map(|(name, path)| (name, path))).args(args).output();
    let out = out.map_err(RepositoryError::NoGit)?;
    if out.status.success() {
        return Ok(String::from_utf8_lossy(&out.stdout).trim_end().to_owned());
    }
    let what = args.iter().find(|arg| !arg.starts_with('-') && !arg.contains('=')).copied().unwrap_or_default();
    let stderr = String::from_utf8_lossy(&out.stderr).trim().to_owned();
    Err(RepositoryError::Git { what: what.to_owned(), stderr })
}
