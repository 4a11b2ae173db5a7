//! Last wills: published when a client ends without DISCONNECT, and only then.

use std::time::{Duration, Instant};

use groundplan_tests::brokers::{Kind, Options, TestBroker};
use rumqttc::mqttbytes::{QoS, v4::Connect};

use super::{
    both,
    wire::{Wire, clean, kept, with_will},
};

fn options() -> Options {
    Options::default()
}

async fn watcher(broker: &TestBroker) -> Wire {
    let (mut watcher, _) = Wire::connect(broker.address(), clean("watcher")).await;
    watcher.subscribe(&[("will/#", QoS::AtLeastOnce)]).await;
    watcher
}

both! {
    /// A connection that is cut publishes the will; for a session that is kept as well.
    async fn on_kill(broker: TestBroker) {
        let mut watcher = watcher(&broker).await;
        for (n, connect) in [clean("client"), kept("client")].into_iter().enumerate() {
            let payload = format!("killed {n}");
            let (client, _) = Wire::connect(broker.address(), with_will(connect, "will/a", &payload)).await;
            drop(client);
            assert_eq!(watcher.text().await, ("will/a".to_owned(), payload));
        }
    }

    /// One and a half times the keep-alive without a sign of life: the will, and the end of the connection.
    async fn on_keep_alive(broker: TestBroker) {
        let mut watcher = watcher(&broker).await;
        let connect = Connect { keep_alive: 1, ..with_will(clean("client"), "will/a", "silent") };
        let (mut client, _) = Wire::connect(broker.address(), connect).await;
        // From before the last sign of life: the broker counts from a later moment.
        let since = Instant::now();
        client.ping().await;
        assert_eq!(watcher.text().await.1, "silent");
        // Mosquitto checks its clock once a second.
        assert!(since.elapsed() > Duration::from_millis(900), "after {:?}", since.elapsed());
        client.closed().await;
    }

    /// DISCONNECT removes the will.
    async fn not_on_disconnect(broker: TestBroker) {
        let mut watcher = watcher(&broker).await;
        let (client, _) = Wire::connect(broker.address(), with_will(clean("client"), "will/a", "no")).await;
        client.disconnect().await;
        let (mut publisher, _) = Wire::connect(broker.address(), clean("publisher")).await;
        publisher.publish("will/end", "", false).await;
        assert_eq!(watcher.text().await.0, "will/end");
    }

    /// A protocol error is an end without DISCONNECT: here, publishing to a filter.
    async fn on_protocol_error(broker: TestBroker) {
        let mut watcher = watcher(&broker).await;
        let (mut client, _) = Wire::connect(broker.address(), with_will(clean("client"), "will/a", "broken")).await;
        client.publish_only("a/+", "", false).await;
        client.closed().await;
        assert_eq!(watcher.text().await.1, "broken");
    }

    /// So is losing the client id to another connection; the newer one's will stays.
    async fn on_takeover(broker: TestBroker) {
        let mut watcher = watcher(&broker).await;
        let (mut old, _) = Wire::connect(broker.address(), with_will(clean("client"), "will/a", "old")).await;
        let (new, _) = Wire::connect(broker.address(), with_will(clean("client"), "will/a", "new")).await;
        assert_eq!(watcher.text().await.1, "old");
        old.closed().await;
        drop(new);
        assert_eq!(watcher.text().await.1, "new");
    }

    /// A retained will stays, until a message of the same topic replaces it: how presence works.
    async fn retained(broker: TestBroker) {
        let mut watcher = watcher(&broker).await;
        let mut connect = with_will(clean("client"), "will/presence", "offline");
        if let Some(will) = &mut connect.last_will {
            will.retain = true;
        }
        let (mut client, _) = Wire::connect(broker.address(), connect).await;
        client.publish("will/presence", "online", true).await;
        assert_eq!(watcher.text().await.1, "online");
        drop(client);
        assert_eq!(watcher.text().await.1, "offline");
        let (mut late, _) = Wire::connect(broker.address(), clean("late")).await;
        late.subscribe(&[("will/+", QoS::AtLeastOnce)]).await;
        let message = late.message().await;
        assert_eq!((&message.payload[..], message.retain), (&b"offline"[..], true));
    }
}
