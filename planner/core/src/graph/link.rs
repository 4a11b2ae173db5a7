//! Edges between tasks by number, with the place and the key that declared each.

use groundplan_inventory::{Location, Site};
use groundplan_protocol::{effect::Effect, ids::Capability};

use crate::{desired::Scope, placement::Placement};

/// All edges of the site, before cycles are looked for.
pub(crate) struct Links<'a> {
    /// By the task that they lead to; sorted, at most one for each source and scope.
    pub(crate) to: Vec<Vec<Link<'a>>>,
    /// By task: the external capabilities that it requires, sorted.
    pub(crate) external: Vec<Vec<&'a Capability>>,
}

/// An edge that leads to a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Link<'a> {
    /// The task that it comes from.
    pub(crate) from: usize,
    pub(crate) scope: Scope,
    pub(crate) trigger: Option<Effect>,
    pub(crate) how: How,
    pub(crate) at: &'a Location,
}

/// What declared an edge.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum How {
    /// `requires` of the task or its service.
    Requires,
    /// `needed_by` of the other end.
    NeededBy,
    /// `restart_on`, `reload_on`, `run_on`.
    Trigger(Effect),
    /// Its place in the file.
    FileOrder,
}

/// What edges are made from.
#[derive(Clone, Copy)]
pub(crate) struct Input<'a> {
    pub(crate) placement: &'a Placement<'a>,
    pub(crate) site: &'a Site,
}
