//! What answers are made from.

use std::sync::Arc;

use groundplan_machine::View;
use groundplan_protocol::envelope::PublicKey;

use crate::{
    api::types::{Problem, ProblemKind},
    repository::follow::Follow,
    shell::{HeldKeys, Site},
};

/// What does not change while the planner runs.
pub(crate) struct PlannerInfo {
    /// The planner's random id, which its store keeps.
    pub(crate) planner: String,
    /// The key that agents are to trust.
    pub(crate) key: PublicKey,
    /// The repository: a path or a URL.
    pub(crate) location: String,
    /// The branch that it follows, and how fetching goes. This does change.
    pub(crate) follow: Arc<Follow>,
    /// The host and port of the broker, as configured.
    pub(crate) broker: String,
}

/// All that the planner knows at one moment.
pub(crate) struct Snapshot {
    /// What the machine knows.
    pub(crate) view: View,
    /// The active commit with its files.
    pub(crate) site: Option<Arc<Site>>,
    /// What does not change.
    pub(crate) info: Arc<PlannerInfo>,
    /// Why the store cannot be written, while it cannot.
    pub(crate) store: Option<StoreFault>,
    /// Keys of nodes that an operator has to confirm.
    pub(crate) held: Arc<HeldKeys>,
}

/// The store cannot be written: nothing is published until it can.
#[derive(Debug, Clone)]
pub(crate) struct StoreFault {
    /// Why.
    pub(crate) error: String,
    /// Since when, in milliseconds since the Unix epoch.
    pub(crate) since_ms: u64,
}

impl Snapshot {
    /// The site of the active commit; a problem with a hint if there is none yet.
    pub(super) fn active(&self) -> Result<&Site, Problem> {
        self.site.as_deref().ok_or_else(|| {
            let error = "there is no active commit yet";
            Problem::new(ProblemKind::Unavailable, error).hint("`groundplan status` shows why")
        })
    }
}
