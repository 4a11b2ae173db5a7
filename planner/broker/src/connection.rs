//! One client's connection, from its first byte to its end: all of the broker's IO.
//!
//! In: a byte stream and who is at its other end. Out: checked input for the [`State`], and its output on the wire.
//! One task, with reading and writing side by side in it: a client that does not read never stops what it sends from
//! being read, nor anybody else. Batches: all packets of a read are handled under one lock, all that fits a buffer
//! leaves in one write. Whatever ends it, the session learns of it, once, by the [`Hold`] that is dropped.

use std::{
    future::pending,
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError, atomic::Ordering},
    time::Duration,
};

use bytes::BytesMut;
use rumqttc::mqttbytes::{
    QoS,
    v4::{Connect, ConnectReturnCode, Packet},
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    time::{Instant, timeout, timeout_at},
};

use super::{
    Shared,
    codec::{self, ProtocolError},
    filter::{Filter, Malformed, Topic},
    policy::{Client, Peer, Refusal},
    session::{Message, Will},
    state::{Attach, Attached, Ended, Input, State, Token},
};

/// Largest CONNECT, in bytes: client id, will, name and password at their largest. Nobody is known before it.
const MAX_CONNECT: usize = 5 * 65_535 + 64;
/// Room for a read, in bytes: at least, and at most.
const READ: std::ops::Range<usize> = 2 << 10..64 << 10;
/// Bytes to gather before a write.
const WRITE: usize = 64 << 10;
/// How long a refused client may take to read why.
const LINGER: Duration = Duration::from_secs(1);

/// Why a connection ended.
#[derive(Debug, thiserror::Error)]
pub(crate) enum End {
    #[error("it said DISCONNECT")]
    Disconnect,
    #[error("it closed the connection")]
    Closed,
    #[error("reading or writing failed")]
    Io(#[source] io::Error),
    #[error("no CONNECT in time")]
    NoConnect,
    #[error("nothing heard for one and a half times its keep-alive of {0} s")]
    KeepAlive(u16),
    #[error("it broke the protocol")]
    Protocol(#[source] ProtocolError),
    #[error("the policy refuses {what}")]
    Refused {
        what: String,
        #[source]
        source: Refusal,
    },
    #[error("it may not go on")]
    Ended(#[source] Ended),
    #[error("an empty client id asks for a session that is kept")]
    NoClientId,
}

/// A session's connection while it lives; when dropped, however that comes, the session is parted from it.
struct Hold<'a> {
    state: &'a Mutex<State>,
    token: Token,
    will: bool,
}

impl Drop for Hold<'_> {
    fn drop(&mut self) {
        lock(self.state).detach(self.token, self.will);
    }
}

/// Nothing that holds the lock can panic half-way by design; if it does, the broker lives on with what there is.
pub(crate) fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A connection that is over.
pub(crate) struct Served {
    /// The client that it was, once it was let in.
    pub(crate) client: Option<Arc<str>>,
    pub(crate) end: End,
}

/// Serves one client until its connection ends. `deadline` is when its CONNECT must be there.
pub(crate) async fn serve<S>(shared: &Shared, mut stream: S, peer: Peer, deadline: Instant) -> Served
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut incoming = Incoming::new();
    let (client, attached, keep_alive) = match greet(shared, &mut stream, &mut incoming, peer, deadline).await {
        Ok(greeted) => greeted,
        Err(end) => return Served { client: None, end },
    };
    let mut hold = Hold { state: &shared.state, token: attached.token, will: true };
    let (input, output) = tokio::io::split(stream);
    let end = tokio::select! {
        end = read(shared, input, incoming, &client, attached.token, keep_alive) => end,
        end = write(shared, output, &attached) => end,
        () = attached.signals.close.notified() => End::Ended(Ended::Superseded),
    };
    hold.will = !matches!(end, End::Disconnect);
    Served { client: Some(client.id), end }
}

