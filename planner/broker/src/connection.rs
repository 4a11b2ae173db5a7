//! One client's connection, from its first byte to its end: all of the broker's IO.
//!
//! In: a byte stream and its [`Peer`]. Out: checked input for the [`State`], and the state's output on the wire.
//! One task reads and writes concurrently: a client that does not read its messages blocks neither the reading of what
//! it sends nor another client. Packets are batched: all packets of a read are handled under one lock, and a write sends
//! as much as fits a buffer. However the connection ends, dropping [`SessionGuard`] detaches the session, once.

use std::{
    future::pending,
    io,
    sync::{Arc, Mutex, atomic::Ordering},
    time::Duration,
};

use bytes::BytesMut;
use rumqttc::mqttbytes::{
    QoS,
    v4::{Connect, ConnectReturnCode, Login, Packet},
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    time::{Instant, timeout, timeout_at},
};

use super::{
    codec::{self, ProtocolError},
    filter::{Filter, Malformed, Topic},
    log_limit::{excerpt, warn_limited},
    policy::{Client, Passwords, Peer, Publication, Refusal},
    session::{Message, Will},
    shared::{Place, Shared, lock},
    state::{Attach, Attached, Ended, Input, State, Token},
};

/// Largest CONNECT, in bytes: client id, will topic and message, user name and password of the greatest length. Less
/// than other packets, because the client is not authenticated yet.
const MAX_CONNECT: usize = 5 * 65_535 + 64;
/// Free space for a read, in bytes: the least and the most.
const READ: std::ops::Range<usize> = 2 << 10..64 << 10;
/// Bytes to encode before a write.
const WRITE: usize = 64 << 10;
/// How long a refused client may take to read the reason.
const LINGER: Duration = Duration::from_secs(1);

/// Why a connection ended.
#[derive(Debug, thiserror::Error)]
pub(crate) enum End {
    #[error("the client sent DISCONNECT")]
    Disconnect,
    #[error("the client closed the connection")]
    Closed,
    #[error("reading or writing failed")]
    Io(#[source] io::Error),
    #[error("no CONNECT in time")]
    NoConnect,
    #[error("no CONNECT yet, and newer connections need its place")]
    Displaced,
    #[error("no packet for one and a half times the keep-alive of {0} s")]
    KeepAlive(u16),
    #[error("protocol error")]
    Protocol(#[source] ProtocolError),
    #[error("the policy refuses {what}")]
    Refused {
        what: String,
        #[source]
        source: Refusal,
    },
    #[error("the broker ended the session")]
    Ended(#[source] Ended),
    #[error("a persistent session with an empty client id")]
    NoClientId,
}

/// Ties a session to its connection; dropping it detaches the session, also when the task is aborted.
struct SessionGuard<'a> {
    state: &'a Mutex<State>,
    token: Token,
    will: bool,
}

impl Drop for SessionGuard<'_> {
    fn drop(&mut self) {
        lock(self.state).detach(self.token, self.will);
    }
}

/// The result of a connection that has ended.
pub(crate) struct Served {
    /// The client id, if the client was admitted.
    pub(crate) client: Option<Arc<str>>,
    pub(crate) end: End,
}

/// How a new client proves its names.
pub(crate) enum Proof {
    /// It has proved them, or need not.
    Given,
    /// By the user name and the password of its CONNECT.
    Password(Arc<dyn Passwords>),
}

/// Serves one client until its connection ends. Its CONNECT must arrive before `deadline`; `place` is given back once it
/// was accepted.
pub(crate) async fn serve<S>(
    shared: &Shared,
    mut stream: S,
    peer: Peer,
    proof: Proof,
    deadline: Instant,
    place: Option<Place>,
) -> Served
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut incoming = Incoming::new();
    let greeted = greet(shared, &mut stream, &mut incoming, (peer, proof, place.as_ref()), deadline).await;
    let (client, attached, keep_alive) = match greeted {
        Ok(greeted) => greeted,
        Err(end) => return Served { client: None, end },
    };
    drop(place);
    let mut guard = SessionGuard { state: &shared.state, token: attached.token, will: true };
    let (input, output) = tokio::io::split(stream);
    let end = tokio::select! {
        end = read(shared, input, incoming, &client, attached.token, keep_alive) => end,
        end = write(shared, output, &attached) => end,
        () = attached.signals.close.notified() => End::Ended(Ended::Superseded),
    };
    guard.will = !matches!(end, End::Disconnect);
    Served { client: Some(client.id), end }
}

