//! The sum of what one node is shipped: an agent refuses a plan that names more than its limit, so that nothing of it is carried out.
//!
//! In: all tasks with their instances. Out: a diagnostic for each task that is the largest on a node with too much. Content that several
//! tasks of a node ship counts once, and what is in the plan itself does not count.

use std::collections::{BTreeMap, BTreeSet};

use groundplan_inventory::Diagnostic;
use groundplan_protocol::{blob::BlobRef, digest::Digest, plan::TaskSpec};

use super::{claims::Owner, draft};
use crate::placement::Placement;

/// What a node is shipped.
#[derive(Default)]
struct Shipped {
    seen: BTreeSet<Digest>,
    total: u64,
    /// The tasks that ship it, each with the size, as numbers of owners.
    by: Vec<(u64, usize)>,
}

impl Shipped {
    fn add(&mut self, blob: &BlobRef, owner: usize) {
        if self.seen.insert(blob.sha256) {
            self.total = self.total.saturating_add(blob.size);
            self.by.push((blob.size, owner));
        }
    }
}

/// Reports nodes that are shipped more than `limit` bytes.
pub(super) fn limit(placement: &Placement<'_>, owners: &[Owner<'_>], limit: u64, faults: &mut Vec<Diagnostic>) {
    let mut nodes: BTreeMap<u32, Shipped> = BTreeMap::new();
    for (i, owner) in owners.iter().enumerate() {
        let blob = |spec: &TaskSpec| spec.content.as_ref()?.blob().cloned();
        // Most tasks ship nothing that is large.
        if owner.distinct.iter().all(|resolved| blob(&resolved.spec).is_none()) {
            continue;
        }
        for instance in &*owner.instances {
            if let Some(blob) = blob(&instance.resolved.spec) {
                nodes.entry(instance.node.0).or_default().add(&blob, i);
            }
        }
    }
    // By the tasks that ship most: a thousand nodes of one group have one fault.
    let mut found: BTreeMap<Vec<usize>, (u32, usize, Shipped)> = BTreeMap::new();
    for (node, mut shipped) in nodes.into_iter().filter(|(_, shipped)| shipped.total > limit) {
        shipped.by.sort_by_key(|(size, owner)| (std::cmp::Reverse(*size), *owner));
        let largest = shipped.by.iter().take(NAMED).map(|(_, owner)| *owner).collect();
        found.entry(largest).and_modify(|(_, more, _)| *more += 1).or_insert((node, 0, shipped));
    }
    for (node, more, shipped) in found.into_values() {
        faults.push(fault(placement, owners, limit, (node, more), &shipped));
    }
}

/// How many of the tasks that ship most are named.
const NAMED: usize = 3;

fn fault(
    placement: &Placement<'_>,
    owners: &[Owner<'_>],
    limit: u64,
    (node, more): (u32, usize),
    shipped: &Shipped,
) -> Diagnostic {
    let mib = |bytes: u64| format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20));
    let node = placement.nodes[node as usize];
    let others = match more {
        0 => String::new(),
        more => format!(" (and {more} more)"),
    };
    let message = format!(
        "node `{node}`{others} is shipped {} of files; all of a node together may have {}",
        mib(shipped.total),
        mib(limit)
    );
    let place = |owner: usize| draft::place(placement.tasks[owners[owner].task].task, "source");
    let words = |(size, owner): &(u64, usize)| format!("{} by `{}`", mib(*size), placement.name(owners[*owner].task));
    // Above the limit there is something, so one of them is the largest.
    let (first, rest) = (&shipped.by[0], shipped.by.iter().skip(1).take(NAMED - 1));
    let mut diagnostic = Diagnostic::new(place(first.1), message).label(words(first));
    for other in rest {
        diagnostic = diagnostic.related(place(other.1), words(other));
    }
    diagnostic.hint(
        "install what is large as packages, fetch it on the node with a `command`, or raise `max_node_mib` in site.toml and \
         `max_blobs` of the agents",
    )
}
