//! What was on the host before the first task of groundplan took it, as the ledger keeps it: one note for each claim.
//!
//! In: a claim's key, and what a job found there before it changed anything. Out: notes, and a short list of them for people. A
//! note belongs to the claim and not to a task: it stays while any task has the claim, however often that passes from one to
//! another, and goes once the last one has given it up. Contents of files are not here: a note names them by digest.

use std::collections::BTreeMap;

use groundplan_protocol::{
    digest::Digest,
    ids::TaskId,
    kinds::{Claim, TaskParams},
    state::{FOUND_LIMIT, FoundList, FoundThing},
};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// What was found.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "was", rename_all = "snake_case")]
pub enum Found {
    /// Nothing was there.
    Absent,
    /// It is not known: a power loss took the note, or the job ended before it was made. What is there is left alone.
    Unknown,
    /// An agent that made no notes applied it, so that removal takes away what the task wrote, as that agent would have.
    Unrecorded,
    /// A regular file.
    File {
        /// Digest of its content.
        sha256: Digest,
        /// Length of its content, in bytes.
        size: u64,
        /// Whether the content is in the store. Without it, only a file that has the content still can be restored.
        kept: bool,
        /// Its owner, group and mode.
        access: Owned,
        /// Its extended attributes, in hexadecimal digits.
        #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
        xattrs: BTreeMap<String, String>,
    },
    /// A symbolic link.
    Link {
        /// What it leads to.
        target: String,
        /// Its owner.
        uid: u32,
        /// Its group.
        gid: u32,
    },
    /// A directory, or a link to one where the task makes a directory.
    Directory {
        /// Its owner, group and mode.
        access: Owned,
        /// Its extended attributes, in hexadecimal digits.
        #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
        xattrs: BTreeMap<String, String>,
    },
    /// Something else at a path, such as a FIFO; it cannot be restored.
    Other {
        /// What it was, for people.
        what: String,
    },
    /// A file that tasks edit together, whose last line had no line break.
    Unended {
        /// That line.
        last: String,
    },
    /// The files of a unit, each by its path.
    Files {
        /// What was at each path.
        files: BTreeMap<String, Found>,
    },
    /// The value of a kernel parameter.
    Value {
        /// The value.
        value: String,
    },
    /// An account, a mount or the like, as its kind notes it.
    Fields {
        /// What it was, for people.
        what: String,
        /// What only the kind reads.
        fields: Value,
    },
}

/// Owner, group and mode of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owned {
    /// The owner's id.
    pub uid: u32,
    /// The group's id.
    pub gid: u32,
    /// The mode's lower twelve bits.
    pub mode: u32,
}

impl Found {
    /// Calls `each` with the digest of each content in the store that the note names.
    pub fn contents(&self, each: &mut dyn FnMut(Digest)) {
        match self {
            Self::File { sha256, kept: true, .. } => each(*sha256),
            Self::Files { files } => files.values().for_each(|file| file.contents(each)),
            _ => {}
        }
    }

    /// What was there, for people, and the length of its content; none if nothing of it is kept.
    fn summary(&self) -> Option<(String, u64)> {
        match self {
            Self::Absent | Self::Unknown | Self::Unrecorded | Self::Unended { .. } | Self::Files { .. } => None,
            Self::File { size, kept, .. } => Some(("file".to_owned(), if *kept { *size } else { 0 })),
            Self::Link { target, .. } => Some((format!("link to {target}"), 0)),
            Self::Directory { .. } => Some(("directory".to_owned(), 0)),
            Self::Value { value } => Some((value.clone(), 0)),
            Self::Other { what } | Self::Fields { what, .. } => Some((what.clone(), 0)),
        }
    }
}

/// The name under which the note of a claim is kept; none for a claim of which no note is made.
pub fn key(claim: &Claim<'_>) -> Option<String> {
    match claim {
        Claim::Path(path) => Some(format!("path {path}")),
        Claim::Named { what, name } => Some(format!("{what} {name}")),
        _ => None,
    }
}

/// What the claims of packages are named by that came along with others: a note stays for as long as any task has packages.
pub const ALONG: &str = "package along";

