//! Fed: what a plugin prints, in parts named after the requests, see [`super::files`]: `check`, `apply`, `restart`, `remove`. A task of it is
//! applied, checked for drift, restarted and removed.
//!
//! Checked: an answer that is no JSON object, has an `error`, or lacks what it needs, makes the job fail, and none other does. What a report
//! takes over of it is bounded, and what is remembered is what it gave.

use std::{collections::BTreeMap, fs};

use groundplan_agent::host::job::Finished;
use groundplan_protocol::{digest::Digest, report::OUTPUT_LIMIT};
use serde_json::{Value, json};

use super::{
    files,
    host::{OneTask, spec},
};

/// Prints what is there for each request.
const PROGRAM: &str = "#!/bin/sh\nexec cat \"$GROUNDPLAN_ROOT/$GROUNDPLAN_REQUEST\"\n";
/// Most bytes of an error of a plugin in a report: its characters, and what is said around them.
const ERROR: usize = 4 * 4096 + 1024;
/// Most bytes that a plugin may have kept.
const MEMORY: usize = 64 << 10;

/// See the module.
pub fn check(text: &[u8]) {
    let answers: BTreeMap<&str, &[u8]> = files::files(text).into_iter().collect();
    let mut host = OneTask::new();
    for request in ["check", "apply", "restart", "remove"] {
        fs::write(host.at(request), answers.get(request).unwrap_or(&&b""[..])).expect("a file");
    }
    let params =
        json!({ "plugin": { "name": "zone", "program": Digest::of(PROGRAM.as_bytes()), "effects": ["restart"] } });
    let spec = spec(&params, PROGRAM.as_bytes());
    let before = host.tree(None);

    let parsed = |request: &str| match serde_json::from_slice::<Value>(answers.get(request)?) {
        Ok(Value::Object(fields)) if fields.get("error").is_none_or(Value::is_null) => Some(fields),
        _ => None,
    };
    let is_in_sync = parsed("check").and_then(|fields| fields.get("so")?.as_bool());
    let applied = host.apply(&spec);
    bounded(&applied);
    match (is_in_sync, parsed("apply")) {
        (None, _) => assert!(applied.result.is_err(), "the check was no answer: {applied:?}"),
        (Some(false), None) => assert!(applied.result.is_err(), "no answer: {applied:?}"),
        (Some(false), Some(fields)) if applied.result.is_ok() => {
            assert!(fields["changed"].is_boolean());
            assert_eq!(applied.notes.memory.as_ref(), fields.get("memory"));
        }
        (Some(_), _) => {}
    }
    let _ = host.check(&spec);
    for (request, finished) in [("restart", host.restart(&spec)), ("remove", host.remove(&spec))] {
        bounded(&finished);
        assert!(
            finished.result.is_err() || parsed(request).is_some_and(|fields| fields["changed"].is_boolean()),
            "{request}"
        );
    }
    assert_eq!(host.tree(None), before);
}

fn bounded(finished: &Finished) {
    if let Err(error) = &finished.result {
        assert!(!error.is_empty() && error.len() <= ERROR, "{} bytes", error.len());
    }
    if let Some(output) = &finished.output {
        assert!(output.head.len() + output.tail.len() <= OUTPUT_LIMIT, "{output:?}");
    }
    if let Some(memory) = &finished.notes.memory {
        assert!(memory.to_string().len() <= MEMORY);
    }
}
