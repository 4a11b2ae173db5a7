//! One client's session: its subscriptions, its queued and in-flight messages, and its connection if there is one.
//!
//! In: messages to deliver, acknowledgements, connections that begin and end. Out: encoded packets, in order.
//! Keeps the order: a message is sent only after all that were queued before it; messages that were in flight when a
//! connection ended are sent again first, in order, with packet id and DUP (`[MQTT-4.4.0-1]`, `[MQTT-4.6.0-1]`).
//! Never drops a QoS 1 message: a queue above its limits is an [`Overflow`], which ends the session.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

use bytes::BytesMut;
use rumqttc::mqttbytes::QoS;
use tokio::sync::Notify;

use super::{
    codec,
    filter::{Filter, Topic},
    limits::Limits,
};

/// Capacity that an empty queue may keep, in messages: a burst that is over must not hold memory.
const IDLE_QUEUE: usize = 256;

/// Identifies a session; never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct SessionId(pub(super) u64);

/// A published message. Owns its bytes: a slice of the read buffer would keep all of that buffer alive.
#[derive(Debug)]
pub(crate) struct Message {
    pub(crate) topic: Topic,
    pub(crate) payload: Box<[u8]>,
}

impl Message {
    /// Size of topic and payload, in bytes.
    pub(crate) fn size(&self) -> usize {
        self.topic.as_str().len() + self.payload.len()
    }
}

/// The message to publish if the connection ends without DISCONNECT.
#[derive(Debug)]
pub(crate) struct Will {
    pub(crate) message: Arc<Message>,
    pub(crate) qos: QoS,
    pub(crate) retain: bool,
}

/// A message that waits for this client or is in flight to it.
#[derive(Debug)]
struct Delivery {
    message: Arc<Message>,
    /// Zero before the message is sent for the first time.
    pkid: u16,
    qos: QoS,
    retain: bool,
    /// Bytes that count for the queue's limit: none if the retained store holds the message anyway.
    counted: usize,
}

/// Wakes the task of a connection.
#[derive(Debug, Default)]
pub(crate) struct Signals {
    /// There is output to send.
    pub(crate) output: Notify,
    /// The session has ended or has another connection. Separate from `output`, because a writer that blocks on its
    /// socket does not wait for that.
    pub(crate) close: Notify,
}

/// The current connection of a session.
pub(crate) struct Connection {
    /// Grows with every connection of the broker, so that late input from an older connection is recognised.
    pub(crate) generation: u64,
    /// Wakes the task of the connection.
    pub(crate) signals: Arc<Signals>,
    /// Encoded answers (PUBACK, SUBACK, …), sent before any message.
    pub(crate) control: BytesMut,
    pub(crate) will: Option<Will>,
    /// Whether the writer has been woken and has not called [`Session::fill`] since.
    awake: bool,
}

impl Connection {
    pub(crate) fn new(generation: u64, will: Option<Will>) -> Self {
        Self { generation, signals: Arc::default(), control: BytesMut::new(), will, awake: false }
    }

    /// Wakes the writer, at most once before its next [`Session::fill`].
    pub(crate) fn wake(&mut self) {
        if !self.awake {
            self.awake = true;
            self.signals.output.notify_one();
        }
    }
}

/// The queue is at its limits.
#[derive(Debug)]
pub(crate) struct Overflow;

/// A session; see the module.
pub(crate) struct Session {
    pub(crate) client: Arc<str>,
    pub(crate) identity: Arc<str>,
    pub(crate) clean: bool,
    pub(crate) connection: Option<Connection>,
    /// Order in which connections ended: the smallest has been without one for longest.
    pub(crate) away_since: u64,
    pub(crate) subscriptions: BTreeMap<Filter, QoS>,
    queue: VecDeque<Delivery>,
    in_flight: VecDeque<Delivery>,
    queued_bytes: usize,
    /// How many deliveries at the front of `queue` were sent on an earlier connection: they carry DUP.
    again: usize,
    last_pkid: u16,
}

impl Session {
    pub(crate) fn new(client: Arc<str>, identity: Arc<str>, clean: bool) -> Self {
        Self {
            client,
            identity,
            clean,
            connection: None,
            away_since: 0,
            subscriptions: BTreeMap::new(),
            queue: VecDeque::new(),
            in_flight: VecDeque::new(),
            queued_bytes: 0,
            again: 0,
            last_pkid: 0,
        }
    }

    /// Number of messages that wait or are in flight.
    pub(crate) fn waiting(&self) -> usize {
        self.queue.len() + self.in_flight.len()
    }

