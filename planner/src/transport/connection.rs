//! Keeping a connection: one client and event loop of rumqttc for each, polled in a task of its own.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use bytes::Bytes;
use groundplan_protocol::MAX_PACKET;
use rumqttc::{
    AsyncClient, ConnAck, Event, EventLoop, MqttOptions, NetworkOptions, Outgoing as Written, Packet, Publish, QoS,
    SubscribeFilter, SubscribeReasonCode,
};
use tokio::{
    sync::{Semaphore, mpsc},
    time::{Instant, timeout_at},
};

use super::{
    backlog::Backlog,
    messages::{Command, Incoming, Receipt, Room},
    outbox::{Counts, Outbox, Outgoing},
    settings::Settings,
};

/// A connection on which nothing at all happens for this long, though there is something to be confirmed, is given up.
const STALL: Duration = Duration::from_secs(40);

/// How long a shutdown waits for the broker to confirm what is in flight.
const SHUTDOWN: Duration = Duration::from_secs(2);

/// Most bytes of messages that came and are not dealt with yet, and what each takes beside its payload.
const ROOM: usize = 64 << 20;
const OVERHEAD: usize = 512;

/// The first wait between two attempts; it doubles up to the last.
const RETRY: [Duration; 2] = [Duration::from_millis(100), Duration::from_secs(5)];

/// What the polling task reports.
enum ConnectionEvent {
    Connected(ConnAck),
    /// Whether every subscription was granted.
    Subscribed(bool),
    Message(Publish, Room),
    /// The client has written the next message in order, as this packet.
    Written(u16),
    /// The broker has confirmed this packet.
    Confirmed(u16),
    Broken(String),
}

/// How a connection ended.
enum End {
    Lost { error: String, was_ready: bool },
    Stopped,
}

pub(super) async fn run(
    settings: Settings,
    mut commands: mpsc::UnboundedReceiver<Command>,
    incoming: mpsc::Sender<Incoming>,
    backlog: Arc<Backlog>,
) {
    let mut outbox = Outbox::default();
    let room = Arc::new(Semaphore::new(ROOM));
    let mut wait = RETRY[0];
    let mut number = 0;
    // Until we have subscribed once, the broker's session may be an older process's with other subscriptions.
    let mut subscribed = false;
    loop {
        number += 1;
        // The files of certificates and password may have changed since the last connection.
        let (client, events) = match settings.options() {
            Ok(options) => client(options),
            Err(error) => {
                let error = chain(&error);
                if incoming.send(Incoming::Lost { error }).await.is_err()
                    || !rest(wait, &mut commands, &mut outbox, &backlog).await
                {
                    return;
                }
                wait = (wait * 2).min(RETRY[1]);
                continue;
            }
        };
        let connection = Connection {
            number,
            client,
            filters: &settings.filters,
            outbox: &mut outbox,
            subscribed: &mut subscribed,
            open: false,
            ready: false,
            fresh: true,
            receipts: Vec::new(),
            replays: Default::default(),
            stall: Instant::now() + STALL,
            shutdown: None,
            backlog: &backlog,
            room: room.clone(),
        };
        let end = connection.run(events, &mut commands, &incoming).await;
        match end {
            End::Stopped => return,
            End::Lost { error, was_ready } => {
                outbox.disconnected();
                backlog.outbox(outbox.bytes());
                // The broker may have made a new session before the connection broke: then the next one is reported as kept, and has no
                // subscriptions.
                subscribed &= was_ready;
                wait = if was_ready { RETRY[0] } else { (wait * 2).min(RETRY[1]) };
                if incoming.send(Incoming::Lost { error }).await.is_err() {
                    return;
                }
            }
        }
        if !rest(wait, &mut commands, &mut outbox, &backlog).await {
            return;
        }
    }
}

/// Waits before the next attempt; false if the connection is to end. Commands are taken meanwhile: they would pile up, and `Stop` must not
/// wait for the next attempt. What is for one connection only (urgent messages, orders, receipts) ended with the last one.
async fn rest(
    wait: Duration,
    commands: &mut mpsc::UnboundedReceiver<Command>,
    outbox: &mut Outbox,
    backlog: &Backlog,
) -> bool {
    let until = Instant::now() + wait;
    while let Ok(command) = timeout_at(until, commands.recv()).await {
        match command {
            Some(Command::Publish { message, urgent }) => {
                let bytes = message.payload.len();
                if !urgent && fits(&message) && message.counts != Counts::Now {
                    outbox.push(message);
                }
                backlog.taken(bytes, outbox.bytes());
            }
            Some(Command::Stop) | None => return false,
            Some(_) => {}
        }
    }
    true
}

/// An error with its causes.
fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

/// A client of its own for each connection, and its event loop.
fn client(options: MqttOptions) -> (AsyncClient, EventLoop) {
    let (client, mut events) = AsyncClient::new(options, 64);
    let mut network = NetworkOptions::new();
    network.set_tcp_nodelay(true);
    events.set_network_options(network);
    (client, events)
}

