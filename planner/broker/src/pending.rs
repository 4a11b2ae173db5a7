//! Connections that have not proved who they are.
//!
//! In: connections that begin, with their address, and that end or are admitted. Out: which one has to make room for another. An honest
//! client proves itself within milliseconds. So the oldest of one address makes room for a newer one of that address: whoever holds silent
//! sockets there keeps no client out. A fleet that reconnects comes from many addresses: if all of them together are too many, the oldest makes
//! room only after a grace period, so that handshakes which wait for the processor are not begun in vain. No IO; the time comes in as a value.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::sync::Notify;

use super::limits::Limits;

/// A connection's number; grows with their age.
pub(crate) type Number = u64;

struct Entry {
    address: IpAddr,
    since: Instant,
    close: Arc<Notify>,
}

/// See the module.
pub(crate) struct Pending {
    max: usize,
    max_per_address: usize,
    grace: Duration,
    next: Number,
    all: BTreeMap<Number, Entry>,
    by_address: HashMap<IpAddr, BTreeSet<Number>>,
    /// Refused, and still reading why. They take no place of others: the oldest of too many is closed at once.
    refused: BTreeMap<Number, Arc<Notify>>,
}

/// There is no room, and none may be made.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct NoRoom;

impl Pending {
    pub(crate) fn new(limits: &Limits) -> Self {
        Self {
            max: limits.max_pending.max(1),
            max_per_address: limits.max_pending_per_address.max(1),
            grace: limits.grace,
            next: 0,
            all: BTreeMap::new(),
            by_address: HashMap::new(),
            refused: BTreeMap::new(),
        }
    }

    /// Adds a connection. The signal is given if it has to make room for another.
    pub(crate) fn enter(&mut self, address: IpAddr, now: Instant) -> Result<(Number, Arc<Notify>), NoRoom> {
        let of_address = self.by_address.get(&address);
        if let Some(numbers) = of_address.filter(|numbers| numbers.len() >= self.max_per_address) {
            let oldest = numbers.first().copied();
            self.close(oldest, now, Duration::ZERO)?;
        }
        if self.all.len() >= self.max {
            let oldest = self.all.keys().next().copied();
            self.close(oldest, now, self.grace)?;
        }
        self.next += 1;
        let close = Arc::new(Notify::new());
        self.all.insert(self.next, Entry { address, since: now, close: Arc::clone(&close) });
        self.by_address.entry(address).or_default().insert(self.next);
        Ok((self.next, close))
    }

    fn close(&mut self, oldest: Option<Number>, now: Instant, grace: Duration) -> Result<(), NoRoom> {
        let number = oldest.ok_or(NoRoom)?;
        let entry = self.all.get(&number).ok_or(NoRoom)?;
        if now.duration_since(entry.since) < grace {
            return Err(NoRoom);
        }
        entry.close.notify_one();
        self.leave(number);
        Ok(())
    }

    /// A connection is refused: it makes room for others, and lasts until they are too many of its kind.
    pub(crate) fn refuse(&mut self, number: Number) {
        let Some(close) = self.all.get(&number).map(|entry| Arc::clone(&entry.close)) else { return };
        self.leave(number);
        self.refused.insert(number, close);
        if self.refused.len() > self.max
            && let Some((_, oldest)) = self.refused.pop_first()
        {
            oldest.notify_one();
        }
    }

    /// Removes a connection that was admitted or has ended; one that is not there any more is no error.
    pub(crate) fn leave(&mut self, number: Number) {
        self.refused.remove(&number);
        let Some(entry) = self.all.remove(&number) else { return };
        if let Some(numbers) = self.by_address.get_mut(&entry.address) {
            numbers.remove(&number);
            if numbers.is_empty() {
                self.by_address.remove(&entry.address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    fn ip(last: u8) -> IpAddr {
        Ipv4Addr::new(10, 0, 0, last).into()
    }

    fn is_closed(signal: &Notify) -> bool {
        // `notify_one` leaves a permit, so that waiting ends at once.
        let mut waiting = std::pin::pin!(signal.notified());
        waiting.as_mut().enable()
    }

    #[test]
    fn the_oldest_of_an_address_makes_room_for_its_next() {
        let limits = Limits { max_pending: 9, max_pending_per_address: 2, ..Limits::default() };
        let (mut pending, begin) = (Pending::new(&limits), Instant::now());
        let (_, first) = pending.enter(ip(1), begin).unwrap();
        let (second, _) = pending.enter(ip(1), begin).unwrap();
        let (_, other) = pending.enter(ip(2), begin).unwrap();
        pending.enter(ip(1), begin).unwrap();
        assert!(is_closed(&first) && !is_closed(&other));
        // One that was admitted leaves its place, and one that was refused takes none.
        pending.leave(second);
        let (third, reads) = pending.enter(ip(1), begin).unwrap();
        pending.refuse(third);
        pending.enter(ip(1), begin).unwrap();
        assert!(!is_closed(&reads));
        assert_eq!((pending.all.len(), pending.refused.len()), (3, 1));
        pending.leave(third);
        for number in pending.all.keys().copied().collect::<Vec<_>>() {
            pending.leave(number);
        }
        assert!(pending.by_address.is_empty() && pending.refused.is_empty());
    }

    #[test]
    fn of_all_addresses_the_oldest_has_its_time() {
        let limits = Limits { max_pending: 2, max_pending_per_address: 2, ..Limits::default() };
        let (mut pending, begin) = (Pending::new(&limits), Instant::now());
        let (_, first) = pending.enter(ip(1), begin).unwrap();
        pending.enter(ip(2), begin).unwrap();
        assert_eq!(pending.enter(ip(3), begin).map(|_| ()), Err(NoRoom));
        assert!(pending.enter(ip(3), begin + limits.grace).is_ok());
        assert!(is_closed(&first));
    }
}
