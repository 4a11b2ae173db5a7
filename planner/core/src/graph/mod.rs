//! The graph of tasks: references made into edges, cycles found, an order.
//!
//! In: placed tasks with references by name. Out: edges between tasks, never expanded node by node; each cycle as one diagnostic;
//! a topological order in which ties go by name. An edge leads from a task to the task that waits for it.

mod capabilities;
mod cycles;
mod link;
mod order;
mod references;

use groundplan_inventory::Diagnostic;

use self::{capabilities::Capabilities, references::Linker};
pub(crate) use self::{
    link::{Input, Link, Links},
    order::order,
};

/// Makes edges of all references and finds cycles.
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

/// Sorts the edges that lead to a task and keeps one for each source and scope: that with the greatest effect, which orders as well and
/// includes what lesser effects do.
fn tidy(links: &mut Vec<Link<'_>>) {
    // Triggers in descending order, so that the greatest comes first and is the one that stays.
    links.sort_by(|a, b| (a.from, a.scope, b.trigger, a.how, a.at).cmp(&(b.from, b.scope, a.trigger, b.how, b.at)));
    links.dedup_by(|later, first| (later.from, later.scope) == (first.from, first.scope));
}
