//! One plan, away from the loop: from the values of a [`PlanJob`] to a [`Planned`], which the machine takes up or drops as stale.
//!
//! In: what is desired and applied, what each node was sent last, the rollout that the plan supersedes. Out: the plan, its rollout, and
//! each node's part. Pure: nothing but its arguments goes in.

use std::{collections::BTreeMap, sync::Arc};

use groundplan_core::{
    Plan, Reason, Rollout,
    applied::{AppliedState, Policy},
    plan::{NodePart, PendingInstance, PlanTask, ReasonReport, plan},
};
use groundplan_protocol::{
    digest::Digest,
    ids::{Generation, InstanceId, LedgerId, NodeId},
    plan::{PlanText, PlannedTask},
};

use crate::{
    commit::{ActiveCommit, Earlier},
    ids::JobId,
    record::{PlanNote, StoredPlan},
    rollout::{ActiveRollout, PlannedReasons},
};

/// Work out a plan.
#[derive(Debug)]
pub struct PlanJob {
    /// To be returned with the answer.
    pub job: JobId,
    /// The generation that the plan gets.
    pub generation: Generation,
    /// The active commit.
    pub active: Arc<ActiveCommit>,
    /// What was desired before, for reasons that name the values before.
    pub earlier: Earlier,
    /// What every known and declared node has applied.
    pub applied: AppliedState,
    /// What is to be checked again.
    pub policy: Policy,
    /// The rollout that the plan supersedes.
    pub before: Option<Arc<ActiveRollout>>,
    /// What each of these nodes was sent last.
    pub sent: BTreeMap<NodeId, Sent>,
    /// Whether each is sent its part even if it has the very same already: an agent begins again with it, and tries at once what waits
    /// for its next attempt.
    pub again: bool,
}

/// What a node was sent last.
#[derive(Debug, Clone, Default)]
pub struct Sent {
    /// The last plan published for it.
    pub planned: Option<PlanNote>,
    /// The ledger that it has.
    pub ledger: Option<LedgerId>,
    /// The generation that the node is at.
    pub at: Generation,
    /// Whether it reports that it has not ended that plan.
    pub busy: bool,
    /// Whether it reports that it has.
    pub idle: bool,
}

impl Sent {
    /// Whether the node is at a plan of another planner.
    fn has_plan_of_another(&self) -> bool {
        self.planned.as_ref().is_none_or(|planned| self.at > planned.generation)
    }
}

/// A plan that was worked out.
#[derive(Debug)]
pub struct Planned {
    /// Of which job.
    pub job: JobId,
    /// Its actions with their reasons, in an execution order.
    pub actions: Arc<[PlannedReasons]>,
    /// Instances that could not be planned.
    pub pending: Vec<PendingInstance>,
    /// Whether something of the rollout before was still open.
    pub supersedes_open: bool,
    /// The rollout, of which nothing has happened yet.
    pub rollout: Rollout,
    /// Each node's part.
    pub parts: Arc<BTreeMap<NodeId, NodePart>>,
    /// The plans to be published: for each node that has a part, unless the very same is on its way to it, and an empty one for a node
    /// that is still at an earlier part.
    pub plans: Vec<(NodeId, StoredPlan)>,
    /// Nodes to which the very same plan is on its way already, with its generation.
    pub kept: BTreeMap<NodeId, Generation>,
    /// Nodes that have a part.
    pub tried: Vec<NodeId>,
}

/// What gives reasons their lines.
pub type Describe<'a> = dyn FnMut(&InstanceId, &[Reason]) -> Vec<ReasonReport> + 'a;

