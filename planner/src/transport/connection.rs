//! Keeping a connection: one client and event loop of rumqttc for each, polled in a task of its own.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use groundplan_protocol::MAX_PACKET;
use rumqttc::{
    AsyncClient, ConnAck, Event, EventLoop, MqttOptions, NetworkOptions, Outgoing as Written, Packet, Publish, QoS,
    SubscribeFilter,
};
use tokio::{
    sync::mpsc,
    time::{Instant, timeout_at},
};

use super::{
    messages::{Command, Incoming, Receipt},
    outbox::{Counts, Outbox, Outgoing},
};

/// After this long without a word the broker is asked whether it is there.
pub(super) const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// How many messages may be on their way, unconfirmed.
pub(super) const IN_FLIGHT: u16 = 400;

/// A connection on which nothing at all happens for this long, though there is something to be confirmed, is given up.
const STALL: Duration = Duration::from_secs(40);

/// How long the last words may take.
const FAREWELL: Duration = Duration::from_secs(2);

/// The first wait between two attempts; it doubles up to the last.
const RETRY: [Duration; 2] = [Duration::from_millis(100), Duration::from_secs(5)];

/// What the polling task tells.
enum Told {
    Connected(ConnAck),
    Subscribed,
    Message(Publish),
    Written(u16),
    Confirmed(u16),
    Broken(String),
}

/// How a connection ended.
enum End {
    Lost { error: String, was_ready: bool },
    Stopped,
}

pub(super) async fn run(
    options: MqttOptions,
    filters: Vec<String>,
    mut commands: mpsc::UnboundedReceiver<Command>,
    incoming: mpsc::Sender<Incoming>,
    backlog: Arc<AtomicUsize>,
) {
    let mut outbox = Outbox::default();
    let mut wait = RETRY[0];
    let mut number = 0;
    // Until we have subscribed once, the broker's session may be an older process's with other subscriptions.
    let mut subscribed = false;
    loop {
        number += 1;
        let end = Connection {
            number,
            outbox: &mut outbox,
            subscribed: &mut subscribed,
            open: false,
            ready: false,
            backlog: &backlog,
        }
        .run(&options, &filters, &mut commands, &incoming)
        .await;
        match end {
            End::Stopped => return,
            End::Lost { error, was_ready } => {
                outbox.disconnected();
                // The broker may have made a new session before the connection broke: then the next one is reported as kept, and has no
                // subscriptions.
                subscribed &= was_ready;
                wait = if was_ready { RETRY[0] } else { (wait * 2).min(RETRY[1]) };
                if incoming.send(Incoming::Lost { error }).await.is_err() {
                    return;
                }
            }
        }
        let until = Instant::now() + wait;
        while let Ok(command) = timeout_at(until, commands.recv()).await {
            match command {
                Some(Command::Publish { message, urgent: false })
                    if fits(&message) && message.counts != Counts::Now =>
                {
                    outbox.push(message);
                }
                Some(Command::Stop) | None => return,
                Some(_) => {}
            }
        }
    }
}

/// Whether a message fits into a packet; one that does not is told of, and never handed to the client.
fn fits(Outgoing { topic, payload, .. }: &Outgoing) -> bool {
    let fits = topic.len() + payload.len() + 16 <= MAX_PACKET;
    if !fits {
        tracing::error!(topic, bytes = payload.len(), "too large for a packet, not published");
    }
    fits
}

struct Connection<'a> {
    number: u64,
    outbox: &'a mut Outbox,
    subscribed: &'a mut bool,
    open: bool,
    ready: bool,
    backlog: &'a AtomicUsize,
}

