//! The broker's state: sessions, subscriptions, retained messages. A state machine without IO or clock.
//!
//! In: connections that begin and end, and batches of checked [`Input`]. Out: encoded packets, by [`State::fill`].
//! One lock guards all of it and is taken once per batch: routing a message takes a microsecond, so that finer locks
//! would cost more. Invariants: a session has at most one connection, identified by its generation; input or cleanup
//! from an older generation changes nothing; a message is queued for each matching session, or that session ends.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
};

use bytes::{BufMut, BytesMut};
use rumqttc::mqttbytes::QoS;

use super::{
    codec,
    filter::Filter,
    limits::{Limits, Stats},
    log_limit::{LogLimit, warn_limited},
    retained::Retained,
    session::{Connection, Message, Overflow, Session, SessionId, Signals, Will},
    subscriptions::Subscriptions,
};

/// Ties one connection to its session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Token {
    session: SessionId,
    generation: u64,
}

/// A CONNECT that the policy has admitted.
pub(crate) struct Attach {
    pub(crate) client: Arc<str>,
    /// The identity for the caps: the first name that the client has proved, or else the client id.
    pub(crate) identity: Arc<str>,
    pub(crate) clean: bool,
    pub(crate) will: Option<Will>,
}

/// The session of a new connection.
pub(crate) struct Attached {
    pub(crate) token: Token,
    pub(crate) session_present: bool,
    pub(crate) signals: Arc<Signals>,
}

/// A request of a client, valid and allowed.
pub(crate) enum Input {
    /// PUBLISH; `pkid` is zero for QoS 0.
    Publish {
        message: Arc<Message>,
        qos: QoS,
        retain: bool,
        pkid: u16,
    },
    /// PUBACK.
    Acknowledge {
        pkid: u16,
    },
    /// SUBSCRIBE: each filter with its granted QoS, or `None` if the policy refused it.
    Subscribe {
        pkid: u16,
        filters: Vec<(Filter, Option<QoS>)>,
    },
    Unsubscribe {
        pkid: u16,
        filters: Vec<Filter>,
    },
    Ping,
}

/// Why the state refuses or ends a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Ended {
    #[error("the session was ended, or taken over by another connection")]
    Superseded,
    #[error("too many sessions")]
    TooManySessions,
    #[error("too many retained messages")]
    RetainedFull,
    #[error("the client does not read its answers")]
    AnswersFull,
}

/// Unsent answers of a client that does not read, in bytes: room for a PUBACK of every packet id four times over.
const MAX_CONTROL: usize = 1 << 20;

/// A message to be routed.
struct Publication {
    message: Arc<Message>,
    qos: QoS,
    retain: bool,
}

/// The state; see the module.
pub(crate) struct State {
    limits: Arc<Limits>,
    log: Arc<LogLimit>,
    sessions: HashMap<SessionId, Session>,
    by_client: HashMap<Arc<str>, SessionId>,
    /// Number of sessions of each identity.
    by_identity: HashMap<Arc<str>, usize>,
    subscriptions: Subscriptions,
    retained: Retained,
    /// Source of session ids, generations and `away_since`.
    counter: u64,
    /// Wills to publish. Sessions may end while a message is being routed: their wills follow that message.
    wills: VecDeque<Will>,
    /// Scratch space of `route`, kept to avoid an allocation per message.
    found: Vec<(SessionId, QoS)>,
    received: u64,
    sent: u64,
    ended_full: u64,
}

impl State {
    pub(crate) fn new(limits: Arc<Limits>, log: Arc<LogLimit>) -> Self {
        Self {
            log,
            sessions: HashMap::new(),
            by_client: HashMap::new(),
            by_identity: HashMap::new(),
            subscriptions: Subscriptions::default(),
            retained: Retained::new(limits.max_retained_messages, limits.max_retained_bytes),
            counter: 0,
            wills: VecDeque::new(),
            found: Vec::new(),
            received: 0,
            sent: 0,
            ended_full: 0,
            limits,
        }
    }

    fn next(&mut self) -> u64 {
        self.counter += 1;
        self.counter
    }

    /// Attaches a connection to its session, new or kept. A previous connection of the session is closed and its will
    /// published (`[MQTT-3.1.4-2]`).
    pub(crate) fn attach(&mut self, attach: Attach) -> Result<Attached, Ended> {
        let Attach { client, identity, clean, will } = attach;
        if let Some(&id) = self.by_client.get(&client) {
            if self.sessions.get(&id).is_some_and(|session| session.connection.is_some()) {
                tracing::debug!(%client, "taken over by a new connection");
            }
            self.unbind(id, true);
            // A clean session ends here (`unbind` has removed one that was clean before). Another identity must not
            // inherit subscriptions and messages.
            let kept = self.sessions.get(&id).is_some_and(|session| !clean && session.identity == identity);
            if !kept {
                self.remove(id);
            }
            self.publish_wills();
        }
        // After the old connection's end, so that the token of that one is outdated.
        let generation = self.next();
        let connection = Connection::new(generation, will);
        let signals = Arc::clone(&connection.signals);
        let (id, session_present) = match self.by_client.get(&client) {
            Some(&id) => (id, true),
            None => {
                self.make_room(&identity)?;
                let id = SessionId(self.next());
                self.by_client.insert(Arc::clone(&client), id);
                *self.by_identity.entry(Arc::clone(&identity)).or_default() += 1;
                self.sessions.insert(id, Session::new(client, identity, clean));
                (id, false)
            }
        };
        if let Some(session) = self.sessions.get_mut(&id) {
            session.connection = Some(connection);
        }
        Ok(Attached { token: Token { session: id, generation }, session_present, signals })
    }

