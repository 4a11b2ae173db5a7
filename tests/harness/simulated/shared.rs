//! What simulated agents share: where they connect to, what they are to do, and how far each of them is.

use std::{
    net::SocketAddr,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};

use groundplan_protocol::{
    envelope::{PublicKey, SigningKey},
    ids::{LedgerId, NodeId, SiteName},
    time::Now,
};

/// A node of which an agent is simulated.
pub struct SimulatedNode {
    /// Its name.
    pub node: NodeId,
    /// Its key.
    pub key: SigningKey,
    /// Its password, at a broker that asks for one; the user name is the node's.
    pub password: Option<String>,
}

/// What all agents are to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Order {
    /// Agents with a ledger of an earlier life begin again with an empty one.
    pub(super) life: u32,
    /// Agents disconnect, and stay so until this is false again.
    pub(super) away: bool,
}

/// What the agents share.
pub(super) struct Shared {
    pub(super) broker: SocketAddr,
    pub(super) site: SiteName,
    pub(super) planner: PublicKey,
    pub(super) started: Instant,
    /// For each node: the generation of its plan if all of it is done and every report of it is acknowledged; 0 otherwise.
    pub(super) settled: Vec<AtomicU64>,
    /// Messages that agents have published, and bytes of their payloads; the same of what they have received.
    pub(super) published: [AtomicU64; 2],
    pub(super) received: [AtomicU64; 2],
    /// How many of the published ones the broker has confirmed.
    pub(super) confirmed: AtomicU64,
    /// What no agent can deal with; the first of it.
    pub(super) fault: Mutex<Option<String>>,
}

impl Shared {
    pub(super) fn now(&self) -> Now {
        let wall = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        Now { mono: self.started.elapsed(), wall_ms: wall.map_or(0, |wall| wall.as_millis() as u64) }
    }

    pub(super) fn count([messages, bytes]: &[AtomicU64; 2], payload: usize) {
        messages.fetch_add(1, Ordering::Relaxed);
        bytes.fetch_add(payload as u64, Ordering::Relaxed);
    }

    pub(super) fn fail(&self, fault: String) {
        self.fault.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(fault);
    }
}

/// The name of a simulated node's ledger in one of its lives.
pub(super) fn ledger(node: &NodeId, life: u32) -> LedgerId {
    let mut name = groundplan_protocol::digest::Digest::of(format!("{node} {life}").as_bytes()).to_string();
    name.truncate(32);
    LedgerId::new(name).expect("32 hexadecimal digits")
}
