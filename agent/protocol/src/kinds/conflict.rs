//! Which tasks cannot be on one node together although each owns something of its own: one would undo what the other does.
//!
//! In: two tasks with their parameters. Out: whether they conflict, why, and what to do. Two tasks that state one exclusive claim are
//! found by their claims alone ([`TaskClaim`](super::TaskClaim)). The pairs, and which of them compose, are in docs/ownership.md.

use std::{borrow::Cow, collections::BTreeSet};

use regex_lite::Regex;

use super::{
    claim::{Claim, shortest},
    ini::Ini,
    line::{Line, MARK},
    package::{Package, PackageState},
    params::TaskParams,
};
use crate::ids::TaskId;

/// Something that several tasks of a node may use; only tasks that use the same thing are compared.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Thing<'a> {
    /// A path, in its shortest form.
    Path(Cow<'a, str>),
    /// A package.
    Package(&'a str),
}

/// Why two tasks cannot be on one node together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conflict {
    /// What is wrong, without the node.
    pub message: String,
    /// The parameter of the first task that leads to it, and that of the second one; empty for the task as a whole.
    pub params: [&'static str; 2],
    /// What to do about it.
    pub hint: &'static str,
}

const ONE_TASK: &str = "let one task do both, or place the services on different nodes";

impl TaskParams {
    /// What the task uses.
    pub fn things<'a>(&'a self, task: &'a TaskId) -> BTreeSet<Thing<'a>> {
        let mut things = BTreeSet::new();
        self.claims(task, &mut |stated| {
            if let Claim::Path(path) = stated.claim {
                things.insert(Thing::Path(path));
            }
        });
        match self {
            Self::Ini(ini) => _ = things.insert(Thing::Path(shortest(&ini.path))),
            Self::Line(line) => _ = things.insert(Thing::Path(shortest(&line.path))),
            Self::Archive(archive) => _ = things.insert(Thing::Path(shortest(&archive.dest))),
            Self::Mount(mount) if !mount.is_swap() => _ = things.insert(Thing::Path(shortest(&mount.path))),
            Self::Package(package) => things.extend(package.names.iter().map(|name| Thing::Package(name))),
            _ => {}
        }
        things
    }

    /// Whether it makes a file, so that nothing can be below that path.
    pub fn makes_file(&self) -> bool {
        matches!(self, Self::File(_) | Self::Template(_) | Self::Ini(_) | Self::Line(_))
    }

    /// Why the two cannot be on one node together, where both use `thing`.
    pub fn conflict(
        (first, a): (&TaskId, &Self),
        (second, b): (&TaskId, &Self),
        thing: &Thing<'_>,
    ) -> Option<Conflict> {
        let conflict = match (a, b) {
            (Self::Package(a), Self::Package(b)) => return packages(a, b, thing),
            (Self::Line(a), Self::Line(b)) => return lines((first, a), (second, b)),
            (Self::Ini(a), Self::Ini(b)) => return sections(a, b),
            (Self::Line(line), Self::Ini(ini)) => line_and_options(line, ini)?,
            (Self::Ini(_), Self::Line(_)) => return Self::conflict((second, b), (first, a), thing).map(turned),
            (Self::Line(_) | Self::Ini(_), other) => edited(a, first, other, second)?,
            (_, Self::Line(_) | Self::Ini(_)) => {
                return Self::conflict((second, b), (first, a), thing).map(turned);
            }
            (Self::File(_) | Self::Template(_), Self::Archive(_)) => below(["path", "dest"], first, second),
            (Self::Archive(_), Self::File(_) | Self::Template(_)) => below(["dest", "path"], second, first),
            _ => return None,
        };
        Some(conflict)
    }

    /// The conflict of a task that makes a file with one that uses something below it.
    pub fn below_a_file(&self, file: &TaskId, other: &TaskId) -> Conflict {
        below(["path", ""], file, other)
    }
}

/// The same conflict with the two tasks in the other order.
fn turned(Conflict { message, params: [first, second], hint }: Conflict) -> Conflict {
    Conflict { message, params: [second, first], hint }
}

fn below(params: [&'static str; 2], file: &TaskId, other: &TaskId) -> Conflict {
    let message = format!("{file} makes a file of what is a directory for {other}");
    Conflict { message, params, hint: "a path is one or the other: change one of the two" }
}

/// A task that edits a file, and one that owns the path as a whole.
fn edited(editor: &TaskParams, edits: &TaskId, owner: &TaskParams, owns: &TaskId) -> Option<Conflict> {
    let (what, hint) = match owner {
        TaskParams::File(_) | TaskParams::Template(_) => (
            format!("{edits} edits the file that {owns} writes as a whole, so each undoes what the other does"),
            "put the text into the content of the file, for which a `template` has variables; a file is edited where something else \
             brings it, such as a package",
        ),
        TaskParams::Directory(_) | TaskParams::Archive(_) => {
            let message = format!("{edits} edits a file where {owns} has a directory");
            (message, "a path is one or the other: change one of the two")
        }
        TaskParams::Link(_) => {
            (format!("{edits} edits what {owns} makes a link, and links are not followed"), "name the file itself")
        }
        TaskParams::Cron(_) | TaskParams::Plugin(_) => {
            (format!("{edits} edits the file that {owns} owns as a whole"), ONE_TASK)
        }
        _ => return None,
    };
    debug_assert!(matches!(editor, TaskParams::Line(_) | TaskParams::Ini(_)), "only these edit");
    Some(Conflict { message: what, params: ["path", "path"], hint })
}

fn packages(a: &Package, b: &Package, thing: &Thing<'_>) -> Option<Conflict> {
    let Thing::Package(name) = thing else { return None };
    let absent = |package: &Package| package.state() == PackageState::Absent;
    let (message, param, hint) = if absent(a) != absent(b) {
        (format!("the package `{name}` is to be installed and to be absent"), "names", "take it out of one of the two")
    } else if let (Some(a), Some(b)) = (&a.version, &b.version)
        && a != b
    {
        (format!("the package `{name}` is to have version `{a}` and version `{b}`"), "version", "decide on one")
    } else if a.hold.zip(b.hold).is_some_and(|(a, b)| a != b) {
        (format!("the package `{name}` is to be held and not to be held"), "hold", "decide on one of the two")
    } else {
        return None;
    };
    Some(Conflict { message, params: [param, param], hint })
}

/// Two tasks for lines or blocks of one file.
fn lines((first, a): (&TaskId, &Line), (second, b): (&TaskId, &Line)) -> Option<Conflict> {
    let path = &a.path;
    if let (Some(marker), Some(other)) = (marker(a, first), marker(b, second)) {
        let same = marker == other;
        let message = format!("two blocks have the marker `{marker}` in `{path}`");
        return same.then_some(Conflict {
            message,
            params: ["marker", "marker"],
            hint: "give each a marker of its own",
        });
    }
    // Two tasks that write the same line compose; two that remove lines as well.
    let (wanted, other) = (present(a), present(b));
    if wanted == other {
        return None;
    }
    if let (Some(pattern), true) = (&a.matching, a.matching == b.matching) {
        let message = format!("two tasks write different lines in place of what matches `{pattern}` in `{path}`");
        return Some(Conflict { message, params: ["match", "match"], hint: "let one task own that line" });
    }
    // Neither may take the other's line for its own.
    let taken = other.filter(|line| takes(a, line)).map(|line| (line, ["match", "line"], first));
    let taken = taken.or_else(|| wanted.filter(|line| takes(b, line)).map(|line| (line, ["line", "match"], second)));
    taken.map(|(line, mut params, by)| {
        let (taker, at) = if by == first { (a, 0) } else { (b, 1) };
        if taker.matching.is_none() {
            params[at] = "line";
        }
        let message = format!("the line `{line}` in `{path}` is one that {by} replaces or removes");
        Conflict { message, params, hint: "make its `match` narrower, or let one task own the line" }
    })
}

/// The line that is to be in the file; none for a block.
fn present(line: &Line) -> Option<&str> {
    line.line.as_deref().filter(|_| line.state.is_present())
}

/// Whether a task replaces or removes this line, which is not its own.
fn takes(task: &Line, line: &str) -> bool {
    match &task.matching {
        Some(pattern) => Regex::new(pattern).is_ok_and(|regex| regex.is_match(line)),
        None => !task.state.is_present() && task.line.as_deref() == Some(line),
    }
}

/// The marker lines of a block, with the placeholder.
fn marker(line: &Line, task: &TaskId) -> Option<String> {
    line.block.as_ref()?;
    Some(line.marker.clone().unwrap_or_else(|| format!("# {MARK} groundplan {task}")))
}

/// One task removes a section in which the other has options.
fn sections(a: &Ini, b: &Ini) -> Option<Conflict> {
    let has =
        |ini: &Ini, section: &str| ini.wanted().iter().any(|((name, _), values)| name == section && !values.is_empty());
    let both = [(a, b), (b, a)];
    let section = both.iter().find_map(|(one, other)| one.unwanted_section().filter(|section| has(other, section)))?;
    let message = format!("the section `[{section}]` of `{}` is to be removed and to have options", a.path);
    Some(Conflict { message, params: ["section", ""], hint: "decide on one of the two" })
}

/// A task for lines and one for options of one file compose, unless the lines are those of the options.
fn line_and_options(line: &Line, ini: &Ini) -> Option<Conflict> {
    let wanted = ini.wanted();
    let written = wanted.iter().flat_map(|((_, option), values)| {
        values.iter().flat_map(move |value| [format!("{option} = {value}"), format!("{option}={value}")])
    });
    let own = present(line);
    let taken = written.into_iter().find(|text| own != Some(text) && takes(line, text))?;
    let message = format!("the option `{taken}` in `{}` is a line that the other task replaces or removes", ini.path);
    Some(Conflict { message, params: ["match", ""], hint: "let the `ini` task own the option" })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The pairs of docs/ownership.md: whether each composes, or a word of its conflict.
    const PAIRS: [(&str, &str, Option<&str>); 33] = [
        (r#"{"file": {"path": "/f"}}"#, r#"{"line": {"path": "/f", "line": "x"}}"#, Some("writes as a whole")),
        (
            r#"{"file": {"path": "/f"}}"#,
            r#"{"ini": {"path": "/f", "section": "s", "option": "o", "value": 1}}"#,
            Some("writes as a whole"),
        ),
        (
            r#"{"template": {"path": "/f", "source": "t"}}"#,
            r#"{"ini": {"path": "/f", "section": "s", "option": "o", "value": 1}}"#,
            Some("writes as a whole"),
        ),
        (
            r#"{"template": {"path": "/f", "source": "t"}}"#,
            r#"{"line": {"path": "/f", "line": "x"}}"#,
            Some("writes as a whole"),
        ),
        (r#"{"directory": {"path": "/f"}}"#, r#"{"line": {"path": "/f", "line": "x"}}"#, Some("a directory")),
        (
            r#"{"link": {"path": "/f", "target": "g"}}"#,
            r#"{"line": {"path": "/f", "line": "x"}}"#,
            Some("links are not followed"),
        ),
        (
            r#"{"plugin": {"name": "p", "claims": [{"path": "/f"}]}}"#,
            r#"{"line": {"path": "/f", "line": "x"}}"#,
            Some("owns as a whole"),
        ),
        (r#"{"archive": {"dest": "/f", "source": "a.tar"}}"#, r#"{"file": {"path": "/f"}}"#, Some("is a directory")),
        (r#"{"archive": {"dest": "/f", "source": "a.tar"}}"#, r#"{"directory": {"path": "/f"}}"#, None),
        (
            r#"{"archive": {"dest": "/f", "source": "a.tar"}}"#,
            r#"{"archive": {"dest": "/f", "source": "b.tar"}}"#,
            None,
        ),
        (r#"{"mount": {"path": "/f", "source": "s"}}"#, r#"{"directory": {"path": "/f"}}"#, None),
        (
            r#"{"line": {"path": "/f", "line": "a 1", "match": "^a"}}"#,
            r#"{"line": {"path": "/f", "line": "a 2", "match": "^a"}}"#,
            Some("in place of what matches"),
        ),
        (
            r#"{"line": {"path": "/f", "line": "a 1", "match": "^a"}}"#,
            r#"{"line": {"path": "/f", "line": "a 1", "match": "^a"}}"#,
            None,
        ),
        (
            r#"{"line": {"path": "/f", "line": "a 1", "match": "^a"}}"#,
            r#"{"line": {"path": "/f", "line": "a 2"}}"#,
            Some("replaces or removes"),
        ),
        (
            r#"{"line": {"path": "/f", "line": "a 1", "match": "^a"}}"#,
            r#"{"line": {"path": "/f", "line": "b 2", "match": "^b"}}"#,
            None,
        ),
        (
            r#"{"line": {"path": "/f", "match": "^a", "state": "absent"}}"#,
            r#"{"line": {"path": "/f", "line": "a 2"}}"#,
            Some("replaces or removes"),
        ),
        (
            r#"{"line": {"path": "/f", "line": "a", "state": "absent"}}"#,
            r#"{"line": {"path": "/f", "line": "a"}}"#,
            Some("replaces or removes"),
        ),
        (
            r#"{"line": {"path": "/f", "line": "a", "state": "absent"}}"#,
            r#"{"line": {"path": "/f", "line": "a", "state": "absent"}}"#,
            None,
        ),
        (r#"{"line": {"path": "/f", "line": "a"}}"#, r#"{"line": {"path": "/f", "line": "a"}}"#, None),
        (r#"{"line": {"path": "/f", "line": "a"}}"#, r#"{"line": {"path": "/f", "line": "b"}}"#, None),
        (
            r#"{"line": {"path": "/f", "block": "a", "marker": "; {mark}"}}"#,
            r#"{"line": {"path": "/f", "block": "b", "marker": "; {mark}"}}"#,
            Some("marker"),
        ),
        (
            r#"{"line": {"path": "/f", "block": "a", "marker": "; {mark}"}}"#,
            r#"{"line": {"path": "/f", "block": "a", "marker": "; {mark}", "state": "absent"}}"#,
            Some("marker"),
        ),
        (r#"{"line": {"path": "/f", "block": "a"}}"#, r#"{"line": {"path": "/f", "block": "a"}}"#, None),
        (
            r#"{"line": {"path": "/f", "line": "o = 2", "match": "^o"}}"#,
            r#"{"ini": {"path": "/f", "section": "s", "option": "o", "value": 1}}"#,
            Some("the option"),
        ),
        (
            r#"{"line": {"path": "/f", "line": "x"}}"#,
            r#"{"ini": {"path": "/f", "section": "s", "option": "o", "value": 1}}"#,
            None,
        ),
        (
            r#"{"ini": {"path": "/f", "section": "s", "state": "absent"}}"#,
            r#"{"ini": {"path": "/f", "section": "s", "option": "o", "value": 1}}"#,
            Some("the section"),
        ),
        (
            r#"{"ini": {"path": "/f", "section": "s", "option": "p", "value": 1}}"#,
            r#"{"ini": {"path": "/f", "section": "s", "option": "o", "value": 1}}"#,
            None,
        ),
        (r#"{"package": {"names": ["p"], "state": "absent"}}"#, r#"{"package": ["p", "q"]}"#, Some("to be absent")),
        (r#"{"package": {"names": ["p"], "state": "latest"}}"#, r#"{"package": ["p"]}"#, None),
        (
            r#"{"package": {"names": ["p"], "version": "1"}}"#,
            r#"{"package": {"names": ["p"], "version": "2"}}"#,
            Some("version"),
        ),
        (r#"{"package": {"names": ["p"], "version": "1"}}"#, r#"{"package": ["p"]}"#, None),
        (
            r#"{"package": {"names": ["p"], "hold": true}}"#,
            r#"{"package": {"names": ["p"], "hold": false}}"#,
            Some("held"),
        ),
        (r#"{"package": {"names": ["p"], "hold": true}}"#, r#"{"package": ["p"]}"#, None),
    ];

    #[test]
    fn every_pair_composes_or_is_in_conflict_whichever_comes_first() {
        let (one, two) = ("s.one".parse().unwrap(), "s.two".parse().unwrap());
        for (a, b, expected) in PAIRS {
            let params = |json: &str| serde_json::from_str::<TaskParams>(json).unwrap();
            let (first, second) = (params(a), params(b));
            for (a, b) in [(&first, &second), (&second, &first)] {
                let (of_a, of_b) = (a.things(&one), b.things(&two));
                let shared = of_a.intersection(&of_b).next().unwrap_or_else(|| panic!("{a:?} {b:?} share nothing"));
                let found = TaskParams::conflict((&one, a), (&two, b), shared);
                match (expected, &found) {
                    (None, None) => {}
                    (Some(word), Some(conflict)) if conflict.message.contains(word) => {}
                    _ => panic!("{a:?}\n{b:?}\n{found:?}"),
                }
            }
        }
    }
}
