//! Damping: a node that contradicts itself is acted on more and more rarely.
//!
//! In: that a node no longer has what it had as the active commit asks for, without a plan that explains it; or publishes another value again and
//! again; the time. Out: until when the planner goes on with what the node reported before. The first few times are free, because a host may
//! be rebuilt, or changed by hand. Each further one in a row doubles the wait. A new commit ends all waits: what operators change is never
//! delayed.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use groundplan_core::applied::NodeApplied;
use groundplan_protocol::{
    ids::{Generation, TaskId},
    state::Applied,
    time::Now,
};

/// How often in a row a node may contradict itself before it is damped; and how often each of its values may change under one commit.
const FREE: u32 = 3;

/// The first wait, and the longest.
const WAIT: [Duration; 2] = [Duration::from_secs(10), Duration::from_secs(600)];

/// A node that has not contradicted itself for so long begins again.
const QUIET: Duration = Duration::from_secs(1200);

/// What is remembered of a node that contradicts itself. Times are wall-clock times, so that it survives a restart of the planner.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Damping {
    /// How often in a row it has contradicted itself.
    pub times: u32,
    /// When it did so last, in milliseconds since the Unix epoch.
    pub last_ms: u64,
    /// Until when what it reports otherwise is not acted on, in milliseconds since the Unix epoch; none if it is.
    pub until_ms: Option<u64>,
    /// What the planner goes on with meanwhile.
    pub agreed: BTreeMap<TaskId, Applied>,
    /// Effects that it reports as due since, and that are not acted on.
    pub obligations: BTreeSet<TaskId>,
    /// The values that count meanwhile; none where there was none.
    pub exports: BTreeMap<TaskId, Option<String>>,
    /// How often each value has changed under this commit.
    pub changes: BTreeMap<TaskId, u32>,
    /// The rollout for which it was counted last.
    pub counted: Option<Generation>,
}

fn ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

impl Damping {
    /// Whether nothing of it matters any more.
    pub(crate) fn is_over(&self, now: Now) -> bool {
        self.until_ms.is_none() && now.wall_ms.saturating_sub(self.last_ms) >= ms(QUIET)
    }

    /// Whether what it reports otherwise is not acted on.
    pub(crate) fn is_waiting(&self) -> bool {
        self.until_ms.is_some()
    }

    /// The tasks that are concerned.
    pub fn tasks(&self) -> BTreeSet<TaskId> {
        self.agreed.keys().chain(&self.obligations).chain(self.exports.keys()).cloned().collect()
    }

    /// Once for each rollout: what follows from one contradiction may come in many messages, and only a new plan acts on others.
    fn count(&mut self, rollout: Generation, now: Now) {
        if self.is_waiting() || self.counted == Some(rollout) {
            return;
        }
        self.counted = Some(rollout);
        if self.is_over(now) {
            self.times = 0;
        }
        self.times = self.times.saturating_add(1);
        self.last_ms = now.wall_ms;
        if let Some(over) = self.times.checked_sub(FREE + 1) {
            let wait = WAIT[0].saturating_mul(1 << over.min(16)).min(WAIT[1]);
            self.until_ms = Some(now.wall_ms.saturating_add(ms(wait)));
        }
    }

    /// It no longer has these tasks as it had them, or reports these effects as due, and no plan explains it.
    pub(crate) fn contradicts(
        &mut self,
        tasks: Vec<(TaskId, Applied)>,
        obligations: Vec<TaskId>,
        rollout: Generation,
        now: Now,
    ) {
        self.count(rollout, now);
        if self.is_waiting() {
            for (task, agreed) in tasks {
                self.agreed.entry(task).or_insert(agreed);
            }
            self.obligations.extend(obligations);
        }
    }

    /// It publishes another value than `before`. Returns whether that is acted on.
    pub(crate) fn publishes(&mut self, task: &TaskId, before: Option<String>, rollout: Generation, now: Now) -> bool {
        let changes = self.changes.entry(task.clone()).or_default();
        *changes = changes.saturating_add(1);
        if *changes > FREE {
            self.count(rollout, now);
        }
        if self.is_waiting() {
            self.exports.entry(task.clone()).or_insert(before);
        }
        !self.is_waiting()
    }

    /// Another commit is active. What a node reported late of the one before may have counted once.
    pub(crate) fn commit(&mut self) {
        *self = Self { times: self.times.saturating_sub(1), last_ms: self.last_ms, ..Self::default() };
    }

    /// Ends the wait if it is over. Returns the tasks whose values count now.
    pub(crate) fn release(&mut self, now: Now) -> Option<Vec<TaskId>> {
        self.deadline(now).filter(|at| *at <= now.mono)?;
        self.until_ms = None;
        self.agreed.clear();
        self.obligations.clear();
        Some(std::mem::take(&mut self.exports).into_keys().collect())
    }

    /// When to call [`Self::release`], by the monotonic clock.
    pub(crate) fn deadline(&self, now: Now) -> Option<Duration> {
        // A clock that was set back does not make it longer than it may be.
        let left = self.until_ms?.saturating_sub(now.wall_ms);
        Some(now.mono + if left > ms(WAIT[1]) { Duration::ZERO } else { Duration::from_millis(left) })
    }

