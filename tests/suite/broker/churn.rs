//! Churn: persistent subscribers are killed and return while thousands of messages flow.

use std::{collections::BTreeMap, net::SocketAddr, time::Duration};

use groundplan_tests::brokers::{Kind, Options, TestBroker};
use rumqttc::{
    AsyncClient, Event, Incoming,
    mqttbytes::{
        QoS,
        v4::{Packet, Publish},
    },
};

use super::{
    both,
    wire::{self, DEADLINE, Wire, kept, within},
};

const TOPICS: usize = 8;
const MESSAGES: usize = 6000;
/// Together with the messages it makes some three seconds, in which each subscriber is killed some hundred times.
const BATCH: usize = 20;
/// A connection is killed after so many messages at most.
const LIFETIME: u64 = 120;
/// Acknowledgements are held back until there are so many, so that every kill finds messages in flight.
const ACKNOWLEDGE: usize = 16;
const PAUSE: Duration = Duration::from_millis(9);
/// When nothing has come for so long, everything is acknowledged and the connection ends.
const QUIET: Duration = Duration::from_millis(200);

fn options() -> Options {
    Options::default()
}

/// What a subscriber has seen of each topic.
#[derive(Default)]
struct Seen {
    /// How many of each topic came, without a gap.
    count: BTreeMap<String, usize>,
    kills: usize,
    again: usize,
}

impl Seen {
    /// Checks one message. `before` is the last of each topic on this connection.
    fn take(&mut self, message: Publish, before: &mut BTreeMap<String, usize>, unacknowledged: &mut Vec<Publish>) {
        let topic = &message.topic;
        let n: usize = std::str::from_utf8(&message.payload).unwrap().parse().unwrap();
        if let Some(before) = before.insert(topic.clone(), n) {
            assert!(n > before, "{topic}: {n} came after {before} on one connection");
        }
        let count = self.count.entry(topic.clone()).or_default();
        assert!(n <= *count, "{topic}: {n} came, but {count} was lost");
        if n == *count {
            *count += 1;
        } else {
            assert!(message.dup, "{topic}: {n} came again without DUP");
            self.again += 1;
        }
        unacknowledged.push(message);
    }

    fn complete(&self) -> bool {
        self.count.values().sum::<usize>() == MESSAGES
    }
}

/// Connects again and again, each time for a few messages, until it has seen all. Counts messages and not the time, so that a slow machine kills
/// as often as a fast one.
async fn subscriber(address: SocketAddr, id: String, mut random: u64) -> Seen {
    let mut seen = Seen::default();
    while !seen.complete() {
        // A linear congruential generator: its upper bits are random enough to vary the moment.
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let (mut wire, present) = Wire::connect(address, kept(&id)).await;
        assert!(present, "{id}: its session was lost after {} kills", seen.kills);
        let (mut before, mut unacknowledged) = (BTreeMap::new(), Vec::new());
        for _ in 0..1 + (random >> 33) % LIFETIME {
            if seen.complete() {
                break;
            }
            let Ok(packet) = tokio::time::timeout(QUIET, wire.next()).await else {
                // Mosquitto 2.0.11 may send the rest of a queue only to the next connection, once what is in flight is acknowledged.
                acknowledge(&mut wire, &mut unacknowledged).await;
                break;
            };
            let Some(Packet::Publish(publish)) = packet else { panic!("{id}: {packet:?}") };
            seen.take(publish, &mut before, &mut unacknowledged);
            if unacknowledged.len() == ACKNOWLEDGE {
                acknowledge(&mut wire, &mut unacknowledged).await;
            }
        }
        // The broker loses acknowledgements that it has not read when the connection is reset. Every other time it has read them, so that there is
        // progress on a machine where it is slow.
        if seen.kills % 2 == 0 {
            wire.send(Packet::PingReq).await;
            loop {
                match wire.next().await {
                    Some(Packet::Publish(publish)) => seen.take(publish, &mut before, &mut unacknowledged),
                    Some(Packet::PingResp) => break,
                    other => panic!("{id}: {other:?}"),
                }
            }
        }
        seen.kills += 1;
    }
    seen
}

async fn acknowledge(wire: &mut Wire, messages: &mut Vec<Publish>) {
    for publish in messages.drain(..) {
        wire.acknowledge(&publish).await;
    }
}

/// Publishes at a pace, through rumqttc.
async fn publisher(address: SocketAddr) {
    let (client, mut events) = AsyncClient::new(wire::options(address, "publisher"), 500);
    let poll = tokio::spawn(async move {
        let mut acknowledged = 0;
        while acknowledged < MESSAGES {
            if let Event::Incoming(Incoming::PubAck(_)) = events.poll().await.expect("the publisher is not cut off") {
                acknowledged += 1;
            }
        }
    });
    for n in 0..MESSAGES {
        if n % BATCH == 0 {
            tokio::time::sleep(PAUSE).await;
        }
        let topic = format!("churn/{}", n % TOPICS);
        client.publish(topic, QoS::AtLeastOnce, false, (n / TOPICS).to_string()).await.expect("it is polled");
    }
    within("all acknowledgements", poll).await.expect("the publisher's task");
}

both! {
    /// None lost, none out of order within its topic, none twice but as a redelivery.
    async fn kills(broker: TestBroker) {
        let address = broker.address();
        let mut subscribers = Vec::new();
        for n in 0..3 {
            let id = format!("subscriber-{n}");
            let (mut wire, _) = Wire::connect(address, kept(&id)).await;
            wire.subscribe(&[("churn/#", QoS::AtLeastOnce)]).await;
            wire.disconnect().await;
            subscribers.push(tokio::spawn(tokio::time::timeout(DEADLINE, subscriber(address, id, n))));
        }
        publisher(address).await;
        for subscriber in subscribers {
            let seen = subscriber.await.expect("a subscriber's checks").expect("all messages before the deadline");
            assert!(seen.kills > 5 && seen.again > 0, "killed {} times, {} messages again", seen.kills, seen.again);
            println!("{:?}: {} kills, {} messages again", broker.kind(), seen.kills, seen.again);
        }
    }
}
