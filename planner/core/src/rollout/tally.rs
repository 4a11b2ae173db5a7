//! How far a rollout is, in numbers that are kept as reports come: a report costs the same however large the rollout is.
//!
//! In: what changes of an entry, a node or the turns. Out: how many instances have ended and how, whether the rollout has run, and of which
//! nodes turns are to be looked at again. All of it follows from the rest of the rollout: it is no part of a snapshot, and is worked out
//! when it is missing. Where keeping a number exactly would mean to go through what waits for an entry, a lower bound is kept, and the
//! number is worked out again when that is used up.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use groundplan_protocol::{
    ids::{NodeId, ServiceId},
    report::Outcome,
};

use super::{
    kept::{Kept, Progress, Reported, Tally},
    model::{Entry, On, Opens, Rollout, Verdict},
    outlook::Outlook,
};

/// Rollouts up to this many entries are checked against the slow way in debug builds.
const CHECKED: usize = 200;

impl Entry {
    pub(super) fn reported(&self) -> Reported {
        match &self.outcome {
            Some(Outcome::Done { changed: true, .. }) => Reported::Changed,
            Some(Outcome::Done { .. } | Outcome::Skipped) => Reported::Unchanged,
            Some(Outcome::Superseded) => Reported::Superseded,
            Some(_) if self.failed() => Reported::Failed,
            Some(Outcome::Blocked { .. }) => Reported::Blocked,
            _ if self.running => Reported::Running,
            _ => Reported::Nothing,
        }
    }
}

impl Kept {
    fn new(rollout: &Rollout) -> Self {
        let (mut progress, mut running) = (Progress::default(), BTreeMap::<NodeId, Vec<u32>>::new());
        let mut barriers = BTreeMap::<u32, Vec<u32>>::new();
        for (i, entry) in rollout.entries.iter().enumerate() {
            *progress.count(entry.reported()) += 1;
            if entry.running {
                running.entry(entry.instance.node.clone()).or_default().push(i as u32);
            }
            for (_, on) in &entry.triggers {
                if let On::Barrier(source) = on {
                    barriers.entry(*source).or_default().push(i as u32);
                }
            }
        }
        let late = barriers.keys().copied().filter(|i| rollout.entries[*i as usize].late).collect();
        let all = rollout.limits.iter().map(|(service, limit)| (service.clone(), &limit.pending | &limit.holders));
        Self {
            progress,
            open: None,
            has_run: None,
            shut: Vec::new(),
            barriers: Arc::new(barriers),
            late,
            running,
            changed: all.collect(),
            passed: BTreeMap::new(),
        }
    }
}

impl Rollout {
    /// How many instances have ended, and how.
    pub fn progress(&mut self) -> Progress {
        self.kept().progress
    }

    /// Whether all of it has ended, well or not: whether [`Self::verdict`] is [`Verdict::Succeeded`] or [`Verdict::Failed`].
    pub fn has_run(&mut self) -> bool {
        let kept = self.kept();
        let has_run = match (kept.has_run, kept.open) {
            (Some(has_run), _) => has_run,
            (None, Some(1..)) => false,
            (None, _) => self.find_open(),
        };
        if cfg!(debug_assertions) && self.entries.len() <= CHECKED {
            self.check(has_run);
        }
        has_run
    }

    /// Whether what is kept is what would be worked out now.
    fn check(&self, has_run: bool) {
        let verdict = self.verdict();
        assert_eq!(has_run, matches!(verdict, Verdict::Succeeded | Verdict::Failed), "{verdict:?}");
        if let Some(kept) = &self.tally.0 {
            let found = Kept::new(self);
            assert_eq!((kept.progress, &kept.late), (found.progress, &found.late));
        }
    }

    /// Works out what can go on. Returns whether all of it has ended.
    fn find_open(&mut self) -> bool {
        let outlooks = self.outlooks();
        let can_go_on = |outlook: &Outlook| matches!(outlook, Outlook::Live | Outlook::Away);
        // Entries of parked nodes count as open while they can go on at once. That may end with the presence of any node, so they are left
        // out of the bound.
        let is_parked = |entry: &Entry| self.parked.contains(&entry.instance.node);
        let both = || self.entries.iter().zip(&outlooks);
        let open = both().filter(|(entry, outlook)| can_go_on(outlook) && !is_parked(entry)).count();
        let any_open = open > 0 || both().any(|(_, outlook)| *outlook == Outlook::Live);
        let waits = |i: &u32| matches!(outlooks[*i as usize], Outlook::Done | Outlook::Live | Outlook::Away);
        let shut = self.gates.iter().map(|gate| match &gate.opens {
            Opens::Done { waits_for, .. } => !waits_for.iter().all(waits),
            Opens::Turn { .. } | Opens::Unknown => false,
        });
        let shut = shut.collect();
        let has_run = !any_open && {
            let waits = |outlook: &Outlook| matches!(outlook, Outlook::Unknown);
            let over = |outlook: &Outlook| !matches!(outlook, Outlook::Done | Outlook::Unknown | Outlook::Away);
            outlooks.iter().any(over) || !outlooks.iter().any(waits) && self.pending.is_empty()
        };
        let kept = self.kept();
        (kept.open, kept.shut) = (Some(open), shut);
        kept.has_run = (open == 0).then_some(has_run);
        has_run
    }

    pub(super) fn kept(&mut self) -> &mut Kept {
        if self.tally.0.is_none() {
            self.tally.0 = Some(Kept::new(self));
        }
        self.tally.0.get_or_insert_with(|| unreachable!("made above"))
    }

