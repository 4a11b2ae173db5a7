//! Which planner plans: one at a time, by the presence that each publishes on one retained topic.
//!
//! In: presences, the state of the connection, the time. Out: [`LeaderAction`]s. A planner first discovers others, claims a term greater
//! than any it has seen, waits until its claim has come back and no other has claimed more, and then plans. Of two that claim, the
//! greater (term, id) goes on. What this leaves open, as two halves of a split broker do, the generation fence at the agents decides.
//!
//! What was signed once may be delivered again, by a broker or by any client that may publish. A presence makes a planner stand by, but
//! does not keep it there: only the answer to a challenge, a nonce that was never used before, shows that the other is there. Nor does an
//! offline presence make it take over before the other has failed to answer.

use std::time::Duration;

use groundplan_protocol::{
    digest::Digest,
    ids::{Generation, Nonce},
    presence::PlannerPresence,
};

/// Retained messages have all come when this long none came.
const QUIET: Duration = Duration::from_millis(80);

/// The longest that discovery may take.
const DISCOVERY: Duration = Duration::from_secs(2);

/// How long a claim stands for others to object, where others have been seen; and where not.
const SETTLE: [Duration; 2] = [Duration::from_millis(250), Duration::ZERO];

/// Within this time a claim comes back, unless the broker has dropped it.
const ECHO: Duration = Duration::from_secs(2);

/// How often one that stands by challenges the other: the broker may have lost its last will.
const CHALLENGE: Duration = Duration::from_secs(5);

/// How long the other may leave challenges without an answer.
const SILENT: Duration = Duration::from_secs(20);

/// How long it may do so after it was reported as offline.
const LEAVING: Duration = Duration::from_secs(1);

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
    /// Publish a presence with this challenge that is not retained, which the other planner answers if it is there.
    Challenge(Nonce),
    /// Plan.
    Begin,
    /// Publish nothing more but challenges.
    StandBy {
        /// The one that plans.
        of: String,
    },
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Stage {
    Away,
    Discovering { until: Duration, latest: Duration, rival: Option<(u64, String)> },
    Claiming { until: Duration, echoed: bool, again: Duration },
    Planning,
    Standby(Standby),
}

/// What one that stands by knows of the other.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Standby {
    of: String,
    /// When this one takes over if no challenge is answered before.
    until: Duration,
    /// The challenge that has no answer yet.
    challenge: Option<Nonce>,
    /// When the next one is due.
    next: Duration,
    /// It was reported as offline since its last answer.
    leaving: bool,
    /// `until` was put off since the last answer, because another one has taken over.
    put_off: bool,
}

/// Nonces of one process: not to be guessed, and none comes twice.
#[derive(Debug)]
struct Nonces {
    seed: [u8; 16],
    count: u64,
}

impl Nonces {
    fn next(&mut self) -> Nonce {
        self.count += 1;
        let digest = Digest::of(&[&self.seed[..], &self.count.to_be_bytes()].concat()).to_string();
        Nonce::new(&digest[..32]).expect("the digits of a digest")
    }
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
    /// The last challenge of another planner.
    challenged: Option<Nonce>,
    /// How many presences this process has published.
    revision: u64,
    /// Term, planner and revision of the latest presence of one that was online.
    latest: (u64, String, u64),
    nonces: Nonces,
    stage: Stage,
}

impl Leadership {
    /// `term` is the last one that it has claimed; `seed` was drawn at random for this process.
    pub(crate) fn new(me: String, term: u64, seed: [u8; 16]) -> Self {
        Self {
            me,
            term,
            claimed: false,
            seen_term: term,
            seen_generation: Generation(0),
            others: false,
            challenged: None,
            revision: 0,
            latest: (0, String::new(), 0),
            nonces: Nonces { seed, count: 0 },
            stage: Stage::Away,
        }
    }

    pub(crate) fn plans(&self) -> bool {
        self.stage == Stage::Planning
    }

