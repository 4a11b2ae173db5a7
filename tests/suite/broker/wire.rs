//! Clients for the conformance tests.
//!
//! [`Wire`] is a minimal client: it sends exactly what a test sends, at that moment, and answers nothing by
//! itself. The rest drives rumqttc as planner and agent do: polled in a task of its own, with both size limits set.
//! All waits are for something that must come, and panic after [`DEADLINE`].

use std::{future::Future, net::SocketAddr, time::Duration};

use bytes::BytesMut;
use rumqttc::{
    AsyncClient, Event, Incoming, MqttOptions,
    mqttbytes::{
        QoS,
        v4::{ConnAck, Connect, LastWill, Packet, PubAck, Publish, Subscribe, SubscribeReasonCode},
    },
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpStream,
    sync::oneshot,
    task::JoinHandle,
};

/// Long enough for the most loaded machine; no passing test waits for it.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);

/// No limit of the client's own.
const ANY_SIZE: usize = 256 << 20;

/// Waits for what must come.
pub(crate) async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(DEADLINE, future).await {
        Ok(value) => value,
        Err(_) => panic!("{what}: nothing within {DEADLINE:?}"),
    }
}

/// Waits until a condition holds.
pub(crate) async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    within(what, async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
}

pub(crate) trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

/// A client that sends only what a test sends.
pub(crate) struct Wire {
    stream: Box<dyn Stream>,
    buffer: BytesMut,
    last_pkid: u16,
}

/// A CONNECT for a session that is not kept.
pub(crate) fn clean(id: &str) -> Connect {
    Connect { keep_alive: 0, ..Connect::new(id) }
}

/// A CONNECT for a session that is kept.
pub(crate) fn kept(id: &str) -> Connect {
    Connect { clean_session: false, ..clean(id) }
}

/// As `connect`, with a will that is not retained.
pub(crate) fn with_will(mut connect: Connect, topic: &str, payload: &str) -> Connect {
    connect.last_will = Some(LastWill::new(topic, payload, QoS::AtLeastOnce, false));
    connect
}

impl Wire {
    /// Uses a stream that is open; sends nothing yet.
    pub(crate) fn over(stream: impl Stream + 'static) -> Self {
        Self { stream: Box::new(stream), buffer: BytesMut::new(), last_pkid: 0 }
    }

    /// Opens a TCP connection; sends nothing yet.
    pub(crate) async fn open(address: SocketAddr) -> Self {
        let stream = within("a TCP connection", TcpStream::connect(address)).await.expect("the broker accepts");
        stream.set_nodelay(true).expect("an option of TCP");
        Self::over(stream)
    }

    /// Connects, and returns the answer.
    pub(crate) async fn try_connect(address: SocketAddr, connect: Connect) -> (Self, ConnAck) {
        let mut wire = Self::open(address).await;
        let answer = wire.connect_on(connect).await;
        (wire, answer)
    }

    /// Sends a CONNECT and reads the answer.
    pub(crate) async fn connect_on(&mut self, connect: Connect) -> ConnAck {
        self.send(Packet::Connect(connect)).await;
        match self.next().await {
            Some(Packet::ConnAck(answer)) => answer,
            other => panic!("CONNECT was answered with {other:?}"),
        }
    }

    /// Connects, and returns whether there was a session.
    pub(crate) async fn connect(address: SocketAddr, connect: Connect) -> (Self, bool) {
        let (wire, answer) = Self::try_connect(address, connect).await;
        assert_eq!(answer.code, rumqttc::mqttbytes::v4::ConnectReturnCode::Success);
        (wire, answer.session_present)
    }

    /// Sends. A connection that the broker has closed is noticed by reading.
    pub(crate) async fn send(&mut self, packet: Packet) {
        let mut bytes = BytesMut::new();
        packet.write(&mut bytes, ANY_SIZE).expect("a packet that can be encoded");
        self.send_raw(&bytes).await;
    }

    /// Sends any bytes.
    pub(crate) async fn send_raw(&mut self, bytes: &[u8]) {
        let sent = async {
            self.stream.write_all(bytes).await?;
            self.stream.flush().await
        };
        drop(within("sending", sent).await);
    }

    /// The next packet, or `None` when the broker closes the connection.
    pub(crate) async fn next(&mut self) -> Option<Packet> {
        loop {
            match Packet::read(&mut self.buffer, ANY_SIZE) {
                Ok(packet) => return Some(packet),
                Err(rumqttc::mqttbytes::Error::InsufficientBytes(_)) => {}
                Err(error) => panic!("the broker sent a malformed packet: {error}"),
            }
            match within("a packet", self.stream.read_buf(&mut self.buffer)).await {
                Ok(0) | Err(_) => return None,
                Ok(_) => {}
            }
        }
    }

    /// The next packet, which must be a PUBLISH. It is not acknowledged.
    pub(crate) async fn message(&mut self) -> Publish {
        match self.next().await {
            Some(Packet::Publish(publish)) => publish,
            other => panic!("a message was to come, not {other:?}"),
        }
    }

    /// The next message, acknowledged, as topic and payload.
    pub(crate) async fn text(&mut self) -> (String, String) {
        let publish = self.message().await;
        self.acknowledge(&publish).await;
        let payload = String::from_utf8(publish.payload.to_vec()).expect("a payload of text");
        (publish.topic, payload)
    }

