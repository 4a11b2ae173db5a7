//! Which node's request for content is answered next. Pure: it takes requests and the time, and names chunks.
//!
//! One request of a node is outstanding; a newer one takes its place, as agents ask for what they still miss. Nodes take turns, a request each.
//! A chunk that leaves serves every node whose next chunk it is. What a node has for the first time costs it nothing, so that a node with
//! many long files is as fast as the connection; what it asks for again is paid from its token bucket. So a node that repeats itself is
//! slowed down to [`RATE`], and delays no other node by more than one request.

use std::{
    collections::{HashMap, VecDeque},
    time::Duration,
};

use groundplan_protocol::{
    blob::{WANT_LIMIT, Want},
    digest::Digest,
    ids::NodeId,
};

/// Bytes a second that a node gets again.
const RATE: u64 = 4 << 20;

/// Bytes that a node gets again at once: what a few broken connections and an agent's restart may cost.
const BURST: i64 = 16 << 20;

/// Of how many contents per node is known what it has had. Of more it pays for each request.
const REMEMBERED: usize = 4096;

/// A request that has waited so long is dropped: an agent repeats it earlier.
const STALE: Duration = Duration::from_secs(60);

/// A node that has asked for nothing this long has a full bucket, and is forgotten.
const IDLE: Duration = Duration::from_secs(300);

/// A request that is not answered yet.
#[derive(Debug)]
struct Outstanding {
    node: NodeId,
    digest: Digest,
    /// In ascending order; none once requests of other nodes have served it.
    chunks: VecDeque<u32>,
    since: Duration,
}

impl Outstanding {
    fn is_due(&self, now: Duration) -> bool {
        !self.chunks.is_empty() && now.saturating_sub(self.since) < STALE
    }
}

/// What a node has had, and what it may have again.
#[derive(Debug)]
struct Account {
    /// Bytes in the bucket at `at`. Below zero after a request that cost more than there was.
    balance: i64,
    at: Duration,
    /// For each content the first chunk that it has not had.
    had: HashMap<Digest, u32>,
}

impl Account {
    fn balance(&self, now: Duration) -> i64 {
        let earned = now.saturating_sub(self.at).as_millis() * u128::from(RATE) / 1000;
        self.balance.saturating_add(i64::try_from(earned).unwrap_or(i64::MAX)).min(BURST)
    }

    /// When the bucket is no longer below zero.
    fn solvent_at(&self) -> Duration {
        self.at + Duration::from_millis(self.balance.min(0).unsigned_abs() * 1000 / RATE + 1)
    }

    /// Records that it gets these chunks; returns whether it has had one of them.
    fn has_had(&mut self, digest: Digest, chunks: &[u32]) -> bool {
        if self.had.len() >= REMEMBERED && !self.had.contains_key(&digest) {
            return true;
        }
        let next = self.had.entry(digest).or_default();
        let again = chunks.iter().any(|n| n < next);
        *next = chunks.iter().fold(*next, |next, n| next.max(n.saturating_add(1)));
        again
    }
}

/// What is to be done next.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// Ship these chunks; then call [`Shipping::shipped`].
    Ship { node: NodeId, digest: Digest, chunks: Vec<u32> },
    /// Nothing before that time.
    At(Duration),
    /// Nothing.
    Idle,
}

/// The requests that wait, and an account for each node that has asked lately.
#[derive(Debug, Default)]
pub(super) struct Shipping {
    turns: VecDeque<Outstanding>,
    accounts: HashMap<NodeId, Account>,
    swept: Duration,
}

impl Shipping {
    /// Takes a node's request, in place of its last one.
    pub(super) fn ask(&mut self, node: NodeId, want: &Want, now: Duration) {
        // Agents ask for a range. Only ascending numbers count: one chunk is not sent twice for one request.
        let mut chunks = VecDeque::new();
        for n in want.chunks.iter().take(WANT_LIMIT) {
            if chunks.back().is_none_or(|last| n > last) {
                chunks.push_back(*n);
            }
        }
        let digest = want.blob.sha256;
        let full = Account { balance: BURST, at: now, had: HashMap::new() };
        self.accounts.entry(node.clone()).or_insert(full);
        match self.turns.iter_mut().find(|turn| turn.node == node) {
            // In its place in the order: a node gains and loses nothing by asking again.
            Some(turn) => (turn.digest, turn.chunks, turn.since) = (digest, chunks, now),
            None => self.turns.push_back(Outstanding { node, digest, chunks, since: now }),
        }
    }

    /// Another commit is active: what nodes have had of the last one no longer matters.
    pub(super) fn forget(&mut self) {
        self.accounts.values_mut().for_each(|account| account.had.clear());
    }

    /// Whether a request waits that is not stale.
    pub(super) fn is_busy(&mut self, now: Duration) -> bool {
        self.turns.retain(|turn| turn.is_due(now));
        !self.turns.is_empty()
    }

    /// The request whose turn it is.
    pub(super) fn next(&mut self, now: Duration) -> Next {
        self.sweep(now);
        let mut earliest = None;
        for _ in 0..self.turns.len() {
            let Some(turn) = self.turns.pop_front() else { break };
            if !turn.is_due(now) {
                continue;
            }
            let account = self.accounts.get(&turn.node).filter(|account| account.balance(now) < 0);
            let Some(account) = account else {
                return Next::Ship { node: turn.node, digest: turn.digest, chunks: turn.chunks.into() };
            };
            let at = account.solvent_at();
            earliest = Some(earliest.map_or(at, |earliest: Duration| earliest.min(at)));
            self.turns.push_back(turn);
        }
        earliest.map_or(Next::Idle, Next::At)
    }

