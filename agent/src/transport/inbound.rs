//! Reading messages from the broker: by topic, and only from an envelope that a trusted planner signed for this site.

use groundplan_protocol::{
    digest::Digest,
    drift::CheckRequest,
    encryption::DecryptionKey,
    envelope::{Message, OpenError, PublicKey, open, open_for},
    exec::Exec,
    ids::{NodeId, SiteName},
    presence::Heartbeat,
    topic::{NodeTopic, Topic},
};

use crate::{log, machine::Event};

/// The content of a payload.
#[derive(Debug)]
pub enum Inbound {
    /// An event for the machine.
    Event(Event),
    /// A chunk of a blob, as it came: only who has the key of the blob can tell whether it is one.
    Chunk(Digest, u32),
    /// A request for drift checks.
    CheckRequest(CheckRequest),
    /// A planner is there.
    Heartbeat(Heartbeat),
    /// A command to run or to stop.
    Exec(Exec),
    /// A retained message was cleared: nothing to do.
    Nothing,
}

/// Checks topic and envelope of a payload, and parses what is in it.
#[derive(Debug)]
pub struct Reader {
    /// The site whose topics and envelopes count.
    pub site: SiteName,
    /// The node whose topics count.
    pub node: NodeId,
    /// The planners' keys whose signatures count.
    pub trusted: Vec<PublicKey>,
    /// The key of this node that planners encrypt to.
    pub decryption: DecryptionKey,
}

impl Reader {
    /// Reads a payload that came on `topic`.
    pub fn read(&self, topic: &str, payload: &[u8]) -> Inbound {
        let Some(topic) = Topic::parse(&self.site, topic) else { return Inbound::Event(Event::Ignored) };
        let limit = topic.kind().spec().limit;
        let topic = match topic {
            Topic::Blob(digest, n) if payload.len() <= limit => return Inbound::Chunk(digest, n),
            Topic::Node(node, topic) if node == self.node => Some(topic),
            Topic::Heartbeat => None,
            _ => return Inbound::Event(Event::Ignored),
        };
        let Some(topic) = topic else {
            // Any client may send one at some brokers: it is not reported for each.
            let beat = (payload.len() <= limit).then(|| self.open(payload).ok()).flatten();
            return beat.map_or(Inbound::Event(Event::Ignored), Inbound::Heartbeat);
        };
        if payload.is_empty() {
            return Inbound::Nothing;
        }
        if payload.len() > limit {
            return Inbound::Event(refused(
                topic,
                format!("it has {} bytes, above the limit of {limit}", payload.len()),
            ));
        }
        let event = match topic {
            NodeTopic::Plan => self.decrypt(payload).map(|offer| Event::Plan(Box::new(offer))),
            NodeTopic::Gates => self.open(payload).map(Event::Gates),
            NodeTopic::Ack => self.open(payload).map(Event::Ack),
            NodeTopic::Check => match self.open(payload) {
                Ok(request) => return Inbound::CheckRequest(request),
                Err(error) => Err(error),
            },
            NodeTopic::Exec => match self.decrypt(payload) {
                Ok(exec) => return Inbound::Exec(exec),
                Err(error) => Err(error),
            },
            _ => Ok(Event::Ignored),
        };
        Inbound::Event(event.unwrap_or_else(|error| refused(topic, log::chain(&error))))
    }

    fn open<M: Message>(&self, payload: &[u8]) -> Result<M, OpenError> {
        open(payload, &self.trusted, &self.site)
    }

    fn decrypt<M: Message>(&self, payload: &[u8]) -> Result<M, OpenError> {
        open_for(payload, &self.trusted, &self.site, &self.decryption)
    }
}

