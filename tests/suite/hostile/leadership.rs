//! Presences of planners that were signed once and are delivered again: they neither keep a planner on standby nor have it take over.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use groundplan_protocol::{
    envelope::{self, seal},
    ids::SiteName,
    presence::PlannerPresence,
};
use groundplan_tests::{
    between::{Between, Fate},
    brokers::Kind,
    fleet::{Fleet, SITE},
    publish::publish,
};

const FILES: [(&str, &str); 2] = [("site.toml", "name = \"testsite\"\n"), ("inventory/nodes.toml", "[nodes.n1]\n")];

fn presence(topic: &str, payload: &[u8]) -> Option<PlannerPresence> {
    let site = SiteName::new(SITE).expect("a site");
    let opened = || envelope::open::<PlannerPresence>(payload, &[Fleet::planner_key().public()], &site);
    topic.ends_with("/planner").then(|| opened().expect("a planner's presence"))
}

fn topic() -> String {
    format!("groundplan/1/{SITE}/planner")
}

fn role(fleet: &Fleet, planner: &str) -> Option<String> {
    fleet.ask(planner, &["status"])?["planner"]["role"]["is"].as_str().map(str::to_owned)
}

/// Presences of one that was online, and the messages that they came in.
type Recorded = Arc<Mutex<Vec<(PlannerPresence, Vec<u8>)>>>;

/// Two planners, of which `one` plans and `two` reaches the broker through the party between; and all that `one` publishes of its presence
/// for `two`, as the broker has it.
struct Pair {
    fleet: Fleet,
    /// Where the broker is for `one` and for the attacker.
    broker: std::net::SocketAddr,
    recorded: Recorded,
    /// Whether the broker keeps to itself that `one` is offline.
    hushed: Arc<AtomicBool>,
    _between: Between,
}

fn pair() -> Pair {
    let mut fleet = Fleet::new(Kind::Embedded, &FILES);
    let broker = fleet.broker.address();
    fleet.start_planner("one");
    fleet.wait("the first to plan", || (role(&fleet, "one")? == "planning").then_some(()));
    let between = Between::start(broker);
    let (recorded, hushed): (Recorded, Arc<AtomicBool>) = Default::default();
    let (record, hush) = (Arc::clone(&recorded), Arc::clone(&hushed));
    between.judge(move |topic, payload| match presence(topic, payload) {
        Some(presence) if presence.online => {
            record.lock().expect("no panic").push((presence, payload.to_vec()));
            Fate::Pass
        }
        // Challenges are not retained, and come from the other.
        Some(presence) if presence.term == 0 && hush.load(Ordering::Relaxed) && !is_challenge(payload) => Fate::Drop,
        _ => Fate::Pass,
    });
    fleet.broker.stand_in(between.address());
    fleet.start_planner("two");
    fleet.wait("the second to stand by", || (role(&fleet, "two")? == "standby").then_some(()));
    // The one that plans has answered it at least once.
    fleet.wait("an answer", || {
        recorded.lock().expect("no panic").iter().any(|(presence, _)| presence.answer.is_some()).then_some(())
    });
    Pair { fleet, broker, recorded, hushed, _between: between }
}

fn is_challenge(payload: &[u8]) -> bool {
    presence("/planner", payload).is_some_and(|presence| presence.challenge.is_some())
}

#[test]
fn a_lost_planners_presence_does_not_keep_another_on_standby() {
    let Pair { mut fleet, broker, recorded, hushed, _between } = pair();
    hushed.store(true, Ordering::Relaxed);
    fleet.kill_planner("one");
    let payloads: Vec<Vec<u8>> =
        recorded.lock().expect("no panic").iter().map(|(_, payload)| payload.clone()).collect();
    let mut last = None;
    fleet.wait("the second to take over", || {
        // All of it each second, retained as it was.
        if last.is_none_or(|last: Instant| last.elapsed() > Duration::from_secs(1)) {
            payloads.iter().for_each(|payload| publish(broker, &topic(), payload.clone(), true));
            last = Some(Instant::now());
        }
        (role(&fleet, "two")? == "planning").then_some(())
    });
    // Nor does it end what it has begun.
    payloads.iter().for_each(|payload| publish(broker, &topic(), payload.clone(), true));
    let commit = fleet.commit(&[("site.toml", "name = \"testsite\"\nvars = { a = 1 }\n")], "after it");
    fleet.wait("the commit", || fleet.rollout_of("two", &commit));
    assert_eq!(role(&fleet, "two").as_deref(), Some("planning"));
}

#[test]
fn a_last_will_of_before_takes_nothing_over() {
    let Pair { fleet, broker, recorded, .. } = pair();
    let online = recorded.lock().expect("no panic")[0].0.clone();
    // What its planner gave the broker when it connected.
    let will = PlannerPresence { online: false, term: 0, answer: None, revision: 0, ..online };
    let will = seal(&Fleet::planner_key(), &will);
    let answers = || {
        let recorded = recorded.lock().expect("no panic");
        recorded.iter().filter_map(|(presence, _)| presence.answer.clone()).collect::<std::collections::BTreeSet<_>>()
    };
    let before = answers().len();
    // Until so many of them were answered for.
    fleet.wait("the second to be misled", || {
        publish(broker, &topic(), will.clone(), true);
        (answers().len() > before + 5 || role(&fleet, "two")? == "planning").then_some(())
    });
    assert_eq!((role(&fleet, "one").as_deref(), role(&fleet, "two").as_deref()), (Some("planning"), Some("standby")));
    assert!(!fleet.logged("planner-two").contains("planning in term"), "{}", fleet.logged("planner-two"));
}