/// Reads CONNECT and attaches the session. A refused client gets a CONNACK where MQTT has a code for the reason.
async fn greet<S>(
    shared: &Shared,
    stream: &mut S,
    incoming: &mut Incoming,
    (peer, proof, place): (Peer, Proof, Option<&Place>),
    deadline: Instant,
) -> Result<(Client, Attached, u16), End>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let first = timeout_at(deadline, first_packet(stream, incoming, shared.limits.max_packet)).await;
    let connect = match first {
        Ok(Ok(connect)) => connect,
        Ok(Err(End::Protocol(error @ ProtocolError::Version { .. }))) => {
            place.inspect(|place| place.refused());
            refuse(stream, ConnectReturnCode::RefusedProtocolVersion).await;
            return Err(End::Protocol(error));
        }
        Ok(Err(end)) => return Err(end),
        Err(_) => return Err(End::NoConnect),
    };
    let keep_alive = connect.keep_alive;
    match admit(shared, peer, proof, connect) {
        Ok((client, attached)) => Ok((client, attached, keep_alive)),
        Err((code, end)) => {
            if let Some(code) = code {
                place.inspect(|place| place.refused());
                refuse(stream, code).await;
            }
            Err(end)
        }
    }
}

async fn first_packet(
    stream: &mut (impl AsyncRead + Unpin),
    incoming: &mut Incoming,
    max_packet: usize,
) -> Result<Connect, End> {
    loop {
        match codec::next(&mut incoming.bytes, max_packet.min(MAX_CONNECT)).map_err(End::Protocol)? {
            Some(Packet::Connect(connect)) => return Ok(connect),
            Some(packet) => return Err(End::Protocol(ProtocolError::Unexpected(kind(&packet)))),
            None => incoming.receive(stream).await?,
        }
    }
}

/// A read buffer that adapts to the traffic: small for the many idle clients, large for those that send much.
struct Incoming {
    bytes: BytesMut,
    /// Free space for the next read, in bytes.
    room: usize,
}

impl Incoming {
    fn new() -> Self {
        Self { bytes: BytesMut::new(), room: READ.start }
    }

    /// Reads once. The buffer grows with what has arrived, never with a length that a client announces.
    async fn receive(&mut self, stream: &mut (impl AsyncRead + Unpin)) -> Result<(), End> {
        // After a burst, an empty buffer of the old size would stay for as long as the client is idle.
        if self.bytes.is_empty() && self.bytes.capacity() > 2 * self.room {
            self.bytes = BytesMut::new();
        }
        if self.bytes.capacity() - self.bytes.len() < self.room / 2 {
            self.bytes.reserve(self.room);
        }
        let spare = self.bytes.capacity() - self.bytes.len();
        match stream.read_buf(&mut self.bytes).await {
            Ok(0) => Err(End::Closed),
            Ok(read) => {
                // A full read suggests that more is waiting; a small one that the burst is over.
                if read == spare {
                    self.room = (self.room * 2).min(READ.end);
                } else if read < self.room / 8 {
                    self.room = READ.start;
                }
                Ok(())
            }
            Err(error) => Err(End::Io(error)),
        }
    }
}

/// Sends a CONNACK with a refusal and waits for the client to close. Closing at once with unread input would reset the
/// connection, and the reset could overtake the CONNACK.
async fn refuse<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut S, code: ConnectReturnCode) {
    let answer = async {
        stream.write_all(&[0x20, 2, 0, code as u8]).await?;
        stream.shutdown().await?;
        let mut rest = [0; 512];
        while stream.read(&mut rest).await? > 0 {}
        io::Result::Ok(())
    };
    // The connection ends in any case.
    drop(timeout(LINGER, answer).await);
}

