//! What is to go out: the latest state, presence and drift, subscriptions, acknowledgements, reports, and what commands print.
//!
//! In: sealed messages. Out: publishes, as fast as the client takes them. Retained messages replace each other while they
//! wait, and are kept until the broker has confirmed them; so is each message of output, for nobody else could repeat it.
//! Reports and requests are not kept: ledger and blob store repeat them. Never waits.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::Duration,
};

use groundplan_protocol::MAX_PAYLOAD;
use rumqttc::{AsyncClient, Publish, QoS};

/// Batches of reports on their way at a time.
const BATCHES: usize = 4;
/// Messages of output on their way at a time.
const OUTPUTS: usize = 4;
/// A publish that the broker does not confirm for this long means that the connection stands still.
const STALL: Duration = Duration::from_secs(30);

/// What a publish was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    State,
    Presence,
    Drift,
    Reports,
    Want,
    Output,
}

/// The kinds of which only the last counts, in the order in which they go out.
const RETAINED: [Kind; 3] = [Kind::Presence, Kind::State, Kind::Drift];

/// A retained message: the last one, until it is confirmed.
#[derive(Debug, Default)]
struct Slot {
    topic: String,
    payload: Option<Vec<u8>>,
    /// It is on its way as it stands.
    flying: bool,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Outlet {
    client: Option<AsyncClient>,
    state: Slot,
    presence: Slot,
    drift: Slot,
    /// What commands print, oldest first: first those on their way, as many as `output_sent` says, then those that wait for it.
    output: VecDeque<Vec<u8>>,
    output_sent: usize,
    output_topic: String,
    filters: BTreeSet<String>,
    subscribe: BTreeSet<String>,
    /// Subscriptions on their way, oldest first: a connection may be lost before the broker has read them, though it has made a session.
    subscribing: VecDeque<String>,
    acks: VecDeque<Publish>,
    /// Handed to the client, packet id not known yet.
    handed: VecDeque<Kind>,
    flying: BTreeMap<u16, Kind>,
    /// Since when something is on its way with nothing confirmed.
    waiting_since: Option<Duration>,
}

impl Outlet {
    /// Publishes state, presence, drift and output under these topics.
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

    /// The connection is there.
    pub fn up(&mut self, client: AsyncClient, resubscribe: bool) {
        self.down();
        self.client = Some(client);
        if resubscribe {
            self.subscribe = self.filters.clone();
        }
    }

    /// The connection is gone, and with it all that it had not delivered.
    pub fn down(&mut self) {
        self.client = None;
        self.handed.clear();
        self.flying.clear();
        self.acks.clear();
        let filters = &self.filters;
        self.subscribe.extend(self.subscribing.drain(..).filter(|filter| filters.contains(filter)));
        RETAINED.into_iter().for_each(|kind| self.slot(kind).flying = false);
        self.output_sent = 0;
        self.waiting_since = None;
    }

    /// Whether there is a connection.
    pub fn is_up(&self) -> bool {
        self.client.is_some()
    }

    /// Subscribes, now and whenever the broker has forgotten.
    pub fn subscribe(&mut self, filter: String) {
        if self.filters.insert(filter.clone()) {
            self.subscribe.insert(filter);
        }
    }

    /// The broker has taken the oldest subscription on its way.
    pub fn subscribed(&mut self) {
        self.subscribing.pop_front();
    }

    /// Ends a subscription. One that the broker does not hear of costs a few messages to be ignored.
    pub fn unsubscribe(&mut self, filter: &str) {
        self.subscribe.remove(filter);
        if self.filters.remove(filter)
            && let Some(client) = &self.client
        {
            let _ = client.try_unsubscribe(filter);
        }
    }

    /// Publishes this state in place of any before it; false if it is too large.
    pub fn state(&mut self, payload: Vec<u8>) -> bool {
        self.put(Kind::State, payload)
    }

    /// Publishes this presence in place of any before it.
    pub fn presence(&mut self, payload: Vec<u8>) {
        self.put(Kind::Presence, payload);
    }

