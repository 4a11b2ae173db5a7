//! The planner's API over its socket, as a client without our library meets it: every problem is one JSON object with its status code.

use std::{
    io::{Read, Write},
    os::unix::net::UnixStream,
    path::Path,
};

use groundplan_tests::{brokers::Kind, fleet::Fleet};
use serde_json::Value;

use super::web;

/// Sends one request; returns the status code and the body.
fn request(socket: &Path, line: &str, body: &str) -> (u16, Value) {
    let mut stream = UnixStream::connect(socket).expect("a planner listens");
    let length = body.len();
    // The planner may answer, and close, before it has read a body that is too long.
    let _ = write!(
        stream,
        "{line} HTTP/1.1\r\nhost: planner\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{body}"
    );
    let mut answer = String::new();
    let _ = stream.read_to_string(&mut answer);
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("{line}: {answer}"));
    let status = head.split(' ').nth(1).and_then(|code| code.parse().ok());
    let body = serde_json::from_str(body).unwrap_or_else(|error| panic!("{line}: {error}: {body}"));
    (status.unwrap_or_else(|| panic!("{line}: {head}")), body)
}

#[test]
fn every_problem_is_json_with_its_status_code() {
    let fleet = Fleet::started(Kind::Embedded, &web(), &[]);
    fleet.wait("the planner to answer", || fleet.ask("one", &["status"]));
    let socket = fleet.planner_state("one").join("planner.sock");
    let long = format!("{{\"on\": [\"{}\"]}}", "x".repeat(3 << 20));
    let cases = [
        ("GET /v1/nothing", "", 404, "not_found"),
        ("GET /v1/rollouts/99", "", 404, "not_found"),
        ("GET /v1/rollouts/%ff", "", 400, "bad_request"),
        ("POST /v1/exec/00000000/stop", "{\"id\":\"deadbeef\"}", 400, "bad_request"),
        ("POST /v1/recheck", "", 400, "bad_request"),
        ("POST /v1/status", "", 405, "method_not_allowed"),
        ("PUT /v1/exec", "", 405, "method_not_allowed"),
        ("GET /v1/history?limit=abc", "", 400, "bad_request"),
        ("GET /v1/history?limt=1", "", 400, "bad_request"),
        ("GET /v1/status?verbose=1", "", 400, "bad_request"),
        ("GET /v1/status", "{}", 400, "bad_request"),
        ("GET /v1/why?node=1", "", 400, "bad_request"),
        ("POST /v1/exec", "", 400, "bad_request"),
        ("POST /v1/exec", "[]", 400, "bad_request"),
        ("POST /v1/exec", "{\"no", 400, "bad_request"),
        ("POST /v1/exec?on=n1", "{}", 400, "bad_request"),
        ("POST /v1/exec", "{\"unheard\": 1}", 400, "bad_request"),
        ("POST /v1/exec", &long, 413, "too_large"),
    ];
    for (line, body, status, kind) in cases {
        let (answered, problem) = request(&socket, line, body);
        let body: String = body.chars().take(20).collect();
        assert_eq!((answered, problem["kind"].as_str()), (status, Some(kind)), "{line} {body}: {problem}");
        assert!(problem["error"].as_str().is_some_and(|error| !error.is_empty()), "{line}: {problem}");
    }
    let (status, body) = request(&socket, "POST /v1/exec", "");
    assert_eq!(status, 400);
    assert!(body["error"].as_str().is_some_and(|error| error.starts_with("the body ")), "{body}");
}
