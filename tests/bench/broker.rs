//! QoS 1 messages from one publisher through the embedded broker to one subscriber; the baseline is Mosquitto.

use std::{net::SocketAddr, sync::mpsc, thread, time::Instant};

use groundplan_tests::brokers::{Kind, TestBroker};
use rumqttc::{Client, Connection, Event, MqttOptions, Packet, QoS};

use crate::table::{Row, quantile};

const MESSAGES: usize = 20_000;
const ROUNDS: usize = 5;

pub(crate) fn run() -> Vec<Row> {
    let [embedded, mosquitto] = [Kind::Embedded, Kind::Mosquitto].map(|kind| {
        let mut samples: Vec<f64> = (0..ROUNDS).map(|_| through(TestBroker::start(kind).address())).collect();
        quantile(&mut samples, 0.5)
    });
    let what = format!("{MESSAGES} QoS 1 messages through the embedded broker");
    vec![Row::new(what, embedded, "s").against("mosquitto", mosquitto).at_most_times(1.0)]
}

fn client(broker: SocketAddr, id: &str) -> (Client, Connection) {
    let mut options = MqttOptions::new(id, broker.ip().to_string(), broker.port());
    options.set_max_packet_size(1 << 20, 1 << 20).set_inflight(1000);
    Client::new(options, 2000)
}

/// Seconds from the first publish to the last delivery.
fn through(broker: SocketAddr) -> f64 {
    let (subscriber, mut incoming) = client(broker, "subscriber");
    let (ready, subscribed) = mpsc::channel();
    let receiving = thread::spawn(move || {
        subscriber.subscribe("t/#", QoS::AtLeastOnce).expect("room for a request");
        let mut left = MESSAGES;
        for event in incoming.iter() {
            match event.expect("a connection") {
                Event::Incoming(Packet::SubAck(_)) => ready.send(()).expect("the receiver exists"),
                Event::Incoming(Packet::Publish(_)) => left -= 1,
                _ => {}
            }
            if left == 0 {
                return;
            }
        }
    });
    subscribed.recv().expect("a subscription");
    let (publisher, mut outgoing) = client(broker, "publisher");
    let start = Instant::now();
    let sending = thread::spawn(move || {
        for n in 0..MESSAGES {
            publisher.publish(format!("t/{}", n % 10), QoS::AtLeastOnce, false, [7; 200]).expect("room for a request");
        }
        publisher
    });
    let polling = thread::spawn(move || {
        let mut left = MESSAGES;
        for event in outgoing.iter() {
            if let Event::Incoming(Packet::PubAck(_)) = event.expect("a connection") {
                left -= 1;
            }
            if left == 0 {
                return;
            }
        }
    });
    receiving.join().expect("the subscriber");
    let seconds = start.elapsed().as_secs_f64();
    polling.join().expect("the publisher's connection");
    drop(sending.join().expect("the publisher"));
    seconds
}
