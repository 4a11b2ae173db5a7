//! Retained messages.

use groundplan_tests::brokers::{Kind, Options, TestBroker};
use rumqttc::mqttbytes::QoS;

use super::{
    both,
    wire::{self, Wire, clean, publish_all, receive, within},
};

fn options() -> Options {
    Options::default()
}

both! {
    /// 10 000 messages of 2 KiB, each with content of its own, all reach a new subscriber.
    async fn ten_thousand(broker: TestBroker) {
        let payload = |n: usize| n.to_string().repeat(2048).as_bytes()[..2048].to_vec();
        let messages = (0..10_000).map(move |n| (format!("retained/{n}/state"), payload(n), true));
        publish_all(wire::options(broker.address(), "publisher"), 10_000, messages).await;
        let subscriber = wire::options(broker.address(), "subscriber");
        let messages = receive(subscriber, Some("retained/+/state"), 10_000).await;
        let mut seen = vec![false; 10_000];
        for message in within("all retained messages", messages).await.unwrap() {
            let n: usize = message.topic.split('/').nth(1).unwrap().parse().unwrap();
            assert_eq!(message.payload, payload(n), "{}", message.topic);
            assert!(message.retain && !seen[n], "{}", message.topic);
            seen[n] = true;
        }
    }

    /// The last one counts, an empty payload clears, and only a new subscription sees the retain flag.
    async fn overwrite_and_clear(broker: TestBroker) {
        let (mut publisher, _) = Wire::connect(broker.address(), clean("publisher")).await;
        let (mut early, _) = Wire::connect(broker.address(), clean("early")).await;
        early.subscribe(&[("r/#", QoS::AtLeastOnce)]).await;
        for (topic, payload) in [("r/1", "old"), ("r/1", "new"), ("r/2", "gone"), ("r/2", ""), ("r/3", "")] {
            publisher.publish(topic, payload, true).await;
            let message = early.message().await;
            early.acknowledge(&message).await;
            assert_eq!((message.topic.as_str(), &message.payload[..]), (topic, payload.as_bytes()));
            assert!(!message.retain, "live messages to a standing subscription are not marked as retained");
        }
        let (mut late, _) = Wire::connect(broker.address(), clean("late")).await;
        late.subscribe(&[("r/#", QoS::AtLeastOnce)]).await;
        let message = late.message().await;
        late.acknowledge(&message).await;
        assert_eq!((message.topic.as_str(), &message.payload[..], message.retain), ("r/1", &b"new"[..], true));
        publisher.publish("r/end", "", false).await;
        assert_eq!(late.text().await.0, "r/end", "nothing else was retained");
    }

    /// A subscription that is repeated brings them again; a session that is resumed does not.
    async fn for_new_and_repeated_subscriptions(broker: TestBroker) {
        let (mut publisher, _) = Wire::connect(broker.address(), clean("publisher")).await;
        publisher.publish("r", "1", true).await;
        let (mut subscriber, _) = Wire::connect(broker.address(), wire::kept("subscriber")).await;
        for _ in 0..2 {
            subscriber.subscribe(&[("r", QoS::AtLeastOnce)]).await;
            assert_eq!(subscriber.text().await.1, "1");
        }
        subscriber.ping().await;
        drop(subscriber);
        let (mut subscriber, present) = Wire::connect(broker.address(), wire::kept("subscriber")).await;
        assert!(present);
        publisher.publish("r", "2", true).await;
        assert_eq!(subscriber.text().await.1, "2");
    }
}
