//! Who plans: one planner at a time, by what they say of themselves on one retained topic.
//!
//! In: presences, the connection's comings and goings, the time. Out: [`Order`]s. A planner looks first, claims a term greater than
//! any it has seen, waits until its claim has come back and nobody has claimed more, and then plans. Of two that claim, the greater
//! (term, id) goes on. Whatever this leaves open, as two halves of a torn broker do, the generation fence at the agents decides.
//! No clock: times come in.

use std::time::{Duration, Instant};

use groundplan_protocol::{ids::Generation, presence::PlannerPresence};

/// Retained messages have all come when this long none came.
const QUIET: Duration = Duration::from_millis(80);

/// But no longer than this is waited for them.
const LOOK: Duration = Duration::from_secs(2);

/// How long a claim stands for others to object, where others have been seen; and where not.
const SETTLE: [Duration; 2] = [Duration::from_millis(250), Duration::ZERO];

/// How often one that stands by asks the other whether it is there: the broker may have lost its last will.
const PROBE: Duration = Duration::from_secs(5);

/// How many questions may stay without an answer.
const UNANSWERED: u32 = 3;

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Order {
    /// Put this term on the disk, then publish it.
    Claim {
        /// The term.
        term: u64,
    },
    /// Publish presence again.
    Republish,
    /// Ask, by a presence that is not retained, whether the other one is there.
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
    Looking { until: Instant, latest: Instant, rival: Option<(u64, String)> },
    Claiming { until: Instant, echoed: bool },
    Planning,
    Standby { of: String, probe: Instant, unanswered: u32 },
}

/// One planner's view of who plans.
pub(super) struct Leader {
    me: String,
    term: u64,
    /// Whether this process has claimed `term`.
    claimed: bool,
    seen_term: u64,
    seen_generation: Generation,
    others: bool,
    stage: Stage,
}

impl Leader {
    /// `term` is the last one that it has claimed.
    pub(super) fn new(me: String, term: u64) -> Self {
        let seen_generation = Generation(0);
        Self { me, term, claimed: false, seen_term: term, seen_generation, others: false, stage: Stage::Away }
    }

    pub(super) fn plans(&self) -> bool {
        self.stage == Stage::Planning
    }

    /// The one that plans instead.
    pub(super) fn standby_of(&self) -> Option<&str> {
        match &self.stage {
            Stage::Standby { of, .. } => Some(of),
            _ => None,
        }
    }

    pub(super) fn term(&self) -> u64 {
        if self.standby_of().is_some() { self.seen_term } else { self.term }
    }

    /// The greatest generation that any planner has told.
    pub(super) fn seen_generation(&self) -> Generation {
        self.seen_generation
    }

    /// Connected and subscribed.
    pub(super) fn ready(&mut self, now: Instant) {
        self.stage = Stage::Looking { until: now + QUIET, latest: now + LOOK, rival: None };
    }

    /// The connection is gone.
    pub(super) fn lost(&mut self) {
        self.stage = Stage::Away;
    }

    /// A message came, whatever it was.
    pub(super) fn stir(&mut self, now: Instant) {
        if let Stage::Looking { until, latest, .. } = &mut self.stage {
            *until = (now + QUIET).min(*latest);
        }
    }

