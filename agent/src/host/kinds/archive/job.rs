//! All that unpacking needs: the task with its parameters, its archive, and the paths that are left to other tasks.

use std::{collections::BTreeMap, sync::Arc};

use groundplan_protocol::{ids::TaskId, kinds::Archive, plan::OnRemove};
use nix::unistd::{Gid, Uid};

use super::manifest::Store;
use crate::host::{
    found::FoundStore,
    fs::{files::Sum, paths::Root},
    job::Content,
};

/// All that unpacking needs, to be moved to a thread of its own.
pub(super) struct Job {
    pub(super) task: TaskId,
    pub(super) params: Archive,
    pub(super) root: Root,
    pub(super) content: Option<(Option<Content>, Sum)>,
    pub(super) owner: (Uid, Gid),
    pub(super) store: Store,
    /// What members replaced.
    pub(super) found: Arc<FoundStore>,
    /// What happens to what a member replaced, once that goes.
    pub(super) on_remove: OnRemove,
    pub(super) search: String,
    /// Tasks that hand over to it: what they unpacked is its own.
    pub(super) from: Vec<TaskId>,
    /// The paths below the directory that other tasks claim.
    pub(super) claimed: BTreeMap<String, TaskId>,
}

impl Job {
    /// Another task that claims the path of a member.
    pub(super) fn claimant(&self, path: &str) -> Option<&TaskId> {
        self.claimed.get(&self.absolute(path))
    }

    pub(super) fn absolute(&self, path: &str) -> String {
        format!("{}/{path}", self.params.dest.trim_end_matches('/'))
    }
}