impl PlanJob {
    /// Works it out. `describe` gives the chain of reasons of an instance the lines of its places.
    pub fn run(mut self, describe: &mut Describe<'_>) -> Planned {
        let desired = &self.active.desired;
        let mut open = BTreeMap::new();
        if let Some(before) = &self.before {
            // What fired across nodes is known to the planner alone: it becomes an obligation of the new plan.
            let sent = &self.sent;
            let follows = |node: &NodeId| !sent.get(node).is_some_and(Sent::has_plan_of_another);
            before.rollout.carry_obligations(&mut self.applied, follows);
            before.rollout.carry_late_changes(desired, &mut self.applied);
            open = before.open_nodes();
        }
        let mut plan = plan(desired, &self.applied, &self.policy);
        if let Some(earlier) = &self.earlier {
            plan.recall(&self.applied, earlier);
        }
        let actions = plan.actions.iter().map(|planned| PlannedReasons {
            instance: planned.instance.clone(),
            action: planned.action,
            reasons: describe(&planned.instance, &planned.reasons),
        });
        let actions = actions.collect();
        let rollout = Rollout::new(&plan, self.generation);
        let mut planned = Planned {
            job: self.job,
            actions,
            pending: std::mem::take(&mut plan.pending),
            supersedes_open: !open.is_empty(),
            rollout,
            parts: Arc::default(),
            plans: Vec::new(),
            kept: BTreeMap::new(),
            tried: Vec::new(),
        };
        self.address(&plan, &open, &mut planned);
        planned.parts = Arc::new(plan.nodes);
        planned
    }

    /// Decides for each node whether it is sent a plan, and writes those out.
    fn address(&self, plan: &Plan, open: &BTreeMap<NodeId, bool>, planned: &mut Planned) {
        let nothing = NodePart::default();
        for (node, sent) in &self.sent {
            let part = plan.nodes.get(node).filter(|part| !part.tasks.is_empty() || !part.edges.is_empty());
            let last = sent.planned.as_ref().map_or(Generation(0), |planned| planned.generation);
            // A node that has not taken the last plan, or not reported all of it, may still act on it.
            // And one that is busy with the plan of another planner, came with it under another name, or took it again after it had
            // been rebuilt, waits for gates that no planner opens any more. Of one whose state is older than its last report, it is not known
            // whether it has ended: it may do nothing more that would have it publish another one.
            let may_be_busy = sent.busy || !sent.idle && sent.at > last;
            let foreign = may_be_busy && (sent.at > last || !open.contains_key(node));
            let under_way = open.contains_key(node) || last > sent.at || foreign;
            if part.is_none() && !under_way {
                continue;
            }
            let asks = part.map(|part| digest(part, sent.ledger.as_ref())).unwrap_or_default();
            if let Some(part) = part {
                planned.tried.push(node.clone());
                let same = sent.planned.as_ref().is_some_and(|before| before.asks == asks);
                let untouched = open.get(node).copied().unwrap_or(true);
                // With gates it must not keep its generation: one of them may be open from before. And what has failed is to be tried
                // again, which an agent does only for a newer plan.
                // And what it has ended it does not report again, if another planner had the reports.
                let ended = sent.idle && sent.at >= last;
                // And what came to light too late for every plan so far is met by none of them, however alike they are.
                let kept = same && under_way && untouched && last >= sent.at && !ended;
                if kept && !self.again && !has_gates(part) && !has_late_obligations(part) {
                    planned.kept.insert(node.clone(), last);
                    continue;
                }
            }
            let part = part.unwrap_or(&nothing);
            let commit = self.active.commit.id.clone();
            let whose = (node.clone(), sent.ledger.clone());
            let text = PlanText::of(&part.node_plan(self.active.site.clone(), whose, self.generation, commit));
            let note = PlanNote { generation: self.generation, asks, id: text.id() };
            planned.plans.push((node.clone(), StoredPlan { note, json: text.as_str().as_bytes().to_vec() }));
        }
    }
}

/// Whether any task of a part waits for a gate.
fn has_gates(part: &NodePart) -> bool {
    part.tasks.iter().any(|task| !task.gates.is_empty())
}

/// Whether an effect is due to any task of a part that no earlier plan had.
fn has_late_obligations(part: &NodePart) -> bool {
    part.tasks.iter().any(|task| task.obligation.is_some_and(|due| due.since.is_none()))
}

/// Digest of what a part asks of a ledger, whatever its generation and commit.
fn digest(part: &NodePart, ledger: Option<&LedgerId>) -> Vec<u8> {
    let tasks: Vec<PlannedTask> = part.tasks.iter().map(PlanTask::to_wire).collect();
    let edges: BTreeMap<_, _> = part.edges.iter().map(|(task, edges)| (task, &**edges)).collect();
    let json = serde_json::to_vec(&(tasks, edges, ledger)).expect("wire types have string keys");
    Digest::of(&json).as_bytes().to_vec()
}
