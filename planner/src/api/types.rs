//! Requests and answers of the local API: wire types of their own, guarded by `VERSION`.

use std::collections::{BTreeMap, BTreeSet};

use groundplan_inventory::Lifecycle;
use groundplan_protocol::{
    effect::Effect,
    ids::{CommitId, Generation, InstanceId, NodeId, ServiceId, SessionId, SiteName, TaskId},
    state::{Applied, FoundList, Phase, Refused},
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use super::rollout::{
    Commit, Counts, Forgotten, InstanceRecord, InstanceState, PendingRecord, Rewind, RolloutDetail, RolloutResult,
    RolloutSummary,
};
use super::{park::Parked, trouble::Trouble, unsteady::Unsteady};
use crate::{select::Selector, trust::HeldKey};

/// Version of the API; a client refuses any other.
pub const VERSION: u32 = 2;

/// `GET /v1/status`: the state of the site, its nodes and this planner.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Status {
    /// The version of the API; a client refuses any other.
    pub version: u32,
    /// The site; absent until a good commit was read.
    pub site: Option<SiteName>,
    /// Where its commits come from.
    pub repository: RepositoryStatus,
    /// The active commit; absent until there was a good one.
    pub commit: Option<Commit>,
    /// The generation of the latest plan.
    pub generation: Generation,
    /// The planner that answers, which may be standing by.
    pub planner: PlannerStatus,
    /// The latest rollout, running or finished.
    pub rollout: Option<RolloutSummary>,
    /// The branch's tip, if it was refused.
    pub refused: Option<RefusedCommit>,
    /// What is wrong at the moment; empty while nothing is.
    #[serde(default)]
    pub troubles: Vec<Trouble>,
    /// Every node that is declared, or from which a message has come, in name order.
    pub nodes: Vec<NodeStatus>,
    /// How many payloads were ignored since the start, because they came from something else than an agent or a planner of this site.
    pub ignored: u64,
}

/// Where commits come from.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub struct RepositoryStatus {
    /// The repository's path or URL.
    pub location: String,
    /// The branch whose tip is followed; empty until a remote has named its default branch.
    pub branch: String,
    /// Why it cannot be read at the moment.
    pub error: Option<String>,
    /// How fetching goes; absent for a local repository.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fetch: Option<FetchStatus>,
}

impl RepositoryStatus {
    /// Whether commits may be missing because it cannot be read or fetched.
    pub fn is_behind(&self) -> bool {
        self.error.is_some()
            || self.fetch.as_ref().is_some_and(|fetch| fetch.error.is_some() || fetch.fetched_ms.is_none())
    }
}

/// How fetching from a remote repository goes. Until it succeeds, commits that were fetched before are used.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub struct FetchStatus {
    /// Since when a fetch is under way; absent while none is. Times are in milliseconds since the Unix epoch.
    pub since_ms: Option<u64>,
    /// What git has reported of it last.
    pub progress: Option<String>,
    /// When one succeeded last, since the start of this planner.
    pub fetched_ms: Option<u64>,
    /// Since when they fail.
    pub failing_since_ms: Option<u64>,
    /// Why the last one failed.
    pub error: Option<String>,
    /// When the next one begins; absent while one is under way.
    pub next_ms: Option<u64>,
}

/// The planner that answers the request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PlannerStatus {
    /// Its random id, which its store keeps.
    pub id: String,
    /// The public key that agents are to trust.
    pub key: String,
    /// The version of the program, as `groundplan --version` prints it.
    pub program: String,
    /// Whether it plans, stands by, or is still starting.
    pub role: Role,
    /// Its term, or that of the planner it stands by for.
    pub term: u64,
    /// Whether something has come in that it has yet to plan with.
    #[serde(default)]
    pub due: bool,
    /// Its connection to the broker.
    pub broker: BrokerStatus,
    /// Why its store cannot be written; absent while it can.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub store_error: Option<String>,
}

/// Whether a planner plans.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "is", rename_all = "snake_case")]
pub enum Role {
    /// It has no site or no broker yet, or waits to find out whether another one plans.
    Starting,
    /// It plans.
    Planning,
    /// Another one plans.
    Standby {
        /// The id of the one that plans.
        planner: String,
    },
}

/// The connection to the broker.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub struct BrokerStatus {
    /// The host and port of the broker, as configured.
    pub address: String,
    /// Whether there is a connection.
    pub connected: bool,
    /// Why there is none.
    pub error: Option<String>,
}

/// A commit that was refused; the one before it stays active.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RefusedCommit {
    /// The commit that was refused as a whole.
    pub commit: Commit,
    /// Every fault in it.
    pub diagnostics: Vec<Fault>,
}

/// A fault in a site's files.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Fault {
    /// Where it is; absent for one of the tree as a whole.
    pub at: Option<FaultPlace>,
    /// What is wrong, in one line.
    pub message: String,
    /// A few words beside the place.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub label: String,
    /// Further places that belong to it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub related: Vec<Related>,
    /// What the user can do about it.
    pub hint: Option<String>,
}