    /// Notes that something was reported of an entry, of which `before` had been.
    pub(super) fn note(&mut self, i: u32, before: Reported) {
        let entry = &self.entries[i as usize];
        let after = entry.reported();
        if before == after {
            return;
        }
        let node = entry.instance.node.clone();
        let Some(kept) = &mut self.tally.0 else { return };
        *kept.progress.count(before) -= 1;
        *kept.progress.count(after) += 1;
        kept.has_run = None;
        match after {
            Reported::Changed | Reported::Unchanged => kept.open = kept.open.map(|open| open.saturating_sub(1)),
            Reported::Failed | Reported::Blocked | Reported::Superseded => self.worsen(&node),
            // It can go on, as it could before, or does so again.
            Reported::Nothing | Reported::Running => {}
        }
        self.note_node(&node);
    }

    /// Notes that something on a node has failed or was given up.
    fn worsen(&mut self, node: &NodeId) {
        let Some(at) = self.nodes.get(node) else { return };
        let Some(kept) = &mut self.tally.0 else { return };
        // At worst nothing more is done there; nor elsewhere, where a gate waits for the node, or its turn does not end.
        let feeds = at.order.iter().flat_map(|i| &self.entries[*i as usize].feeds);
        let waits = |gate: &u32| {
            self.gates[*gate as usize].open.is_none() && !kept.shut.get(*gate as usize).is_some_and(|shut| *shut)
        };
        let elsewhere =
            feeds.copied().any(|gate| waits(&gate)) || self.limits.values().any(|limit| limit.holders.contains(node));
        kept.open = kept.open.filter(|_| !elsewhere).map(|open| open.saturating_sub(at.order.len()));
    }

    /// Notes that a change of an entry was reported for an older plan.
    pub(super) fn note_late(&mut self, i: u32) {
        if let Some(kept) = self.tally.0.as_mut().filter(|kept| kept.barriers.contains_key(&i)) {
            kept.late.insert(i);
        }
    }

    /// Notes that turns of earlier rollouts on a node have ended, or that one of them has failed.
    pub(super) fn note_held(&mut self, node: &NodeId, has_failed: bool) {
        let Some(kept) = &mut self.tally.0 else { return };
        kept.has_run = None;
        kept.open = kept.open.filter(|_| !has_failed);
        self.note_node(node);
    }

    /// Notes that turns were given or given back.
    pub(super) fn note_turns(&mut self) {
        // Who gets a turn can go on. So what waits for one could do so before as well, unless all that hold one have it from earlier.
        let is_full = |service: &ServiceId| self.limits[service].holders.len() >= self.limits[service].at_once as usize;
        let goes_on = |node: &NodeId, service: &ServiceId| {
            let mut order = self.nodes.get(node).into_iter().flat_map(|at| at.order.iter());
            !self.held.iter().any(|held| held.node == *node && held.service == *service)
                && !order.any(|i| {
                    let reported = self.entries[*i as usize].reported();
                    matches!(reported, Reported::Failed | Reported::Blocked | Reported::Superseded)
                })
        };
        let stuck = |service: &ServiceId| !self.limits[service].holders.iter().any(|node| goes_on(node, service));
        let worse = self
            .held
            .iter()
            .any(|held| self.limits.contains_key(&held.service) && is_full(&held.service) && stuck(&held.service));
        let Some(kept) = &mut self.tally.0 else { return };
        kept.has_run = None;
        kept.open = kept.open.filter(|_| !worse);
    }

    /// Notes that a node has changed: whether it is due for a turn is to be looked at again.
    pub(super) fn note_node(&mut self, node: &NodeId) {
        let Self { limits, tally: Tally(Some(kept)), .. } = self else { return };
        for (service, limit) in limits {
            if limit.pending.contains(node) || limit.holders.contains(node) {
                kept.changed.entry(service.clone()).or_default().insert(node.clone());
            }
        }
    }

    /// Notes whether a node is connected, which has changed.
    pub(super) fn note_presence(&mut self, node: &NodeId) {
        // A parked node is waited for only while it can go on at once.
        if let Some(kept) = self.tally.0.as_mut().filter(|_| !self.parked.is_empty()) {
            kept.has_run = None;
        }
        self.note_node(node);
    }

    /// Takes which entries of a node run, in place of those that did. Returns those of which that has changed.
    pub(super) fn replace_running(&mut self, node: &NodeId, now: Vec<u32>) -> Vec<u32> {
        let kept = self.kept();
        let before = match now.is_empty() {
            true => kept.running.remove(node),
            false => kept.running.insert(node.clone(), now.clone()),
        };
        let before = before.unwrap_or_default();
        // What has ended meanwhile no longer runs.
        let all = before.iter().filter(|i| !now.contains(i)).chain(&now);
        all.copied().filter(|i| self.entries[*i as usize].running != now.contains(i)).collect()
    }

    /// Entries that an entry whose change was reported for an older plan may fire.
    pub(super) fn late_targets(&self) -> Option<impl Iterator<Item = &Entry>> {
        let kept = self.tally.0.as_ref()?;
        let targets = kept.late.iter().filter_map(|i| kept.barriers.get(i)).flatten();
        Some(targets.map(|i| &self.entries[*i as usize]))
    }

    /// Whether giving turns from what is noted has led to where it would lead from all.
    pub(super) fn check_turns(&self, from: Option<Self>, grown: &BTreeSet<NodeId>) {
        if let Some(mut slow) = from {
            slow.tally = Tally::default();
            let mut all = BTreeSet::new();
            slow.give_noted_turns(&mut all);
            assert!(slow == *self && all == *grown, "{:?} {grown:?}: {:?} {all:?}", self.limits, slow.limits);
        }
    }

    /// What [`Self::check_turns`] begins with; none where nothing is checked.
    pub(super) fn to_check(&self) -> Option<Self> {
        (cfg!(debug_assertions) && self.entries.len() <= CHECKED && !self.limits.is_empty()).then(|| self.clone())
    }
}
