//! Large packets, broken packets, and silent peers.

use groundplan_tests::brokers::{Kind, Options, TestBroker};
use rumqttc::mqttbytes::{
    QoS,
    v4::{ConnectReturnCode, Packet, Publish},
};

use super::{
    both,
    wire::{self, Wire, clean, publish_all, receive, within},
};

fn options() -> Options {
    let mut options = Options::default();
    options.limits.max_packet = 2 << 20;
    options
}

both! {
    /// 1 MiB passes; over the limit the connection is closed, and the broker and all other connections continue.
    async fn large_payloads(broker: TestBroker) {
        let content: Vec<u8> = (0..1 << 20).map(|n: u32| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
        let subscriber = receive(wire::options(broker.address(), "subscriber"), Some("large/#"), 3).await;
        let first = std::iter::once(("large/1".to_owned(), content.clone(), true));
        publish_all(wire::options(broker.address(), "publisher"), 1, first).await;

        let (mut greedy, _) = Wire::connect(broker.address(), clean("greedy")).await;
        greedy.publish_only("large/2", vec![7; 3 << 20], true).await;
        greedy.closed().await;

        let (mut publisher, _) = Wire::connect(broker.address(), clean("publisher")).await;
        publisher.publish("large/3", "small", false).await;
        publisher.publish("large/4", content.clone(), false).await;
        let messages = within("large messages", subscriber).await.unwrap();
        let topics: Vec<_> = messages.iter().map(|message| message.topic.as_str()).collect();
        assert_eq!(topics, ["large/1", "large/3", "large/4"]);
        assert!(messages[0].payload == content && messages[2].payload == content);
    }

    /// Peers that send nothing, or stop in the middle of a packet, do not disturb other connections.
    async fn silent_peers(broker: TestBroker) {
        let mut silent = Vec::new();
        for n in 0..60 {
            let mut peer = Wire::open(broker.address()).await;
            match n % 3 {
                0 => {}
                1 => peer.send_raw(b"\x10").await,
                _ => peer.send_raw(b"\x10\xff\x7f\x00\x04MQTT\x04").await,
            }
            silent.push(peer);
        }
        let subscriber = receive(wire::options(broker.address(), "subscriber"), Some("t"), 1000).await;
        let messages = (0..1000).map(|n| ("t".to_owned(), format!("{n}").into_bytes(), false));
        publish_all(wire::options(broker.address(), "publisher"), 1000, messages).await;
        let messages = within("all messages", subscriber).await.unwrap();
        assert!((0..).zip(&messages).all(|(n, message)| message.payload == n.to_string()));
    }

    /// A subscriber that does not read does not delay others.
    async fn slow_consumer(broker: TestBroker) {
        let (mut slow, _) = Wire::connect(broker.address(), clean("slow")).await;
        slow.subscribe(&[("t", QoS::AtLeastOnce)]).await;
        let brisk = receive(wire::options(broker.address(), "brisk"), Some("t"), 300).await;
        let messages = (0..300).map(|_| ("t".to_owned(), vec![1; 64 << 10], false));
        publish_all(wire::options(broker.address(), "publisher"), 300, messages).await;
        within("all messages for the brisk one", brisk).await.unwrap();
        // It was slow, not lost.
        for _ in 0..300 {
            let message = slow.message().await;
            slow.acknowledge(&message).await;
        }
    }

    /// What is no MQTT 3.1.1 ends that connection and nothing else.
    async fn broken_packets(broker: TestBroker) {
        let (mut bystander, _) = Wire::connect(broker.address(), clean("bystander")).await;
        for (what, bytes) in [
            ("HTTP", &b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"[..]),
            ("a PINGREQ before CONNECT", b"\xc0\x00"),
            ("a length that never ends", b"\x10\xff\xff\xff\xff\xff\x01"),
            ("a CONNECT that is cut short", b"\x10\x02\x00\x04"),
        ] {
            let mut peer = Wire::open(broker.address()).await;
            peer.send_raw(bytes).await;
            peer.closed().await;
            bystander.ping().await;
            println!("closed: {what}");
        }
        for (what, bytes) in [
            ("an empty topic", &b"\x32\x04\x00\x00\x00\x01"[..]),
            ("a topic with a wildcard", b"\x32\x07\x00\x03a/+\x00\x01"),
            ("a topic with NUL", b"\x32\x06\x00\x02a\x00\x00\x01"),
            ("a topic that is not UTF-8", b"\x32\x06\x00\x02\xc3\x28\x00\x01"),
            ("a publish with QoS 3", b"\x36\x05\x00\x01a\x00\x01"),
            ("a SUBSCRIBE with flags 0", b"\x80\x06\x00\x01\x00\x01a\x00"),
            ("a SUBSCRIBE without filters", b"\x82\x02\x00\x01"),
            ("a SUBSCRIBE to `a/#/b`", b"\x82\x0a\x00\x01\x00\x05a/#/b\x00"),
            ("an UNSUBSCRIBE without filters", b"\xa2\x02\x00\x01"),
            ("a CONNACK", b"\x20\x02\x00\x00"),
        ] {
            let (mut peer, _) = Wire::connect(broker.address(), clean("peer")).await;
            peer.send_raw(bytes).await;
            peer.closed().await;
            bystander.ping().await;
            println!("closed: {what}");
        }
    }

    /// Topics are UTF-8, from their first character on.
    async fn multibyte_topics(broker: TestBroker) {
        let (mut publisher, _) = Wire::connect(broker.address(), clean("publisher")).await;
        for filter in ["é", "é/#", "+", "日本/+", "/+/ü", "#"] {
            let (mut subscriber, _) = Wire::connect(broker.address(), clean("subscriber")).await;
            subscriber.subscribe(&[(filter, QoS::AtLeastOnce), ("end", QoS::AtLeastOnce)]).await;
            let mut expected = Vec::new();
            for (topic, matching) in [
                ("é", &["é", "é/#", "+", "#"][..]),
                ("🦀", &["+", "#"]),
                ("日本/語", &["日本/+", "#"]),
                ("/🦀/ü", &["/+/ü", "#"]),
            ] {
                publisher.publish(topic, "", false).await;
                expected.extend(matching.contains(&filter).then_some(topic));
            }
            publisher.publish("end", "", false).await;
            for topic in expected.into_iter().chain(["end"]) {
                assert_eq!(subscriber.text().await.0, topic, "filter {filter}");
            }
            subscriber.disconnect().await;
        }
    }

    /// An empty client id is for clean sessions only.
    async fn empty_client_id(broker: TestBroker) {
        let (_one, first) = Wire::try_connect(broker.address(), clean("")).await;
        let (_two, second) = Wire::try_connect(broker.address(), clean("")).await;
        assert_eq!((first.code, second.code), (ConnectReturnCode::Success, ConnectReturnCode::Success));
        let (mut refused, answer) = Wire::try_connect(broker.address(), wire::kept("")).await;
        assert_eq!(answer.code, ConnectReturnCode::BadClientId);
        refused.closed().await;
    }

    /// QoS 0 passes, and has no packet id.
    async fn at_most_once(broker: TestBroker) {
        let (mut subscriber, _) = Wire::connect(broker.address(), clean("subscriber")).await;
        subscriber.subscribe(&[("t", QoS::AtLeastOnce)]).await;
        let (mut publisher, _) = Wire::connect(broker.address(), clean("publisher")).await;
        publisher.send(Packet::Publish(Publish::new("t", QoS::AtMostOnce, "x"))).await;
        let message = subscriber.message().await;
        assert_eq!((message.qos, message.pkid, &message.payload[..]), (QoS::AtMostOnce, 0, &b"x"[..]));
    }
}
