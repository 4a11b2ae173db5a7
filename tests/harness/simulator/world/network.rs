//! Packets between clients and the broker: delayed, in order on a connection, lost with it.

use std::time::Duration;

use groundplan_protocol::plan::PlanBody;

use super::{
    super::broker::{Client, Conn, Down, Message, Outcome, Payload, Up},
    Event, Owner, Wire, World,
};

impl World {
    fn latency(&mut self) -> Duration {
        match self.rng.below(100) {
            0..90 => self.millis(0, 4),
            90..99 => self.millis(4, 80),
            _ => self.millis(80, 1500),
        }
    }

    /// A process tries to connect.
    pub(super) fn connect(&mut self, owner: Owner, incarnation: u32) {
        let (link, alive, client) = match owner {
            Owner::Agent(slot) => {
                let agent = &self.agents[slot];
                let alive = agent.machine.is_some() && agent.incarnation == incarnation;
                (&agent.link, alive, Client::Agent(agent.node.clone()))
            }
            Owner::Planner(slot) => {
                let planner = &self.planners[slot];
                let alive = planner.machine.is_some() && planner.incarnation == incarnation;
                (&planner.link, alive, Client::Planner(planner.name.clone()))
            }
        };
        if !alive || link.conn.is_some() {
            return;
        }
        if link.partitioned_until > self.now {
            let at = link.partitioned_until + Duration::from_millis(50);
            self.at(at, Event::Connect(owner, incarnation));
            return;
        }
        let will = match owner {
            Owner::Agent(slot) => self.agent_presence(slot, false),
            Owner::Planner(slot) => self.planner_will(slot),
        };
        self.last_conn += 1;
        let conn = self.last_conn;
        let (up, down) = (self.now, self.now);
        self.wires.insert(conn, Wire { owner, client, up, down, client_open: true, broker_open: true });
        match owner {
            Owner::Agent(slot) => self.agents[slot].link.conn = Some(conn),
            Owner::Planner(slot) => self.planners[slot].link.conn = Some(conn),
        }
        self.send_up(conn, Up::Connect { will: Box::new(will) });
    }

    pub(super) fn send_up(&mut self, conn: Conn, packet: Up) {
        let latency = self.latency();
        let Some(wire) = self.wires.get_mut(&conn).filter(|wire| wire.client_open) else { return };
        wire.up = wire.up.max(self.now + latency);
        let at = wire.up;
        self.at(at, Event::Up(conn, packet));
    }

    fn send_down(&mut self, conn: Conn, packet: Down) {
        let latency = self.latency();
        let Some(wire) = self.wires.get_mut(&conn).filter(|wire| wire.broker_open) else { return };
        wire.down = wire.down.max(self.now + latency);
        let at = wire.down;
        self.at(at, Event::Down(conn, packet));
    }

    /// A packet arrives at the broker.
    pub(super) fn at_broker(&mut self, conn: Conn, packet: Up) {
        let Some(wire) = self.wires.get(&conn).filter(|wire| wire.broker_open) else { return };
        let client = wire.client.clone();
        let ends = matches!(packet, Up::Disconnect);
        let outcome = self.broker.take(conn, &client, packet);
        if ends {
            self.close_at_broker(conn);
        }
        self.carry_out_broker(outcome);
    }

    /// The broker delivers something of a planner's presence again: what it published, or its last will. Once faults have stopped, nothing that
    /// has planners take turns where the network is slow: what an operator asks of one may be lost with each turn.
    pub(super) fn replay(&mut self, more: u64) {
        let message = if self.faulty && self.rng.chance(20) || self.presences.is_empty() {
            let slot = self.rng.below(self.planners.len());
            self.planner_will(slot)
        } else {
            let presence = self.rng.pick(&self.presences).clone();
            let retain = presence.challenge.is_none();
            Message { address: (None, "planner"), payload: Payload::Planner(presence), retain }
        };
        let outcome = self.broker.deliver_again(message);
        self.carry_out_broker(outcome);
        if more > 0 {
            let delay = self.millis(100, 1500);
            self.after(delay, Event::Replay(more - 1));
        }
    }

    fn carry_out_broker(&mut self, outcome: Outcome) {
        if let Some(closed) = outcome.closed {
            self.close_at_broker(closed);
        }
        for (conn, packet) in outcome.down {
            self.send_down(conn, packet);
        }
        for client in outcome.pump {
            let delay = self.millis(0, 3);
            self.after(delay, Event::Pump(client));
        }
    }

    pub(super) fn pump_broker(&mut self, client: &Client) {
        let down = self.broker.pump(client, &mut self.rng);
        for (conn, packet) in down {
            self.send_down(conn, packet);
        }
    }

