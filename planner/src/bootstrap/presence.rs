//! Which agents are there, as the planner says: asked at an interval by one task, for all who wait.
//!
//! In: the planner's socket. Out: presence and connection of each node, and whether the planner answers. Never ends by itself; a
//! planner that is started anew meanwhile is found again.

use crate::api::requests::GetStatus;
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use groundplan_protocol::ids::NodeId;
use tokio::{sync::watch, task::AbortHandle, time::sleep};

use crate::api::{Client, ClientError, types::NodePresence};

/// How often the planner is asked.
const POLL: Duration = Duration::from_millis(250);

/// What the planner said last: the connections of agents that are there.
#[derive(Debug, Clone, Default)]
struct Said {
    here: BTreeMap<NodeId, String>,
    answers: bool,
}

/// See the module.
#[derive(Debug, Clone)]
pub(super) struct Presence {
    said: watch::Receiver<Said>,
    _asking: Arc<Asking>,
}

/// Ends the asking with the last who waits.
#[derive(Debug)]
struct Asking(AbortHandle);

impl Drop for Asking {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Presence {
    /// Begins to ask.
    pub(super) fn start(socket: &Path) -> Self {
        let (say, said) = watch::channel(Said::default());
        let asking = tokio::spawn(ask(socket.to_owned(), say)).abort_handle();
        Self { said, _asking: Arc::new(Asking(asking)) }
    }

    /// Whether the planner answers.
    pub(super) fn answers(&self) -> bool {
        self.said.borrow().answers
    }

    /// A node's connection as it is now, and not a moment ago.
    pub(super) async fn session(&mut self, node: &NodeId) -> Option<String> {
        self.said.mark_unchanged();
        let _ = self.said.changed().await;
        self.said.borrow().here.get(node).cloned()
    }

    /// Returns when a node is there, on another connection than `before`. May be dropped and called again.
    pub(super) async fn comes(&mut self, node: &NodeId, before: Option<&str>) {
        let there = |said: &Said| said.here.get(node).is_some_and(|session| Some(session.as_str()) != before);
        if self.said.wait_for(there).await.is_err() {
            // Nobody asks any more: the run is over.
            std::future::pending::<()>().await;
        }
    }
}

async fn ask(socket: PathBuf, say: watch::Sender<Said>) {
    let mut client = None;
    loop {
        match here(&socket, &mut client).await {
            Ok(here) => _ = say.send_replace(Said { here, answers: true }),
            Err(_) => {
                client = None;
                say.send_modify(|said| said.answers = false);
            }
        }
        sleep(POLL).await;
    }
}

async fn here(socket: &Path, client: &mut Option<Client>) -> Result<BTreeMap<NodeId, String>, ClientError> {
    if client.is_none() {
        *client = Some(Client::connect(socket).await?);
    }
    let status = client.as_mut().expect("connected just now").ask(&GetStatus {}).await?;
    let online = status.nodes.into_iter().filter(|node| node.presence == NodePresence::Online);
    Ok(online.map(|node| (node.node, node.session.map_or_else(String::new, |id| id.to_string()))).collect())
}
