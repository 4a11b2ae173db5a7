//! Answering on the unix socket.

use std::{
    collections::BTreeSet,
    convert::Infallible,
    io,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    time::Duration,
};

use axum::{
    Json, Router,
    body::{Body, Bytes},
    extract::{ConnectInfo, Path as Segment, Query, State, connect_info::Connected},
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::{get, post},
    serve::IncomingStream,
};
use groundplan_protocol::ids::{ExecId, Generation, InstanceId, NodeId, TaskId};
use http_body_util::channel::{self, Channel};
use nix::unistd::{Uid, User};
use serde::Deserialize;
use tokio::{
    net::{UnixListener, UnixStream},
    sync::{broadcast, mpsc, oneshot},
};

use super::drift::{Answered, Drift, LookAsked, LookRequest};
use super::event::Event;
use super::exec::{ExecRecord, ExecRequest};
use super::hosts::{Hosts, HostsRequest, TrustRequest, Trusted};
use super::types::{History, Problem, RecheckPlanned, RecheckRequest, RolloutDetail, Status, Told, VERSION, Why};
use super::{Hearing, Telling, telling};

/// How often the stream of a command says that it is there.
const ALIVE: Duration = Duration::from_millis(500);

/// What can be asked.
#[derive(Debug)]
pub(crate) enum Question {
    /// How things are.
    Status,
    /// What nodes have told.
    Knowledge,
    /// What is to become of an instance.
    Why(InstanceId),
    /// The latest rollouts.
    History(usize),
    /// One rollout, or the latest.
    Rollout(Option<Generation>),
    /// What has drifted on these nodes, or on all.
    Drift(BTreeSet<NodeId>),
    /// Which requests to look nodes have answered.
    Answered,
    /// Have nodes look for drift now.
    Look(LookRequest),
    /// Have nodes check again, and put right what is not so.
    Recheck(RecheckRequest),
    /// Run a command: what, who asks, and the way to tell what comes of it.
    Exec(Box<ExecRequest>, String, Telling),
    /// Stop a command.
    StopExec(ExecId),
    /// A command's record.
    ExecRecord(ExecId),
    /// What is known of nodes' hosts.
    Hosts(HostsRequest),
    /// Take the key of a node.
    Trust(TrustRequest),
}

/// What is answered.
#[derive(Debug)]
pub(crate) enum Reply {
    Status(Box<Status>),
    Knowledge(Box<Told>),
    Why(Box<Why>),
    History(History),
    Rollout(Box<RolloutDetail>),
    Recheck(RecheckPlanned),
    /// As was asked, a command begins or is to stop.
    Exec,
    ExecRecord(Box<ExecRecord>),
    Drift(Box<Drift>),
    Answered(Box<Answered>),
    Look(LookAsked),
    Hosts(Hosts),
    Trust(Trusted),
}

/// A reply, or why there is none.
pub(crate) type Answer = Result<Reply, Problem>;

/// Where questions go, and where events come from.
#[derive(Clone)]
pub(crate) struct Desk {
    pub(crate) questions: mpsc::Sender<(Question, oneshot::Sender<Answer>)>,
    pub(crate) events: broadcast::Sender<Event>,
}

/// The socket cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// Another planner answers there.
    #[error("another planner listens on {}", path.display())]
    InUse {
        /// The socket.
        path: PathBuf,
    },
    /// The system refuses.
    #[error("cannot listen on {}", path.display())]
    Io {
        /// The socket.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// Listens on `path`; takes the place of a socket on which nobody answers.
///
/// # Errors
/// Somebody does answer, or the system refuses.
pub(crate) async fn listen(path: &Path) -> Result<UnixListener, ListenError> {
    let io = |source| ListenError::Io { path: path.to_owned(), source };
    if UnixStream::connect(path).await.is_ok() {
        return Err(ListenError::InUse { path: path.to_owned() });
    }
    match std::fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(io(e)),
        _ => {}
    }
    let listener = UnixListener::bind(path).map_err(io)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).map_err(io)?;
    Ok(listener)
}

