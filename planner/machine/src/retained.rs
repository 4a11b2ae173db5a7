//! Whether all that the broker keeps of the nodes has come, and for which nodes it is asked for again.
//!
//! In: which messages came on this connection, which nodes are declared, the time. Out: nodes to ask for, a few at a time. A subscription
//! with wildcards should bring what is retained, but a broker may drop what its queue for a client has no room for (Mosquitto: 1000 messages
//! unless configured), and some (RabbitMQ) answer only filters without wildcards. So each declared node of which state or presence has not
//! come is asked for by its exact topics, in rounds, until a round brings nothing new: what is missing then was never written. That does not
//! end with the connection's beginning: a message that is new may be dropped as well. A node whose presence or reports name a ledger of
//! which no state has come is asked for until one comes, and so is one that sends reports and is not known to be connected; those that are not known at all are asked for now and then, and all of them by turns:
//! of a state that differs from the one before in facts alone, nothing else shows that it was dropped.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::Duration,
};

use groundplan_protocol::ids::{LedgerId, NodeId};

/// How many nodes are asked for at a time. Each is three subscriptions for a moment, of which brokers allow a client some hundreds; and as
/// many answers, which must fit into a queue of some hundreds beside other messages.
const TOGETHER: usize = 48;

/// Without an answer for so long there is none; once two questions in a row had none, after the second.
const QUIET: [Duration; 2] = [Duration::from_millis(300), Duration::from_millis(100)];

/// The beginning of a connection ends after so long, even if messages go on coming, and so does a question.
const LONGEST: [Duration; 2] = [Duration::from_secs(10), Duration::from_secs(2)];

/// When what is not known at all is asked for again: at first, and at most.
const AGAIN: [Duration; 2] = [Duration::from_secs(5), Duration::from_secs(300)];

/// All declared nodes are asked for again by turns, whatever is known of them: in so long if they are few, and otherwise some of them so often.
const TURN: [Duration; 2] = [Duration::from_secs(300), Duration::from_secs(10)];

/// When a state that must be there is asked for: at first, since it may be on its way, and at most.
const AWAITED: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(60)];

/// Where the wait for such a state has become this long, nothing else waits for it any more: what names its ledger may be an old message.
const GIVEN_UP: Duration = Duration::from_secs(10);

/// What a message was about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Heard {
    /// The node's state.
    State,
    /// Its presence.
    Presence,
    /// Both, as far as there is anything to read: what it sends is refused.
    All,
    /// Something else.
    Other,
}

/// Which of a node's retained messages have come on this connection.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Came {
    state: bool,
    presence: bool,
}

impl Came {
    fn is_all(self) -> bool {
        self.state && self.presence
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Away,
    /// The subscriptions of the connection bring what is retained.
    Beginning,
    /// Nodes are asked for.
    Asking,
    /// A round has brought nothing more.
    Complete,
}

/// A round of questions.
#[derive(Debug, Default)]
struct Round {
    nodes: Vec<NodeId>,
    /// How many of them were asked for, and which of those have not answered.
    begun: usize,
    open: BTreeSet<NodeId>,
    /// Whether it has brought anything new.
    progress: bool,
    /// Whether the last question had an answer, and how many in a row had none.
    answered: bool,
    silent: usize,
}

/// When something that must be there is asked for.
#[derive(Debug, Clone, Copy)]
struct Asking {
    at: Duration,
    wait: Duration,
}

impl Asking {
    fn begin(now: Duration) -> Self {
        Self { at: now + AWAITED[0], wait: AWAITED[0] }
    }

    /// Whether it is time; then the next time is later.
    fn is_due(&mut self, now: Duration) -> bool {
        let due = now >= self.at;
        if due {
            self.wait = (self.wait * 2).min(AWAITED[1]);
            self.at = now + self.wait;
        }
        due
    }
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Retained {
    stage: Stage,
    /// When the beginning, or the question, ends if nothing more comes, and at the latest.
    quiet_at: Duration,
    latest: Duration,
    came: BTreeMap<NodeId, Came>,
    round: Round,
    /// States of these ledgers must be there.
    awaited: BTreeMap<NodeId, (LedgerId, Asking)>,
    /// Presences of these nodes must be there: they send other messages.
    hidden: BTreeMap<NodeId, Asking>,
    again_at: Option<Duration>,
    again_wait: Duration,
    /// Nodes whose turn is still to come, and when that of the next ones is.
    turns: VecDeque<NodeId>,
    turn_at: Duration,
    /// Whether the first rounds on this connection are over.
    is_over: bool,
}

impl Retained {
    pub(crate) fn new() -> Self {
        Self {
            stage: Stage::Away,
            quiet_at: Duration::ZERO,
            latest: Duration::ZERO,
            came: BTreeMap::new(),
            round: Round::default(),
            awaited: BTreeMap::new(),
            hidden: BTreeMap::new(),
            again_at: None,
            again_wait: AGAIN[0],
            turns: VecDeque::new(),
            turn_at: Duration::ZERO,
            is_over: false,
        }
    }

