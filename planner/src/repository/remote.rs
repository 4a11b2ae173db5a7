//! Remote repositories: a bare mirror of their branches, maintained by the `git` command.
//!
//! The mirror's `HEAD` names the default branch of the remote, as it was when that was last asked for. One planner at a time has a mirror,
//! because it has the store beside it; so what a killed `git` left in it is removed when it is opened.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use groundplan_protocol::digest::Digest;

use super::{
    command,
    error::RepositoryError,
    process::{LOCAL, Limits, Processes},
};
use crate::private;

/// How long a fetch may take in all, however much it reports.
const WHOLE: Duration = Duration::from_secs(3600);

/// The most that it may print, in bytes: the names of all refs.
const MOST: usize = 64 << 20;

/// Whether `location` is a URL, or `host:path` for ssh and no existing local path.
pub fn is_remote(location: &str) -> bool {
    let scp_like = || location.split_once(':').is_some_and(|(host, _)| !host.is_empty() && !host.contains('/'));
    location.contains("://") || (scp_like() && !Path::new(location).exists())
}

/// The path of the mirror of `url` below `state_dir`; an empty one is created if it is missing. Each URL has its own mirror, so that
/// branches of a previous one cannot be taken for its own.
pub(super) fn mirror(url: &str, state_dir: &Path, processes: &Processes) -> Result<PathBuf, RepositoryError> {
    let path = state_dir.join("mirrors").join(format!("{}.git", Digest::of(url.as_bytes()).short()));
    private::directory(&state_dir.join("mirrors"))
        .map_err(|source| RepositoryError::Io { path: path.clone(), source })?;
    if path.join("HEAD").exists() {
        clear(&path);
    } else {
        create(&path, "sha1", processes)?;
    }
    Ok(path)
}

/// Makes an empty mirror.
fn create(path: &Path, format: &str, processes: &Processes) -> Result<(), RepositoryError> {
    private::directory(path).map_err(|source| RepositoryError::Io { path: path.to_owned(), source })?;
    let format = format!("--object-format={format}");
    let args = ["init", "--quiet", "--bare", "--initial-branch=main", &format, "."];
    command::run(processes, path, &args, LOCAL, &mut |_| {}).map(drop)
}

/// Replaces an empty mirror by one of another object format.
pub(super) fn create_again(path: &Path, format: &str, processes: &Processes) -> Result<(), RepositoryError> {
    let io = |source| RepositoryError::Io { path: path.to_owned(), source };
    fs::remove_dir_all(path).map_err(io)?;
    create(path, format, processes)
}

/// Removes what a `git` that was killed left: lock files, with which every later fetch would fail, and halves of packs.
pub(super) fn clear(mirror: &Path) {
    for folder in ["", "refs", "objects/info", "objects/pack", "reftable"] {
        clear_below(&mirror.join(folder), folder == "refs");
    }
}

fn clear_below(folder: &Path, deep: bool) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let (path, name) = (entry.path(), entry.file_name());
        if deep && entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            clear_below(&path, true);
        } else if path.extension().is_some_and(|end| end == "lock") || name.to_string_lossy().starts_with("tmp_") {
            match fs::remove_file(&path) {
                Ok(()) => tracing::warn!(path = %path.display(), "removed what an interrupted git left in the mirror"),
                Err(error) => {
                    tracing::warn!(path = %path.display(), %error, "cannot remove what an interrupted git left")
                }
            }
        }
    }
}

/// What a remote reports of itself.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Head {
    /// The branch that its `HEAD` names; none if it is empty or detached.
    pub(super) branch: Option<String>,
    /// Its object format; none if it is empty.
    pub(super) format: Option<&'static str>,
}

/// Asks the remote for its default branch and object format.
pub(super) fn head(url: &str, silence: Duration, processes: &Processes) -> Result<Head, RepositoryError> {
    // In no repository: the format of another one must not matter.
    let args = ["ls-remote", "--symref", "--", url];
    let limits = Limits { silence, whole: WHOLE, most: MOST };
    let out = command::run(processes, Path::new("/"), &args, limits, &mut |_| {})?;
    Ok(parse(&String::from_utf8_lossy(&out)))
}

fn parse(text: &str) -> Head {
    let branch = text.lines().find_map(|line| {
        let (target, name) = line.strip_prefix("ref: refs/heads/")?.split_once('\t')?;
        (name == "HEAD").then(|| target.to_owned())
    });
    let id = text.lines().find(|line| !line.starts_with("ref: ")).and_then(|line| line.split('\t').next());
    let format = id.map(|id| if id.len() == 64 { "sha256" } else { "sha1" });
    Head { branch, format }
}

/// Updates the mirror's branches to those of `url`, and deletes branches that were deleted there.
pub(super) fn fetch(
    url: &str,
    mirror: &Path,
    silence: Duration,
    processes: &Processes,
    progress: &mut dyn FnMut(&str),
) -> Result<(), RepositoryError> {
    let slow = format!("http.lowSpeedTime={}", silence.as_secs().max(1));
    // What git does in the background would go on after its group has ended.
    let args = [
        "-c",
        "http.lowSpeedLimit=1",
        "-c",
        &slow,
        "-c",
        "gc.autoDetach=false",
        "-c",
        "maintenance.autoDetach=false",
        "fetch",
        "--progress",
        "--prune",
        "--no-tags",
        "--no-write-fetch-head",
        "--",
        url,
        "+refs/heads/*:refs/heads/*",
    ];
    let fetched = command::run(processes, mirror, &args, Limits { silence, whole: WHOLE, most: MOST }, progress);
    if let Err(RepositoryError::Limit { .. }) = fetched {
        clear(mirror);
    }
    fetched.map(drop)
}

/// Has the mirror's `HEAD` name a branch.
pub(super) fn set_head(mirror: &Path, branch: &str, processes: &Processes) -> Result<(), RepositoryError> {
    let args = ["symbolic-ref", "HEAD", &format!("refs/heads/{branch}")];
    command::run(processes, mirror, &args, LOCAL, &mut |_| {}).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_remote_names_its_branch_and_its_format() {
        let sha1 = "a".repeat(40);
        let found = parse(&format!("ref: refs/heads/trunk\tHEAD\n{sha1}\tHEAD\n{sha1}\trefs/heads/trunk\n"));
        assert_eq!(found, Head { branch: Some("trunk".to_owned()), format: Some("sha1") });
        let found = parse(&format!("{}\trefs/heads/main\n", "b".repeat(64)));
        assert_eq!(found, Head { branch: None, format: Some("sha256") });
        assert_eq!(parse(""), Head::default());
    }
}
