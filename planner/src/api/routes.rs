//! How each request is answered: reads from a snapshot and the store, the rest by the machine.
//!
//! In: decoded requests. Out: replies, or problems. Checks here what can be checked on a snapshot, so that the machine is not bothered
//! with requests that name what is not there.

use std::{collections::BTreeSet, convert::Infallible, time::Duration};

use axum::{
    Router,
    body::{Body, Bytes},
    response::{IntoResponse as _, Response},
};
use groundplan_core::applied::Forget;
use groundplan_machine::{
    command::CommandRequest,
    io::{self, Reply},
};
use groundplan_protocol::{
    duration::Span,
    envelope::PublicKey,
    exec::TIMEOUT_MAX,
    ids::{ExecId, Generation, NodeId},
    kinds::Run,
};
use http_body_util::channel::{self, Channel};
use serde::Serialize;
use tokio::sync::broadcast;

use super::{
    drift::{DriftCheckRequest, DriftChecksRequested},
    endpoint::{Answer, add, json},
    event::Event,
    exec::ExecRequest,
    hosts::{HostsRequest, TrustRequest, Trusted},
    park::{ParkPlanned, ParkRequest, Parked, UnparkRequest},
    peer::Peer,
    requests::{
        AcceptCommit, Done, FetchNow, GetDrift, GetDriftAnswers, GetEvents, GetExec, GetHistory, GetKnowledge,
        GetRollout, GetStatus, GetWhy, StopExec,
    },
    stream::{EventReceiver, event_channel},
    types::{
        ForgetPlanned, ForgetRequest, Problem, ProblemKind, RecheckPlanned, RecheckRequest, RetryPlanned, RetryRequest,
        VERSION,
    },
};
use crate::{
    shell::{Handle, Stopping},
    trust, view,
};

/// How often the stream of a command carries an empty line, by which a client that has disconnected is noticed.
const ALIVE: Duration = Duration::from_millis(500);
/// Most text of a command line with its environment, in bytes: the kernel takes no argument above 128 KiB.
const LONGEST: usize = 100 * 1024;
/// The longest reason that an operator gives, in bytes.
const REASON_MOST: usize = 1000;
/// How long a node may be parked by a request.
const PARKED_LEAST: Span = Span::secs(1);
const PARKED_MOST: Span = Span::secs(365 * 24 * 3600);
/// Most output of a node that can be asked for, in bytes.
const OUTPUT_MOST: u64 = 1 << 30;

/// All that the API answers.
pub(super) fn router(handle: Handle) -> Router {
    let mut router = Router::new();
    router = add::<GetStatus, _>(router);
    router = add::<GetKnowledge, _>(router);
    router = add::<GetWhy, _>(router);
    router = add::<GetHistory, _>(router);
    router = add::<GetRollout, _>(router);
    router = add::<GetEvents, _>(router);
    router = add::<GetDrift, _>(router);
    router = add::<GetDriftAnswers, _>(router);
    router = add::<GetExec, _>(router);
    router = add::<StopExec, _>(router);
    router = add::<FetchNow, _>(router);
    router = add::<AcceptCommit, _>(router);
    router = add::<DriftCheckRequest, _>(router);
    router = add::<RecheckRequest, _>(router);
    router = add::<RetryRequest, _>(router);
    router = add::<ForgetRequest, _>(router);
    router = add::<ParkRequest, _>(router);
    router = add::<UnparkRequest, _>(router);
    router = add::<ExecRequest, _>(router);
    router = add::<HostsRequest, _>(router);
    router = add::<TrustRequest, _>(router);
    let nothing = || async { Problem::new(ProblemKind::NotFound, "there is no such path here") };
    let method =
        || async { Problem::new(ProblemKind::MethodNotAllowed, "this path takes another method, see `allow`") };
    router.fallback(nothing).method_not_allowed_fallback(method).with_state(handle)
}

impl From<Stopping> for Problem {
    fn from(Stopping: Stopping) -> Self {
        Self::new(ProblemKind::Unavailable, "the planner is stopping")
    }
}

