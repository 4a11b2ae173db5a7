//! Who may connect, publish and subscribe.
//!
//! In: who is at the other end ([`Peer`]), the client id that it gave, and the topic or filter that it asks for.
//! Out: yes, or a [`Refusal`] that says why. Asked for every CONNECT, will, PUBLISH and filter, on the connection's own
//! task: an implementation answers from memory, without blocking.

use std::{net::SocketAddr, sync::Arc};

use super::filter::Filter;

/// The other end of a connection.
#[derive(Debug, Clone)]
pub struct Peer {
    /// Where it connects from.
    pub address: SocketAddr,
    /// The DNS names (subject alternative names, RFC 5280 section 4.2.1.6) of the certificate that it proved to hold.
    /// `None` on a listener without TLS. The common name is not read: RFC 9525 section 2 has ended its use.
    pub certificate: Option<Arc<[String]>>,
}

/// A client that was let in.
#[derive(Debug, Clone)]
pub struct Client {
    /// Its client id; unique among the connected.
    pub id: Arc<str>,
    /// The other end of its connection.
    pub peer: Peer,
}

/// Why something was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The client id names nobody of this site.
    #[error("the client id names no planner, node or observer of site `{site}`")]
    Stranger {
        /// The site of this broker.
        site: String,
    },
    /// The certificate was issued to somebody else.
    #[error("the certificate names {certificate:?}, the client id needs `{needed}`")]
    Name {
        /// The certificate's DNS names.
        certificate: Vec<String>,
        /// The name that it would have to bear.
        needed: String,
    },
    /// The topic or filter is not this client's.
    #[error("it reaches beyond what this client may use")]
    OutOfReach,
}

/// Who may do what.
pub trait Policy: Send + Sync + 'static {
    /// Whether this peer may be this client.
    fn connect(&self, peer: &Peer, client_id: &str) -> Result<(), Refusal>;

    /// Whether it may publish to `topic`.
    fn publish(&self, client: &Client, topic: &str) -> Result<(), Refusal>;

    /// Whether it may subscribe to `filter`.
    fn subscribe(&self, client: &Client, filter: &Filter) -> Result<(), Refusal>;

    /// Whether it may leave a will for `topic`.
    fn will(&self, client: &Client, topic: &str) -> Result<(), Refusal> {
        self.publish(client, topic)
    }
}

/// Anybody may do anything: for tests, and for trying out.
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

/// The rights on the topics of one site (DESIGN §6, `docs/protocol.md`).
///
/// | client id | certificate's name | publishes below | subscribes below |
/// |---|---|---|---|
/// | `groundplan/<site>/node/<node>` | `<node>` | `node/<node>/{state,report,presence,want,drift,output}` | `node/<node>/{plan,gates,ack,check,exec}`, `blob/+/+`, `planner` |
/// | `groundplan/<site>/planner/<any>` | `planner` | all | all |
/// | `groundplan/<site>/observer/<any>` | `observer` | nothing | all |
///
/// all of it below `groundplan/1/<site>/`. On a listener without TLS the client id alone decides, so such a listener
/// belongs on loopback. No node may be called `planner` or `observer`, and an authority must never issue one of these
/// names to a node.
#[derive(Debug, Clone)]
pub struct SitePolicy {
    site: String,
    all: Filter,
}

/// What a client id of ours says.
enum Role<'a> {
    Node(&'a str),
    Planner,
    Observer,
}

const PLANNER: &str = "planner";
const OBSERVER: &str = "observer";

impl SitePolicy {
    /// The policy of the site of this name. `None` if the name cannot be a level of a topic.
    pub fn new(site: &str) -> Option<Self> {
        let all = Filter::new(format!("groundplan/1/{site}/#")).ok().filter(|_| is_level(site))?;
        Some(Self { site: site.to_owned(), all })
    }

    fn role<'a>(&self, client_id: &'a str) -> Result<Role<'a>, Refusal> {
        let role = client_id
            .strip_prefix("groundplan/")
            .and_then(|rest| rest.strip_prefix(&self.site))
            .and_then(|rest| rest.strip_prefix('/'))
            .and_then(|rest| rest.split_once('/'));
        match role {
            Some(("node", name)) if is_level(name) && ![PLANNER, OBSERVER].contains(&name) => Ok(Role::Node(name)),
            Some((PLANNER, _)) => Ok(Role::Planner),
            Some((OBSERVER, _)) => Ok(Role::Observer),
            _ => Err(Refusal::Stranger { site: self.site.clone() }),
        }
    }

    /// The part of a topic or filter below a node's own subtree: `plan` of `groundplan/1/<site>/node/<node>/plan`.
    fn own<'a>(&self, node: &str, path: &'a str) -> Option<&'a str> {
        self.below(path)?.strip_prefix("node/")?.strip_prefix(node)?.strip_prefix('/')
    }

    /// The part of a topic or filter below the site.
    fn below<'a>(&self, path: &'a str) -> Option<&'a str> {
        path.strip_prefix("groundplan/1/")?.strip_prefix(&self.site)?.strip_prefix('/')
    }
}

/// Whether this is one level of a topic, and no wildcard.
fn is_level(name: &str) -> bool {
    !name.is_empty() && !name.contains(['/', '+', '#', '\0'])
}

fn granted(yes: bool) -> Result<(), Refusal> {
    if yes { Ok(()) } else { Err(Refusal::OutOfReach) }
}

impl Policy for SitePolicy {
    fn connect(&self, peer: &Peer, client_id: &str) -> Result<(), Refusal> {
        let needed = match self.role(client_id)? {
            Role::Node(name) => name,
            Role::Planner => PLANNER,
            Role::Observer => OBSERVER,
        };
        match &peer.certificate {
            Some(names) if !names.iter().any(|name| name == needed) => {
                Err(Refusal::Name { certificate: names.to_vec(), needed: needed.to_owned() })
            }
            _ => Ok(()),
        }
    }

    fn publish(&self, client: &Client, topic: &str) -> Result<(), Refusal> {
        match self.role(&client.id)? {
            Role::Planner => granted(self.all.matches(topic)),
            Role::Observer => granted(false),
            Role::Node(node) => granted(self.own(node, topic).is_some_and(|below| {
                let kind = below.split('/').next().unwrap_or_default();
                ["state", "report", "presence", "want", "drift", "output"].contains(&kind)
            })),
        }
    }

    fn subscribe(&self, client: &Client, filter: &Filter) -> Result<(), Refusal> {
        let filter = filter.as_str();
        match self.role(&client.id)? {
            Role::Planner | Role::Observer => granted(self.all.covers(filter)),
            Role::Node(node) => {
                let own = self
                    .own(node, filter)
                    .is_some_and(|below| ["plan", "gates", "ack", "check", "exec"].contains(&below));
                // The wildcards here are what a node may use, so its filter is compared level by level.
                let common = self.below(filter).is_some_and(|below| {
                    let mut levels = below.splitn(4, '/');
                    below == "planner"
                        || levels.next() == Some("blob")
                            && levels.next().is_some_and(|level| level != "#")
                            && levels.next().is_some_and(|level| level != "#")
                });
                granted(own || common)
            }
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
        // Topic; who may publish and who may subscribe to it, of node, planner, observer.
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