/// From the first byte to the session; who is turned away is told why, as far as MQTT has a word for it.
async fn greet<S>(
    shared: &Shared,
    stream: &mut S,
    incoming: &mut Incoming,
    peer: Peer,
    deadline: Instant,
) -> Result<(Client, Attached, u16), End>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let first = timeout_at(deadline, first_packet(stream, incoming, shared.limits.max_packet)).await;
    let connect = match first {
        Ok(Ok(connect)) => connect,
        Ok(Err(End::Protocol(error @ ProtocolError::Version { .. }))) => {
            refuse(stream, ConnectReturnCode::RefusedProtocolVersion).await;
            return Err(End::Protocol(error));
        }
        Ok(Err(end)) => return Err(end),
        Err(_) => return Err(End::NoConnect),
    };
    let keep_alive = connect.keep_alive;
    match admit(shared, peer, connect) {
        Ok((client, attached)) => Ok((client, attached, keep_alive)),
        Err((code, end)) => {
            if let Some(code) = code {
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

/// A read buffer that fits what comes: small for the many that are idle, large for those that send much.
struct Incoming {
    bytes: BytesMut,
    /// Room to make for the next read.
    room: usize,
}

impl Incoming {
    fn new() -> Self {
        Self { bytes: BytesMut::new(), room: READ.start }
    }

    /// Reads once. Grows with what comes, never by what is announced.
    async fn receive(&mut self, stream: &mut (impl AsyncRead + Unpin)) -> Result<(), End> {
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

/// Tells a client why not, and waits for it to hang up: closing at once could destroy the word on its way.
async fn refuse<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut S, code: ConnectReturnCode) {
    let word = async {
        stream.write_all(&[0x20, 2, 0, code as u8]).await?;
        stream.shutdown().await?;
        let mut rest = [0; 512];
        while stream.read(&mut rest).await? > 0 {}
        io::Result::Ok(())
    };
    // Whether it heard is its own affair.
    drop(timeout(LINGER, word).await);
}

/// Checks a CONNECT and attaches it to its session; otherwise says what to answer, and why.
fn admit(
    shared: &Shared,
    peer: Peer,
    connect: Connect,
) -> Result<(Client, Attached), (Option<ConnectReturnCode>, End)> {
    let id = match connect.client_id {
        // `[MQTT-3.1.3-6]`, `[MQTT-3.1.3-8]`.
        id if id.is_empty() && !connect.clean_session => {
            return Err((Some(ConnectReturnCode::BadClientId), End::NoClientId));
        }
        id if id.is_empty() => format!("anonymous-{}", shared.anonymous.fetch_add(1, Ordering::Relaxed)),
        id => id,
    };
    let refused = |what: String| |source| (Some(ConnectReturnCode::NotAuthorized), End::Refused { what, source });
    shared.policy.connect(&peer, &id).map_err(refused(format!("client id {id:?}")))?;
    let client = Client { id: id.into(), peer };
    let will = match connect.last_will {
        None => None,
        Some(will) => {
            let topic = topic(will.topic).map_err(|error| (None, End::Protocol(error)))?;
            shared
                .policy
                .will(&client, topic.as_str())
                .map_err(refused(format!("a will of {:?} for {topic}", client.id)))?;
            let message = Arc::new(Message { topic, payload: will.message[..].into() });
            Some(Will { message, qos: at_most_1(will.qos), retain: will.retain })
        }
    };
    let identity = match client.peer.certificate.as_deref() {
        Some([name, ..]) => name.as_str().into(),
        _ => Arc::clone(&client.id),
    };
    let attach = Attach { client: Arc::clone(&client.id), identity, clean: connect.clean_session, will };
    match lock(&shared.state).attach(attach) {
        Ok(attached) => Ok((client, attached)),
        Err(ended) => Err((Some(ConnectReturnCode::ServiceUnavailable), End::Ended(ended))),
    }
}

/// Reads until the end. Never returns but with the reason for it.
async fn read(
    shared: &Shared,
    mut stream: impl AsyncRead + Unpin,
    mut incoming: Incoming,
    client: &Client,
    token: Token,
    keep_alive: u16,
) -> End {
    // `[MQTT-3.1.2-24]`. Any byte is a sign of life: a large packet on a slow line is no silence.
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
        // What came before the end was well-formed and allowed: it counts.
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

/// Writes whatever the state has for this connection. Never returns but with the reason for it.
async fn write(shared: &Shared, mut stream: impl AsyncWrite + Unpin, attached: &Attached) -> End {
    let mut out = BytesMut::from(&[0x20, 2, u8::from(attached.session_present), 0][..]);
    loop {
        if let Err(ended) = lock(&shared.state).fill(attached.token, &mut out, WRITE) {
            return End::Ended(ended);
        }
        let written = if out.is_empty() {
            let flushed = stream.flush().await;
            attached.signals.output.notified().await;
            flushed
        } else {
            stream.write_all(&out).await
        };
        if let Err(error) = written {
            // The reader may still hold what the client sent before it went, a DISCONNECT above all.
            tracing::debug!(%error, "writing failed");
            return pending().await;
        }
        // An idle connection holds no buffer: there may be ten thousand.
        if out.is_empty() { out = BytesMut::new() } else { out.clear() }
    }
}

/// Turns a packet into input, if it is well-formed and allowed.
fn check(shared: &Shared, client: &Client, packet: Packet) -> Result<Input, End> {
    let nonzero = |pkid| if pkid == 0 { Err(End::Protocol(ProtocolError::PacketIdZero)) } else { Ok(pkid) };
    match packet {
        Packet::Publish(publish) => {
            if publish.qos == QoS::ExactlyOnce {
                return Err(End::Protocol(ProtocolError::ExactlyOnce));
            }
            let topic = topic(publish.topic).map_err(End::Protocol)?;
            if let Err(source) = shared.policy.publish(client, topic.as_str()) {
                return Err(End::Refused { what: format!("a publish to {topic}"), source });
            }
            // A copy: the payload that was read is a slice of the read buffer, and would keep all of it.
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
                        tracing::warn!(client = %client.id, %filter, %refusal, "subscription refused");
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

fn malformed(mut text: String, source: Malformed) -> ProtocolError {
    // For the log, where 64 KiB of it would help nobody.
    let end = text.char_indices().nth(80).map_or(text.len(), |(at, _)| at);
    text.truncate(end);
    ProtocolError::Topic { text, source }
}

/// QoS 2 is not offered; 1 is what is granted (`[MQTT-3.8.4-6]`).
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
