//! Which agents the planner has a connection from: one task polls the planner for all hosts that wait.
//!
//! In: the planner's socket. Out: the session of each node that is online, and whether the planner answers. Polls until the last handle
//! is dropped; after a restart of the planner it connects again.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use groundplan_protocol::ids::NodeId;
use tokio::{sync::watch, task::AbortHandle, time::sleep};

use crate::api::{Client, ClientError, requests::GetStatus, types::NodePresence};

/// The polling interval.
const POLL: Duration = Duration::from_millis(250);

/// The planner's last answer.
#[derive(Debug, Clone, Default)]
struct Answer {
    /// The session id of each node that is online; empty for an agent that sends none.
    online: BTreeMap<NodeId, String>,
    /// Whether the last request succeeded; `online` is kept if it did not.
    answers: bool,
}

/// A handle on the polling task. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Presence {
    last: watch::Receiver<Answer>,
    _polling: Arc<Polling>,
}

/// Stops the polling task when the last handle is dropped.
#[derive(Debug)]
struct Polling(AbortHandle);

impl Drop for Polling {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Presence {
    /// Starts the polling task.
    pub(super) fn start(socket: &Path) -> Self {
        let (sender, last) = watch::channel(Answer::default());
        let polling = tokio::spawn(poll(socket.to_owned(), sender)).abort_handle();
        Self { last, _polling: Arc::new(Polling(polling)) }
    }

    /// Whether the planner answered the last request.
    pub(super) fn answers(&self) -> bool {
        self.last.borrow().answers
    }

    /// A node's session from an answer that arrives after this call, `None` if the node is offline.
    pub(super) async fn session(&mut self, node: &NodeId) -> Option<String> {
        // The last answer may be older than a restart that has just happened.
        self.last.mark_unchanged();
        let _ = self.last.changed().await;
        self.last.borrow().online.get(node).cloned()
    }

    /// Returns when a node is online with another session than `before`. May be dropped and called again.
    pub(super) async fn comes(&mut self, node: &NodeId, before: Option<&str>) {
        let is_new = |answer: &Answer| answer.online.get(node).is_some_and(|session| Some(session.as_str()) != before);
        if self.last.wait_for(is_new).await.is_err() {
            // The polling task has ended, so bootstrap is ending: this future is dropped soon.
            std::future::pending::<()>().await;
        }
    }
}

async fn poll(socket: PathBuf, sender: watch::Sender<Answer>) {
    let mut client = None;
    loop {
        match online(&socket, &mut client).await {
            Ok(online) => _ = sender.send_replace(Answer { online, answers: true }),
            Err(_) => {
                client = None;
                sender.send_modify(|answer| answer.answers = false);
            }
        }
        sleep(POLL).await;
    }
}

async fn online(socket: &Path, client: &mut Option<Client>) -> Result<BTreeMap<NodeId, String>, ClientError> {
    if client.is_none() {
        *client = Some(Client::connect(socket).await?);
    }
    let status = client.as_mut().expect("connected just now").ask(&GetStatus {}).await?;
    let online = status.nodes.into_iter().filter(|node| node.presence == NodePresence::Online);
    Ok(online.map(|node| (node.node, node.session.map_or_else(String::new, |id| id.to_string()))).collect())
}
