//! The places of members below the directory: what is there, whose it is, and whether it may be replaced or removed.
//!
//! What the task did not unpack itself, what was changed since, and what another task or archive has there is never removed. A mode
//! or an owner that was changed does not count.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
};

use groundplan_protocol::plan::OnRemove;

use super::{
    error::ArchiveError,
    job::Job,
    manifest::{Entry, Manifest, Put},
    members::{Member, What},
    replaced::Notes,
};
use crate::host::{
    error::HostError,
    fs::{
        files::{self, FileError, Occupant, Removal, Sum},
        paths::{Missing, Root, path_of},
    },
};

/// What is at the place of a member.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Room {
    Free,
    /// Something that the member takes the place of, or a directory that stays.
    Taken,
    /// Something of another type that the task unpacked itself, to be removed first.
    Own,
}

/// What was put at `path` and below it.
pub(super) fn below(put: &Put, path: &str) -> BTreeMap<String, Vec<Entry>> {
    let is_below = |one: &str| one.strip_prefix(path).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    put.iter().filter(|(one, _)| is_below(one)).map(|(one, entries)| (one.clone(), entries.clone())).collect()
}

impl Job {
    /// The absolute paths of what other archives have unpacked.
    pub(super) fn unpacked_by_others(&self) -> BTreeSet<String> {
        let others = self.store.others(&self.task, &self.from, &self.params.dest);
        let paths = |other: &Manifest| {
            let dest = other.dest.trim_end_matches('/').to_owned();
            other.members.keys().map(|path| format!("{dest}/{path}")).collect::<Vec<_>>()
        };
        others.iter().flat_map(paths).collect()
    }

    /// Checks that nothing is in the way of a member but what this task unpacked itself.
    pub(super) fn room(
        &self,
        tree: &Root,
        path: &str,
        member: &Member,
        put: &Put,
        others: &BTreeSet<String>,
    ) -> Result<Room, ArchiveError> {
        let at = format!("/{path}");
        let failed =
            |source: FileError| ArchiveError::InTheWay { member: path.to_owned(), source: Box::new(source.into()) };
        let in_the_way = |there| failed(FileError::InTheWay { path: at.clone(), there });
        let is_own = || is_unchanged(tree, &at, put.get(path).map(Vec::as_slice)).map_err(failed);
        let is_directory = member.what == What::Directory;
        // Below what is a file now, and is to be a directory, nothing is yet.
        let occupant = match files::occupant(tree, &at) {
            Err(FileError::Path(e)) if e.is_not_a_directory() => return Ok(Room::Free),
            result => result.map_err(failed)?,
        };
        match occupant {
            None => Ok(Room::Free),
            Some(Occupant::Directory) if is_directory => Ok(Room::Taken),
            Some(Occupant::Directory) if self.claimant(path).is_some() => Ok(Room::Taken),
            Some(Occupant::Directory) => {
                let is_made = |entry: &Entry| matches!(entry, Entry::Directory { made: true, .. });
                if !put.get(path).is_some_and(|entries| entries.iter().any(is_made)) {
                    return Err(in_the_way("a directory"));
                }
                match self.foreign(tree, path, put, others)? {
                    None => Ok(Room::Own),
                    Some((inside, why)) => Err(ArchiveError::Foreign { member: path.to_owned(), inside, why }),
                }
            }
            Some(Occupant::File | Occupant::Link) if !is_directory => Ok(Room::Taken),
            Some(_) if self.claimant(path).is_some() => Ok(Room::Taken),
            Some(Occupant::File | Occupant::Link) if is_own()? && !others.contains(&self.absolute(path)) => {
                Ok(Room::Own)
            }
            // A link to a directory below `dest` may stay.
            Some(Occupant::Link) => match tree.directory(&at, Missing::Leave).map_err(|e| failed(e.into()))? {
                Some(_) => Ok(Room::Taken),
                None => Err(in_the_way("a link that leads nowhere")),
            },
            Some(Occupant::File) => Err(in_the_way("something that is not a directory")),
            Some(Occupant::Special) => Err(in_the_way("a pipe, a socket or a device")),
        }
    }

