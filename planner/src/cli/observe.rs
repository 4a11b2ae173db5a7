//! A site by the messages that its broker retains: presence and state of every node, without a planner.
//!
//! Read-only: subscribes, publishes nothing, keeps no session. A message without a valid signature of a given key is marked unverified.

use std::{
    collections::BTreeMap,
    fs,
    path::Path,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use groundplan_protocol::{
    MAX_PACKET, VERSION,
    broker::BrokerAddress,
    envelope::{self, Message, PublicKey},
    ids::{NodeId, SiteName},
    presence::{PlannerPresence, Presence},
    state::{NodeState, Phase},
    topic::{self, NodeTopic, Topic},
};
use rumqttc::{AsyncClient, Event, EventLoop, Incoming, MqttOptions, QoS};
use serde::Serialize;
use tokio::time::{Instant, timeout, timeout_at};

use super::access::BrokerAccess;
use crate::{
    terminal::{
        Cell, Failure, Style, Table,
        format::{count, short},
    },
    transport::prove,
};

/// A broker sends retained messages right after the subscription: after such a pause there are no more.
const PAUSE: Duration = Duration::from_millis(400);
/// The time limit for connecting and reading.
const LIMIT: Duration = Duration::from_secs(20);

/// The retained messages of a site.
#[derive(Debug, Serialize)]
pub(super) struct Observed {
    version: u32,
    site: SiteName,
    broker: String,
    planner: Option<Checked<PlannerPresence>>,
    nodes: BTreeMap<NodeId, ObservedNode>,
    /// How many payloads are not messages of groundplan.
    ignored: usize,
}

#[derive(Debug, Default, Serialize)]
struct ObservedNode {
    presence: Option<Checked<Presence>>,
    state: Option<Checked<NodeState>>,
}

/// A message, and whether one of the given keys signed it.
#[derive(Debug, Serialize)]
struct Checked<T> {
    verified: bool,
    #[serde(flatten)]
    message: T,
}

/// Reads the retained messages of `site`; `trusted` is a directory of public keys to verify them with.
///
/// # Errors
/// The broker does not answer or refuses the certificate or password, or a key file is invalid.
pub(super) async fn observe(
    broker: &BrokerAddress,
    access: &BrokerAccess,
    site: &SiteName,
    trusted: Option<&Path>,
) -> Result<Observed, Failure> {
    let keys = trusted.map(read_keys).transpose()?.unwrap_or_default();
    // The client is kept: without it the event loop would end.
    let (_client, mut events) = connect(broker, access, site)?;
    let mut seen = Observed {
        version: VERSION,
        site: site.clone(),
        broker: broker.to_string(),
        planner: None,
        nodes: BTreeMap::new(),
        ignored: 0,
    };
    let deadline = Instant::now() + LIMIT;
    let mut granted = 0;
    loop {
        // The pause counts only after all three subscriptions are acknowledged: before, the broker may not have started to send.
        let event =
            if granted < 3 { timeout_at(deadline, events.poll()).await } else { timeout(PAUSE, events.poll()).await };
        match event {
            Ok(Ok(Event::Incoming(Incoming::SubAck(_)))) => granted += 1,
            Ok(Ok(Event::Incoming(Incoming::Publish(publish)))) => seen.take(&publish.topic, &publish.payload, &keys),
            Ok(Ok(_)) => {}
            Ok(Err(e)) => {
                return Err(
                    Failure::because(format!("cannot reach the broker at {broker}"), e).hint("is the broker running?")
                );
            }
            Err(_) if granted < 3 => {
                return Err(
                    Failure::new(format!("the broker at {broker} does not answer")).hint("is the broker running?")
                );
            }
            Err(_) => return Ok(seen),
        }
        if Instant::now() > deadline {
            return Ok(seen);
        }
    }
}

/// Begins a session of its own at the broker, with the three subscriptions. The returned event loop makes the connection.
fn connect(
    broker: &BrokerAddress,
    access: &BrokerAccess,
    site: &SiteName,
) -> Result<(AsyncClient, EventLoop), Failure> {
    // Unique, because a broker ends the older one of two connections with the same id.
    let id = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_nanos());
    let mut options = MqttOptions::new(topic::observer_client(site, &format!("{id:x}")), &broker.host, broker.port);
    options.set_clean_session(true);
    let (tls, login) = (access.tls(), access.login("observer"));
    prove(&mut options, broker.tls, tls.as_ref(), login.as_ref())
        .map_err(|e| Failure::because(format!("cannot connect to the broker at {broker}"), e))?;
    options.set_max_packet_size(MAX_PACKET, MAX_PACKET);
    let (client, events) = AsyncClient::new(options, 16);
    for filter in [
        Topic::every_node(site, NodeTopic::Presence),
        Topic::every_node(site, NodeTopic::State),
        Topic::Planner.name(site),
    ] {
        client
            .try_subscribe(filter, QoS::AtLeastOnce)
            .map_err(|e| Failure::because("cannot subscribe at the broker", e))?;
    }
    Ok((client, events))
}

