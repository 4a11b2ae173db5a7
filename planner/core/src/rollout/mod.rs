//! A plan being carried out: reports are folded in, gates open, rolling limits hold, and what came of it all can be told.
//!
//! In: a plan, reports, who is online. Out: which gates are open for whom. Values in, values out: the planner's daemon stores,
//! publishes and calls. Folding is idempotent and nothing depends on the order in which reports of different nodes come, so a
//! rollout is restored from its snapshot, or from the plan and the reports told again.

mod belief;

use std::collections::{BTreeMap, BTreeSet};

use groundplan_protocol::{
    ids::{GateId, Generation, InstanceId, NodeId, TaskId},
    plan::{Action, Effect, OpenGate},
    report::TaskReport,
};
use serde::{Deserialize, Serialize};

pub use self::belief::{Belief, StateFold};
use crate::plan::{AppliedState, Plan};

/// One plan being carried out.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Rollout {
    generation: Generation,
}

impl Rollout {
    /// A plan that goes out as `generation`. Nobody is online before [`Rollout::presence`] says so.
    pub fn new(_plan: &Plan, generation: Generation) -> Self {
        Self { generation }
    }

    /// The generation.
    pub fn generation(&self) -> Generation {
        self.generation
    }

    /// Takes a report, of this generation or of an older one. Returns whether it was news.
    pub fn fold(&mut self, _node: &NodeId, _report: &TaskReport) -> bool {
        false
    }

    /// Takes a node's presence.
    pub fn presence(&mut self, _node: &NodeId, _online: bool) {}

    /// Takes what a node says that it runs at this moment: for people to watch.
    pub fn running(&mut self, _node: &NodeId, _tasks: &[TaskId]) {}

    /// Opens every gate whose time has come. Returns the nodes whose set of open gates has grown: publish it to them.
    pub fn advance(&mut self) -> BTreeSet<NodeId> {
        BTreeSet::new()
    }

    /// The whole set of open gates of one node.
    pub fn open_gates(&self, _node: &NodeId) -> BTreeMap<GateId, OpenGate> {
        BTreeMap::new()
    }

    /// Every instance with its action and status, in the plan's order.
    pub fn statuses(&self) -> impl Iterator<Item = (InstanceId, Action, Status)> {
        std::iter::empty()
    }

    /// What became of one instance; none if it is not in the plan.
    pub fn status(&self, _instance: &InstanceId) -> Option<Status> {
        None
    }

    /// How many instances are in which state.
    pub fn summary(&self) -> Summary {
        Summary::default()
    }

    /// How it stands as a whole.
    pub fn verdict(&self) -> Verdict {
        Verdict::Succeeded
    }

    /// What a plan that supersedes this one has to know beyond what the nodes say: effects that fired across nodes and are not
    /// carried out yet become obligations, and obligations of which it is known that nothing fired are dropped.
    pub fn carry_obligations(&self, _applied: &mut AppliedState) {}
}

/// What became of an instance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Status {
    /// It waits.
    Waiting(Vec<Wait>),
    /// Nothing holds it back, or it runs.
    Running,
    /// As the plan wants it.
    Done {
        /// Whether anything changed.
        changed: bool,
        /// The effect that was carried out.
        effect: Option<Effect>,
    },
    /// Nothing to be done after all: no trigger fired.
    Skipped,
    /// It did not come about.
    Failed {
        /// The agent's words.
        error: String,
    },
    /// Never tried, because this one failed, which it comes after.
    Blocked {
        /// The failed one.
        by: InstanceId,
    },
    /// Not tried, because a newer plan came.
    Superseded,
}

/// What an instance waits for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Wait {
    /// Its own node is offline.
    Offline,
    /// Another instance of this plan that is not done.
    Instance {
        /// That instance.
        instance: InstanceId,
        /// Whether its node is offline.
        offline: bool,
    },
    /// A turn in a rolling restart, which these nodes have now.
    Turn {
        /// The nodes.
        holders: Vec<NodeId>,
    },
}

/// Numbers of instances.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Summary {
    /// In the plan.
    pub total: usize,
    /// Waiting.
    pub waiting: usize,
    /// Running or about to.
    pub running: usize,
    /// Done and something changed.
    pub changed: usize,
    /// Done, nothing had to be changed.
    pub unchanged: usize,
    /// Not needed: no trigger fired.
    pub skipped: usize,
    /// Failed.
    pub failed: usize,
    /// Never tried because of a failure.
    pub blocked: usize,
    /// Never tried because of a newer plan.
    pub superseded: usize,
}

/// How a rollout stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Verdict {
    /// Under way.
    Running,
    /// All that is left waits for these nodes, which are offline.
    Offline(Vec<NodeId>),
    /// Everything is done.
    Succeeded,
    /// Something failed, and all that can go on without it is done.
    Failed,
}