    /// Acknowledges a message with QoS 1.
    pub(crate) async fn acknowledge(&mut self, publish: &Publish) {
        if publish.qos == QoS::AtLeastOnce {
            self.send(Packet::PubAck(PubAck::new(publish.pkid))).await;
        }
    }

    fn pkid(&mut self) -> u16 {
        self.last_pkid += 1;
        self.last_pkid
    }

    /// Subscribes, and returns what was granted. For a connection to which no message is under way.
    pub(crate) async fn subscribe(&mut self, filters: &[(&str, QoS)]) -> Vec<SubscribeReasonCode> {
        let filters =
            filters.iter().map(|(path, qos)| rumqttc::mqttbytes::v4::SubscribeFilter::new((*path).to_owned(), *qos));
        let mut subscribe = Subscribe::new_many(filters);
        subscribe.pkid = self.pkid();
        let pkid = subscribe.pkid;
        self.send(Packet::Subscribe(subscribe)).await;
        match self.next().await {
            Some(Packet::SubAck(answer)) if answer.pkid == pkid => answer.return_codes,
            other => panic!("SUBSCRIBE was answered with {other:?}"),
        }
    }

    /// Sends a PUBLISH with QoS 1, and does not wait.
    pub(crate) async fn publish_only(&mut self, topic: &str, payload: impl Into<Vec<u8>>, retain: bool) -> u16 {
        let mut publish = Publish::new(topic, QoS::AtLeastOnce, payload);
        (publish.pkid, publish.retain) = (self.pkid(), retain);
        let pkid = publish.pkid;
        self.send(Packet::Publish(publish)).await;
        pkid
    }

    /// Publishes with QoS 1 and waits for the PUBACK. For a client that subscribes to nothing.
    pub(crate) async fn publish(&mut self, topic: &str, payload: impl Into<Vec<u8>>, retain: bool) {
        let pkid = self.publish_only(topic, payload, retain).await;
        assert_eq!(self.next().await, Some(Packet::PubAck(PubAck::new(pkid))), "publishing to {topic:?}");
    }

    /// Makes sure that the broker has handled all that was sent. For a connection to which no message is under way.
    pub(crate) async fn ping(&mut self) {
        self.send(Packet::PingReq).await;
        assert_eq!(self.next().await, Some(Packet::PingResp));
    }

    /// Sends DISCONNECT, and waits for the broker to close.
    pub(crate) async fn disconnect(mut self) {
        self.send(Packet::Disconnect).await;
        self.closed().await;
    }

    /// Reads on until the broker closes the connection.
    pub(crate) async fn closed(&mut self) {
        while self.next().await.is_some() {}
    }
}

/// rumqttc's options, as planner and agent set them.
pub(crate) fn options(address: SocketAddr, id: &str) -> MqttOptions {
    let mut options = MqttOptions::new(id, address.ip().to_string(), address.port());
    options.set_max_packet_size(ANY_SIZE, ANY_SIZE).set_keep_alive(Duration::from_secs(30)).set_inflight(500);
    options
}

/// Publishes with QoS 1 through rumqttc, and returns when all `count` messages are acknowledged.
pub(crate) async fn publish_all(
    options: MqttOptions,
    count: usize,
    messages: impl Iterator<Item = (String, Vec<u8>, bool)>,
) {
    let (client, mut events) = AsyncClient::new(options, 500);
    let poll = tokio::spawn(async move {
        let mut acknowledged = 0;
        while acknowledged < count {
            if let Event::Incoming(Incoming::PubAck(_)) = events.poll().await.expect("the publisher is not cut off") {
                acknowledged += 1;
            }
        }
    });
    for (topic, payload, retain) in messages {
        client.publish(topic, QoS::AtLeastOnce, retain, payload).await.expect("the publisher is polled");
    }
    within("all acknowledgements", poll).await.expect("the publisher's task");
}

/// Receives `count` messages through rumqttc, which acknowledges them. Returns once it is connected, and subscribed if
/// there is a filter; the task then returns the messages.
pub(crate) async fn receive(options: MqttOptions, filter: Option<&str>, count: usize) -> JoinHandle<Vec<Publish>> {
    let (client, mut events) = AsyncClient::new(options, 10);
    let (ready, wait) = oneshot::channel();
    let filter = filter.map(str::to_owned);
    let task = tokio::spawn(async move {
        let (mut ready, mut messages) = (Some(ready), Vec::new());
        while messages.len() < count {
            match events.poll().await.expect("the subscriber is not cut off") {
                Event::Incoming(Incoming::ConnAck(_)) => match &filter {
                    Some(filter) => client.try_subscribe(filter, QoS::AtLeastOnce).expect("room for one request"),
                    None => drop(ready.take().map(|ready| ready.send(()))),
                },
                Event::Incoming(Incoming::SubAck(_)) => drop(ready.take().map(|ready| ready.send(()))),
                Event::Incoming(Incoming::Publish(publish)) => messages.push(publish),
                _ => {}
            }
        }
        messages
    });
    within("a subscription", wait).await.expect("the subscriber's task");
    task
}