    /// Makes room for one more session within the caps: ends the session that has been without a connection for longest.
    fn make_room(&mut self, identity: &Arc<str>) -> Result<(), Ended> {
        let full = self.sessions.len() >= self.limits.max_sessions;
        let of_identity = self.by_identity.get(identity).copied().unwrap_or(0);
        let identity_full = of_identity >= self.limits.max_sessions_per_identity;
        if !full && !identity_full {
            return Ok(());
        }
        let oldest = self
            .sessions
            .iter()
            .filter(|(_, session)| session.connection.is_none() && (!identity_full || session.identity == *identity))
            .min_by_key(|(_, session)| session.away_since)
            .map(|(id, _)| *id)
            .ok_or(Ended::TooManySessions)?;
        if let Some(session) = self.sessions.get(&oldest) {
            warn_limited!(self.log, client = %session.client, "session ended to make room for another");
        }
        self.remove(oldest);
        Ok(())
    }

    /// A connection has ended; `will`: without DISCONNECT. Changes nothing if the session has another connection.
    pub(crate) fn detach(&mut self, token: Token, will: bool) {
        if self.current(token).is_some() {
            self.unbind(token.session, will);
            self.publish_wills();
        }
    }

    /// Detaches a session from its connection, and ends it if it is a clean one.
    fn unbind(&mut self, id: SessionId, will: bool) {
        let away_since = self.next();
        let Some(session) = self.sessions.get_mut(&id) else { return };
        if let Some(mut connection) = session.detach() {
            session.away_since = away_since;
            connection.signals.close.notify_one();
            if will && let Some(will) = connection.will.take() {
                self.wills.push_back(will);
            }
        }
        if session.clean {
            self.remove(id);
        }
    }

    /// Ends a session for good.
    fn remove(&mut self, id: SessionId) {
        let Some(mut session) = self.sessions.remove(&id) else { return };
        self.by_client.remove(&session.client);
        if let Some(count) = self.by_identity.get_mut(&session.identity) {
            *count -= 1;
            if *count == 0 {
                self.by_identity.remove(&session.identity);
            }
        }
        for filter in session.subscriptions.keys() {
            self.subscriptions.remove(filter, id);
        }
        if let Some(mut connection) = session.connection.take() {
            connection.signals.close.notify_one();
            self.wills.extend(connection.will.take());
        }
    }

    fn current(&mut self, token: Token) -> Option<&mut Session> {
        self.sessions
            .get_mut(&token.session)
            .filter(|session| session.connection.as_ref().is_some_and(|c| c.generation == token.generation))
    }

    /// Carries out requests of a client, in order. After an error the caller closes the connection.
    pub(crate) fn handle(&mut self, token: Token, inputs: &mut Vec<Input>) -> Result<(), Ended> {
        for input in inputs.drain(..) {
            // Checked for each input: a publish may end the publisher's own session, if its queue is full.
            if self.current(token).is_none() {
                return Err(Ended::Superseded);
            }
            match input {
                Input::Publish { message, qos, retain, pkid } => {
                    self.received += 1;
                    self.publish(Publication { message, qos, retain })?;
                    // Only now: an acknowledged message is in the queue of every subscriber.
                    if qos != QoS::AtMostOnce {
                        self.answer(token, &[0x40, 2], pkid, &[])?;
                    }
                }
                Input::Acknowledge { pkid } => {
                    let limits = Arc::clone(&self.limits);
                    if let Some(session) = self.current(token) {
                        session.acknowledge(pkid, &limits);
                    }
                }
                Input::Subscribe { pkid, filters } => self.subscribe(token, pkid, filters)?,
                Input::Unsubscribe { pkid, filters } => {
                    for filter in filters {
                        if self.current(token).is_some_and(|s| s.subscriptions.remove(&filter).is_some()) {
                            self.subscriptions.remove(&filter, token.session);
                        }
                    }
                    self.answer(token, &[0xb0, 2], pkid, &[])?;
                }
                Input::Ping => self.control(token, |out| out.put_slice(&[0xd0, 0]))?,
            }
        }
        Ok(())
    }

