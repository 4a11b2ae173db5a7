//! Requests to a planner on this machine.

use std::{
    collections::BTreeSet,
    io,
    marker::PhantomData,
    path::{Path, PathBuf},
};

use groundplan_protocol::ids::{Generation, NodeId};
use http_body_util::{BodyExt as _, Full};
use hyper::{Response, StatusCode, body::Incoming, client::conn::http1};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;

use super::{
    drift::Drift,
    endpoint::{Method, Request, encode},
    event::Event,
    requests::{GetDrift, GetRollout},
    types::{Problem, RolloutDetail, VERSION},
};

/// Longest list of names in a URI, in bytes.
const LONGEST: usize = 16 * 1024;

/// A connection to a planner's socket; one request at a time.
pub struct Client {
    socket: PathBuf,
    sender: http1::SendRequest<Full<bytes::Bytes>>,
}

/// Why a request was not answered as wanted.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// No planner listens there.
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
    /// It does not carry out the request.
    #[error("{}", problem.error)]
    Refused {
        /// Why.
        problem: Problem,
    },
    /// It answers in another version of the API.
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

    /// Makes a request that is answered once.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn ask<R: Request>(&mut self, request: &R) -> Result<R::Reply, ClientError> {
        let response = self.send(request).await?;
        let body = response.into_body().collect().await;
        let bytes = body.map_err(|e| self.broken(e))?.to_bytes();
        serde_json::from_slice(&bytes).map_err(ClientError::Form)
    }

    /// Makes a request that is answered by a stream. For a command: dropping the stream stops it.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn follow<R: Request>(mut self, request: &R) -> Result<Events<R::Reply>, ClientError> {
        let response = self.send(request).await?;
        Ok(self.stream(response))
    }

    /// What these nodes found otherwise than it was applied; all, if none is named.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn drift(&mut self, nodes: &BTreeSet<NodeId>) -> Result<Drift, ClientError> {
        let names = nodes.iter().map(NodeId::as_str).collect::<Vec<_>>().join(",");
        // A list that no URI holds costs an answer that is longer than needed.
        let fits = !names.is_empty() && names.len() <= LONGEST;
        self.ask(&GetDrift { nodes: fits.then_some(names) }).await
    }

    /// A rollout in full; the latest if none is named.
    ///
    /// # Errors
    /// See [`ClientError`]; there is no such rollout.
    pub async fn rollout(&mut self, generation: Option<Generation>) -> Result<RolloutDetail, ClientError> {
        let which = generation.map_or("latest".to_owned(), |generation| generation.to_string());
        self.ask(&GetRollout { which }).await
    }

    fn stream<T>(self, response: Response<Incoming>) -> Events<T> {
        let (body, buffer) = (response.into_body(), Vec::new());
        Events { socket: self.socket, body, buffer, _sender: self.sender, _of: PhantomData }
    }

    async fn send<R: Request>(&mut self, request: &R) -> Result<Response<Incoming>, ClientError> {
        let (path, body) = encode(request).map_err(ClientError::Form)?;
        let builder = match R::METHOD {
            Method::Get => hyper::Request::get(path),
            Method::Post => hyper::Request::post(path).header("content-type", "application/json"),
        };
        let request = builder.header("host", "planner").body(Full::new(body.into()));
        let request = request.expect("what is encoded makes a valid path");
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
                // An empty one only keeps the stream alive.
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
