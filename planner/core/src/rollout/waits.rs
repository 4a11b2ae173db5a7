//! What an instance waits for, as people read it: the first few, and how many there are.
//!
//! In: an entry. Out: its [`Wait`]s. Thousands of instances may wait for the same barrier of thousands: what they have in common is
//! worked out once for all of them, so that the lists of all entries together cost as much as the plan has edges.

use std::{
    collections::{BTreeMap, BTreeSet},
    rc::Rc,
};

use super::model::{Opens, Rollout, Wait};

/// How many of the instances that one waits for are listed.
pub(super) const LISTED: usize = 8;

/// What some gates stand for that is not done.
struct Open {
    /// Each counts once, also where it is behind several of them.
    count: usize,
    /// The first by name, at most [`LISTED`].
    first: Vec<u32>,
}

/// Lists waits, and keeps what many have in common.
pub(super) struct Lister<'r> {
    rollout: &'r Rollout,
    /// By the gates that stand for many: what all of them together stand for.
    shared: BTreeMap<Vec<u32>, Rc<Open>>,
}

impl<'r> Lister<'r> {
    pub(super) fn new(rollout: &'r Rollout) -> Self {
        Self { rollout, shared: BTreeMap::new() }
    }

    /// What an entry waits for; empty if it can run.
    pub(super) fn waits(&mut self, i: u32) -> Vec<Wait> {
        let rollout = self.rollout;
        let entry = &rollout.entries[i as usize];
        let mut waits = Vec::new();
        if !rollout.online(&entry.instance.node) {
            waits.push(Wait::Offline);
        }
        let closed = || entry.gates.iter().filter(|g| rollout.gates[**g as usize].open.is_none());
        // Gates with few sources differ from entry to entry, and are walked for each.
        let (mut own, mut many) = (BTreeSet::new(), Vec::new());
        own.extend(entry.after.iter().filter(|i| !rollout.entries[**i as usize].succeeded()));
        for gate in closed() {
            match &rollout.gates[*gate as usize].opens {
                Opens::Done { left, .. } if *left as usize > LISTED => many.push(*gate),
                Opens::Done { waits_for, left, .. } if *left > 0 && waits_for.len() <= 2 * LISTED => {
                    own.extend(waits_for.iter().filter(|i| !rollout.entries[**i as usize].succeeded()));
                }
                Opens::Done { left, .. } if *left > 0 => many.push(*gate),
                _ => {}
            }
        }
        many.sort_unstable();
        many.dedup();
        self.instances(own, many, &mut waits);
        let unknown: BTreeSet<_> = entry.unknown.iter().collect();
        waits.extend(unknown.into_iter().cloned().map(Wait::Unknown));
        // A turn is the last thing that it waits for: it is given when nothing else is left.
        if waits.is_empty() {
            let services: BTreeSet<_> = closed().filter_map(|gate| rollout.gates[*gate as usize].turn_of()).collect();
            waits.extend(services.into_iter().map(|service| {
                let holders = rollout.limits.get(service).map(|limit| limit.holders.iter().cloned().collect());
                Wait::Turn { holders: holders.unwrap_or_default() }
            }));
        }
        waits
    }

    /// Adds the first of the entries in `own` and behind the gates in `many`, by name, and the number of the others.
    fn instances(&mut self, own: BTreeSet<u32>, many: Vec<u32>, waits: &mut Vec<Wait>) {
        let rollout = self.rollout;
        let instance = |i: &u32| &rollout.entries[*i as usize].instance;
        let (mut count, mut first) = (own.len(), Vec::new());
        if !many.is_empty() {
            // What is behind one of the gates as well counts there.
            let is_behind = |i: &&u32| rollout.entries[**i as usize].feeds.iter().any(|gate| many.contains(gate));
            count -= own.iter().filter(is_behind).count();
            let open = self.shared.entry(many).or_insert_with_key(|gates| Rc::new(open(rollout, gates)));
            count += open.count;
            first.clone_from(&open.first);
        }
        first.extend(own);
        first.sort_by_key(instance);
        first.dedup();
        first.truncate(LISTED);
        let listed = first.len();
        waits.extend(first.iter().map(|i| {
            let instance = instance(i).clone();
            Wait::Instance { offline: !rollout.online(&instance.node), instance }
        }));
        if count > listed {
            waits.push(Wait::Others { count: count - listed });
        }
    }
}

/// What gates stand for that is not done.
fn open(rollout: &Rollout, gates: &[u32]) -> Open {
    let sources = |gate: &u32| match &rollout.gates[*gate as usize].opens {
        Opens::Done { waits_for, .. } => &**waits_for,
        Opens::Turn { .. } | Opens::Unknown => &[],
    };
    let all = gates.iter().flat_map(sources).copied().filter(|i| !rollout.entries[*i as usize].succeeded());
    let mut all: Vec<u32> = all.collect();
    all.sort_unstable();
    all.dedup();
    let count = all.len();
    // Only as many are sorted by name as are listed.
    let instance = |i: &u32| &rollout.entries[*i as usize].instance;
    if count > LISTED {
        all.select_nth_unstable_by(LISTED, |a, b| instance(a).cmp(instance(b)));
        all.truncate(LISTED);
    }
    all.sort_by_key(instance);
    Open { count, first: all }
}
