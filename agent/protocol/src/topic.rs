//! Topics: `groundplan/1/<site>/…` (docs/protocol.md tells who publishes which, and what is retained).
//!
//! In: ids. Out: topic names and filters, and back. Ids cannot contain `/`, `+` or `#`, so a topic parses one way only.

use crate::{
    VERSION,
    digest::Digest,
    ids::{NodeId, SiteName},
};

/// What a topic below a site carries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Topic {
    /// Something about one node.
    Node(NodeId, NodeTopic),
    /// Chunk `.1` of the content with this digest.
    Blob(Digest, u32),
    /// Who plans.
    Planner,
}

/// The topics of one node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NodeTopic {
    /// Planner → agent, retained: the latest node plan.
    Plan,
    /// Planner → agent, retained: the open gates.
    Gates,
    /// Agent → planner, retained: what is applied and owed.
    State,
    /// Agent → planner: task reports, until acknowledged.
    Report,
    /// Planner → agent: the last report on the planner's disk.
    Ack,
    /// Agent → all, retained, last will: online or offline.
    Presence,
    /// Agent → planner: content that it misses.
    Want,
    /// Planner → agent, retained: when to look for drift.
    Check,
    /// Agent → planner, retained: the drift that was found.
    Drift,
    /// Planner → agent: a command to run or to stop.
    Exec,
    /// Agent → planner: what such a command prints, and how it ends.
    Output,
}

const NODE_TOPICS: [(NodeTopic, &str); 11] = [
    (NodeTopic::Plan, "plan"),
    (NodeTopic::Gates, "gates"),
    (NodeTopic::State, "state"),
    (NodeTopic::Report, "report"),
    (NodeTopic::Ack, "ack"),
    (NodeTopic::Presence, "presence"),
    (NodeTopic::Want, "want"),
    (NodeTopic::Check, "check"),
    (NodeTopic::Drift, "drift"),
    (NodeTopic::Exec, "exec"),
    (NodeTopic::Output, "output"),
];

impl NodeTopic {
    /// Its last segment.
    pub fn name(self) -> &'static str {
        NODE_TOPICS.iter().find(|(t, _)| *t == self).map(|(_, name)| *name).expect("every topic is in the table")
    }
}

/// `groundplan/1/<site>`, below which everything lies.
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
        }
    }

    /// The topic of a name, if it is one of this site's.
    pub fn parse(site: &SiteName, name: &str) -> Option<Topic> {
        let rest = name.strip_prefix(&prefix(site))?.strip_prefix('/')?;
        let mut parts = rest.split('/');
        let topic = match (parts.next()?, parts.next(), parts.next()) {
            ("planner", None, None) => Topic::Planner,
            ("node", Some(node), Some(last)) => {
                let (topic, _) = NODE_TOPICS.iter().find(|(_, name)| *name == last)?;
                Topic::Node(NodeId::new(node).ok()?, *topic)
            }
            ("blob", Some(digest), Some(chunk)) => Topic::Blob(digest.parse().ok()?, chunk.parse().ok()?),
            _ => return None,
        };
        parts.next().is_none().then_some(topic)
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

/// The MQTT client id of a node's agent.
pub fn agent_client(site: &SiteName, node: &NodeId) -> String {
    format!("groundplan/{site}/node/{node}")
}

/// The MQTT client id of a planner.
pub fn planner_client(site: &SiteName, planner: &str) -> String {
    format!("groundplan/{site}/planner/{planner}")
}

/// The MQTT client id of somebody who only looks.
pub fn observer_client(site: &SiteName, observer: &str) -> String {
    format!("groundplan/{site}/observer/{observer}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_parse_back() {
        let site = SiteName::new("cloud-1").unwrap();
        let node = NodeId::new("db-0.example.org").unwrap();
        let mut topics = vec![Topic::Planner, Topic::Blob(Digest::of(b"x"), 17)];
        topics.extend(NODE_TOPICS.iter().map(|(t, _)| Topic::Node(node.clone(), *t)));
        for topic in topics {
            assert_eq!(Topic::parse(&site, &topic.name(&site)), Some(topic));
        }
        for alien in [
            "",
            "groundplan/1/cloud-1",
            "groundplan/1/cloud-1/",
            "groundplan/1/cloud-10/planner",
            "groundplan/1/cloud-1/node/a/plan/x",
            "groundplan/1/cloud-1/node//plan",
            "groundplan/2/cloud-1/planner",
        ] {
            assert_eq!(Topic::parse(&site, alien), None, "{alien}");
        }
    }
}
