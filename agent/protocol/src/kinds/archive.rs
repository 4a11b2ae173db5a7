//! `archive`: the members of a tar or zip archive, unpacked into a directory.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    claim::{Claim, TaskClaim, shortest},
    kind::{ContentSource, Kind},
    problem::{Problem, path_problem},
};
use crate::{digest::Digest, effect::Effect, ids::TaskId};

/// Most bytes of all members of an archive if `max_size` is not given: 1 GiB.
const DEFAULT_MAX_SIZE: u64 = 1 << 30;

/// A tar or zip archive, unpacked into a directory: all of it or nothing. An update removes what the new archive no longer has;
/// removal removes exactly what was unpacked, and restores the files and links that it replaced or found equal. Nothing is ever
/// written outside of `dest`.
///
/// Left in place and reported: a member that an update or a removal would remove, if its content was changed since it was
/// unpacked; and in every case a member at a path that another task claims.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Archive {
    /// The archive: a file below the service's folder.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// The archive: a file on the node, instead of `source`; an absolute path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// The SHA-256 digest that the file at `path` must have, in hexadecimal. What is shipped is always checked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
    /// The directory it is unpacked into: an absolute path on the node. Made if it is missing.
    pub dest: String,
    /// Its format; detected from its first bytes if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub format: Option<ArchiveFormat>,
    /// How many leading components of each name are dropped; members with no more than these are left out.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub strip_components: u32,
    /// The user who owns what is unpacked, by name or number; the agent's own user if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<String>,
    /// The group that owns what is unpacked, by name or number; the agent's own group if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    /// Not unpacked if this path exists on the node and the archive was not unpacked by this task.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub creates: Option<String>,
    /// How many bytes all members may have together, such as `"500 MiB"`; `"1 GiB"` if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_size: Option<String>,
    /// Whether files may be set-user-id or set-group-id; an archive with such files is refused if not given.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub setuid: bool,
}

/// A format of archives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ArchiveFormat {
    /// Uncompressed tar.
    #[serde(rename = "tar")]
    Tar,
    /// tar, compressed with gzip.
    #[serde(rename = "tar.gz")]
    TarGz,
    /// tar, compressed with xz; the host needs `xz`.
    #[serde(rename = "tar.xz")]
    TarXz,
    /// tar, compressed with Zstandard; the host needs `zstd`.
    #[serde(rename = "tar.zst")]
    TarZst,
    /// tar, compressed with bzip2; the host needs `bzip2`.
    #[serde(rename = "tar.bz2")]
    TarBz2,
    /// zip, with members stored or deflated.
    #[serde(rename = "zip")]
    Zip,
}

impl Archive {
    /// Most bytes that its members may have in all.
    pub fn max_size(&self) -> u64 {
        self.max_size.as_deref().and_then(parse_size).unwrap_or(DEFAULT_MAX_SIZE)
    }

    /// The digest that the file at `path` must have.
    pub fn digest(&self) -> Option<Digest> {
        self.sha256.as_deref()?.parse().ok()
    }
}

impl Kind for Archive {
    const NAME: &'static str = "archive";
    const SUMMARY: &'static str = "the members of a tar or zip archive, in a directory";
    const EFFECTS: &'static [Effect] = &[];

    fn problems(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        let mut fault = |is: bool, param, message: &str, hint: &str| {
            if is {
                problems.push(Problem::new(param, message, hint));
            }
        };
        fault(
            self.source.is_some() && self.path.is_some(),
            "path",
            "is given together with `source`",
            "give only one of the two",
        );
        fault(
            self.source.is_none() && self.path.is_none(),
            "",
            "has neither `source` nor `path`",
            "give one of the two",
        );
        fault(
            self.sha256.is_some() && self.path.is_none(),
            "sha256",
            "is given without `path`",
            "what is shipped is always checked",
        );
        let no_digest = self.sha256.is_some() && self.digest().is_none();
        fault(no_digest, "sha256", "is not a SHA-256 digest", "give its 64 hexadecimal digits");
        let no_size = self.max_size.as_deref().is_some_and(|text| parse_size(text).is_none());
        fault(no_size, "max_size", "is not a size", "write it as \"500 MiB\" or \"2 GiB\"");
        let dest = path_problem("dest", &self.dest).filter(|_| self.dest != "/");
        let paths = [("path", self.path.as_ref()), ("creates", self.creates.as_ref())];
        problems.extend(dest);
        problems.extend(paths.into_iter().filter_map(|(param, path)| path_problem(param, path?)));
        problems
    }

    fn source(&self) -> Option<ContentSource<'_>> {
        self.source.as_deref().map(ContentSource::File)
    }

    fn drop_source(&mut self) {
        self.source = None;
    }

    fn drop_incidental(&mut self) {
        self.max_size = None;
    }

    fn destroys(&self) -> Option<String> {
        Some(format!("what the archive unpacked below {}, with changes made there", self.dest))
    }

    fn claims<'a>(&'a self, task: &'a TaskId, claim: &mut dyn FnMut(TaskClaim<'a>)) {
        claim(TaskClaim::exclusive(Claim::part(&self.dest, task), "dest"));
        // Archives in one directory pass on what they made of it: one job at a time.
        claim(TaskClaim::shared(Claim::named("directory of archives", shortest(&self.dest)), "dest"));
    }

    fn identity<'a>(&'a self, _: &'a TaskId, claim: &mut dyn FnMut(Claim<'a>)) {
        claim(Claim::named("archive in", &self.dest));
    }
}

fn is_zero(number: &u32) -> bool {
    *number == 0
}

/// A number of bytes, with `KiB`, `MiB` or `GiB` after it.
fn parse_size(text: &str) -> Option<u64> {
    let digits = text.trim_end_matches(|c: char| !c.is_ascii_digit());
    let shift = match text[digits.len()..].trim() {
        "" => 0,
        "KiB" => 10,
        "MiB" => 20,
        "GiB" => 30,
        _ => return None,
    };
    let digits = digits.bytes().all(|b| b.is_ascii_digit()).then_some(digits)?;
    digits.parse::<u64>().ok()?.checked_mul(1 << shift)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn sizes() {
        for (text, size) in [
            ("0", Some(0)),
            ("7 KiB", Some(7 << 10)),
            ("2GiB", Some(2 << 30)),
            ("1.5 GiB", None),
            ("x", None),
            ("", None),
            ("99999999999 GiB", None),
        ] {
            assert_eq!(parse_size(text), size, "{text}");
        }
    }

    #[test]
    fn problems_are_reported() {
        let problems = |params: serde_json::Value| {
            let archive: Archive = serde_json::from_value(params).unwrap();
            archive.problems().into_iter().map(|p| format!("{} {}", p.param, p.message)).collect::<Vec<_>>().join("; ")
        };
        assert_eq!(problems(json!({"source": "a.tar", "dest": "/opt/a"})), "");
        assert_eq!(problems(json!({"path": "/a.zip", "sha256": "0".repeat(64), "dest": "/"})), "");
        assert_eq!(
            problems(json!({"dest": "opt", "sha256": "x", "max_size": "big"})),
            " has neither `source` nor `path`; sha256 is given without `path`; sha256 is not a SHA-256 digest; \
             max_size is not a size; dest `opt` is not an absolute path in its shortest form"
        );
    }
}
