//! What status must not hide: processes that die, nodes of which nothing is known, a broker that is away or refuses; and a hostile commit, a
//! silent repository and a full disk at once.

use std::{
    fs,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{TcpListener, TcpStream},
    os::{fd::OwnedFd, unix::net::UnixStream},
    path::PathBuf,
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use groundplan_broker::{Client, Filter, Peer, Policy, Publication, Refusal};
use groundplan_protocol::{
    VERSION,
    envelope::seal,
    ids::{LedgerId, NodeId, SessionId, SiteName},
    presence::Presence,
};
use groundplan_tests::{
    brokers::{Kind, Options, TestBroker},
    fleet::{Fleet, SITE, texts},
    needs_hosts,
    publish::publish,
    small_disk::SmallDisk,
};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

use super::{BOTH, web};

/// A site whose only service is a process, on node `n1`.
fn process(parameters: &str) -> Vec<(&'static str, String)> {
    vec![
        ("site.toml", format!("name = \"{SITE}\"\n")),
        ("inventory/nodes.toml", "[groups.web]\nservices = [\"web\"]\n\n[nodes.n1]\ngroups = [\"web\"]\n".to_owned()),
        ("services/web/service.toml", format!("[[task]]\nid = \"server\"\nprocess = {{ {parameters} }}\n")),
    ]
}

fn started(files: &[(&'static str, String)]) -> Fleet {
    Fleet::started(Kind::Embedded, &texts(files), &["n1"])
}

/// The entry of a node in a status, if it has one yet.
fn entry<'a>(status: &'a Value, name: &str) -> Option<&'a Value> {
    status["nodes"].as_array()?.iter().find(|node| node["node"] == name)
}

/// The entry of a node in a status.
fn node<'a>(status: &'a Value, name: &str) -> &'a Value {
    entry(status, name).unwrap_or_else(|| panic!("no {name} in {status:#}"))
}

/// The status, once a node stands so.
fn stands(fleet: &Fleet, name: &str, condition: &str) -> Value {
    fleet.wait(&format!("{name} to be {condition}"), || {
        let status = fleet.ask("one", &["status"])?;
        (entry(&status, name)?["condition"] == condition).then_some(status)
    })
}

fn exit_code(fleet: &Fleet) -> Option<i32> {
    fleet.output("one", &["status", "--exit-code"]).status.code()
}

/// The planner's events, one JSON object a line.
fn events(fleet: &Fleet) -> BufReader<UnixStream> {
    let mut socket = UnixStream::connect(fleet.planner_state("one").join("planner.sock")).expect("a socket");
    socket.write_all(b"GET /v1/events HTTP/1.1\r\nHost: planner\r\n\r\n").expect("a request");
    socket.set_read_timeout(Some(Duration::from_secs(60))).expect("a socket");
    let mut events = BufReader::new(socket);
    next(&mut events, "hello");
    events
}

/// The next event of that name.
fn next(events: &mut BufReader<UnixStream>, name: &str) -> Value {
    loop {
        let mut line = String::new();
        assert_ne!(events.read_line(&mut line).expect("an event before long"), 0, "the stream has ended");
        let event = serde_json::from_str::<Value>(line.trim()).unwrap_or_default();
        if event["event"] == name {
            return event;
        }
    }
}

#[test]
fn a_process_that_dies_at_its_start_fails_its_task() {
    let fleet = started(&process("run = \"sleep 0.3; exit 1\""));
    let status = fleet.failed("one", &fleet.git(&["rev-parse", "HEAD"]));
    assert_eq!(node(&status, "n1")["condition"], "failed", "{status:#}");
    assert_eq!(exit_code(&fleet), Some(2));
    // The task is named with its error, wherever the node is shown.
    let error = node(&status, "n1")["failed"]["web.server"].as_str().expect("an error").to_owned();
    let first = error.lines().next().expect("a line");
    for command in [&["status"][..], &["show", "n1"]] {
        let text = fleet.text("one", command);
        assert!(text.contains(&format!("web.server failed: {first}")), "{command:?}: {text}");
    }
}

