//! The last retained message of each topic.
//!
//! In: retained publishes. Out: for a filter, the retained messages in topic order. An empty payload clears
//! (`[MQTT-3.3.1-10]`). Ordered by topic, so that a filter reads only the range below its literal prefix. Limited in
//! messages and bytes: a message beyond the limits is refused, and no other is dropped for it.

use std::{collections::BTreeMap, ops::Bound, sync::Arc};

use super::{filter::Filter, session::Message};
use rumqttc::mqttbytes::QoS;

/// A retained message, with the QoS that it was published with.
pub(crate) type Kept = (Arc<Message>, QoS);

/// All retained messages of the broker.
pub(crate) struct Retained {
    by_topic: BTreeMap<Box<str>, Kept>,
    bytes: usize,
    max_messages: usize,
    max_bytes: usize,
}

/// The store is full.
pub(crate) struct Full;

impl Retained {
    pub(crate) fn new(max_messages: usize, max_bytes: usize) -> Self {
        Self { by_topic: BTreeMap::new(), bytes: 0, max_messages, max_bytes }
    }

    pub(crate) fn len(&self) -> usize {
        self.by_topic.len()
    }

    /// Bytes of topics and payloads.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Stores, overwrites or, with an empty payload, clears.
    pub(crate) fn store(&mut self, message: &Arc<Message>, qos: QoS) -> Result<(), Full> {
        let topic = message.topic.as_str();
        let before = self.by_topic.get(topic).map(|(old, _)| old.size());
        if message.payload.is_empty() {
            self.by_topic.remove(topic);
            self.bytes -= before.unwrap_or(0);
            return Ok(());
        }
        let bytes = self.bytes - before.unwrap_or(0) + message.size();
        if bytes > self.max_bytes || (before.is_none() && self.by_topic.len() >= self.max_messages) {
            return Err(Full);
        }
        self.bytes = bytes;
        match self.by_topic.get_mut(topic) {
            Some(kept) => *kept = (Arc::clone(message), qos),
            None => drop(self.by_topic.insert(topic.into(), (Arc::clone(message), qos))),
        }
        Ok(())
    }

    /// The messages whose topics match, in topic order.
    pub(crate) fn matching<'a>(&'a self, filter: &'a Filter) -> impl Iterator<Item = &'a Kept> {
        let prefix = filter.literal_prefix();
        let end = if filter.is_literal() { Bound::Included(prefix) } else { Bound::Unbounded };
        self.by_topic
            .range::<str, _>((Bound::Included(prefix), end))
            .take_while(move |(topic, _)| topic.starts_with(prefix))
            .filter(move |(topic, _)| filter.matches(topic))
            .map(|(_, kept)| kept)
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::filter::{Topic, tests::paths},
        *,
    };

    fn message(topic: &str, payload: &str) -> Arc<Message> {
        Arc::new(Message { topic: Topic::new(topic).unwrap(), payload: payload.as_bytes().into() })
    }

    #[test]
    fn a_filter_reads_what_matches_it_and_nothing_else() {
        let topics = paths(&["", "a", "aa", "é", "$b"]);
        let mut retained = Retained::new(usize::MAX, usize::MAX);
        for topic in topics.iter().filter(|t| Topic::new(t.as_str()).is_ok()) {
            assert!(retained.store(&message(topic, "x"), QoS::AtLeastOnce).is_ok());
        }
        for filter in paths(&["", "a", "é", "$b", "+", "#"]).into_iter().filter_map(|f| Filter::new(f).ok()) {
            let mut expected: Vec<&str> =
                topics.iter().map(String::as_str).filter(|t| !t.is_empty() && filter.matches(t)).collect();
            expected.sort_unstable();
            let found: Vec<&str> = retained.matching(&filter).map(|(m, _)| m.topic.as_str()).collect();
            assert_eq!(found, expected, "filter {filter}");
        }
    }

    #[test]
    fn overwrites_clears_and_refuses_beyond_its_bounds() {
        let mut retained = Retained::new(2, 12);
        assert!(retained.store(&message("a", "1"), QoS::AtLeastOnce).is_ok());
        assert!(retained.store(&message("a", "22"), QoS::AtLeastOnce).is_ok());
        assert!(retained.store(&message("b", "1"), QoS::AtLeastOnce).is_ok());
        assert_eq!((retained.len(), retained.bytes()), (2, 5));
        assert!(retained.store(&message("c", "1"), QoS::AtLeastOnce).is_err(), "a third topic");
        assert!(retained.store(&message("a", "0123456789"), QoS::AtLeastOnce).is_err(), "too many bytes");
        assert!(retained.store(&message("a", ""), QoS::AtLeastOnce).is_ok());
        assert_eq!((retained.len(), retained.bytes()), (1, 2));
        assert!(retained.store(&message("a", ""), QoS::AtLeastOnce).is_ok(), "clearing nothing is nothing");
    }
}