    /// Publishes what drift was found in place of any word before it; false if it is too large.
    pub fn drift(&mut self, payload: Vec<u8>) -> bool {
        self.put(Kind::Drift, payload)
    }

    fn put(&mut self, kind: Kind, payload: Vec<u8>) -> bool {
        let fits = payload.len() <= MAX_PAYLOAD;
        if fits {
            let slot = self.slot(kind);
            (slot.payload, slot.flying) = (Some(payload), false);
        }
        fits
    }

    /// Acknowledges what has been dealt with.
    pub fn acknowledge(&mut self, publish: Publish) {
        self.acks.push_back(publish);
    }

    /// Whether a batch of reports may go out.
    pub fn takes_reports(&self) -> bool {
        self.client.is_some() && self.on_their_way(Kind::Reports) < BATCHES
    }

    /// Whether another message of output is welcome.
    pub fn takes_output(&self) -> bool {
        self.client.is_some() && self.output.len() < OUTPUTS
    }

    /// Whether the broker has all output that was given.
    pub fn has_delivered_output(&self) -> bool {
        self.output.is_empty()
    }

    fn on_their_way(&self, kind: Kind) -> usize {
        self.handed.iter().chain(self.flying.values()).filter(|k| **k == kind).count()
    }

    /// Sends a batch of reports; false if it was not taken.
    pub fn reports(&mut self, topic: &str, payload: Vec<u8>, now: Duration) -> bool {
        self.send(topic, payload, false, Kind::Reports, now)
    }

    /// Sends a request for chunks; false if it was not taken.
    pub fn want(&mut self, topic: &str, payload: Vec<u8>, now: Duration) -> bool {
        self.send(topic, payload, false, Kind::Want, now)
    }

    /// Sends what a command prints, and keeps it until the broker has it.
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

    /// Hands over what waits, as far as the client takes it.
    pub fn pump(&mut self, now: Duration) {
        let Some(client) = self.client.clone() else { return };
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
        for kind in RETAINED {
            let slot = self.slot(kind);
            if let (Some(payload), false) = (&slot.payload, slot.flying) {
                let (topic, payload) = (slot.topic.clone(), payload.clone());
                let sent = self.send(&topic, payload, true, kind, now);
                self.slot(kind).flying = sent;
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

    /// The oldest publish that was handed over went out with this packet id.
    pub fn sent(&mut self, pkid: u16) {
        if let Some(kind) = self.handed.pop_front() {
            self.flying.insert(pkid, kind);
        }
    }

    /// The broker has it.
    pub fn confirmed(&mut self, pkid: u16, now: Duration) {
        let Some(kind) = self.flying.remove(&pkid) else { return };
        self.waiting_since = (!self.is_quiet()).then_some(now);
        if kind == Kind::Output && self.output_sent > 0 {
            // A broker confirms in the order in which it was sent to (MQTT 3.1.1, 4.6).
            self.output.pop_front();
            self.output_sent -= 1;
        }
        if RETAINED.contains(&kind) {
            // A newer one may be on its way; the slot is its own then.
            let newer = self.on_their_way(kind) > 0;
            let slot = self.slot(kind);
            if slot.flying && !newer {
                (slot.payload, slot.flying) = (None, false);
            }
        }
    }

    /// Whether nothing is on its way.
    pub fn is_quiet(&self) -> bool {
        self.handed.is_empty() && self.flying.is_empty()
    }

    /// Whether everything has been delivered.
    pub fn is_empty(&self) -> bool {
        let told = [&self.state, &self.presence, &self.drift].iter().all(|slot| slot.payload.is_none());
        self.is_quiet() && self.acks.is_empty() && self.output.is_empty() && told
    }

    /// When the connection counts as standing still, by the monotonic clock.
    pub fn stalls_at(&self) -> Option<Duration> {
        self.waiting_since.map(|since| since + STALL)
    }

    /// Says good-bye: no last will.
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
        // They go in the order of their names.
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