/// Checks a CONNECT and attaches its session; otherwise returns the code to answer, if there is one, and the reason.
fn admit(
    shared: &Shared,
    mut peer: Peer,
    proof: Proof,
    connect: Connect,
) -> Result<(Client, Attached), (Option<ConnectReturnCode>, End)> {
    let id = match connect.client_id {
        // A session can only be found again by an id of the client's own (`[MQTT-3.1.3-7]`, `[MQTT-3.1.3-8]`).
        id if id.is_empty() && !connect.clean_session => {
            return Err((Some(ConnectReturnCode::BadClientId), End::NoClientId));
        }
        // `[MQTT-3.1.3-6]`.
        id if id.is_empty() => format!("anonymous-{}", shared.anonymous.fetch_add(1, Ordering::Relaxed)),
        id => id,
    };
    let refused = |what: String| |source| (Some(ConnectReturnCode::NotAuthorized), End::Refused { what, source });
    if let Proof::Password(passwords) = proof {
        let user = connect.login.filter(|Login { username, password }| passwords.verify(username, password));
        let Some(Login { username, .. }) = user else {
            let what = format!("client id \"{}\"", excerpt(&id));
            let end = End::Refused { what, source: Refusal::Password };
            return Err((Some(ConnectReturnCode::BadUserNamePassword), end));
        };
        peer.names = Some([username].into());
    }
    shared.policy.connect(&peer, &id).map_err(refused(format!("client id \"{}\"", excerpt(&id))))?;
    let client = Client { id: id.into(), peer };
    let will = match connect.last_will {
        None => None,
        Some(will) => {
            let topic = topic(will.topic).map_err(|error| (None, End::Protocol(error)))?;
            shared
                .policy
                .will(&client, Publication { topic: topic.as_str(), retain: will.retain, bytes: will.message.len() })
                .map_err(refused(format!("a will of {} for {}", client.id, excerpt(topic.as_str()))))?;
            let message = Arc::new(Message { topic, payload: will.message[..].into() });
            Some(Will { message, qos: at_most_1(will.qos), retain: will.retain })
        }
    };
    // A verified name, so that a client cannot evade its caps with other client ids.
    let identity = match client.peer.names.as_deref() {
        Some([name, ..]) => name.as_str().into(),
        _ => Arc::clone(&client.id),
    };
    let attach = Attach { client: Arc::clone(&client.id), identity, clean: connect.clean_session, will };
    match lock(&shared.state).attach(attach) {
        Ok(attached) => Ok((client, attached)),
        Err(ended) => Err((Some(ConnectReturnCode::ServiceUnavailable), End::Ended(ended))),
    }
}

/// Reads until the connection is to end, and returns the reason.
async fn read(
    shared: &Shared,
    mut stream: impl AsyncRead + Unpin,
    mut incoming: Incoming,
    client: &Client,
    token: Token,
    keep_alive: u16,
) -> End {
    // `[MQTT-3.1.2-24]`. Any byte counts, not only whole packets: a large packet on a slow line takes a while.
    let silence = (keep_alive > 0).then(|| Duration::from_secs(keep_alive.into()) * 3 / 2);
    let mut inputs = Vec::new();
    loop {
        let end = loop {
            match codec::next(&mut incoming.bytes, shared.limits.max_packet) {
                Ok(None) => break None,
                Ok(Some(Packet::Disconnect)) => break Some(End::Disconnect),
                Ok(Some(packet)) => match check(shared, client, packet) {
                    Ok(input) => inputs.push(input),
                    Err(end) => break Some(end),
                },
                Err(error) => break Some(End::Protocol(error)),
            }
        };
        // The packets before the one that ends the connection were valid and allowed: they take effect.
        if !inputs.is_empty()
            && let Err(ended) = lock(&shared.state).handle(token, &mut inputs)
        {
            return End::Ended(ended);
        }
        if let Some(end) = end {
            return end;
        }
        let received = match silence {
            Some(silence) => timeout(silence, incoming.receive(&mut stream)).await,
            None => Ok(incoming.receive(&mut stream).await),
        };
        match received {
            Ok(Ok(())) => {}
            Ok(Err(end)) => return end,
            Err(_) => return End::KeepAlive(keep_alive),
        }
    }
}

/// Writes what the state has for this connection, until the session ends, and returns the reason.
async fn write(shared: &Shared, mut stream: impl AsyncWrite + Unpin, attached: &Attached) -> End {
    // CONNACK, return code 0: goes out before anything else (`[MQTT-3.2.0-1]`).
    let mut out = BytesMut::from(&[0x20, 2, u8::from(attached.session_present), 0][..]);
    loop {
        if let Err(ended) = lock(&shared.state).fill(attached.token, &mut out, WRITE) {
            return End::Ended(ended);
        }
        let written = if out.is_empty() {
            // TLS buffers what it has encrypted; nothing may stay there while this waits.
            let flushed = stream.flush().await;
            attached.signals.output.notified().await;
            flushed
        } else {
            stream.write_all(&out).await
        };
        if let Err(error) = written {
            // The reader may still have to handle what the client sent before it closed, such as a DISCONNECT, which
            // suppresses the will. The reader then ends the connection.
            tracing::debug!(%error, "writing failed");
            return pending().await;
        }
        // An idle connection keeps no buffer: there may be ten thousand.
        if out.is_empty() { out = BytesMut::new() } else { out.clear() }
    }
}

