//! Outgoing messages: the latest state, presence and drift, subscriptions, acknowledgements, reports, and output of commands.
//!
//! In: sealed messages. Out: publishes, as fast as the client takes them. Retained messages replace each other while they
//! wait, and are kept until the broker has confirmed them; so is each message of output, which exists nowhere else.
//! Reports and requests are not kept: ledger and blob store repeat them. It never waits.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::Duration,
};

use groundplan_protocol::MAX_PAYLOAD;
use rumqttc::{AsyncClient, Publish, QoS};

/// Most batches of reports in flight.
const BATCHES: usize = 4;
/// Most messages of output in flight.
const OUTPUTS: usize = 4;
/// After this long without any confirmation of what is in flight, the connection counts as stalled.
const STALL: Duration = Duration::from_secs(30);

/// The kind of a publish.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    State,
    Presence,
    Drift,
    Reports,
    Want,
    Output,
}

/// The retained kinds, of which only the last message counts, in the order in which they are sent.
const RETAINED: [Kind; 3] = [Kind::Presence, Kind::State, Kind::Drift];

/// A retained message: the last one, until it is confirmed.
#[derive(Debug, Default)]
struct Slot {
    topic: String,
    payload: Option<Vec<u8>>,
    /// This very payload is in flight.
    in_flight: bool,
}

/// What is to be sent, what is in flight, and the client of the present connection.
#[derive(Debug, Default)]
pub struct Outlet {
    client: Option<AsyncClient>,
    state: Slot,
    presence: Slot,
    drift: Slot,
    /// Output of commands, oldest first: the first `output_sent` messages are in flight, the others wait.
    output: VecDeque<Vec<u8>>,
    output_sent: usize,
    output_topic: String,
    filters: BTreeSet<String>,
    subscribe: BTreeSet<String>,
    /// Subscriptions in flight, oldest first: a connection may break after the broker has made the session and before it has
    /// read them.
    subscribing: VecDeque<String>,
    acks: VecDeque<Publish>,
    /// Passed to the client, without a packet id yet.
    handed: VecDeque<Kind>,
    in_flight: BTreeMap<u16, Kind>,
    /// Since when something is in flight without any confirmation.
    waiting_since: Option<Duration>,
}

impl Outlet {
    /// An outlet that publishes state, presence, drift and output under these topics.
    pub fn new(state: String, presence: String, drift: String, output: String) -> Self {
        let slot = |topic| Slot { topic, ..Slot::default() };
        Self {
            state: slot(state),
            presence: slot(presence),
            drift: slot(drift),
            output_topic: output,
            ..Self::default()
        }
    }

    /// A connection was made; `resubscribe` if the broker has no session.
    pub fn up(&mut self, client: AsyncClient, resubscribe: bool) {
        self.down();
        self.client = Some(client);
        if resubscribe {
            self.subscribe = self.filters.clone();
        }
    }

    /// The connection was lost, and with it all that it had not delivered.
    pub fn down(&mut self) {
        self.client = None;
        // What was in flight is sent again: retained messages and output from here, reports and requests by their owners.
        self.handed.clear();
        self.in_flight.clear();
        self.acks.clear();
        // A confirmation that did not come may never come: subscribe again on the next connection.
        let filters = &self.filters;
        self.subscribe.extend(self.subscribing.drain(..).filter(|filter| filters.contains(filter)));
        RETAINED.into_iter().for_each(|kind| self.slot(kind).in_flight = false);
        self.output_sent = 0;
        self.waiting_since = None;
    }

    /// Whether there is a connection.
    pub fn is_up(&self) -> bool {
        self.client.is_some()
    }

    /// Subscribes, now and whenever the broker has lost the session.
    pub fn subscribe(&mut self, filter: String) {
        if self.filters.insert(filter.clone()) {
            self.subscribe.insert(filter);
        }
    }

    /// The broker has confirmed the oldest subscription in flight.
    pub fn subscribed(&mut self) {
        self.subscribing.pop_front();
    }

    /// Ends a subscription. If the request is lost, a few messages come that are ignored.
    pub fn unsubscribe(&mut self, filter: &str) {
        self.subscribe.remove(filter);
        if self.filters.remove(filter)
            && let Some(client) = &self.client
        {
            let _ = client.try_unsubscribe(filter);
        }
    }

    /// Publishes this state in place of an earlier one that still waits; false if it is too large.
    pub fn state(&mut self, payload: Vec<u8>) -> bool {
        self.put(Kind::State, payload)
    }

    /// Publishes this presence in place of an earlier one that still waits.
    pub fn presence(&mut self, payload: Vec<u8>) {
        self.put(Kind::Presence, payload);
    }

    /// Publishes this drift report in place of an earlier one that still waits; false if it is too large.
    pub fn drift(&mut self, payload: Vec<u8>) -> bool {
        self.put(Kind::Drift, payload)
    }

    fn put(&mut self, kind: Kind, payload: Vec<u8>) -> bool {
        let fits = payload.len() <= MAX_PAYLOAD;
        if fits {
            let slot = self.slot(kind);
            (slot.payload, slot.in_flight) = (Some(payload), false);
        }
        fits
    }

    /// Acknowledges a message that has been handled.
    pub fn acknowledge(&mut self, publish: Publish) {
        self.acks.push_back(publish);
    }

    /// Whether a batch of reports may be sent.
    pub fn takes_reports(&self) -> bool {
        self.client.is_some() && self.in_flight_of(Kind::Reports) < BATCHES
    }

    /// Whether another message of output may be added.
    pub fn takes_output(&self) -> bool {
        self.client.is_some() && self.output.len() < OUTPUTS
    }