    /// The one that plans instead.
    pub(crate) fn standby_of(&self) -> Option<&str> {
        match &self.stage {
            Stage::Standby(standby) => Some(&standby.of),
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

    /// The revision of the next presence, and what it answers if it is online.
    pub(crate) fn stamp(&mut self) -> (u64, Option<Nonce>) {
        self.revision += 1;
        (self.revision, self.challenged.clone())
    }

    /// Whether what this presence lists is to be carried on with: the planner that this one stands by for has published it, and nothing
    /// later has come before.
    pub(crate) fn is_followed(&self, p: &PlannerPresence) -> bool {
        let (term, planner, revision) = &self.latest;
        let latest = (p.term, &p.planner, p.revision) >= (*term, planner, *revision);
        p.online && latest && self.standby_of() == Some(&p.planner)
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
        let newer = p.term > self.seen_term;
        self.seen_term = self.seen_term.max(p.term);
        self.others = true;
        if p.challenge.is_some() {
            self.challenged.clone_from(&p.challenge);
        }
        if p.online {
            let stamp = (p.term, p.planner.clone(), p.revision);
            self.latest = stamp.max(std::mem::take(&mut self.latest));
        }
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
            Stage::Standby(standby) => {
                if p.online && p.answer.is_some() && p.answer == standby.challenge {
                    // This challenge is used up: its answer may come again.
                    let (of, until, next) = (p.planner.clone(), now + SILENT, standby.next);
                    *standby = Standby { of, until, challenge: None, next, leaving: false, put_off: false };
                    return vec![];
                }
                if p.online && newer {
                    // Another one has taken over, or has once: it gets the time to answer, but not again for the next such message.
                    if !std::mem::replace(&mut standby.put_off, true) {
                        standby.until = standby.until.max(now + CHALLENGE);
                    }
                    (standby.of, standby.leaving) = (p.planner.clone(), false);
                    return vec![self.challenge(now)];
                }
                if !p.online && standby.of == p.planner && !std::mem::replace(&mut standby.leaving, true) {
                    standby.until = standby.until.min(now + LEAVING);
                    return vec![self.challenge(now)];
                }
                vec![]
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
                    self.stage = Stage::Claiming { until: now, echoed: false, again: now + ECHO };
                    vec![LeaderAction::Republish]
                }
                _ => self.claim(now),
            },
            Stage::Claiming { until, echoed: true, .. } if now >= *until => {
                self.stage = Stage::Planning;
                vec![LeaderAction::Begin]
            }
            Stage::Claiming { echoed: false, again, .. } if now >= *again => {
                *again = now + ECHO;
                vec![LeaderAction::Republish]
            }
            Stage::Standby(standby) if now >= standby.until => self.claim(now),
            Stage::Standby(standby) if now >= standby.next => vec![self.challenge(now)],
            _ => vec![],
        }
    }

    /// When to call [`Leadership::tick`] at the latest.
    pub(crate) fn deadline(&self) -> Option<Duration> {
        match &self.stage {
            Stage::Discovering { until, .. } | Stage::Claiming { until, echoed: true, .. } => Some(*until),
            Stage::Claiming { echoed: false, again, .. } => Some(*again),
            Stage::Standby(standby) => Some(standby.until.min(standby.next)),
            _ => None,
        }
    }

    fn claim(&mut self, now: Duration) -> Vec<LeaderAction> {
        let after_another = self.seen_term > self.term;
        self.term = self.seen_term.max(self.term) + 1;
        (self.seen_term, self.claimed) = (self.term, true);
        let settle = SETTLE[usize::from(!self.others)];
        self.stage = Stage::Claiming { until: now + settle, echoed: false, again: now + ECHO };
        vec![LeaderAction::Claim { term: self.term, after_another }]
    }

    fn stand_by(&mut self, of: String, now: Duration) -> Vec<LeaderAction> {
        self.claimed = false;
        self.stage = Stage::Standby(Standby {
            of: of.clone(),
            until: now + SILENT,
            challenge: None,
            next: now,
            leaving: false,
            put_off: false,
        });
        // At once: the answer also brings what the other was asked to have forgotten.
        vec![LeaderAction::StandBy { of }, self.challenge(now)]
    }