/// Whether a note is of such a package.
pub(super) fn is_along(key: &str) -> bool {
    key.strip_prefix(ALONG).is_some_and(|rest| rest.starts_with(' '))
}

/// What keys begin with of what members of archives took the place of, before the path. Apart from the note of the path itself, which is
/// of a task that claims it: that one finds the member.
pub const REPLACED: &str = "replaced path ";

/// Whether a note is of what a member of an archive replaced: it stays for as long as any task has an archive, unless its kind drops it.
pub(super) fn is_replaced(key: &str) -> bool {
    key.starts_with(REPLACED)
}

/// What keys of memories begin with: of what a task remembers, as a job noted it whose end the ledger may not have.
const MEMORY: &str = "memory ";

/// A note of what a task remembers, and its key. With the parameters that it is about: a job that makes something else of a task works with
/// two memories.
pub fn memory_note(task: &TaskId, params: &TaskParams, memory: &Value) -> (String, Found) {
    // Written and read as the ledger does: each further way would be code of its own for all kinds.
    let value = serde_json::to_string(&(params, memory)).expect("parameters have string keys and serialize without IO");
    (format!("{MEMORY}{task}"), Found::Value { value })
}

/// Whether a note is of what a task remembers.
pub(super) fn is_memory(key: &str) -> bool {
    key.starts_with(MEMORY)
}

/// The task, its parameters and its memory, if that is what a note is.
pub(super) fn memory_of(key: &str, found: &Found) -> Option<(TaskId, TaskParams, Value)> {
    let Found::Value { value } = found else { return None };
    let (params, memory) = serde_json::from_slice(value.as_bytes()).ok()?;
    Some((key.strip_prefix(MEMORY)?.parse().ok()?, params, memory))
}

/// Calls `each` with the key of each claim of a task of which notes are made. What other kinds find, their tasks' memory holds.
pub fn keys(params: &TaskParams, task: &TaskId, each: &mut dyn FnMut(String)) {
    let noted = |claim: &Claim<'_>| match params {
        TaskParams::File(_) | TaskParams::Template(_) | TaskParams::Link(_) | TaskParams::Directory(_) => {
            matches!(claim, Claim::Path(_))
        }
        TaskParams::Cron(_) => matches!(claim, Claim::Path(_)),
        TaskParams::User(_) => matches!(claim, Claim::Named { what, .. } if what == "user"),
        TaskParams::Systemd(_) => matches!(claim, Claim::Named { what, .. } if what == "unit"),
        TaskParams::Module(_) => matches!(claim, Claim::Named { what, .. } if what == "kernel module"),
        TaskParams::Sysctl(_) => matches!(claim, Claim::Named { what, .. } if what == "kernel parameter"),
        TaskParams::Mount(_) => matches!(claim, Claim::Named { what, .. } if what == "mount point"),
        _ => false,
    };
    params.claims(task, &mut |stated| {
        if let Some(key) = key(&stated.claim).filter(|_| noted(&stated.claim)) {
            each(key);
        }
    });
}

/// Calls `each` with the key of each thing that a task edits together with others: a note that nothing was there is made where a task
/// makes it, and stays until no task has a part in it. What is there without such a note was there before.
pub fn shared_keys(params: &TaskParams, task: &TaskId, each: &mut dyn FnMut(String)) {
    if !matches!(params, TaskParams::Ini(_) | TaskParams::Line(_)) {
        return;
    }
    params.claims(task, &mut |stated| {
        if let Some(key) = key(&stated.claim).filter(|_| stated.shared) {
            each(key);
        }
    });
}

/// The notes as the node's state lists them: what can come back, the first of it by name.
pub(super) fn list(notes: &BTreeMap<String, Found>) -> FoundList {
    let mut list = FoundList::default();
    let mut add = |claim: String, found: &Found| {
        let Some((what, size)) = found.summary() else { return };
        (list.total, list.bytes) = (list.total + 1, list.bytes + size);
        if list.first.len() < FOUND_LIMIT {
            list.first.push(FoundThing { claim, what, size });
        }
    };
    for (key, found) in notes {
        match found {
            Found::Files { files } => files.iter().for_each(|(path, found)| add(format!("path {path}"), found)),
            found => add(key.clone(), found),
        }
    }
    list
}
