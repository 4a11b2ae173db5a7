//! Attacks on the embedded broker of `groundplan serve`: from local users without a password, and from a node whose password was stolen.
//!
//! Each test shows that planner and agents go on: a commit that is pushed while the attack lasts is deployed.

use std::{
    io::ErrorKind,
    net::{SocketAddr, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use groundplan_tests::{brokers::Kind, fleet::Fleet};
use rumqttc::mqttbytes::{
    QoS,
    v4::{Connect, ConnectReturnCode, Login, Packet, SubscribeReasonCode},
};

use crate::broker::wire::{Wire, clean, kept};

const FILES: [(&str, &str); 3] = [
    ("site.toml", "name = \"testsite\"\n"),
    (
        "inventory/nodes.toml",
        "[groups.g]\nservices = [\"s\"]\n\n[nodes.n1]\ngroups = [\"g\"]\n\n[nodes.n2]\ngroups = [\"g\"]\n",
    ),
    ("services/s/service.toml", "[[task]]\nid = \"t\"\nfile = { path = \"/f\", content = \"1\" }\n"),
];

/// A site whose planner runs the broker, with that many file descriptors at most; only `n1` has its agent.
fn site(descriptors: usize) -> Fleet {
    let mut fleet = Fleet::new(Kind::Embedded, &FILES);
    fleet.embed_broker();
    fleet.limit_descriptors(descriptors);
    fleet.start_planner("one");
    fleet.start_agent("n1");
    fleet.converged("one", &fleet.git(&["rev-parse", "HEAD"]));
    fleet
}

/// Commits a new file for both nodes, starts the agent of `n2`, which has never connected, and waits until both have it.
fn deploys(fleet: &mut Fleet) {
    let task = "[[task]]\nid = \"t\"\nfile = { path = \"/f\", content = \"2\" }\n";
    let commit = fleet.commit(&[("services/s/service.toml", task)], "a file");
    fleet.start_agent("n2");
    fleet.converged("one", &commit);
}

fn address(fleet: &Fleet) -> SocketAddr {
    fleet.embedded_address().expect("an embedded broker")
}

/// A CONNECT as this node, with its password: what a thief of the node's files can send.
fn as_node(fleet: &Fleet, node: &str, connect: Connect) -> Connect {
    Connect {
        login: Some(Login::new(node, fleet.password(node))),
        client_id: format!("groundplan/testsite/node/{node}"),
        ..connect
    }
}

/// Every local user can reach a loopback address.
#[tokio::test(flavor = "multi_thread")]
async fn a_user_without_a_password_gets_nothing() {
    let fleet = tokio::task::spawn_blocking(|| site(1024)).await.unwrap();
    for id in ["groundplan/testsite/planner/x", "groundplan/testsite/node/n1", "groundplan/testsite/observer/x", "x"] {
        for login in [None, Some(Login::new("planner", "")), Some(Login::new("n1", "guess"))] {
            let (mut wire, answer) = Wire::try_connect(address(&fleet), Connect { login, ..clean(id) }).await;
            assert_ne!(answer.code, ConnectReturnCode::Success, "{id}");
            wire.closed().await;
        }
    }
}

/// 100 000 retained topics of one byte kept the planner from reading its retained messages.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_cannot_make_topics() {
    let mut fleet = tokio::task::spawn_blocking(|| site(1024)).await.unwrap();
    for topic in ["state/x", "want/1", "report/x/y", "presence/", "nothing"] {
        let (mut wire, _) = Wire::connect(address(&fleet), as_node(&fleet, "n1", clean(""))).await;
        wire.publish_only(&format!("groundplan/1/testsite/node/n1/{topic}"), "x", true).await;
        assert_eq!(wire.next().await, None, "{topic}");
    }
    tokio::task::spawn_blocking(move || deploys(&mut fleet)).await.unwrap();
}

/// Holds 1000 sockets that send nothing, and opens another whenever the broker closes one, until it is dropped.
struct SilentSockets {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl SilentSockets {
    fn open(address: SocketAddr) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let is_open = |socket: &TcpStream| {
            let mut byte = [0];
            matches!(socket.peek(&mut byte), Err(error) if error.kind() == ErrorKind::WouldBlock)
        };
        let (full, wait) = mpsc::channel();
        let thread = thread::spawn(move || {
            let mut sockets: Vec<TcpStream> = Vec::new();
            while !stopped.load(Ordering::Relaxed) {
                sockets.retain(is_open);
                while sockets.len() < 1000
                    && let Ok(socket) = TcpStream::connect(address)
                {
                    socket.set_nonblocking(true).expect("an option of sockets");
                    sockets.push(socket);
                }
                let _ = full.send(());
                thread::sleep(Duration::from_millis(10));
            }
        });
        wait.recv().expect("the first thousand");
        Self { stop, thread: Some(thread) }
    }
}

impl Drop for SilentSockets {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().map(JoinHandle::join);
    }
}

