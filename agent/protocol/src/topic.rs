//! The topics of a site, `groundplan/1/<site>/…`, and the MQTT clients that use them.
//!
//! In: ids. Out: topic names, filters and client ids, and back; [`TOPICS`], the table of every kind of topic with its
//! direction, retention, messages and size limit. Subscriptions of planner and agent, the embedded broker's policy and
//! the tables of `docs/protocol.md` come from this table. Ids cannot contain `/`, `+` or `#`, so a name parses in one
//! way only.

use std::fmt;

use crate::{
    MAX_PAYLOAD, VERSION,
    blob::{CHUNK, Want},
    digest::Digest,
    drift::{CheckRequest, DriftReport},
    encryption::TAG,
    envelope::{Message, SigningKey},
    exec::{Exec, ExecOutput, ExecReady},
    ids::{NodeId, SiteName},
    plan::{Gates, PlanOffer},
    presence::{FORGET_LIMIT, Heartbeat, PARK_LIMIT, PlannerPresence, Presence},
    report::{Ack, ReportBatch},
    state::NodeState,
};

/// A topic below a site.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Topic {
    /// A topic of one node.
    Node(NodeId, NodeTopic),
    /// Chunk `.1`, counted from 0, of the content with this digest.
    Blob(Digest, u32),
    /// Which planner is active.
    Planner,
    /// That a planner is there.
    Heartbeat,
}

/// The topics of one node; [`NodeTopic::spec`] has the direction of each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NodeTopic {
    /// The latest node plan.
    Plan,
    /// The open gates.
    Gates,
    /// The last report on the planner's disk.
    Ack,
    /// How often to check for drift.
    Check,
    /// Commands to make ready, to run or to stop.
    Exec,
    /// Whether the agent is connected.
    Presence,
    /// What is applied, and the obligations.
    State,
    /// Task reports, repeated until they are acknowledged.
    Report,
    /// Requests for content.
    Want,
    /// The drift that the last check found.
    Drift,
    /// That a command is ready to be run; what it prints, and how it ends.
    Output,
}

/// A topic without its ids: what a row of [`TOPICS`] is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TopicKind {
    /// `node/<node>/…`
    Node(NodeTopic),
    /// `blob/<sha256>/<n>`
    Blob,
    /// `planner`
    Planner,
    /// `heartbeat`
    Heartbeat,
}

/// Which way the messages of a topic go. Observers may read every topic and publish to none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// To the agent of the node that the topic names.
    PlannerToAgent,
    /// To each agent that subscribes.
    PlannerToAgents,
    /// From the agent of the node that the topic names to the planners, active and standing by.
    AgentToPlanners,
    /// To the other planners; agents may read it.
    PlannerToAll,
}

impl Direction {
    /// Whether the agent is the one that publishes.
    pub const fn is_from_agent(self) -> bool {
        matches!(self, Self::AgentToPlanners)
    }

    /// Whether planners subscribe to it, a planner's own presence included.
    pub const fn is_to_planners(self) -> bool {
        matches!(self, Self::AgentToPlanners | Self::PlannerToAll)
    }

    /// Whether an agent may subscribe; below `node/<node>/` the agent of that node only.
    pub const fn is_to_agents(self) -> bool {
        !self.is_from_agent()
    }
}

impl fmt::Display for Direction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::PlannerToAgent => "planner → agent",
            Self::PlannerToAgents => "planner → agents",
            Self::AgentToPlanners => "agent → planners",
            Self::PlannerToAll => "planner → all",
        })
    }
}

/// What the broker keeps of a topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retention {
    /// Nothing beyond the sessions that are subscribed.
    None,
    /// The latest message; an empty payload clears it.
    Retained,
    /// The latest message, which is also the publisher's last will.
    RetainedWill,
}

/// A type of message that travels in an envelope.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MessageType {
    /// Its Rust type, which is also its name in `docs/protocol.md`.
    pub name: &'static str,
    /// The payload type in the envelope: the [`Message::TYPE`] of that type.
    pub payload_type: &'static str,
    /// Whether it is encrypted to its recipient: the [`Message::ENCRYPTED`] of that type.
    pub encrypted: bool,
}