/// The public keys of a directory by file name without `.pub`: nodes, and `planner`.
fn read_keys(dir: &Path) -> Result<BTreeMap<String, PublicKey>, Failure> {
    let failed = |path: &Path, e| Failure::because(format!("cannot read {}", path.display()), e);
    let mut keys = BTreeMap::new();
    for entry in fs::read_dir(dir).map_err(|e| failed(dir, e))? {
        let path = entry.map_err(|e| failed(dir, e))?.path();
        let Some(name) = path.file_name().and_then(|n| n.to_str()?.strip_suffix(".pub")) else { continue };
        let text = fs::read_to_string(&path).map_err(|e| failed(&path, e))?;
        let key = text.parse().map_err(|e| Failure::because(format!("{} holds no public key", path.display()), e))?;
        keys.insert(name.to_owned(), key);
    }
    Ok(keys)
}

impl Observed {
    /// Adds a retained message.
    fn take(&mut self, name: &str, payload: &[u8], keys: &BTreeMap<String, PublicKey>) {
        // An empty payload clears a retained message (MQTT 3.1.1, section 3.3.1.3).
        if payload.is_empty() {
            return;
        }
        let site = self.site.clone();
        let taken = match Topic::parse(&site, name) {
            Some(Topic::Planner) => {
                self.planner = open(payload, keys.get("planner"), &site);
                self.planner.is_some()
            }
            Some(Topic::Node(node, NodeTopic::Presence)) => {
                let presence: Option<Checked<Presence>> = open(payload, keys.get(node.as_str()), &site);
                let presence = presence.filter(|p| p.message.node == node);
                let taken = presence.is_some();
                self.nodes.entry(node).or_default().presence = presence;
                taken
            }
            Some(Topic::Node(node, NodeTopic::State)) => {
                let state: Option<Checked<NodeState>> = open(payload, keys.get(node.as_str()), &site);
                let state = state.filter(|s| s.message.node == node);
                let taken = state.is_some();
                self.nodes.entry(node).or_default().state = state;
                taken
            }
            _ => false,
        };
        self.ignored += usize::from(!taken);
    }
}

/// Opens an envelope with the key; without one, or if it does not match, reads the payload unverified.
fn open<M: Message>(bytes: &[u8], key: Option<&PublicKey>, site: &SiteName) -> Option<Checked<M>> {
    if let Some(Ok(message)) = key.map(|key| envelope::open(bytes, std::slice::from_ref(key), site)) {
        return Some(Checked { verified: true, message });
    }
    let envelope: serde_json::Value = serde_json::from_slice(bytes).ok()?;
    if envelope.get("payloadType")?.as_str()? != M::TYPE {
        return None;
    }
    let message: M = serde_json::from_slice(&BASE64.decode(envelope.get("payload")?.as_str()?).ok()?).ok()?;
    (message.version() == VERSION && message.site() == site).then_some(Checked { verified: false, message })
}

/// What was observed, as text.
pub(super) fn text(seen: &Observed, color: bool) -> String {
    let mut out = format!("{} at {}\n", Style::Bold.paint(seen.site.as_str(), color), seen.broker);
    out.push_str(&match &seen.planner {
        None => "no planner has published\n".to_owned(),
        Some(Checked { verified, message }) => {
            let presence = if message.online { "online" } else { "offline" };
            format!("planner {} {presence}, generation {}{}\n", message.planner, message.generation, mark(*verified))
        }
    });
    if seen.nodes.is_empty() {
        return out + "no node has published\n";
    }
    let mut table = Table::new(&["NODE", "AGENT", "PLAN", "COMMIT", "STATE", "TASKS", ""]);
    for (name, node) in &seen.nodes {
        let (agent, style) = match node.presence.as_ref().map(|p| p.message.online) {
            Some(true) => ("online", Style::Good),
            Some(false) => ("offline", Style::Warn),
            None => ("unknown", Style::Bad),
        };
        let state = node.state.as_ref().map(|s| &s.message);
        let verified =
            node.presence.as_ref().is_none_or(|p| p.verified) && node.state.as_ref().is_none_or(|s| s.verified);
        let work = state.map_or("no state".to_owned(), |state| match (state.phase, state.obligations.len()) {
            (Phase::Idle, _) if !state.degraded.is_empty() => {
                format!("{} degraded", count(state.degraded.len(), "task"))
            }
            (Phase::Idle, 0) => "idle".to_owned(),
            (Phase::Idle, n) => format!("idle, {} pending", count(n, "action")),
            (Phase::Fetching, _) => "fetching".to_owned(),
            (Phase::Running, _) => "running".to_owned(),
        });
        table.row([
            name.to_string().into(),
            Cell::styled(agent, style),
            state.map(|s| s.generation.to_string()).unwrap_or_default().into(),
            state.and_then(|s| s.commit.as_ref()).map(|c| short(c.as_str()).to_owned()).unwrap_or_default().into(),
            work.into(),
            state.map(|s| s.applied.len().to_string()).unwrap_or_default().into(),
            Cell::styled(mark(verified).trim_start(), Style::Warn),
        ]);
    }
    out.push('\n');
    out + &table.render(color)
}

fn mark(verified: bool) -> &'static str {
    if verified { "" } else { " (unverified)" }
}
