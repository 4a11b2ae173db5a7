//! Edges between numbered tasks, as the resolution makes and reads them.

use groundplan_inventory::{Location, Site};
use groundplan_protocol::{effect::Effect, ids::Capability};
use groundplan_services::Catalog;

use crate::{desired::Scope, placement::Placement};

/// All edges.
pub(crate) struct Links<'a> {
    /// By the number of the task that they lead to; sorted, without duplicates.
    pub(crate) to: Vec<Vec<Link<'a>>>,
    /// The external capabilities that each task requires, sorted; by its number.
    pub(crate) external: Vec<Vec<&'a Capability>>,
}

/// An edge that leads to a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Link<'a> {
    /// The number of the task that it comes from.
    pub(crate) from: usize,
    pub(crate) scope: Scope,
    pub(crate) trigger: Option<Effect>,
    pub(crate) how: How,
    pub(crate) at: &'a Location,
}

/// How an edge came to be.
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

/// What edges are made of.
#[derive(Clone, Copy)]
pub(crate) struct Input<'a> {
    pub(crate) placement: &'a Placement<'a>,
    pub(crate) site: &'a Site,
    pub(crate) catalog: &'a Catalog,
}
