//! What nodes tell, and what becomes of the commit in force when they tell something new.
//!
//! In: changed facts and exports. Out: the same commit resolved anew, and planned anew if that gives anything else. A changed export
//! holds all gates until it is planned with; changed facts may do so only so often, so that one that flaps makes no storm.

use std::time::{Duration, Instant};

use groundplan_core::{
    DesiredState, Knowledge,
    knowledge::{Facts, Misfit},
};
use groundplan_protocol::ids::{NodeId, TaskId};

use super::{DEBOUNCE, Dispatcher, words::Places};
use crate::{
    api::types::{Told, VERSION},
    site,
};

/// How often facts that were known before may make a new plan.
const FACTS_EVERY: Duration = Duration::from_secs(10);

/// News that the commit in force has asked for.
#[derive(Debug)]
pub(super) struct Learned {
    /// When it is to be resolved with.
    pub(super) at: Instant,
    /// Whether no gate may be opened before.
    pub(super) holds_gates: bool,
}

impl Dispatcher {
    /// What is known of all nodes.
    pub(super) fn knowledge(&self, misfit: Misfit) -> Knowledge {
        let mut knowledge = Knowledge { misfit, ..Knowledge::default() };
        for (node, record) in &self.nodes {
            if !record.facts.is_empty() {
                knowledge.facts.insert(node.clone(), record.facts.clone());
            }
            for (task, value) in &record.exports {
                knowledge.exports.entry(task.clone()).or_default().insert(node.clone(), value.clone());
            }
        }
        knowledge
    }

    /// The same for whoever asks.
    pub(super) fn told(&self) -> Told {
        let Knowledge { facts, exports, .. } = self.knowledge(Misfit::Refuse);
        let plain = |(node, facts): (NodeId, std::sync::Arc<Facts>)| (node, (*facts).clone());
        Told { version: VERSION, facts: facts.into_iter().map(plain).collect(), exports }
    }

    /// A node's facts have changed, or are known for the first time.
    pub(super) fn on_facts(&mut self, node: &NodeId, first: bool) {
        let asked = self.loaded.as_ref().is_some_and(|l| l.loaded.desired.asked.facts.contains(node));
        if !asked {
            return;
        }
        let now = Instant::now();
        let allowed = self.facts_learned.map_or(now, |last| last + FACTS_EVERY);
        let at = if first { now } else { now.max(allowed) };
        self.learn(at + DEBOUNCE[0], false);
    }

    /// Another value of an export is known.
    pub(super) fn on_export(&mut self, task: &TaskId) {
        let asked = self.loaded.as_ref().is_some_and(|l| l.loaded.desired.asked.exports.contains(task));
        if asked {
            self.learn(Instant::now() + DEBOUNCE[0], true);
        }
    }

    fn learn(&mut self, at: Instant, holds_gates: bool) {
        let learned = self.learned.get_or_insert(Learned { at, holds_gates });
        learned.at = learned.at.min(at);
        learned.holds_gates |= holds_gates;
    }

    /// Resolves the commit in force anew, if there is news for it. Returns whether it asks for anything else now.
    pub(super) fn resolve_anew(&mut self) -> bool {
        let Some(learned) = self.learned.take() else { return false };
        let knowledge = self.knowledge(Misfit::Wait);
        let Some(in_force) = &mut self.loaded else { return false };
        if !learned.holds_gates {
            self.facts_learned = Some(Instant::now());
        }
        match site::load(&in_force.tree, &knowledge, &mut self.cache) {
            Ok(loaded) => {
                if self.meta.refused.as_ref().is_some_and(|refused| refused.commit.id == in_force.commit.id) {
                    self.meta.refused = None;
                    self.group.meta = Some(self.meta.clone());
                }
                let same = same(&in_force.loaded.desired, &loaded.desired);
                tracing::debug!(commit = %in_force.commit.id, same, "resolved anew with what nodes have told");
                let before = std::mem::replace(&mut in_force.loaded, loaded);
                in_force.blobs = None;
                if !same {
                    self.earlier.get_or_insert(before.desired);
                }
                !same
            }
            Err(diagnostics) => {
                let commit = in_force.commit.clone();
                let mut places = Places::new(&in_force.tree);
                let faults = diagnostics.iter().map(|diagnostic| places.fault(diagnostic)).collect();
                drop(places);
                self.refuse(commit, faults);
                false
            }
        }
    }
}

/// Whether two resolutions of one tree ask nodes for the same.
fn same(a: &DesiredState, b: &DesiredState) -> bool {
    let same_task = |(a, b): (&groundplan_core::desired::TaskVertex, &groundplan_core::desired::TaskVertex)| {
        let off =
            |task: &groundplan_core::desired::TaskVertex| task.off.iter().map(|(node, _)| *node).collect::<Vec<_>>();
        let resolved = |(a, b): (&groundplan_core::Instance, &groundplan_core::Instance)| {
            a.node == b.node && a.resolved.fingerprint == b.resolved.fingerprint
        };
        a.instances.len() == b.instances.len()
            && a.pending == b.pending
            && off(a) == off(b)
            && a.instances.iter().zip(&b.instances).all(resolved)
    };
    a.graph.tasks.len() == b.graph.tasks.len() && a.graph.tasks.iter().zip(&b.graph.tasks).all(same_task)
}