/// A row of [`TOPICS`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TopicSpec {
    /// The topic that it describes.
    pub kind: TopicKind,
    /// The name below the site, with `<…>` for ids.
    pub pattern: &'static str,
    /// Which way its messages go.
    pub direction: Direction,
    /// What the broker keeps of it.
    pub retention: Retention,
    /// The messages that it carries, in envelopes; none where it carries encrypted content.
    pub messages: &'static [MessageType],
    /// Largest payload, in bytes. Below [`MAX_PAYLOAD`] only where no sender can exceed it.
    pub limit: usize,
}

/// Largest payload of messages that hold a few ids and numbers, in bytes: an envelope around names of the greatest
/// length, with room to grow.
const SMALL: usize = 8 * 1024;

/// Largest payload of a planner's presence, which lists requests besides.
const LISTED: usize = SMALL + 2 * (FORGET_LIMIT + PARK_LIMIT);

macro_rules! messages {
    ($($message:ident)*) => { &[$(MessageType { name: stringify!($message), payload_type: $message::TYPE, encrypted: $message::ENCRYPTED }),*] };
}

macro_rules! topics {
    ($($kind:ident $(($topic:ident))?, $pattern:literal, $direction:ident, $retention:ident, [$($message:ident)*], $limit:expr;)*) => {
        [$(TopicSpec {
            kind: TopicKind::$kind $((NodeTopic::$topic))?,
            pattern: $pattern,
            direction: Direction::$direction,
            retention: Retention::$retention,
            messages: messages![$($message)*],
            limit: $limit,
        }),*]
    };
}

/// Every topic of a site. The order is that of subscriptions: a planner learns first whether another one is active.
#[rustfmt::skip]
pub const TOPICS: [TopicSpec; 14] = topics![
    Planner,        "planner",              PlannerToAll,    RetainedWill, [PlannerPresence],      LISTED;
    Heartbeat,      "heartbeat",            PlannerToAgents, Retained,     [Heartbeat],            SMALL;
    Node(Plan),     "node/<node>/plan",     PlannerToAgent,  Retained,     [PlanOffer],            MAX_PAYLOAD;
    Node(Gates),    "node/<node>/gates",    PlannerToAgent,  Retained,     [Gates],                MAX_PAYLOAD;
    Node(Ack),      "node/<node>/ack",      PlannerToAgent,  None,         [Ack],                  SMALL;
    Node(Check),    "node/<node>/check",    PlannerToAgent,  Retained,     [CheckRequest],         SMALL;
    Node(Exec),     "node/<node>/exec",     PlannerToAgent,  None,         [Exec],                 MAX_PAYLOAD;
    Node(Presence), "node/<node>/presence", AgentToPlanners, RetainedWill, [Presence],             SMALL;
    Node(State),    "node/<node>/state",    AgentToPlanners, Retained,     [NodeState],            MAX_PAYLOAD;
    Node(Report),   "node/<node>/report",   AgentToPlanners, None,         [ReportBatch],          MAX_PAYLOAD;
    Node(Want),     "node/<node>/want",     AgentToPlanners, None,         [Want],                 SMALL;
    Node(Drift),    "node/<node>/drift",    AgentToPlanners, Retained,     [DriftReport],          MAX_PAYLOAD;
    Node(Output),   "node/<node>/output",   AgentToPlanners, None,         [ExecOutput ExecReady], MAX_PAYLOAD;
    Blob,           "blob/<sha256>/<n>",    PlannerToAgents, None,         [],                     CHUNK + TAG;
];

impl TopicSpec {
    /// Whether the broker keeps the latest message.
    pub fn is_retained(&self) -> bool {
        self.retention != Retention::None
    }

    /// The last level of the pattern.
    fn last_level(&self) -> &'static str {
        self.pattern.rsplit('/').next().unwrap_or(self.pattern)
    }
}

impl TopicKind {
    /// Its row of the table.
    pub fn spec(self) -> &'static TopicSpec {
        TOPICS.iter().find(|spec| spec.kind == self).expect("every topic is in the table")
    }
}

