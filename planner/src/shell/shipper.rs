//! Answers nodes' requests for content, on a thread of its own.
//!
//! In: requests, of which the latest of each node is kept. Out: chunks, published as long as few bytes wait for the broker; `shipping` decides
//! whose turn it is. The thread ends when the loop does.

use std::{
    collections::BTreeMap,
    path::Path,
    sync::{Arc, Condvar, Mutex, PoisonError},
    time::{Duration, Instant},
};

use groundplan_protocol::{
    blob::Want,
    digest::Digest,
    envelope::SigningKey,
    ids::{NodeId, SiteName},
    topic::Topic,
};

use super::{
    content::{Held, Index},
    shipping::{Next, Shipping},
    site::Site,
};
use crate::{store::Reader, transport::Transport};

/// While this many bytes have not left, no content is added: it would fill the planner's memory, and delay plans and gates.
const BACKLOG: usize = 16 << 20;

/// How long to wait before the backlog is read again.
const ROOM: Duration = Duration::from_millis(5);

/// What is shipped from, and to where.
#[derive(Clone)]
pub(super) struct Route {
    pub(super) name: SiteName,
    pub(super) site: Option<Arc<Site>>,
    pub(super) transport: Transport,
}

/// Requests that the thread has not taken yet.
#[derive(Default)]
struct Waiting {
    /// One a node, so that a flood of them fills nothing.
    wants: BTreeMap<NodeId, Want>,
    /// As of the latest request.
    route: Option<Route>,
    closed: bool,
}

/// Where the loop leaves requests.
#[derive(Default)]
struct Mailbox {
    waiting: Mutex<Waiting>,
    arrived: Condvar,
}

impl Mailbox {
    fn change(&self, change: impl FnOnce(&mut Waiting)) {
        change(&mut self.waiting.lock().unwrap_or_else(PoisonError::into_inner));
        self.arrived.notify_one();
    }

    /// All that came, waiting for it up to that time; none once the loop has ended.
    fn take(&self, wait: Option<Duration>) -> Option<(BTreeMap<NodeId, Want>, Option<Route>)> {
        let waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let is_empty = |waiting: &mut Waiting| waiting.wants.is_empty() && !waiting.closed;
        let mut waiting = match wait {
            Some(wait) => {
                self.arrived.wait_timeout_while(waiting, wait, is_empty).unwrap_or_else(PoisonError::into_inner).0
            }
            None => self.arrived.wait_while(waiting, is_empty).unwrap_or_else(PoisonError::into_inner),
        };
        (!waiting.closed).then(|| (std::mem::take(&mut waiting.wants), waiting.route.take()))
    }
}

/// The loop's handle.
pub(super) struct Shipper(Arc<Mailbox>);

impl Shipper {
    /// Starts the thread. Long files are kept in `dir` while nodes fetch them.
    pub(super) fn start(store: Reader, key: Arc<SigningKey>, dir: &Path) -> Self {
        let (mailbox, dir) = (Arc::new(Mailbox::default()), dir.to_owned());
        let of_thread = mailbox.clone();
        std::thread::spawn(move || run(&store, &key, &dir, &of_thread));
        Self(mailbox)
    }

    /// Has a node's request answered, in place of its last one.
    pub(super) fn ship(&self, node: NodeId, want: Want, route: Route) {
        self.0.change(|waiting| {
            waiting.wants.insert(node, want);
            waiting.route = Some(route);
        });
    }
}

impl Drop for Shipper {
    fn drop(&mut self) {
        self.0.change(|waiting| waiting.closed = true);
    }
}

fn run(store: &Reader, key: &SigningKey, dir: &Path, mailbox: &Mailbox) {
    let started = Instant::now();
    let (mut index, mut shipping) = (Index::new(dir.to_owned()), Shipping::default());
    let (mut route, mut wait): (Option<Route>, _) = (None, None);
    while let Some((wants, newer)) = mailbox.take(wait) {
        if let Some(newer) = newer {
            let id = |route: &Route| route.site.as_ref().map(|site| site.active.commit.id.clone());
            if route.as_ref().is_some_and(|route| id(route) != id(&newer)) {
                shipping.forget();
            }
            route = Some(newer);
        }
        let now = started.elapsed();
        wants.into_iter().for_each(|(node, want)| shipping.ask(node, &want, now));
        let Some(route) = &route else { continue };
        wait = if route.transport.backlog() > BACKLOG {
            // Requests become stale meanwhile, so that this ends also while there is no connection.
            shipping.is_busy(now).then_some(ROOM)
        } else {
            match shipping.next(now) {
                Next::Ship { node, digest, chunks } => {
                    let cost = ship((store, key), &mut index, route, &node, digest, &chunks);
                    shipping.shipped(&node, digest, &chunks, cost, started.elapsed());
                    Some(Duration::ZERO)
                }
                Next::At(at) => Some(at.saturating_sub(now)),
                Next::Idle => None,
            }
        };
    }
}

/// Publishes chunks of content, encrypted once for all nodes that fetch it. Returns how many bytes were read and sent.
fn ship(
    (store, key): (&Reader, &SigningKey),
    index: &mut Index,
    route: &Route,
    node: &NodeId,
    digest: Digest,
    chunks: &[u32],
) -> u64 {
    let of_site = route.site.as_ref().and_then(|site| index.read(site, node, &digest));
    let Some((held, mut cost)) = of_site.or_else(|| plan_body(store, node, &digest)) else {
        tracing::debug!(%node, %digest, "asks for content that no plan of it names, or no longer");
        return 0;
    };
    let key = key.content_key(&digest);
    for n in chunks {
        match held.chunk(*n) {
            Ok(Some(chunk)) => {
                cost += chunk.len() as u64;
                route.transport.publish(Topic::Blob(digest, *n).name(&route.name), key.encrypt(*n, chunk), false);
            }
            Ok(None) => {}
            Err(error) => tracing::warn!(%error, %digest, "a part of it cannot be shipped"),
        }
    }
    cost
}

/// A plan that is too large for one packet, and how many bytes were read for it.
fn plan_body(store: &Reader, node: &NodeId, digest: &Digest) -> Option<(Held, u64)> {
    let plan = store.plan(node).ok().flatten()?;
    let length = plan.json.len() as u64;
    (plan.note.id == *digest).then(|| (Held::Bytes(plan.json.into()), length))
}
