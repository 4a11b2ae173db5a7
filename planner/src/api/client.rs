//! Asking a planner on this machine.

use std::{
    collections::BTreeSet,
    io,
    marker::PhantomData,
    path::{Path, PathBuf},
};

use groundplan_protocol::ids::{ExecId, Generation, InstanceId, NodeId};
use http_body_util::{BodyExt as _, Full};
use hyper::{Request, Response, StatusCode, body::Incoming, client::conn::http1, http::request::Builder};
use hyper_util::rt::TokioIo;
use serde::{Serialize, de::DeserializeOwned};
use tokio::net::UnixStream;

use super::drift::{Answered, Drift, LookAsked, LookRequest};
use super::event::Event;
use super::exec::{ExecEvent, ExecRecord, ExecRequest};
use super::hosts::{Hosts, HostsRequest, TrustRequest, Trusted};
use super::types::{History, Problem, RecheckPlanned, RecheckRequest, RolloutDetail, Status, Told, VERSION, Why};

/// Longest list of names in a URI, in bytes.
const LONGEST: usize = 16 * 1024;

/// A connection to a planner's socket; one request at a time.
pub struct Client {
    socket: PathBuf,
    sender: http1::SendRequest<Full<bytes::Bytes>>,
}

/// Why a planner gave no answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody there.
    #[error("no planner listens on {}", socket.display())]
    NoPlanner {
        /// The socket.
        socket: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The connection broke.
    #[error("the planner on {} broke off", socket.display())]
    Broken {
        /// The socket.
        socket: PathBuf,
        /// How.
        #[source]
        source: hyper::Error,
    },
    /// It answers, but not what was asked for.
    #[error("{}", problem.error)]
    Refused {
        /// What it says.
        problem: Problem,
    },
    /// It speaks another version.
    #[error("the planner answers in a form that this program does not know (it speaks version {VERSION})")]
    Form(#[source] serde_json::Error),
}

impl ClientError {
    /// What to do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::NoPlanner { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => {
                Some("its socket belongs to another user: run as that one".to_owned())
            }
            Self::NoPlanner { .. } => Some(
                "start one with `groundplan serve` or `groundplan up`, or name its directory with --state".to_owned(),
            ),
            Self::Refused { problem } => problem.hint.clone(),
            Self::Form(_) => Some("use the same release of groundplan for both".to_owned()),
            Self::Broken { .. } => None,
        }
    }
}

impl Client {
    /// Connects to the planner that listens on `socket`.
    ///
    /// # Errors
    /// None listens there, or it may not be asked by this user.
    pub async fn connect(socket: &Path) -> Result<Self, ClientError> {
        let stream = UnixStream::connect(socket)
            .await
            .map_err(|source| ClientError::NoPlanner { socket: socket.to_owned(), source })?;
        let broken = |source| ClientError::Broken { socket: socket.to_owned(), source };
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
        tokio::spawn(connection);
        Ok(Self { socket: socket.to_owned(), sender })
    }

