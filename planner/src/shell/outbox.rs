//! From the loop to the broker: signs what is published and hands it to the transport, in the order in which it comes.
//!
//! A task of its own, so that the loop waits for no signature. What comes here is on the disk already. A plan is read from the store when
//! its turn comes, so that what leaves is never older than what is stored.

use std::sync::Arc;

use groundplan_machine::io::{Delivery, Message};
use groundplan_protocol::{
    envelope::{self, SigningKey},
    ids::SiteName,
    topic::{NodeTopic, Topic},
};
use tokio::sync::mpsc::UnboundedReceiver;

use crate::{
    store::Reader,
    transport::{Receipt, Transport},
};

/// What is to be done on the connection.
pub(super) enum Outgoing {
    /// Sign and publish.
    Publish(Message),
    /// Acknowledge a message.
    Acknowledge(Receipt),
    /// Let the outbox flow.
    Open,
    /// Send what is urgent, and disconnect.
    Stop,
}

/// Publishes until [`Outgoing::Stop`], or until the loop has ended.
pub(super) async fn run(
    site: SiteName,
    key: Arc<SigningKey>,
    store: Reader,
    transport: Transport,
    mut outgoing: UnboundedReceiver<Outgoing>,
) {
    while let Some(next) = outgoing.recv().await {
        match next {
            Outgoing::Publish(message) => publish(&site, &key, &store, &transport, message),
            Outgoing::Acknowledge(receipt) => transport.acknowledge(receipt),
            Outgoing::Open => transport.open(),
            Outgoing::Stop => return transport.stop(),
        }
    }
}

fn publish(site: &SiteName, key: &SigningKey, store: &Reader, transport: &Transport, message: Message) {
    let name = |node, topic| Topic::Node(node, topic).name(site);
    match message {
        Message::Presence { presence, retain } => {
            transport.publish_urgent(Topic::Planner.name(site), envelope::seal(key, &presence), retain);
        }
        Message::Plan(node) => match store.plan(&node) {
            Ok(Some(plan)) => transport.publish(name(node, NodeTopic::Plan), plan.sealed, true),
            Ok(None) => {}
            Err(error) => {
                tracing::error!(error = &error as &dyn std::error::Error, %node, "its plan cannot be published");
            }
        },
        Message::Gates(gates) => {
            transport.publish(name(gates.node.clone(), NodeTopic::Gates), envelope::seal(key, &gates), true);
        }
        Message::Ack(ack) => {
            transport.publish(name(ack.node.clone(), NodeTopic::Ack), envelope::seal(key, &ack), false);
        }
        Message::Check(request) => {
            transport.publish(name(request.node.clone(), NodeTopic::Check), envelope::seal(key, &request), true);
        }
        Message::Exec(exec, delivery) => {
            let (topic, payload) = (name(exec.node.clone(), NodeTopic::Exec), envelope::seal(key, &exec));
            match delivery {
                Delivery::Now => transport.publish_each(topic, payload, false),
                Delivery::Late => transport.publish_each(topic, payload, true),
                Delivery::Urgent => transport.publish_urgent(topic, payload, false),
            }
        }
        Message::Clear(node, topic) => transport.publish(name(node, topic), Vec::new(), true),
    }
}
