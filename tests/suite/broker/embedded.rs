//! The embedded broker alone: its policy, its limits, and what it leaves out of MQTT.

use std::{sync::Arc, time::Duration};

use groundplan_broker::{Limits, SitePolicy};
use groundplan_tests::brokers::{Kind, Options, TestBroker};
use rumqttc::mqttbytes::{
    QoS,
    v4::{ConnectReturnCode, Packet, Publish, SubscribeReasonCode},
};

use super::wire::{Wire, clean, kept, until, with_will};

const GRANTED: SubscribeReasonCode = SubscribeReasonCode::Success(QoS::AtLeastOnce);
const REFUSED: SubscribeReasonCode = SubscribeReasonCode::Failure;

fn with(limits: Limits) -> TestBroker {
    TestBroker::start_with(Kind::Embedded, Options { limits, ..Options::default() })
}

fn site() -> TestBroker {
    let policy = Arc::new(SitePolicy::new("s").unwrap());
    TestBroker::start_with(Kind::Embedded, Options { policy, ..Options::default() })
}

#[tokio::test]
async fn the_policy_refuses() {
    let broker = site();
    let address = broker.address();
    let (mut planner, _) = Wire::connect(address, clean("groundplan/s/planner/1")).await;
    planner.subscribe(&[("groundplan/1/s/node/#", QoS::AtLeastOnce)]).await;

    for stranger in ["", "someone", "groundplan/t/node/web", "groundplan/s/node/planner"] {
        let (mut refused, answer) = Wire::try_connect(address, clean(stranger)).await;
        assert_eq!(answer.code, ConnectReturnCode::NotAuthorized, "client id {stranger:?}");
        refused.closed().await;
    }
    let will = with_will(clean("groundplan/s/node/web"), "groundplan/1/s/node/db/presence", "offline");
    let (_, answer) = Wire::try_connect(address, will).await;
    assert_eq!(answer.code, ConnectReturnCode::NotAuthorized, "a will for another node");

    let will = with_will(clean("groundplan/s/node/web"), "groundplan/1/s/node/web/presence", "offline");
    let (mut node, _) = Wire::connect(address, will).await;
    let answers = node
        .subscribe(&[
            ("groundplan/1/s/node/web/plan", QoS::AtLeastOnce),
            ("groundplan/1/s/node/db/plan", QoS::AtLeastOnce),
            ("#", QoS::AtLeastOnce),
            ("groundplan/1/s/blob/+/+", QoS::AtLeastOnce),
            (&format!("groundplan/1/s/blob/{}/+", "0".repeat(64)), QoS::AtLeastOnce),
        ])
        .await;
    assert_eq!(answers, [GRANTED, REFUSED, REFUSED, REFUSED, GRANTED]);
    node.publish_only("groundplan/1/s/node/web/state", "1", true).await;
    node.publish_only("groundplan/1/s/node/db/state", "2", true).await;
    node.publish_only("groundplan/1/s/node/web/state", "3", true).await;
    node.closed().await;
    // What was allowed before the refusal counts; the refusal is no DISCONNECT, so the will is published.
    assert_eq!(planner.text().await, ("groundplan/1/s/node/web/state".into(), "1".into()));
    assert_eq!(planner.text().await, ("groundplan/1/s/node/web/presence".into(), "offline".into()));

    let (mut observer, _) = Wire::connect(address, clean("groundplan/s/observer/1")).await;
    assert_eq!(observer.subscribe(&[("groundplan/1/s/+/+/state", QoS::AtLeastOnce)]).await, [GRANTED]);
    assert_eq!(observer.text().await.1, "1");
    observer.publish_only("groundplan/1/s/planner", "mine", true).await;
    observer.closed().await;
    assert_eq!(broker.stats().retained_messages, 1);
    // Four client ids, a will, three filters, two publishes.
    until("ten refusals", || broker.stats().refused == 10).await;
}

#[tokio::test]
async fn a_full_queue_ends_the_session() {
    let broker = with(Limits { max_queued_messages: 100, ..Limits::default() });
    let (mut publisher, _) = Wire::connect(broker.address(), clean("publisher")).await;
    let (mut away, _) = Wire::connect(broker.address(), kept("away")).await;
    away.subscribe(&[("t", QoS::AtLeastOnce)]).await;
    away.disconnect().await;
    for _ in 0..100 {
        publisher.publish("t", "x", false).await;
    }
    assert_eq!(broker.stats().queued_messages, 100);
    let (away, present) = Wire::connect(broker.address(), kept("away")).await;
    assert!(present, "full to the brim is not too full");
    drop(away);
    publisher.publish("t", "x", false).await;
    let (_, present) = Wire::connect(broker.address(), kept("away")).await;
    assert!(!present);
    let stats = broker.stats();
    assert_eq!((stats.sessions_ended_full, stats.queued_messages, stats.subscriptions), (1, 0, 0));
}

