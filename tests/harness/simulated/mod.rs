//! Agents without hosts: many in one process, each with a key and a ledger of its own, over the real wire to a real broker and planner.
//!
//! In: where the broker is, which nodes, the planner's key. Out: agents that connect, take plans, report at once that each of their tasks
//! has changed something, and come back after a lost connection; and how far each of them is. What an agent decides is decided by the
//! agent's own machine; only its disk and its host are left out. Sites of such agents ship no content that does not fit into a plan.
//! One thread serves them all. In contrast to `simulator`, nothing here is deterministic.

mod agent;
mod connection;
mod shared;
pub mod site;

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use groundplan_protocol::{envelope::PublicKey, ids::SiteName};
use tokio::{runtime::Runtime, sync::watch};

pub use self::shared::SimulatedNode;
use self::{
    agent::Agent,
    shared::{Order, Shared},
};

/// What each agent needs to know.
pub struct Settings {
    /// The broker, without TLS.
    pub broker: SocketAddr,
    /// The site.
    pub site: SiteName,
    /// The key of its planners.
    pub planner: PublicKey,
    /// The nodes.
    pub nodes: Vec<SimulatedNode>,
}

/// How much crossed the wire so far, in payloads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Traffic {
    /// Messages that agents have published.
    pub published: u64,
    /// How many of these the broker has confirmed.
    pub confirmed: u64,
    /// Their bytes.
    pub published_bytes: u64,
    /// Messages that agents have received.
    pub received: u64,
    /// Their bytes.
    pub received_bytes: u64,
}

/// The generation of each node's plan when it was made; see [`SimulatedAgents::mark`].
pub struct Mark(Vec<u64>);

/// Agents that run as long as this handle exists.
pub struct SimulatedAgents {
    shared: Arc<Shared>,
    orders: watch::Sender<Order>,
    /// Taken when it is dropped.
    runtime: Option<Runtime>,
}

impl SimulatedAgents {
    /// Starts them. They connect by themselves, at once or when a broker is there.
    pub fn start(settings: Settings) -> Self {
        let Settings { broker, site, planner, nodes } = settings;
        let settled = nodes.iter().map(|_| AtomicU64::new(0)).collect();
        let (published, received) = Default::default();
        let (confirmed, fault, started) = (AtomicU64::new(0), Mutex::default(), Instant::now());
        let shared = Shared { broker, site, planner, started, settled, published, received, confirmed, fault };
        let shared = Arc::new(shared);
        let (orders, _) = watch::channel(Order::default());
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("simulated")
            .enable_all()
            .build()
            .expect("a runtime");
        for (number, node) in nodes.into_iter().enumerate() {
            let agent = Agent::new(shared.clone(), number, node);
            runtime.spawn(connection::run(agent, shared.clone(), orders.subscribe()));
        }
        Self { shared, orders, runtime: Some(runtime) }
    }

    /// Has all of them begin again at once, each with an empty ledger on a new connection.
    pub fn begin_again(&self) {
        self.orders.send_modify(|order| order.life += 1);
    }

    /// Has all of them disconnect, without their last will, and stay away until they are to come back.
    pub fn leave(&self) {
        self.orders.send_modify(|order| order.away = true);
    }

    /// Has those that left connect again, with the ledgers that they have.
    pub fn come_back(&self) {
        self.orders.send_modify(|order| order.away = false);
    }

    /// Where they are now, for [`Self::settled_since`].
    pub fn mark(&self) -> Mark {
        Mark(self.shared.settled.iter().map(|settled| settled.load(Ordering::Relaxed)).collect())
    }

    /// How many of them have done a plan since then that is newer than theirs was, with every report of it acknowledged.
    ///
    /// # Panics
    /// If an agent got what it cannot deal with.
    pub fn settled_since(&self, Mark(before): &Mark) -> usize {
        if let Some(fault) = &*self.shared.fault.lock().unwrap_or_else(PoisonError::into_inner) {
            panic!("{fault}");
        }
        let settled = self.shared.settled.iter().map(|settled| settled.load(Ordering::Relaxed));
        settled.zip(before).filter(|(now, before)| now > before).count()
    }

    /// Waits until so many of them have done a newer plan since then, and returns how long that took from `began`; nothing if it takes longer
    /// than `patience`.
    pub fn wait_for(&self, nodes: usize, mark: &Mark, began: Instant, patience: Duration) -> Option<Duration> {
        while self.settled_since(mark) < nodes {
            if began.elapsed() > patience {
                return None;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        Some(began.elapsed())
    }

    /// What crossed the wire so far.
    pub fn traffic(&self) -> Traffic {
        let [published, published_bytes] = &self.shared.published;
        let [received, received_bytes] = &self.shared.received;
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        Traffic {
            published: read(published),
            confirmed: read(&self.shared.confirmed),
            published_bytes: read(published_bytes),
            received: read(received),
            received_bytes: read(received_bytes),
        }
    }
}

impl Drop for SimulatedAgents {
    fn drop(&mut self) {
        // In the background: a test may drop it in a task of another runtime, where this one must not be waited for.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}
