//! Which tasks hold which part of the host: a path, a unit, a user.
//!
//! Within one commit no two tasks hold the same. Across commits they may: a task is renamed, or moves to a path that
//! another one gives up. Whichever job comes first, what the one made must not fall to the removal of the other.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Mutex, MutexGuard},
};

use groundplan_protocol::ids::TaskId;

use super::kinds::Hold;

/// Who holds what.
#[derive(Debug, Default)]
pub(crate) struct Holds(Mutex<BTreeMap<String, BTreeSet<TaskId>>>);

impl Holds {
    pub(crate) fn add(&self, hold: &Hold, task: &TaskId) {
        if let Some(key) = key(hold) {
            self.lock().entry(key).or_default().insert(task.clone());
        }
    }

    pub(crate) fn release(&self, hold: &Hold, task: &TaskId) {
        let mut holds = self.lock();
        let Some(key) = key(hold) else { return };
        if let Some(tasks) = holds.get_mut(&key) {
            tasks.remove(task);
            if tasks.is_empty() {
                holds.remove(&key);
            }
        }
    }

    pub(crate) fn held_by_another(&self, hold: &Hold, task: &TaskId) -> Option<TaskId> {
        self.lock().get(&key(hold)?)?.iter().find(|other| *other != task).cloned()
    }

    pub(crate) fn is_held(&self, hold: &Hold) -> bool {
        key(hold).is_some_and(|key| self.lock().contains_key(&key))
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, BTreeSet<TaskId>>> {
        self.0.lock().unwrap_or_else(|e| e.into_inner())
    }
}

fn key(hold: &Hold) -> Option<String> {
    match hold {
        Hold::File(key) | Hold::Directory(key) | Hold::Claimed(key) => Some(key.clone()),
        Hold::Named(what, name) => Some(format!("{what} {name}")),
        Hold::Process(_) | Hold::Nothing => None,
    }
}