    fn subscribe(&mut self, token: Token, pkid: u16, filters: Vec<(Filter, Option<QoS>)>) -> Result<(), Ended> {
        let limits = Arc::clone(&self.limits);
        let (mut codes, mut granted) = (Vec::with_capacity(filters.len()), Vec::new());
        for (filter, qos) in filters {
            let session = self.current(token).ok_or(Ended::Superseded)?;
            // Repeating a subscription takes no further room.
            let room =
                session.subscriptions.len() < limits.max_subscriptions || session.subscriptions.contains_key(&filter);
            match qos {
                Some(qos) if room => {
                    codes.push(qos as u8);
                    session.subscriptions.insert(filter.clone(), qos);
                    self.subscriptions.insert(&filter, token.session, qos);
                    granted.push((filter, qos));
                }
                Some(_) => {
                    let client = Arc::clone(&session.client);
                    warn_limited!(self.log, %client, %filter, "subscription refused: too many subscriptions");
                    codes.push(0x80);
                }
                // 0x80: failure (section 3.9.3).
                None => codes.push(0x80),
            }
        }
        let mut head = BytesMut::with_capacity(5);
        head.put_u8(0x90);
        codec::put_length(&mut head, 2 + codes.len());
        self.answer(token, &head, pkid, &codes)?;
        // SUBACK first. Each subscription, new or repeated, then delivers the retained messages that match
        // (`[MQTT-3.3.1-6]`, `[MQTT-3.8.4-3]`).
        for (filter, granted) in granted {
            let Some(session) = self.sessions.get_mut(&token.session) else { return Err(Ended::Superseded) };
            let fits = self
                .retained
                .matching(&filter)
                .try_for_each(|(message, qos)| session.enqueue(message, least(*qos, granted), true, true, &limits));
            if let Err(Overflow) = fits {
                self.end_full(token.session);
                self.publish_wills();
                return Err(Ended::Superseded);
            }
        }
        Ok(())
    }

    /// Stores and routes a message, then the wills of sessions that it ended.
    fn publish(&mut self, publication: Publication) -> Result<(), Ended> {
        if publication.retain && self.retained.store(&publication.message, publication.qos).is_err() {
            return Err(Ended::RetainedFull);
        }
        self.route(&publication);
        self.publish_wills();
        Ok(())
    }

    fn publish_wills(&mut self) {
        while let Some(Will { message, qos, retain }) = self.wills.pop_front() {
            if retain && self.retained.store(&message, qos).is_err() {
                warn_limited!(self.log, topic = %message.topic, "will not retained: too many retained messages");
            }
            self.route(&Publication { message, qos, retain });
        }
    }

    fn route(&mut self, publication: &Publication) {
        let Publication { message, qos, .. } = publication;
        let limits = Arc::clone(&self.limits);
        // Taken out while sessions are borrowed, and put back for its capacity.
        let mut found = std::mem::take(&mut self.found);
        self.subscriptions.collect(message.topic.as_str(), &mut found);
        for (id, granted) in found.drain(..) {
            let Some(session) = self.sessions.get_mut(&id) else { continue };
            // The retain flag marks messages that a new subscription delivers; here it is off (`[MQTT-3.3.1-9]`).
            if let Err(Overflow) = session.enqueue(message, least(*qos, granted), false, false, &limits) {
                self.end_full(id);
            }
        }
        self.found = found;
    }

    fn end_full(&mut self, id: SessionId) {
        self.ended_full += 1;
        if let Some(session) = self.sessions.get(&id) {
            let (messages, bytes) = (session.waiting(), session.waiting_bytes());
            warn_limited!(self.log, client = %session.client, messages, bytes, "session ended: its queue is full");
        }
        self.remove(id);
    }

    fn answer(&mut self, token: Token, head: &[u8], pkid: u16, tail: &[u8]) -> Result<(), Ended> {
        self.control(token, |out| {
            out.put_slice(head);
            out.put_u16(pkid);
            out.put_slice(tail);
        })
    }

    fn control(&mut self, token: Token, put: impl FnOnce(&mut BytesMut)) -> Result<(), Ended> {
        let connection = self.current(token).and_then(|s| s.connection.as_mut()).ok_or(Ended::Superseded)?;
        if connection.control.len() > MAX_CONTROL {
            return Err(Ended::AnswersFull);
        }
        put(&mut connection.control);
        connection.wake();
        Ok(())
    }

    /// Encodes what this connection can send now, up to about `budget` bytes.
    pub(crate) fn fill(&mut self, token: Token, out: &mut BytesMut, budget: usize) -> Result<(), Ended> {
        let limits = Arc::clone(&self.limits);
        let session = self.current(token).ok_or(Ended::Superseded)?;
        self.sent += session.fill(out, budget, &limits);
        Ok(())
    }

    /// Current counts. `connections` and `refused` are not part of the state and stay zero.
    pub(crate) fn stats(&self) -> Stats {
        let sessions = self.sessions.values();
        Stats {
            sessions: self.sessions.len(),
            connected: sessions.clone().filter(|session| session.connection.is_some()).count(),
            subscriptions: sessions.clone().map(|session| session.subscriptions.len()).sum(),
            queued_messages: sessions.clone().map(Session::waiting).sum(),
            queued_bytes: sessions.map(Session::waiting_bytes).sum(),
            retained_messages: self.retained.len(),
            retained_bytes: self.retained.bytes(),
            received: self.received,
            sent: self.sent,
            sessions_ended_full: self.ended_full,
            connections: 0,
            refused: 0,
        }
    }
}

fn least(a: QoS, b: QoS) -> QoS {
    if a == QoS::AtMostOnce { a } else { b }
}
