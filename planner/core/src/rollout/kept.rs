//! What a rollout keeps of how far it is, as values: `tally` sees to them.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use groundplan_protocol::ids::{NodeId, ServiceId};

/// What is kept, once it was worked out.
#[derive(Debug, Clone, Default)]
pub(super) struct Tally(pub(super) Option<Kept>);

/// It follows from the rest of a rollout, so it makes no difference between two.
impl PartialEq for Tally {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

#[derive(Debug, Clone)]
pub(super) struct Kept {
    pub(super) progress: Progress,
    /// At least so many entries can go on, now or when their nodes are back, none of them on a parked node; none if that is not known.
    pub(super) open: Option<usize>,
    /// Whether the rollout has run, once that was found; none since something has changed that may matter.
    pub(super) has_run: Option<bool>,
    /// By gate: whether nothing that waits there counted as open when that was last worked out.
    pub(super) shut: Vec<bool>,
    /// By entry that stands for a whole barrier: the entries on its node that it may fire.
    pub(super) barriers: Arc<BTreeMap<u32, Vec<u32>>>,
    /// Those of them of which a change was reported for an older plan.
    pub(super) late: BTreeSet<u32>,
    /// By node: its entries that run.
    pub(super) running: BTreeMap<NodeId, Vec<u32>>,
    /// By service with a rolling limit: nodes that have changed since turns were last given.
    pub(super) changed: BTreeMap<ServiceId, BTreeSet<NodeId>>,
    /// By service with a rolling limit: nodes that were passed over because no turn was free.
    pub(super) passed: BTreeMap<ServiceId, BTreeSet<NodeId>>,
}

/// How many instances of a rollout have ended by what was reported, and how. What was not tried because of a failure elsewhere, which its
/// agent does not report, counts as left.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Progress {
    /// Not ended, and not reported to run.
    pub left: usize,
    /// Reported to run.
    pub running: usize,
    /// Done, and something changed.
    pub changed: usize,
    /// Done, and nothing had to be changed; or not needed.
    pub unchanged: usize,
    /// Failed.
    pub failed: usize,
    /// Not tried, because of a failure on its node.
    pub blocked: usize,
    /// Not tried, because of a newer plan.
    pub superseded: usize,
}

/// What was reported of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reported {
    Nothing,
    Running,
    Changed,
    Unchanged,
    Failed,
    Blocked,
    Superseded,
}

impl Progress {
    pub(super) fn count(&mut self, reported: Reported) -> &mut usize {
        match reported {
            Reported::Nothing => &mut self.left,
            Reported::Running => &mut self.running,
            Reported::Changed => &mut self.changed,
            Reported::Unchanged => &mut self.unchanged,
            Reported::Failed => &mut self.failed,
            Reported::Blocked => &mut self.blocked,
            Reported::Superseded => &mut self.superseded,
        }
    }
}