    /// How things are.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn status(&mut self) -> Result<Status, ClientError> {
        self.get("/v1/status").await
    }

    /// What these nodes have found otherwise than it was applied; all, if none is named.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn drift(&mut self, nodes: &BTreeSet<NodeId>) -> Result<Drift, ClientError> {
        let names = nodes.iter().map(NodeId::as_str).collect::<Vec<_>>().join(",");
        // A list that no URI holds costs an answer that is longer than needed.
        if names.is_empty() || names.len() > LONGEST {
            return self.get("/v1/drift").await;
        }
        self.get(&format!("/v1/drift?nodes={names}")).await
    }

    /// Which requests to look nodes have answered.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn answered(&mut self) -> Result<Answered, ClientError> {
        self.get("/v1/drift/answered").await
    }

    /// Has nodes look for drift now.
    ///
    /// # Errors
    /// See [`ClientError`]; the site has no such node, or this planner does not plan.
    pub async fn look(&mut self, request: &LookRequest) -> Result<LookAsked, ClientError> {
        self.post("/v1/drift", request).await
    }

    /// What nodes have told.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn knowledge(&mut self) -> Result<Told, ClientError> {
        self.get("/v1/knowledge").await
    }

    /// What is to become of an instance, and why.
    ///
    /// # Errors
    /// See [`ClientError`]; the site has no such instance and never had.
    pub async fn why(&mut self, instance: &InstanceId) -> Result<Why, ClientError> {
        // Names need no escaping: their grammar is a subset of what a query may hold.
        self.get(&format!("/v1/why?node={}&task={}", instance.node, instance.task)).await
    }

    /// The latest rollouts, newest first.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn history(&mut self, limit: usize) -> Result<History, ClientError> {
        self.get(&format!("/v1/history?limit={limit}")).await
    }

    /// A rollout in full; the latest if none is named.
    ///
    /// # Errors
    /// See [`ClientError`]; there is no such rollout.
    pub async fn rollout(&mut self, generation: Option<Generation>) -> Result<RolloutDetail, ClientError> {
        match generation {
            Some(generation) => self.get(&format!("/v1/rollouts/{generation}")).await,
            None => self.get("/v1/rollouts/latest").await,
        }
    }

    /// Has nodes check again what they have applied.
    ///
    /// # Errors
    /// See [`ClientError`]; the site has nothing of a name, or the planner does not plan.
    pub async fn recheck(&mut self, request: &RecheckRequest) -> Result<RecheckPlanned, ClientError> {
        self.post("/v1/recheck", request).await
    }

    /// What is known of nodes' hosts.
    ///
    /// # Errors
    /// See [`ClientError`]; the site has no such node.
    pub async fn hosts(&mut self, request: &HostsRequest) -> Result<Hosts, ClientError> {
        self.post("/v1/hosts", request).await
    }

    /// Has the planner trust the key of a node.
    ///
    /// # Errors
    /// See [`ClientError`]; another key is known for it.
    pub async fn trust(&mut self, request: &TrustRequest) -> Result<Trusted, ClientError> {
        self.post("/v1/trust", request).await
    }

    /// Events from now on.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn events(mut self) -> Result<Events, ClientError> {
        let response = self.send(Request::get("/v1/events"), Vec::new()).await?;
        Ok(self.stream(response))
    }

    /// Runs a command, and tells what comes of it. Dropping the stream stops the command.
    ///
    /// # Errors
    /// See [`ClientError`]; nothing was sent to any node then.
    pub async fn exec(mut self, request: &ExecRequest) -> Result<Events<ExecEvent>, ClientError> {
        let body = serde_json::to_vec(request).map_err(ClientError::Form)?;
        let response = self.send(Request::post("/v1/exec").header("content-type", "application/json"), body).await?;
        Ok(self.stream(response))
    }

    /// Stops a command.
    ///
    /// # Errors
    /// See [`ClientError`]; no such command runs.
    pub async fn stop_exec(&mut self, id: &ExecId) -> Result<(), ClientError> {
        let _: serde_json::Value = self.post(&format!("/v1/exec/{id}/stop"), &()).await?;
        Ok(())
    }

    /// A command's record.
    ///
    /// # Errors
    /// See [`ClientError`]; there is no such command.
    pub async fn exec_record(&mut self, id: &ExecId) -> Result<ExecRecord, ClientError> {
        self.get(&format!("/v1/exec/{id}")).await
    }

    fn stream<T>(self, response: Response<Incoming>) -> Events<T> {
        let (body, buffer) = (response.into_body(), Vec::new());
        Events { socket: self.socket, body, buffer, _sender: self.sender, _of: PhantomData }
    }

    async fn get<T: DeserializeOwned>(&mut self, path: &str) -> Result<T, ClientError> {
        let response = self.send(Request::get(path), Vec::new()).await?;
        self.read(response).await
    }

    async fn post<T: DeserializeOwned>(&mut self, path: &str, what: &impl Serialize) -> Result<T, ClientError> {
        let body = serde_json::to_vec(what).map_err(ClientError::Form)?;
        let response = self.send(Request::post(path).header("content-type", "application/json"), body).await?;
        self.read(response).await
    }

    async fn read<T: DeserializeOwned>(&mut self, response: Response<Incoming>) -> Result<T, ClientError> {
        let body = response.into_body().collect().await;
        let bytes = body.map_err(|e| self.broken(e))?.to_bytes();
        serde_json::from_slice(&bytes).map_err(ClientError::Form)
    }

    async fn send(&mut self, request: Builder, body: Vec<u8>) -> Result<Response<Incoming>, ClientError> {
        let request = request.header("host", "planner").body(Full::new(body.into()));
        let request = request.expect("ids and numbers make a valid path");
        self.sender.ready().await.map_err(|e| self.broken(e))?;
        let response = self.sender.send_request(request).await.map_err(|e| self.broken(e))?;
        if response.status() == StatusCode::OK {
            return Ok(response);
        }
        let bytes = response.into_body().collect().await.map_err(|e| self.broken(e))?.to_bytes();
        Err(ClientError::Refused { problem: serde_json::from_slice(&bytes).map_err(ClientError::Form)? })
    }

    fn broken(&self, source: hyper::Error) -> ClientError {
        ClientError::Broken { socket: self.socket.clone(), source }
    }
}

/// A stream of events.
pub struct Events<T = Event> {
    socket: PathBuf,
    body: Incoming,
    buffer: Vec<u8>,
    /// The connection ends with it.
    _sender: http1::SendRequest<Full<bytes::Bytes>>,
    _of: PhantomData<T>,
}

impl<T: DeserializeOwned> Events<T> {
    /// The next event; `None` when the planner has ended.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn next(&mut self) -> Result<Option<T>, ClientError> {
        loop {
            if let Some(end) = self.buffer.iter().position(|b| *b == b'\n') {
                let line: Vec<u8> = self.buffer.drain(..=end).collect();
                // An empty one says that the planner is there.
                if line.len() == 1 {
                    continue;
                }
                return serde_json::from_slice(&line).map(Some).map_err(ClientError::Form);
            }
            match self.body.frame().await {
                None => return Ok(None),
                Some(Ok(frame)) => self.buffer.extend_from_slice(frame.data_ref().map_or(&[], |d| d)),
                Some(Err(source)) => return Err(ClientError::Broken { socket: self.socket.clone(), source }),
            }
        }
    }
}