    /// Bytes of those messages, as far as they count for the limit.
    pub(crate) fn waiting_bytes(&self) -> usize {
        self.queued_bytes
    }

    /// Queues a message. `kept`: the retained store holds the message, so that its bytes do not count for the queue.
    pub(crate) fn enqueue(
        &mut self,
        message: &Arc<Message>,
        qos: QoS,
        retain: bool,
        kept: bool,
        limits: &Limits,
    ) -> Result<(), Overflow> {
        // QoS 0 is not kept for a client without a connection (as in Mosquitto by default).
        if self.connection.is_none() && qos == QoS::AtMostOnce {
            return Ok(());
        }
        let counted = if kept { 0 } else { message.size() };
        if self.waiting() >= limits.max_queued_messages || self.queued_bytes + counted > limits.max_queued_bytes {
            return Err(Overflow);
        }
        self.queued_bytes += counted;
        self.queue.push_back(Delivery { message: Arc::clone(message), pkid: 0, qos, retain, counted });
        // With a full window, the acknowledgement that opens it wakes the writer.
        if self.in_flight.len() < limits.max_in_flight
            && let Some(connection) = &mut self.connection
        {
            connection.wake();
        }
        Ok(())
    }

    /// Removes an acknowledged message. An unknown id is not an error: it may belong to an earlier session.
    pub(crate) fn acknowledge(&mut self, pkid: u16, limits: &Limits) {
        let Some(at) = self.in_flight.iter().position(|delivery| delivery.pkid == pkid) else { return };
        let was_full = self.in_flight.len() >= limits.max_in_flight;
        if let Some(done) = self.in_flight.remove(at) {
            self.queued_bytes -= done.counted;
        }
        // The writer has stopped for one of two reasons: the window was full, or the next packet id was that of the
        // oldest message in flight (see `next_pkid`). Only these acknowledgements end the wait.
        if (was_full || at == 0)
            && !self.queue.is_empty()
            && let Some(connection) = &mut self.connection
        {
            connection.wake();
        }
    }

    /// The connection has ended: moves the messages in flight back to the front of the queue, to be sent again first.
    pub(crate) fn detach(&mut self) -> Option<Connection> {
        let connection = self.connection.take();
        let (mut kept, mut kept_bytes) = (VecDeque::with_capacity(self.waiting()), 0);
        // In the new queue, what was in flight on this connection comes first, then what an earlier one had in flight and
        // this one has not repeated yet: both were sent before, and so carry DUP.
        self.again += self.in_flight.len();
        for delivery in self.in_flight.drain(..).chain(self.queue.drain(..)) {
            // QoS 0 is for connected clients only.
            if delivery.qos != QoS::AtMostOnce {
                kept_bytes += delivery.counted;
                kept.push_back(delivery);
            }
        }
        self.queue = kept;
        self.queued_bytes = kept_bytes;
        connection
    }

    /// Encodes what can be sent now into `out`, up to about `budget` bytes. Returns the number of messages.
    pub(crate) fn fill(&mut self, out: &mut BytesMut, budget: usize, limits: &Limits) -> u64 {
        let Some(connection) = &mut self.connection else { return 0 };
        connection.awake = false;
        // Answers go first; their order among themselves is that of the requests (`[MQTT-4.6.0-2]`).
        if !connection.control.is_empty() {
            if out.is_empty() {
                std::mem::swap(out, &mut connection.control);
            } else {
                out.extend_from_slice(&connection.control);
                connection.control.clear();
            }
        }
        let mut sent = 0;
        while out.len() < budget && self.in_flight.len() < limits.max_in_flight {
            let Some(next) = self.queue.front() else { break };
            let pkid = match (next.qos, next.pkid) {
                (QoS::AtMostOnce, _) => 0,
                // A first delivery takes a new id; a repeated one keeps its own.
                (_, 0) => match self.next_pkid() {
                    Some(pkid) => pkid,
                    None => break,
                },
                (_, pkid) => pkid,
            };
            let Some(mut delivery) = self.queue.pop_front() else { break };
            let dup = self.again > 0;
            self.again = self.again.saturating_sub(1);
            let flags = codec::Flags { dup, qos: delivery.qos, retain: delivery.retain };
            codec::put_publish(out, flags, delivery.message.topic.as_str(), pkid, &delivery.message.payload);
            sent += 1;
            if delivery.qos == QoS::AtMostOnce {
                self.queued_bytes -= delivery.counted;
            } else {
                delivery.pkid = pkid;
                // A repeated delivery has an old id, from which numbering must not go on.
                self.last_pkid = if dup { self.last_pkid } else { pkid };
                self.in_flight.push_back(delivery);
            }
        }
        if self.queue.is_empty() && self.queue.capacity() > IDLE_QUEUE {
            self.queue.shrink_to(IDLE_QUEUE);
        }
        sent
    }