    /// A packet arrives at a client.
    pub(super) fn at_client(&mut self, conn: Conn, packet: Down) {
        let Some(wire) = self.wires.get(&conn).filter(|wire| wire.client_open) else { return };
        match wire.owner {
            Owner::Agent(slot) => self.agent_receives(slot, conn, packet),
            Owner::Planner(slot) => self.planner_receives(slot, conn, packet),
        }
    }

    /// A connection breaks: what is on its way in either direction is lost, and each side notices in its own time.
    pub(super) fn cut(&mut self, conn: Conn) {
        // What has left may still arrive: then the other side has it, and its answer is lost.
        let (client, broker) = (self.millis(0, 400), self.millis(0, 1500));
        self.after(client, Event::ClientLost(conn));
        self.after(broker, Event::BrokerLost(conn));
        let loses_at_once = self.rng.chance(60);
        if let Some(wire) = self.wires.get_mut(&conn).filter(|_| loses_at_once) {
            // Nothing arrives any more.
            (wire.up, wire.down) = (Duration::MAX / 2, Duration::MAX / 2);
        }
    }

    /// A client's process is gone: the broker notices.
    pub(super) fn abandon(&mut self, conn: Conn) {
        if let Some(wire) = self.wires.get_mut(&conn) {
            wire.client_open = false;
        }
        let delay = self.millis(0, 800);
        self.after(delay, Event::BrokerLost(conn));
    }

    pub(super) fn client_lost(&mut self, conn: Conn) {
        let Some(wire) = self.wires.get_mut(&conn).filter(|wire| wire.client_open) else { return };
        wire.client_open = false;
        match wire.owner {
            Owner::Agent(slot) => self.agent_disconnected(slot, conn),
            Owner::Planner(slot) => self.planner_disconnected(slot, conn),
        }
        self.forget_wire(conn);
    }

    pub(super) fn broker_lost(&mut self, conn: Conn) {
        let Some(wire) = self.wires.get_mut(&conn).filter(|wire| wire.broker_open) else { return };
        wire.broker_open = false;
        let outcome = self.broker.lost(conn);
        self.carry_out_broker(outcome);
        self.forget_wire(conn);
    }

    pub(super) fn close_at_broker(&mut self, conn: Conn) {
        let Some(wire) = self.wires.get_mut(&conn) else { return };
        wire.broker_open = false;
        let delay = self.millis(0, 20);
        self.after(delay, Event::ClientLost(conn));
        self.forget_wire(conn);
    }

    fn forget_wire(&mut self, conn: Conn) {
        if self.wires.get(&conn).is_some_and(|wire| !wire.client_open && !wire.broker_open) {
            self.wires.remove(&conn);
        }
    }

    /// Connects again after a while.
    pub(super) fn connect_later(&mut self, owner: Owner, incarnation: u32) {
        let delay = if self.faulty && self.rng.chance(20) { self.millis(500, 6000) } else { self.millis(50, 200) };
        self.after(delay, Event::Connect(owner, incarnation));
    }
}

/// A message in few words, for the trace.
pub(super) fn short(message: &Message) -> String {
    let node = message.address.0.as_ref().map_or("", |node| node.as_str());
    let what = match &message.payload {
        Payload::Plan(offer) => {
            let PlanBody::Inline(text) = &offer.body else { return "a plan as a blob".to_owned() };
            text.parse().map_or_else(
                |e| e.to_string(),
                |plan| {
                    let tasks = plan.tasks.iter().map(|t| {
                        format!("{}:{}{}", t.task, t.action, t.obligation.map(|e| format!("+{e}")).unwrap_or_default())
                    });
                    format!(
                        "g{} [{}] edges of {:?}",
                        plan.generation,
                        tasks.collect::<Vec<_>>().join(" "),
                        plan.edges.keys()
                    )
                },
            )
        }
        Payload::Gates(gates) => {
            let open = gates.open.iter().map(|(gate, open)| format!("{gate}{}", if open.fired { "!" } else { "" }));
            format!("g{} [{}]", gates.generation, open.collect::<Vec<_>>().join(" "))
        }
        Payload::Ack(ack) => format!("to {}", ack.sequence),
        Payload::State(state) => {
            let obligations: Vec<String> = state.obligations.keys().map(ToString::to_string).collect();
            format!(
                "g{} r{} s{} {:?} obligations [{}]",
                state.generation,
                state.revision & 0xffff,
                state.sequence,
                state.phase,
                obligations.join(" ")
            )
        }
        Payload::Reports(batch) => {
            let reports = batch.reports.iter().map(|r| format!("{}@{}={}", r.task, r.generation, r.outcome));
            format!("from {} [{}]", batch.first, reports.collect::<Vec<_>>().join(" "))
        }
        Payload::Presence(presence) => if presence.online { "online" } else { "offline" }.to_owned(),
        Payload::Planner(p) => format!("{} online={} term {} g{}", p.planner, p.online, p.term, p.generation),
        Payload::Nothing => "cleared".to_owned(),
    };
    format!("{node}/{} {what}", message.address.1)
}
