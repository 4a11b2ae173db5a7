//! Which clients may connect, publish and subscribe.
//!
//! In: the other end of the connection ([`Peer`]), its client id, and the topic or filter that it requests. Out: a
//! grant, or a [`Refusal`] with the reason. Called for every CONNECT, will, PUBLISH and filter, on the connection's own
//! task: an implementation answers from memory, without blocking.

use std::{
    fmt,
    net::SocketAddr,
    sync::{Arc, OnceLock},
};

use groundplan_protocol::{
    ids::{NodeId, SiteName},
    topic::{ClientRole, Topic, prefix},
};

use super::filter::Filter;

/// The other end of a connection.
#[derive(Debug, Clone)]
pub struct Peer {
    /// The client's address and port, as the listener sees them; none on a unix socket.
    pub address: Option<SocketAddr>,
    /// The names that it has proved: the DNS names (subject alternative names, RFC 5280 section 4.2.1.6) of its verified certificate, the
    /// user name of its password, or the name that stands for the unix socket. `None` on a listener that asks for no proof. The common
    /// name of a certificate is not read: RFC 9525 section 2 has ended its use.
    pub names: Option<Arc<[String]>>,
}

/// Passwords of users.
pub trait Passwords: fmt::Debug + Send + Sync + 'static {
    /// Whether this is the user's password. In a time that does not depend on how much of it is right.
    fn verify(&self, user: &str, password: &str) -> bool;
}

/// What a client publishes, or would have published as its will.
#[derive(Debug, Clone, Copy)]
pub struct Publication<'a> {
    /// The topic name.
    pub topic: &'a str,
    /// Whether the broker is to keep it.
    pub retain: bool,
    /// Bytes of its payload.
    pub bytes: usize,
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
    /// The name that it proved is another client's.
    #[error("its certificate or password is that of {names:?}, the client id requires `{needed}`")]
    Name {
        /// The names that it proved.
        names: Vec<String>,
        /// The name that the client id requires.
        needed: String,
    },
    /// No password, or a wrong one.
    #[error("the password is missing or wrong")]
    Password,
    /// The broker's planner has not read its site yet.
    #[error("the site's name is not known yet")]
    NoSite,
    /// The topic or filter is outside of the client's rights.
    #[error("it is outside of the client's rights")]
    OutOfReach,
    /// Messages of this topic are not kept.
    #[error("messages of this topic are not retained")]
    NotRetained,
    /// The payload is larger than the topic allows.
    #[error("the payload has {bytes} bytes, and this topic allows {most}")]
    TooLarge {
        /// Its size.
        bytes: usize,
        /// The limit.
        most: usize,
    },
}

/// Decides on the requests of clients.
pub trait Policy: Send + Sync + 'static {
    /// Whether this peer may connect with this client id.
    fn connect(&self, peer: &Peer, client_id: &str) -> Result<(), Refusal>;

    /// Whether the client may publish this.
    fn publish(&self, client: &Client, publication: Publication<'_>) -> Result<(), Refusal>;

    /// Whether the client may subscribe to `filter`.
    fn subscribe(&self, client: &Client, filter: &Filter) -> Result<(), Refusal>;

    /// Whether the client may leave this will.
    fn will(&self, client: &Client, will: Publication<'_>) -> Result<(), Refusal> {
        self.publish(client, will)
    }
}

/// Grants everything: for tests and trials.
#[derive(Debug, Clone, Copy, Default)]
pub struct AllowAll;

impl Policy for AllowAll {
    fn connect(&self, _: &Peer, _: &str) -> Result<(), Refusal> {
        Ok(())
    }

    fn publish(&self, _: &Client, _: Publication<'_>) -> Result<(), Refusal> {
        Ok(())
    }

    fn subscribe(&self, _: &Client, _: &Filter) -> Result<(), Refusal> {
        Ok(())
    }
}

/// The rights on the topics of one site, as [`groundplan_protocol::topic::TOPICS`] states them.
///
/// | client id | proved name | may publish | may subscribe to |
/// |---|---|---|---|
/// | `groundplan/<site>/node/<node>` | `<node>` | the topics from this node's agent | the topics to this node's agent, to all, and to agents, content by its digest |
/// | `groundplan/<site>/planner/<any>` | `planner`, `<any>.planner` | every topic | every topic, filters included |
/// | `groundplan/<site>/observer/<any>` | `observer`, `<any>.observer` | nothing | every topic, filters included |
///
/// A client id may have one further level that others cannot guess. Topics are those of the table, and no others: a level more or less is
/// refused, as are messages to be kept where the table keeps none, and payloads above the table's limit. So what a node can make the broker
/// hold is bounded. On a listener that asks for no proof the client id alone decides. An authority must never issue the name of a planner
/// or an observer to a node.
#[derive(Debug, Default)]
pub struct SitePolicy {
    site: OnceLock<Site>,
}

