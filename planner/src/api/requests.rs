//! The requests of the API: for each its method, its path and its reply. What each is answered with is in `routes`.

use groundplan_protocol::ids::{CommitId, ExecId, NodeId, TaskId};
use serde::{Deserialize, Serialize};

use super::{
    drift::{Drift, DriftAnswers, DriftCheckRequest, DriftChecksRequested},
    endpoint::{Method, Request},
    event::Event,
    exec::{ExecEvent, ExecRecord, ExecRequest},
    history::History,
    hosts::{Hosts, HostsRequest, TrustRequest, Trusted},
    park::{ParkPlanned, ParkRequest, UnparkRequest},
    types::{
        ForgetPlanned, ForgetRequest, Knowledge, RecheckPlanned, RecheckRequest, RetryPlanned, RetryRequest,
        RolloutDetail, Status, Why,
    },
};

/// How many rollouts and commands [`GetHistory`] lists if nothing is asked for.
fn default_limit() -> usize {
    20
}

macro_rules! request {
    ($($(#[$doc:meta])* $name:ty => $method:ident $path:literal, $reply:ty;)*) => {
        $(impl Request for $name {
            type Reply = $reply;
            const METHOD: Method = Method::$method;
            const PATH: &'static str = $path;
        })*
    };
}

request! {
    GetStatus => Get "/v1/status", Status;
    GetKnowledge => Get "/v1/knowledge", Knowledge;
    GetWhy => Get "/v1/why", Why;
    GetHistory => Get "/v1/history", History;
    GetRollout => Get "/v1/rollouts/{which}", RolloutDetail;
    GetEvents => Get "/v1/events", Event;
    GetDrift => Get "/v1/drift", Drift;
    GetDriftAnswers => Get "/v1/drift/answered", DriftAnswers;
    GetExec => Get "/v1/exec/{id}", ExecRecord;
    StopExec => Post "/v1/exec/{id}/stop", Done;
    FetchNow => Post "/v1/fetch", Done;
    AcceptCommit => Post "/v1/accept", Done;
    DriftCheckRequest => Post "/v1/drift", DriftChecksRequested;
    RecheckRequest => Post "/v1/recheck", RecheckPlanned;
    RetryRequest => Post "/v1/retry", RetryPlanned;
    ForgetRequest => Post "/v1/forget", ForgetPlanned;
    ParkRequest => Post "/v1/park", ParkPlanned;
    UnparkRequest => Post "/v1/unpark", ParkPlanned;
    ExecRequest => Post "/v1/exec", ExecEvent;
    HostsRequest => Post "/v1/hosts", Hosts;
    TrustRequest => Post "/v1/trust", Trusted;
}

/// The state of the site and its nodes.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GetStatus {}

/// What nodes have reported, for those who plan without them.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GetKnowledge {}

/// What is to become of an instance, and why.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GetWhy {
    /// The node that the instance is on.
    pub node: NodeId,
    /// The task of the instance, `service.task`.
    pub task: TaskId,
}

/// The latest rollouts and commands, newest first.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GetHistory {
    /// How many of each at most.
    #[serde(default = "default_limit")]
    pub limit: usize,
}

/// One rollout in full.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GetRollout {
    /// Its generation, or `latest`.
    pub which: String,
}

/// Events from now on: a stream.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GetEvents {}

/// What nodes found otherwise than it was applied.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GetDrift {
    /// Names of nodes, joined by commas; all if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nodes: Option<String>,
}

/// Which drift checks nodes have answered.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GetDriftAnswers {}

/// The record of one command, running or ended.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GetExec {
    /// The id from the command's first event.
    pub id: ExecId,
}

/// Stop a command on every node where it has not ended.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StopExec {
    /// The id from the command's first event.
    pub id: ExecId,
}

/// Fetch the repository, or read it if it is local, without waiting for the interval. For hooks, which may be written as
/// `curl --unix-socket …/planner.sock -X POST http://planner/v1/fetch`.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FetchNow {}

/// Accept a commit that was refused because it is no fast-forward.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AcceptCommit {
    /// The commit, which must be the branch's tip.
    pub commit: CommitId,
}

/// It is under way.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct Done {}
