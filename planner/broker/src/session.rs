//! One client's session: its subscriptions, what waits for it, what is in flight to it, and its connection if any.
//!
//! In: messages to deliver, acknowledgements, connections that come and go. Out: encoded packets, in order.
//! Keeps the order: a message is sent only after all that were queued before it; what was in flight when a
//! connection ended is sent again first, in its order, with its packet id and DUP (`[MQTT-4.4.0-1]`, `[MQTT-4.6.0-1]`).
//! Never drops a QoS 1 message: a queue beyond its bounds is [`Overflow`], and ends the session.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

use bytes::BytesMut;
use rumqttc::mqttbytes::QoS;
use tokio::sync::Notify;

use super::{
    Limits, codec,
    filter::{Filter, Topic},
};

/// Room that an empty queue may keep, in messages: a burst that is over shall cost nothing.
const IDLE_QUEUE: usize = 256;

/// Names a session as long as it lives; never used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct SessionId(pub(super) u64);

/// What was published. Owns its bytes: a slice of the read buffer would keep all of that buffer alive.
#[derive(Debug)]
pub(crate) struct Message {
    pub(crate) topic: Topic,
    pub(crate) payload: Box<[u8]>,
}

impl Message {
    /// Bytes of topic and payload.
    pub(crate) fn size(&self) -> usize {
        self.topic.as_str().len() + self.payload.len()
    }
}

/// The message to publish if the client goes without DISCONNECT.
#[derive(Debug)]
pub(crate) struct Will {
    pub(crate) message: Arc<Message>,
    pub(crate) qos: QoS,
    pub(crate) retain: bool,
}

/// A message on its way to this client.
#[derive(Debug)]
struct Delivery {
    message: Arc<Message>,
    /// Zero until it is sent for the first time.
    pkid: u16,
    qos: QoS,
    retain: bool,
    /// Bytes that it counts for: none if the retained store holds the message anyhow.
    counted: usize,
}

/// What a connection's task waits for, besides its socket.
#[derive(Debug, Default)]
pub(crate) struct Signals {
    /// There is something to send.
    pub(crate) output: Notify,
    /// The session is somebody else's now, or ended. Apart from `output`: a writer that is stuck does not look there.
    pub(crate) close: Notify,
}

/// The connection that serves a session at present.
pub(crate) struct Connection {
    /// Grows with every connection of the broker: a late word from an older one is known by it.
    pub(crate) generation: u64,
    /// How the connection's task learns of things.
    pub(crate) signals: Arc<Signals>,
    /// Encoded answers (PUBACK, SUBACK, …), sent before any message.
    pub(crate) control: BytesMut,
    pub(crate) will: Option<Will>,
    /// A wake-up is under way: no need for another.
    awake: bool,
}

impl Connection {
    pub(crate) fn new(generation: u64, will: Option<Will>) -> Self {
        Self { generation, signals: Arc::default(), control: BytesMut::new(), will, awake: false }
    }

    /// Wakes the writer, once until it has looked.
    pub(crate) fn wake(&mut self) {
        if !self.awake {
            self.awake = true;
            self.signals.output.notify_one();
        }
    }
}

/// More waits than the limits allow.
#[derive(Debug)]
pub(crate) struct Overflow;

/// A client's session.
pub(crate) struct Session {
    pub(crate) client: Arc<str>,
    pub(crate) identity: Arc<str>,
    pub(crate) clean: bool,
    pub(crate) connection: Option<Connection>,
    /// When the last connection ended, as a count of such endings: the least is away for longest.
    pub(crate) away_since: u64,
    pub(crate) subscriptions: BTreeMap<Filter, QoS>,
    queue: VecDeque<Delivery>,
    in_flight: VecDeque<Delivery>,
    queued_bytes: usize,
    /// Of the deliveries at the front of `queue`, how many were sent on an earlier connection.
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

    /// Messages that wait or are in flight.
    pub(crate) fn waiting(&self) -> usize {
        self.queue.len() + self.in_flight.len()
    }

    /// Bytes of those that count.
    pub(crate) fn waiting_bytes(&self) -> usize {
        self.queued_bytes
    }

    /// Queues a message. `kept` says that the retained store holds it, so that its bytes are not the queue's.
    pub(crate) fn enqueue(
        &mut self,
        message: &Arc<Message>,
        qos: QoS,
        retain: bool,
        kept: bool,
        limits: &Limits,
    ) -> Result<(), Overflow> {
        // At most once: nothing is owed to a client that is not there (as Mosquitto has it by default).
        if self.connection.is_none() && qos == QoS::AtMostOnce {
            return Ok(());
        }
        let counted = if kept { 0 } else { message.size() };
        if self.waiting() >= limits.max_queued_messages || self.queued_bytes + counted > limits.max_queued_bytes {
            return Err(Overflow);
        }
        self.queued_bytes += counted;
        self.queue.push_back(Delivery { message: Arc::clone(message), pkid: 0, qos, retain, counted });
        if self.in_flight.len() < limits.max_in_flight
            && let Some(connection) = &mut self.connection
        {
            connection.wake();
        }
        Ok(())
    }

    /// The client has acknowledged a message. An unknown id is no error: it may be of an earlier session.
    pub(crate) fn acknowledge(&mut self, pkid: u16, limits: &Limits) {
        let Some(at) = self.in_flight.iter().position(|delivery| delivery.pkid == pkid) else { return };
        let was_full = self.in_flight.len() >= limits.max_in_flight;
        if let Some(done) = self.in_flight.remove(at) {
            self.queued_bytes -= done.counted;
        }
        // An acknowledgement of the first also ends the wait for a packet id, see `next_pkid`.
        if (was_full || at == 0)
            && !self.queue.is_empty()
            && let Some(connection) = &mut self.connection
        {
            connection.wake();
        }
    }

    /// The connection is gone: what was in flight is to be sent again, before all else.
    pub(crate) fn detach(&mut self) -> Option<Connection> {
        let connection = self.connection.take();
        let (mut kept, mut kept_bytes) = (VecDeque::with_capacity(self.waiting()), 0);
        self.again += self.in_flight.len();
        for delivery in self.in_flight.drain(..).chain(self.queue.drain(..)) {
            // QoS 0 is for those who are there.
            if delivery.qos != QoS::AtMostOnce {
                kept_bytes += delivery.counted;
                kept.push_back(delivery);
            }
        }
        self.queue = kept;
        self.queued_bytes = kept_bytes;
        connection
    }

    /// Encodes what can be sent now into `out`, up to about `budget` bytes. Returns how many messages that was.
    pub(crate) fn fill(&mut self, out: &mut BytesMut, budget: usize, limits: &Limits) -> u64 {
        let Some(connection) = &mut self.connection else { return 0 };
        connection.awake = false;
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
                self.last_pkid = if dup { self.last_pkid } else { pkid };
                self.in_flight.push_back(delivery);
            }
        }
        if self.queue.is_empty() && self.queue.capacity() > IDLE_QUEUE {
            self.queue.shrink_to(IDLE_QUEUE);
        }
        sent
    }

    /// The next packet id, unless it is still in use. Ids are given out round and round, and what is in flight keeps
    /// that order, so the only one in use that the next can meet is the oldest.
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

    /// What is sent now: packet id, number, DUP.
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
        // And once more, after a connection that was acknowledged in part and a full window.
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
        assert_eq!(sent(&mut session, &limits), [], "1 is in flight still");
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
