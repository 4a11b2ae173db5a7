//! Which clients may connect, publish and subscribe.
//!
//! In: the other end of the connection ([`Peer`]), its client id, and the topic or filter that it requests. Out: a
//! grant, or a [`Refusal`] with the reason. Called for every CONNECT, will, PUBLISH and filter, on the connection's own
//! task: an implementation answers from memory, without blocking.

use std::{net::SocketAddr, sync::Arc};

use groundplan_protocol::{
    ids::{NodeId, SiteName},
    topic::{ClientRole, NodeTopic, TopicKind, prefix},
};

use super::filter::Filter;

/// The other end of a connection.
#[derive(Debug, Clone)]
pub struct Peer {
    /// The client's address and port, as the listener sees them.
    pub address: SocketAddr,
    /// The DNS names (subject alternative names, RFC 5280 section 4.2.1.6) of its verified certificate. `None` on a
    /// listener without TLS. The common name is not read: RFC 9525 section 2 has ended its use.
    pub certificate: Option<Arc<[String]>>,
}

/// A client that the policy admitted.
#[derive(Debug, Clone)]
pub struct Client {
    /// Its client id; unique among connected clients.
    pub id: Arc<str>,
    /// The other end of its connection.
    pub peer: Peer,
}

/// Why a request was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The client id is not one of this site.
    #[error("the client id names no planner, node or observer of site `{site}`")]
    Stranger {
        /// The broker's site.
        site: String,
    },
    /// The certificate was issued to another client.
    #[error("the certificate names {certificate:?}, the client id requires `{needed}`")]
    Name {
        /// The certificate's DNS names.
        certificate: Vec<String>,
        /// The name that the client id requires.
        needed: String,
    },
    /// The topic or filter is outside of the client's rights.
    #[error("it is outside of the client's rights")]
    OutOfReach,
}

/// Decides on the requests of clients.
pub trait Policy: Send + Sync + 'static {
    /// Whether this peer may connect with this client id.
    fn connect(&self, peer: &Peer, client_id: &str) -> Result<(), Refusal>;

    /// Whether the client may publish to `topic`.
    fn publish(&self, client: &Client, topic: &str) -> Result<(), Refusal>;

    /// Whether the client may subscribe to `filter`.
    fn subscribe(&self, client: &Client, filter: &Filter) -> Result<(), Refusal>;

    /// Whether the client may leave a will for `topic`.
    fn will(&self, client: &Client, topic: &str) -> Result<(), Refusal> {
        self.publish(client, topic)
    }
}

/// Grants everything: for tests and trials.
#[derive(Debug, Clone, Copy, Default)]
pub struct AllowAll;

impl Policy for AllowAll {
    fn connect(&self, _: &Peer, _: &str) -> Result<(), Refusal> {
        Ok(())
    }

    fn publish(&self, _: &Client, _: &str) -> Result<(), Refusal> {
        Ok(())
    }

    fn subscribe(&self, _: &Client, _: &Filter) -> Result<(), Refusal> {
        Ok(())
    }
}

/// The rights on the topics of one site, as [`groundplan_protocol::topic::TOPICS`] states them.
///
/// | client id | certificate's name | may publish | may subscribe to |
/// |---|---|---|---|
/// | `groundplan/<site>/node/<node>` | `<node>` | the topics from this node's agent | the topics to this node's agent, to agents and to all |
/// | `groundplan/<site>/planner/<any>` | `planner` | every topic | every topic |
/// | `groundplan/<site>/observer/<any>` | `observer` | nothing | every topic |
///
/// Every topic lies below `groundplan/1/<site>/`. On a listener without TLS the client id alone decides, so such a
/// listener belongs on loopback. No node may be called `planner` or `observer`, and an authority must never issue one
/// of these names to a node.
#[derive(Debug, Clone)]
pub struct SitePolicy {
    site: SiteName,
    /// `groundplan/1/<site>/`.
    prefix: String,
    all: Filter,
}

