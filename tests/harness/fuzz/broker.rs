//! Fed: what up to four clients send to the embedded broker, in pieces of any length: see [`pieces`]. Each has proved another name: two
//! nodes, a planner and an observer.
//!
//! Checked: what the broker sends are whole MQTT packets, the first a CONNACK. A client gets only messages of topics that its name may read,
//! as another client could have published them. What the broker holds stays within its limits, and each connection ends with its client.

use std::{rc::Rc, sync::Arc, time::Duration};

use bytes::BytesMut;
use groundplan_broker::{Broker, Client, Config, Filter, Limits, Peer, Policy, SitePolicy};
use rumqttc::mqttbytes::v4::Packet;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, ReadHalf, WriteHalf, duplex},
    runtime::Builder,
    task::{JoinHandle, LocalSet, spawn_local, yield_now},
};

/// The names that the clients have proved.
const NAMES: [&str; 4] = ["a", "b", "planner", "observer"];
/// Most pieces of an input that are sent.
const PIECES: usize = 64;
/// What the broker may hold.
const MAX_SESSIONS: usize = 3;
const MAX_QUEUED: usize = 16;
const MAX_RETAINED: usize = 8;
const MAX_BYTES: usize = 4096;

/// The pieces of an input: each begins with a byte whose two low bits are the number of the client; the others, with the next byte, are the
/// length of the piece; none closes the connection.
fn pieces(mut input: &[u8]) -> Vec<(usize, &[u8])> {
    let mut pieces = Vec::new();
    while let [first, second, rest @ ..] = input
        && pieces.len() < PIECES
    {
        let length = (usize::from(*first >> 2) << 8 | usize::from(*second)).min(rest.len());
        let (piece, others) = rest.split_at(length);
        pieces.push((usize::from(*first & 3), piece));
        input = others;
    }
    pieces
}

/// The input of these pieces.
pub fn input(pieces: &[(usize, &[u8])]) -> Vec<u8> {
    let mut input = Vec::new();
    for (client, piece) in pieces {
        input.push((*client as u8) | (piece.len() >> 8 << 2) as u8);
        input.push(piece.len() as u8);
        input.extend_from_slice(piece);
    }
    input
}

/// See the module.
pub fn check(input: &[u8]) {
    let runtime = Builder::new_current_thread().enable_time().build().expect("a runtime");
    runtime.block_on(LocalSet::new().run_until(async {
        let limits = Limits {
            max_packet: 2048,
            max_sessions: MAX_SESSIONS,
            max_sessions_per_identity: 2,
            max_subscriptions: 4,
            max_queued_messages: MAX_QUEUED,
            max_queued_bytes: MAX_BYTES,
            max_in_flight: 3,
            max_retained_messages: MAX_RETAINED,
            max_retained_bytes: MAX_BYTES,
            connect_timeout: Duration::from_secs(60),
            ..Limits::default()
        };
        let policy = Arc::new(SitePolicy::new("lab").expect("a name"));
        let config = Config { listeners: Vec::new(), socket: None, limits };
        let broker = Rc::new(Broker::start(config, policy.clone()).await.expect("a broker without listeners"));
        let mut clients: [Option<Connection>; 4] = Default::default();
        for (client, piece) in pieces(input) {
            let slot = &mut clients[client];
            if piece.is_empty() {
                if let Some(open) = slot.take() {
                    open.close(&policy).await;
                }
            } else {
                slot.get_or_insert_with(|| Connection::open(&broker, NAMES[client])).send(piece).await;
            }
            let stats = broker.stats();
            assert!(stats.sessions <= MAX_SESSIONS, "{stats:?}");
            assert!(stats.queued_messages <= MAX_QUEUED * MAX_SESSIONS, "{stats:?}");
            assert!(stats.queued_bytes <= MAX_BYTES * MAX_SESSIONS, "{stats:?}");
            assert!(stats.retained_messages <= MAX_RETAINED && stats.retained_bytes <= MAX_BYTES, "{stats:?}");
        }
        for open in clients.into_iter().flatten() {
            open.close(&policy).await;
        }
        let stats = broker.stats();
        assert_eq!(stats.connected, 0, "{stats:?}");
    }));
}

/// A client's connection, served by the broker.
struct Connection {
    name: &'static str,
    output: WriteHalf<DuplexStream>,
    serving: JoinHandle<()>,
    reading: JoinHandle<Vec<u8>>,
}

impl Connection {
    fn open(broker: &Rc<Broker>, name: &'static str) -> Self {
        let (own, other) = duplex(1 << 16);
        let (input, output) = tokio::io::split(own);
        let broker = broker.clone();
        let serving = spawn_local(async move {
            let peer = Peer { address: None, names: Some([name.to_owned()].into()) };
            broker.serve_stream(other, peer).await;
        });
        Self { name, output, serving, reading: spawn_local(read(input)) }
    }

    async fn send(&mut self, piece: &[u8]) {
        // Fails once the broker has closed it.
        let _ = self.output.write_all(piece).await;
        // The broker's tasks run whenever they can: until each has seen this piece, and what it makes others send.
        for _ in 0..8 {
            yield_now().await;
        }
    }

    /// Closes it, waits for its end, and checks what the broker has sent.
    async fn close(self, policy: &SitePolicy) {
        let Self { name, mut output, serving, reading } = self;
        let _ = output.shutdown().await;
        serving.await.expect("the broker serves without a panic");
        drop(output);
        let mut sent = BytesMut::from(&reading.await.expect("all that was sent")[..]);
        let mut first = true;
        while !sent.is_empty() {
            let packet = Packet::read(&mut sent, 1 << 16).expect("a whole packet");
            assert_eq!(first, matches!(packet, Packet::ConnAck(_)), "{packet:?}");
            first = false;
            if let Packet::Publish(publish) = packet {
                may_read(policy, name, &publish.topic);
            }
        }
    }
}

async fn read(mut input: ReadHalf<DuplexStream>) -> Vec<u8> {
    let mut sent = Vec::new();
    let _ = input.read_to_end(&mut sent).await;
    sent
}

fn may_read(policy: &SitePolicy, name: &str, topic: &str) {
    let id = match name {
        "planner" | "observer" => format!("groundplan/lab/{name}/x"),
        node => format!("groundplan/lab/node/{node}"),
    };
    let client = Client { id: id.into(), peer: Peer { address: None, names: Some([name.to_owned()].into()) } };
    let filter = Filter::new(topic).expect("a topic is a filter");
    policy.subscribe(&client, &filter).unwrap_or_else(|refusal| panic!("{name} got a message of {topic}: {refusal}"));
}