impl From<io::Problem> for Problem {
    fn from(problem: io::Problem) -> Self {
        match problem {
            io::Problem::NotPlanning { planner } => {
                let problem = Self::new(ProblemKind::Unavailable, "this planner does not plan at the moment");
                match planner {
                    Some(planner) => problem.hint(format!("ask the planner `{planner}`")),
                    None => problem,
                }
            }
            io::Problem::NoActiveCommit => Self::new(ProblemKind::Unavailable, "there is no active commit yet")
                .hint("`groundplan status` shows why"),
            io::Problem::TooManyCommands { limit } => {
                Self::new(ProblemKind::TooMany, format!("{limit} commands run already"))
                    .hint("wait for one of them; `groundplan history` lists them")
            }
            io::Problem::NoCommand(id) => Self::new(ProblemKind::NotFound, format!("no command `{id}` runs"))
                .hint("`groundplan history` lists them"),
        }
    }
}

/// Does what takes a while, such as reading the store, on a thread for that.
async fn off_thread<T: Serialize + Send + 'static>(
    work: impl FnOnce() -> Result<T, Problem> + Send + 'static,
) -> Result<Response, Problem> {
    match tokio::task::spawn_blocking(work).await {
        Ok(reply) => json(reply?),
        Err(_) => Err(Problem::new(ProblemKind::Internal, "the answer could not be worked out")),
    }
}

impl Answer<Handle> for GetStatus {
    async fn answer(self, handle: Handle, _: Peer) -> Result<Response, Problem> {
        let snapshot = handle.snapshot().await?;
        off_thread(move || Ok(view::status(&snapshot))).await
    }
}

impl Answer<Handle> for FetchNow {
    async fn answer(self, handle: Handle, _: Peer) -> Result<Response, Problem> {
        handle.info.follow.now();
        json(Done {})
    }
}

impl Answer<Handle> for AcceptCommit {
    async fn answer(self, handle: Handle, _: Peer) -> Result<Response, Problem> {
        let snapshot = handle.snapshot().await?;
        let refused = snapshot.view.meta.refused.as_ref();
        let is_rewind = refused.is_some_and(|r| r.commit.id == self.commit && r.commit.rewinds.is_some());
        // The branch may have moved since.
        if is_rewind && handle.accept(self.commit.clone()).await? {
            return json(Done {});
        }
        let error =
            format!("commit {} is not the branch's tip, or is not refused for being no fast-forward", self.commit);
        Err(Problem::new(ProblemKind::Conflict, error).hint("`groundplan status` shows what is refused, and why"))
    }
}

impl Answer<Handle> for GetKnowledge {
    async fn answer(self, handle: Handle, _: Peer) -> Result<Response, Problem> {
        let snapshot = handle.snapshot().await?;
        off_thread(move || Ok(view::knowledge(&snapshot))).await
    }
}

impl Answer<Handle> for GetWhy {
    async fn answer(self, handle: Handle, _: Peer) -> Result<Response, Problem> {
        let snapshot = handle.snapshot().await?;
        off_thread(move || view::why(&snapshot, &handle.store, &self.task.at(&self.node))).await
    }
}

impl Answer<Handle> for GetHistory {
    async fn answer(self, handle: Handle, _: Peer) -> Result<Response, Problem> {
        let snapshot = handle.snapshot().await?;
        off_thread(move || view::history(&snapshot, &handle.store, self.limit)).await
    }
}

impl Answer<Handle> for GetRollout {
    async fn answer(self, handle: Handle, _: Peer) -> Result<Response, Problem> {
        let generation = match self.which.as_str() {
            "latest" => None,
            number => match number.parse() {
                Ok(number) => Some(Generation(number)),
                Err(_) => {
                    let error = format!("`{number}` is neither a generation nor `latest`");
                    return Err(Problem::new(ProblemKind::BadRequest, error));
                }
            },
        };
        let snapshot = handle.snapshot().await?;
        off_thread(move || view::rollout(&snapshot, &handle.store, generation)).await
    }
}