/// A message that cannot be used. The state reports it for the topics whose messages the planner waits for.
fn refused(topic: NodeTopic, reason: String) -> Event {
    match topic {
        NodeTopic::Plan | NodeTopic::Gates | NodeTopic::Exec => {
            Event::Refused { topic: topic.name(), generation: None, reason }
        }
        _ => Event::Ignored,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use groundplan_protocol::{
        VERSION,
        envelope::{SigningKey, seal},
        ids::Generation,
        plan::Gates,
    };

    use super::*;

    #[test]
    fn what_others_put_into_an_envelope_is_neither_logged_nor_stored_in_full() {
        let (site, node): (SiteName, NodeId) = ("lab".parse().unwrap(), "a".parse().unwrap());
        let decryption = SigningKey::from_seed([1; 32]).decryption();
        let reader = Reader { site: site.clone(), node: node.clone(), trusted: Vec::new(), decryption };
        let long = "\u{202e}\u{1b}[2J".to_owned() + &"x".repeat(100_000);
        let envelope = |kind: &str, extra: &str| {
            let json = serde_json::json!({ "payload": "", "payloadType": kind, "signatures": [] }).to_string();
            json.replacen('{', &format!("{{{extra}"), 1)
        };
        let twice = format!("\"payloadType\":[{}],", serde_json::json!(long));
        for payload in [envelope(&long, ""), envelope("x", &twice), format!("[{}]", serde_json::json!(long))] {
            let topic = Topic::Node(node.clone(), NodeTopic::Exec).name(&site);
            let Inbound::Event(Event::Refused { reason, .. }) = reader.read(&topic, payload.as_bytes()) else {
                panic!("not refused")
            };
            assert!(reason.len() < 2000, "{} bytes: {:.300}", reason.len(), reason);
            assert!(!reason.chars().any(groundplan_protocol::text::is_hostile), "{reason:?}");
        }
    }

    #[test]
    fn few_signatures_are_tried_each_with_the_key_that_it_names_and_the_topic_limits_the_size() {
        let (site, node): (SiteName, NodeId) = ("lab".parse().unwrap(), "a".parse().unwrap());
        let key = SigningKey::from_seed([1; 32]);
        let (site_of, decryption) = (site.clone(), key.decryption());
        let reader = Reader { site: site_of, node: node.clone(), trusted: vec![key.public()], decryption };
        let gates = Gates {
            version: VERSION,
            site: site.clone(),
            node: node.clone(),
            plan: Digest::of(b""),
            generation: Generation(1),
            open: BTreeMap::new(),
        };
        let sealed = seal(&key, &gates);
        let read = |topic: NodeTopic, payload: &[u8]| match reader
            .read(&Topic::Node(node.clone(), topic).name(&site), payload)
        {
            Inbound::Event(Event::Gates(_)) => "gates".to_owned(),
            Inbound::Event(Event::Refused { reason, .. }) => reason,
            other => format!("{other:?}"),
        };
        let with = |change: &dyn Fn(&mut Vec<serde_json::Value>)| {
            let mut envelope: serde_json::Value = serde_json::from_slice(&sealed).unwrap();
            change(envelope["signatures"].as_array_mut().unwrap());
            serde_json::to_vec(&envelope).unwrap()
        };
        let many = |n: usize| with(&|signatures| signatures.resize(n, signatures[0].clone()));
        assert_eq!(read(NodeTopic::Gates, &many(4)), "gates");
        assert_eq!(read(NodeTopic::Gates, &many(5)), "has 5 signatures; the limit is 4");
        assert_eq!(read(NodeTopic::Gates, &many(19_064)), "has 19064 signatures; the limit is 4");
        let other = with(&|signatures| signatures[0]["keyid"] = "0123456789abcdef".into());
        assert_eq!(read(NodeTopic::Gates, &other), "not signed by a trusted key");
        for topic in [NodeTopic::Plan, NodeTopic::Gates, NodeTopic::Exec, NodeTopic::Ack, NodeTopic::Check] {
            let limit = topic.spec().limit;
            let expected = match topic {
                NodeTopic::Ack | NodeTopic::Check => "Event(Ignored)".to_owned(),
                _ => format!("it has {} bytes, above the limit of {limit}", limit + 1),
            };
            assert_eq!(read(topic, &vec![b' '; limit + 1]), expected);
        }
    }
}
