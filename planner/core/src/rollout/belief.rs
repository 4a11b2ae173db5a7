//! What the planner believes that a node has applied: its last state, and the reports that came after it.
//!
//! In: states and reports, in any order and however often they come. Out: [`NodeApplied`], the base of the next plan. A state is
//! complete and replaces everything that was believed; a report changes what is believed of one task.

use std::sync::Arc;

use groundplan_protocol::{
    ids::{Generation, LedgerId, NodeId, Sequence, TaskId},
    plan::TriggerSource,
    report::TaskReport,
    state::{Applied, NodeState},
};
use serde::{Deserialize, Serialize};

use crate::{
    applied::{AppliedState, NodeApplied},
    plan::PlanTask,
};

/// What the planner believes of one node. Kept in its store. A clone shares what is applied.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Belief {
    /// The ledger of the node's last state; none before the first one.
    pub ledger: Option<LedgerId>,
    /// The revision of that state.
    pub revision: u64,
    /// The last report that is contained, in that state or folded in after it.
    pub sequence: Sequence,
    /// The last generation that the node was reported to be at.
    pub generation: Generation,
    /// What is applied, and which effects are due.
    pub applied: NodeApplied,
}

/// How a state compares with what was believed before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StateFold {
    /// It is older, and was ignored.
    Old,
    /// It is the same.
    Same,
    /// It differs: what was planned from the belief may be wrong, so plan again.
    Differs,
}

impl AppliedState {
    /// Adds what is believed of a node.
    pub fn insert(&mut self, node: NodeId, belief: &Belief) {
        self.at.insert(node.clone(), belief.generation);
        self.nodes.insert(node, belief.applied.clone());
    }
}

impl Belief {
    /// Takes a node's state.
    pub fn fold_state(&mut self, state: &NodeState) -> StateFold {
        // Another ledger means that the host was set up again: revisions and numbers start over, and nothing of the old one counts.
        let same_ledger = self.ledger.as_ref() == Some(&state.ledger);
        if same_ledger && (state.revision < self.revision || state.sequence < self.sequence) {
            return StateFold::Old;
        }
        let same_tasks = *self.applied.tasks == state.applied;
        let differs = !same_ledger || !same_tasks || self.applied.obligations != state.obligations;
        // Most states confirm what is known: then snapshots keep sharing it.
        let tasks = if same_tasks { self.applied.tasks.clone() } else { Arc::new(state.applied.clone()) };
        *self = Self {
            ledger: Some(state.ledger.clone()),
            revision: state.revision,
            sequence: state.sequence,
            generation: state.generation.max(if same_ledger { self.generation } else { Generation(0) }),
            applied: NodeApplied { tasks, obligations: state.obligations.clone() },
        };
        if differs { StateFold::Differs } else { StateFold::Same }
    }

    /// Takes the report of number `sequence`; `planned` is the task in the plan of exactly the report's generation, where that plan is
    /// at hand.
    ///
    /// Returns whether it was taken: not if it is of another ledger, or contained already.
    pub fn fold_report(
        &mut self,
        ledger: &LedgerId,
        sequence: Sequence,
        report: &TaskReport,
        planned: Option<&PlanTask>,
    ) -> bool {
        if self.ledger.as_ref() != Some(ledger) || sequence <= self.sequence {
            return false;
        }
        self.sequence = sequence;
        self.generation = self.generation.max(report.generation);
        let task = &report.task;
        match report.fingerprint {
            // Nothing is applied any more. After a failed removal it is not known what is left, so what was believed stays.
            None if report.outcome.is_success() => {
                Arc::make_mut(&mut self.applied.tasks).remove(task);
            }
            None => {}
            Some(fingerprint) => {
                let known = self.applied.tasks.get(task).is_some_and(|a| a.fingerprint == fingerprint);
                let planned = planned.and_then(PlanTask::applied).filter(|a| a.fingerprint == fingerprint);
                match planned {
                    // What was not carried out has not recorded its new edges.
                    _ if known && !report.outcome.is_success() => {}
                    Some(applied) => drop(Arc::make_mut(&mut self.applied.tasks).insert(task.clone(), applied)),
                    None if known => {}
                    // Applied by a plan that is not at hand: inputs and edges stay unknown until the next state.
                    None => {
                        let (claims, contends) = (report.claims.clone(), report.contends.clone());
                        let (inputs, edges) = Default::default();
                        let bare =
                            Applied { fingerprint, inputs, edges, claims, contends, on_remove: None, destroys: None };
                        Arc::make_mut(&mut self.applied.tasks).insert(task.clone(), bare);
                    }
                }
            }
        }
        if report.outcome.is_success() {
            self.applied.obligations.remove(task);
            self.decide(task, report.outcome.fires());
        }
        true
    }

    /// Settles what waits for a source on the same node: its targets' effects are due, or the source is no longer open for them.
    fn decide(&mut self, source: &TaskId, fires: bool) {
        let on = TriggerSource::Task(source.clone());
        self.applied.obligations.retain(|_, obligation| {
            if let Some(i) = obligation.open.iter().position(|open| *open == on) {
                obligation.open.remove(i);
                obligation.fired |= fires;
            }
            obligation.fired || !obligation.open.is_empty()
        });
    }
}