#[test]
fn a_process_that_dies_is_reported_at_once_until_it_runs_on() {
    let run = "while [ ! -e stop ]; do sleep 0.1; done; echo gone; exit 7";
    let fleet = started(&process(&format!("run = \"{run}\", settle = \"300ms\"")));
    let status = fleet.converged("one", &fleet.git(&["rev-parse", "HEAD"]));
    assert_eq!(node(&status, "n1")["condition"], "converged", "{status:#}");
    assert_eq!(exit_code(&fleet), Some(0));
    let mut events = events(&fleet);

    fs::write(fleet.root("n1").join("stop"), "").expect("a file");
    let event = next(&mut events, "degraded");
    assert_eq!(event["instance"], "web.server@n1");
    assert!(event["why"].as_str().is_some_and(|why| why.contains("gone")), "{event}");
    let status = stands(&fleet, "n1", "degraded");
    assert_eq!(status["troubles"], json!([{ "is": "degraded", "node": "n1", "tasks": ["web.server"] }]));
    assert_eq!(status["rollout"]["degraded"], 1, "{status:#}");
    assert!(node(&status, "n1")["degraded"]["web.server"].to_string().contains("gone"), "{status:#}");
    assert_eq!(exit_code(&fleet), Some(2));
    let text = fleet.text("one", &["status"]);
    assert!(text.contains("1 task degraded") && text.contains("n1: web.server is degraded: the process"), "{text}");
    assert!(text.contains("1 degraded since"), "{text}");
    let reason = node(&status, "n1")["degraded"]["web.server"].as_str().expect("a reason");
    for command in [&["show", "n1"][..], &["why", "n1", "web.server"], &["show", "n1", "--format", "json"]] {
        let text = fleet.text("one", command);
        assert!(text.contains("degraded") && text.contains("gone"), "{command:?}: {text}");
    }
    assert_eq!(fleet.ask("one", &["why", "n1", "web.server"]).expect("an answer")["degraded"], reason);

    fs::remove_file(fleet.root("n1").join("stop")).expect("a file");
    assert_eq!(next(&mut events, "degraded"), json!({ "event": "degraded", "instance": "web.server@n1" }));
    stands(&fleet, "n1", "converged");
    assert_eq!(exit_code(&fleet), Some(0));
}

#[test]
fn a_node_of_which_nothing_is_known_is_unknown() {
    let fleet = Fleet::started(Kind::Embedded, &web(), &["n1"]);
    let status = fleet.converged("one", &fleet.git(&["rev-parse", "HEAD"]));
    assert_eq!(node(&status, "n1")["condition"], "converged", "{status:#}");
    assert_eq!(node(&status, "n2")["condition"], "unknown", "{status:#}");
    let text = fleet.text("one", &["status"]);
    assert!(text.contains("2: 1 unknown, 1 converged") && text.contains("unknown: never reported"), "{text}");
}

#[test]
fn a_rollout_is_not_done_while_a_connected_node_was_not_planned_for() {
    let mut fleet = Fleet::new(Kind::Embedded, &web());
    // The agent of n2 is there, and its state was lost on the way.
    let presence = Presence {
        version: VERSION,
        site: SiteName::new(SITE).unwrap(),
        node: NodeId::new("n2").unwrap(),
        online: true,
        agent: "0".to_owned(),
        ledger: LedgerId::new("0123456789abcdef0123456789abcdef").unwrap(),
        session: SessionId::new("0123456789abcdef").ok(),
        trouble: None,
    };
    let topic = format!("groundplan/1/{SITE}/node/n2/presence");
    publish(fleet.broker.address(), &topic, seal(&Fleet::node_key("n2"), &presence), true);
    fleet.start_agent("n1");
    fleet.start_planner("one");
    let status = fleet.wait("all but n2", || {
        let status = fleet.ask("one", &["status"])?;
        let done = entry(&status, "n1")?["condition"] == "converged" && status["rollout"]["unplanned"] == 1;
        done.then_some(status)
    });
    assert_eq!(status["rollout"]["result"], "running", "{status:#}");
    assert_eq!(node(&status, "n2")["condition"], "unknown", "{status:#}");
    let text = fleet.text("one", &["status"]);
    assert!(text.contains("1 node not planned for yet") && text.contains("no state received"), "{text}");

    fleet.start_agent("n2");
    let status = fleet.converged("one", &fleet.git(&["rev-parse", "HEAD"]));
    for name in BOTH {
        assert_eq!(node(&status, name)["condition"], "converged", "{status:#}");
    }
}