/// Converts a packet into input for the state, if it is valid and allowed.
fn check(shared: &Shared, client: &Client, packet: Packet) -> Result<Input, End> {
    let nonzero = |pkid| if pkid == 0 { Err(End::Protocol(ProtocolError::PacketIdZero)) } else { Ok(pkid) };
    match packet {
        Packet::Publish(publish) => {
            if publish.qos == QoS::ExactlyOnce {
                return Err(End::Protocol(ProtocolError::ExactlyOnce));
            }
            let topic = topic(publish.topic).map_err(End::Protocol)?;
            let publication =
                Publication { topic: topic.as_str(), retain: publish.retain, bytes: publish.payload.len() };
            if let Err(source) = shared.policy.publish(client, publication) {
                return Err(End::Refused { what: format!("a publish to {}", excerpt(topic.as_str())), source });
            }
            // A copy: the payload is a slice of the read buffer and would keep all of that buffer alive.
            let message = Arc::new(Message { topic, payload: publish.payload[..].into() });
            Ok(Input::Publish { message, qos: publish.qos, retain: publish.retain, pkid: publish.pkid })
        }
        Packet::PubAck(ack) => Ok(Input::Acknowledge { pkid: ack.pkid }),
        Packet::Subscribe(subscribe) => {
            let filters = subscribe.filters.into_iter().map(|asked| {
                let filter = filter(asked.path)?;
                let granted = match shared.policy.subscribe(client, &filter) {
                    Ok(()) => Some(at_most_1(asked.qos)),
                    Err(refusal) => {
                        shared.refused.fetch_add(1, Ordering::Relaxed);
                        let filter = excerpt(filter.as_str());
                        warn_limited!(shared.log, client = %client.id, %filter, %refusal, "subscription refused");
                        None
                    }
                };
                Ok((filter, granted))
            });
            let filters = filters.collect::<Result<_, _>>().map_err(End::Protocol)?;
            Ok(Input::Subscribe { pkid: nonzero(subscribe.pkid)?, filters })
        }
        Packet::Unsubscribe(unsubscribe) if unsubscribe.topics.is_empty() => {
            Err(End::Protocol(ProtocolError::NoFilters))
        }
        Packet::Unsubscribe(unsubscribe) => {
            let filters =
                unsubscribe.topics.into_iter().map(filter).collect::<Result<_, _>>().map_err(End::Protocol)?;
            Ok(Input::Unsubscribe { pkid: nonzero(unsubscribe.pkid)?, filters })
        }
        Packet::PingReq => Ok(Input::Ping),
        packet => Err(End::Protocol(ProtocolError::Unexpected(kind(&packet)))),
    }
}

fn topic(text: String) -> Result<Topic, ProtocolError> {
    Topic::new(text.as_str()).map_err(|source| malformed(text, source))
}

fn filter(text: String) -> Result<Filter, ProtocolError> {
    Filter::new(text.as_str()).map_err(|source| malformed(text, source))
}

fn malformed(text: String, source: Malformed) -> ProtocolError {
    // For the log, where a text of 64 KiB would be of no use.
    ProtocolError::Topic { text: text.chars().take(80).collect(), source }
}

/// Grants QoS 1 where 2 is requested (`[MQTT-3.8.4-6]` allows less).
fn at_most_1(qos: QoS) -> QoS {
    if qos == QoS::ExactlyOnce { QoS::AtLeastOnce } else { qos }
}

fn kind(packet: &Packet) -> &'static str {
    match packet {
        Packet::Connect(_) => "CONNECT",
        Packet::ConnAck(_) => "CONNACK",
        Packet::Publish(_) => "PUBLISH",
        Packet::PubAck(_) => "PUBACK",
        Packet::PubRec(_) => "PUBREC",
        Packet::PubRel(_) => "PUBREL",
        Packet::PubComp(_) => "PUBCOMP",
        Packet::Subscribe(_) => "SUBSCRIBE",
        Packet::SubAck(_) => "SUBACK",
        Packet::Unsubscribe(_) => "UNSUBSCRIBE",
        Packet::UnsubAck(_) => "UNSUBACK",
        Packet::PingReq => "PINGREQ",
        Packet::PingResp => "PINGRESP",
        Packet::Disconnect => "DISCONNECT",
    }
}
