//! Which planner plans: one at a time, by the presence that each publishes on one retained topic.
//!
//! In: presences, the state of the connection, the time. Out: [`LeaderAction`]s. A planner first discovers others, claims a term greater
//! than any it has seen, waits until its claim has come back and no other has claimed more, and then plans. Of two that claim, the
//! greater (term, id) goes on. What this leaves open, as two halves of a split broker do, the generation fence at the agents decides.

use std::time::Duration;

use groundplan_protocol::{ids::Generation, presence::PlannerPresence};

/// Retained messages have all come when this long none came.
const QUIET: Duration = Duration::from_millis(80);

/// The longest that discovery may take.
const DISCOVERY: Duration = Duration::from_secs(2);

/// How long a claim stands for others to object, where others have been seen; and where not.
const SETTLE: [Duration; 2] = [Duration::from_millis(250), Duration::ZERO];

/// How often one that stands by probes the other: the broker may have lost its last will.
const PROBE: Duration = Duration::from_secs(5);

/// How many probes may stay without an answer.
const UNANSWERED: u32 = 3;

/// Whether a planner plans.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Role {
    /// It has no site or no broker yet, or discovers whether another one plans.
    Starting,
    /// It plans.
    Planning,
    /// Another one plans.
    Standby {
        /// That one's id.
        planner: String,
    },
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum LeaderAction {
    /// Put this term on the disk, then publish it.
    Claim {
        /// The term.
        term: u64,
        /// Whether another planner has planned since this one did.
        after_another: bool,
    },
    /// Publish presence again.
    Republish,
    /// Publish a presence that is not retained, which the other planner answers if it is there.
    Probe,
    /// Plan.
    Begin,
    /// Publish nothing more.
    StandBy {
        /// The one that plans.
        of: String,
    },
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Stage {
    Away,
    Discovering { until: Duration, latest: Duration, rival: Option<(u64, String)> },
    Claiming { until: Duration, echoed: bool },
    Planning,
    Standby { of: String, probe: Duration, unanswered: u32 },
}

/// One planner's knowledge of which planner plans.
#[derive(Debug)]
pub(crate) struct Leadership {
    me: String,
    term: u64,
    /// Whether this process has claimed `term`.
    claimed: bool,
    seen_term: u64,
    seen_generation: Generation,
    others: bool,
    stage: Stage,
}

impl Leadership {
    /// `term` is the last one that it has claimed.
    pub(crate) fn new(me: String, term: u64) -> Self {
        let seen_generation = Generation(0);
        Self { me, term, claimed: false, seen_term: term, seen_generation, others: false, stage: Stage::Away }
    }

    pub(crate) fn plans(&self) -> bool {
        self.stage == Stage::Planning
    }

    /// The one that plans instead.
    pub(crate) fn standby_of(&self) -> Option<&str> {
        match &self.stage {
            Stage::Standby { of, .. } => Some(of),
            _ => None,
        }
    }

    pub(crate) fn term(&self) -> u64 {
        if self.standby_of().is_some() { self.seen_term } else { self.term }
    }

    /// The greatest generation in any planner's presence.
    pub(crate) fn seen_generation(&self) -> Generation {
        self.seen_generation
    }

    /// Connected and subscribed.
    pub(crate) fn ready(&mut self, now: Duration) {
        self.stage = Stage::Discovering { until: now + QUIET, latest: now + DISCOVERY, rival: None };
    }

    /// The connection is gone.
    pub(crate) fn lost(&mut self) {
        self.stage = Stage::Away;
    }

    /// A message came, whatever it was: retained ones are still arriving.
    pub(crate) fn message_received(&mut self, now: Duration) {
        if let Stage::Discovering { until, latest, .. } = &mut self.stage {
            *until = (now + QUIET).min(*latest);
        }
    }

    /// A planner's presence came.
    pub(crate) fn presence(&mut self, p: &PlannerPresence, now: Duration) -> Vec<LeaderAction> {
        if p.generation.is_valid() {
            self.seen_generation = self.seen_generation.max(p.generation);
        }
        if p.planner == self.me {
            match &mut self.stage {
                Stage::Claiming { echoed, .. } if p.online && p.term == self.term => *echoed = true,
                // The last will of a connection that we have replaced.
                Stage::Planning | Stage::Claiming { .. } if !p.online => return vec![LeaderAction::Republish],
                _ => {}
            }
            self.seen_term = self.seen_term.max(p.term);
            return self.tick(now);
        }
        self.seen_term = self.seen_term.max(p.term);
        self.others = true;
        let greater = (p.term, &p.planner) > (self.term, &self.me);
        match &mut self.stage {
            Stage::Away => vec![],
            Stage::Discovering { rival, .. } => {
                if p.online {
                    *rival = Some((p.term, p.planner.clone()));
                } else if rival.as_ref().is_some_and(|(_, id)| *id == p.planner) {
                    *rival = None;
                }
                vec![]
            }
            Stage::Claiming { .. } | Stage::Planning if p.online && greater => self.stand_by(p.planner.clone(), now),
            Stage::Claiming { .. } | Stage::Planning => vec![LeaderAction::Republish],
            Stage::Standby { of, probe, unanswered } => {
                if p.online {
                    (*of, *probe, *unanswered) = (p.planner.clone(), now + PROBE, 0);
                    vec![]
                } else if *of == p.planner {
                    self.claim(now)
                } else {
                    vec![]
                }
            }
        }
    }

    /// A node has a plan of this term, which a planner of this site has signed. One that plans in an earlier term has lost its own with its
    /// disk, and goes on in a later one.
    pub(crate) fn outrun(&mut self, term: u64) -> Option<LeaderAction> {
        if !self.plans() || term <= self.term {
            return None;
        }
        self.term = term.max(self.seen_term).checked_add(1)?;
        self.seen_term = self.term;
        Some(LeaderAction::Claim { term: self.term, after_another: false })
    }

    /// Time has passed.
    pub(crate) fn tick(&mut self, now: Duration) -> Vec<LeaderAction> {
        match &mut self.stage {
            Stage::Discovering { until, rival, .. } if now >= *until => match rival.take() {
                Some((term, of)) if !self.claimed || (term, &of) > (self.term, &self.me) => self.stand_by(of, now),
                _ if self.claimed && self.seen_term <= self.term => {
                    // It planned before the connection broke, and no other planner has claimed more since.
                    self.stage = Stage::Claiming { until: now, echoed: false };
                    vec![LeaderAction::Republish]
                }
                _ => self.claim(now),
            },
            Stage::Claiming { until, echoed: true } if now >= *until => {
                self.stage = Stage::Planning;
                vec![LeaderAction::Begin]
            }
            Stage::Standby { probe, unanswered, .. } if now >= *probe => {
                *unanswered += 1;
                if *unanswered > UNANSWERED {
                    return self.claim(now);
                }
                *probe = now + PROBE;
                vec![LeaderAction::Probe]
            }
            _ => vec![],
        }
    }

    /// When to call [`Leadership::tick`] at the latest.
    pub(crate) fn deadline(&self) -> Option<Duration> {
        match &self.stage {
            Stage::Discovering { until, .. } | Stage::Claiming { until, echoed: true } => Some(*until),
            Stage::Standby { probe, .. } => Some(*probe),
            _ => None,
        }
    }

    fn claim(&mut self, now: Duration) -> Vec<LeaderAction> {
        let after_another = self.seen_term > self.term;
        self.term = self.seen_term.max(self.term) + 1;
        (self.seen_term, self.claimed) = (self.term, true);
        let settle = SETTLE[usize::from(!self.others)];
        self.stage = Stage::Claiming { until: now + settle, echoed: false };
        vec![LeaderAction::Claim { term: self.term, after_another }]
    }

    fn stand_by(&mut self, of: String, now: Duration) -> Vec<LeaderAction> {
        self.claimed = false;
        self.stage = Stage::Standby { of: of.clone(), probe: now + PROBE, unanswered: 0 };
        vec![LeaderAction::StandBy { of }]
    }
}

#[cfg(test)]
mod tests {
    use groundplan_protocol::{VERSION, ids::SiteName};

    use super::*;

    fn presence(planner: &str, online: bool, term: u64) -> PlannerPresence {
        let site = SiteName::new("s").unwrap();
        PlannerPresence {
            version: VERSION,
            site,
            planner: planner.into(),
            online,
            term,
            generation: Generation(term),
            forget: vec![],
            parked: vec![],
        }
    }

    fn alone(id: &str, now: Duration) -> Leadership {
        let mut leader = Leadership::new(id.into(), 0);
        leader.ready(now);
        assert_eq!(leader.tick(now + QUIET), [LeaderAction::Claim { term: 1, after_another: false }]);
        assert_eq!(leader.presence(&presence(id, true, 1), now + QUIET), [LeaderAction::Begin]);
        leader
    }

    #[test]
    fn started_again_it_comes_after_itself() {
        let mut leader = Leadership::new("a".into(), 3);
        leader.ready(Duration::ZERO);
        assert_eq!(leader.presence(&presence("a", false, 3), Duration::ZERO), []);
        assert_eq!(leader.tick(DISCOVERY), [LeaderAction::Claim { term: 4, after_another: false }]);
    }

    #[test]
    fn the_second_stands_by_and_takes_over() {
        let now = Duration::from_secs(1);
        let mut first = alone("a", now);
        let mut second = Leadership::new("b".into(), 0);
        second.ready(now);
        second.presence(&presence("a", true, 1), now);
        assert_eq!(second.tick(now + QUIET), [LeaderAction::StandBy { of: "a".into() }]);
        assert_eq!(first.presence(&presence("b", false, 0), now), [LeaderAction::Republish]);
        assert_eq!(
            second.presence(&presence("a", false, 1), now),
            [LeaderAction::Claim { term: 2, after_another: true }]
        );
        assert_eq!(second.presence(&presence("b", true, 2), now), []);
        assert_eq!(second.tick(now + SETTLE[0]), [LeaderAction::Begin]);
        assert_eq!(first.presence(&presence("b", true, 2), now), [LeaderAction::StandBy { of: "b".into() }]);
        assert!(second.plans() && !first.plans());
    }

    #[test]
    fn of_two_that_claim_one_goes_on() {
        let now = Duration::from_secs(1);
        let (mut a, mut b) = (Leadership::new("a".into(), 0), Leadership::new("b".into(), 0));
        for leader in [&mut a, &mut b] {
            leader.ready(now);
            leader.presence(&presence("z", true, 4), now);
            leader.tick(now + QUIET);
            assert_eq!(
                leader.presence(&presence("z", false, 4), now),
                [LeaderAction::Claim { term: 5, after_another: true }]
            );
        }
        for claim in ["a", "b", "a"] {
            a.presence(&presence(claim, true, 5), now);
            b.presence(&presence(claim, true, 5), now);
        }
        let later = now + SETTLE[0];
        assert_eq!((a.tick(later), b.tick(later)), (vec![], vec![LeaderAction::Begin]));
        assert_eq!(a.standby_of(), Some("b"));
    }

    #[test]
    fn a_planner_that_was_cut_off_discovers_others_before_it_goes_on() {
        let now = Duration::from_secs(1);
        let mut a = alone("a", now);
        a.lost();
        a.ready(now);
        assert_eq!(a.tick(now + QUIET), [LeaderAction::Republish]);
        assert_eq!(a.presence(&presence("a", true, 1), now + QUIET), [LeaderAction::Begin]);
        a.lost();
        a.ready(now);
        a.presence(&presence("b", true, 2), now);
        assert_eq!(a.tick(now + QUIET), [LeaderAction::StandBy { of: "b".into() }]);
    }

    #[test]
    fn a_silent_one_is_replaced() {
        let now = Duration::from_secs(1);
        let mut b = Leadership::new("b".into(), 0);
        b.ready(now);
        b.presence(&presence("a", true, 1), now);
        b.tick(now + QUIET);
        let at = |n: u32| now + QUIET + PROBE * n;
        assert_eq!((1..=3).map(|n| b.tick(at(n))).collect::<Vec<_>>(), vec![vec![LeaderAction::Probe]; 3]);
        assert_eq!(b.tick(at(4)), [LeaderAction::Claim { term: 2, after_another: true }]);
    }
}