    /// Connected and subscribed.
    pub(crate) fn connected(&mut self, now: Duration) {
        let awaited = std::mem::take(&mut self.awaited);
        let (quiet_at, latest) = (now + QUIET[0], now + LONGEST[0]);
        *self = Self { stage: Stage::Beginning, quiet_at, latest, awaited, turn_at: now + TURN[0], ..Self::new() };
    }

    /// The connection is lost.
    pub(crate) fn lost(&mut self) {
        self.stage = Stage::Away;
    }

    /// A message of a declared node came.
    pub(crate) fn heard(&mut self, node: &NodeId, what: Heard, now: Duration) {
        if matches!(what, Heard::Presence | Heard::All) {
            self.hidden.remove(node);
        }
        let before = self.came.get(node).copied().unwrap_or_default();
        let came = Came {
            state: before.state || matches!(what, Heard::State | Heard::All),
            presence: before.presence || matches!(what, Heard::Presence | Heard::All),
        };
        if came != before {
            self.came.insert(node.clone(), came);
            self.round.progress = true;
            // What is new shows that agents come, and what others of them have written may have been dropped.
            self.again_wait = AGAIN[0];
            self.again_at = self.again_at.map(|at| at.min(now + AGAIN[0]));
        }
        let is_asked = self.round.open.contains(node);
        if is_asked && came.is_all() {
            self.round.open.remove(node);
        }
        self.round.answered |= is_asked;
        // Retained messages are still arriving.
        if is_asked || self.stage == Stage::Beginning {
            self.quiet_at = now + QUIET[0];
        }
    }

    /// A message names a node's ledger; `known` is the one of which its last state was.
    pub(crate) fn names_ledger(&mut self, node: &NodeId, named: &LedgerId, known: Option<&LedgerId>, now: Duration) {
        if known == Some(named) {
            self.awaited.remove(node);
        } else if self.awaited.get(node).is_none_or(|(awaited, _)| awaited != named) {
            self.awaited.insert(node.clone(), (named.clone(), Asking::begin(now)));
        }
    }

    /// A node that is not known to be connected has sent something that no broker retains.
    pub(crate) fn expect_presence(&mut self, node: &NodeId, now: Duration) {
        self.hidden.entry(node.clone()).or_insert_with(|| Asking::begin(now));
    }

    /// A state of this ledger came.
    pub(crate) fn has_state(&mut self, node: &NodeId, ledger: &LedgerId) {
        if self.awaited.get(node).is_some_and(|(awaited, _)| awaited == ledger) {
            self.awaited.remove(node);
        }
    }

    /// Other nodes may be declared than before: what they have written may have been dropped, or was not looked at.
    pub(crate) fn declared(&mut self, now: Duration) {
        self.again_wait = AGAIN[0];
        if self.stage == Stage::Complete {
            self.again_at = Some(now);
        }
    }

    /// Whether the first rounds on this connection are over.
    pub(crate) fn is_over(&self) -> bool {
        self.is_over
    }

    /// Whether the state of a declared node that is not known may be there nevertheless.
    pub(crate) fn may_come(&self, node: &NodeId) -> bool {
        !self.is_over || self.is_awaited(node)
    }

    /// Whether a state of the node must be there that has not come, and is worth waiting for.
    pub(crate) fn is_awaited(&self, node: &NodeId) -> bool {
        self.awaited.get(node).is_some_and(|(_, asking)| asking.wait < GIVEN_UP)
    }

    /// Nodes of which a state must be there that has not come.
    pub(crate) fn awaited(&self) -> BTreeSet<NodeId> {
        self.awaited.keys().cloned().collect()
    }

    /// Whether [`Self::tick`] has anything to do.
    pub(crate) fn is_due(&self, now: Duration) -> bool {
        self.deadline().is_some_and(|at| now >= at)
    }

