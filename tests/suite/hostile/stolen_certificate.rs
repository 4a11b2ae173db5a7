//! Brokers with the configuration that `groundplan broker config` writes: planner and agents work with it, and whoever has a node's
//! certificate gains nothing of other nodes.

use std::{path::Path, sync::Arc};

use groundplan_protocol::{
    ids::{NodeId, SiteName},
    topic::agent_client,
};
use groundplan_tests::{
    brokers::Kind,
    fleet::{Fleet, SITE},
    secured::{Secured, SecuredBroker},
};
use rumqttc::mqttbytes::{
    QoS,
    v4::{
        ConnAck, Connect, ConnectReturnCode, Packet, Publish, SubAck, Subscribe, SubscribeFilter, SubscribeReasonCode,
    },
};
use tokio::net::TcpStream;
use tokio_rustls::{
    TlsConnector,
    rustls::{ClientConfig, pki_types::ServerName},
};

use crate::broker::wire::{Wire, clean, within};

const FILES: [(&str, &str); 3] = [
    ("site.toml", "name = \"testsite\"\n"),
    (
        "inventory/nodes.toml",
        "[groups.g]\nservices = [\"s\"]\n\n[nodes.n1]\ngroups = [\"g\"]\n\n[nodes.n2]\ngroups = [\"g\"]\n",
    ),
    ("services/s/service.toml", "[[task]]\nid = \"t\"\nfile = { path = \"/f\", content = \"1\" }\n"),
];

/// A file of 100 kB travels in chunks.
fn large(fleet: &Fleet, message: &str) -> String {
    let content = message.repeat(20_000);
    let task = "[[task]]\nid = \"t\"\nfile = { path = \"/f\", source = \"big\" }\n";
    fleet.commit(&[("services/s/big", &content), ("services/s/service.toml", task)], message)
}

/// Planner and agents do their work: a commit, content in chunks, and an agent that was away.
fn works(kind: Secured) -> Fleet {
    let mut fleet = Fleet::new(Kind::Embedded, &FILES);
    fleet.secure_broker(kind);
    fleet.start_agent("n1");
    fleet.start_agent("n2");
    fleet.start_planner("one");
    fleet.converged("one", &fleet.git(&["rev-parse", "HEAD"]));
    fleet.converged("one", &large(&fleet, "first"));
    fleet.kill_agent("n2");
    let commit = large(&fleet, "other");
    fleet.wait("n1 to have it", || (fleet.file("n1", "f")?.starts_with("other")).then_some(()));
    fleet.start_agent("n2");
    fleet.converged("one", &commit);
    // A planner that lost its disk, and finds the nodes by what the broker has kept or the agents repeat.
    fleet.kill_planner("one");
    fleet.start_planner("two");
    fleet.converged("two", &large(&fleet, "third"));
    fleet
}

/// A connection with the certificate of a name; the answer to CONNECT, if there is one.
async fn connect(broker: &SecuredBroker, config: Arc<ClientConfig>, connect: Connect) -> Option<(Wire, ConnAck)> {
    let tcp = TcpStream::connect(broker.address()).await.expect("the broker accepts");
    let name = ServerName::from(broker.address().ip());
    let stream = within("a handshake", TlsConnector::from(config).connect(name, tcp)).await.ok()?;
    let mut wire = Wire::over(stream);
    wire.send(Packet::Connect(connect)).await;
    match wire.next().await? {
        Packet::ConnAck(answer) => Some((wire, answer)),
        other => panic!("CONNECT was answered with {other:?}"),
    }
}

/// Connects as a thief of the certificate of `n2`.
async fn thief(broker: &SecuredBroker, id: &str) -> Option<Wire> {
    let (wire, answer) = connect(broker, broker.client("n2"), clean(id)).await?;
    (answer.code == ConnectReturnCode::Success).then_some(wire)
}

/// Publishes a message, to be retained if it is forged, with the certificate of `n2`; whether the broker has acknowledged it.
async fn publishes(broker: &SecuredBroker, topic: &str, payload: &str) -> bool {
    let Some(mut wire) = thief(broker, &format!("groundplan/{SITE}/node/n2/thief")).await else { return false };
    let mut publish = Publish::new(topic, QoS::AtLeastOnce, payload);
    (publish.pkid, publish.retain) = (1, payload == "forged");
    wire.send(Packet::Publish(publish)).await;
    matches!(wire.next().await, Some(Packet::PubAck(_)))
}

/// Whether the broker refuses a subscription.
async fn is_refused(wire: &mut Wire, filter: &str) -> bool {
    let mut subscribe = Subscribe::new_many([SubscribeFilter::new(filter.to_owned(), QoS::AtLeastOnce)]);
    subscribe.pkid = 1;
    wire.send(Packet::Subscribe(subscribe)).await;
    match wire.next().await {
        Some(Packet::SubAck(SubAck { return_codes, .. })) => return_codes == [SubscribeReasonCode::Failure],
        None => true,
        other => panic!("{other:?}"),
    }
}

