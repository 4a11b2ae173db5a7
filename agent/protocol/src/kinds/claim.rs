//! What a task owns on its node. All that depends on ownership is derived from these claims: conflicts between tasks of a
//! site, what an update or a removal must leave alone, and what one task hands over to another.
//!
//! In: a task's parameters and id ([`Kind::claims`](super::Kind::claims)). Out: claims; two are equal if they name the same
//! thing, whatever kind or parameter states them.

use std::{borrow::Cow, fmt, str::FromStr};

use crate::{digest::Hasher, ids::TaskId};

use crate::as_text::as_text;

/// One thing on a node that a task owns.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Claim<'a> {
    /// A file, link or directory, by its absolute path.
    Path(Cow<'a, str>),
    /// An option of an INI file in which other tasks may own other options.
    Option {
        /// The file.
        path: Cow<'a, str>,
        /// The section's name without brackets; empty before the first section.
        section: Cow<'a, str>,
        /// The option's name.
        option: Cow<'a, str>,
    },
    /// A line of a text file in which other tasks may own other lines.
    Line {
        /// The file.
        path: Cow<'a, str>,
        /// The line, without its line break.
        line: Cow<'a, str>,
    },
    /// Anything else that has a name.
    Named {
        /// What it is, such as `user`.
        what: Cow<'a, str>,
        /// Its name, such as `keystone`.
        name: Cow<'a, str>,
    },
    /// The task's own part of something that several tasks have parts of, such as the files that one `archive` unpacked
    /// into a directory. No other task can own it.
    Part {
        /// What it is a part of, such as the directory.
        of: Cow<'a, str>,
        /// The task.
        task: Cow<'a, TaskId>,
    },
}

/// What [`Claim::edited`] names.
pub const EDITED: &str = "edited file";

/// What [`Claim::section`] names.
const SECTION: &str = "section";

impl<'a> Claim<'a> {
    /// A file, link or directory: `/etc//x` and `/etc/x` are one claim.
    pub fn path(path: &'a str) -> Self {
        Self::Path(shortest(path))
    }

    /// An option of an INI file.
    pub fn option(path: &'a str, section: &'a str, option: &'a str) -> Self {
        Self::Option { path: shortest(path), section: section.into(), option: option.into() }
    }

    /// A line of a text file.
    pub fn line(path: &'a str, line: &'a str) -> Self {
        Self::Line { path: shortest(path), line: line.into() }
    }

    /// A file as a whole that several tasks edit, each a part of it. The one that made it may go before the others.
    pub fn edited(path: &'a str) -> Self {
        Self::Named { what: EDITED.into(), name: shortest(path) }
    }

    /// A section of an INI file in which several tasks have options.
    pub fn section(path: &str, section: &str) -> Self {
        Self::Named { what: SECTION.into(), name: format!("[{section}] {}", shortest(path)).into() }
    }

    /// Something with a name: `what` it is, such as `user`, and the name.
    pub fn named(what: &'a str, name: impl Into<Cow<'a, str>>) -> Self {
        Self::Named { what: what.into(), name: name.into() }
    }

    /// The part of `of` that is `task`'s own.
    pub fn part(of: &'a str, task: &'a TaskId) -> Self {
        Self::Part { of: of.into(), task: Cow::Borrowed(task) }
    }

    /// The same claim without borrowed text, to be kept.
    pub fn into_owned(self) -> Claim<'static> {
        fn owned(text: Cow<'_, str>) -> Cow<'static, str> {
            Cow::Owned(text.into_owned())
        }
        match self {
            Self::Path(path) => Claim::Path(owned(path)),
            Self::Option { path, section, option } => {
                Claim::Option { path: owned(path), section: owned(section), option: owned(option) }
            }
            Self::Line { path, line } => Claim::Line { path: owned(path), line: owned(line) },
            Self::Named { what, name } => Claim::Named { what: owned(what), name: owned(name) },
            Self::Part { of, task } => Claim::Part { of: owned(of), task: Cow::Owned(task.into_owned()) },
        }
    }
}