    /// A planner's presence came.
    pub(super) fn presence(&mut self, p: &PlannerPresence, now: Instant) -> Vec<Order> {
        self.seen_generation = self.seen_generation.max(p.generation);
        if p.planner == self.me {
            match &mut self.stage {
                Stage::Claiming { echoed, .. } if p.online && p.term == self.term => *echoed = true,
                // The last will of a connection that we have replaced.
                Stage::Planning | Stage::Claiming { .. } if !p.online => return vec![Order::Republish],
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
            Stage::Looking { rival, .. } => {
                if p.online {
                    *rival = Some((p.term, p.planner.clone()));
                } else if rival.as_ref().is_some_and(|(_, id)| *id == p.planner) {
                    *rival = None;
                }
                vec![]
            }
            Stage::Claiming { .. } | Stage::Planning if p.online && greater => self.stand_by(p.planner.clone(), now),
            Stage::Claiming { .. } | Stage::Planning => vec![Order::Republish],
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

    /// Time has passed.
    pub(super) fn tick(&mut self, now: Instant) -> Vec<Order> {
        match &mut self.stage {
            Stage::Looking { until, rival, .. } if now >= *until => match rival.take() {
                Some((term, of)) if !self.claimed || (term, &of) > (self.term, &self.me) => self.stand_by(of, now),
                _ if self.claimed && self.seen_term <= self.term => {
                    // Planned before the connection broke, and nobody has claimed more since.
                    self.stage = Stage::Claiming { until: now, echoed: false };
                    vec![Order::Republish]
                }
                _ => self.claim(now),
            },
            Stage::Claiming { until, echoed: true } if now >= *until => {
                self.stage = Stage::Planning;
                vec![Order::Begin]
            }
            Stage::Standby { probe, unanswered, .. } if now >= *probe => {
                *unanswered += 1;
                if *unanswered > UNANSWERED {
                    return self.claim(now);
                }
                *probe = now + PROBE;
                vec![Order::Probe]
            }
            _ => vec![],
        }
    }

    /// When to call [`Leader::tick`] at the latest.
    pub(super) fn deadline(&self) -> Option<Instant> {
        match &self.stage {
            Stage::Looking { until, .. } | Stage::Claiming { until, echoed: true } => Some(*until),
            Stage::Standby { probe, .. } => Some(*probe),
            _ => None,
        }
    }

    fn claim(&mut self, now: Instant) -> Vec<Order> {
        self.term = self.seen_term.max(self.term) + 1;
        (self.seen_term, self.claimed) = (self.term, true);
        let settle = SETTLE[usize::from(!self.others)];
        self.stage = Stage::Claiming { until: now + settle, echoed: false };
        vec![Order::Claim { term: self.term }]
    }

    fn stand_by(&mut self, of: String, now: Instant) -> Vec<Order> {
        self.claimed = false;
        self.stage = Stage::Standby { of: of.clone(), probe: now + PROBE, unanswered: 0 };
        vec![Order::StandBy { of }]
    }
}

#[cfg(test)]
mod tests {
    use groundplan_protocol::{VERSION, ids::SiteName};

    use super::*;

    fn presence(planner: &str, online: bool, term: u64) -> PlannerPresence {
        let site = SiteName::new("s").unwrap();
        PlannerPresence { version: VERSION, site, planner: planner.into(), online, term, generation: Generation(term) }
    }

    fn alone(id: &str, now: Instant) -> Leader {
        let mut leader = Leader::new(id.into(), 0);
        leader.ready(now);
        assert_eq!(leader.tick(now + QUIET), [Order::Claim { term: 1 }]);
        assert_eq!(leader.presence(&presence(id, true, 1), now + QUIET), [Order::Begin]);
        leader
    }

    #[test]
    fn the_second_stands_by_and_takes_over() {
        let now = Instant::now();
        let mut first = alone("a", now);
        let mut second = Leader::new("b".into(), 0);
        second.ready(now);
        second.presence(&presence("a", true, 1), now);
        assert_eq!(second.tick(now + QUIET), [Order::StandBy { of: "a".into() }]);
        assert_eq!(first.presence(&presence("b", false, 0), now), [Order::Republish]);
        assert_eq!(second.presence(&presence("a", false, 1), now), [Order::Claim { term: 2 }]);
        assert_eq!(second.presence(&presence("b", true, 2), now), []);
        assert_eq!(second.tick(now + SETTLE[0]), [Order::Begin]);
        assert_eq!(first.presence(&presence("b", true, 2), now), [Order::StandBy { of: "b".into() }]);
        assert!(second.plans() && !first.plans());
    }

    #[test]
    fn of_two_that_claim_one_goes_on() {
        let now = Instant::now();
        let (mut a, mut b) = (Leader::new("a".into(), 0), Leader::new("b".into(), 0));
        for leader in [&mut a, &mut b] {
            leader.ready(now);
            leader.presence(&presence("z", true, 4), now);
            leader.tick(now + QUIET);
            assert_eq!(leader.presence(&presence("z", false, 4), now), [Order::Claim { term: 5 }]);
        }
        for claim in ["a", "b", "a"] {
            a.presence(&presence(claim, true, 5), now);
            b.presence(&presence(claim, true, 5), now);
        }
        let later = now + SETTLE[0];
        assert_eq!((a.tick(later), b.tick(later)), (vec![], vec![Order::Begin]));
        assert_eq!(a.standby_of(), Some("b"));
    }

    #[test]
    fn a_planner_that_was_cut_off_looks_before_it_goes_on() {
        let now = Instant::now();
        let mut a = alone("a", now);
        a.lost();
        a.ready(now);
        assert_eq!(a.tick(now + QUIET), [Order::Republish]);
        assert_eq!(a.presence(&presence("a", true, 1), now + QUIET), [Order::Begin]);
        a.lost();
        a.ready(now);
        a.presence(&presence("b", true, 2), now);
        assert_eq!(a.tick(now + QUIET), [Order::StandBy { of: "b".into() }]);
    }

    #[test]
    fn a_silent_one_is_replaced() {
        let now = Instant::now();
        let mut b = Leader::new("b".into(), 0);
        b.ready(now);
        b.presence(&presence("a", true, 1), now);
        b.tick(now + QUIET);
        let at = |n: u32| now + QUIET + PROBE * n;
        assert_eq!((1..=3).map(|n| b.tick(at(n))).collect::<Vec<_>>(), vec![vec![Order::Probe]; 3]);
        assert_eq!(b.tick(at(4)), [Order::Claim { term: 2 }]);
    }
}
