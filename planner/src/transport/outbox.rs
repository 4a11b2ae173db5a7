//! What is to be published: one message a topic, in the order in which the latest came; and orders, of which each counts.
//!
//! Sent but unconfirmed messages are kept until the broker has them: they go first on the next connection, unless a later one
//! has taken their place.

use std::collections::{BTreeMap, HashMap, VecDeque};

use bytes::Bytes;

/// A message that is to be published with QoS 1.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Outgoing {
    pub(super) topic: String,
    pub(super) payload: Bytes,
    pub(super) retain: bool,
    /// Which of its topic counts.
    pub(super) counts: Counts,
}

/// Which messages of a topic count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Counts {
    /// The latest.
    Latest,
    /// Each.
    Each,
    /// Each, on this connection: what is lost with it is not to come late.
    Now,
}

/// The messages that have not left, and those that the broker has not confirmed.
#[derive(Default)]
pub(super) struct Outbox {
    urgent: VecDeque<Outgoing>,
    /// By number of arrival.
    waiting: BTreeMap<u64, Outgoing>,
    latest: HashMap<String, u64>,
    next: u64,
    bytes: usize,
    /// In the order in which they left; the packet's id is known once the client has written it.
    sent: VecDeque<(Option<u16>, Outgoing)>,
}

impl Outbox {
    pub(super) fn push(&mut self, message: Outgoing) {
        let number = self.next;
        self.next += 1;
        if message.counts == Counts::Latest
            && let Some(before) = self.latest.insert(message.topic.clone(), number)
        {
            self.bytes -= self.waiting.remove(&before).map_or(0, |m| m.payload.len());
        }
        self.bytes += message.payload.len();
        self.waiting.insert(number, message);
    }

    pub(super) fn push_urgent(&mut self, message: Outgoing) {
        self.bytes += message.payload.len();
        self.urgent.push_back(message);
    }

    /// The message that leaves next, if there is one; before the outbox is `open`, only urgent ones leave.
    pub(super) fn peek(&self, open: bool) -> Option<&Outgoing> {
        self.urgent.front().or_else(|| self.waiting.values().next().filter(|_| open))
    }

    /// Records that the message of [`Outbox::peek`] has been given to the client.
    pub(super) fn left(&mut self) {
        // The same order as in `peek`. The bytes are subtracted when the broker confirms.
        if let Some(message) = self.urgent.pop_front() {
            self.sent.push_back((None, message));
        } else if let Some((_, message)) = self.waiting.pop_first() {
            if message.counts == Counts::Latest {
                self.latest.remove(&message.topic);
            }
            self.sent.push_back((None, message));
        }
    }

    /// The client has written the oldest of those that left and have no packet yet.
    pub(super) fn written(&mut self, packet: u16) {
        // The client writes in the order in which it was given the messages, so the oldest without an id is the one.
        if let Some((id, _)) = self.sent.iter_mut().find(|(id, _)| id.is_none()) {
            *id = Some(packet);
        }
    }

    /// The broker has confirmed the packet. A packet that is not known here is ignored.
    pub(super) fn confirmed(&mut self, packet: u16) {
        if let Some(i) = self.sent.iter().position(|(id, _)| *id == Some(packet)) {
            let (_, message) = self.sent.remove(i).expect("just found");
            self.bytes -= message.payload.len();
        }
    }

    /// The payloads that wait or are in flight, in bytes.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether nothing is in flight and nothing urgent waits.
    pub(super) fn is_settled(&self) -> bool {
        self.sent.is_empty() && self.urgent.is_empty()
    }

    /// The connection has ended: what was in flight waits again, except for urgent messages and [`Counts::Now`], which are for one
    /// connection only.
    pub(super) fn disconnected(&mut self) {
        self.urgent.clear();
        self.bytes = 0;
        // What was in flight goes first, as it did before. A later message of the same topic still takes its place: `push` sees to that.
        let rest: Vec<Outgoing> = std::mem::take(&mut self.waiting).into_values().collect();
        self.latest.clear();
        let again: Vec<Outgoing> = self.sent.drain(..).map(|(_, message)| message).collect();
        let lasting = again.into_iter().chain(rest).filter(|message| message.counts != Counts::Now);
        lasting.for_each(|message| self.push(message));
    }

    /// The broker has lost the session: the planner publishes everything again, and what is here may be older than that.
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(topic: &str, payload: &'static str) -> Outgoing {
        Outgoing { topic: topic.to_owned(), payload: payload.into(), retain: true, counts: Counts::Latest }
    }

    fn drain(outbox: &mut Outbox) -> Vec<String> {
        let mut out = Vec::new();
        while let Some(next) = outbox.peek(true) {
            out.push(format!("{}={}", next.topic, String::from_utf8_lossy(&next.payload)));
            outbox.left();
        }
        out
    }

    #[test]
    fn the_latest_of_a_topic_goes_last_and_alone() {
        let mut outbox = Outbox::default();
        [("gates", "1"), ("plan", "2"), ("gates", "2")].into_iter().for_each(|(t, p)| outbox.push(message(t, p)));
        assert!(outbox.peek(false).is_none());
        assert_eq!(drain(&mut outbox), ["plan=2", "gates=2"]);
    }

    #[test]
    fn of_orders_each_counts() {
        let mut outbox = Outbox::default();
        let orders = [("run", Counts::Now), ("stop", Counts::Each), ("run again", Counts::Now)];
        let push = |outbox: &mut Outbox| {
            orders
                .iter()
                .for_each(|(order, counts)| outbox.push(Outgoing { counts: *counts, ..message("exec", order) }));
        };
        push(&mut outbox);
        assert_eq!(drain(&mut outbox), ["exec=run", "exec=stop", "exec=run again"]);
        outbox.clear();
        push(&mut outbox);
        outbox.left();
        outbox.written(1);
        outbox.disconnected();
        assert_eq!(drain(&mut outbox), ["exec=stop"], "a run that comes late is none that anybody asked for");
        assert_eq!(outbox.peek(true), None);
    }

    #[test]
    fn what_is_unconfirmed_goes_again() {
        let mut outbox = Outbox::default();
        ["a", "b", "c"].into_iter().for_each(|topic| outbox.push(message(topic, "1")));
        outbox.left();
        outbox.left();
        outbox.written(1);
        outbox.written(2);
        outbox.confirmed(1);
        outbox.push(message("b", "2"));
        outbox.push_urgent(message("u", "1"));
        outbox.disconnected();
        assert_eq!(drain(&mut outbox), ["c=1", "b=2"]);
    }
}
