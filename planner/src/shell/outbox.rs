//! From the loop to the broker: signs what is published and hands it to the transport, in the order in which it comes.
//!
//! A task of its own, so that the loop waits for no signature. What comes here is on the disk already. A plan is read from the store when
//! its turn comes, so that what leaves is never older than what is stored.

use std::{collections::BTreeSet, sync::Arc};

use groundplan_machine::{
    io::{Delivery, Message, OFFER_VALID},
    record::StoredPlan,
};
use groundplan_protocol::{
    MAX_PACKET, VERSION,
    blob::BlobRef,
    digest::Digest,
    encryption::EncryptionKey,
    envelope::{self, SigningKey},
    ids::{NodeId, SiteName},
    plan::{PlanBody, PlanOffer, PlanText},
    presence::Heartbeat,
    topic::{NodeTopic, Topic},
};
use tokio::sync::mpsc::UnboundedReceiver;

use crate::{
    clock::wall_ms,
    store::Reader,
    transport::{Receipt, Transport},
};

/// Room in a packet for its topic and header, in bytes.
const ROOM: usize = 1024;

/// What is to be done on the connection.
pub(super) enum Outgoing {
    /// Sign and publish.
    Publish(Message),
    /// Have what the broker retains of these nodes sent again.
    Replay(Vec<NodeId>),
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
            Outgoing::Replay(nodes) => nodes.iter().for_each(|node| transport.replay(&site, node)),
            Outgoing::Acknowledge(receipt) => transport.acknowledge(receipt),
            Outgoing::Open => transport.open(),
            Outgoing::Stop => return transport.stop(),
        }
    }
}

/// The signed offer of a plan, encrypted to the node's key.
fn offer(
    key: &SigningKey,
    site: &SiteName,
    (node, to): (&NodeId, &EncryptionKey),
    term: u64,
    plan: StoredPlan,
) -> Result<Vec<u8>, Box<dyn std::error::Error>> {
    let issued_ms = wall_ms();
    let times = (issued_ms, issued_ms + OFFER_VALID.as_millis() as u64);
    let of = (site.clone(), node.clone(), plan.note.generation);
    let blob = BlobRef::of(&plan.json);
    let text = PlanText::from_json(plan.json)?;
    let mut blobs = text.blobs()?;
    let mut offer = PlanOffer::new(key, term, of, text, times);
    let keys = |blobs: &BTreeSet<Digest>| blobs.iter().map(|digest| (*digest, key.content_key(digest))).collect();
    offer.keys = keys(&blobs);
    let signed = envelope::seal_for(key, to, &offer)?;
    // A larger one would be refused by the broker. The node fetches the plan in chunks, like content, and checks it against the digest in
    // the signed offer.
    if signed.len() <= MAX_PACKET - ROOM {
        return Ok(signed);
    }
    blobs.insert(blob.sha256);
    Ok(envelope::seal_for(key, to, &PlanOffer { keys: keys(&blobs), body: PlanBody::Blob(blob), ..offer })?)
}

fn publish(site: &SiteName, key: &SigningKey, store: &Reader, transport: &Transport, message: Message) {
    // Retention is a property of the topic. The exception is a planner's presence, which it also publishes as a question.
    let to = |node: NodeId, topic: NodeTopic, payload: Vec<u8>| {
        transport.publish(Topic::Node(node, topic).name(site), payload, topic.spec().is_retained());
    };
    match message {
        Message::Presence { presence, retain } => {
            transport.publish_urgent(Topic::Planner.name(site), envelope::seal(key, &presence), retain);
        }
        Message::Heartbeat(term) => {
            let encryption_key = Some(key.decryption().public());
            let beat = Heartbeat { version: VERSION, site: site.clone(), term, at_ms: wall_ms(), encryption_key };
            transport.publish(Topic::Heartbeat.name(site), envelope::seal(key, &beat), true);
        }
        // It may be newer than when this was queued: then it is published twice, which does no harm.
        Message::Plan(node, term, recipient) => match store.plan(&node) {
            Ok(Some(plan)) => match offer(key, site, (&node, &recipient), term, plan) {
                Ok(offer) => to(node, NodeTopic::Plan, offer),
                Err(error) => tracing::error!(%error, %node, "its plan cannot be offered"),
            },
            Ok(None) => {}
            Err(error) => {
                tracing::error!(error = &error as &dyn std::error::Error, %node, "its plan cannot be published");
            }
        },
        Message::Gates(gates) => to(gates.node.clone(), NodeTopic::Gates, envelope::seal(key, &gates)),
        Message::Ack(ack) => to(ack.node.clone(), NodeTopic::Ack, envelope::seal(key, &ack)),
        Message::Check(request) => to(request.node.clone(), NodeTopic::Check, envelope::seal(key, &request)),
        Message::Exec(exec, recipient, delivery) => {
            let topic = Topic::Node(exec.node.clone(), NodeTopic::Exec).name(site);
            let payload = match envelope::seal_for(key, &recipient, &exec) {
                Ok(payload) => payload,
                Err(error) => return tracing::error!(%error, node = %exec.node, "nothing can be encrypted to its key"),
            };
            match delivery {
                Delivery::Now => transport.publish_each(topic, payload, false),
                Delivery::Late => transport.publish_each(topic, payload, true),
                Delivery::Urgent => transport.publish_urgent(topic, payload, false),
            }
        }
        // An empty retained message removes the one before it (MQTT 3.1.1, section 3.3.1.3).
        Message::Clear(node, topic) => to(node, topic, Vec::new()),
    }
}