    /// Something in a directory that this task may not remove, and why.
    fn foreign(
        &self,
        tree: &Root,
        path: &str,
        put: &Put,
        others: &BTreeSet<String>,
    ) -> Result<Option<(String, &'static str)>, ArchiveError> {
        let failed =
            |source: FileError| ArchiveError::InTheWay { member: path.to_owned(), source: Box::new(source.into()) };
        let Some((dir, _)) = tree.directory(&format!("/{path}"), Missing::Leave).map_err(|e| failed(e.into()))? else {
            return Ok(None);
        };
        let io = |source| failed(FileError::Io { path: format!("/{path}"), doing: "list it", source });
        for entry in fs::read_dir(path_of(&dir)).map_err(io)? {
            let entry = entry.map_err(io)?;
            let inside = format!("{path}/{}", entry.file_name().to_string_lossy());
            let why = if self.claimant(&inside).is_some() {
                "belongs to another task"
            } else if others.contains(&self.absolute(&inside)) {
                "another archive has, too"
            } else if !put.contains_key(&inside) {
                "this task did not unpack"
            } else if !is_unchanged(tree, &format!("/{inside}"), put.get(&inside).map(Vec::as_slice)).map_err(failed)? {
                "was changed since it was unpacked"
            } else if entry.file_type().map_err(io)?.is_dir() {
                match self.foreign(tree, &inside, put, others)? {
                    Some(found) => return Ok(Some(found)),
                    None => continue,
                }
            } else {
                continue;
            };
            return Ok(Some((inside, why)));
        }
        Ok(None)
    }

    /// Removes what the task unpacked, the innermost first, and brings back what it replaced, unless there are no `notes`: whether
    /// anything was changed, and what was left in place.
    pub(super) fn remove_members(
        &self,
        tree: &Root,
        put: &Put,
        mut notes: Option<&mut Notes>,
    ) -> Result<(bool, Vec<String>), HostError> {
        let others = if put.is_empty() { BTreeSet::new() } else { self.unpacked_by_others() };
        let (mut removed, mut left) = (false, Vec::new());
        for (path, entries) in put.iter().rev().filter(|(path, _)| !others.contains(&self.absolute(path))) {
            let removal = self.remove_member(tree, path, entries, notes.as_deref_mut());
            match removal.map_err(|source| ArchiveError::Place { member: path.clone(), source: Box::new(source) })? {
                Removal::Removed => removed = true,
                Removal::NotThere => {}
                Removal::Left(why) => left.push(format!("in {}: {why}", self.params.dest)),
            }
        }
        Ok((removed, left))
    }

    fn remove_member(
        &self,
        tree: &Root,
        path: &str,
        entries: &[Entry],
        notes: Option<&mut Notes>,
    ) -> Result<Removal, HostError> {
        let at = format!("/{path}");
        let occupant = match files::occupant(tree, &at) {
            // The directory that it was in is something else now.
            Err(FileError::Path(e)) if e.is_not_a_directory() => None,
            result => result?,
        };
        let Some(occupant) = occupant else { return Ok(Removal::NotThere) };
        let is_final = notes.is_some();
        if let Some(other) = self.claimant(path) {
            notes.map_or(Ok(()), |notes| self.hand_on(path, entries, notes))?;
            return Ok(Removal::Left(format!("{at} belongs to {other}: left in place")));
        }
        let replaced = self.replaced(path).filter(|_| is_final && self.on_remove != OnRemove::Delete);
        let is_made = |entry: &Entry| matches!(entry, Entry::Directory { made: true, .. });
        let is_directory = |entry: &Entry| matches!(entry, Entry::Directory { .. });
        let is_own = match occupant {
            Occupant::Directory if entries.iter().any(is_made) => true,
            Occupant::Directory if entries.iter().any(is_directory) => return Ok(Removal::NotThere),
            Occupant::File | Occupant::Link => is_unchanged(tree, &at, Some(entries))?,
            _ => false,
        };
        if !is_own {
            return Ok(Removal::Left(format!("{at} was changed since it was unpacked: left in place")));
        }
        Ok(match replaced {
            Some(found) => self.found.restore(tree, &at, &found)?,
            None if occupant == Occupant::Directory => files::remove_directory(tree, &at)?,
            None => files::remove_file(tree, &at, occupant == Occupant::Link)?,
        })
    }
}

/// Whether what is there is one of these, its mode and owner aside.
fn is_unchanged(tree: &Root, at: &str, entries: Option<&[Entry]>) -> Result<bool, FileError> {
    for entry in entries.unwrap_or_default() {
        let is = match entry {
            Entry::Directory { .. } => files::occupant(tree, at)? == Some(Occupant::Directory),
            Entry::File { size, sha256, .. } => files::has_content(tree, at, Sum { digest: *sha256, size: *size })?,
            Entry::Link { target } => files::is_link(tree, at, target)?,
        };
        if is {
            return Ok(true);
        }
    }
    Ok(false)
}