    /// Time has passed, or something was heard. Returns the nodes to ask for now. `declared` are all that are declared; `is_known`:
    /// whether a state of one was ever received.
    pub(crate) fn tick(
        &mut self,
        now: Duration,
        declared: impl Fn() -> Vec<NodeId>,
        is_known: impl Fn(&NodeId) -> bool,
    ) -> Vec<NodeId> {
        let mut ask = Vec::new();
        if self.stage == Stage::Away {
            return ask;
        }
        ask.extend(self.due_awaited(now));
        let is_quiet = now >= self.quiet_at.min(self.latest);
        if self.stage == Stage::Beginning && is_quiet {
            self.begin_round(declared().into_iter().filter(|node| !self.has_come(node)).collect());
        } else if self.stage == Stage::Complete && self.again_at.is_some_and(|at| now >= at) {
            self.begin_round(declared().into_iter().filter(|node| !is_known(node)).collect());
        }
        if self.stage == Stage::Complete && now >= self.turn_at {
            if self.turns.is_empty() {
                self.turns = declared().into();
            }
            let questions = u32::try_from(self.turns.len().div_ceil(TOGETHER)).unwrap_or(u32::MAX).max(1);
            ask.extend(self.turns.drain(..self.turns.len().min(TOGETHER)));
            self.turn_at = now + (TURN[0] / questions).max(TURN[1]);
        }
        if self.stage == Stage::Asking && (self.round.open.is_empty() || is_quiet) {
            ask.extend(self.ask(now));
            if self.stage == Stage::Complete && declared().iter().any(|node| !is_known(node)) {
                self.again_at = Some(now + self.again_wait);
                self.again_wait = (self.again_wait * 2).min(AGAIN[1]);
            }
        }
        ask
    }

    fn has_come(&self, node: &NodeId) -> bool {
        self.came.get(node).is_some_and(|came| came.is_all())
    }

    fn begin_round(&mut self, nodes: Vec<NodeId>) {
        (self.stage, self.again_at) = (Stage::Asking, None);
        self.round = Round { nodes, answered: true, ..Round::default() };
    }

    /// The next nodes of the round; none if it was the last one.
    fn ask(&mut self, now: Duration) -> Vec<NodeId> {
        loop {
            let round = &mut self.round;
            round.silent = if round.answered { 0 } else { round.silent + 1 };
            let rest = &round.nodes[round.begun..];
            let next = rest[..rest.len().min(TOGETHER)].to_vec();
            if !next.is_empty() {
                round.begun += next.len();
                (round.open, round.answered) = (next.iter().cloned().collect(), false);
                (self.quiet_at, self.latest) = (now + QUIET[usize::from(round.silent >= 2)], now + LONGEST[1]);
                return next;
            }
            let progress = round.progress;
            let missing: Vec<NodeId> =
                std::mem::take(round).nodes.into_iter().filter(|node| !self.has_come(node)).collect();
            if !progress || missing.is_empty() {
                (self.stage, self.is_over) = (Stage::Complete, true);
                return Vec::new();
            }
            self.begin_round(missing);
        }
    }

    fn due_awaited(&mut self, now: Duration) -> Vec<NodeId> {
        let states = self.awaited.iter_mut().map(|(node, (_, asking))| (node, asking));
        let presences = self.hidden.iter_mut();
        let due = states.chain(presences).filter_map(|(node, asking)| asking.is_due(now).then(|| node.clone()));
        due.take(TOGETHER).collect()
    }

