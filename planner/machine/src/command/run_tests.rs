//! A command, given what comes and when.

use groundplan_protocol::{
    duration::Span,
    exec::{Piece, Stream},
    ids::ExecId,
    kinds::Run,
};

use super::*;

/// A command with its clock; node names are single letters, each of whose sessions is named after it.
struct Case {
    run: CommandRun,
    now: Duration,
    orders: Vec<String>,
    events: Vec<String>,
}

fn session(of: &str) -> SessionId {
    SessionId::new(format!("{:0>16}", format!("{:x}", of.as_bytes()[0]))).unwrap()
}

fn nonce_of(node: &str) -> Nonce {
    Nonce::new(format!("{:0>32}", format!("{:x}", node.as_bytes()[0]))).unwrap()
}

fn id(node: &str) -> NodeId {
    NodeId::new(node).unwrap()
}

impl Case {
    /// All nodes in `nodes`; those in `online` are online.
    fn new(nodes: &str, online: &str, change: impl FnOnce(&mut CommandRequest)) -> Self {
        let mut request = CommandRequest {
            id: ExecId::new("00000001").unwrap(),
            by: "root".to_owned(),
            on: "all".to_owned(),
            nodes: nodes.chars().map(|c| id(&c.to_string())).collect(),
            run: Run::Shell("true".to_owned()),
            user: None,
            cwd: None,
            env: BTreeMap::new(),
            timeout: TIMEOUT,
            at_once: None,
            output_limit: 1000,
            max_failures: None,
        };
        change(&mut request);
        let online = online.chars().map(|c| (id(&c.to_string()), session(&c.to_string()))).collect();
        let now = Duration::from_secs(1);
        let run = CommandRun::begin(request, &online, at(now));
        let mut case = Self { run, now, orders: Vec::new(), events: Vec::new() };
        case.take();
        case
    }

    fn take(&mut self) {
        for effect in self.run.take_effects() {
            match effect {
                Effect::Order(node, Order::Run(_)) => self.orders.push(format!("run {node}")),
                Effect::Order(node, Order::Go { nonce }) => {
                    assert_eq!(nonce, nonce_of(node.as_str()));
                    self.orders.push(format!("go {node}"));
                }
                Effect::Order(node, Order::Stop) => self.orders.push(format!("stop {node}")),
                Effect::Event(CommandEvent::NodeEnded { node, outcome, .. }) => {
                    self.events.push(format!("{node} {outcome}"))
                }
                Effect::Event(CommandEvent::Output { node, text, .. }) => self.events.push(format!("{node}: {text}")),
                Effect::Event(CommandEvent::Begun { node }) => self.events.push(format!("{node} began")),
                Effect::Event(_) => {}
            }
        }
    }

    fn orders(&mut self) -> String {
        std::mem::take(&mut self.orders).join(", ")
    }

    fn events(&mut self) -> String {
        std::mem::take(&mut self.events).join(", ")
    }

    fn output(&mut self, node: &str, number: u64, text: &str, end: Option<ExecOutcome>) -> bool {
        let pieces = (!text.is_empty()).then(|| Piece { stream: Stream::Out, text: text.to_owned() });
        let end = end.map(|outcome| ExecEnd { outcome, duration_ms: 5, omitted: 0 });
        let output = ExecOutput {
            version: groundplan_protocol::VERSION,
            site: "s".parse().unwrap(),
            node: id(node),
            id: ExecId::new("00000001").unwrap(),
            number,
            pieces: pieces.into_iter().collect(),
            end,
        };
        let known = self.run.output(&id(node), output, self.now);
        self.take();
        known
    }

    /// The node answers its order with its nonce.
    fn ready(&mut self, node: &str) -> bool {
        let known = self.run.ready(&id(node), nonce_of(node), self.now);
        self.take();
        known
    }

    /// The node answers its order, and begins.
    fn begins(&mut self, node: &str) {
        self.ready(node);
        self.output(node, 0, "", None);
    }

    fn ends(&mut self, node: &str, code: i32) {
        self.begins(node);
        self.output(node, 1, "", Some(ExecOutcome::Exited { code }));
    }

    fn presence(&mut self, node: &str, session: Option<SessionId>) {
        self.run.presence(&id(node), session.as_ref(), self.now);
        self.take();
    }

    /// Lets time pass, deadline by deadline.
    fn pass(&mut self, span: Duration) {
        let until = self.now + span;
        while let Some(at) = self.run.deadline().filter(|at| *at <= until) {
            self.now = self.now.max(at);
            self.run.tick(self.now);
            self.take();
        }
        self.now = until;
        self.run.tick(self.now);
        self.take();
    }

