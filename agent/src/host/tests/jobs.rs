//! The steps of a job: external capabilities, the work, readiness.

use std::{
    io::{Read, Write},
    net::TcpListener,
    sync::Arc,
};

use serde_json::json;

use super::*;

#[tokio::test]
async fn jobs_run_in_parallel() {
    let site = Arc::new(Site::new());
    let jobs: Vec<_> = (0..8)
        .map(|i| {
            let site = Arc::clone(&site);
            tokio::spawn(async move {
                site.job(&format!("svc.t{i}"), apply(&file(&format!("/a/b/{i}"), "x"), None), None).await.result
            })
        })
        .collect();
    for job in jobs {
        assert_eq!(job.await.unwrap(), CHANGED);
    }
}

/// Answers each connection with `answer`.
fn serve(answer: &'static str) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let _ = stream.read(&mut [0; 1024]);
            let _ = stream.write_all(answer.as_bytes());
        }
    });
    port
}

#[tokio::test]
async fn probes_report_their_last_failure() {
    let site = Site::new();
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let good = serve("HTTP/1.1 204 No Content\r\n\r\n");
    let bad = serve("HTTP/1.1 503 Busy\r\n\r\n");
    let odd = serve("SSH-2.0\r\n");
    let refused = "Connection refused (os error 111)";
    for (mut ready, error) in [
        (json!({ "tcp": good, "http": format!("http://127.0.0.1:{good}/a?b") }), None),
        (json!({ "tcp": format!("localhost:{good}") }), None),
        (json!({ "http": format!("http://localhost:{good}") }), None),
        (json!({ "command": "true" }), None),
        (json!({ "tcp": closed }), Some(format!("not ready after 150ms: tcp 127.0.0.1:{closed}: {refused}"))),
        (
            json!({ "http": format!("http://127.0.0.1:{bad}/") }),
            Some(format!("not ready after 150ms: http://127.0.0.1:{bad}/: the status is 503")),
        ),
        (
            json!({ "http": format!("http://127.0.0.1:{odd}/") }),
            Some(format!("not ready after 150ms: http://127.0.0.1:{odd}/: the answer is not HTTP")),
        ),
        (json!({ "command": "echo why; exit 4" }), Some("not ready after 150ms: the command exited with 4: why".into())),
        (
            json!({ "http": "https://example.org/" }),
            Some("cannot probe `https://example.org/`: this agent supports only http://; use `command` instead, with curl, for example".into()),
        ),
        (json!({ "tcp": "host:port" }), Some("`host:port` is not `host:port`".into())),
    ] {
        ready["timeout"] = json!("150ms");
        ready["interval"] = json!("50ms");
        let spec = with_ready(command("true"), ready);
        assert_eq!(site.create(&spec).await.err(), error);
    }
}

#[tokio::test]
async fn readiness_is_awaited() {
    let site = Site::new();
    let ready = json!({ "command": "test -e up", "interval": "20ms" });
    let spec = with_ready(command("(sleep 0.3; touch up) >/dev/null 2>&1 &"), ready.clone());
    assert_eq!(site.create(&spec).await, CHANGED);
    assert!(site.at("up").exists());
    // Also if the task was in sync; but not for a trigger without an effect, nor for a removal.
    fs::remove_file(site.at("up")).unwrap();
    let idle = with_ready(
        self::spec(json!({ "command": { "run": "true", "only_if": "false" } })),
        json!({ "command": "test -e up", "timeout": "50ms" }),
    );
    assert!(site.create(&idle).await.unwrap_err().starts_with("not ready after 50ms"));
    assert_eq!(site.trigger(&idle, Effect::Run).await, UNCHANGED);
    assert_eq!(site.remove(&idle).await, UNCHANGED);
}

#[tokio::test]
async fn external_capabilities_come_first() {
    let site = Site::new();
    let external = serde_json::from_value(json!({ "tcp": 1, "timeout": "50ms" })).unwrap();
    let spec = TaskSpec { external: vec![external], ..file("/x", "") };
    let error = site.create(&spec).await.unwrap_err();
    assert!(error.starts_with("an external capability: not ready after 50ms: tcp 127.0.0.1:1: "), "{error}");
    assert!(!site.at("x").exists());
}