impl Answer<Handle> for GetDrift {
    async fn answer(self, handle: Handle, _: Peer) -> Result<Response, Problem> {
        let nodes: Result<BTreeSet<NodeId>, _> =
            self.nodes.iter().flat_map(|nodes| nodes.split(',')).map(NodeId::new).collect();
        let nodes = nodes.map_err(|e| Problem::new(ProblemKind::BadRequest, e.to_string()))?;
        let snapshot = handle.snapshot().await?;
        off_thread(move || {
            let mut drift = view::drift(&snapshot, &nodes);
            // Text diffs take long: made here, on a thread of their own, and not in the view.
            drift.compare();
            Ok(drift)
        })
        .await
    }
}

impl Answer<Handle> for GetDriftAnswers {
    async fn answer(self, handle: Handle, _: Peer) -> Result<Response, Problem> {
        json(view::drift_answers(&*handle.snapshot().await?))
    }
}

impl Answer<Handle> for DriftCheckRequest {
    async fn answer(self, handle: Handle, _: Peer) -> Result<Response, Problem> {
        let snapshot = handle.snapshot().await?;
        view::has(&snapshot, &self.services, &self.tasks)?;
        let nodes = match self.on.is_empty() {
            true => snapshot.view.active.iter().flat_map(|active| active.desired.nodes.clone()).collect(),
            false => view::selected(&snapshot, &self.on)?,
        };
        // A planner that stands by knows what nodes have found as well.
        if self.name_only {
            let asked = nodes.into_iter().map(|node| (node, 0)).collect();
            return json(DriftChecksRequested { version: VERSION, asked });
        }
        match handle.request(io::Request::CheckDrift(nodes)).await?? {
            Reply::CheckDrift(asked) => json(DriftChecksRequested { version: VERSION, asked }),
            reply => Err(unexpected(&reply)),
        }
    }
}

impl Answer<Handle> for RecheckRequest {
    async fn answer(self, handle: Handle, _: Peer) -> Result<Response, Problem> {
        let snapshot = handle.snapshot().await?;
        let nodes = view::selected(&snapshot, &self.on)?;
        view::has(&snapshot, &self.services, &self.tasks)?;
        let request = io::Request::Recheck { nodes, services: self.services, tasks: self.tasks };
        match handle.request(request).await?? {
            Reply::Recheck { generation, left_out } => json(RecheckPlanned { version: VERSION, generation, left_out }),
            reply => Err(unexpected(&reply)),
        }
    }
}

impl Answer<Handle> for RetryRequest {
    async fn answer(self, handle: Handle, _: Peer) -> Result<Response, Problem> {
        match handle.request(io::Request::Retry).await?? {
            Reply::Retry(generation) => json(RetryPlanned { version: VERSION, generation }),
            reply => Err(unexpected(&reply)),
        }
    }
}

impl Answer<Handle> for ForgetRequest {
    async fn answer(self, handle: Handle, Peer(by): Peer) -> Result<Response, Problem> {
        let snapshot = handle.snapshot().await?;
        let online = view::may_forget(&snapshot, &self.node, &self.task)?;
        let (instance, reason) = (self.task.at(&self.node), one_line(&self.reason)?);
        match handle.request(io::Request::Forget { instance, forget: Forget { by, reason } }).await?? {
            Reply::Forget(generation) => json(ForgetPlanned { version: VERSION, generation, online }),
            reply => Err(unexpected(&reply)),
        }
    }
}

impl Answer<Handle> for ParkRequest {
    async fn answer(self, handle: Handle, Peer(by): Peer) -> Result<Response, Problem> {
        view::is_declared(&*handle.snapshot().await?, &self.node)?;
        let reason = one_line(&self.reason)?;
        if reason.is_empty() {
            return Err(Problem::new(ProblemKind::BadRequest, "a reason is missing")
                .hint("give one, so that others know why nothing waits for the node"));
        }
        if self.span.is_some_and(|span| !(PARKED_LEAST..=PARKED_MOST).contains(&span)) {
            let error = format!("a node is parked for {PARKED_LEAST} to {PARKED_MOST}");
            return Err(Problem::new(ProblemKind::BadRequest, error)
                .hint("without a time, it is parked until `groundplan unpark`; `state = \"parked\"` in the inventory is for good"));
        }
        let span = self.span.map(Into::into);
        park_node(&handle, self.node.clone(), io::Request::Park { node: self.node, by, reason, span }).await
    }
}

