//! Who is there: agents and planners, each with an MQTT last will that says when they are gone.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    envelope::Message,
    ids::{Generation, LedgerId, NodeId, SessionId, SiteName},
};

/// An agent comes or goes. Retained; the offline form is also its last will.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Presence {
    /// Format version.
    pub version: u32,
    /// The site.
    pub site: SiteName,
    /// The node.
    pub node: NodeId,
    /// Whether its agent is connected.
    pub online: bool,
    /// The agent's program version.
    pub agent: String,
    /// The ledger it writes.
    pub ledger: LedgerId,
    /// The connection, for orders that are meant for this one only; absent when offline.
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

/// A planner says that it plans. Retained; the offline form is also its last will.
///
/// Whoever sees another one online with a greater term, or the same term and a greater name, stands by; to take over, it publishes a
/// greater term.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PlannerPresence {
    /// Format version.
    pub version: u32,
    /// The site.
    pub site: SiteName,
    /// Which planner: a random name of its process.
    pub planner: String,
    /// Whether it plans, or has gone.
    pub online: bool,
    /// Grows with every take-over.
    pub term: u64,
    /// The greatest generation it has published; who takes over begins above it.
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
