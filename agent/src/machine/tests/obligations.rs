//! Obligations: when they are met, by which run, and when they end.

use groundplan_protocol::{effect::Effect as Fire, state::Phase};

use super::*;

#[test]
fn a_restart_that_began_before_a_change_is_repeated() {
    let mut bench = applied(&["a", "b"]);
    let change = |version| vec![planned("a", Action::Update, version, &[]), restarted("b", Action::Restart, 1, &["a"])];
    offer(&mut bench, 2, change(2));
    bench.finish("a", CHANGED);
    assert_eq!(bench.running(), "b:only+restart");
    offer(&mut bench, 3, change(3));
    bench.finish("a", CHANGED);
    bench.finish("b", RESTARTED);
    assert_eq!(bench.running(), "b:only+restart", "the first restart read the old state");
    bench.finish("b", RESTARTED);
    assert!(bench.disk.obligations.is_empty());
    assert_eq!(bench.machine.phase(), Phase::Idle);
}

#[test]
fn a_removed_task_has_no_obligation() {
    let mut bench = applied(&["a", "b"]);
    offer(&mut bench, 2, vec![planned("a", Action::Update, 2, &[]), restarted("b", Action::Restart, 1, &["a"])]);
    bench.finish("a", CHANGED);
    bench.finish("b", Err("no"));
    offer(&mut bench, 3, vec![planned("b", Action::Remove, 0, &[])]);
    assert_eq!(bench.running(), "b:remove");
    bench.finish("b", CHANGED);
    assert!(bench.disk.obligations.is_empty() && !bench.disk.applied.contains_key(&task("b")));
    assert_eq!(bench.machine.phase(), Phase::Idle);
}

#[test]
fn an_obligation_that_is_already_fulfilled_runs_once() {
    let mut bench = applied(&["a", "b"]);
    offer(&mut bench, 2, vec![planned("a", Action::Update, 2, &[]), restarted("b", Action::Restart, 1, &["a"])]);
    bench.finish("a", CHANGED);
    bench.finish("b", RESTARTED);
    // The planner has not received the report when it makes these plans, and some never arrive.
    let due = |since: Option<u64>| PlannedTask {
        obligation: Some(Fire::Restart),
        since: since.map(Generation),
        ..planned("b", Action::Restart, 1, &[])
    };
    offer(&mut bench, 3, vec![due(Some(2))]);
    assert_eq!(bench.running(), "");
    offer(&mut bench, 7, vec![due(Some(2))]);
    assert_eq!(bench.running(), "", "whatever the number of plans between");
    kill(&mut bench);
    offer(&mut bench, 8, vec![due(Some(1))]);
    assert_eq!(bench.running(), "", "and the ledger knows");
    offer(&mut bench, 9, vec![due(Some(3))]);
    assert_eq!(bench.running(), "b:only+restart", "something fired for a plan that was not carried out");
    bench.finish("b", RESTARTED);
    offer(&mut bench, 10, vec![due(None)]);
    assert_eq!(bench.running(), "b:only+restart", "something fired of which no plan knew");
}

#[test]
fn a_run_for_an_older_plan_meets_what_was_due_when_it_began() {
    let mut bench = bench();
    let create = || planned("b", Action::Create, 1, &[]);
    offer(&mut bench, 1, vec![planned("a", Action::Create, 1, &[]), restarted("b", Action::Create, 1, &["a"])]);
    bench.finish("a", CHANGED);
    // Plans follow that were made before the end of `b` was known.
    offer(&mut bench, 2, vec![create()]);
    offer(&mut bench, 4, vec![create()]);
    assert_eq!(bench.running(), "b:apply+restart");
    bench.finish("b", RESTARTED);
    assert_eq!((bench.running().as_str(), bench.machine.phase()), ("", Phase::Idle));
    assert!(bench.disk.obligations.is_empty());
}

#[test]
fn an_obligation_that_is_being_fulfilled_is_not_fulfilled_again() {
    for (since, running) in [(Some(1), ""), (Some(2), ""), (Some(3), "b:only+restart"), (None, "b:only+restart")] {
        let mut bench = applied(&["a", "b"]);
        offer(&mut bench, 2, vec![planned("a", Action::Update, 2, &[]), restarted("b", Action::Restart, 1, &["a"])]);
        bench.finish("a", CHANGED);
        assert_eq!(bench.running(), "b:only+restart");
        let since = since.map(Generation);
        let due = PlannedTask { obligation: Some(Fire::Restart), since, ..planned("b", Action::Restart, 1, &[]) };
        offer(&mut bench, 4, vec![due]);
        bench.finish("b", RESTARTED);
        assert_eq!(bench.running(), running, "{since:?}");
    }
}

#[test]
fn a_source_of_an_older_plan_is_decided_at_its_own_end() {
    for (result, effect) in [(CHANGED, "+restart"), (UNCHANGED, ""), (Err("broken"), "+restart")] {
        let mut bench = applied(&["config", "server"]);
        offer(
            &mut bench,
            2,
            vec![planned("config", Action::Update, 2, &[]), restarted("server", Action::Restart, 1, &["config"])],
        );
        // The newer plan has both, and no edge between them.
        let newer = vec![planned("config", Action::Update, 3, &[]), planned("server", Action::Update, 2, &[])];
        offer(&mut bench, 3, newer);
        assert_eq!(bench.running(), "config:apply");
        bench.finish("config", result);
        assert_eq!(bench.running(), format!("config:apply server:apply{effect}"));
        bench.finish("server", if effect.is_empty() { CHANGED } else { RESTARTED });
        bench.finish("config", CHANGED);
        assert_eq!(bench.machine.obligations, BTreeMap::new(), "{result:?}");
        assert_eq!(bench.machine.phase(), Phase::Idle);
    }
}

#[test]
fn a_pending_task_keeps_its_obligation() {
    let mut bench = applied(&["a", "b"]);
    let mut pending = restarted("b", Action::Restart, 1, &["a"]);
    (pending.spec, pending.fingerprint) = (None, None);
    pending.gates = vec![gate("unknown")];
    offer(&mut bench, 2, vec![planned("a", Action::Update, 2, &[]), pending]);
    bench.finish("a", CHANGED);
    assert_eq!(bench.running(), "", "b waits for a newer plan");
    kill(&mut bench);
    assert_eq!(bench.running(), "");
    bench.wait(Duration::from_secs(2));
    assert!(bench.states.last().unwrap().obligations[&task("b")].fired);
    offer(&mut bench, 3, vec![planned("b", Action::Restart, 1, &[])]);
    assert_eq!(bench.jobs[&task("b")].effect, Some(Fire::Restart));
}