impl Answer<Handle> for UnparkRequest {
    async fn answer(self, handle: Handle, _: Peer) -> Result<Response, Problem> {
        let snapshot = handle.snapshot().await?;
        view::is_declared(&snapshot, &self.node)?;
        match view::parked(&snapshot.view, &self.node) {
            Some(Parked::Operator { .. }) => {
                park_node(&handle, self.node.clone(), io::Request::Unpark(self.node)).await
            }
            Some(Parked::Inventory) => {
                let error = format!("the inventory has node {} as parked", self.node);
                Err(Problem::new(ProblemKind::Conflict, error)
                    .hint(format!("take `state = \"parked\"` out of [nodes.{}]", self.node)))
            }
            None => Err(Problem::new(ProblemKind::Conflict, format!("node {} is not parked", self.node))),
        }
    }
}

async fn park_node(handle: &Handle, node: NodeId, request: io::Request) -> Result<Response, Problem> {
    match handle.request(request).await?? {
        Reply::Park(generation) => {
            let parked = view::parked(&handle.snapshot().await?.view, &node);
            json(ParkPlanned { version: VERSION, node, generation, parked })
        }
        reply => Err(unexpected(&reply)),
    }
}

/// An operator's reason, which others read in a line of a table.
fn one_line(reason: &str) -> Result<String, Problem> {
    let reason = reason.trim();
    let problem = |error: String| Err(Problem::new(ProblemKind::BadRequest, error).hint("say it in a few words"));
    match () {
        () if reason.chars().any(char::is_control) => {
            problem("a reason has one line, without control characters".into())
        }
        () if reason.len() > REASON_MOST => problem(format!("a reason has at most {REASON_MOST} bytes")),
        () => Ok(reason.to_owned()),
    }
}

impl Answer<Handle> for HostsRequest {
    async fn answer(self, handle: Handle, _: Peer) -> Result<Response, Problem> {
        let snapshot = handle.snapshot().await?;
        let nodes = view::selected(&snapshot, &self.select)?;
        off_thread(move || view::hosts(&snapshot, nodes, |node| handle.keys.find(node).0)).await
    }
}

impl Answer<Handle> for TrustRequest {
    async fn answer(self, handle: Handle, _: Peer) -> Result<Response, Problem> {
        let snapshot = handle.snapshot().await?;
        let Some(site) = snapshot.site.clone() else { return Err(io::Problem::NoActiveCommit.into()) };
        off_thread(move || {
            let Self { node, key, replace } = &self;
            // Only for declared nodes: a misspelt name would be trusted, and its node would stay refused.
            let Some(declared) = site.loaded.inventory.nodes.get(node) else {
                let error = format!("the site has no node `{node}`");
                return Err(Problem::new(ProblemKind::NotFound, error).hint("declare it in the inventory"));
            };
            let trusted = handle.keys.find(node).0;
            let Some(key) = *key else { return confirm(&handle, node, declared.key, trusted) };
            let before = trusted.as_ref().ok().copied().flatten().filter(|known| *known != key);
            if matches!(trusted, Ok(Some(known)) if known == key) {
                return Ok(Trusted { version: VERSION, changed: false, key, before: None });
            }
            // What operator and inventory name alike needs no more than that.
            let confirmed = declared.key == Some(key);
            if declared.key.is_some() && !confirmed {
                let error = format!("the inventory names another key for node {node} than {key}");
                return Err(Problem::new(ProblemKind::Conflict, error).hint(format!(
                    "if the host was set up again: put this key into [nodes.{node}], or take `key` out there"
                )));
            }
            match trusted {
                Ok(Some(known)) if !replace && !confirmed => {
                    let error = format!("node {node} has had the key {known} so far, and not {key}");
                    return Err(Problem::new(ProblemKind::Conflict, error)
                        .hint("if the host was set up again, and it is the right one: --replace-key"));
                }
                Ok(_) => {}
                Err(_) if *replace => {}
                Err(e) => {
                    let hint = format!("repair or remove that file: it names the key of node {node}");
                    return Err(Problem::new(ProblemKind::Internal, e.to_string()).hint(hint));
                }
            }
            trust_key(&handle, node, key, before)
        })
        .await
    }
}

