//! The connection of one agent: MQTT 3.1.1 with QoS 1 over TCP, with as little memory as possible.
//!
//! In: an agent, and what all agents are to do. Out: nothing; it runs until the handle of all agents is dropped. A message of the broker is
//! acknowledged when the agent has taken it. What the agent publishes and the broker has not confirmed when the connection breaks is lost:
//! its machine sends it again where it matters.

use std::{
    collections::hash_map::RandomState,
    hash::BuildHasher as _,
    io,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use bytes::{Buf as _, BytesMut};
use groundplan_protocol::MAX_PACKET;
use rumqttc::{
    ConnectReturnCode, LastWill, Packet, PubAck, Publish, QoS, SubscribeFilter,
    mqttbytes::{
        Error,
        v4::{Connect, Subscribe},
    },
};
use tokio::{
    io::Interest,
    net::TcpStream,
    sync::watch,
    time::{Instant, sleep, sleep_until},
};

use super::{
    agent::Agent,
    shared::{Order, Shared},
};

/// As real agents have it, in seconds; a ping is sent after half of it.
const KEEP_ALIVE: u16 = 60;
/// The waits before an attempt to connect, of which each is drawn at random, so that the agents do not come at one moment.
const WAITS: [Duration; 2] = [Duration::from_millis(50), Duration::from_millis(500)];

/// Keeps an agent connected.
pub(super) async fn run(mut agent: Agent, shared: Arc<Shared>, mut orders: watch::Receiver<Order>) {
    loop {
        let order = *orders.borrow_and_update();
        agent.live(order.life);
        if !order.away {
            // How it ended does not matter: a broker that is being restarted is part of what is measured.
            let _ = connection(&mut agent, &shared, &mut orders).await;
            agent.disconnected();
        }
        let is_obeyed = *orders.borrow() == order;
        if is_obeyed && order.away {
            if orders.changed().await.is_err() {
                return;
            }
        } else if is_obeyed {
            sleep(wait()).await;
        }
        if orders.has_changed().is_err() {
            return;
        }
    }
}

fn wait() -> Duration {
    let span = (WAITS[1] - WAITS[0]).as_millis() as u64;
    WAITS[0] + Duration::from_millis(RandomState::new().hash_one(()) % span)
}

struct Wire {
    stream: TcpStream,
    input: BytesMut,
    output: BytesMut,
    last_id: u16,
}

/// One connection, until it breaks or the orders change.
async fn connection(agent: &mut Agent, shared: &Shared, orders: &mut watch::Receiver<Order>) -> io::Result<()> {
    let stream = TcpStream::connect(shared.broker).await?;
    stream.set_nodelay(true)?;
    let mut wire = Wire { stream, input: BytesMut::new(), output: BytesMut::new(), last_id: 0 };
    let will = agent.will();
    let mut connect = Connect::new(agent.client());
    connect.keep_alive = KEEP_ALIVE;
    connect.clean_session = false;
    connect.last_will = Some(LastWill::new(will.topic, will.payload, QoS::AtLeastOnce, will.retain));
    if let Some((user, password)) = agent.login() {
        connect.set_login(user, password);
    }
    wire.put(&Packet::Connect(connect));
    let ping_every = Duration::from_secs(u64::from(KEEP_ALIVE) / 2);
    let mut ping = Instant::now() + ping_every;
    loop {
        for outgoing in agent.take_outgoing() {
            wire.last_id = wire.last_id % u16::MAX + 1;
            Shared::count(&shared.published, outgoing.payload.len());
            let mut publish = Publish::new(outgoing.topic, QoS::AtLeastOnce, outgoing.payload);
            (publish.pkid, publish.retain) = (wire.last_id, outgoing.retain);
            wire.put(&Packet::Publish(publish));
        }
        let due = agent.deadline().map(|mono| Instant::from_std(shared.started + mono));
        let until = due.map_or(ping, |due| due.min(ping));
        // Both ways at once: a broker that waits for us to read must not be waited for in turn.
        let interest =
            if wire.output.is_empty() { Interest::READABLE } else { Interest::READABLE | Interest::WRITABLE };
        tokio::select! {
            ready = wire.stream.ready(interest) => {
                let ready = ready?;
                if ready.is_writable() {
                    wire.write()?;
                }
                if ready.is_readable() {
                    wire.read()?;
                    while let Some(packet) = wire.next()? {
                        if let Packet::PubAck(_) = packet {
                            shared.confirmed.fetch_add(1, Ordering::Relaxed);
                        }
                        wire.take(packet, agent)?;
                    }
                }
            }
            () = sleep_until(until) => {
                if ping <= Instant::now() {
                    ping = Instant::now() + ping_every;
                    wire.put(&Packet::PingReq);
                }
                agent.tick();
            }
            _ = orders.changed() => return Ok(()),
        }
    }
}

impl Wire {
    fn put(&mut self, packet: &Packet) {
        packet.write(&mut self.output, MAX_PACKET).expect("what agents send fits into a packet");
    }

    fn write(&mut self) -> io::Result<()> {
        match self.stream.try_write(&self.output) {
            Ok(written) => self.output.advance(written),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
        if self.output.is_empty() {
            // An agent is silent most of the time, and its buffer is not kept for that.
            self.output = BytesMut::new();
        }
        Ok(())
    }

    fn read(&mut self) -> io::Result<()> {
        self.input.reserve(4096);
        match self.stream.try_read_buf(&mut self.input) {
            Ok(0) => Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(_) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
            Err(error) => Err(error),
        }
    }

    fn next(&mut self) -> io::Result<Option<Packet>> {
        match Packet::read(&mut self.input, MAX_PACKET) {
            Ok(packet) => Ok(Some(packet)),
            Err(Error::InsufficientBytes(_)) => {
                if self.input.is_empty() {
                    self.input = BytesMut::new();
                }
                Ok(None)
            }
            Err(error) => Err(io::Error::other(error)),
        }
    }

    fn take(&mut self, packet: Packet, agent: &mut Agent) -> io::Result<()> {
        match packet {
            Packet::ConnAck(ack) if ack.code == ConnectReturnCode::Success => {
                let filters = agent.filters().into_iter().map(|path| SubscribeFilter::new(path, QoS::AtLeastOnce));
                let mut subscribe = Subscribe::new_many(filters);
                self.last_id += 1;
                subscribe.pkid = self.last_id;
                self.put(&Packet::Subscribe(subscribe));
                agent.connected(ack.session_present);
            }
            Packet::ConnAck(ack) => return Err(io::Error::other(format!("refused: {:?}", ack.code))),
            Packet::Publish(publish) => {
                agent.receive(&publish.topic, &publish.payload);
                if publish.pkid != 0 {
                    self.put(&Packet::PubAck(PubAck::new(publish.pkid)));
                }
            }
            _ => {}
        }
        Ok(())
    }
}