/// Answers until it is dropped.
pub(crate) async fn serve(listener: UnixListener, desk: Desk) -> io::Result<()> {
    let routes = Router::new()
        .route("/v1/status", get(status))
        .route("/v1/knowledge", get(knowledge))
        .route("/v1/why", get(why))
        .route("/v1/history", get(history))
        .route("/v1/rollouts/{which}", get(rollout))
        .route("/v1/events", get(events))
        .route("/v1/recheck", post(recheck))
        .route("/v1/exec", post(exec))
        .route("/v1/exec/{id}", get(exec_record))
        .route("/v1/exec/{id}/stop", post(stop_exec))
        .route("/v1/drift", get(drift).post(look))
        .route("/v1/drift/answered", get(answered))
        .route("/v1/hosts", post(hosts))
        .route("/v1/trust", post(trust))
        .fallback(|| async { refuse(StatusCode::NOT_FOUND, "there is nothing of that name here") })
        .with_state(desk);
    axum::serve(listener, routes.into_make_service_with_connect_info::<Asker>()).await
}

fn refuse(status: StatusCode, error: impl Into<String>) -> Response {
    (status, Json(Problem { error: error.into(), hint: None })).into_response()
}

async fn ask(desk: &Desk, question: Question) -> Response {
    let (answer, answered) = oneshot::channel();
    let reply = match desk.questions.send((question, answer)).await {
        Ok(()) => answered.await.ok(),
        Err(_) => None,
    };
    match reply {
        Some(Ok(Reply::Status(status))) => Json(status).into_response(),
        Some(Ok(Reply::Knowledge(told))) => Json(told).into_response(),
        Some(Ok(Reply::Why(why))) => Json(why).into_response(),
        Some(Ok(Reply::History(history))) => Json(history).into_response(),
        Some(Ok(Reply::Rollout(rollout))) => Json(rollout).into_response(),
        Some(Ok(Reply::Answered(answered))) => Json(answered).into_response(),
        Some(Ok(Reply::Look(asked))) => Json(asked).into_response(),
        Some(Ok(Reply::Drift(mut drift))) => {
            let compared = tokio::task::spawn_blocking(move || {
                drift.compare();
                drift
            });
            match compared.await {
                Ok(drift) => Json(drift).into_response(),
                Err(_) => refuse(StatusCode::INTERNAL_SERVER_ERROR, "the texts could not be compared"),
            }
        }
        Some(Ok(Reply::Recheck(planned))) => Json(planned).into_response(),
        Some(Ok(Reply::ExecRecord(record))) => Json(record).into_response(),
        Some(Ok(Reply::Exec)) => Json(serde_json::json!({})).into_response(),
        Some(Ok(Reply::Hosts(hosts))) => Json(hosts).into_response(),
        Some(Ok(Reply::Trust(trusted))) => Json(trusted).into_response(),
        Some(Err(problem)) => (StatusCode::NOT_FOUND, Json(problem)).into_response(),
        None => refuse(StatusCode::SERVICE_UNAVAILABLE, "the planner is stopping"),
    }
}

async fn recheck(State(desk): State<Desk>, Json(request): Json<RecheckRequest>) -> Response {
    ask(&desk, Question::Recheck(request)).await
}

#[derive(Deserialize)]
struct DriftQuery {
    /// Names, joined by commas.
    nodes: Option<String>,
}

async fn drift(State(desk): State<Desk>, Query(query): Query<DriftQuery>) -> Response {
    let nodes: Result<BTreeSet<NodeId>, _> =
        query.nodes.iter().flat_map(|nodes| nodes.split(',')).map(NodeId::new).collect();
    match nodes {
        Ok(nodes) => ask(&desk, Question::Drift(nodes)).await,
        Err(e) => refuse(StatusCode::BAD_REQUEST, e.to_string()),
    }
}

async fn answered(State(desk): State<Desk>) -> Response {
    ask(&desk, Question::Answered).await
}

async fn look(State(desk): State<Desk>, Json(request): Json<LookRequest>) -> Response {
    ask(&desk, Question::Look(request)).await
}

async fn hosts(State(desk): State<Desk>, Json(request): Json<HostsRequest>) -> Response {
    ask(&desk, Question::Hosts(request)).await
}

async fn trust(State(desk): State<Desk>, Json(request): Json<TrustRequest>) -> Response {
    ask(&desk, Question::Trust(request)).await
}

/// Who asks, as the kernel says.
#[derive(Debug, Clone)]
struct Asker(String);