    /// When to call [`Retained::tick`] at the latest.
    pub(crate) fn deadline(&self) -> Option<Duration> {
        let stage = match self.stage {
            Stage::Away => return None,
            Stage::Asking if self.round.open.is_empty() => Some(Duration::ZERO),
            Stage::Beginning | Stage::Asking => Some(self.quiet_at.min(self.latest)),
            Stage::Complete => Some(self.again_at.map_or(self.turn_at, |at| at.min(self.turn_at))),
        };
        let states = self.awaited.values().map(|(_, asking)| asking);
        states.chain(self.hidden.values()).map(|asking| asking.at).chain(stage).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn node(n: usize) -> NodeId {
        NodeId::new(format!("n{n}")).unwrap()
    }

    fn ledger(digit: &str) -> LedgerId {
        LedgerId::new(digit.repeat(32)).unwrap()
    }

    /// A broker that keeps what `written` nodes of `declared` wrote, and gives up to `most` answers to a question.
    struct Case {
        retained: Retained,
        now: Duration,
        declared: usize,
        known: BTreeSet<NodeId>,
        questions: Vec<usize>,
    }

    impl Case {
        fn new(declared: usize) -> Self {
            let mut retained = Retained::new();
            let now = Duration::from_secs(7);
            retained.connected(now);
            Self { retained, now, declared, known: BTreeSet::new(), questions: Vec::new() }
        }

        fn answer(&mut self, node: &NodeId) {
            self.known.insert(node.clone());
            self.retained.heard(node, Heard::State, self.now);
            self.retained.heard(node, Heard::Presence, self.now);
        }

        /// Until the first rounds are over. Returns how long that took.
        fn run(&mut self, written: usize, most: usize) -> Duration {
            let began = self.now;
            while !self.retained.is_over {
                self.now = self.retained.deadline().expect("something is due").max(self.now);
                let declared = self.declared;
                let known = self.known.clone();
                let asked = self.retained.tick(self.now, || (0..declared).map(node).collect(), |n| known.contains(n));
                if asked.is_empty() {
                    continue;
                }
                self.questions.push(asked.len());
                self.now += MS;
                let written: BTreeSet<NodeId> = (0..written).map(node).collect();
                asked.iter().filter(|node| written.contains(*node)).take(most).for_each(|node| self.answer(node));
            }
            self.now - began
        }
    }

    #[test]
    fn what_was_dropped_is_asked_for_until_it_has_come() {
        let mut case = Case::new(1000);
        (0..19).for_each(|n| case.answer(&node(n)));
        let took = case.run(1000, 1000);
        assert_eq!(case.known.len(), 1000);
        assert_eq!(case.questions.iter().sum::<usize>(), 981, "each once");
        assert!(took < QUIET[0] * 2, "{took:?}: no question is waited for longer than its answer takes");
    }

    #[test]
    fn a_question_whose_answers_are_dropped_as_well_is_put_again() {
        let mut case = Case::new(300);
        case.run(300, 20);
        assert_eq!(case.known.len(), 300);
    }

    #[test]
    fn nodes_that_never_wrote_anything_are_not_waited_for() {
        let mut case = Case::new(1000);
        let took = case.run(0, 0);
        assert_eq!(case.questions.iter().sum::<usize>(), 1000, "one round");
        assert!(took < Duration::from_secs(4), "{took:?}");
        assert!(!case.retained.may_come(&node(1)));
        // They are asked for now and then, and less and less often.
        let later = case.retained.deadline().unwrap();
        assert_eq!(later, case.now + AGAIN[0]);
        let mut mixed = Case::new(1000);
        mixed.run(900, 1000);
        assert_eq!(mixed.known.len(), 900);
        assert!(mixed.questions.iter().sum::<usize>() <= 1000 + 100 + 100, "{:?}", mixed.questions);
    }

    #[test]
    fn a_fleet_that_has_come_by_itself_is_not_asked_for() {
        let mut case = Case::new(50);
        (0..50).for_each(|n| case.answer(&node(n)));
        assert!(case.retained.may_come(&node(99)));
        case.run(50, 50);
        assert!(case.questions.is_empty());
        // But for their turns.
        let began = case.now;
        let mut asked = BTreeSet::new();
        while asked.len() < 50 {
            case.now = case.retained.deadline().unwrap();
            asked.extend(case.retained.tick(case.now, || (0..50).map(node).collect(), |_| true));
        }
        assert!(case.now - began <= TURN[0] * 2);
    }

    #[test]
    fn a_state_that_a_presence_names_is_asked_for_until_it_comes() {
        let mut case = Case::new(1);
        case.answer(&node(0));
        case.run(1, 1);
        let (old, new) = (ledger("a"), ledger("b"));
        case.retained.names_ledger(&node(0), &old, Some(&old), case.now);
        assert!(!case.retained.may_come(&node(0)));
        case.retained.names_ledger(&node(0), &new, Some(&old), case.now);
        let mut waits = Vec::new();
        for _ in 0..4 {
            assert!(case.retained.may_come(&node(0)) == (waits.len() < 4));
            let at = case.retained.deadline().unwrap();
            assert!(at < case.retained.turn_at);
            waits.push((at - case.now).as_secs());
            case.now = at;
            assert_eq!(case.retained.tick(at, Vec::new, |_| true), [node(0)]);
        }
        assert_eq!(waits, [1, 2, 4, 8]);
        assert!(!case.retained.may_come(&node(0)), "it may have been an old message");
        assert_eq!(case.retained.awaited(), [node(0)].into());
        case.retained.has_state(&node(0), &new);
        assert!(case.retained.awaited().is_empty());
    }

    #[test]
    fn the_presence_of_a_node_that_sends_reports_is_asked_for() {
        let mut case = Case::new(1);
        case.answer(&node(0));
        case.run(1, 1);
        case.retained.expect_presence(&node(0), case.now);
        case.retained.expect_presence(&node(0), case.now + MS);
        let at = case.now + AWAITED[0];
        assert_eq!(case.retained.deadline(), Some(at));
        assert_eq!(case.retained.tick(at, Vec::new, |_| true), [node(0)]);
        case.retained.heard(&node(0), Heard::Presence, at);
        assert_eq!(case.retained.deadline(), Some(case.retained.turn_at));
    }
}
