//! A broker of MQTT 3.1.1 in memory: retained messages, and persistent sessions with their queues of QoS 1 messages.
//!
//! In: packets of clients, broken connections. Out: packets to clients. Delivery is at least once and in order for each topic; across
//! topics it may be reordered, as the standard permits. What is on its way is the network's affair (`world/network.rs`).

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

use groundplan_protocol::{
    ids::NodeId,
    plan::{Gates, PlanOffer},
    presence::{PlannerPresence, Presence},
    report::{Ack, ReportBatch},
    state::NodeState,
};

use super::rng::Rng;

/// Messages on their way to a client without an acknowledgement.
const IN_FLIGHT: usize = 16;

/// Messages that wait for a planner or are on their way to it, where the broker drops the rest. A question about a few nodes has room.
const ROOM: usize = IN_FLIGHT + 4;

/// Number of a connection.
pub(super) type Conn = u64;

/// A topic: of a node, or of the planners if there is none.
pub(super) type Address = (Option<NodeId>, &'static str);

/// What agents subscribe to, of their own node.
const TO_AGENT: [&str; 3] = ["plan", "gates", "ack"];

/// What planners subscribe to, of all nodes, beside their own topic.
const TO_PLANNER: [&str; 3] = ["state", "report", "presence"];

/// A message.
#[derive(Debug, Clone)]
pub(super) struct Message {
    pub(super) address: Address,
    pub(super) payload: Payload,
    pub(super) retain: bool,
}

/// What a message holds.
#[derive(Debug, Clone)]
pub(super) enum Payload {
    /// JSON of a node plan.
    Plan(Arc<PlanOffer>),
    Gates(Arc<Gates>),
    Ack(Ack),
    State(Arc<NodeState>),
    Reports(Arc<ReportBatch>),
    Presence(Arc<Presence>),
    Planner(PlannerPresence),
    /// In place of what is retained.
    Nothing,
}

/// A packet to the broker.
#[derive(Debug, Clone)]
pub(super) enum Up {
    Connect {
        will: Box<Message>,
    },
    Subscribe,
    /// Send again what is retained of these nodes.
    Replay(Vec<NodeId>),
    Publish(u16, Message),
    Confirm(u16),
    Disconnect,
}

/// A packet from the broker.
#[derive(Debug, Clone)]
pub(super) enum Down {
    Connected { session_present: bool },
    Subscribed,
    Publish(u16, Message),
    Confirm(u16),
}

/// Who a session belongs to, which decides what it subscribes to.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Client {
    Agent(NodeId),
    Planner(String),
}

#[derive(Debug, Default)]
struct Session {
    conn: Option<Conn>,
    subscribed: bool,
    queue: VecDeque<Message>,
    in_flight: VecDeque<(u16, Message)>,
    last_id: u16,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Broker {
    /// Whether it drops what a queue for a planner has no room for.
    drops: bool,
    pub(super) retained: BTreeMap<Address, Message>,
    sessions: BTreeMap<Client, Session>,
    wills: BTreeMap<Conn, (Client, Message)>,
}

/// What came of a packet.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    /// Packets to send.
    pub(super) down: Vec<(Conn, Down)>,
    /// Clients that have messages waiting, to be sent by [`Broker::pump`].
    pub(super) pump: Vec<Client>,
    /// A connection that another one of the same client replaced.
    pub(super) closed: Option<Conn>,
}

impl Broker {
    pub(super) fn new(drops: bool) -> Self {
        Self { drops, ..Self::default() }
    }

    /// Takes a packet that came on a connection of a client.
    pub(super) fn take(&mut self, conn: Conn, client: &Client, packet: Up) -> Outcome {
        let mut out = Outcome::default();
        if !matches!(packet, Up::Connect { .. }) && !self.wills.contains_key(&conn) {
            return out;
        }
        match packet {
            Up::Connect { will } => {
                let before = self.sessions.get(client).and_then(|session| session.conn);
                if let Some(before) = before {
                    out.closed = Some(before);
                    self.closed(before, &mut out);
                }
                let session_present = self.sessions.contains_key(client);
                let session = self.sessions.entry(client.clone()).or_default();
                session.conn = Some(conn);
                self.wills.insert(conn, (client.clone(), *will));
                out.down.push((conn, Down::Connected { session_present }));
                out.pump.push(client.clone());
            }
            Up::Subscribe => {
                let retained: Vec<Message> =
                    self.retained.values().filter(|message| wants(client, &message.address)).cloned().collect();
                let room = self.room(client);
                if let Some(session) = self.sessions.get_mut(client) {
                    session.subscribed = true;
                    retained.into_iter().for_each(|message| session.push(message, room));
                }
                out.down.push((conn, Down::Subscribed));
                out.pump.push(client.clone());
            }
            Up::Replay(nodes) => {
                let asked = |(node, _): &Address| node.as_ref().is_some_and(|node| nodes.contains(node));
                let of_these = self.retained.values().filter(|m| asked(&m.address) && wants(client, &m.address));
                let retained: Vec<Message> = of_these.cloned().collect();
                let room = self.room(client);
                if let Some(session) = self.sessions.get_mut(client).filter(|session| session.subscribed) {
                    retained.into_iter().for_each(|message| session.push(message, room));
                }
                out.pump.push(client.clone());
            }
            Up::Publish(id, message) => {
                self.publish(message, &mut out);
                out.down.push((conn, Down::Confirm(id)));
            }
            Up::Confirm(id) => {
                if let Some(session) = self.sessions.get_mut(client) {
                    session.in_flight.retain(|(known, _)| *known != id);
                    out.pump.push(client.clone());
                }
            }
            Up::Disconnect => {
                self.wills.remove(&conn);
                if let Some(session) = self.sessions.get_mut(client).filter(|session| session.conn == Some(conn)) {
                    session.disconnect();
                }
            }
        }
        out
    }

