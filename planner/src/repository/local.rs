//! The `git` command for what the command line asks of a repository on this machine; the planner never asks this.

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use super::error::RepositoryError;

/// Variables by which `git` finds a repository; those of the environment may be those of a hook.
const DIRECTORIES: [&str; 6] = [
    "GIT_DIR",
    "GIT_WORK_TREE",
    "GIT_COMMON_DIR",
    "GIT_INDEX_FILE",
    "GIT_OBJECT_DIRECTORY",
    "GIT_ALTERNATE_OBJECT_DIRECTORIES",
];

/// Runs `git` in `dir` with these variables, and returns its standard output without the last newline.
pub(super) fn git(dir: &Path, env: &[(&str, PathBuf)], args: &[&str]) -> Result<String, RepositoryError> {
    let mut command = Command::new("git");
    DIRECTORIES.iter().for_each(|name| _ = command.env_remove(name));
    command.current_dir(dir).env("GIT_TERMINAL_PROMPT", "0").env("LC_ALL", "C").stdin(Stdio::null());
    let out = command.envs(env.iter().map(|(name, path)| (name, path))).args(args).output();
    let out = out.map_err(RepositoryError::NoGit)?;
    if out.status.success() {
        return Ok(String::from_utf8_lossy(&out.stdout).trim_end().to_owned());
    }
    let what = args.iter().find(|arg| !arg.starts_with('-') && !arg.contains('=')).copied().unwrap_or_default();
    let stderr = String::from_utf8_lossy(&out.stderr).trim().to_owned();
    Err(RepositoryError::Git { what: what.to_owned(), stderr })
}