impl NodeTopic {
    /// Its row of the table.
    pub fn spec(self) -> &'static TopicSpec {
        TopicKind::Node(self).spec()
    }

    /// Its last level, such as `plan`.
    pub fn name(self) -> &'static str {
        self.spec().last_level()
    }

    /// The topic with this last level.
    pub fn parse(level: &str) -> Option<Self> {
        TOPICS.iter().find_map(|spec| match spec.kind {
            TopicKind::Node(topic) if spec.last_level() == level => Some(topic),
            _ => None,
        })
    }
}

/// `groundplan/1/<site>`, below which every topic lies.
pub fn prefix(site: &SiteName) -> String {
    format!("groundplan/{VERSION}/{site}")
}

impl Topic {
    /// The topic's full name.
    pub fn name(&self, site: &SiteName) -> String {
        let prefix = prefix(site);
        match self {
            Topic::Node(node, topic) => format!("{prefix}/node/{node}/{}", topic.name()),
            Topic::Blob(digest, chunk) => format!("{prefix}/blob/{digest}/{chunk}"),
            Topic::Planner => format!("{prefix}/planner"),
            Topic::Heartbeat => format!("{prefix}/heartbeat"),
        }
    }

    /// The topic of a name, if it is one of this site's.
    pub fn parse(site: &SiteName, name: &str) -> Option<Topic> {
        let rest = name.strip_prefix(&prefix(site))?.strip_prefix('/')?;
        let mut parts = rest.split('/');
        let topic = match (parts.next()?, parts.next(), parts.next()) {
            ("planner", None, None) => Topic::Planner,
            ("heartbeat", None, None) => Topic::Heartbeat,
            ("node", Some(node), Some(last)) => Topic::Node(NodeId::new(node).ok()?, NodeTopic::parse(last)?),
            ("blob", Some(digest), Some(chunk)) => Topic::Blob(digest.parse().ok()?, chunk.parse().ok()?),
            _ => return None,
        };
        // A further level makes another topic, which no sender of this site uses.
        parts.next().is_none().then_some(topic)
    }

    /// What it is without its ids.
    pub fn kind(&self) -> TopicKind {
        match self {
            Topic::Node(_, topic) => TopicKind::Node(*topic),
            Topic::Blob(..) => TopicKind::Blob,
            Topic::Planner => TopicKind::Planner,
            Topic::Heartbeat => TopicKind::Heartbeat,
        }
    }

    /// The filter for one kind of node topic on all nodes.
    pub fn every_node(site: &SiteName, topic: NodeTopic) -> String {
        format!("{}/node/+/{}", prefix(site), topic.name())
    }

    /// The filter for all chunks of one content.
    pub fn every_chunk(site: &SiteName, digest: &Digest) -> String {
        format!("{}/blob/{digest}/+", prefix(site))
    }
}

/// What a planner subscribes to, in the order of [`TOPICS`].
pub fn planner_filters(site: &SiteName) -> Vec<String> {
    let read = TOPICS.iter().filter(|spec| spec.direction.is_to_planners());
    let filters = read.filter_map(|spec| match spec.kind {
        TopicKind::Node(topic) => Some(Topic::every_node(site, topic)),
        TopicKind::Planner => Some(Topic::Planner.name(site)),
        TopicKind::Blob | TopicKind::Heartbeat => None,
    });
    filters.collect()
}

/// What the agent of `node` subscribes to for as long as it runs, in the order of [`TOPICS`]: the planner's heartbeat, and the topics of its node.
/// While it fetches content, [`Topic::every_chunk`] comes in addition.
pub fn agent_filters(site: &SiteName, node: &NodeId) -> Vec<String> {
    let read = TOPICS.iter().filter(|spec| spec.direction.is_to_agents());
    let filters = read.filter_map(|spec| match spec.kind {
        TopicKind::Node(topic) => Some(Topic::Node(node.clone(), topic).name(site)),
        TopicKind::Heartbeat => Some(Topic::Heartbeat.name(site)),
        TopicKind::Blob | TopicKind::Planner => None,
    });
    filters.collect()
}

