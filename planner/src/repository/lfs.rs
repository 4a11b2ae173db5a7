//! Pointers of Git LFS: small files that stand in a commit for a content that is elsewhere.
//!
//! In: the bytes of a file. Out: whether it is a pointer, and its content by the `git lfs` command where that is installed.

use std::{
    io::{Seek as _, Write as _},
    process::Stdio,
    time::Duration,
};

use super::{
    command::GitCommand,
    error::RepositoryError,
    process::{LOCAL, Limits},
};

/// The longest pointer, in bytes (docs/spec.md of git-lfs: below 1024).
pub(super) const LONGEST: u64 = 1023;

/// How a pointer begins.
const VERSION: &str = "version https://git-lfs.github.com/spec/v1\n";

/// For the download of one file.
const DOWNLOAD: Limits = Limits { silence: Duration::from_secs(600), whole: Duration::from_secs(600), most: 1 << 30 };

/// Why a pointer's content is not there.
#[derive(Debug)]
pub(super) enum LfsError {
    /// The command is not installed.
    NotInstalled,
    /// It failed, which it may not do the next time.
    Failed(String),
}

/// The length of the content, if the file is a pointer.
pub(super) fn pointer(bytes: &[u8]) -> Option<u64> {
    let rest = std::str::from_utf8(bytes).ok()?.strip_prefix(VERSION)?;
    rest.lines().any(|line| line.starts_with("oid sha256:")).then_some(())?;
    rest.lines().find_map(|line| line.strip_prefix("size ")?.parse().ok())
}

/// The content of a pointer. `url` is what the repository mirrors.
pub(super) fn content(git: &GitCommand, url: Option<&str>, pointer: &[u8]) -> Result<Vec<u8>, LfsError> {
    let failed = |error: &dyn std::fmt::Display| LfsError::Failed(error.to_string());
    let (mut version, processes) = git.command();
    let installed = processes.output(version.args(["lfs", "version"]), "lfs version", LOCAL, &mut |_| {});
    if let Err(RepositoryError::Git { .. }) = installed {
        return Err(LfsError::NotInstalled);
    }
    let mut input = tempfile::tempfile().map_err(|e| failed(&e))?;
    input.write_all(pointer).and_then(|()| input.rewind()).map_err(|e| failed(&e))?;
    let (mut smudge, processes) = git.command();
    // The mirror has no remotes of its own; from this one `git lfs` works out where contents are.
    if let Some(url) = url {
        smudge.arg("-c").arg(format!("remote.origin.url={url}"));
    }
    smudge.args(["lfs", "smudge"]).stdin(Stdio::from(input));
    let out = processes.output(&mut smudge, "lfs smudge", DOWNLOAD, &mut |_| {}).map_err(|e| failed(&e))?;
    // Without the content, `git lfs` writes the pointer again.
    if out == pointer {
        return Err(LfsError::Failed("`git lfs` has not got its content".to_owned()));
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pointers_are_recognized() {
        let text = format!("{VERSION}oid sha256:{}\nsize 12345\n", "a".repeat(64));
        assert_eq!(pointer(text.as_bytes()), Some(12345));
        for other in ["", VERSION, &text[1..], &text.replace("oid sha256", "oid md5"), "plain\n"] {
            assert_eq!(pointer(other.as_bytes()), None, "{other}");
        }
    }
}