    fn stop(&mut self) {
        self.run.stop(self.now);
        self.take();
    }

    fn outcome(&mut self, node: &str) -> String {
        self.run.record().nodes[&id(node)].outcome.to_string()
    }
}

/// How long a command may take.
const TIMEOUT: Span = Span::secs(300);

fn at(mono: Duration) -> Now {
    Now { mono, wall_ms: 1 }
}

fn refused() -> ExecOutcome {
    ExecOutcome::Refused { reason: "late".to_owned() }
}

#[test]
fn all_at_once_and_those_that_are_not_there_end_at_once() {
    let mut case = Case::new("abc", "ac", |_| {});
    assert_eq!((case.orders().as_str(), case.events().as_str()), ("run a, run c", "b offline: never reached"));
    case.begins("a");
    case.output("a", 1, "hi", None);
    case.output("a", 2, "!", Some(ExecOutcome::Exited { code: 0 }));
    assert_eq!(case.events(), "a began, a: hi, a: !, a exited with 0");
    assert!(!case.run.is_over());
    case.ends("c", 3);
    assert!(case.run.is_over());
    let record = case.run.close(&NodeOutcome::Lost, at(case.now));
    assert_eq!(
        (
            record.result,
            record
                .nodes
                .values()
                .filter(|node| matches!(
                    node.outcome,
                    NodeOutcome::Offline | NodeOutcome::CutOff { .. } | NodeOutcome::Lost
                ))
                .count()
        ),
        (CommandResult::Finished, 1)
    );
    assert_eq!(record.nodes[&id("a")].output.as_ref().unwrap().head, "hi!");
    case.take();
    assert_eq!(case.orders(), "go a, go c");
}

#[test]
fn some_at_a_time_and_no_more_after_enough_failures() {
    let mut case = Case::new("abcdef", "abdef", |request| {
        (request.at_once, request.max_failures) = (Some(1), Some(2));
    });
    assert_eq!(case.orders(), "run a");
    case.ends("a", 0);
    assert_eq!(case.orders(), "go a, run b");
    case.ends("b", 1);
    // c is offline: the second that did not succeed.
    assert_eq!(case.orders(), "go b");
    assert_eq!(case.outcome("c"), "offline: never reached");
    assert_eq!(case.outcome("d"), "stopped");
    assert!(case.run.is_over());
}

#[test]
fn words_in_any_order_twice_and_from_strangers() {
    let mut case = Case::new("ab", "a", |_| {});
    case.ready("a");
    case.orders();
    case.events();
    case.output("a", 2, "c", None);
    case.output("a", 1, "b", None);
    case.output("a", 1, "b", None);
    assert_eq!(case.events(), "");
    case.output("a", 0, "a", None);
    case.output("a", 0, "a", None);
    case.output("a", 2, "c", None);
    assert_eq!(case.events(), "a began, a: a, a: b, a: c");
    assert!(!case.output("z", 0, "x", None));
    assert!(!case.output("b", 0, "x", None), "it was never told to run anything");
    // A gap is waited for, and then passed over.
    case.output("a", 4, "e", None);
    assert_eq!(case.events(), "");
    case.pass(GAP);
    assert_eq!(case.events(), "a: e");
    for number in 10..10 + BEYOND as u64 + 1 {
        case.output("a", number, "x", None);
    }
    assert!(case.events().starts_with("a: x"));
    case.output("a", 40, "", Some(ExecOutcome::Exited { code: 0 }));
    case.pass(GAP);
    assert_eq!(case.events(), "a exited with 0");
    assert!(case.output("a", 41, "more", None));
    assert_eq!(case.events(), "");
}

#[test]
fn an_order_without_an_answer_is_given_again_and_never_gets_a_go() {
    let mut case = Case::new("ab", "ab", |_| {});
    case.begins("b");
    case.orders();
    case.events();
    case.pass(ANSWER);
    assert_eq!((case.orders().as_str(), case.events().as_str()), ("run a, run a, run a, stop a", "a cut off: not run"));
    // However late its answer is, and on whatever connection.
    assert!(case.ready("a"));
    case.presence("a", Some(session("z")));
    assert!(case.ready("a"));
    case.output("a", 0, "", Some(refused()));
    assert_eq!((case.orders().as_str(), case.outcome("a").as_str()), ("", "cut off: not run"));
    assert!(!case.run.is_over());
    case.output("b", 1, "", Some(ExecOutcome::Exited { code: 0 }));
    assert!(case.run.is_over());
    assert!(case.ready("a") && !case.ready("z"), "none that was not asked is ready");
    assert_eq!(case.orders(), "");
}