async fn gains_nothing(kind: Secured, fleet: &Fleet) {
    let broker = fleet.secured();
    let topic = |rest: &str| format!("groundplan/1/{SITE}/{rest}");
    let lost = |node: &str| fleet.logged(node).matches("connection").count();
    let before = [lost("n1"), lost("n2")];

    // Reading. Mosquitto 2.0 grants some subscriptions and withholds what they match; so what comes is what counts.
    let mut readers = Vec::new();
    for filter in [
        "#",
        "groundplan/#",
        "$SYS/#",
        "$MQTT/#",
        "$MQTT/sub/#",
        "$MQTT/+/+",
        "$JS/#",
        &topic("#"),
        &topic("node/n1/#"),
        &topic("node/+/plan"),
        &topic("node/n1/plan"),
        &topic("node/n1/state"),
    ] {
        let Some(mut wire) = thief(broker, &format!("thief-{}", readers.len())).await else { continue };
        if !is_refused(&mut wire, filter).await {
            readers.push((filter.to_owned(), wire));
        }
    }
    // An observer receives everything that is published, and what the broker keeps.
    let id = format!("groundplan/{SITE}/observer/x");
    let (mut observer, _) = connect(broker, broker.client("observer"), clean(&id)).await.expect("an observer");
    assert!(!is_refused(&mut observer, &topic("#")).await);
    // Publishing as another node, as the planner, and retained topics that no client reads; at the end one of its own.
    for (rest, payload) in [
        ("node/n1/state", "forged"),
        ("node/n1/presence", "forged"),
        ("node/n1/plan", "forged"),
        ("node/n2/plan", "forged"),
        ("planner", "forged"),
        ("node/n2/state/x", "forged"),
        ("x", "forged"),
        ("node/n2/report", "allowed"),
    ] {
        // More than once: where the certificate decides on the client id, the node's own agent takes the connection back.
        let mut tries = 0;
        while !publishes(broker, &topic(rest), payload).await && (payload == "allowed" || tries < 3) {
            tries += 1;
        }
    }
    loop {
        match observer.next().await.expect("the allowed one at least") {
            Packet::Publish(publish) => {
                assert_ne!(&publish.payload[..], b"forged", "{}", publish.topic);
                observer.acknowledge(&publish).await;
                if &publish.payload[..] == b"allowed" {
                    break;
                }
            }
            other => panic!("{other:?}"),
        }
    }
    // Taking the client ids that can be guessed, and even the one that cannot.
    let (site, n1) = (SiteName::new(SITE).expect("a name"), NodeId::new("n1").expect("a name"));
    let secret = agent_client(&site, &n1, &Fleet::node_key("n1"));
    for id in ["n1", "groundplan/testsite/node/n1", "groundplan/testsite/node/n1/0"] {
        for _ in 0..5 {
            drop(thief(broker, id).await);
        }
    }
    if matches!(kind, Secured::Mosquitto | Secured::MosquittoPasswords) {
        for _ in 0..5 {
            drop(thief(broker, &secret).await);
        }
    }
    assert_eq!([lost("n1"), lost("n2")][0], before[0], "n1 was disturbed:\n{}", fleet.logged("n1"));

    // All of it while the site works on; what the thief can read of it is nothing of n1's.
    let commit = large(fleet, "after");
    tokio::task::block_in_place(|| fleet.converged("two", &commit));
    for (filter, mut wire) in readers {
        wire.send(Packet::PingReq).await;
        loop {
            match wire.next().await {
                Some(Packet::Publish(publish)) => {
                    let all = [topic("planner"), topic("heartbeat")];
                    let may_read = publish.topic.starts_with(&topic("node/n2/")) || all.contains(&publish.topic);
                    assert!(may_read, "{filter} gave {}", publish.topic);
                    wire.acknowledge(&publish).await;
                }
                Some(Packet::PingResp) | None => break,
                Some(other) => panic!("{other:?}"),
            }
        }
    }
}

async fn check(kind: Secured) {
    let fleet = tokio::task::spawn_blocking(move || works(kind)).await.expect("a fleet that works");
    gains_nothing(kind, &fleet).await;
    // Waits for the processes.
    tokio::task::block_in_place(|| drop(fleet));
}

#[tokio::test(flavor = "multi_thread")]
async fn mosquitto() {
    check(Secured::Mosquitto).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nats() {
    if installed("/usr/sbin/nats-server", "nats-server") || installed("/usr/bin/nats-server", "nats-server") {
        check(Secured::Nats).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rabbitmq() {
    if installed("/usr/lib/rabbitmq/bin/rabbitmq-server", "rabbitmq-server") {
        check(Secured::Rabbitmq).await;
    }
}

/// User names and passwords over TLS, where no client has a certificate.
#[test]
fn mosquitto_with_passwords() {
    drop(works(Secured::MosquittoPasswords));
}

/// Planner and agents read their certificates again for each connection, and that of the authority as well.
#[test]
fn replaced_certificates_count_without_a_restart() {
    let mut fleet = works(Secured::Mosquitto);
    fleet.renew_certificates();
    fleet.converged("two", &large(&fleet, "fourth"));
}

fn installed(path: &str, package: &str) -> bool {
    let found = Path::new(path).exists();
    if !found {
        println!("NOT RUN: {package} is not installed");
    }
    found
}