#[tokio::test]
async fn a_full_queue_closes_the_connection_too() {
    let broker = with(Limits { max_queued_bytes: 8 << 20, ..Limits::default() });
    let (mut publisher, _) = Wire::connect(broker.address(), clean("publisher")).await;
    let (mut watcher, _) = Wire::connect(broker.address(), clean("watcher")).await;
    watcher.subscribe(&[("will", QoS::AtLeastOnce)]).await;
    let (mut stuck, _) = Wire::connect(broker.address(), with_will(kept("stuck"), "will", "stuck")).await;
    stuck.subscribe(&[("t", QoS::AtLeastOnce)]).await;
    // It never reads. The sockets' buffers take some of it; what is sent but not acknowledged counts all the same.
    for _ in 0..9 {
        publisher.publish("t", vec![1; 1 << 20], false).await;
    }
    assert_eq!(watcher.text().await.1, "stuck");
    stuck.closed().await;
    let (_, present) = Wire::connect(broker.address(), kept("stuck")).await;
    assert!(!present);
}

/// A peer that takes nothing off its socket cannot keep its connection by that.
#[tokio::test]
async fn a_stuck_connection_is_taken_over() {
    let broker = TestBroker::start(Kind::Embedded);
    let (mut publisher, _) = Wire::connect(broker.address(), clean("publisher")).await;
    let (mut stuck, _) = Wire::connect(broker.address(), kept("client")).await;
    stuck.subscribe(&[("t", QoS::AtLeastOnce)]).await;
    for _ in 0..16 {
        publisher.publish("t", vec![1; 1 << 20], false).await;
    }
    let (mut client, present) = Wire::connect(broker.address(), kept("client")).await;
    assert!(present);
    until("the stuck one is closed", || broker.stats().connections == 2).await;
    for _ in 0..16 {
        let message = client.message().await;
        client.acknowledge(&message).await;
    }
    drop(stuck);
}

#[tokio::test]
async fn sessions_are_capped() {
    let broker = with(Limits { max_sessions: 3, ..Limits::default() });
    let (_a, _) = Wire::connect(broker.address(), clean("a")).await;
    for id in ["b", "c"] {
        Wire::connect(broker.address(), kept(id)).await.0.disconnect().await;
        // The connection may be closed before its session is.
        until("one client", || broker.stats().connected == 1).await;
    }
    let (d, present) = Wire::connect(broker.address(), clean("d")).await;
    assert!(!present);
    let (c, present) = Wire::connect(broker.address(), kept("c")).await;
    assert!(present, "the session that was disconnected for longer was dropped");
    let (mut refused, answer) = Wire::try_connect(broker.address(), clean("e")).await;
    assert_eq!(answer.code, ConnectReturnCode::ServiceUnavailable, "all three are connected");
    refused.closed().await;
    d.disconnect().await;
    until("two clients", || broker.stats().connected == 2).await;
    let (_e, _) = Wire::connect(broker.address(), clean("e")).await;
    drop(c);
}

#[tokio::test]
async fn subscriptions_and_retained_messages_are_capped() {
    let broker = with(Limits { max_subscriptions: 2, max_retained_messages: 2, ..Limits::default() });
    let (mut client, _) = Wire::connect(broker.address(), clean("client")).await;
    let filters = ["a", "b", "c", "a"].map(|filter| (filter, QoS::AtLeastOnce));
    assert_eq!(client.subscribe(&filters).await, [GRANTED, GRANTED, REFUSED, GRANTED]);
    let (mut publisher, _) = Wire::connect(broker.address(), clean("publisher")).await;
    publisher.publish("r/1", "x", true).await;
    publisher.publish("r/2", "x", true).await;
    publisher.publish("r/2", "y", true).await;
    publisher.publish_only("r/3", "x", true).await;
    publisher.closed().await;
    assert_eq!(broker.stats().retained_messages, 2);
}