/// A claim in short form: its digest, which is all that comparing the claims of two tasks of one node takes.
///
/// Written as 16 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClaimKey(u64);

impl ClaimKey {
    /// The key of a claim.
    pub fn of(claim: &Claim<'_>) -> Self {
        let mut hasher = Hasher::new();
        let mut fields = |what: &str, fields: &[&str]| {
            hasher.field(what.as_bytes());
            fields.iter().for_each(|field| hasher.field(field.as_bytes()));
        };
        match claim {
            Claim::Path(path) => fields("path", &[path]),
            Claim::Option { path, section, option } => fields("option", &[path, section, option]),
            Claim::Line { path, line } => fields("line", &[path, line]),
            Claim::Named { what, name } => fields("named", &[what, name]),
            Claim::Part { of, task } => fields("part", &[of, &task.to_string()]),
        }
        let mut first = [0; 8];
        first.copy_from_slice(&hasher.finish().as_bytes()[..8]);
        Self(u64::from_be_bytes(first))
    }
}

impl fmt::Display for ClaimKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl fmt::Debug for ClaimKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for ClaimKey {
    type Err = std::num::ParseIntError;

    fn from_str(s: &str) -> Result<Self, Self::Err> {
        u64::from_str_radix(s, 16).map(Self)
    }
}

as_text!(ClaimKey, "16 hexadecimal digits", "^[0-9a-f]{16}$");

impl fmt::Display for Claim<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Path(path) => write!(f, "`{path}`"),
            Self::Option { path, section, option } => write!(f, "the option `{option}` of `[{section}]` in `{path}`"),
            Self::Line { path, line } => write!(f, "the line `{line}` in `{path}`"),
            Self::Named { what, name } => write!(f, "the {what} `{name}`"),
            Self::Part { of, task } => write!(f, "what {task} has in `{of}`"),
        }
    }
}

/// A path in its shortest form, without what only the host could resolve, such as links: as it is, where it is in that form already.
pub(super) fn shortest(path: &str) -> Cow<'_, str> {
    let is_short =
        path.strip_prefix('/').is_some_and(|rest| rest.split('/').all(|part| !matches!(part, "" | "." | "..")));
    if is_short || !path.starts_with('/') {
        return path.into();
    }
    let mut parts = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    format!("/{}", parts.join("/")).into()
}

/// A claim as a task states it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TaskClaim<'a> {
    /// The thing on the host, such as a path, a user or a package.
    pub claim: Claim<'a>,
    /// The parameter that states it; empty for the task as a whole.
    pub param: &'a str,
    /// Whether several tasks of a node may claim it together, as they may name the same package: then none of them is in
    /// conflict with another, and removal leaves it in place while another claims it.
    pub shared: bool,
}

impl<'a> TaskClaim<'a> {
    /// A claim that only one task of a node may have.
    pub fn exclusive(claim: Claim<'a>, param: &'a str) -> Self {
        Self { claim, param, shared: false }
    }

    /// A claim that several tasks of a node may have.
    pub fn shared(claim: Claim<'a>, param: &'a str) -> Self {
        Self { claim, param, shared: true }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_path_is_one_claim() {
        for (path, normal) in [
            ("/etc/x", "/etc/x"),
            ("/etc//x", "/etc/x"),
            ("/etc/./x/", "/etc/x"),
            ("/etc/y/../x", "/etc/x"),
            ("/../x", "/x"),
            ("/", "/"),
            ("x", "x"),
        ] {
            assert_eq!(Claim::path(path), Claim::Path(normal.into()), "{path}");
            assert_eq!(Claim::option(path, "s", "o"), Claim::option(normal, "s", "o"), "{path}");
            assert_eq!(Claim::line(path, "x"), Claim::line(normal, "x"), "{path}");
            assert_eq!(Claim::edited(path), Claim::edited(normal), "{path}");
            assert_eq!(Claim::section(path, "s"), Claim::section(normal, "s"), "{path}");
        }
    }
}
