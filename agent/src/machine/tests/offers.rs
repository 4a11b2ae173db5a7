//! Which plans an agent takes, and which it refuses.

use groundplan_protocol::blob::{BlobRef, Content};

use super::*;

#[test]
fn invalid_and_older_plans_are_refused() {
    let mut bench = bench();
    offer(&mut bench, 5, vec![planned("a", Action::Create, 1, &[])]);
    let before = bench.disk.clone();
    let refused = |bench: &mut Bench, plan: NodePlan| {
        bench.offer(&plan);
        bench.wait(Duration::from_secs(2));
        bench.states.last().unwrap().refused.clone()
    };
    assert_eq!(
        refused(&mut bench, node_plan(5, vec![planned("a", Action::Create, 1, &[])])),
        None,
        "the same plan again"
    );
    let mut elsewhere = node_plan(6, Vec::new());
    elsewhere.node = NodeId::new("other").unwrap();
    let mut large = planned("a", Action::Create, 1, &[]);
    let blob = BlobRef { sha256: Digest::of(b""), size: 2 << 30 };
    large.spec.as_mut().unwrap().content = Some(Content::Blob(blob));
    let mut trigger = restarted("b", Action::Create, 1, &["a"]);
    trigger.after.clear();
    let a = || planned("a", Action::Create, 1, &[]);
    for (plan, word) in [
        (node_plan(4, Vec::new()), "older than generation 5"),
        (node_plan(5, Vec::new()), "other content"),
        (elsewhere, "for node `other`"),
        (node_plan(6, vec![large]), "2 GiB; the limit is 1000 bytes"),
        (node_plan(6, vec![a(), a()]), "twice"),
        (node_plan(6, vec![planned("b", Action::Create, 1, &["a"]), a()]), "not listed before it"),
        (node_plan(6, vec![a(), trigger]), "does not wait for"),
        (node_plan(6, vec![PlannedTask { spec: None, ..a() }]), "lacks a spec"),
    ] {
        let refused = refused(&mut bench, plan).unwrap();
        assert!(refused.reason.contains(word), "{refused:?}");
    }
    assert_eq!(bench.disk.plan, before.plan);
    assert_eq!(bench.running(), "a:apply", "the current plan goes on");
}

#[test]
fn an_offer_counts_for_one_ledger_and_for_a_time_and_only_of_the_latest_planner() {
    let mut bench = bench();
    bench.now.wall_ms = 2_000_000_000_000;
    let key = SigningKey::from_seed([1; 32]);
    let offer = |bench: &mut Bench, plan: NodePlan, term, not_after_ms| {
        let of = (plan.site.clone(), plan.node.clone(), plan.generation);
        let times = (1_900_000_000_000, not_after_ms);
        bench.handle(Event::Plan(Box::new(PlanOffer::new(&key, term, of, PlanText::of(&plan), times))));
        bench.wait(Duration::from_secs(2));
        let state = bench.states.last().unwrap();
        (state.generation.0, state.refused.as_ref().map_or(String::new(), |refused| refused.reason.clone()))
    };
    let plan = |generation| node_plan(generation, Vec::new());
    // Replayed to a node that has lost the ledger that it was for: nothing to complain of, and nothing to carry out.
    let lost = NodePlan { ledger: Some(LedgerId::new("1".repeat(32)).unwrap()), ..plan(1) };
    assert_eq!(offer(&mut bench, lost, 1, u64::MAX), (0, String::new()));
    let (at, reason) = offer(&mut bench, NodePlan { ledger: None, ..plan(1) }, 1, u64::MAX);
    assert_eq!((at, reason.as_str()), (0, "names no ledger"));
    let (at, reason) = offer(&mut bench, plan(1), 1, 1_999_999_000_000);
    assert!(at == 0 && reason.contains("expired 10"), "{at} {reason}");
    assert_eq!(offer(&mut bench, plan(1), 3, u64::MAX).0, 1);
    let (at, reason) = offer(&mut bench, plan(2), 2, u64::MAX);
    assert!(at == 1 && reason.contains("in term 2; one in term 3"), "{at} {reason}");
    // Also after a restart; a host without a clock goes by the last plan that it took.
    kill(&mut bench);
    assert!(offer(&mut bench, plan(2), 2, u64::MAX).1.contains("one in term 3"));
    bench.now.wall_ms = 5;
    let (at, reason) = offer(&mut bench, plan(2), 3, 1_800_000_000_000);
    assert!(at == 1 && reason.contains("expired 100000000 s ago"), "{at} {reason}");
    assert_eq!(offer(&mut bench, plan(2), 3, 1_950_000_000_000).0, 2);
    // With the receipt of another one, a planner could not find out what it has.
    let (one, other) = (offered(&plan(3)), offered(&node_plan(3, vec![planned("a", Action::Create, 1, &[])])));
    bench.handle(Event::Plan(Box::new(PlanOffer { receipt: other.receipt, ..one })));
    bench.wait(Duration::from_secs(2));
    assert!(bench.states.last().unwrap().refused.as_ref().unwrap().reason.contains("receipt of another"));
}
