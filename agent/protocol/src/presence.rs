//! Presence of agents and planners: online or offline, with an MQTT last will for a connection that is lost.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    envelope::Message,
    ids::{Generation, LedgerId, NodeId, SessionId, SiteName},
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
/// over, it publishes a greater term.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PlannerPresence {
    /// Format version; [`VERSION`](crate::VERSION) of the sender.
    pub version: u32,
    /// The site that the planner serves.
    pub site: SiteName,
    /// The planner: a random name of its process.
    pub planner: String,
    /// Whether it is active; offline otherwise.
    pub online: bool,
    /// Grows with every take-over.
    pub term: u64,
    /// The greatest generation it has published; the planner that takes over starts above it.
    pub generation: Generation,
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
