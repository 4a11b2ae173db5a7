//! What an endpoint is: one typed request that names its method and path and carries its own reply.
//!
//! In: HTTP requests. Out: JSON, or a [`Problem`] with the status code of its kind, whatever is wrong: the path, the query, the body, or
//! what is asked for. The client makes its requests from the same declarations.

use std::future::Future;

use axum::{
    Json, Router,
    body::Bytes,
    extract::{
        ConnectInfo, DefaultBodyLimit, RawPathParams, RawQuery, State,
        rejection::{BytesRejection, RawPathParamsRejection},
    },
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::{get, post},
};
use serde::{Serialize, de::DeserializeOwned};

use super::{
    peer::Peer,
    types::{Problem, ProblemKind},
};

/// Most bytes of a body: a command line with its environment, or the hosts of a large site.
const BODY_MOST: usize = 2 * 1024 * 1024;

/// How a request is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// `GET`: its fields are parts of the path and of the query.
    Get,
    /// `POST`: its fields are parts of the path, or one JSON body.
    Post,
}

/// A request of the API.
pub trait Request: Serialize + DeserializeOwned + Send + 'static {
    /// What it is answered with: one JSON object, or a stream of them, one a line.
    type Reply: DeserializeOwned;
    /// How it is made.
    const METHOD: Method;
    /// Its path; `{name}` stands for the field of that name.
    const PATH: &'static str;
}

/// How a request is answered; `S` is what all answers are made from.
pub(super) trait Answer<S>: Request {
    /// Answers it.
    fn answer(self, state: S, peer: Peer) -> impl Future<Output = Result<Response, Problem>> + Send;
}

/// Adds a request to a router. This is the only place where one is registered.
pub(super) fn add<R: Answer<S>, S: Clone + Send + Sync + 'static>(router: Router<S>) -> Router<S> {
    let handler = |State(state): State<S>,
                   ConnectInfo(peer): ConnectInfo<Peer>,
                   path: Result<RawPathParams, RawPathParamsRejection>,
                   RawQuery(query): RawQuery,
                   body: Result<Bytes, BytesRejection>| async move {
        let path =
            path.map_err(|error| Problem::new(ProblemKind::BadRequest, format!("the path cannot be read: {error}")));
        let read = path.and_then(|path| Ok((path, body.map_err(unread)?)));
        let request = read.and_then(|(path, body)| decode::<R>(&path, query.as_deref(), &body));
        let answered = match request {
            Ok(request) => request.answer(state, peer).await,
            Err(problem) => Err(problem),
        };
        answered.unwrap_or_else(IntoResponse::into_response)
    };
    let method = match R::METHOD {
        Method::Get => get(handler),
        Method::Post => post(handler),
    };
    router.route(R::PATH, method.layer(DefaultBodyLimit::max(BODY_MOST)))
}

/// The problem of a body that was not read.
fn unread(rejection: BytesRejection) -> Problem {
    match rejection.status() {
        StatusCode::PAYLOAD_TOO_LARGE => {
            Problem::new(ProblemKind::TooLarge, format!("the body is longer than {BODY_MOST} bytes"))
        }
        _ => Problem::new(ProblemKind::BadRequest, format!("the body cannot be read: {}", rejection.body_text())),
    }
}

fn decode<R: Request>(path: &RawPathParams, query: Option<&str>, body: &[u8]) -> Result<R, Problem> {
    let bad = |what: &str, error: &dyn std::fmt::Display| {
        Problem::new(ProblemKind::BadRequest, format!("the {what} is not what `{}` takes: {error}", R::PATH))
    };
    // As `encode` makes it: one JSON body, or fields in the path and the query.
    if R::METHOD == Method::Post && path.iter().next().is_none() {
        if query.is_some_and(|query| !query.is_empty()) {
            return Err(bad("query", &"everything is in the body"));
        }
        // Of a request without fields a hook need not send a body; one with optional fields must say that it leaves all of them out.
        let body = if size_of::<R>() == 0 && body.is_empty() { b"{}" } else { body };
        return serde_json::from_slice(body).map_err(|e| bad("body", &e));
    }
    if !body.is_empty() {
        return Err(bad("body", &"it takes none"));
    }
    let mut pairs: Vec<(String, String)> = path.iter().map(|(k, v)| (k.to_owned(), v.to_owned())).collect();
    let query: Vec<(String, String)> =
        serde_urlencoded::from_str(query.unwrap_or_default()).map_err(|e| bad("query", &e))?;
    pairs.extend(query);
    let text = serde_urlencoded::to_string(pairs).map_err(|e| bad("query", &e))?;
    serde_urlencoded::from_str(&text).map_err(|e| bad("query", &e))
}

/// The path and query, and the body, of a request.
pub(super) fn encode<R: Request>(request: &R) -> Result<(String, Vec<u8>), serde_json::Error> {
    let fields = serde_json::to_value(request)?;
    let text = |value: &serde_json::Value| match value {
        serde_json::Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let (mut path, mut query) = (R::PATH.to_owned(), Vec::new());
    let mut in_path = 0;
    for (name, value) in fields.as_object().into_iter().flatten().filter(|(_, value)| !value.is_null()) {
        let slot = format!("{{{name}}}");
        if path.contains(&slot) {
            path = path.replace(&slot, &text(value));
            in_path += 1;
        } else {
            query.push((name.clone(), text(value)));
        }
    }
    if R::METHOD == Method::Post {
        let body = if in_path > 0 { Vec::new() } else { serde_json::to_vec(request)? };
        return Ok((path, body));
    }
    let query = serde_urlencoded::to_string(query).map_err(serde::ser::Error::custom)?;
    Ok((if query.is_empty() { path } else { format!("{path}?{query}") }, Vec::new()))
}

/// A reply of one JSON object.
pub(super) fn json<T: Serialize>(reply: T) -> Result<Response, Problem> {
    Ok(Json(reply).into_response())
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = match self.kind {
            ProblemKind::BadRequest => StatusCode::BAD_REQUEST,
            ProblemKind::NotFound => StatusCode::NOT_FOUND,
            ProblemKind::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            ProblemKind::Conflict => StatusCode::CONFLICT,
            ProblemKind::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            ProblemKind::TooMany => StatusCode::TOO_MANY_REQUESTS,
            ProblemKind::Internal => StatusCode::INTERNAL_SERVER_ERROR,
            ProblemKind::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        };
        (status, Json(self)).into_response()
    }
}