impl Connected<IncomingStream<'_, UnixListener>> for Asker {
    fn connect_info(stream: IncomingStream<'_, UnixListener>) -> Self {
        let Ok(peer) = stream.io().peer_cred() else { return Self("somebody".to_owned()) };
        let user = User::from_uid(Uid::from_raw(peer.uid())).ok().flatten();
        Self(user.map_or_else(|| format!("user {}", peer.uid()), |user| user.name))
    }
}

async fn exec(
    State(desk): State<Desk>,
    ConnectInfo(Asker(by)): ConnectInfo<Asker>,
    Json(request): Json<ExecRequest>,
) -> Response {
    let (telling, hearing) = telling();
    let response = ask(&desk, Question::Exec(Box::new(request), by, telling)).await;
    if response.status() != StatusCode::OK {
        return response;
    }
    let (sender, body) = Channel::<Bytes, Infallible>::new(16);
    tokio::spawn(tell_exec(hearing, sender));
    ([("content-type", "application/x-ndjson")], Body::new(body)).into_response()
}

/// A command's events as lines of JSON, until the last of them, or until nobody reads them any more.
async fn tell_exec(mut hearing: Hearing, mut sender: channel::Sender<Bytes, Infallible>) {
    loop {
        let mut line = match tokio::time::timeout(ALIVE, hearing.next()).await {
            Ok(None) => return,
            Ok(Some(event)) => match serde_json::to_vec(&event) {
                Ok(line) => line,
                Err(_) => return,
            },
            // An empty line: who reads skips it, and who has gone is noticed.
            Err(_) => Vec::new(),
        };
        line.push(b'\n');
        if sender.send_data(line.into()).await.is_err() {
            return;
        }
    }
}

async fn stop_exec(State(desk): State<Desk>, Segment(id): Segment<ExecId>) -> Response {
    ask(&desk, Question::StopExec(id)).await
}

async fn exec_record(State(desk): State<Desk>, Segment(id): Segment<ExecId>) -> Response {
    ask(&desk, Question::ExecRecord(id)).await
}

async fn status(State(desk): State<Desk>) -> Response {
    ask(&desk, Question::Status).await
}

async fn knowledge(State(desk): State<Desk>) -> Response {
    ask(&desk, Question::Knowledge).await
}

#[derive(Deserialize)]
struct WhyQuery {
    node: NodeId,
    task: TaskId,
}

async fn why(State(desk): State<Desk>, Query(query): Query<WhyQuery>) -> Response {
    ask(&desk, Question::Why(query.task.at(&query.node))).await
}

#[derive(Deserialize)]
struct HistoryQuery {
    limit: Option<usize>,
}

async fn history(State(desk): State<Desk>, Query(query): Query<HistoryQuery>) -> Response {
    ask(&desk, Question::History(query.limit.unwrap_or(20))).await
}

async fn rollout(State(desk): State<Desk>, Segment(which): Segment<String>) -> Response {
    let which = match which.as_str() {
        "latest" => None,
        number => match number.parse() {
            Ok(number) => Some(Generation(number)),
            Err(_) => {
                return refuse(StatusCode::BAD_REQUEST, format!("`{number}` is neither a generation nor `latest`"));
            }
        },
    };
    ask(&desk, Question::Rollout(which)).await
}

async fn events(State(desk): State<Desk>) -> Response {
    let (sender, body) = Channel::<Bytes, Infallible>::new(16);
    tokio::spawn(tell(desk.events.subscribe(), sender));
    ([("content-type", "application/x-ndjson")], Body::new(body)).into_response()
}

/// Events as lines of JSON, until the listener has gone.
async fn tell(mut events: broadcast::Receiver<Event>, mut sender: channel::Sender<Bytes, Infallible>) {
    let mut event = Event::Hello { version: VERSION };
    loop {
        let Ok(mut line) = serde_json::to_vec(&event) else { return };
        line.push(b'\n');
        if sender.send_data(line.into()).await.is_err() {
            return;
        }
        event = match events.recv().await {
            Ok(event) => event,
            Err(broadcast::error::RecvError::Lagged(count)) => Event::Missed { count },
            Err(broadcast::error::RecvError::Closed) => return,
        };
    }
}