/// Trusts the key that the inventory names for a node, in place of the one that was trusted so far.
fn confirm(
    handle: &Handle,
    node: &NodeId,
    declared: Option<PublicKey>,
    trusted: Result<Option<PublicKey>, trust::TrustError>,
) -> Result<Trusted, Problem> {
    let Some(key) = declared else {
        let error = format!("the inventory names no key for node {node}");
        return Err(Problem::new(ProblemKind::Conflict, error).hint(format!(
            "name it: `groundplan trust {node} KEY`; `groundplan-agent --print-key` on its host prints it"
        )));
    };
    match trusted {
        Ok(Some(known)) if known == key => Ok(Trusted { version: VERSION, changed: false, key, before: None }),
        trusted => trust_key(handle, node, key, trusted.ok().flatten()),
    }
}

fn trust_key(handle: &Handle, node: &NodeId, key: PublicKey, before: Option<PublicKey>) -> Result<Trusted, Problem> {
    handle.keys.trust(node, &key).map_err(|e| {
        let cause = std::error::Error::source(&e).map(|source| format!(": {source}")).unwrap_or_default();
        Problem::new(ProblemKind::Internal, format!("{e}{cause}"))
    })?;
    tracing::info!(%node, %key, "the key of a node is trusted from now on");
    Ok(Trusted { version: VERSION, changed: true, key, before })
}

impl Answer<Handle> for GetExec {
    async fn answer(self, handle: Handle, _: Peer) -> Result<Response, Problem> {
        let snapshot = handle.snapshot().await?;
        off_thread(move || view::exec_record(&snapshot, &handle.store, &self.id)).await
    }
}

impl Answer<Handle> for StopExec {
    async fn answer(self, handle: Handle, _: Peer) -> Result<Response, Problem> {
        handle.request(io::Request::StopCommand(self.id)).await??;
        json(Done {})
    }
}

impl Answer<Handle> for ExecRequest {
    async fn answer(self, handle: Handle, Peer(by): Peer) -> Result<Response, Problem> {
        if let Some(problem) = fault(&self) {
            return Err(problem);
        }
        let snapshot = handle.snapshot().await?;
        let nodes = view::selected(&snapshot, std::slice::from_ref(&self.on))?;
        let store = handle.store.clone();
        // Off the loop of the API, because it reads the store.
        let id = tokio::task::spawn_blocking(move || new_exec_id(&store)).await.ok().flatten();
        let random = || Problem::new(ProblemKind::Internal, "the kernel gives no random numbers").hint("try again");
        let request = CommandRequest {
            id: id.ok_or_else(random)?,
            by,
            on: self.on.to_string(),
            nodes,
            run: self.run,
            user: self.user,
            cwd: self.cwd,
            env: self.env,
            timeout: self.timeout,
            at_once: self.at_once,
            output_limit: self.output_limit,
            max_failures: self.max_failures,
        };
        let (sender, receiver) = event_channel();
        handle.run_command(request, sender).await??;
        let (lines, body) = Channel::<Bytes, Infallible>::new(16);
        tokio::spawn(stream_exec(receiver, lines));
        Ok(([("content-type", "application/x-ndjson")], Body::new(body)).into_response())
    }
}

impl Answer<Handle> for GetEvents {
    async fn answer(self, handle: Handle, _: Peer) -> Result<Response, Problem> {
        let (lines, body) = Channel::<Bytes, Infallible>::new(16);
        tokio::spawn(stream_events(handle.events.subscribe(), lines));
        Ok(([("content-type", "application/x-ndjson")], Body::new(body)).into_response())
    }
}