    /// These chunks have left, and cost that many bytes to read and send.
    pub(super) fn shipped(&mut self, node: &NodeId, digest: Digest, chunks: &[u32], cost: u64, now: Duration) {
        if let Some(account) = self.accounts.get_mut(node) {
            (account.balance, account.at) = (account.balance(now), now);
            if account.has_had(digest, chunks) {
                account.balance = account.balance.saturating_sub(i64::try_from(cost).unwrap_or(i64::MAX));
            }
        }
        // Every agent that fetches this content gets them. It takes chunks in order only, so that others have to be sent again.
        for turn in self.turns.iter_mut().filter(|turn| turn.digest == digest) {
            for n in chunks {
                if turn.chunks.front() == Some(n) {
                    turn.chunks.pop_front();
                }
            }
        }
    }

    fn sweep(&mut self, now: Duration) {
        if now.saturating_sub(self.swept) < IDLE {
            return;
        }
        self.swept = now;
        self.accounts.retain(|_, account| now.saturating_sub(account.at) < IDLE || account.balance(now) < BURST);
    }
}

#[cfg(test)]
mod tests {
    use groundplan_protocol::{
        VERSION,
        blob::{BlobRef, CHUNK},
        ids::SiteName,
    };

    use super::*;

    const ALL: u64 = (WANT_LIMIT * CHUNK) as u64;

    fn node(name: &str) -> NodeId {
        NodeId::new(name).unwrap()
    }

    fn ask(shipping: &mut Shipping, name: &str, content: &str, chunks: impl Into<Vec<u32>>, now: Duration) {
        let want = Want {
            version: VERSION,
            site: SiteName::new("s").unwrap(),
            node: node(name),
            blob: BlobRef::of(content.as_bytes()),
            chunks: chunks.into(),
        };
        shipping.ask(node(name), &want, now);
    }

    fn range(from: u32) -> Vec<u32> {
        (from..from + WANT_LIMIT as u32).collect()
    }

    /// Ships what is next; whose it is and which chunks.
    fn ship(shipping: &mut Shipping, now: Duration) -> Option<(String, Vec<u32>)> {
        let Next::Ship { node, digest, chunks } = shipping.next(now) else { return None };
        shipping.shipped(&node, digest, &chunks, (chunks.len() * CHUNK) as u64, now);
        Some((node.to_string(), chunks))
    }

    #[test]
    fn what_a_node_has_for_the_first_time_is_free() {
        let (mut shipping, now) = (Shipping::default(), Duration::ZERO);
        for file in 0..500 {
            for from in [0, 16, 32] {
                ask(&mut shipping, "n1", &file.to_string(), range(from), now);
                assert_eq!(ship(&mut shipping, now), Some(("n1".to_owned(), range(from))), "{file} {from}");
            }
        }
    }

    #[test]
    fn a_node_that_repeats_itself_is_slowed_down_and_delays_no_other_node() {
        let (mut shipping, mut now) = (Shipping::default(), Duration::ZERO);
        let mut shipped = 0;
        // A thousand requests a second for a minute.
        for n in 0..60_000_u64 {
            now = Duration::from_millis(n);
            ask(&mut shipping, "hostile", "a", range(0), now);
            shipped += ship(&mut shipping, now).map_or(0, |(_, chunks)| chunks.len() * CHUNK) as u64;
            assert!(shipping.turns.len() <= 1, "one request is outstanding");
        }
        let most = 60 * RATE + BURST.unsigned_abs() + 2 * ALL;
        assert!(shipped <= most && shipped >= 60 * RATE, "{shipped} of {most}");
        ask(&mut shipping, "hostile", "a", range(0), now);
        ask(&mut shipping, "n1", "b", [0], now);
        assert_eq!(ship(&mut shipping, now), Some(("n1".to_owned(), vec![0])));
        assert!(matches!(shipping.next(now), Next::At(at) if at > now && at < now + Duration::from_secs(1)));
    }

    #[test]
    fn nodes_take_turns_and_one_chunk_serves_all_that_wait_for_it() {
        let (mut shipping, now) = (Shipping::default(), Duration::ZERO);
        ask(&mut shipping, "n1", "a", range(0), now);
        ask(&mut shipping, "n2", "b", [0], now);
        ask(&mut shipping, "n3", "a", range(0), now);
        // Its next chunk is not among those of the others: out of order it would drop them.
        ask(&mut shipping, "n4", "a", [20, 21], now);
        // It has the first three.
        ask(&mut shipping, "n5", "a", range(3), now);
        let all: Vec<_> = std::iter::from_fn(|| ship(&mut shipping, now)).collect();
        let of = |name: &str, chunks: Vec<u32>| (name.to_owned(), chunks);
        assert_eq!(all, [of("n1", range(0)), of("n2", vec![0]), of("n4", vec![20, 21]), of("n5", vec![16, 17, 18])]);
    }

    #[test]
    fn an_odd_request_costs_one_pass_and_an_old_one_nothing() {
        let (mut shipping, now) = (Shipping::default(), Duration::ZERO);
        ask(&mut shipping, "n1", "a", vec![5, 5, 5, 4, 6], now);
        assert_eq!(ship(&mut shipping, now), Some(("n1".to_owned(), vec![5, 6])));
        ask(&mut shipping, "n1", "a", [], now);
        assert_eq!(shipping.next(now), Next::Idle);
        ask(&mut shipping, "n1", "a", [u32::MAX], now);
        assert_eq!(shipping.next(now + STALE), Next::Idle);
    }

    #[test]
    fn accounts_of_idle_nodes_are_forgotten() {
        let (mut shipping, now) = (Shipping::default(), Duration::ZERO);
        ask(&mut shipping, "n1", "a", [0], now);
        ship(&mut shipping, now);
        assert_eq!((shipping.next(now + IDLE), shipping.accounts.len()), (Next::Idle, 0));
    }
}