/// The MQTT client id of a node's agent. Its last level cannot be known without the node's key: a broker that lets any client take any
/// client id would end the session of the one that has it.
pub fn agent_client(site: &SiteName, node: &NodeId, key: &SigningKey) -> String {
    let client = format!("groundplan/{site}/node/{node}");
    format!("{client}/{}", key.private_name(&client))
}

/// The MQTT client id of a planner; its last level as for [`agent_client`].
pub fn planner_client(site: &SiteName, planner: &str, key: &SigningKey) -> String {
    let client = format!("groundplan/{site}/planner/{planner}");
    format!("{client}/{}", key.private_name(&client))
}

/// The MQTT client id of an observer, which only reads.
pub fn observer_client(site: &SiteName, observer: &str) -> String {
    format!("groundplan/{site}/observer/{observer}")
}

const PLANNER: &str = "planner";
const OBSERVER: &str = "observer";

/// Whether no node may have this name, because a planner or an observer proves itself by it: `planner`, `observer`, and what ends in
/// `.planner` or `.observer`.
pub fn is_reserved(name: &str) -> bool {
    [PLANNER, OBSERVER].iter().any(|role| has_role(name, role))
}

/// Whether a name is the role's, or `<any>.<role>`.
fn has_role(name: &str, role: &str) -> bool {
    name == role || name.strip_suffix(role).is_some_and(|first| first.len() > 1 && first.ends_with('.'))
}

/// The part that an MQTT client has in a site, by its client id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClientRole {
    /// The agent of this node.
    Agent(NodeId),
    /// A planner.
    Planner,
    /// A client that only reads.
    Observer,
}

impl ClientRole {
    /// The role that a client id names, if it is one of this site's. A node with a reserved name has none.
    pub fn parse(site: &SiteName, client_id: &str) -> Option<Self> {
        let rest = client_id.strip_prefix("groundplan/")?.strip_prefix(site.as_str())?.strip_prefix('/')?;
        // One level in addition to the name: see `agent_client`.
        if rest.split('/').count() > 3 {
            return None;
        }
        match rest.split_once('/')? {
            // Such a node's certificate would have the rights of a planner or an observer.
            ("node", name) => {
                let name = name.split_once('/').map_or(name, |(name, _)| name);
                NodeId::new(name).ok().filter(|_| !is_reserved(name)).map(Self::Agent)
            }
            (PLANNER, _) => Some(Self::Planner),
            (OBSERVER, _) => Some(Self::Observer),
            _ => None,
        }
    }

    /// The name that the client's certificate must bear, as a DNS name (RFC 5280, section 4.2.1.6), or its user name. Planners and observers
    /// may each have one of their own, which ends in that: see [`Self::has_name`].
    pub fn certificate_name(&self) -> &str {
        match self {
            Self::Agent(node) => node.as_str(),
            Self::Planner => PLANNER,
            Self::Observer => OBSERVER,
        }
    }