#[test]
fn a_go_without_an_answer_is_given_again_and_may_have_been_carried_out() {
    let mut case = Case::new("abc", "abc", |_| {});
    assert_eq!(case.orders(), "run a, run b, run c");
    case.ready("a");
    // The same answer once more, as the order was.
    case.ready("a");
    assert_eq!(case.orders(), "go a");
    case.begins("b");
    case.begins("c");
    case.orders();
    case.events();
    case.pass(ANSWER);
    assert_eq!((case.orders().as_str(), case.events().as_str()), ("go a, go a, go a", "a cut off: may have run"));
    // It had not.
    case.output("a", 0, "", Some(refused()));
    assert_eq!(case.events(), "a refused: late");
    // Another loses its connection before it has begun, as far as is known, and is asked on the next one.
    let mut case = Case::new("ab", "ab", |_| {});
    case.ready("a");
    case.begins("b");
    case.presence("a", None);
    assert_eq!(case.outcome("a"), "cut off: may have run");
    case.orders();
    case.presence("a", Some(session("z")));
    assert_eq!(case.orders(), "go a");
    // It was restarted: its predecessor may have run it.
    case.output("a", 0, "", Some(ExecOutcome::Unknown));
    assert_eq!(case.outcome("a"), "cut off: may have run");
    case.presence("a", None);
    case.presence("a", Some(session("y")));
    assert_eq!(case.orders(), "", "that is all that can be known");
}

#[test]
fn a_connection_that_is_lost_before_the_go_is_certain() {
    for next in [None, Some(session("z"))] {
        let mut case = Case::new("a", "a", |_| {});
        case.orders();
        case.presence("a", next);
        assert_eq!((case.orders().as_str(), case.outcome("a").as_str()), ("stop a", "cut off: not run"));
        assert!(case.run.is_over() && case.ready("a"));
        assert_eq!(case.orders(), "");
    }
}

#[test]
fn time_counts_from_the_go() {
    let mut case = Case::new("a", "a", |_| {});
    case.pass(ANSWER - Duration::from_secs(1));
    case.ready("a");
    case.pass(ANSWER - Duration::from_secs(1));
    case.output("a", 0, "", None);
    case.pass(Duration::from(TIMEOUT) + LATE + Duration::from_secs(1) - ANSWER - Duration::from_secs(1));
    assert!(!case.run.is_over());
    case.pass(Duration::from_secs(1));
    assert_eq!(case.outcome("a"), "lost: its end was not reported");
}

#[test]
fn enough_failures_are_enough_for_those_that_wait_for_their_go() {
    let mut case = Case::new("abc", "abc", |request| (request.at_once, request.max_failures) = (Some(2), Some(1)));
    assert_eq!(case.orders(), "run a, run b");
    case.ends("a", 1);
    assert_eq!((case.orders().as_str(), case.outcome("c").as_str()), ("go a", "stopped"));
    case.ready("b");
    assert_eq!((case.orders().as_str(), case.outcome("b").as_str()), ("stop b", "stopped"));
    assert!(case.run.is_over());
}

#[test]
fn no_more_have_their_go_than_at_once() {
    let mut case = Case::new("abcd", "abcd", |request| request.at_once = Some(2));
    assert_eq!(case.orders(), "run a, run b");
    case.ready("b");
    case.ready("a");
    case.ready("c");
    assert_eq!(case.orders(), "go b, go a");
    case.ends("b", 0);
    assert_eq!(case.orders(), "run c");
    case.ready("c");
    assert_eq!(case.orders(), "go c");
}

#[test]
fn one_that_was_cut_off_may_come_back_before_all_have_ended() {
    let mut case = Case::new("ab", "ab", |_| {});
    case.begins("a");
    case.begins("b");
    case.orders();
    case.events();
    case.presence("a", None);
    assert_eq!((case.events().as_str(), case.run.is_over()), ("a cut off while it ran", false));
    case.presence("a", Some(session("z")));
    assert_eq!(case.orders(), "go a", "it is asked whether it knows the command");
    case.output("a", 1, "x", Some(ExecOutcome::Exited { code: 0 }));
    assert_eq!(case.events(), "a began, a: x, a exited with 0");
    // One that was restarted does not know it.
    case.presence("b", Some(session("y")));
    assert_eq!(case.orders(), "go b");
    case.output("b", 0, "", Some(ExecOutcome::Unknown));
    assert!(case.events().starts_with("b failed: the agent was restarted"));
    assert!(case.run.is_over());
}