/// Whether a message fits into a packet; one that does not is logged, and never handed to the client, which would end the connection.
fn fits(Outgoing { topic, payload, .. }: &Outgoing) -> bool {
    let fits = topic.len() + payload.len() + 16 <= MAX_PACKET;
    if !fits {
        tracing::error!(topic, bytes = payload.len(), "too large for a packet, not published");
    }
    fits
}

struct Connection<'a> {
    number: u64,
    client: AsyncClient,
    filters: &'a [String],
    outbox: &'a mut Outbox,
    subscribed: &'a mut bool,
    /// Whether messages that are not urgent may leave: the planner opens the outbox once all that it publishes again is in it.
    open: bool,
    ready: bool,
    /// Whether the broker's session is new, or may have other subscriptions.
    fresh: bool,
    /// Packets to be acknowledged, for which the client has had no room so far.
    receipts: Vec<u16>,
    /// Topics whose retained messages are wanted again: still to be subscribed to, and subscribed to.
    replays: (VecDeque<Vec<String>>, VecDeque<Vec<String>>),
    /// When the connection is given up if nothing happens before.
    stall: Instant,
    /// Set once the connection is to end: by when at the latest.
    shutdown: Option<Instant>,
    backlog: &'a Backlog,
    /// For messages that came and are not dealt with yet.
    room: Arc<Semaphore>,
}

impl Connection<'_> {
    async fn run(
        mut self,
        events: EventLoop,
        commands: &mut mpsc::UnboundedReceiver<Command>,
        incoming: &mpsc::Sender<Incoming>,
    ) -> End {
        let (sender, mut events_of_client) = mpsc::channel(64);
        let poll = tokio::spawn(poll(events, sender, self.room.clone()));
        let end = self.drive(&mut events_of_client, commands, incoming).await;
        poll.abort();
        end
    }

    async fn drive(
        &mut self,
        events: &mut mpsc::Receiver<ConnectionEvent>,
        commands: &mut mpsc::UnboundedReceiver<Command>,
        incoming: &mpsc::Sender<Incoming>,
    ) -> End {
        let mut was_busy = false;
        loop {
            let full = !self.pump();
            self.backlog.outbox(self.outbox.bytes());
            if self.shutdown.is_some() && (!self.ready || self.outbox.is_settled()) {
                let _ = self.client.try_disconnect();
                // The polling task is aborted next; it needs a moment to write the packet. Without it the broker would publish the will.
                tokio::time::sleep(Duration::from_millis(20)).await;
                return End::Stopped;
            }
            let busy = !self.outbox.is_settled();
            if busy && !was_busy {
                // The broker had nothing to confirm until now, however long it has been silent.
                self.stall = Instant::now() + STALL;
            }
            was_busy = busy;
            let retry = Instant::now() + Duration::from_millis(1);
            let shutdown = self.shutdown.unwrap_or(self.stall);
            tokio::select! {
                // Limits first: a stream of commands must not hide a connection that is dead. Events before commands: what is
                // confirmed makes room for what is to be sent.
                biased;
                // The client's channel is full: there is something to be sent once it has moved on.
                () = tokio::time::sleep_until(retry), if full => {}
                () = tokio::time::sleep_until(self.stall), if busy => {
                    return self.lost("the broker does not confirm anything any more");
                }
                () = tokio::time::sleep_until(shutdown), if self.shutdown.is_some() => return End::Stopped,
                event = events.recv() => {
                    self.stall = Instant::now() + STALL;
                    let Some(event) = event else { return self.lost("the client ended") };
                    match self.take_event(event) {
                        // Waits while the planner is busy: so the broker is slowed down instead of filling our memory.
                        Ok(Some(message)) => if incoming.send(message).await.is_err() {
                            return End::Stopped;
                        },
                        Ok(None) => {}
                        Err(end) => return end,
                    }
                }
                command = commands.recv() => self.take_command(command.unwrap_or(Command::Stop)),
            }
        }
    }

    /// Takes an event of the client. Returns what the planner receives of it, or how the connection ends.
    fn take_event(&mut self, event: ConnectionEvent) -> Result<Option<Incoming>, End> {
        Ok(Some(match event {
            ConnectionEvent::Broken(error) => return Err(self.lost(&error)),
            ConnectionEvent::Connected(ack) => {
                self.fresh = !ack.session_present || !*self.subscribed;
                if !ack.session_present {
                    self.outbox.clear();
                }
                if self.fresh {
                    // Ready only once the broker has confirmed this: a message before that could lead to answers that we do not get.
                    let filters = self.filters.iter().map(|f| SubscribeFilter::new(f.clone(), QoS::AtLeastOnce));
                    return match self.client.try_subscribe_many(filters) {
                        Ok(()) => Ok(None),
                        Err(_) => Err(self.lost("cannot subscribe")),
                    };
                }
                self.ready = true;
                Incoming::Ready { fresh: false, replay: false }
            }
            // For a moment only: the session's own subscriptions cover these topics, and a broker may send a message once for each.
            ConnectionEvent::Subscribed(_) if self.ready => {
                for topic in self.replays.1.pop_front().into_iter().flatten() {
                    let _ = self.client.try_unsubscribe(topic);
                }
                return Ok(None);
            }
            ConnectionEvent::Subscribed(false) => {
                return Err(
                    self.lost("it refuses the subscription to the site's topics: check the planner's access rights")
                );
            }
            ConnectionEvent::Subscribed(true) => {
                (self.ready, *self.subscribed) = (true, true);
                Incoming::Ready { fresh: self.fresh, replay: true }
            }
            ConnectionEvent::Written(packet) => {
                self.outbox.written(packet);
                return Ok(None);
            }
            ConnectionEvent::Confirmed(packet) => {
                self.outbox.confirmed(packet);
                return Ok(None);
            }
            ConnectionEvent::Message(publish, room) => {
                let receipt = Receipt { connection: self.number, packet: publish.pkid };
                // A copy: the client's buffer holds many packets and would be kept alive by one of them.
                let payload = Bytes::copy_from_slice(&publish.payload);
                Incoming::Message { topic: publish.topic, payload, receipt, room }
            }
        }))
    }

    fn take_command(&mut self, command: Command) {
        match command {
            Command::Stop => self.shutdown = Some(Instant::now() + SHUTDOWN),
            Command::Open => self.open = self.ready,
            // Packet ids are numbered for each connection: a receipt of an earlier one would acknowledge another message here.
            Command::Acknowledge(receipt) if receipt.connection == self.number => self.receipts.push(receipt.packet),
            Command::Acknowledge(_) => {}
            Command::Replay(topics) => self.replays.0.push_back(topics),
            Command::Publish { message, urgent } => {
                let bytes = message.payload.len();
                match (fits(&message), urgent) {
                    (true, true) => self.outbox.push_urgent(message),
                    (true, false) => self.outbox.push(message),
                    (false, _) => {}
                }
                self.backlog.taken(bytes, self.outbox.bytes());
            }
        }
    }

    /// Gives the client what it has room for, and never waits: `drive` must go on to take the events that make room. Returns whether
    /// that was all.
    fn pump(&mut self) -> bool {
        if !self.ready {
            return true;
        }
        let mut done = 0;
        for packet in &self.receipts {
            let mut publish = Publish::new("", QoS::AtLeastOnce, Vec::new());
            publish.pkid = *packet;
            // Packet 0 is a message of QoS 0, for which there is nothing to acknowledge.
            if *packet != 0 && self.client.try_ack(&publish).is_err() {
                break;
            }
            done += 1;
        }
        self.receipts.drain(..done);
        while let Some(topics) = self.replays.0.front() {
            let filters = topics.iter().map(|topic| SubscribeFilter::new(topic.clone(), QoS::AtLeastOnce));
            if self.client.try_subscribe_many(filters).is_err() {
                return false;
            }
            self.replays.1.extend(self.replays.0.pop_front());
        }
        // Acknowledgements before messages: with many of them outstanding the broker stops sending to us.
        while let Some(next) = self.outbox.peek(self.open).filter(|_| self.receipts.is_empty()) {
            let payload = next.payload.to_vec();
            if self.client.try_publish(next.topic.clone(), QoS::AtLeastOnce, next.retain, payload).is_err() {
                return false;
            }
            self.outbox.left();
        }
        self.receipts.is_empty()
    }

    fn lost(&self, error: &str) -> End {
        End::Lost { error: error.to_owned(), was_ready: self.ready }
    }
}

