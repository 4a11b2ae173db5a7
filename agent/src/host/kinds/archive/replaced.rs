//! What members take the place of: noted before the first of them is put in place, and brought back by whichever archive has the path last.
//!
//! A note is of an absolute path and not of a task: it stays while any task has a member there, and any version of it. It is no note
//! of a claim: a task that claims the path finds the member, and what that replaced is handed on to it once the archive goes first.

use super::{
    error::ArchiveError,
    job::Job,
    manifest::{Entry, Store},
};
use crate::{
    host::{
        error::HostError,
        found::{FoundError, FoundStore},
        fs::paths::Root,
    },
    machine::{Found, found::REPLACED},
};

/// What is to be kept in the ledger, or dropped there.
pub(super) type Notes = Vec<(String, Option<Found>)>;

impl Job {
    fn key(&self, path: &str) -> String {
        format!("{REPLACED}{}", self.absolute(path))
    }

    /// What the member at a path replaced, if there was anything.
    pub(super) fn replaced(&self, path: &str) -> Option<Found> {
        self.found.get(&self.key(path))
    }

    /// Notes what is at these paths. If it cannot be kept, nothing is changed.
    pub(super) fn note_replaced(&self, tree: &Root, paths: &[String], notes: &mut Notes) -> Result<(), HostError> {
        let mut noted = Notes::new();
        for path in paths {
            let key = self.key(path);
            if self.found.get(&key).is_some() {
                continue;
            }
            match self.found.look_up(tree, &format!("/{path}"), false, self.on_remove, false) {
                Ok(found) => noted.push((key, Some(found))),
                Err(source) => {
                    noted.iter().for_each(|(_, found)| found.iter().for_each(|found| self.found.pass_over(found)));
                    return Err(ArchiveError::InTheWay { member: path.clone(), source: Box::new(source) }.into());
                }
            }
        }
        if !noted.is_empty() {
            self.found.put_all(&noted)?;
            notes.append(&mut noted);
        }
        Ok(())
    }

    /// Leaves a path to the task that claims it: if that one found what this task had put there, it was not there before the two.
    pub(super) fn hand_on(&self, path: &str, entries: &[Entry], notes: &mut Notes) -> Result<(), FoundError> {
        let key = format!("path {}", self.absolute(path));
        let found = self.found.get(&key);
        let is_own = entries.iter().any(|entry| match (entry, &found) {
            (Entry::File { sha256, .. }, Some(Found::File { sha256: found, .. })) => sha256 == found,
            (Entry::Link { target }, Some(Found::Link { target: found, .. })) => target == found,
            _ => false,
        });
        if is_own {
            let before = self.replaced(path).unwrap_or(Found::Absent);
            self.found.put(&key, &before)?;
            notes.push((key, Some(before)));
        }
        Ok(())
    }
}

/// Drops the notes of all paths below `dest` at which no task has a member any more.
pub(super) fn drop_unused(found: &FoundStore, store: &Store, dest: &str, notes: &mut Notes) {
    let keys = found.keys(&format!("{REPLACED}{}/", dest.trim_end_matches('/')));
    if keys.is_empty() {
        return;
    }
    let used = store.names();
    for key in keys.into_iter().filter(|key| !used.contains(&key[REPLACED.len()..])) {
        found.forget(&key);
        notes.push((key, None));
    }
}