    /// A new challenge; the one before counts no more.
    fn challenge(&mut self, now: Duration) -> LeaderAction {
        let nonce = self.nonces.next();
        if let Stage::Standby(standby) = &mut self.stage {
            (standby.challenge, standby.next) = (Some(nonce.clone()), now + CHALLENGE);
        }
        LeaderAction::Challenge(nonce)
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
            challenge: None,
            answer: None,
            revision: 0,
            planner: planner.into(),
            online,
            term,
            generation: Generation(term),
            forget: vec![],
            parked: vec![],
        }
    }

    fn new(id: &str, term: u64) -> Leadership {
        Leadership::new(id.into(), term, [7; 16])
    }

    /// The challenge among what is to be done.
    fn challenge(actions: &[LeaderAction]) -> Option<Nonce> {
        actions.iter().find_map(|action| match action {
            LeaderAction::Challenge(nonce) => Some(nonce.clone()),
            _ => None,
        })
    }

    fn answer(planner: &str, term: u64, nonce: &Nonce) -> PlannerPresence {
        PlannerPresence { answer: Some(nonce.clone()), ..presence(planner, true, term) }
    }

    /// One that stands by for `a`, which has term 1; and its first challenge.
    fn standby(now: Duration) -> (Leadership, Nonce) {
        let mut leader = new("b", 0);
        leader.ready(now);
        leader.presence(&presence("a", true, 1), now);
        let actions = leader.tick(now + QUIET);
        assert_eq!(actions[0], LeaderAction::StandBy { of: "a".into() });
        (leader, challenge(&actions).unwrap())
    }

    fn alone(id: &str, now: Duration) -> Leadership {
        let mut leader = new(id, 0);
        leader.ready(now);
        assert_eq!(leader.tick(now + QUIET), [LeaderAction::Claim { term: 1, after_another: false }]);
        assert_eq!(leader.presence(&presence(id, true, 1), now + QUIET), [LeaderAction::Begin]);
        leader
    }

    #[test]
    fn started_again_it_comes_after_itself() {
        let mut leader = new("a", 3);
        leader.ready(Duration::ZERO);
        assert_eq!(leader.presence(&presence("a", false, 3), Duration::ZERO), []);
        assert_eq!(leader.tick(DISCOVERY), [LeaderAction::Claim { term: 4, after_another: false }]);
    }

    #[test]
    fn the_second_stands_by_and_takes_over() {
        let now = Duration::from_secs(1);
        let mut first = alone("a", now);
        let (mut second, _) = standby(now);
        assert_eq!(first.presence(&presence("b", false, 0), now), [LeaderAction::Republish]);
        let actions = second.presence(&presence("a", false, 1), now);
        assert!(challenge(&actions).is_some() && actions.len() == 1, "{actions:?}");
        assert_eq!(second.deadline(), Some(now + LEAVING));
        let now = now + LEAVING;
        assert_eq!(second.tick(now), [LeaderAction::Claim { term: 2, after_another: true }]);
        assert_eq!(second.presence(&presence("b", true, 2), now), []);
        assert_eq!(second.tick(now + SETTLE[0]), [LeaderAction::Begin]);
        assert_eq!(first.presence(&presence("b", true, 2), now)[0], LeaderAction::StandBy { of: "b".into() });
        assert!(second.plans() && !first.plans());
    }

    #[test]
    fn a_claim_that_the_broker_has_dropped_is_published_again() {
        let now = Duration::from_secs(1);
        let mut a = new("a", 0);
        a.ready(now);
        let claimed = now + QUIET;
        assert_eq!(a.tick(claimed), [LeaderAction::Claim { term: 1, after_another: false }]);
        assert_eq!(a.deadline(), Some(claimed + ECHO));
        assert_eq!(a.tick(claimed + ECHO), [LeaderAction::Republish]);
        assert_eq!(a.presence(&presence("a", true, 1), claimed + ECHO), [LeaderAction::Begin]);
    }

    #[test]
    fn of_two_that_claim_one_goes_on() {
        let now = Duration::from_secs(1);
        let (mut a, mut b) = (new("a", 0), new("b", 0));
        for leader in [&mut a, &mut b] {
            leader.ready(now);
            leader.presence(&presence("z", true, 4), now);
            leader.tick(now + QUIET);
            leader.presence(&presence("z", false, 4), now);
            assert_eq!(leader.tick(now + LEAVING), [LeaderAction::Claim { term: 5, after_another: true }]);
        }
        for claim in ["a", "b", "a"] {
            a.presence(&presence(claim, true, 5), now);
            b.presence(&presence(claim, true, 5), now);
        }
        let later = now + LEAVING + SETTLE[0];
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
        assert_eq!(a.tick(now + QUIET)[0], LeaderAction::StandBy { of: "b".into() });
    }

    #[test]
    fn a_silent_one_is_replaced() {
        let now = Duration::from_secs(1);
        let (mut b, first) = standby(now);
        let at = |n: u32| now + QUIET + CHALLENGE * n;
        let challenges: Vec<Option<Nonce>> = (1..=3).map(|n| challenge(&b.tick(at(n)))).collect();
        assert!(challenges.iter().all(|nonce| nonce.is_some() && *nonce != Some(first.clone())), "{challenges:?}");
        assert_eq!(b.tick(at(4)), [LeaderAction::Claim { term: 2, after_another: true }]);
    }

    #[test]
    fn one_that_answers_is_not_replaced() {
        let now = Duration::from_secs(1);
        let (mut a, (mut b, mut nonce)) = (alone("a", now), standby(now));
        for n in 1..=20 {
            let asked = PlannerPresence { challenge: Some(nonce.clone()), ..presence("b", false, 0) };
            assert_eq!(a.presence(&asked, now), [LeaderAction::Republish]);
            assert_eq!(a.stamp().1, Some(nonce.clone()));
            assert_eq!(b.presence(&answer("a", 1, &nonce), now + QUIET + CHALLENGE * (n - 1)), []);
            nonce = challenge(&b.tick(now + QUIET + CHALLENGE * n)).expect("the next challenge");
        }
    }

    #[test]
    fn what_was_signed_before_is_no_sign_of_life() {
        let now = Duration::from_secs(1);
        let (mut b, nonce) = standby(now);
        let since = now + QUIET;
        assert_eq!(b.presence(&answer("a", 1, &nonce), since), []);
        // It ends here. All that it has ever published is repeated each second: retained, earlier answers, answers to another.
        let other = Nonce::new("f".repeat(32)).unwrap();
        let mut later = since;
        let taken = loop {
            later += Duration::from_secs(1);
            let repeated = [presence("a", true, 1), answer("a", 1, &nonce), answer("a", 1, &other)];
            for p in &repeated {
                assert_eq!(b.presence(p, later), []);
            }
            match &b.tick(later)[..] {
                [LeaderAction::Claim { .. }] => break later,
                actions => assert!(actions.iter().all(|action| matches!(action, LeaderAction::Challenge(_)))),
            }
        };
        assert_eq!(taken, since + SILENT);
        // Neither does it make the one that plans step down.
        assert_eq!(b.presence(&answer("a", 1, &nonce), taken), [LeaderAction::Republish]);
    }

    #[test]
    fn take_overs_of_before_put_a_take_over_off_once() {
        let now = Duration::from_secs(1);
        let (mut b, _) = standby(now);
        let before_the_end = now + QUIET + SILENT - Duration::from_secs(1);
        for term in 2..100 {
            let actions = b.presence(&presence("c", true, term), before_the_end);
            assert!(challenge(&actions).is_some());
        }
        assert_eq!(b.standby_of(), Some("c"));
        assert_eq!(b.tick(before_the_end + CHALLENGE), [LeaderAction::Claim { term: 100, after_another: true }]);
    }

    #[test]
    fn a_will_of_before_takes_nothing_over() {
        let now = Duration::from_secs(1);
        let (mut b, _) = standby(now);
        for _ in 0..100 {
            let nonce = challenge(&b.presence(&presence("a", false, 0), now)).expect("a challenge");
            assert_eq!(b.presence(&presence("a", false, 0), now), [], "one challenge until it is answered");
            assert_eq!(b.presence(&answer("a", 1, &nonce), now), []);
            assert_eq!(b.tick(now + LEAVING), []);
        }
        assert_eq!(b.standby_of(), Some("a"));
    }

    #[test]
    fn of_what_the_other_lists_the_latest_counts() {
        let now = Duration::from_secs(1);
        let (mut b, _) = standby(now);
        let revision = |term, revision| PlannerPresence { revision, ..presence("a", true, term) };
        let mut is_followed = |p: PlannerPresence| {
            b.presence(&p, now);
            b.is_followed(&p)
        };
        assert!(is_followed(revision(1, 5)) && is_followed(revision(1, 5)) && is_followed(revision(1, 6)));
        assert!(!is_followed(revision(1, 5)) && !is_followed(revision(0, 7)));
        assert!(is_followed(revision(2, 1)) && !is_followed(revision(1, 9)));
        assert!(!is_followed(PlannerPresence { online: false, ..revision(3, 1) }));
    }
}