#[test]
fn a_broker_that_is_away_is_a_trouble() {
    let mut fleet = Fleet::started(Kind::Mosquitto, &web(), &BOTH);
    fleet.converged("one", &fleet.git(&["rev-parse", "HEAD"]));
    fleet.broker.stop();
    fleet.wait("the loss to be noticed", || {
        (fleet.ask("one", &["status"])?["troubles"][0]["is"] == "broker").then_some(())
    });
    assert_eq!(exit_code(&fleet), Some(2));
    fleet.broker.restart();
    fleet.wait("the connection", || (exit_code(&fleet) == Some(0)).then_some(()));
}

/// Refuses the subscriptions of clients with these words in their ids, while it does.
struct Refusing(&'static str, AtomicBool);

impl Policy for Refusing {
    fn connect(&self, _: &Peer, _: &str) -> Result<(), Refusal> {
        Ok(())
    }

    fn publish(&self, _: &Client, _: Publication<'_>) -> Result<(), Refusal> {
        Ok(())
    }

    fn subscribe(&self, client: &Client, _: &Filter) -> Result<(), Refusal> {
        let refuses = self.1.load(Ordering::SeqCst) && client.id.contains(self.0);
        if refuses { Err(Refusal::OutOfReach) } else { Ok(()) }
    }
}

#[test]
fn a_broker_that_refuses_subscriptions_is_a_trouble() {
    for (client, trouble) in [("/planner/", "broker"), ("/node/n1", "agent")] {
        let policy = Arc::new(Refusing(client, AtomicBool::new(true)));
        let options = Options { policy: policy.clone(), ..Options::default() };
        let mut fleet = Fleet::around(TestBroker::start_with(Kind::Embedded, options), &web());
        BOTH.iter().for_each(|node| fleet.start_agent(node));
        fleet.start_planner("one");
        // Until it is noticed the connection may fail for another reason, as that it takes too long.
        fleet.wait("the refusal to be noticed", || {
            let status = fleet.ask("one", &["status"])?;
            let mut troubles = status["troubles"].as_array()?.iter().filter(|found| found["is"] == trouble);
            troubles.any(|found| found["error"].as_str().is_some_and(|error| error.contains("refuses"))).then_some(())
        });
        fleet.wait("the exit code", || (exit_code(&fleet) == Some(2)).then_some(()));
        // With the next connection, it is granted.
        policy.1.store(false, Ordering::SeqCst);
        fleet.broker.restart();
        fleet.converged("one", &fleet.git(&["rev-parse", "HEAD"]));
        fleet.wait("the trouble to be over", || (exit_code(&fleet) == Some(0)).then_some(()));
    }
}

/// A server of a repository by git's own protocol (git-daemon(1)) on an address of this machine: `git upload-pack` for each connection; one
/// that accepts and never answers from when it is to be silent.
struct GitServer {
    url: String,
    silent: Arc<AtomicBool>,
}

impl GitServer {
    fn start(repository: PathBuf) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let url = format!("git://{}/site.git", listener.local_addr().expect("an address"));
        let silent = Arc::new(AtomicBool::new(false));
        let is_silent = silent.clone();
        std::thread::spawn(move || {
            let mut held = Vec::new();
            for connection in listener.incoming().flatten() {
                if is_silent.load(Ordering::SeqCst) {
                    held.push(connection);
                } else {
                    serve(connection, &repository);
                }
            }
        });
        Self { url, silent }
    }
}