    /// Whether the broker has confirmed all output.
    pub fn has_delivered_output(&self) -> bool {
        self.output.is_empty()
    }

    fn in_flight_of(&self, kind: Kind) -> usize {
        self.handed.iter().chain(self.in_flight.values()).filter(|k| **k == kind).count()
    }

    /// Sends a batch of reports; false if the client did not take it.
    pub fn reports(&mut self, topic: &str, payload: Vec<u8>, now: Duration) -> bool {
        self.send(topic, payload, false, Kind::Reports, now)
    }

    /// Sends a request for chunks; false if the client did not take it.
    pub fn want(&mut self, topic: &str, payload: Vec<u8>, now: Duration) -> bool {
        self.send(topic, payload, false, Kind::Want, now)
    }

    /// Sends output of a command, and keeps it until the broker has it.
    pub fn output(&mut self, payload: Vec<u8>) {
        self.output.push_back(payload);
    }

    fn send(&mut self, topic: &str, payload: Vec<u8>, retain: bool, kind: Kind, now: Duration) -> bool {
        let Some(client) = &self.client else { return false };
        if payload.len() > MAX_PAYLOAD || client.try_publish(topic, QoS::AtLeastOnce, retain, payload).is_err() {
            return false;
        }
        self.handed.push_back(kind);
        self.waiting_since.get_or_insert(now);
        true
    }

    /// Passes waiting messages to the client, as many as it takes.
    pub fn pump(&mut self, now: Duration) {
        let Some(client) = self.client.clone() else { return };
        // Acknowledgements first: without them the broker holds back further messages.
        while let Some(publish) = self.acks.front() {
            if client.try_ack(publish).is_err() {
                return;
            }
            self.acks.pop_front();
        }
        while let Some(filter) = self.subscribe.first() {
            if client.try_subscribe(filter, QoS::AtLeastOnce).is_err() {
                return;
            }
            self.subscribing.extend(self.subscribe.pop_first());
        }
        // A payload that is in flight is not sent twice; a newer one replaces it in the slot and is sent at once.
        for kind in RETAINED {
            let slot = self.slot(kind);
            if let (Some(payload), false) = (&slot.payload, slot.in_flight) {
                let (topic, payload) = (slot.topic.clone(), payload.clone());
                let sent = self.send(&topic, payload, true, kind, now);
                self.slot(kind).in_flight = sent;
            }
        }
        while let Some(payload) = self.output.get(self.output_sent).cloned() {
            let topic = self.output_topic.clone();
            if !self.send(&topic, payload, false, Kind::Output, now) {
                return;
            }
            self.output_sent += 1;
        }
    }

    fn slot(&mut self, kind: Kind) -> &mut Slot {
        match kind {
            Kind::Presence => &mut self.presence,
            Kind::Drift => &mut self.drift,
            _ => &mut self.state,
        }
    }

    /// The oldest publish without a packet id was sent with this one.
    pub fn sent(&mut self, pkid: u16) {
        if let Some(kind) = self.handed.pop_front() {
            self.in_flight.insert(pkid, kind);
        }
    }

    /// The broker has confirmed the publish with this packet id.
    pub fn confirmed(&mut self, pkid: u16, now: Duration) {
        let Some(kind) = self.in_flight.remove(&pkid) else { return };
        // Any confirmation shows that the connection works; the next must come within the same time.
        self.waiting_since = (!self.has_nothing_in_flight()).then_some(now);
        if kind == Kind::Output && self.output_sent > 0 {
            // A broker confirms in the order in which messages were sent (MQTT 3.1.1, 4.6).
            self.output.pop_front();
            self.output_sent -= 1;
        }
        if RETAINED.contains(&kind) {
            // If a newer message of this kind is in flight, the slot is about that one.
            let newer = self.in_flight_of(kind) > 0;
            let slot = self.slot(kind);
            if slot.in_flight && !newer {
                (slot.payload, slot.in_flight) = (None, false);
            }
        }
    }

    /// Whether nothing is in flight.
    pub fn has_nothing_in_flight(&self) -> bool {
        self.handed.is_empty() && self.in_flight.is_empty()
    }

    /// Whether everything has been delivered.
    pub fn is_empty(&self) -> bool {
        let confirmed = [&self.state, &self.presence, &self.drift].iter().all(|slot| slot.payload.is_none());
        self.has_nothing_in_flight() && self.acks.is_empty() && self.output.is_empty() && confirmed
    }

    /// When the connection counts as stalled, by the monotonic clock.
    pub fn stalls_at(&self) -> Option<Duration> {
        self.waiting_since.map(|since| since + STALL)
    }

    /// Disconnects cleanly, so that the broker does not publish the last will.
    pub fn disconnect(&mut self) {
        if let Some(client) = &self.client {
            // A client that takes nothing more is about to fail anyway.
            let _ = client.try_disconnect();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client() -> (AsyncClient, rumqttc::EventLoop) {
        AsyncClient::new(rumqttc::MqttOptions::new("agent", "127.0.0.1", 1), 8)
    }

    #[test]
    fn a_subscription_that_the_broker_did_not_confirm_is_made_again_on_the_next_connection() {
        let mut outlet = Outlet::default();
        outlet.subscribe("plan".to_owned());
        outlet.subscribe("gates".to_owned());
        let (first, _events) = client();
        outlet.up(first, true);
        outlet.pump(Duration::ZERO);
        // They are sent in alphabetical order.
        outlet.subscribed();
        outlet.down();
        assert_eq!(outlet.subscribe, ["plan".to_owned()].into());
        let (second, _events) = client();
        outlet.up(second, false);
        outlet.pump(Duration::ZERO);
        outlet.subscribed();
        outlet.down();
        assert_eq!(outlet.subscribe, BTreeSet::new());
    }
}