/// A place that belongs to a fault.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Related {
    /// The place in the site's files.
    pub at: FaultPlace,
    /// A few words on why it belongs to the fault.
    pub words: String,
}

/// A place in a file of the site.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub struct FaultPlace {
    /// The file's path in the repository.
    pub file: String,
    /// Line, from 1; absent where the file as a whole is meant.
    pub line: Option<usize>,
    /// Column in characters, from 1.
    pub column: Option<usize>,
    /// The text of that line.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
}

/// A node that is declared, or from which a message has come.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct NodeStatus {
    /// The node's id in the inventory.
    pub node: NodeId,
    /// Whether the active commit declares it.
    pub declared: bool,
    /// What the inventory has of its lifecycle.
    #[serde(default)]
    pub state: Lifecycle,
    /// Why nothing on other nodes waits for it; absent if it is waited for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parked: Option<Parked>,
    /// Whether its agent is connected.
    pub presence: NodePresence,
    /// How it stands, in one word.
    #[serde(default)]
    pub condition: NodeCondition,
    /// The generation of the last plan that its agent accepted.
    pub generation: Generation,
    /// The commit of that plan.
    pub commit: Option<CommitId>,
    /// The generation of the last plan that was published for it.
    pub planned: Generation,
    /// What its agent is doing.
    pub phase: Option<Phase>,
    /// Its part of the latest rollout.
    pub counts: Counts,
    /// How many tasks are applied.
    pub applied: usize,
    /// Tasks of it that cannot be planned yet, with what each waits for.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub waiting: BTreeMap<TaskId, Vec<String>>,
    /// Tasks of the latest rollout that have failed on it, each with the error.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub failed: BTreeMap<TaskId, String>,
    /// Applied tasks that do not work at this moment, each with the reason.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub degraded: BTreeMap<TaskId, String>,
    /// What keeps its agent from its work though it is connected.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trouble: Option<String>,
    /// That it contradicts itself, while what it reports otherwise is not acted on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unsteady: Option<Unsteady>,
    /// The key that the inventory names for it and that is not trusted yet, with the one that is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub held_key: Option<HeldKey>,
    /// How many tasks its last drift check found out of sync.
    #[serde(default)]
    pub drifted: usize,
    /// Pending restarts, reloads and runs, by task.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub obligations: BTreeMap<TaskId, Effect>,
    /// The last message that its agent refused.
    pub refused: Option<Refused>,
    /// How many payloads its agent ignored.
    pub ignored: u64,
    /// Messages of it that this planner refused.
    pub rejected: Option<Rejected>,
    /// When its last message came, in milliseconds since the Unix epoch.
    pub last_seen_ms: Option<u64>,
    /// The agent's present connection; absent while it is offline. It changes with every new connection.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<SessionId>,
    /// Its agent's program version.
    pub agent: Option<String>,
    /// Facts of its host, by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub facts: BTreeMap<String, serde_json::Value>,
    /// What its `export` tasks have published, by task.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub exports: BTreeMap<TaskId, String>,
    /// What was there before tasks took it, and comes back when they go.
    #[serde(default, skip_serializing_if = "FoundList::is_empty")]
    pub found: FoundList,
}

/// `GET /v1/knowledge`: what nodes have reported last, for plans made without them, such as previews.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Knowledge {
    /// The version of the API; a client refuses any other.
    pub version: u32,
    /// The facts of each node that has reported any.
    pub facts: BTreeMap<NodeId, BTreeMap<String, serde_json::Value>>,
    /// What has been published, by task and node.
    pub exports: BTreeMap<TaskId, BTreeMap<NodeId, String>>,
    /// Nodes that operators have parked.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub parked: BTreeSet<NodeId>,
    /// The nodes that tasks with `once` are on.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub elected: BTreeMap<TaskId, NodeId>,
    /// Nodes that are connected and not parked: tasks with `once` that are on no node yet go to the first of them.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub present: BTreeSet<NodeId>,
    /// What is applied on nodes that the active commit does not declare.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub orphaned: BTreeMap<NodeId, BTreeMap<TaskId, Applied>>,
}

/// How a node stands: the first that holds, in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum NodeCondition {
    /// The active commit does not declare it.
    NotDeclared,
    /// Tasks of its part of the latest rollout have failed, or are blocked by one that has.
    Failed,
    /// No state of it was received, or none since the planner started: what it has applied is not known.
    #[default]
    Unknown,
    /// Applied tasks do not work.
    Degraded,
    /// Something of it is still to be carried out.
    Pending,
    /// Its last drift check found tasks out of sync.
    Drifted,
    /// It has all that the active commit asks for.
    Converged,
}

/// Whether an agent is connected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum NodePresence {
    /// Connected.
    Online,
    /// Not connected at the moment.
    Offline,
    /// It has never been connected.
    #[default]
    Unknown,
}

