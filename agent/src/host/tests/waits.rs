//! `wait` and `export`.

use std::{
    io::{Read, Write},
    net::TcpListener,
    thread,
};

use serde_json::json;

use super::*;
use crate::host::cancel::Canceller;

fn wait(params: Value) -> TaskSpec {
    spec(json!({ "wait": params }))
}

/// A port without a listener.
fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// Answers each request on the port with the next status, and then with the last again.
fn http(statuses: &'static [u16]) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        for (n, stream) in listener.incoming().enumerate() {
            let mut stream = stream.unwrap();
            let _ = stream.read(&mut [0; 1024]);
            let status = statuses[n.min(statuses.len() - 1)];
            let _ = write!(stream, "HTTP/1.1 {status} X\r\nContent-Length: 0\r\n\r\n");
        }
    });
    port
}

async fn again(site: &Site, spec: &TaskSpec, memory: &Option<Value>) -> Finished {
    site.host.run(job("svc.task", apply(spec, Some(spec)), None, memory.clone()), Cancel::never()).await
}

#[tokio::test]
async fn waits_until_the_probes_succeed() {
    let site = Site::new();
    let port = http(&[503, 404, 401]);
    let there = wait(json!({
        "tcp": port, "http": format!("http://127.0.0.1:{port}/"), "status": [200, 401], "interval": "10ms",
        "command": "echo x >> tries; test $(wc -l < tries) -ge 2",
    }));
    let finished = site.job("svc.task", apply(&there, None), Some(Effect::Run)).await;
    assert_eq!(finished.result, CHANGED);
    let output = finished.output.unwrap().head;
    assert!(output.starts_with("succeeded at attempt "), "{output}");
    assert_eq!(fs::read_to_string(site.at("tries")).unwrap(), "x\nx\n");

    // Applied again it probes once more, which is not a change.
    let memory = finished.notes.memory;
    assert_eq!(again(&site, &there, &memory).await.result, UNCHANGED);
    fs::remove_file(site.at("tries")).unwrap();
    assert_eq!(again(&site, &there, &memory).await.result, CHANGED);
    assert_eq!(site.trigger(&there, Effect::Run).await, effected(Effect::Run));
    assert_eq!(site.remove(&there).await, UNCHANGED);
}

#[tokio::test]
async fn waits_until_the_probes_fail() {
    let site = Site::new();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let down = wait(json!({ "tcp": port, "state": "down", "interval": "10ms", "timeout": "300ms" }));
    let error = site.create(&down).await.unwrap_err();
    assert!(error.starts_with("gave up after "), "{error}");
    assert!(error.ends_with(&format!("ms: tcp 127.0.0.1:{port} is still there")), "{error}");
    drop(listener);
    assert_eq!(site.create(&down).await, CHANGED);
    // A missing program is an error: it shows nothing about what it was to probe.
    let none = wait(json!({ "command": ["no-such-program"], "state": "down", "retries": 2, "interval": "1ms" }));
    let error = site.create(&none).await.unwrap_err();
    assert!(error.starts_with("gave up after 3 attempts in "), "{error}");
    assert!(error.contains("there is no program `no-such-program` in PATH"), "{error}");
}

#[tokio::test]
async fn the_error_names_the_last_attempt() {
    let site = Site::new();
    let port = free_port();
    for (params, attempts, last) in [
        (json!({ "tcp": port }), 2, format!("tcp 127.0.0.1:{port}: Connection refused (os error 111)")),
        (json!({ "command": "echo not so >&2; exit 3" }), 2, "exited with 3: not so".to_owned()),
        (
            json!({ "http": format!("http://127.0.0.1:{}/x", http(&[500])), "status": [200] }),
            2,
            "/x: the status is 500".to_owned(),
        ),
    ] {
        let mut params = params;
        params["retries"] = json!(attempts - 1);
        params["interval"] = json!("1ms");
        let error = site.create(&wait(params)).await.unwrap_err();
        assert!(error.starts_with(&format!("gave up after {attempts} attempts in ")), "{error}");
        assert!(error.ends_with(&last), "{error}");
    }
}

#[tokio::test]
async fn seconds_pass_once_and_end_with_the_agent() {
    let site = Site::new();
    let seconds = wait(json!({ "seconds": 1 }));
    let finished = site.job("svc.task", apply(&seconds, None), None).await;
    assert_eq!(finished.result, CHANGED);
    assert!(finished.duration >= Duration::from_secs(1));
    let finished = again(&site, &seconds, &finished.notes.memory).await;
    assert_eq!(finished.result, UNCHANGED);
    assert!(finished.duration < Duration::from_millis(500));

    for params in [json!({ "seconds": 1000 }), json!({ "tcp": free_port(), "timeout": "1000s" })] {
        let canceller = Canceller::new();
        let job = job("svc.task", apply(&wait(params), None), None, None);
        let (finished, ()) = tokio::join!(site.host.run(job, canceller.listen()), async {
            tokio::time::sleep(Duration::from_millis(50)).await;
            canceller.cancel();
        });
        let error = "readiness is not waited for, because the agent is stopping or the job was cancelled";
        assert_eq!(finished.result, Err(error.to_owned()));
    }
}

