//! Commands of `groundplan exec` that were given up: a broker keeps an order or its go back, or the agent was paused meanwhile. What was
//! reported as not run never runs.

use std::{
    sync::mpsc,
    time::{Duration, Instant},
};

use groundplan_protocol::{
    envelope,
    exec::{Exec, Order, READY_LIMIT},
    ids::SiteName,
};
use groundplan_tests::{
    between::{Between, Fate},
    brokers::Kind,
    fleet::{Fleet, SITE},
    live::Ended,
};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

const FILES: [(&str, &str); 2] = [("site.toml", "name = \"testsite\"\n"), ("inventory/nodes.toml", "[nodes.n1]\n")];

/// A planner on the broker, and an agent that reaches it through the party between.
fn site() -> (Fleet, Between) {
    let mut fleet = Fleet::new(Kind::Embedded, &FILES);
    fleet.start_planner("one");
    let between = Between::start(fleet.broker.address());
    fleet.broker.stand_in(between.address());
    fleet.start_agent("n1");
    fleet.wait("the agent", || {
        let status = fleet.ask("one", &["status"])?;
        let planning = status["planner"]["role"]["is"] == "planning";
        (planning && !status["nodes"][0]["session"].is_null()).then_some(())
    });
    (fleet, between)
}

fn exec(fleet: &Fleet, line: &str) -> Ended {
    let mut live = fleet.run("one", &["exec", line, "--on", "n1"]);
    fleet.wait("the command to end", || live.ended())
}

/// The order, if the message is one.
fn order(topic: &str, payload: &[u8]) -> Option<Order> {
    let site = SiteName::new(SITE).expect("a site");
    let recipient = Fleet::node_key("n1").decryption();
    let exec = envelope::open_for::<Exec>(payload, &[Fleet::planner_key().public()], &site, &recipient);
    topic.ends_with("/exec").then(|| exec.expect("an order").order)
}

/// Another command runs, and ends after whatever may have begun before it.
fn ran(fleet: &Fleet) -> bool {
    let ended = exec(fleet, "sleep 0.2");
    assert_eq!(ended.code, Some(0), "{ended:?}");
    fleet.file("n1", "ran").is_some()
}

fn signal(fleet: &Fleet, signal: Signal) {
    kill(Pid::from_raw(fleet.agent_pid("n1").cast_signed()), signal).expect("an agent");
}

/// The agent gave the order up, which is shown in its log.
fn expired(fleet: &Fleet) {
    let reason = format!("the planner did not confirm within {READY_LIMIT} that it is to be run");
    fleet.wait("the order to expire", || fleet.logged("n1").contains(&reason).then_some(()));
}

#[test]
fn an_order_that_was_kept_back_never_runs() {
    let (fleet, between) = site();
    // The first order is kept back; its repetitions, and the order to stop it, are dropped.
    let mut first = true;
    between.judge(move |topic, payload| match order(topic, payload) {
        None => Fate::Pass,
        Some(_) if std::mem::take(&mut first) => Fate::Hold,
        Some(_) => Fate::Drop,
    });
    let ended = exec(&fleet, "touch ran");
    assert_eq!(ended.code, Some(4), "{ended:?}");
    between.judge(|_, _| Fate::Pass);
    between.release();
    fleet.wait("the order", || fleet.logged("n1").contains("command ").then_some(()));
    assert!(!ran(&fleet), "it ran after this was shown: {ended:?}");
    assert!(ended.out.contains("cut off: not run: 1 node (n1)"), "{ended:?}");
}

/// No go comes: neither from the planner, which has given it up, nor in any other way.
#[test]
fn an_order_without_a_go_expires() {
    let (fleet, between) = site();
    between.judge(|topic, payload| match order(topic, payload) {
        Some(Order::Go { .. }) => Fate::Hold,
        Some(Order::Stop) => Fate::Drop,
        _ => Fate::Pass,
    });
    let ended = exec(&fleet, "touch ran");
    assert_eq!(ended.code, Some(4), "{ended:?}");
    assert!(ended.out.contains("cut off: may have run: 1 node (n1)"), "{ended:?}");
    assert!(between.held() > 0);
    expired(&fleet);
    between.judge(|_, _| Fate::Pass);
    between.release();
    assert!(!ran(&fleet));
}

#[test]
fn an_agent_that_was_paused_does_not_run_an_order_later() {
    let (fleet, _between) = site();
    signal(&fleet, Signal::SIGSTOP);
    let ended = exec(&fleet, "touch ran");
    signal(&fleet, Signal::SIGCONT);
    assert_eq!(ended.code, Some(4), "{ended:?}");
    assert!(!ran(&fleet), "it ran after this was shown: {ended:?}");
    assert!(ended.out.contains("cut off: not run: 1 node (n1)"), "{ended:?}");
}

/// Paused between its answer and the go, for longer than the go holds.
#[test]
fn an_agent_that_was_paused_does_not_obey_a_go_later() {
    let (fleet, between) = site();
    let agent = Pid::from_raw(fleet.agent_pid("n1").cast_signed());
    let (seen, go) = mpsc::channel();
    between.judge(move |topic, payload| match order(topic, payload) {
        Some(Order::Go { .. }) => {
            kill(agent, Signal::SIGSTOP).expect("an agent");
            // The test may have seen the first, and listen no more.
            let _ = seen.send(Instant::now());
            Fate::Pass
        }
        Some(Order::Stop) => Fate::Drop,
        _ => Fate::Pass,
    });
    let ended = exec(&fleet, "touch ran");
    assert!(ended.out.contains("cut off: may have run: 1 node (n1)"), "{ended:?}");
    // The agent's answer came before the go.
    let since = go.recv().expect("a go");
    fleet.wait("the go to be late", || (since.elapsed() > Duration::from(READY_LIMIT)).then_some(()));
    between.judge(|_, _| Fate::Pass);
    signal(&fleet, Signal::SIGCONT);
    expired(&fleet);
    assert!(!ran(&fleet));
}