#[derive(Debug)]
struct Site {
    name: SiteName,
    all: Filter,
}

impl Site {
    fn new(name: SiteName) -> Option<Self> {
        let all = Filter::new(format!("{}/#", prefix(&name))).ok()?;
        Some(Self { name, all })
    }

    fn role(&self, client_id: &str) -> Result<ClientRole, Refusal> {
        ClientRole::parse(&self.name, client_id).ok_or_else(|| Refusal::Stranger { site: self.name.to_string() })
    }

    fn topic(&self, topic: &str) -> Result<Topic, Refusal> {
        Topic::parse(&self.name, topic).ok_or(Refusal::OutOfReach)
    }

    /// Whether a filter is one that the agent of `node` needs: a topic of its node, who plans, that someone does, or the chunks of one content.
    fn may_agent_subscribe(&self, node: &NodeId, filter: &str) -> bool {
        // The number of the chunk may be a wildcard; nothing else may.
        let chunk = filter.strip_suffix("/+").map(|content| format!("{content}/0"));
        match Topic::parse(&self.name, chunk.as_deref().unwrap_or(filter)) {
            Some(topic @ Topic::Blob(..)) => topic.kind().spec().direction.is_to_agents(),
            Some(topic @ (Topic::Planner | Topic::Heartbeat)) => {
                chunk.is_none() && topic.kind().spec().direction.is_to_agents()
            }
            Some(Topic::Node(of, topic)) => chunk.is_none() && of == *node && topic.spec().direction.is_to_agents(),
            None => false,
        }
    }
}

impl SitePolicy {
    /// The policy of the site of this name. `None` if that is not a site's name.
    pub fn new(site: &str) -> Option<Self> {
        let policy = Self::default();
        policy.name(SiteName::new(site).ok()?);
        Some(policy)
    }

    /// A policy that refuses everything, until [`SitePolicy::name`] is called.
    pub fn unnamed() -> Self {
        Self::default()
    }

    /// Names the site. Has an effect once: a site keeps its name.
    pub fn name(&self, site: SiteName) {
        if let Some(site) = Site::new(site) {
            let _ = self.site.set(site);
        }
    }

    fn site(&self) -> Result<&Site, Refusal> {
        self.site.get().ok_or(Refusal::NoSite)
    }
}

fn granted(yes: bool) -> Result<(), Refusal> {
    if yes { Ok(()) } else { Err(Refusal::OutOfReach) }
}

impl Policy for SitePolicy {
    fn connect(&self, peer: &Peer, client_id: &str) -> Result<(), Refusal> {
        let role = self.site()?.role(client_id)?;
        match &peer.names {
            // Without a proof the client id alone decides.
            Some(names) if !names.iter().any(|name| role.has_name(name)) => {
                Err(Refusal::Name { names: names.to_vec(), needed: role.certificate_name().to_owned() })
            }
            _ => Ok(()),
        }
    }

    fn publish(&self, client: &Client, publication: Publication<'_>) -> Result<(), Refusal> {
        let site = self.site()?;
        let (role, topic) = (site.role(&client.id)?, site.topic(publication.topic)?);
        let spec = topic.kind().spec();
        match (&role, &topic) {
            (ClientRole::Planner, _) => {}
            (ClientRole::Agent(node), Topic::Node(of, _)) if node == of && spec.direction.is_from_agent() => {}
            _ => return Err(Refusal::OutOfReach),
        }
        if publication.retain && !spec.is_retained() {
            return Err(Refusal::NotRetained);
        }
        if publication.bytes > spec.limit {
            return Err(Refusal::TooLarge { bytes: publication.bytes, most: spec.limit });
        }
        Ok(())
    }