impl SitePolicy {
    /// The policy of the site of this name. `None` if that is not a site's name.
    pub fn new(site: &str) -> Option<Self> {
        let site = SiteName::new(site).ok()?;
        let prefix = format!("{}/", prefix(&site));
        let all = Filter::new(format!("{prefix}#")).ok()?;
        Some(Self { site, prefix, all })
    }

    fn role(&self, client_id: &str) -> Result<ClientRole, Refusal> {
        ClientRole::parse(&self.site, client_id).ok_or_else(|| Refusal::Stranger { site: self.site.to_string() })
    }

    /// The levels of a topic or filter below the site.
    fn below<'a>(&self, path: &'a str) -> Option<impl Iterator<Item = &'a str>> {
        Some(path.strip_prefix(&self.prefix)?.split('/'))
    }

    fn may_agent_publish(&self, node: &NodeId, topic: &str) -> bool {
        let Some(mut levels) = self.below(topic) else { return false };
        // Further levels are granted as well: no other client uses topics below these.
        levels.next() == Some("node")
            && levels.next() == Some(node.as_str())
            && levels.next().and_then(NodeTopic::parse).is_some_and(|topic| topic.spec().direction.is_from_agent())
    }

    /// Compares the filter level by level: it may have wildcards only where an agent may use them.
    fn may_agent_subscribe(&self, node: &NodeId, filter: &str) -> bool {
        let Some(mut levels) = self.below(filter) else { return false };
        let is_one_level = |level: Option<&str>| level.is_some_and(|level| level != "#");
        match levels.next() {
            Some("node") => {
                levels.next() == Some(node.as_str())
                    && levels.next().and_then(NodeTopic::parse).is_some_and(|t| t.spec().direction.is_to_agents())
                    && levels.next().is_none()
            }
            Some("blob") => {
                // Any content of the site, also with `+`: which blobs a node needs is not known here.
                TopicKind::Blob.spec().direction.is_to_agents()
                    && is_one_level(levels.next())
                    && is_one_level(levels.next())
            }
            Some("planner") => TopicKind::Planner.spec().direction.is_to_agents() && levels.next().is_none(),
            _ => false,
        }
    }
}

fn granted(yes: bool) -> Result<(), Refusal> {
    if yes { Ok(()) } else { Err(Refusal::OutOfReach) }
}

impl Policy for SitePolicy {
    fn connect(&self, peer: &Peer, client_id: &str) -> Result<(), Refusal> {
        let role = self.role(client_id)?;
        let needed = role.certificate_name();
        match &peer.certificate {
            // Without TLS there is no certificate, and the client id alone decides.
            Some(names) if !names.iter().any(|name| name == needed) => {
                Err(Refusal::Name { certificate: names.to_vec(), needed: needed.to_owned() })
            }
            _ => Ok(()),
        }
    }

    fn publish(&self, client: &Client, topic: &str) -> Result<(), Refusal> {
        match self.role(&client.id)? {
            ClientRole::Planner => granted(self.all.matches(topic)),
            ClientRole::Observer => granted(false),
            ClientRole::Agent(node) => granted(self.may_agent_publish(&node, topic)),
        }
    }

