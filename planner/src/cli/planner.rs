//! Finds and queries the planner: by its socket, its state directory, or a `groundplan up` in this directory or above.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
};

use groundplan_core::{Knowledge, knowledge::Facts};
use groundplan_protocol::{
    ids::{NodeId, TaskId},
    state::FoundList,
};

use super::up::layout::{self, planner_state};
use crate::{
    api::{
        Client, ClientError,
        requests::{GetKnowledge, GetStatus},
        types,
    },
    config::STATE_DIR,
    terminal::Failure,
};

/// The environment variables that select a planner where no argument does.
const STATE_VARIABLE: &str = "GROUNDPLAN_STATE";
const SOCKET_VARIABLE: &str = "GROUNDPLAN_SOCKET";

/// The arguments that select a planner.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct Planner {
    /// The planner's state directory [default: GROUNDPLAN_STATE, else that of `groundplan up` in GROUNDPLAN_UP_DIR, in this
    /// directory or above, else /var/lib/groundplan].
    #[arg(long, value_name = "DIR")]
    state: Option<PathBuf>,

    /// The planner's socket, if it is not in its state directory [default: GROUNDPLAN_SOCKET].
    #[arg(long, value_name = "PATH", conflicts_with = "state")]
    socket: Option<PathBuf>,
}

/// Where a planner is, as far as it is given.
#[derive(Debug, PartialEq, Eq)]
enum Given {
    Socket(PathBuf),
    State(PathBuf),
    Nothing,
}

impl Planner {
    /// The path of the planner's socket, whether it exists or not.
    pub(super) fn socket(&self) -> PathBuf {
        let below = |dir: &Path| dir.join("planner.sock");
        match self.given() {
            Given::Socket(socket) => socket,
            // The directory of a `groundplan up` is accepted as well as the planner's own below it.
            Given::State(state) if !below(&state).exists() => {
                planner_state(&state).map_or_else(|| below(&state), |state| below(&state))
            }
            Given::State(state) => below(&state),
            Given::Nothing => below(&find_state().unwrap_or_else(|| STATE_DIR.into())),
        }
    }

    /// What is given. An argument, of whichever of the two, comes before a variable of the environment: clap would take the variable of
    /// the one for a conflict with the argument of the other.
    fn given(&self) -> Given {
        let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let argument = |socket: Option<PathBuf>, state: Option<PathBuf>| {
            socket.map(Given::Socket).or_else(|| state.map(Given::State))
        };
        argument(self.socket.clone(), self.state.clone())
            .or_else(|| argument(variable(SOCKET_VARIABLE), variable(STATE_VARIABLE)))
            .unwrap_or(Given::Nothing)
    }

    /// Sends a request to the planner and waits for the response.
    pub(super) fn query<T>(&self, request: impl AsyncFnOnce(Client) -> Result<T, ClientError>) -> Result<T, Failure> {
        let socket = self.socket();
        let response = runtime()?.block_on(async { request(Client::connect(&socket).await?).await });
        response.map_err(|e| self.failure(e))
    }

    /// What nodes have reported; `None` if no planner can be reached.
    pub(super) fn knowledge(&self) -> Option<types::Knowledge> {
        self.query(async |mut client| client.ask(&GetKnowledge {}).await).ok()
    }

    /// What each node keeps to be restored; nothing if no planner can be reached.
    pub(super) fn found(&self) -> BTreeMap<NodeId, FoundList> {
        let status = self.query(async |mut client| client.ask(&GetStatus {}).await);
        status.map(|status| status.nodes.into_iter().map(|node| (node.node, node.found)).collect()).unwrap_or_default()
    }

    /// The failure of a request, with the next step.
    pub(super) fn failure(&self, e: ClientError) -> Failure {
        let hint = match (&e, self.given()) {
            (ClientError::NoPlanner { .. }, Given::Nothing) => Some(
                "start one with `groundplan up` or `groundplan serve`, or name its state directory with --state\n\
                 `groundplan status --broker mqtt://HOST --site NAME` needs no planner"
                    .to_owned(),
            ),
            (ClientError::NoPlanner { .. }, ..) => Some("is it running with this state directory?".to_owned()),
            _ => e.hint(),
        };
        let failure = match e {
            // The planner's message names the problem itself; an introduction would only repeat that there is one.
            ClientError::Refused { problem } => Failure::new(problem.error),
            e => Failure::because("cannot query the planner", e),
        };
        failure.maybe_hint(hint)
    }
}

/// The planner's state directory of a `groundplan up`: of the one that GROUNDPLAN_UP_DIR names, else of one that runs, or ran, in the
/// current directory or one above it.
pub(super) fn find_state() -> Option<PathBuf> {
    if let Some(dir) = std::env::var_os(layout::DIR_VARIABLE).filter(|dir| !dir.is_empty()) {
        return Some(layout::planner_below(Path::new(&dir)));
    }
    let here = std::env::current_dir().ok()?;
    here.ancestors().find_map(|dir| planner_state(dir).or_else(|| planner_state(&dir.join(layout::DEFAULT_DIR))))
}

/// Facts and exports in the core's type.
pub(super) fn known(facts: BTreeMap<NodeId, Facts>, exports: BTreeMap<TaskId, BTreeMap<NodeId, String>>) -> Knowledge {
    let facts = facts.into_iter().map(|(node, facts)| (node, Arc::new(facts))).collect();
    Knowledge { facts, exports, ..Knowledge::default() }
}

/// A single-threaded runtime for one request.
pub(super) fn runtime() -> Result<tokio::runtime::Runtime, Failure> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|e| Failure::because("cannot start the asynchronous runtime", e))
}