/// Messages of a node that a planner refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Rejected {
    /// How many since the start.
    pub count: u64,
    /// Why the last one was refused.
    pub reason: String,
    /// What an operator can do about it; may be empty.
    pub hint: String,
}

/// `POST /v1/recheck`: have nodes check again what they have applied, and repair what is out of sync.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RecheckRequest {
    /// On the nodes that any of these selectors means; none: on all.
    #[serde(default)]
    pub on: Vec<Selector>,
    /// All tasks of these services.
    #[serde(default)]
    pub services: BTreeSet<ServiceId>,
    /// These tasks; with no services either, all tasks.
    #[serde(default)]
    pub tasks: BTreeSet<TaskId>,
}

/// `POST /v1/retry`: try again what has failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RetryRequest {}

/// What was planned upon a [`RetryRequest`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RetryPlanned {
    /// The version of the API; a client refuses any other.
    pub version: u32,
    /// The rollout that tries it; none if nothing has failed.
    pub generation: Option<Generation>,
}

/// What was planned upon a [`RecheckRequest`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RecheckPlanned {
    /// The version of the API; a client refuses any other.
    pub version: u32,
    /// The rollout that checks; none if there is nothing to check.
    pub generation: Option<Generation>,
    /// Instances that it asks for and that cannot be checked, such as commands without a guard.
    pub left_out: Vec<InstanceId>,
}

/// `POST /v1/forget`: have a node drop the record of a task that is no longer desired there, and leave its host as it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ForgetRequest {
    /// The node whose record it is.
    pub node: NodeId,
    /// The task, `service.task`.
    pub task: TaskId,
    /// Why, for the history; may be empty.
    #[serde(default)]
    pub reason: String,
}

/// What was planned upon a [`ForgetRequest`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ForgetPlanned {
    /// The version of the API; a client refuses any other.
    pub version: u32,
    /// The rollout that drops the record; none if the node has no such record by now.
    pub generation: Option<Generation>,
    /// Whether the node is connected; otherwise the record is dropped when it is back.
    pub online: bool,
}

/// `GET /v1/why?node=NODE&task=SERVICE.TASK`: what is to become of an instance, and why.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Why {
    /// The version of the API; a client refuses any other.
    pub version: u32,
    /// The task and the node of the question.
    pub instance: InstanceId,
    /// Whether the active commit asks for it.
    pub desired: bool,
    /// Values without which it is not known whether and how the commit asks for it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub waits_for: Vec<String>,
    /// Why nothing on other nodes waits for its node; absent if it is waited for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parked: Option<Parked>,
    /// Its `when`, if that is false there, with what that asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub off: Option<String>,
    /// Whether its node has it applied, and if so, whether as desired.
    pub applied: WhyApplied,
    /// The restart, reload or run of it that is due on its node.
    pub obligation: Option<Effect>,
    /// The latest rollout that had it.
    pub rollout: Option<RolloutSummary>,
    /// What that rollout recorded of the instance.
    pub record: Option<InstanceRecord>,
    /// Why it does not work, if it was applied and does not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub degraded: Option<String>,
    /// Whether its node's agent is connected.
    pub presence: NodePresence,
    /// What keeps that agent from its work though it is connected.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trouble: Option<String>,
    /// That its node contradicts itself, while what the node reports otherwise about some tasks is not acted on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unsteady: Option<Unsteady>,
    /// The key that the inventory names for that node and that is not trusted yet, with the one that is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub held_key: Option<HeldKey>,
    /// The repository, if it cannot be read or fetched at the moment: what was pushed since is not known then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repository: Option<RepositoryStatus>,
}

/// Whether a node has an instance applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum WhyApplied {
    /// As desired.
    AsDesired,
    /// With other inputs, or no longer desired.
    Otherwise,
    /// Not at all.
    Not,
}

/// The body of an answer other than 200.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Problem {
    /// Which kind of problem; decides the status code.
    pub kind: ProblemKind,
    /// What is wrong, in one line.
    pub error: String,
    /// What to do about it.
    pub hint: Option<String>,
}

/// Kinds of problems, each with its HTTP status code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ProblemKind {
    /// 400: the request cannot be carried out as it is written.
    BadRequest,
    /// 404: there is no such thing.
    NotFound,
    /// 405: the path takes another method.
    MethodNotAllowed,
    /// 409: it contradicts the planner's present state.
    Conflict,
    /// 413: its body is too large.
    TooLarge,
    /// 429: too much is under way already.
    TooMany,
    /// 500: the planner cannot read its store, or a fault of the program.
    Internal,
    /// 503: this planner does not plan, has no commit yet, or is stopping.
    Unavailable,
}

impl Problem {
    /// A problem without a hint.
    pub fn new(kind: ProblemKind, error: impl Into<String>) -> Self {
        Self { kind, error: error.into(), hint: None }
    }

    /// The same with what to do about it.
    #[must_use]
    pub fn hint(self, hint: impl Into<String>) -> Self {
        Self { hint: Some(hint.into()), ..self }
    }
}
