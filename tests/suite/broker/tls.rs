//! Mutual TLS on the embedded broker: which clients are accepted, and under which name.

use std::{
    net::{IpAddr, Ipv6Addr},
    path::Path,
    process::Stdio,
    sync::Arc,
    time::Duration,
};

use groundplan_broker::{Limits, ServerTls, SitePolicy};
use groundplan_tests::{
    authority::Authority,
    binaries,
    brokers::{Kind, Options, TestBroker},
    fleet::Fleet,
    loopback::Loopback,
};
use rumqttc::{
    TlsConfiguration, Transport,
    mqttbytes::{
        QoS,
        v4::{ConnAck, Connect, ConnectReturnCode},
    },
};
use tempfile::TempDir;
use tokio::{net::TcpStream, process::Command};
use tokio_rustls::{
    TlsConnector,
    rustls::{ClientConfig, pki_types::ServerName},
};

use super::wire::{self, Wire, clean, kept, publish_all, receive, until, within};

/// A broker, and what it has for itself: a folder and an address, which is the name in its certificate.
fn start(authority: &Authority, limits: Limits) -> (TestBroker, (TempDir, Loopback)) {
    let net = Loopback::claim();
    let (broker, directory) = start_on(net.address(1).into(), authority, limits);
    (broker, (directory, net))
}

fn start_on(ip: IpAddr, authority: &Authority, limits: Limits) -> (TestBroker, TempDir) {
    let directory = TempDir::new().unwrap();
    let (certificate, key) = authority.issue(&ip.to_string());
    let write = |name: &str, pem: String| {
        let path = directory.path().join(name);
        std::fs::write(&path, pem).unwrap();
        path
    };
    let ca = write("ca.pem", authority.pem());
    let tls = ServerTls::open(&ca, &write("cert.pem", certificate.pem()), &write("key.pem", key.serialize_pem()));
    let policy = Arc::new(SitePolicy::new("s").unwrap());
    let broker = TestBroker::start_with(
        Kind::Embedded,
        Options { limits, policy, tls: Some(tls.unwrap()), ip: Some(ip), ..Options::default() },
    );
    (broker, directory)
}

/// Does the handshake and connects. `None` if the broker ends it before there is an answer.
async fn connect(broker: &TestBroker, config: Arc<ClientConfig>, connect: Connect) -> Option<(Wire, ConnAck)> {
    let tcp = TcpStream::connect(broker.tls_address()).await.unwrap();
    let name = ServerName::from(broker.tls_address().ip());
    let stream = within("a handshake", TlsConnector::from(config).connect(name, tcp)).await.ok()?;
    let mut wire = Wire::over(stream);
    wire.send(rumqttc::mqttbytes::v4::Packet::Connect(connect)).await;
    match wire.next().await? {
        rumqttc::mqttbytes::v4::Packet::ConnAck(answer) => Some((wire, answer)),
        other => panic!("CONNECT was answered with {other:?}"),
    }
}

#[tokio::test]
async fn the_name_of_the_certificate_is_the_client() {
    let authority = Authority::new();
    let (broker, _own) = start(&authority, Limits::default());
    for (name, id, allowed) in [
        ("web", "groundplan/s/node/web", true),
        ("web", "groundplan/s/node/db", false),
        ("web", "groundplan/s/planner/1", false),
        ("web", "groundplan/s/observer/1", false),
        ("planner", "groundplan/s/planner/1", true),
        ("planner", "groundplan/s/node/planner", false),
        ("observer", "groundplan/s/observer/1", true),
    ] {
        let (_wire, answer) = connect(&broker, authority.client(Some((&authority, name))), clean(id)).await.unwrap();
        let expected = if allowed { ConnectReturnCode::Success } else { ConnectReturnCode::NotAuthorized };
        assert_eq!(answer.code, expected, "{name} as {id}");
    }
}

#[tokio::test]
async fn only_certificates_of_the_authority_are_let_in() {
    let (authority, other) = (Authority::new(), Authority::new());
    let (broker, _own) = start(&authority, Limits::default());
    let id = "groundplan/s/node/web";
    assert!(connect(&broker, authority.client(None), clean(id)).await.is_none(), "no certificate");
    assert!(connect(&broker, authority.client(Some((&other, "web"))), clean(id)).await.is_none(), "another authority");
    assert!(connect(&broker, authority.client(Some((&authority, "web"))), clean(id)).await.is_some());
}

#[tokio::test]
async fn silent_peers_disturb_no_other_and_are_dropped() {
    let authority = Authority::new();
    let limits = Limits { connect_timeout: Duration::from_secs(3), ..Limits::default() };
    let (broker, _own) = start(&authority, limits);
    let mut silent = Vec::new();
    for n in 0..40 {
        let mut peer = Wire::open(broker.tls_address()).await;
        if n % 2 == 0 {
            // The beginning of a ClientHello.
            peer.send_raw(b"\x16\x03\x01\x02\x00\x01").await;
        }
        silent.push(peer);
    }
    let options = |name: &str, id: &str| {
        let mut options = wire::options(broker.tls_address(), id);
        let config = authority.client(Some((&authority, name)));
        options.set_transport(Transport::tls_with_config(TlsConfiguration::Rustls(config)));
        options
    };
    let filter = Some("groundplan/1/s/node/+/report");
    let subscriber = receive(options("planner", "groundplan/s/planner/1"), filter, 2000).await;
    let messages = (0..2000).map(|n| ("groundplan/1/s/node/web/report".to_owned(), format!("{n}").into_bytes(), false));
    publish_all(options("web", "groundplan/s/node/web"), 2000, messages).await;
    let messages = within("all messages", subscriber).await.unwrap();
    assert!((0..).zip(&messages).all(|(n, message)| message.payload == n.to_string()));
    for mut peer in silent {
        peer.closed().await;
    }
}

