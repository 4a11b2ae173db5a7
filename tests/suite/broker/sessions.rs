//! Persistent sessions: what is queued, what is sent again, and when there is none.

use groundplan_tests::brokers::{Kind, Options, TestBroker};
use rumqttc::mqttbytes::{QoS, v4::SubscribeReasonCode};

use super::{
    both,
    wire::{self, Wire, clean, kept, publish_all, receive, within},
};

fn options() -> Options {
    Options::default()
}

both! {
    /// 20 000 messages for a disconnected client: none lost, none out of order.
    async fn twenty_thousand_queued(broker: TestBroker) {
        let (mut subscriber, present) = Wire::connect(broker.address(), kept("subscriber")).await;
        assert!(!present);
        subscriber.subscribe(&[("queue/#", QoS::AtLeastOnce)]).await;
        subscriber.disconnect().await;

        let messages = (0..20_000).map(|n: u32| (format!("queue/{}", n % 7), n.to_string().into_bytes(), false));
        publish_all(wire::options(broker.address(), "publisher"), 20_000, messages).await;

        let mut options = wire::options(broker.address(), "subscriber");
        options.set_clean_session(false);
        let messages = receive(options, None, 20_000).await;
        for (n, message) in within("all queued messages", messages).await.unwrap().iter().enumerate() {
            assert_eq!(std::str::from_utf8(&message.payload).unwrap(), n.to_string());
        }
    }

    /// What was sent but not acknowledged comes again after a kill: first, in order, with DUP and its packet id.
    async fn redelivery_in_order(broker: TestBroker) {
        let (mut publisher, _) = Wire::connect(broker.address(), clean("publisher")).await;
        let (mut subscriber, _) = Wire::connect(broker.address(), kept("subscriber")).await;
        subscriber.subscribe(&[("t", QoS::AtLeastOnce)]).await;
        let mut pkids = Vec::new();
        for n in 0..50 {
            publisher.publish("t", n.to_string(), false).await;
            let message = subscriber.message().await;
            assert_eq!((&message.payload[..], message.dup), (n.to_string().as_bytes(), false));
            pkids.push(message.pkid);
            if n < 10 {
                subscriber.acknowledge(&message).await;
            }
        }
        subscriber.ping().await;
        drop(subscriber);
        for n in 50..70 {
            publisher.publish("t", n.to_string(), false).await;
        }
        let (mut subscriber, present) = Wire::connect(broker.address(), kept("subscriber")).await;
        assert!(present);
        // Of the later ones, some may have been sent to the dead connection before the broker saw that it was dead.
        let sent_before = pkids.into_iter().map(Some).chain(std::iter::repeat_n(None, 20));
        for (n, pkid) in sent_before.enumerate().skip(10) {
            let message = subscriber.message().await;
            assert_eq!(std::str::from_utf8(&message.payload).unwrap(), n.to_string());
            if let Some(pkid) = pkid {
                assert_eq!((message.pkid, message.dup), (pkid, true), "message {n}");
            }
            subscriber.acknowledge(&message).await;
        }
        subscriber.ping().await;
        drop(subscriber);
        let (mut subscriber, _) = Wire::connect(broker.address(), kept("subscriber")).await;
        publisher.publish("t", "end", false).await;
        assert_eq!(subscriber.text().await.1, "end", "what is acknowledged does not come again");
    }

    /// A clean connection ends the session that there was, with all that waited in it.
    async fn lost_to_a_clean_start(broker: TestBroker) {
        let (mut publisher, _) = Wire::connect(broker.address(), clean("publisher")).await;
        let (mut subscriber, _) = Wire::connect(broker.address(), kept("subscriber")).await;
        subscriber.subscribe(&[("t", QoS::AtLeastOnce)]).await;
        subscriber.disconnect().await;
        publisher.publish("t", "waits", false).await;

        let (subscriber, present) = Wire::connect(broker.address(), clean("subscriber")).await;
        assert!(!present);
        subscriber.disconnect().await;
        let (mut subscriber, present) = Wire::connect(broker.address(), kept("subscriber")).await;
        assert!(!present);
        publisher.publish("t", "to no session", false).await;
        subscriber.subscribe(&[("t", QoS::AtLeastOnce)]).await;
        publisher.publish("t", "end", false).await;
        assert_eq!(subscriber.text().await.1, "end");
    }

    /// A broker that lost its memory reports no session, and has no retained messages.
    async fn lost_with_the_broker(broker: TestBroker) {
        let mut broker = broker;
        let (mut client, _) = Wire::connect(broker.address(), kept("client")).await;
        client.publish("r", "kept", true).await;
        client.subscribe(&[("t", QoS::AtLeastOnce)]).await;
        broker.restart_wiped();
        client.closed().await;
        let (mut client, present) = Wire::connect(broker.address(), kept("client")).await;
        assert!(!present);
        client.subscribe(&[("#", QoS::AtLeastOnce)]).await;
        client.publish_only("end", "", false).await;
        while let Some(packet) = client.next().await {
            match packet {
                rumqttc::mqttbytes::v4::Packet::Publish(publish) => {
                    assert_eq!(publish.topic, "end");
                    break;
                }
                _ => continue,
            }
        }
    }

    /// The older connection of a client id is closed; its end does not touch the session, which the newer one has.
    async fn takeover(broker: TestBroker) {
        let (mut publisher, _) = Wire::connect(broker.address(), clean("publisher")).await;
        let (mut old, _) = Wire::connect(broker.address(), kept("client")).await;
        old.subscribe(&[("t", QoS::AtLeastOnce)]).await;
        for n in 0..20 {
            let (new, present) = Wire::connect(broker.address(), kept("client")).await;
            assert!(present, "takeover {n}");
            publisher.publish("t", n.to_string(), false).await;
            old.closed().await;
            old = new;
            assert_eq!(old.text().await.1, n.to_string());
            old.ping().await;
        }
    }

    /// A message that several filters of a client match comes to it once, with the QoS that they were granted.
    async fn overlapping_filters(broker: TestBroker) {
        let (mut publisher, _) = Wire::connect(broker.address(), clean("publisher")).await;
        let (mut subscriber, _) = Wire::connect(broker.address(), clean("subscriber")).await;
        let filters = ["a/#", "a/+", "a/b", "#"].map(|filter| (filter, QoS::AtLeastOnce));
        let granted = subscriber.subscribe(&filters).await;
        assert_eq!(granted, [SubscribeReasonCode::Success(QoS::AtLeastOnce); 4]);
        for topic in ["a/b", "a/c", "end"] {
            publisher.publish(topic, "", false).await;
        }
        for topic in ["a/b", "a/c", "end"] {
            let message = subscriber.message().await;
            assert_eq!((message.topic.as_str(), message.qos), (topic, QoS::AtLeastOnce));
            subscriber.acknowledge(&message).await;
        }
    }

    /// Unsubscribed is unsubscribed, and topics that begin with `$` are not in `#`.
    async fn no_more_than_subscribed(broker: TestBroker) {
        use rumqttc::mqttbytes::v4::{Packet, Unsubscribe};
        let (mut publisher, _) = Wire::connect(broker.address(), clean("publisher")).await;
        let (mut subscriber, _) = Wire::connect(broker.address(), clean("subscriber")).await;
        subscriber.subscribe(&[("a", QoS::AtLeastOnce), ("b", QoS::AtLeastOnce)]).await;
        let unsubscribe = Unsubscribe { pkid: 77, topics: vec!["a".into(), "never".into()] };
        subscriber.send(Packet::Unsubscribe(unsubscribe)).await;
        assert!(matches!(subscriber.next().await, Some(Packet::UnsubAck(ack)) if ack.pkid == 77));
        publisher.publish("a", "", false).await;
        publisher.publish("b", "", false).await;
        assert_eq!(subscriber.text().await.0, "b");

        subscriber.subscribe(&[("#", QoS::AtLeastOnce), ("+/x", QoS::AtLeastOnce)]).await;
        publisher.publish("$hidden/x", "", false).await;
        publisher.publish("$hidden", "", false).await;
        publisher.publish("seen", "", false).await;
        assert_eq!(subscriber.text().await.0, "seen");
    }
}
