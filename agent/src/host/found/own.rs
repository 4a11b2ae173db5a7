//! What a task itself may have put on the host.
//!
//! In: versions of a task. Out: whether what is found may be of one of them. Pure.

use groundplan_protocol::{digest::Digest, kinds::TaskParams, plan::TaskSpec};

use crate::machine::Found;

/// What the versions of a task that may be on the host look like there: after a power loss it is not to be taken for what was found.
#[derive(Debug, Default)]
pub(crate) struct Own {
    contents: Vec<Digest>,
    targets: Vec<String>,
}

impl Own {
    /// Of these versions of a task.
    pub(crate) fn of<'a>(specs: impl IntoIterator<Item = &'a TaskSpec>) -> Self {
        let mut own = Self::default();
        for spec in specs {
            own.contents.extend(spec.content.as_ref().and_then(|content| content.name()).map(|blob| blob.sha256));
            if let TaskParams::Link(link) = &spec.params {
                own.targets.push(link.target.clone());
            }
        }
        own
    }

    /// Whether a version of the task may have made what is there. Files and links are put in place whole, so that anything else is
    /// not of the task.
    pub(crate) fn may_be(&self, found: &Found) -> bool {
        match found {
            Found::File { sha256, .. } => self.contents.is_empty() || self.contents.contains(sha256),
            Found::Link { target, .. } => self.targets.is_empty() || self.targets.contains(target),
            // Of these, noting what may be the task's own leaves it in place, which is all that is to be ensured.
            _ => false,
        }
    }
}