#[tokio::test]
async fn sessions_of_an_identity_are_capped() {
    let authority = Authority::new();
    let (broker, _own) = start(&authority, Limits { max_sessions_per_identity: 2, ..Limits::default() });
    let planner = authority.client(Some((&authority, "planner")));
    let mut kept_open = Vec::new();
    for n in 1..=2 {
        let id = format!("groundplan/s/planner/{n}");
        kept_open.push(connect(&broker, Arc::clone(&planner), kept(&id)).await.unwrap());
    }
    let third = connect(&broker, Arc::clone(&planner), kept("groundplan/s/planner/3")).await.unwrap();
    assert_eq!(third.1.code, ConnectReturnCode::ServiceUnavailable);
    drop(kept_open.pop());
    until("one of them away", || broker.stats().connected == 1).await;
    let third = connect(&broker, planner, kept("groundplan/s/planner/3")).await.unwrap();
    assert_eq!(third.1.code, ConnectReturnCode::Success);
    let web = authority.client(Some((&authority, "web")));
    let web = connect(&broker, web, clean("groundplan/s/node/web")).await.unwrap();
    assert_eq!(web.1.code, ConnectReturnCode::Success, "each identity has its own limit");
    assert_eq!(broker.stats().sessions, 3);
}

/// The agent's program connects with mutual TLS to a broker whose certificate names an IPv6 address.
#[tokio::test]
async fn an_agent_connects_to_an_ipv6_address() {
    let authority = Authority::new();
    let (broker, directory) = start_on(Ipv6Addr::LOCALHOST.into(), &authority, Limits::default());
    let (mut planner, _) = Wire::connect(broker.address(), clean("groundplan/s/planner/1")).await;
    planner.subscribe(&[("groundplan/1/s/node/web/presence", QoS::AtLeastOnce)]).await;

    let (certificate, key) = authority.issue("web");
    let path = |name: &str| directory.path().join(name);
    std::fs::write(path("web.pem"), certificate.pem()).unwrap();
    std::fs::write(path("web-key.pem"), key.serialize_pem()).unwrap();
    let config = format!(
        "site = 's'\nnode = 'web'\nbroker = 'mqtts://{}'\nplanner_keys = ['{}']\nstate_dir = {:?}\nroot = {:?}\n\
         facts_dir = {:?}\n[tls]\nca = {:?}\ncert = {:?}\nkey = {:?}\n",
        broker.tls_address(),
        Fleet::planner_key().public(),
        path("state"),
        path("root"),
        path("facts"),
        path("ca.pem"),
        path("web.pem"),
        path("web-key.pem"),
    );
    std::fs::create_dir(path("root")).unwrap();
    std::fs::write(path("agent.toml"), config).unwrap();
    let program = tokio::task::spawn_blocking(binaries::agent).await.unwrap();
    let mut agent = Command::new(program);
    agent.arg("--config").arg(path("agent.toml")).stdin(Stdio::null()).kill_on_drop(true);
    let mut agent = agent.spawn().unwrap();
    let presence = tokio::select! {
        presence = planner.message() => presence,
        status = agent.wait() => panic!("the agent ended: {status:?}"),
    };
    assert!(!presence.payload.is_empty());
    assert_eq!(broker.stats().connected, 2, "the planner and the agent");
}

#[tokio::test]
async fn replaced_files_count_from_the_next_connection() {
    let (authority, other) = (Authority::new(), Authority::new());
    let (broker, own) = start(&authority, Limits::default());
    let id = "groundplan/s/node/web";
    let (mut wire, _) = connect(&broker, authority.client(Some((&authority, "web"))), clean(id)).await.unwrap();
    // Files that cannot be used change nothing.
    let directory = own.0.path();
    std::fs::write(directory.join("cert.pem"), "").unwrap();
    assert!(
        connect(&broker, authority.client(Some((&authority, "db"))), clean("groundplan/s/node/db")).await.is_some()
    );
    other.write_as(directory, "new", &broker.tls_address().ip().to_string());
    std::fs::write(directory.join("ca.pem"), other.pem()).unwrap();
    std::fs::rename(directory.join("new.pem"), directory.join("cert.pem")).unwrap();
    std::fs::rename(directory.join("new-key.pem"), directory.join("key.pem")).unwrap();
    within("the new certificates", async {
        while connect(&broker, other.client(Some((&other, "db"))), clean("groundplan/s/node/db")).await.is_none() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    assert!(connect(&broker, other.client(Some((&authority, "db"))), clean(id)).await.is_none(), "the old authority");
    wire.ping().await;
}

#[test]
fn unusable_files_are_named() {
    let directory = TempDir::new().unwrap();
    let (empty, missing) = (directory.path().join("empty.pem"), Path::new("/nowhere/ca.pem"));
    std::fs::write(&empty, "").unwrap();
    for (authority, path) in [(empty.as_path(), empty.as_path()), (missing, missing)] {
        let error = ServerTls::open(authority, &empty, &empty).unwrap_err().to_string();
        assert!(error.contains(path.to_str().unwrap()), "{error}");
    }
}