fn export(params: Value) -> TaskSpec {
    spec(json!({ "export": params }))
}

#[tokio::test]
async fn publishes_a_value_and_counts_only_a_new_one_as_a_change() {
    let site = Site::new();
    fs::write(site.at("value"), " one\n").unwrap();
    std::os::unix::fs::symlink("value", site.at("link")).unwrap();
    for params in [
        json!({ "value": "one" }),
        json!({ "command": "echo noise >&2; cat value" }),
        json!({ "command": ["cat", "value"], "user": if is_root() { json!("root") } else { json!(null) } }),
        json!({ "path": "/value" }),
        json!({ "path": "/link" }),
    ] {
        let spec = export(params.clone());
        // Each time as a new task, without memory.
        let finished = site.host.run(job("svc.task", apply(&spec, None), None, None), Cancel::never()).await;
        assert_eq!(finished.result, CHANGED, "{params}");
        assert_eq!(finished.notes.export.as_deref(), Some("one"), "{params}");
        let finished = again(&site, &spec, &finished.notes.memory).await;
        assert_eq!(finished.result, UNCHANGED, "{params}");
    }
    // What is no single line, or does not match, fails the task.
    for (params, fault) in [
        (
            json!({ "path": "/value", "trim": false }),
            "/value gives a value that has several lines; `lines = true` allows that",
        ),
        (
            json!({ "command": "cat value", "pattern": "[0-9]+" }),
            "the command gives a value that does not match `[0-9]+`",
        ),
    ] {
        let finished = site.job("svc.task", apply(&export(params), None), None).await;
        assert_eq!(finished.result.unwrap_err(), fault);
        assert_eq!(finished.notes.export, None);
    }
    let spec = export(json!({ "path": "/value", "trim": false, "lines": true }));
    let finished = site.job("svc.task", apply(&spec, None), None).await;
    assert_eq!(finished.notes.export.as_deref(), Some(" one\n"));

    let memory = finished.notes.memory;
    let run = |memory: Option<Value>| {
        let work = Work::Trigger { spec: spec.clone() };
        site.host.run(job("svc.task", work, Some(Effect::Run), memory), Cancel::never())
    };
    assert_eq!(run(memory.clone()).await.result, UNCHANGED);
    fs::write(site.at("value"), "two").unwrap();
    let finished = run(memory).await;
    assert_eq!(finished.result, effected(Effect::Run));
    assert_eq!(finished.notes.export.as_deref(), Some("two"));
    assert_eq!(site.remove(&spec).await, CHANGED);
}

#[tokio::test]
async fn the_error_says_why_there_is_no_value() {
    let site = Site::new();
    fs::write(site.at("bytes"), b"\xff\xfe").unwrap();
    fs::write(site.at("large"), "x".repeat(16_385)).unwrap();
    fs::create_dir(site.at("dir")).unwrap();
    for (params, error) in [
        (json!({ "path": "/none" }), "/none: there is no such file"),
        (
            json!({ "path": "/bytes" }),
            "/bytes gives bytes that are not UTF-8; encode them, with base64(1), for example",
        ),
        (json!({ "path": "/large" }), "/large gives more than 16 KiB; publish only the part that others need"),
        (
            json!({ "path": "/dir" }),
            "/dir: cannot read it, because it is not a regular file: Invalid argument (os error 22)",
        ),
        (json!({ "command": "echo lost >&2; exit 7" }), "the command exited with 7: lost"),
        (json!({ "command": "sleep 60", "timeout": "50ms" }), "the command took longer than 50ms, and was ended"),
        (
            json!({ "command": "head -c 200000000 /dev/zero" }),
            "the command gives more than 16 KiB; publish only the part that others need",
        ),
    ] {
        let finished = site.job("svc.task", apply(&export(params), None), None).await;
        assert_eq!(finished.result, Err(error.to_owned()));
        assert_eq!(finished.notes.export, None);
    }
    // A process that the command leaves running does not delay the task.
    let daemon = export(json!({ "command": "sleep 3 & echo up" }));
    let finished = site.job("svc.task", apply(&daemon, None), None).await;
    assert_eq!(finished.notes.export.as_deref(), Some("up"));
    assert!(finished.duration < Duration::from_secs(2));
}
