//! Presence of agents and planners: online or offline, with an MQTT last will for a connection that is lost.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    encryption::EncryptionKey,
    envelope::Message,
    ids::{Generation, InstanceId, LedgerId, NodeId, Nonce, SessionId, SiteName},
};

/// An agent connects or disconnects. Retained; the offline form is also its last will.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Presence {
    /// Format version; [`VERSION`](crate::VERSION) of the sender.
    pub version: u32,
    /// The site that the agent belongs to.
    pub site: SiteName,
    /// The node that the agent runs on.
    pub node: NodeId,
    /// Whether its agent is connected.
    pub online: bool,
    /// The agent's program version.
    pub agent: String,
    /// The ledger that the agent writes.
    pub ledger: LedgerId,
    /// Id of this connection, for orders that are meant for no other; absent when offline.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<SessionId>,
    /// What keeps the agent from its work though it is connected, for people: its ledger cannot be written, the broker refuses a
    /// subscription. Absent while nothing does, and from agents that do not report it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trouble: Option<String>,
}

impl Message for Presence {
    const TYPE: &'static str = "application/vnd.groundplan.presence+json";
    fn version(&self) -> u32 {
        self.version
    }
    fn site(&self) -> &SiteName {
        &self.site
    }
}

/// A planner is active. Retained; the offline form is also its last will.
///
/// A planner that sees another one online with a greater term, or with the same term and a greater name, is on standby; to take
/// over, it publishes a greater term. What was signed before may come again at any time, whoever is online by now: so a planner on standby
/// challenges the other with a nonce, and believes only an answer that names it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PlannerPresence {
    /// Format version; [`VERSION`](crate::VERSION) of the sender.
    pub version: u32,
    /// The site that the planner serves.
    pub site: SiteName,
    /// On standby: what the other is to answer with, once. Not retained.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub challenge: Option<Nonce>,
    /// The last challenge that it has received, if it is online: this message was made after that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answer: Option<Nonce>,
    /// Grows with every message of one planner and term: of two, the greater is the later one.
    #[serde(default)]
    pub revision: u64,
    /// The planner: a random name, which its store keeps.
    pub planner: String,
    /// Whether it is active; offline otherwise.
    pub online: bool,
    /// Grows with every take-over.
    pub term: u64,
    /// The greatest generation it has published; the planner that takes over starts above it.
    pub generation: Generation,
    /// Records that nodes are still to drop, as many as [`FORGET_LIMIT`] allows: one that stands by carries on with them. None if it is
    /// offline.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub forget: Vec<PendingForget>,
    /// Nodes that operators have parked, as many as [`PARK_LIMIT`] allows: one that stands by carries on with them. None if it is offline.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub parked: Vec<ParkedNode>,
}

/// A node that an operator has parked: nothing on other nodes waits for it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ParkedNode {
    /// The node.
    pub node: NodeId,
    /// The operator.
    pub by: String,
    /// Why, in the operator's words.
    pub reason: String,
    /// Since when, in milliseconds since the Unix epoch.
    pub since_ms: u64,
    /// Until when, in milliseconds since the Unix epoch; absent until an operator takes it back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until_ms: Option<u64>,
}

/// Most bytes of all [`ParkedNode`] of a message, as JSON.
pub const PARK_LIMIT: usize = 32 * 1024;

/// An operator's request that a node drop the record of a task, which the node has not carried out yet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PendingForget {
    /// The task and the node.
    pub instance: InstanceId,
    /// The operator.
    pub by: String,
    /// Why, in the operator's words; may be empty.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
}

/// Most bytes of all [`PendingForget`] of a message, as JSON.
pub const FORGET_LIMIT: usize = 32 * 1024;

/// Those items of a list that have room in a message: as JSON not more than `limit` bytes together.
pub fn fitting<T: Serialize>(items: impl Iterator<Item = T>, limit: usize) -> Vec<T> {
    let mut room = limit;
    let mut fits = |item: &T| {
        let size = serde_json::to_vec(item).map_or(usize::MAX, |json| json.len() + 1);
        room.checked_sub(size).inspect(|left| room = *left).is_some()
    };
    items.filter(|item| fits(item)).collect()
}

impl Message for PlannerPresence {
    const TYPE: &'static str = "application/vnd.groundplan.planner+json";
    fn version(&self) -> u32 {
        self.version
    }
    fn site(&self) -> &SiteName {
        &self.site
    }
}

/// A planner is there, and what it sends arrives. Each is later than the one before: an agent to which only old ones come, or none, is cut
/// off by whoever is between, and reports that.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Heartbeat {
    /// Format version; [`VERSION`](crate::VERSION) of the sender.
    pub version: u32,
    /// The site that the planner serves.
    pub site: SiteName,
    /// The planner's term.
    pub term: u64,
    /// When it was sent, by the planner's clock, in milliseconds since the Unix epoch.
    pub at_ms: u64,
    /// The key to encrypt to the planners of the site with. Without it agents send no report and no output.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encryption_key: Option<EncryptionKey>,
}

/// How often the planner that plans sends one.
pub const HEARTBEAT: Duration = Duration::from_secs(60);

impl Message for Heartbeat {
    const TYPE: &'static str = "application/vnd.groundplan.heartbeat+json";
    fn version(&self) -> u32 {
        self.version
    }
    fn site(&self) -> &SiteName {
        &self.site
    }
}