    /// The next packet id, unless it is in use. Ids are assigned in a cycle and messages in flight keep that order, so
    /// only the oldest of them can have the next id.
    fn next_pkid(&self) -> Option<u16> {
        let next = self.last_pkid.checked_add(1).unwrap_or(1);
        (self.in_flight.front().is_none_or(|oldest| oldest.pkid != next)).then_some(next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rumqttc::mqttbytes::v4::Packet;

    fn session() -> Session {
        let mut session = Session::new("c".into(), "c".into(), false);
        session.connection = Some(Connection::new(1, None));
        session
    }

    fn queue(session: &mut Session, numbers: std::ops::Range<u32>, limits: &Limits) -> Result<(), Overflow> {
        for n in numbers {
            let message = Message { topic: Topic::new("t").unwrap(), payload: n.to_string().into_bytes().into() };
            session.enqueue(&Arc::new(message), QoS::AtLeastOnce, false, false, limits)?;
        }
        Ok(())
    }

    /// What is sent now: packet id, number in the payload, DUP.
    fn sent(session: &mut Session, limits: &Limits) -> Vec<(u16, u32, bool)> {
        let (mut out, mut all) = (BytesMut::new(), Vec::new());
        session.fill(&mut out, usize::MAX, limits);
        while let Ok(Packet::Publish(publish)) = Packet::read(&mut out, usize::MAX) {
            let number = std::str::from_utf8(&publish.payload).unwrap().parse().unwrap();
            all.push((publish.pkid, number, publish.dup));
        }
        all
    }

    #[test]
    fn what_was_in_flight_comes_again_first_with_its_id() {
        let limits = Limits { max_in_flight: 3, ..Limits::default() };
        let mut session = session();
        queue(&mut session, 0..6, &limits).unwrap();
        assert_eq!(sent(&mut session, &limits), [(1, 0, false), (2, 1, false), (3, 2, false)]);
        session.acknowledge(2, &limits);
        assert_eq!(sent(&mut session, &limits), [(4, 3, false)]);
        session.detach();
        session.connection = Some(Connection::new(2, None));
        assert_eq!(sent(&mut session, &limits), [(1, 0, true), (3, 2, true), (4, 3, true)]);
        // Again, after a connection with some acknowledgements and a full window.
        session.acknowledge(1, &limits);
        assert_eq!(sent(&mut session, &limits), [(5, 4, false)]);
        session.detach();
        session.connection = Some(Connection::new(3, None));
        assert_eq!(sent(&mut session, &limits), [(3, 2, true), (4, 3, true), (5, 4, true)]);
        for pkid in [3, 4, 5] {
            session.acknowledge(pkid, &limits);
        }
        assert_eq!(sent(&mut session, &limits), [(6, 5, false)]);
        session.acknowledge(6, &limits);
        assert_eq!((session.waiting(), session.waiting_bytes()), (0, 0));
    }

    #[test]
    fn a_packet_id_is_not_given_twice() {
        let limits = Limits { max_in_flight: 2, ..Limits::default() };
        let mut session = session();
        queue(&mut session, 0..1, &limits).unwrap();
        assert_eq!(sent(&mut session, &limits), [(1, 0, false)]);
        for n in 1..=65_534_u32 {
            queue(&mut session, n..n + 1, &limits).unwrap();
            let pkid = sent(&mut session, &limits)[0].0;
            assert_eq!(u32::from(pkid), n + 1);
            session.acknowledge(pkid, &limits);
        }
        queue(&mut session, 0..1, &limits).unwrap();
        assert_eq!(sent(&mut session, &limits), [], "1 is still in flight");
        session.acknowledge(1, &limits);
        assert_eq!(sent(&mut session, &limits), [(1, 0, false)]);
    }

    #[test]
    fn a_full_queue_overflows() {
        let limits = Limits { max_queued_messages: 5, max_queued_bytes: 1000, ..Limits::default() };
        let mut session = session();
        assert!(queue(&mut session, 0..5, &limits).is_ok());
        assert!(queue(&mut session, 5..6, &limits).is_err());
        let limits = Limits { max_queued_messages: 500, max_queued_bytes: 9, ..Limits::default() };
        let mut session = self::session();
        assert!(queue(&mut session, 0..4, &limits).is_ok(), "a byte of topic, a byte of payload each");
        assert!(queue(&mut session, 4..5, &limits).is_err());
    }
}