fn unexpected(reply: &Reply) -> Problem {
    Problem::new(ProblemKind::Internal, format!("the planner gave another answer: {reply:?}"))
}

/// An id that no command of the history has.
fn new_exec_id(store: &crate::store::Reader) -> Option<ExecId> {
    (0..100).find_map(|_| {
        let random: [u8; 4] = trust::random().ok()?;
        let id = ExecId::new(random.iter().map(|byte| format!("{byte:02x}")).collect::<String>()).ok()?;
        store.exec(&id).ok().flatten().is_none().then_some(id)
    })
}

/// What is wrong with a command as such.
fn fault(request: &ExecRequest) -> Option<Problem> {
    let bad = |error: String, hint: &str| Some(Problem::new(ProblemKind::BadRequest, error).hint(hint));
    let bare = match &request.run {
        Run::Shell(line) => line.trim().is_empty(),
        Run::Args(args) => args.first().is_none_or(String::is_empty),
    };
    let mut texts = [&request.user, &request.cwd].into_iter().flatten().chain(request.env.values());
    let line = request.run.to_string();
    let size = line.len() + request.env.iter().map(|(name, value)| name.len() + value.len()).sum::<usize>();
    let timeout: Duration = request.timeout.into();
    let bad_name = request.env.keys().find(|name| name.is_empty() || name.contains(['=', '\0']));
    if bare {
        bad("there is no command to run".to_owned(), "give a shell line, or a program with its arguments")
    } else if line.contains('\0') || texts.any(|text| text.contains('\0')) {
        bad("the command holds a NUL character".to_owned(), "no program can be given one")
    } else if size > LONGEST {
        let error = format!("the command is {size} bytes long with its environment; {LONGEST} is the most");
        bad(error, "deliver a script as a `file`, and run that")
    } else if let Some(name) = bad_name {
        let error = format!("`{}` cannot be the name of an environment variable", name.escape_debug());
        bad(error, "a name is not empty and has no `=`")
    } else if let Some(cwd) = request.cwd.as_ref().filter(|cwd| !cwd.starts_with('/')) {
        bad(format!("`{cwd}` is no absolute path"), "name the directory from `/` on")
    } else if timeout.is_zero() || timeout > Duration::from(TIMEOUT_MAX) {
        let error = format!("a time limit of {} is not possible", request.timeout);
        bad(error, &format!("give more than nothing, and at most {TIMEOUT_MAX}"))
    } else if request.at_once == Some(0) || request.max_failures == Some(0) {
        bad("0 nodes at once, or 0 failures, would run nothing".to_owned(), "give 1 or more")
    } else if request.output_limit > OUTPUT_MOST {
        let error = "an output limit above 1 GiB for each node is not possible".to_owned();
        bad(error, "write large output to a file there")
    } else {
        None
    }
}

/// A command's events as lines of JSON, until the last of them, or until no client reads them any more.
async fn stream_exec(mut events: EventReceiver, mut lines: channel::Sender<Bytes, Infallible>) {
    loop {
        let mut line = match tokio::time::timeout(ALIVE, events.next()).await {
            Ok(None) => return,
            Ok(Some(event)) => match serde_json::to_vec(&event) {
                Ok(line) => line,
                Err(_) => return,
            },
            // An empty line: readers skip it, and a client that has disconnected is noticed.
            Err(_) => Vec::new(),
        };
        line.push(b'\n');
        if lines.send_data(line.into()).await.is_err() {
            return;
        }
    }
}

/// Events as lines of JSON, until the client has disconnected.
async fn stream_events(mut events: broadcast::Receiver<Event>, mut lines: channel::Sender<Bytes, Infallible>) {
    let mut event = Event::Hello { version: VERSION };
    loop {
        let Ok(mut line) = serde_json::to_vec(&event) else { return };
        line.push(b'\n');
        if lines.send_data(line.into()).await.is_err() {
            return;
        }
        event = match events.recv().await {
            Ok(event) => event,
            Err(broadcast::error::RecvError::Lagged(count)) => Event::Missed { count },
            Err(broadcast::error::RecvError::Closed) => return,
        };
    }
}