/// Polls the client's event loop until the connection breaks. In a task of its own: a poll that is cancelled may lose what it has read.
///
/// A message has to have room before it is handed on: so the broker is slowed down instead of filling our memory, also by messages of QoS 0,
/// which it may send without waiting for acknowledgements.
async fn poll(mut events: EventLoop, sender: mpsc::Sender<ConnectionEvent>, room: Arc<Semaphore>) {
    loop {
        let event = match events.poll().await {
            Ok(Event::Incoming(Packet::ConnAck(ack))) => ConnectionEvent::Connected(ack),
            Ok(Event::Incoming(Packet::SubAck(ack))) => {
                ConnectionEvent::Subscribed(!ack.return_codes.contains(&SubscribeReasonCode::Failure))
            }
            Ok(Event::Incoming(Packet::Publish(publish))) => {
                let bytes = u32::try_from(publish.topic.len() + publish.payload.len() + OVERHEAD).unwrap_or(u32::MAX);
                // Never closed, and never asked for more than there is: a packet is smaller.
                let Ok(permit) = room.clone().acquire_many_owned(bytes.min(ROOM as u32)).await else { return };
                ConnectionEvent::Message(publish, Room(permit))
            }
            Ok(Event::Incoming(Packet::PubAck(ack))) => ConnectionEvent::Confirmed(ack.pkid),
            Ok(Event::Outgoing(Written::Publish(packet))) => ConnectionEvent::Written(packet),
            Ok(_) => continue,
            Err(error) => {
                // One connection, one client: rumqttc would go on with what it had in flight, and the outbox decides that.
                let _ = sender.send(ConnectionEvent::Broken(error.to_string())).await;
                return;
            }
        };
        if sender.send(event).await.is_err() {
            return;
        }
    }
}
