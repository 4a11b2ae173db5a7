//! Finding the planner to ask: its socket below a state directory, or that of a `groundplan up` around here.

use crate::api::requests::GetKnowledge;
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use groundplan_core::{Knowledge, knowledge::Facts};
use groundplan_protocol::ids::{NodeId, TaskId};

use super::up::layout::{self, planner_state};
use crate::{
    api::{Client, ClientError},
    config::STATE_DIR,
    terminal::Failure,
};

/// Which planner to ask.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct Planner {
    /// The planner's state directory [default: that of `groundplan up` in this directory or above, else /var/lib/groundplan].
    #[arg(long, value_name = "DIR", env = "GROUNDPLAN_STATE")]
    pub(super) state: Option<PathBuf>,

    /// The planner's socket, if it is not in its state directory.
    #[arg(long, value_name = "PATH", env = "GROUNDPLAN_SOCKET", conflicts_with = "state")]
    pub(super) socket: Option<PathBuf>,
}

impl Planner {
    /// The socket to ask at.
    pub(super) fn socket(&self) -> PathBuf {
        let below = |dir: &Path| dir.join("planner.sock");
        match (&self.socket, &self.state) {
            (Some(socket), _) => socket.clone(),
            // The directory of `groundplan up` will do as well.
            (None, Some(state)) if !below(state).exists() => {
                planner_state(state).map_or_else(|| below(state), |state| below(&state))
            }
            (None, Some(state)) => below(state),
            (None, None) => below(&around_here().unwrap_or_else(|| STATE_DIR.into())),
        }
    }

    /// Asks the planner, and waits for what it says.
    pub(super) fn ask<T>(&self, question: impl AsyncFnOnce(Client) -> Result<T, ClientError>) -> Result<T, Failure> {
        let socket = self.socket();
        let answer = runtime()?.block_on(async { question(Client::connect(&socket).await?).await });
        answer.map_err(|e| self.failure(e))
    }

    /// What nodes have told, if a planner is there to be asked.
    pub(super) fn knowledge(&self) -> Option<Knowledge> {
        let told = self.ask(async |mut client| client.ask(&GetKnowledge {}).await).ok()?;
        Some(known(told.facts, told.exports))
    }

    /// The failure of a question, with what to do.
    pub(super) fn failure(&self, e: ClientError) -> Failure {
        let hint = match (&e, &self.state, &self.socket) {
            (ClientError::NoPlanner { .. }, None, None) => Some(
                "start one with `groundplan up` or `groundplan serve`, or name its state directory with --state\n\
                 `groundplan status --broker mqtt://HOST --site NAME` needs no planner"
                    .to_owned(),
            ),
            (ClientError::NoPlanner { .. }, ..) => Some("is it running, with this state directory?".to_owned()),
            _ => e.hint(),
        };
        let failure = match e {
            // A refusal is the planner's own word, which needs no introduction.
            ClientError::Refused { problem } => Failure::new(problem.error),
            e => Failure::because("the planner cannot be asked", e),
        };
        match hint {
            Some(hint) => failure.hint(hint),
            None => failure,
        }
    }
}

/// The state directory of the `groundplan up` whose directory, or a folder of whose, this is.
pub(super) fn around_here() -> Option<PathBuf> {
    let here = std::env::current_dir().ok()?;
    here.ancestors().find_map(|dir| planner_state(dir).or_else(|| planner_state(&dir.join(layout::DEFAULT_DIR))))
}

/// Facts and exports as the core takes them.
pub(super) fn known(facts: BTreeMap<NodeId, Facts>, exports: BTreeMap<TaskId, BTreeMap<NodeId, String>>) -> Knowledge {
    let facts = facts.into_iter().map(|(node, facts)| (node, Arc::new(facts))).collect();
    Knowledge { facts, exports, ..Knowledge::default() }
}

/// A runtime for one question.
pub(super) fn runtime() -> Result<tokio::runtime::Runtime, Failure> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|e| Failure::because("cannot start the asynchronous runtime", e))
}

/// Now, in milliseconds since the Unix epoch.
pub(super) fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis() as u64)
}