/// 3000 sockets that send nothing kept the agents out, and git from being started.
#[test]
fn silent_sockets_keep_no_one_out() {
    let mut fleet = site(400);
    let _silent = SilentSockets::open(address(&fleet));
    deploys(&mut fleet);
}

/// 1005 sessions of one node, none of which sends anything, did the same.
#[tokio::test(flavor = "multi_thread")]
async fn idle_sessions_keep_no_one_out() {
    let mut fleet = tokio::task::spawn_blocking(|| site(400)).await.unwrap();
    let mut idle = Vec::new();
    for n in 0..1000 {
        let connect = as_node(&fleet, "n1", kept(""));
        let connect = Connect { client_id: format!("{}/{n}", connect.client_id), ..connect };
        let mut wire = Wire::open(address(&fleet)).await;
        wire.send(Packet::Connect(connect)).await;
        idle.push(wire);
    }
    tokio::task::spawn_blocking(move || deploys(&mut fleet)).await.unwrap();
    drop(idle);
}

/// 150 s of junk wrote 57 MB of log.
#[tokio::test(flavor = "multi_thread")]
async fn junk_does_not_fill_the_log() {
    let fleet = tokio::task::spawn_blocking(|| site(1024)).await.unwrap();
    let before = fleet.logged("planner-one").len();
    for n in 0..3000 {
        let mut wire = Wire::open(address(&fleet)).await;
        match n % 3 {
            0 => wire.send_raw(b"GET / HTTP/1.1\r\n\r\n").await,
            1 => wire.send(Packet::Connect(clean("groundplan/other/node/x"))).await,
            _ => {
                wire.send(Packet::Connect(Connect {
                    login: Some(Login::new("n1", "guess")),
                    ..clean("groundplan/testsite/node/n1")
                }))
                .await
            }
        }
        wire.closed().await;
    }
    let written = fleet.logged("planner-one").len() - before;
    assert!(written < 64 * 1024, "{written} bytes of log");
}

/// With certificates the broker may be reached from elsewhere; who has none of the authority gets nothing.
#[test]
fn serve_with_mutual_tls() {
    let mut fleet = Fleet::new(Kind::Embedded, &FILES);
    fleet.embed_broker_with_certificates();
    fleet.start_planner("one");
    fleet.start_agent("n1");
    deploys(&mut fleet);
}

/// Without certificates it listens on loopback addresses only.
#[test]
fn serve_refuses_to_be_reached_without_tls() {
    let state = tempfile::tempdir().unwrap();
    let output = std::process::Command::new(groundplan_tests::binaries::groundplan())
        .args(["serve", "--repo", "/nowhere", "--embedded-broker", "0.0.0.0:1883", "--state"])
        .arg(state.path())
        .output()
        .unwrap();
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success());
    for part in ["can be reached from other machines", "--embedded-broker-cert", "127.0.0.1"] {
        assert!(error.contains(part), "{error}");
    }
}

/// What a node may read is its own.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_reads_only_its_own_topics() {
    let fleet = tokio::task::spawn_blocking(|| site(1024)).await.unwrap();
    let (mut wire, _) = Wire::connect(address(&fleet), as_node(&fleet, "n2", clean(""))).await;
    let filters = [
        "#",
        "groundplan/1/testsite/node/n1/plan",
        "groundplan/1/testsite/node/+/plan",
        "groundplan/1/testsite/blob/+/+",
    ];
    for filter in filters {
        let answers = wire.subscribe(&[(filter, QoS::AtLeastOnce)]).await;
        assert_eq!(answers, [SubscribeReasonCode::Failure], "{filter}");
    }
}