#[tokio::test]
async fn connections_are_capped_and_silent_ones_dropped() {
    // Long enough for `client` on a loaded machine.
    let connect_timeout = Duration::from_secs(3);
    let broker = with(Limits { max_connections: 3, connect_timeout, ..Limits::default() });
    let (mut client, _) = Wire::connect(broker.address(), clean("client")).await;
    let mut silent = [Wire::open(broker.address()).await, Wire::open(broker.address()).await];
    silent[1].send_raw(b"\x10\x7f\x00").await;
    until("three connections", || broker.stats().connections == 3).await;
    let mut fourth = Wire::open(broker.address()).await;
    fourth.closed().await;
    for peer in &mut silent {
        peer.closed().await;
    }
    until("one connection", || broker.stats().connections == 1).await;
    client.ping().await;
}

#[tokio::test]
async fn other_versions_are_refused() {
    let broker = TestBroker::start(Kind::Embedded);
    for connect in [
        // Version 5, with its properties; version 3.1, with its other name; one that is yet to come.
        &b"\x10\x10\x00\x04MQTT\x05\x02\x00\x3c\x00\x00\x03abc"[..],
        b"\x10\x11\x00\x06MQIsdp\x03\x02\x00\x3c\x00\x03abc",
        b"\x10\x0f\x00\x04MQTT\x09\x02\x00\x3c\x00\x03abc",
    ] {
        let mut peer = Wire::open(broker.address()).await;
        peer.send_raw(connect).await;
        match peer.next().await {
            Some(Packet::ConnAck(answer)) => assert_eq!(answer.code, ConnectReturnCode::RefusedProtocolVersion),
            other => panic!("answered with {other:?}"),
        }
        peer.closed().await;
    }
}

#[tokio::test]
async fn a_publish_with_qos_2_closes_the_connection() {
    let broker = TestBroker::start(Kind::Embedded);
    let (mut client, _) = Wire::connect(broker.address(), clean("client")).await;
    let mut publish = Publish::new("t", QoS::ExactlyOnce, "x");
    publish.pkid = 1;
    client.send(Packet::Publish(publish)).await;
    client.closed().await;
    assert_eq!(broker.stats().received, 0);
}

/// As section 3.3.5 asks for. Mosquitto 2.0.11 takes the QoS of the first filter that it finds.
#[tokio::test]
async fn overlapping_filters_deliver_with_the_greatest_qos() {
    let broker = TestBroker::start(Kind::Embedded);
    let (mut subscriber, _) = Wire::connect(broker.address(), clean("subscriber")).await;
    let filters = [("a/#", QoS::AtMostOnce), ("a/+", QoS::ExactlyOnce), ("a/b", QoS::AtMostOnce)];
    let least = SubscribeReasonCode::Success(QoS::AtMostOnce);
    assert_eq!(subscriber.subscribe(&filters).await, [least, GRANTED, least], "2 is granted at 1");
    let (mut publisher, _) = Wire::connect(broker.address(), clean("publisher")).await;
    for (topic, qos) in [("a/b", QoS::AtLeastOnce), ("a/b/c", QoS::AtMostOnce)] {
        publisher.publish(topic, "", false).await;
        let message = subscriber.message().await;
        assert_eq!((message.topic.as_str(), message.qos), (topic, qos));
        subscriber.acknowledge(&message).await;
    }
}

#[tokio::test]
async fn a_second_connect_closes_the_connection() {
    let broker = TestBroker::start(Kind::Embedded);
    let (mut client, _) = Wire::connect(broker.address(), clean("client")).await;
    client.send(Packet::Connect(clean("client"))).await;
    client.closed().await;
}

#[tokio::test]
async fn nothing_is_left_of_clients_that_have_ended() {
    let broker = TestBroker::start(Kind::Embedded);
    let (mut publisher, _) = Wire::connect(broker.address(), clean("publisher")).await;
    for n in 0..50 {
        let (mut client, _) = Wire::connect(broker.address(), clean(&format!("client-{n}"))).await;
        client.subscribe(&[("t/#", QoS::AtLeastOnce), ("+/x", QoS::AtMostOnce)]).await;
        publisher.publish("t/x", "x", false).await;
        if n % 2 == 0 { client.disconnect().await } else { drop(client) }
    }
    until("one connection", || broker.stats().connections == 1).await;
    let stats = broker.stats();
    assert_eq!((stats.sessions, stats.connected, stats.subscriptions), (1, 1, 0));
    assert_eq!((stats.queued_messages, stats.queued_bytes), (0, 0));
}
