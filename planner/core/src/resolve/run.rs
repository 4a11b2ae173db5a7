//! What the parts of one resolution share, and what it keeps of each task for the next.

use std::{collections::HashSet, sync::Arc};

use groundplan_inventory::{Diagnostic, Location};
use groundplan_protocol::ids::NodeId;
use groundplan_services::Plugins;

use super::{files::Contents, instances::Instances, memo::Memo};
use crate::{
    desired::Resolved,
    knowledge::Misfit,
    render::{Known, SiteFacts},
};

/// What is known of a task.
#[derive(Debug, Default)]
pub(super) struct KnownTask {
    pub(super) memo: Memo,
    pub(super) instances: Instances,
    pub(super) distinct: Vec<Arc<Resolved>>,
}

/// One resolution, as its parts share it.
pub(super) struct Run<'a> {
    pub(super) now: u64,
    pub(super) facts: Arc<SiteFacts>,
    pub(super) known: Arc<Known>,
    pub(super) misfit: Misfit,
    pub(super) plugins: &'a Plugins,
    /// The nodes, by number.
    pub(super) nodes: &'a [&'a NodeId],
    pub(super) contents: &'a mut Contents,
    pub(super) faults: Faults,
}

/// Faults, each place with a message once.
#[derive(Default)]
pub(super) struct Faults {
    seen: HashSet<(Location, String)>,
    pub(super) all: Vec<Diagnostic>,
}

impl Faults {
    /// Adds one, unless the same has been said of the same place.
    pub(super) fn add(&mut self, fault: Diagnostic) {
        if self.seen.insert((fault.at.clone(), fault.message.clone())) {
            self.all.push(fault);
        }
    }

    /// Adds those of one node where nothing is said of their place yet: the next node's value is another one, and no other fault.
    pub(super) fn add_all(&mut self, faults: Vec<Diagnostic>, node: Option<&NodeId>) {
        let is_new = |fault: &Diagnostic| self.all.iter().all(|known| known.at != fault.at);
        for mut fault in faults.into_iter().filter(is_new).collect::<Vec<_>>() {
            if let Some(node) = node {
                fault.label = format!("on node `{node}`");
            }
            self.add(fault);
        }
    }
}