    /// A connection is gone: its last will is published.
    pub(super) fn lost(&mut self, conn: Conn) -> Outcome {
        let mut out = Outcome::default();
        self.closed(conn, &mut out);
        out
    }

    /// Delivers a message that no client has published now.
    pub(super) fn deliver_again(&mut self, message: Message) -> Outcome {
        let mut out = Outcome::default();
        self.publish(message, &mut out);
        out
    }

    fn closed(&mut self, conn: Conn, out: &mut Outcome) {
        let Some((client, will)) = self.wills.remove(&conn) else { return };
        if let Some(session) = self.sessions.get_mut(&client).filter(|session| session.conn == Some(conn)) {
            session.disconnect();
        }
        self.publish(will, out);
    }

    fn publish(&mut self, message: Message, out: &mut Outcome) {
        if message.retain {
            match message.payload {
                Payload::Nothing => drop(self.retained.remove(&message.address)),
                _ => drop(self.retained.insert(message.address.clone(), message.clone())),
            }
        }
        let drops = self.drops;
        for (client, session) in &mut self.sessions {
            if session.subscribed && wants(client, &message.address) {
                session.push(message.clone(), room(drops, client));
                out.pump.push(client.clone());
            }
        }
    }

    fn room(&self, client: &Client) -> usize {
        room(self.drops, client)
    }

    /// Sends a client some of what waits for it.
    pub(super) fn pump(&mut self, client: &Client, rng: &mut Rng) -> Vec<(Conn, Down)> {
        let Some(session) = self.sessions.get_mut(client) else { return Vec::new() };
        let Some(conn) = session.conn else { return Vec::new() };
        let mut down = Vec::new();
        while session.in_flight.len() < IN_FLIGHT && !session.queue.is_empty() {
            // The oldest of any topic may go first.
            let mut at = if rng.chance(25) { rng.below(session.queue.len()) } else { 0 };
            let address = &session.queue[at].address;
            at = session.queue.iter().position(|message| message.address == *address).unwrap_or(at);
            let Some(message) = session.queue.remove(at) else { break };
            session.last_id = session.last_id % u16::MAX + 1;
            session.in_flight.push_back((session.last_id, message.clone()));
            down.push((conn, Down::Publish(session.last_id, message)));
        }
        down
    }

    /// Forgets everything, and closes every connection.
    pub(super) fn wipe(&mut self) -> Vec<Conn> {
        let open = std::mem::take(&mut self.wills).into_keys().collect();
        (self.retained, self.sessions) = Default::default();
        open
    }

    /// How many messages wait for a client or are on their way to it.
    pub(super) fn waiting(&self, client: &Client) -> usize {
        self.sessions.get(client).map_or(0, |session| session.queue.len() + session.in_flight.len())
    }
}

/// How many messages may wait for a client.
fn room(drops: bool, client: &Client) -> usize {
    match client {
        Client::Planner(_) if drops => ROOM,
        _ => usize::MAX,
    }
}

impl Session {
    fn push(&mut self, message: Message, room: usize) {
        if self.queue.len() + self.in_flight.len() < room {
            self.queue.push_back(message);
        }
    }

    /// What was on its way is sent again on the next connection, before all else.
    fn disconnect(&mut self) {
        self.conn = None;
        for (_, message) in std::mem::take(&mut self.in_flight).into_iter().rev() {
            self.queue.push_front(message);
        }
    }
}

fn wants(client: &Client, (node, topic): &Address) -> bool {
    match (client, node) {
        (Client::Agent(own), Some(node)) => own == node && TO_AGENT.contains(topic),
        (Client::Agent(_), None) => false,
        (Client::Planner(_), Some(_)) => TO_PLANNER.contains(topic),
        (Client::Planner(_), None) => true,
    }
}