impl Connection<'_> {
    async fn run(
        mut self,
        options: &MqttOptions,
        filters: &[String],
        commands: &mut mpsc::UnboundedReceiver<Command>,
        incoming: &mpsc::Sender<Incoming>,
    ) -> End {
        let (client, mut events) = AsyncClient::new(options.clone(), 64);
        let mut network = NetworkOptions::new();
        network.set_tcp_nodelay(true);
        events.set_network_options(network);
        let (tell, mut told) = mpsc::channel(64);
        let poll = tokio::spawn(poll(events, tell));
        let end = self.drive(&client, filters, &mut told, commands, incoming).await;
        poll.abort();
        end
    }

    async fn drive(
        &mut self,
        client: &AsyncClient,
        filters: &[String],
        told: &mut mpsc::Receiver<Told>,
        commands: &mut mpsc::UnboundedReceiver<Command>,
        incoming: &mpsc::Sender<Incoming>,
    ) -> End {
        let mut fresh = true;
        let mut receipts: Vec<u16> = Vec::new();
        let mut stall = Instant::now() + STALL;
        let mut was_busy = false;
        let mut farewell: Option<Instant> = None;
        loop {
            let full = !self.pump(client, &mut receipts);
            self.backlog.store(self.outbox.bytes(), Ordering::Relaxed);
            if farewell.is_some() && (!self.ready || self.outbox.is_settled()) {
                let _ = client.try_disconnect();
                tokio::time::sleep(Duration::from_millis(20)).await;
                return End::Stopped;
            }
            let busy = !self.outbox.is_settled();
            if busy && !was_busy {
                // The broker had nothing to confirm until now, however long it has been silent.
                stall = Instant::now() + STALL;
            }
            was_busy = busy;
            let retry = Instant::now() + Duration::from_millis(1);
            tokio::select! {
                biased;
                // The client's channel is full: there is something to be sent once it has moved on.
                () = tokio::time::sleep_until(retry), if full => {}
                () = tokio::time::sleep_until(stall), if busy => {
                    return self.lost("the broker does not confirm anything any more");
                }
                () = tokio::time::sleep_until(farewell.unwrap_or(stall)), if farewell.is_some() => return End::Stopped,
                event = told.recv() => {
                    stall = Instant::now() + STALL;
                    let word = match event {
                        None => return self.lost("the client ended"),
                        Some(Told::Broken(error)) => return self.lost(&error),
                        Some(Told::Connected(ack)) => {
                            fresh = !ack.session_present || !*self.subscribed;
                            if !ack.session_present {
                                self.outbox.clear();
                            }
                            if !fresh {
                                self.ready = true;
                                Incoming::Ready { fresh, replay: false }
                            } else {
                                let filters = filters.iter().map(|f| SubscribeFilter::new(f.clone(), QoS::AtLeastOnce));
                                if client.try_subscribe_many(filters).is_err() {
                                    return self.lost("cannot subscribe");
                                }
                                continue;
                            }
                        }
                        Some(Told::Subscribed) => {
                            (self.ready, *self.subscribed) = (true, true);
                            Incoming::Ready { fresh, replay: true }
                        }
                        Some(Told::Written(packet)) => {
                            self.outbox.written(packet);
                            continue;
                        }
                        Some(Told::Confirmed(packet)) => {
                            self.outbox.confirmed(packet);
                            continue;
                        }
                        Some(Told::Message(publish)) => {
                            let receipt = Receipt { connection: self.number, packet: publish.pkid };
                            // A copy: the client's buffer holds many packets and would be kept alive by one of them.
                            let payload = Bytes::copy_from_slice(&publish.payload);
                            Incoming::Message { topic: publish.topic, payload, receipt }
                        }
                    };
                    if incoming.send(word).await.is_err() {
                        return End::Stopped;
                    }
                }
                command = commands.recv() => match command {
                    None | Some(Command::Stop) => farewell = Some(Instant::now() + FAREWELL),
                    Some(Command::Open) => self.open = self.ready,
                    Some(Command::Acknowledge(receipt)) if receipt.connection == self.number => receipts.push(receipt.packet),
                    Some(Command::Acknowledge(_)) => {}
                    Some(Command::Publish { message, urgent }) => match (fits(&message), urgent) {
                        (true, true) => self.outbox.push_urgent(message),
                        (true, false) => self.outbox.push(message),
                        (false, _) => {}
                    },
                },
            }
        }
    }

    /// Gives the client what it takes. Returns whether that was all.
    fn pump(&mut self, client: &AsyncClient, receipts: &mut Vec<u16>) -> bool {
        if !self.ready {
            return true;
        }
        let mut done = 0;
        for packet in receipts.iter() {
            let mut publish = Publish::new("", QoS::AtLeastOnce, Vec::new());
            publish.pkid = *packet;
            if *packet != 0 && client.try_ack(&publish).is_err() {
                break;
            }
            done += 1;
        }
        receipts.drain(..done);
        while let Some(next) = self.outbox.peek(self.open).filter(|_| receipts.is_empty()) {
            let payload = next.payload.to_vec();
            if client.try_publish(next.topic.clone(), QoS::AtLeastOnce, next.retain, payload).is_err() {
                return false;
            }
            self.outbox.left();
        }
        receipts.is_empty()
    }

    fn lost(&self, error: &str) -> End {
        End::Lost { error: error.to_owned(), was_ready: self.ready }
    }
}

async fn poll(mut events: EventLoop, tell: mpsc::Sender<Told>) {
    loop {
        let told = match events.poll().await {
            Ok(Event::Incoming(Packet::ConnAck(ack))) => Told::Connected(ack),
            Ok(Event::Incoming(Packet::SubAck(_))) => Told::Subscribed,
            Ok(Event::Incoming(Packet::Publish(publish))) => Told::Message(publish),
            Ok(Event::Incoming(Packet::PubAck(ack))) => Told::Confirmed(ack.pkid),
            Ok(Event::Outgoing(Written::Publish(packet))) => Told::Written(packet),
            Ok(_) => continue,
            Err(error) => {
                // One connection, one client: rumqttc would go on with what it had in flight, which is not its to decide here.
                let _ = tell.send(Told::Broken(error.to_string())).await;
                return;
            }
        };
        if tell.send(told).await.is_err() {
            return;
        }
    }
}