    fn subscribe(&self, client: &Client, filter: &Filter) -> Result<(), Refusal> {
        let site = self.site()?;
        let filter = filter.as_str();
        match site.role(&client.id)? {
            ClientRole::Planner | ClientRole::Observer => granted(site.all.covers(filter)),
            ClientRole::Agent(node) => granted(site.may_agent_subscribe(&node, filter)),
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
        Peer { address: None, names: name.map(|name| [name.to_owned()].into()) }
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
            ("groundplan/s/node/web/9f3c", Some("web"), true),
            ("groundplan/s/node/web/9f3c", Some("db"), false),
            ("groundplan/s/node/web/x/y", Some("web"), false),
            ("groundplan/s/node/", Some(""), false),
            ("groundplan/s/node/+", None, false),
            ("groundplan/t/node/web", Some("web"), false),
            ("groundplan/sx/node/web", Some("web"), false),
            ("groundplan/s/planner/a", Some("planner"), true),
            ("groundplan/s/planner/a", Some("web"), false),
            ("groundplan/s/planner/a", Some("one.planner"), true),
            ("groundplan/s/planner/a", Some(".planner"), false),
            ("groundplan/s/planner/a", Some("one.observer"), false),
            ("groundplan/s/node/one.planner", Some("one.planner"), false),
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
        let digest = "0".repeat(64);
        let (node, planner, observer) =
            (client("groundplan/s/node/web"), client("groundplan/s/planner/1"), client("groundplan/s/observer/1"));
        let blob = |rest: &str| format!("groundplan/1/s/blob/{digest}{rest}");
        let (chunk, beyond, chunks, deep) = (blob("/0"), blob("/0/x"), blob("/+"), blob("/+/#"));
        // Topic; which of node, planner and observer may publish and which may subscribe to it.
        for (topic, publish, subscribe) in [
            ("groundplan/1/s/node/web/state", "np", "po"),
            ("groundplan/1/s/node/web/want", "np", "po"),
            ("groundplan/1/s/node/web/want/x", "", "po"),
            ("groundplan/1/s/node/web/statement", "", "po"),
            ("groundplan/1/s/node/web/plan", "p", "npo"),
            ("groundplan/1/s/node/web/ack", "p", "npo"),
            ("groundplan/1/s/node/web/exec", "p", "npo"),
            ("groundplan/1/s/node/web/output", "np", "po"),
            ("groundplan/1/s/node/web", "", "po"),
            ("groundplan/1/s/node/webb/plan", "p", "po"),
            ("groundplan/1/s/node/db/state", "p", "po"),
            ("groundplan/1/s/planner", "p", "npo"),
            (&chunk, "p", "npo"),
            (&beyond, "", "po"),
            ("groundplan/1/s/blob/d/0", "", "po"),
            ("groundplan/1/s/blob", "", "po"),
            ("groundplan/1/t/planner", "", ""),
            ("groundplan/2/s/planner", "", ""),
            ("$SYS/x", "", ""),
        ] {
            for (who, client) in [('n', &node), ('p', &planner), ('o', &observer)] {
                let publication = Publication { topic, retain: false, bytes: 1 };
                let granted = policy.publish(client, publication).is_ok();
                assert_eq!(granted, publish.contains(who), "{who} publishes {topic}");
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
            ("groundplan/1/s/node/web/plan/+", "po"),
            (&chunks, "npo"),
            (&deep, "po"),
            ("groundplan/1/s/blob/+/+", "po"),
            ("groundplan/1/s/blob/d/+", "po"),
            ("groundplan/1/s/planner/+", "po"),
            ("groundplan/1/s/+", "po"),
        ] {
            for (who, client) in [('n', &node), ('p', &planner), ('o', &observer)] {
                let filter = Filter::new(filter).unwrap();
                assert_eq!(policy.subscribe(client, &filter).is_ok(), subscribe.contains(who), "{who} reads {filter}");
            }
        }
    }

    #[test]
    fn the_table_bounds_what_is_kept_and_how_much() {
        let policy = SitePolicy::new("s").unwrap();
        let node = client("groundplan/s/node/web");
        for (topic, retain, bytes, allowed) in [
            ("state", true, 100, true),
            ("report", false, 100, true),
            ("report", true, 100, false),
            ("presence", true, 8 * 1024, true),
            ("presence", true, 8 * 1024 + 1, false),
        ] {
            let topic = format!("groundplan/1/s/node/web/{topic}");
            let publication = Publication { topic: &topic, retain, bytes };
            assert_eq!(policy.publish(&node, publication).is_ok(), allowed, "{publication:?}");
        }
    }

    #[test]
    fn without_a_site_nothing_is_granted() {
        let policy = SitePolicy::unnamed();
        assert_eq!(policy.connect(&peer(Some("planner")), "groundplan/s/planner/1"), Err(Refusal::NoSite));
        policy.name(SiteName::new("s").unwrap());
        assert_eq!(policy.connect(&peer(Some("planner")), "groundplan/s/planner/1"), Ok(()));
    }
}
