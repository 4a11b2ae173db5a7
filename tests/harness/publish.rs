//! Publishes single messages, as any client can that reaches the broker.

use std::{net::SocketAddr, time::Duration};

use groundplan_protocol::envelope::{Message, SigningKey, seal_for};
use rumqttc::{Client, Connection, Event, MqttOptions, Packet, QoS};

/// A message in an envelope, encrypted to the owner of another key.
///
/// # Panics
/// If nothing can be encrypted to it.
pub fn encrypted<M: Message>(by: &SigningKey, to: &SigningKey, message: &M) -> Vec<u8> {
    seal_for(by, &to.decryption().public(), message).expect("a key that can be encrypted to")
}

/// Publishes one message with QoS 1 and returns when the broker has acknowledged it.
///
/// # Panics
/// If the broker does not accept it.
pub fn publish(broker: SocketAddr, topic: &str, payload: Vec<u8>, retain: bool) {
    let (client, mut connection) = connect(broker, "stranger");
    client.publish(topic, QoS::AtLeastOnce, retain, payload).expect("room for one message");
    for event in connection.iter() {
        if let Event::Incoming(Packet::PubAck(_)) = event.expect("the broker accepts the message") {
            return;
        }
    }
    panic!("the broker did not acknowledge");
}

/// What the broker retains on a topic, which any client that may subscribe to it can keep.
///
/// # Panics
/// If it retains nothing there.
pub fn retained(broker: SocketAddr, topic: &str) -> Vec<u8> {
    let (client, mut connection) = connect(broker, "collector");
    client.subscribe(topic, QoS::AtLeastOnce).expect("room for one message");
    for event in connection.iter() {
        if let Event::Incoming(Packet::Publish(publish)) = event.expect("the broker accepts the subscription") {
            return publish.payload.to_vec();
        }
    }
    panic!("the broker did not answer");
}

fn connect(broker: SocketAddr, id: &str) -> (Client, Connection) {
    let mut options = MqttOptions::new(id, broker.ip().to_string(), broker.port());
    options.set_keep_alive(Duration::from_secs(10));
    options.set_max_packet_size(8 << 20, 8 << 20);
    Client::new(options, 10)
}
