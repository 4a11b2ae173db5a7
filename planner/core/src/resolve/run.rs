//! What the parts of one resolution share, and what it keeps of each task for the next.

use std::{collections::HashSet, sync::Arc};

use groundplan_inventory::{Diagnostic, Location};
use groundplan_protocol::ids::NodeId;
use groundplan_services::Plugins;

use super::{files::Contents, instances::Instances, memo::Memo};
use crate::{
    desired::Resolved,
    knowledge::Misfit,
    render::{Known, Limits, SiteFacts},
};

/// What is kept of a task from one resolution to the next.
#[derive(Debug, Default)]
pub(super) struct KnownTask {
    pub(super) memo: Memo,
    pub(super) instances: Instances,
    pub(super) distinct: Vec<Arc<Resolved>>,
}

/// What the parts of one resolution share.
pub(super) struct Run<'a> {
    pub(super) now: u64,
    pub(super) facts: Arc<SiteFacts>,
    pub(super) known: Arc<Known>,
    pub(super) misfit: Misfit,
    pub(super) limits: Limits,
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
    /// Adds one, unless it has been added with the same place and message.
    pub(super) fn add(&mut self, fault: Diagnostic) {
        if self.seen.insert((fault.at.clone(), fault.message.clone())) {
            self.all.push(fault);
        }
    }

    /// Adds those of one node whose places have no fault yet. The message may contain the node's value, so that the same fault on a
    /// thousand nodes would have a thousand messages.
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