    fn subscribe(&self, client: &Client, filter: &Filter) -> Result<(), Refusal> {
        let filter = filter.as_str();
        match self.role(&client.id)? {
            ClientRole::Planner | ClientRole::Observer => granted(self.all.covers(filter)),
            ClientRole::Agent(node) => granted(self.may_agent_subscribe(&node, filter)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(id: &str) -> Client {
        Client { id: id.into(), peer: peer(None) }
    }

    fn peer(name: Option<&str>) -> Peer {
        let certificate = name.map(|name| [name.to_owned()].into());
        Peer { address: SocketAddr::from(([127, 0, 0, 1], 1)), certificate }
    }

    #[test]
    fn the_certificate_and_the_client_id_name_the_same() {
        let policy = SitePolicy::new("s").unwrap();
        for (id, name, allowed) in [
            ("groundplan/s/node/web", Some("web"), true),
            ("groundplan/s/node/web", None, true),
            ("groundplan/s/node/web", Some("db"), false),
            ("groundplan/s/node/web", Some("planner"), false),
            ("groundplan/s/node/planner", Some("planner"), false),
            ("groundplan/s/node/web/x", Some("web"), false),
            ("groundplan/s/node/", Some(""), false),
            ("groundplan/s/node/+", None, false),
            ("groundplan/t/node/web", Some("web"), false),
            ("groundplan/sx/node/web", Some("web"), false),
            ("groundplan/s/planner/a", Some("planner"), true),
            ("groundplan/s/planner/a", Some("web"), false),
            ("groundplan/s/planner", Some("planner"), false),
            ("groundplan/s/observer/x", Some("observer"), true),
            ("", None, false),
        ] {
            assert_eq!(policy.connect(&peer(name), id).is_ok(), allowed, "{id:?} with certificate {name:?}");
        }
        assert!(SitePolicy::new("a/b").is_none() && SitePolicy::new("#").is_none() && SitePolicy::new("").is_none());
    }

    #[test]
    fn rights() {
        let policy = SitePolicy::new("s").unwrap();
        let (node, planner, observer) =
            (client("groundplan/s/node/web"), client("groundplan/s/planner/1"), client("groundplan/s/observer/1"));
        // Topic; which of node, planner and observer may publish and which may subscribe to it.
        for (topic, publish, subscribe) in [
            ("groundplan/1/s/node/web/state", "np", "po"),
            ("groundplan/1/s/node/web/want/x", "np", "po"),
            ("groundplan/1/s/node/web/statement", "p", "po"),
            ("groundplan/1/s/node/web/plan", "p", "npo"),
            ("groundplan/1/s/node/web/ack", "p", "npo"),
            ("groundplan/1/s/node/web/exec", "p", "npo"),
            ("groundplan/1/s/node/web/output", "np", "po"),
            ("groundplan/1/s/node/web", "p", "po"),
            ("groundplan/1/s/node/webb/plan", "p", "po"),
            ("groundplan/1/s/node/db/state", "p", "po"),
            ("groundplan/1/s/planner", "p", "npo"),
            ("groundplan/1/s/blob/d/0", "p", "npo"),
            ("groundplan/1/s/blob/d/0/x", "p", "npo"),
            ("groundplan/1/s/blob", "p", "po"),
            ("groundplan/1/t/planner", "", ""),
            ("groundplan/2/s/planner", "", ""),
            ("$SYS/x", "", ""),
        ] {
            for (who, client) in [('n', &node), ('p', &planner), ('o', &observer)] {
                assert_eq!(policy.publish(client, topic).is_ok(), publish.contains(who), "{who} publishes {topic}");
                let filter = Filter::new(topic).unwrap();
                assert_eq!(policy.subscribe(client, &filter).is_ok(), subscribe.contains(who), "{who} reads {topic}");
            }
        }
        for (filter, subscribe) in [
            ("groundplan/1/s/#", "po"),
            ("groundplan/1/+/#", ""),
            ("#", ""),
            ("groundplan/1/s/node/+/plan", "po"),
            ("groundplan/1/s/node/web/+", "po"),
            ("groundplan/1/s/node/web/#", "po"),
            ("groundplan/1/s/blob/+/+", "npo"),
            ("groundplan/1/s/blob/d/+", "npo"),
            ("groundplan/1/s/blob/+/+/#", "npo"),
            ("groundplan/1/s/blob/+/#", "po"),
            ("groundplan/1/s/blob/#", "po"),
            ("groundplan/1/s/+", "po"),
        ] {
            for (who, client) in [('n', &node), ('p', &planner), ('o', &observer)] {
                let filter = Filter::new(filter).unwrap();
                assert_eq!(policy.subscribe(client, &filter).is_ok(), subscribe.contains(who), "{who} reads {filter}");
            }
        }
    }
}
