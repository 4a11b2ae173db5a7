//! The graph of tasks: references made into edges, cycles found, an order.
//!
//! In: placed tasks with references by name. Out: edges between tasks, never expanded by node; each cycle as one diagnostic;
//! a topological order in which ties go by name. An edge leads from what is first to what waits for it.

mod capabilities;
mod cycles;
mod order;
mod references;

use groundplan_inventory::{Diagnostic, Location};
use groundplan_protocol::{effect::Effect, ids::Capability};

pub(crate) use self::order::order;
use self::{capabilities::Capabilities, references::Linker};
use crate::{desired::Scope, resolve::Placement};

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

/// Makes edges of all references and looks for cycles.
pub(crate) fn link<'a>(input: Input<'a>, faults: &mut Vec<Diagnostic>) -> Links<'a> {
    let capabilities = Capabilities::of(&input, faults);
    let mut linker = Linker::new(input, capabilities, faults);
    linker.link_all();
    let mut links = linker.finish();
    for links in &mut links.to {
        tidy(links);
    }
    cycles::find(input.placement, &links, faults);
    links
}

/// What edges are made of.
#[derive(Clone, Copy)]
pub(crate) struct Input<'a> {
    pub(crate) placement: &'a Placement<'a>,
    pub(crate) site: &'a groundplan_inventory::Site,
    pub(crate) catalog: &'a groundplan_services::Catalog,
}

/// Sorts the edges that lead to a task. Of those between the same instances the one with the greatest effect stays: it orders as well
/// and includes what lesser ones do.
fn tidy(links: &mut Vec<Link<'_>>) {
    links.sort_by(|a, b| (a.from, a.scope, b.trigger, a.how, a.at).cmp(&(b.from, b.scope, a.trigger, b.how, b.at)));
    links.dedup_by(|later, first| (later.from, later.scope) == (first.from, first.scope));
}
