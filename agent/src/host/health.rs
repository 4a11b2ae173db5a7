//! Which applied tasks do not work at this moment, and why: for the node's state.
//!
//! In: what the monitors of processes and the watch of units see. Out: all of them, whenever that changes. Nothing is repaired here.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard},
};

use groundplan_protocol::ids::TaskId;
use tokio::sync::Notify;

use super::differences::shorten;

/// See the module. A clone is the same.
#[derive(Debug, Clone, Default)]
pub(crate) struct Health(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    degraded: Mutex<BTreeMap<TaskId, String>>,
    changed: Notify,
}

impl Health {
    /// The task does not work.
    pub(crate) fn fails(&self, task: &TaskId, why: &str) {
        let why = shorten(why);
        let mut degraded = self.lock();
        if degraded.get(task) != Some(&why) {
            degraded.insert(task.clone(), why);
            self.0.changed.notify_one();
        }
    }

    /// The task works, or is not applied any more.
    pub(crate) fn works(&self, task: &TaskId) {
        if self.lock().remove(task).is_some() {
            self.0.changed.notify_one();
        }
    }

    /// Waits for a change; all that do not work then. May be dropped and called again.
    pub(crate) async fn changed(&self) -> BTreeMap<TaskId, String> {
        self.0.changed.notified().await;
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<TaskId, String>> {
        self.0.degraded.lock().unwrap_or_else(|e| e.into_inner())
    }
}