/// Answers one request.
fn serve(mut connection: TcpStream, repository: &PathBuf) {
    // What is asked for, behind its length in hexadecimal digits: there is nothing else.
    let mut length = [0; 4];
    connection.read_exact(&mut length).expect("a length");
    let length = usize::from_str_radix(std::str::from_utf8(&length).expect("digits"), 16).expect("a length");
    connection.read_exact(&mut vec![0; length - 4]).expect("a request");
    let (input, output) = (OwnedFd::from(connection.try_clone().expect("a socket")), OwnedFd::from(connection));
    let mut git = Command::new("git");
    git.args(["-c", "safe.directory=*", "upload-pack"]).arg(repository).stdin(input).stdout(output);
    let _ = git.status().expect("git is installed");
}

/// The kinds of all troubles.
fn kinds(status: &Value) -> Vec<&str> {
    status["troubles"].as_array().into_iter().flatten().filter_map(|trouble| trouble["is"].as_str()).collect()
}

#[test]
fn a_hostile_commit_a_silent_repository_and_a_full_disk_at_once() {
    // It needs root, as real hosts do.
    needs_hosts!();
    let mut fleet = Fleet::new(Kind::Embedded, &web());
    let server = GitServer::start(fleet.repository());
    fleet.serve_from(&["--repo", &server.url, "--fetch", "3600", "--fetch-timeout", "1"], &[]);
    let disk = SmallDisk::mount(fleet.planner_state("one"), 2);
    BOTH.iter().for_each(|node| fleet.start_agent(node));
    fleet.start_planner("one");
    let good = fleet.git(&["rev-parse", "HEAD"]);
    fleet.converged("one", &good);

    let endless = "{% for a in range(100000) %}{% for b in range(100000) %}{% endfor %}{% endfor %}";
    let hostile = fleet.commit(&[("services/web/web.conf.j2", endless)], "hostile");
    fleet.signal_planner("one", Signal::SIGHUP);
    fleet.wait("the commit to be refused", || {
        (fleet.ask("one", &["status"])?["refused"]["commit"]["id"] == hostile.as_str()).then_some(())
    });
    server.silent.store(true, Ordering::SeqCst);
    fleet.signal_planner("one", Signal::SIGHUP);
    fleet.wait("the fetch to be given up", || {
        fleet.ask("one", &["status"])?["repository"]["fetch"]["error"].is_string().then_some(())
    });
    disk.fill();
    // Records of commands: more than the room that the store has in its own file.
    let has_failed = || Some(kinds(&fleet.ask("one", &["status"])?).contains(&"store"));
    let failed = (0..100).any(|_| {
        let mut command = fleet.run("one", &["exec", "head -c 60000 /dev/urandom | base64", "--on", "n1"]);
        fleet.wait("the command to end, or the store to fail", || {
            let failed = has_failed()?;
            (failed || command.ended().is_some()).then_some(failed)
        })
    });
    assert!(failed, "the disk is full");

    // While a fetch is under way again. The fastest, because a machine that is busy may hold up any of them.
    fleet.signal_planner("one", Signal::SIGHUP);
    let (took, status) = (0..10)
        .map(|_| {
            let asked = Instant::now();
            let status = fleet.ask("one", &["status"]).expect("an answer");
            (asked.elapsed(), status)
        })
        .min_by_key(|(took, _)| *took)
        .expect("answers");
    assert!(took < Duration::from_secs(1), "{took:?}");
    assert_eq!(kinds(&status), ["store", "repository", "refused_commit"], "{status:#}");
    assert_eq!(status["commit"]["id"], good.as_str());
    assert_eq!(exit_code(&fleet), Some(2));
    let text = fleet.text("one", &["status"]);
    for part in ["its store cannot be written", "fetching fails", "is refused: 1 error", "services/web/web.conf.j2:1"] {
        assert!(text.contains(part), "{part}: {text}");
    }
    disk.empty();
    fleet.wait("the store to work", || (!has_failed()?).then_some(()));
    fleet.terminate_planner("one");
}