#[test]
fn one_that_stays_away_is_to_stop_when_it_comes_back() {
    let mut case = Case::new("a", "a", |_| {});
    case.begins("a");
    case.presence("a", None);
    assert!(case.run.is_over());
    case.orders();
    let record = case.run.close(&NodeOutcome::Lost, at(case.now));
    assert_eq!(record.nodes[&id("a")].outcome, NodeOutcome::CutOff { began: true });
    case.take();
    assert_eq!(case.orders(), "stop a");
}

#[test]
fn stopping_ends_for_certain() {
    let mut case = Case::new("abc", "abc", |request| request.at_once = Some(2));
    case.begins("a");
    case.begins("b");
    case.orders();
    case.events();
    case.stop();
    assert_eq!((case.orders().as_str(), case.events().as_str()), ("stop a, stop b", "c stopped"));
    case.output("a", 1, "", Some(ExecOutcome::Stopped));
    case.pass(LATE);
    assert!(case.orders().starts_with("stop b, stop b"), "it is told again until it answers");
    assert_eq!(case.events(), "a stopped, b lost: its end was not reported");
    assert!(case.run.is_over());
    assert_eq!(case.run.close(&NodeOutcome::Lost, at(case.now)).result, CommandResult::Stopped);
}

#[test]
fn one_that_was_not_stopped_before_its_go_is_stopped_after_it() {
    // Before the go it is certain.
    let mut case = Case::new("a", "a", |_| {});
    case.orders();
    case.stop();
    assert_eq!((case.orders().as_str(), case.events().as_str()), ("stop a", "a stopped"));
    assert!(case.run.is_over());
    case.ready("a");
    assert_eq!(case.orders(), "");
    // After it the node has to answer.
    let mut case = Case::new("a", "a", |_| {});
    case.ready("a");
    case.stop();
    case.pass(AGAIN);
    assert_eq!(case.orders(), "run a, go a, stop a, stop a", "no go follows");
    case.output("a", 0, "", None);
    case.output("a", 1, "", Some(ExecOutcome::Stopped));
    assert_eq!(case.events(), "a began, a stopped");
    // The stop came first.
    let mut case = Case::new("a", "a", |_| {});
    case.ready("a");
    case.stop();
    case.output("a", 0, "", Some(refused()));
    assert_eq!(case.events(), "a stopped");
    // Neither comes.
    let mut case = Case::new("a", "a", |_| {});
    case.ready("a");
    case.stop();
    case.pass(ANSWER);
    assert_eq!(case.events(), "a cut off: may have run");
}

#[test]
fn an_end_that_never_comes_is_given_up() {
    let mut case = Case::new("a", "a", |_| {});
    case.begins("a");
    case.pass(Duration::from(TIMEOUT) + LATE - Duration::from_secs(1));
    assert!(!case.run.is_over());
    case.output("a", 1, "still here", None);
    case.pass(LATE - Duration::from_secs(1));
    assert!(!case.run.is_over(), "words that still come are waited for");
    case.events();
    case.orders();
    case.pass(Duration::from_secs(1));
    assert_eq!((case.events().as_str(), case.orders().as_str()), ("a lost: its end was not reported", "stop a"));
}

#[test]
fn a_planner_that_ends_says_what_was_open() {
    let mut case = Case::new("ab", "ab", |_| {});
    case.ends("a", 0);
    case.begins("b");
    case.stop();
    let record = case.run.close(&NodeOutcome::Interrupted, at(case.now));
    assert_eq!(record.result, CommandResult::Interrupted);
    let outcomes: Vec<String> = record.nodes.values().map(|node| node.outcome.to_string()).collect();
    assert_eq!(outcomes, ["exited with 0", "interrupted: the planner ended first"]);
}

#[test]
fn no_more_is_taken_than_the_order_allows() {
    let mut case = Case::new("a", "a", |request| request.output_limit = 10);
    for (number, text) in ["abcd", "efgh", "ijkl", "mnop"].into_iter().enumerate() {
        case.output("a", number as u64, text, None);
    }
    assert_eq!(case.events(), "a began, a: abcd, a: efgh, a: ij");
    case.output("a", 4, "", Some(ExecOutcome::Exited { code: 0 }));
    assert_eq!(case.run.record().nodes[&id("a")].omitted, 6);
}
