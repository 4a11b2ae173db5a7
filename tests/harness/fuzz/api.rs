//! Fed: a request to the API of a planner that runs in this process: a line with method and path, and the body after it.
//!
//! Checked: it is answered in time, with JSON and one of the API's status codes, none of which says that the planner has a fault; what is
//! refused has a message.

use std::{
    cell::OnceCell,
    io::{ErrorKind, Read as _, Write as _},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    sync::Arc,
    thread::{self, JoinHandle},
    time::Duration,
};

use groundplan::{
    config::{EmbeddedBroker, ServeConfig},
    serve,
};
use groundplan_broker::{Broker, Config, Limits, LocalSocket, SitePolicy};
use serde_json::Value;
use tempfile::TempDir;
use tokio::sync::oneshot;

use super::git;

/// How long an answer may take.
const LONGEST: Duration = Duration::from_secs(20);

/// The site of the planner.
const SITE: &str = "author a <a@b> 0 +0000\ncommitter a <a@b> 0 +0000\n\nfirst\n--- 40000 inventory /\n--- 100644 nodes.toml\n[groups.g]\nservices = [\"s\"]\n[nodes.n0]\ngroups = [\"g\"]\nlabels = { rack = \"a\" }\n[nodes.n1]\ngroups = [\"g\"]\n--- .\n--- 40000 services /\n--- 40000 s /\n--- 100644 service.toml\n[[task]]\nid = \"t\"\nfile = { path = \"/t\", content = \"t\" }\n[[task]]\nid = \"u\"\ncommand = { run = \"true\" }\nrestart_on = []\n--- .\n--- .\n--- 100644 site.toml\nname = \"lab\"\n";

thread_local! {
    static PLANNER: OnceCell<Planner> = const { OnceCell::new() };
}

/// See the module.
pub fn check(input: &[u8]) {
    let (head, body) = match input.iter().position(|byte| *byte == b'\n') {
        Some(at) => (&input[..at], &input[at + 1..]),
        None => (input, &[][..]),
    };
    // What is no request line, and no URI (RFC 3986), is refused by hyper, before anything of ours.
    let Some((method, path)) = std::str::from_utf8(head).ok().and_then(|head| head.split_once(' ')) else { return };
    let is_plain = path.starts_with('/')
        && path.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._~/?%&=+,:@!$'()*;".contains(&byte));
    if !is_plain || !matches!(method, "GET" | "POST" | "PUT" | "DELETE" | "PATCH" | "OPTIONS") {
        return;
    }
    PLANNER.with(|planner| {
        let socket = &planner.get_or_init(Planner::start).socket;
        let (status, json) = ask(socket, method, path, body).expect("an answer");
        let known = [200, 400, 404, 405, 409, 413, 429, 503];
        assert!(known.contains(&status), "{status}: {json:?}");
        if status != 200 {
            let json = json.expect("a problem");
            let message = json["error"].as_str().unwrap_or_else(|| panic!("no message: {json}"));
            assert!(!message.is_empty());
        }
    });
}

/// Status and JSON of an answer; no JSON of a stream.
fn ask(socket: &Path, method: &str, path: &str, body: &[u8]) -> Option<(u16, Option<Value>)> {
    let mut stream = UnixStream::connect(socket).expect("the planner listens");
    stream.set_read_timeout(Some(LONGEST)).expect("a time limit");
    let head =
        format!("{method} {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {}\r\n\r\n", body.len());
    // It may answer, and close, before it has read all of a body.
    let _ = stream.write_all(&[head.as_bytes(), body].concat());
    let (mut answer, mut buffer) = (Vec::new(), vec![0; 1 << 16]);
    loop {
        let end = answer.windows(4).position(|part| part == b"\r\n\r\n");
        if let Some(end) = end {
            let head = String::from_utf8_lossy(&answer[..end]).to_ascii_lowercase();
            if head.contains("transfer-encoding: chunked") {
                return Some((status(&head)?, None));
            }
        }
        let read = match stream.read(&mut buffer) {
            // By libFuzzer's timer.
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            read => read.expect("an answer in time"),
        };
        if read == 0 {
            let end = end?;
            let head = String::from_utf8_lossy(&answer[..end]).into_owned();
            let json = serde_json::from_slice(&answer[end + 4..]);
            return Some((status(&head)?, Some(json.expect("JSON"))));
        }
        answer.extend_from_slice(&buffer[..read]);
    }
}

fn status(head: &str) -> Option<u16> {
    head.split(' ').nth(1)?.parse().ok()
}

/// A planner with its broker, on a thread of its own; it ends with this.
struct Planner {
    socket: PathBuf,
    stop: Option<oneshot::Sender<()>>,
    running: Option<JoinHandle<()>>,
    _dir: TempDir,
}

impl Planner {
    fn start() -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let repository = dir.path().join("site.git");
        let written = git2::Repository::init_bare(&repository).expect("a repository");
        let commit = git::written_commit(&written.odb().expect("its objects"), SITE.as_bytes()).expect("a commit");
        let oid = git2::Oid::from_str(commit.as_str()).expect("an id");
        written.reference("refs/heads/main", oid, true, "").expect("a branch");
        written.set_head("refs/heads/main").expect("a head");

        let policy = Arc::new(SitePolicy::unnamed());
        let local = dir.path().join("broker.sock");
        let address = "mqtt://127.0.0.1:1".parse().expect("an address");
        let mut config = ServeConfig::new(repository.to_string_lossy(), address, dir.path().join("state"));
        config.embedded = Some(EmbeddedBroker { socket: local.clone(), policy: policy.clone() });
        let socket = config.socket();
        let (stop, stopped) = oneshot::channel::<()>();
        let running = thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
            runtime.expect("a runtime").block_on(async {
                let socket = Some(LocalSocket { path: local, name: "planner".to_owned() });
                let config_of_broker = Config { listeners: Vec::new(), socket, limits: Limits::default() };
                let broker = Broker::start(config_of_broker, policy).await.expect("a broker");
                let stop = async {
                    let _ = stopped.await;
                };
                serve::run(config, stop).await.expect("a planner");
                broker.stop().await;
            });
        });
        let planner = Self { socket, stop: Some(stop), running: Some(running), _dir: dir };
        planner.wait();
        planner
    }

    /// Until its first commit is active.
    fn wait(&self) {
        for _ in 0..6000 {
            if self.socket.exists()
                && UnixStream::connect(&self.socket).is_ok()
                && let Some((200, Some(status))) = ask(&self.socket, "GET", "/v1/status", b"")
                && !status["commit"].is_null()
            {
                return;
            }
            thread::sleep(Duration::from_millis(10));
        }
        panic!("no active commit after a minute");
    }
}

impl Drop for Planner {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(running) = self.running.take() {
            let _ = running.join();
        }
    }
}