    /// The value that counts for a task, if it is not the one that was reported last.
    pub(crate) fn export(&self, task: &TaskId) -> Option<&Option<String>> {
        self.exports.get(task)
    }

    /// The values that count in place of those that were reported last.
    pub(crate) fn exports(&self) -> impl Iterator<Item = (&TaskId, &String)> {
        self.exports.iter().filter_map(|(task, value)| Some((task, value.as_ref()?)))
    }

    /// What the planner goes on with, given what the node has reported last.
    pub(crate) fn mask(&self, applied: &mut NodeApplied) {
        if self.agreed.is_empty() && self.obligations.is_empty() {
            return;
        }
        applied.obligations.retain(|task, _| !self.obligations.contains(task));
        let tasks = Arc::make_mut(&mut applied.tasks);
        for (task, agreed) in &self.agreed {
            tasks.insert(task.clone(), agreed.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use groundplan_protocol::{
        digest::{Digest, Fingerprint},
        plan::Edges,
    };

    use super::*;

    fn at(secs: u64) -> Now {
        Now { mono: Duration::from_secs(secs), wall_ms: 1_700_000_000_000 + secs * 1000 }
    }

    fn task() -> TaskId {
        "a.config".parse().unwrap()
    }

    fn applied(of: &str) -> Applied {
        Applied {
            fingerprint: Fingerprint(Digest::of(of.as_bytes())),
            inputs: BTreeMap::new(),
            edges: Edges::default(),
            claims: Vec::new(),
            contends: Vec::new(),
            on_remove: None,
            destroys: None,
        }
    }

    fn contradict(damping: &mut Damping, secs: u64) {
        damping.contradicts(vec![(task(), applied("agreed"))], Vec::new(), Generation(secs), at(secs));
    }

    #[test]
    fn a_node_that_goes_on_is_acted_on_more_and_more_rarely() {
        let (mut damping, mut acted) = (Damping::default(), Vec::new());
        for secs in 0..3600 {
            if damping.release(at(secs)).is_some() || !damping.is_waiting() {
                acted.push(secs);
                contradict(&mut damping, secs);
            }
        }
        assert_eq!(acted, [0, 1, 2, 3, 13, 33, 73, 153, 313, 633, 1233, 1833, 2433, 3033]);
        // After a long quiet time it begins again.
        damping.release(at(4000));
        contradict(&mut damping, 3033 + 600 + 1200);
        assert_eq!(damping.times, 1);
    }

    #[test]
    fn meanwhile_the_planner_goes_on_with_what_was_agreed() {
        let mut damping = Damping::default();
        let reported =
            || NodeApplied { tasks: Arc::new(BTreeMap::from([(task(), applied("other"))])), ..NodeApplied::default() };
        let planned = |damping: &Damping| {
            let mut planned = reported();
            damping.mask(&mut planned);
            planned.tasks[&task()].fingerprint == applied("agreed").fingerprint
        };
        for secs in 0..4 {
            assert!(!planned(&damping));
            contradict(&mut damping, secs);
        }
        assert!(planned(&damping) && damping.tasks().contains(&task()));
        let mut late = damping.clone();
        assert_eq!((damping.release(at(12)), late.release(at(13))), (None, Some(Vec::new())));
        assert!(planned(&damping) && !planned(&late));
        // A commit delays nothing, and one contradiction was its own.
        damping.commit();
        assert!(!planned(&damping) && !damping.is_waiting() && damping.times == 3);
        assert_eq!(damping.deadline(at(5)), None);
    }

    #[test]
    fn what_follows_from_one_contradiction_counts_once() {
        let mut damping = Damping::default();
        for secs in 0..100 {
            damping.contradicts(vec![(task(), applied("agreed"))], Vec::new(), Generation(7), at(secs));
        }
        assert!(damping.times == 1 && !damping.is_waiting());
    }

    #[test]
    fn values_that_change_again_and_again_wait() {
        let mut damping = Damping::default();
        for n in 0..3 {
            assert!(damping.publishes(&task(), None, Generation(n), at(n)), "as many as a rollout may bring");
        }
        let acted: Vec<bool> =
            (3..8).map(|n| damping.publishes(&task(), Some(n.to_string()), Generation(n), at(n))).collect();
        assert_eq!(acted, [true, true, true, false, false]);
        assert_eq!(damping.export(&task()), Some(&Some("6".to_owned())));
        assert_eq!(damping.release(at(16)), Some(vec![task()]));
        assert_eq!(damping.export(&task()), None);
    }

    #[test]
    fn a_clock_that_is_set_back_ends_the_wait() {
        let mut damping = Damping { times: 9, ..Damping::default() };
        damping.last_ms = at(100_000).wall_ms;
        contradict(&mut damping, 100_000);
        assert!(damping.is_waiting());
        assert!(damping.release(at(0)).is_some());
    }
}
