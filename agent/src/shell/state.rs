//! What the shell connects: the machine, and all that carries its effects out.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use groundplan_protocol::{
    ids::{Sequence, SessionId},
    plan::PlanOffer,
    state::NodeState,
};
use tokio::task::JoinSet;

use super::{catch_up::CatchUp, drift_checks::DriftChecks, stop_signals::StopSignals, unit_watch::UnitWatch};
use crate::{
    blobs::Blobs,
    clock::Clock,
    commands::Commands,
    config::Config,
    facts,
    freshness::Freshness,
    host::{Host, cancel::Canceller},
    ledger::{Journal, Ledger},
    machine::{Event, JobDone, Machine},
    transport::{Link, Outlet, Reader},
};

/// Topics of this node.
pub(super) struct Topics {
    pub(super) report: String,
    pub(super) want: String,
    pub(super) subscribe: Vec<String>,
}

/// Stored reports that are to be sent: those from `next` to `to`.
pub(super) struct ReportCursor {
    pub(super) next: Sequence,
    pub(super) to: Sequence,
    /// Send the running tasks even if there are no reports.
    pub(super) announce: bool,
}

/// The agent, with all that it holds open; see the module `shell`.
pub struct Shell {
    pub(super) config: Config,
    pub(super) clock: Clock,
    pub(super) machine: Machine,
    pub(super) ledger: Ledger,
    pub(super) journal: Journal,
    pub(super) blobs: Blobs,
    pub(super) host: Arc<Host>,
    pub(super) link: Link,
    pub(super) outlet: Outlet,
    pub(super) reader: Reader,
    pub(super) topics: Topics,
    pub(super) cursor: ReportCursor,
    /// The reference of a plan that is being fetched.
    pub(super) to_fetch: Option<Box<PlanOffer>>,
    /// A state that cannot be published before a planner has announced the key to encrypt to it with.
    pub(super) unsent: Option<Box<NodeState>>,
    /// The subscription for chunks of the blob that is being fetched.
    pub(super) chunk_filter: Option<String>,
    /// Running jobs; each ends with whether it began at all.
    pub(super) jobs: JoinSet<(bool, JobDone)>,
    pub(super) canceller: Canceller,
    pub(super) commands: Commands,
    pub(super) drift: DriftChecks,
    pub(super) units: UnitWatch,
    pub(super) facts: facts::FactsWatch,
    /// Events that follow from the one being handled.
    pub(super) inbox: VecDeque<Event>,
    pub(super) catch_up: CatchUp,
    pub(super) stop_signals: StopSignals,
    /// When running jobs are cancelled, by the monotonic clock; set by the first signal to stop.
    pub(super) stop_at: Option<Duration>,
    /// Whether the loss of the connection is in the log.
    pub(super) down_logged: bool,
    /// Whether this process has subscribed to its topics.
    pub(super) subscribed: bool,
    /// The id of the connection, while there is one.
    pub(super) session: Option<SessionId>,
    /// Why the ledger cannot be written, while it cannot.
    pub(super) unwritten: Option<String>,
    /// Whether planners are heard.
    pub(super) freshness: Freshness,
    /// Whether the broker refuses a subscription.
    pub(super) unsubscribed: bool,
    pub(super) stopped: bool,
}
