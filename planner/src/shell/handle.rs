//! How the API reaches the loop: requests that the machine answers, and snapshots that readers use on threads of their own.

use std::sync::Arc;

use groundplan_machine::{
    command::CommandRequest,
    io::{Problem, Reply, Request},
};
use groundplan_protocol::ids::{CommitId, ExecId};
use tokio::sync::{broadcast, mpsc, oneshot};

use super::inbox::Keys;
use crate::{
    api::{event::Event, stream::EventSender},
    store::Reader,
    view::{PlannerInfo, Snapshot},
};

/// What the API brings to the loop.
pub(super) enum Arrival {
    /// A reader wants a snapshot that is no older than this.
    Snapshot(oneshot::Sender<Arc<Snapshot>>),
    /// A request for the machine.
    Request(Request, oneshot::Sender<Result<Reply, Problem>>),
    /// A command to run, and where its events go.
    Command(Box<CommandRequest>, EventSender, oneshot::Sender<Result<Reply, Problem>>),
    /// An operator accepts a commit that is no fast-forward; the reply is whether it is the tip.
    Accept(CommitId, oneshot::Sender<bool>),
    /// The client of a command no longer reads.
    ClientGone(ExecId),
}

/// The planner is stopping: there is no answer.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Stopping;

/// The API's way to the loop; cheap to clone.
#[derive(Clone)]
pub(crate) struct Handle {
    pub(super) arrivals: mpsc::Sender<Arrival>,
    /// Events for clients that follow.
    pub(crate) events: broadcast::Sender<Event>,
    /// The store, to be read on other threads.
    pub(crate) store: Reader,
    /// Nodes' keys, shared with the inbox.
    pub(crate) keys: Arc<Keys>,
    /// What does not change while the planner runs.
    pub(crate) info: Arc<PlannerInfo>,
}

impl Handle {
    /// All that the planner knows, at a moment after this call.
    pub(crate) async fn snapshot(&self) -> Result<Arc<Snapshot>, Stopping> {
        let (sender, receiver) = oneshot::channel();
        self.arrivals.send(Arrival::Snapshot(sender)).await.map_err(|_| Stopping)?;
        receiver.await.map_err(|_| Stopping)
    }

    /// Has the machine carry out a request.
    pub(crate) async fn request(&self, request: Request) -> Result<Result<Reply, Problem>, Stopping> {
        let (sender, receiver) = oneshot::channel();
        self.arrivals.send(Arrival::Request(request, sender)).await.map_err(|_| Stopping)?;
        receiver.await.map_err(|_| Stopping)
    }

    /// Accepts a commit that is no fast-forward, if it is the branch's tip; whether it is.
    pub(crate) async fn accept(&self, commit: CommitId) -> Result<bool, Stopping> {
        let (sender, receiver) = oneshot::channel();
        self.arrivals.send(Arrival::Accept(commit, sender)).await.map_err(|_| Stopping)?;
        receiver.await.map_err(|_| Stopping)
    }

    /// Has the machine run a command, whose events go to `events`.
    pub(crate) async fn run_command(
        &self,
        request: CommandRequest,
        events: EventSender,
    ) -> Result<Result<Reply, Problem>, Stopping> {
        let (sender, receiver) = oneshot::channel();
        self.arrivals.send(Arrival::Command(Box::new(request), events, sender)).await.map_err(|_| Stopping)?;
        receiver.await.map_err(|_| Stopping)
    }
}