    /// Whether a client that has proved this name may have the role. Brokers that take the name for the client id need one for each
    /// planner: `a.planner`, `b.planner`.
    pub fn has_name(&self, name: &str) -> bool {
        match self {
            Self::Agent(node) => name == node.as_str(),
            Self::Planner => has_role(name, PLANNER),
            Self::Observer => has_role(name, OBSERVER),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::MAX_PACKET;

    fn site() -> SiteName {
        SiteName::new("cloud-1").unwrap()
    }

    fn topic(kind: TopicKind, node: &str) -> Topic {
        match kind {
            TopicKind::Node(topic) => Topic::Node(NodeId::new(node).unwrap(), topic),
            TopicKind::Blob => Topic::Blob(Digest::of(b"x"), 17),
            TopicKind::Planner => Topic::Planner,
            TopicKind::Heartbeat => Topic::Heartbeat,
        }
    }

    #[test]
    fn names_parse_back() {
        let site = site();
        for spec in &TOPICS {
            let topic = topic(spec.kind, "db-0.example.org");
            assert_eq!((topic.kind(), topic.kind().spec()), (spec.kind, spec));
            assert_eq!(Topic::parse(&site, &topic.name(&site)), Some(topic));
        }
        for alien in [
            "",
            "groundplan/1/cloud-1",
            "groundplan/1/cloud-1/",
            "groundplan/1/cloud-10/planner",
            "groundplan/1/cloud-1/node/a/plan/x",
            "groundplan/1/cloud-1/node/a/plans",
            "groundplan/1/cloud-1/node//plan",
            "groundplan/2/cloud-1/planner",
        ] {
            assert_eq!(Topic::parse(&site, alien), None, "{alien}");
        }
    }

    #[test]
    fn names_follow_their_patterns() {
        let site = site();
        for spec in &TOPICS {
            let pattern = spec.pattern.replace("<node>", "a").replace("<sha256>", &Digest::of(b"x").to_string());
            let expected = format!("groundplan/1/cloud-1/{}", pattern.replace("<n>", "17"));
            assert_eq!(topic(spec.kind, "a").name(&site), expected);
        }
    }

    #[test]
    fn every_payload_fits_into_a_packet() {
        let longest = "n".repeat(253);
        let site = SiteName::new(&longest).unwrap();
        for spec in &TOPICS {
            // Fixed header, length of the topic, packet id.
            let packet = 5 + 2 + topic(spec.kind, &longest).name(&site).len() + 2 + spec.limit;
            assert!(packet <= MAX_PACKET, "{}: {packet} bytes", spec.pattern);
        }
    }

    #[test]
    fn each_side_subscribes_to_what_it_reads() {
        let site = site();
        let node = NodeId::new("web").unwrap();
        let below = |filters: Vec<String>| -> Vec<String> {
            filters.iter().map(|f| f.strip_prefix("groundplan/1/cloud-1/").unwrap().to_owned()).collect()
        };
        let expected = ["planner", "node/+/presence", "node/+/state", "node/+/report", "node/+/want", "node/+/drift"];
        assert_eq!(below(planner_filters(&site))[..6], expected);
        assert_eq!(below(planner_filters(&site))[6..], ["node/+/output"]);
        let expected =
            ["heartbeat", "node/web/plan", "node/web/gates", "node/web/ack", "node/web/check", "node/web/exec"];
        assert_eq!(below(agent_filters(&site, &node)), expected);
    }

    #[test]
    fn client_ids_parse_back() {
        let site = site();
        let node = NodeId::new("web").unwrap();
        let key = SigningKey::from_seed([1; 32]);
        for (id, role, name) in [
            (agent_client(&site, &node, &key), ClientRole::Agent(node.clone()), "web"),
            ("groundplan/cloud-1/node/web".to_owned(), ClientRole::Agent(node.clone()), "web"),
            (planner_client(&site, "1", &key), ClientRole::Planner, "planner"),
            (observer_client(&site, "1"), ClientRole::Observer, "observer"),
        ] {
            assert_eq!(ClientRole::parse(&site, &id).as_ref(), Some(&role), "{id}");
            assert_eq!(role.certificate_name(), name);
            assert!(role.has_name(name));
        }
        let other = SigningKey::from_seed([2; 32]);
        assert_ne!(agent_client(&site, &node, &key), agent_client(&site, &node, &other));
        assert!(ClientRole::Planner.has_name("a.planner") && !ClientRole::Planner.has_name(".planner"));
        assert!(is_reserved("a.b.observer") && !is_reserved("planner.example.org") && !is_reserved("myplanner"));
        for alien in [
            "",
            "groundplan/cloud-1/planner",
            "groundplan/cloud-1/node/",
            "groundplan/cloud-1/node/web/x/y",
            "groundplan/cloud-1/node/one.planner",
            "groundplan/cloud-1/planner/1/x/y",
            "groundplan/cloud-1/node/planner",
            "groundplan/cloud-1/node/observer",
            "groundplan/cloud-10/node/web",
        ] {
            assert_eq!(ClientRole::parse(&site, alien), None, "{alien}");
        }
    }
}
