//! Any plan, against brute force and against itself.

use std::collections::{BTreeMap, BTreeSet};

use groundplan_core::{
    AppliedState, Check, DesiredState, Plan, Policy, Reason, plan,
    plan::{Gate, NodePart, PlanTask, PlannedAction},
    reason::UNKNOWN,
};
use groundplan_protocol::{effect::Action, ids::InstanceId, plan::TriggerSource};
use proptest::prelude::*;

use super::{
    naive::{Expected, closure, expect},
    world::{Dice, World, applied},
};

const NODES: usize = 5;

fn bytes() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(any::<u8>(), 500..1600)
}

/// A site, and nodes that have applied earlier versions of it, or some other site altogether.
fn situation(bytes: &[u8]) -> (World, AppliedState) {
    let mut dice = Dice(bytes.iter());
    let earlier = World::any(&mut dice, 12, NODES);
    let between = earlier.changed(&mut dice, true);
    let mut world = between.changed(&mut dice, true);
    let other = if dice.chance(20) { World::any(&mut dice, 12, NODES) } else { world.clone() };
    let applied = applied(&mut dice, &[&between, &world, &earlier, &other], NODES);
    if dice.chance(30) {
        world.limits = (0..3).map(|s| (s, 1 + dice.below(2) as u32)).collect();
    }
    (world, applied)
}

/// Some of what is applied and has drifted since, and some that is neither desired nor applied.
fn drifted(dice: &mut Dice<'_>, applied: &AppliedState) -> BTreeSet<InstanceId> {
    let all = applied.nodes.iter().flat_map(|(node, of)| of.tasks.keys().map(|task| task.at(node)));
    all.filter(|_| dice.chance(15)).collect()
}

fn policy(drifted: &BTreeSet<InstanceId>) -> Policy {
    let why = |i: &InstanceId| if i.node.as_str() < "n2" { Check::Asked } else { Check::Drifted("mode".to_owned()) };
    Policy { check: drifted.iter().map(|i| (i.clone(), why(i))).collect(), ..Policy::default() }
}

fn planned(plan: &Plan) -> impl Iterator<Item = (InstanceId, &PlanTask)> {
    plan.nodes.iter().flat_map(|(node, part)| part.tasks.iter().map(|task| (task.task.at(node), task)))
}

/// What waits for what, according to the plan.
fn waits(plan: &Plan) -> BTreeSet<(InstanceId, InstanceId)> {
    let mut waits = BTreeSet::new();
    for (i, task) in planned(plan) {
        waits.extend(task.after.iter().map(|t| (t.at(&i.node), i.clone())));
        for gate in &task.gates {
            if let Gate::Done { waits_for, .. } = &plan.gates[gate] {
                waits.extend(waits_for.iter().map(|w| (w.clone(), i.clone())));
            }
        }
    }
    waits
}

fn check_contents(plan: &Plan, expected: &Expected) {
    let actions: BTreeMap<_, _> = plan.actions.iter().map(|a| (a.instance.clone(), a.action)).collect();
    assert_eq!(actions.len(), plan.actions.len(), "an instance is in the plan twice");
    assert_eq!(actions, expected.actions);
    let tasks: BTreeMap<_, _> = planned(plan).map(|(i, task)| (i, task.action)).collect();
    assert_eq!(tasks, actions, "actions and node parts differ");
    let due: BTreeMap<_, _> = planned(plan).filter_map(|(i, task)| Some((i, task.obligation?.effect))).collect();
    assert_eq!(due, expected.due);
}

fn check_order(plan: &Plan, expected: &Expected) {
    let at: BTreeMap<_, _> = plan.actions.iter().enumerate().map(|(n, a)| (a.instance.clone(), n)).collect();
    let waits = waits(plan);
    for (before, after) in &waits {
        assert!(at[before] < at[after], "{after} comes before {before}, which it waits for");
    }
    for part in plan.nodes.values() {
        let mut seen = BTreeSet::new();
        for task in &part.tasks {
            assert!(task.after.iter().all(|t| seen.contains(t)), "{} comes too early", task.task);
            seen.insert(task.task.clone());
        }
    }
    let stays = |i: &InstanceId| at.contains_key(i) && expected.actions[i] != Action::Remove;
    let both = |pair: &&(InstanceId, InstanceId)| stays(&pair.0) && stays(&pair.1);
    let by_plan: BTreeSet<_> = closure(&waits.iter().filter(both).cloned().collect());
    let by_graph: BTreeSet<_> = expected.order.iter().filter(both).cloned().collect();
    assert_eq!(by_plan, by_graph, "order among what stays");
}

fn check_triggers(plan: &Plan, expected: &Expected) {
    let mut found = BTreeSet::new();
    for (to, task) in planned(plan) {
        for trigger in &task.triggers {
            match &trigger.on {
                TriggerSource::Task(from) => {
                    assert!(task.after.contains(from));
                    found.insert((from.at(&to.node), to.clone(), trigger.effect));
                }
                TriggerSource::Gate(gate) => {
                    assert!(task.gates.contains(gate));
                    let Gate::Done { waits_for, fires_on: Some(fires_on) } = &plan.gates[gate] else {
                        panic!("{gate} never fires")
                    };
                    let sources = waits_for.iter().filter(|i| i.task == *fires_on);
                    found.extend(sources.map(|from| (from.clone(), to.clone(), trigger.effect)));
                }
            }
        }
    }
    let in_plan = |i: &InstanceId| expected.actions.contains_key(i);
    let wanted: BTreeSet<_> =
        expected.triggers.iter().filter(|(from, to, _)| in_plan(from) && in_plan(to)).cloned().collect();
    assert_eq!(found, wanted);
}

fn check_reasons(plan: &Plan, expected: &Expected, drifted: &BTreeSet<InstanceId>) {
    for action in &plan.actions {
        let (last, links) = action.reasons.split_last().expect("every action has a reason");
        let mut at = action.instance.clone();
        for (n, link) in links.iter().enumerate() {
            let Reason::Triggered { by, effect } = link else { panic!("{link} does not end its chain") };
            assert!(expected.triggers.contains(&(by.clone(), at.clone(), *effect)), "{by} does not {effect} {at}");
            assert!(n > 0 || action.action == effect.action(), "the chain explains another action");
            at = by.clone();
        }
        match (last, expected.actions[&at]) {
            (Reason::Added { .. }, Action::Create) | (Reason::Removed { .. }, Action::Remove) => {}
            (Reason::Changed { input, .. }, Action::Update) => assert!(input == "var v" || input == UNKNOWN),
            (Reason::Asked { .. } | Reason::Drifted { .. }, Action::Update) => assert!(drifted.contains(&at)),
            (Reason::Obligation { effect, .. }, _) => assert_eq!(expected.obligations[&at], *effect),
            (reason, action) => panic!("{action} of {at} because {reason}"),
        }
    }
}

/// Where all ledgers record one order, removals are in its reverse.
fn check_removals(plan: &Plan, expected: &Expected) {
    let at: BTreeMap<_, _> = plan.actions.iter().enumerate().map(|(n, a)| (a.instance.clone(), n)).collect();
    for (gone, dependent) in &expected.depended {
        if expected.actions.get(dependent) == Some(&Action::Remove) {
            assert!(at[dependent] < at[gone], "{gone} is removed before {dependent}");
        }
    }
}

/// What a pending instance holds back is exactly what comes after it: by the site's edges, or by what a removal waits for.
fn check_held(plan: &Plan, expected: &Expected) {
    let held: BTreeSet<_> =
        plan.actions.iter().filter(|a| !a.waits_for.is_empty()).map(|a| a.instance.clone()).collect();
    let waits = waits(plan);
    for action in &plan.actions {
        let i = &action.instance;
        let removed = action.action == Action::Remove;
        let behind = waits.iter().any(|(before, after)| after == i && held.contains(before));
        let required = expected.depended.iter().any(|(gone, by)| gone == i && expected.pending.contains(by));
        let must = behind || if removed { required } else { expected.held.contains(i) };
        assert_eq!(held.contains(i), must, "{i}, {}", action.action);
    }
    let found: BTreeSet<_> = plan.pending.iter().map(|pending| pending.instance.clone()).collect();
    assert_eq!(found, expected.pending);
    for (i, task) in planned(plan) {
        let direct = expected.held.contains(&i) && task.action != Action::Remove;
        let gated = task.gates.iter().any(|gate| plan.gates[gate] == Gate::Unknown);
        assert!(gated || !direct, "{i} is let go");
        assert!(held.contains(&i) || !gated, "{i} waits for nothing");
    }
}

/// Once a plan is carried out, nothing is planned but what it held back.
fn check_nothing_is_left(plan: &Plan, desired: &DesiredState, applied: &mut AppliedState, policy: &Policy) {
    applied.apply(plan);
    let waiting: BTreeSet<_> = plan.actions.iter().filter(|a| !a.waits_for.is_empty()).map(|a| &a.instance).collect();
    let again = groundplan_core::plan(desired, applied, policy);
    assert!(again.actions.iter().all(|a| waiting.contains(&a.instance)), "{:?}", again.actions);
    let recorded = |node: &NodePart| node.edges.is_empty();
    assert!(!waiting.is_empty() || again.nodes.values().all(recorded), "{:?}", again.nodes);
}

fn run(desired: &DesiredState, applied: &AppliedState) -> Plan {
    plan(desired, applied, &Policy::default())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    /// A plan is exactly the changes and what trigger edges reach, in exactly the order that the site
    /// declares; it is explained, and empty once it is applied. What has drifted counts as changed.
    #[test]
    fn agrees_with_brute_force(bytes in bytes()) {
        let (world, mut applied) = situation(&bytes);
        let desired = world.desired();
        let drifted = drifted(&mut Dice(bytes.iter().rev().copied().collect::<Vec<_>>().iter()), &applied);
        let plan = plan(&desired, &applied, &policy(&drifted));
        let expected = expect(&world, &applied, &drifted, &BTreeSet::new());
        check_contents(&plan, &expected);
        check_order(&plan, &expected);
        check_triggers(&plan, &expected);
        check_reasons(&plan, &expected, &drifted);
        check_held(&plan, &expected);
        check_nothing_is_left(&plan, &desired, &mut applied, &Policy::default());
    }

    /// The same where nodes are parked: nothing on other nodes waits for them, or is triggered from there.
    #[test]
    fn agrees_where_nodes_are_parked(bytes in bytes()) {
        let (world, mut applied) = situation(&bytes);
        let world = world.unsure(&mut Dice(bytes.iter()));
        let desired = world.desired();
        let mut dice = Dice(bytes.iter());
        let parked: BTreeSet<_> = desired.nodes.iter().filter(|_| dice.chance(30)).cloned().collect();
        let policy = Policy { parked: parked.clone(), ..Policy::default() };
        let plan = plan(&desired, &applied, &policy);
        // What a removal on a parked node does elsewhere depends on where the edge is recorded: scenarios show it.
        let removes = |a: &PlannedAction| a.action == Action::Remove && parked.contains(&a.instance.node);
        prop_assume!(!plan.actions.iter().any(removes));
        let expected = expect(&world, &applied, &BTreeSet::new(), &parked);
        check_contents(&plan, &expected);
        check_order(&plan, &expected);
        check_triggers(&plan, &expected);
        check_reasons(&plan, &expected, &BTreeSet::new());
        check_held(&plan, &expected);
        check_nothing_is_left(&plan, &desired, &mut applied, &policy);
    }

    /// The same where values for some instances are unknown; and what is held back is exactly what comes after these.
    #[test]
    fn agrees_where_something_is_unknown(bytes in bytes()) {
        let (world, mut applied) = situation(&bytes);
        let world = world.unsure(&mut Dice(bytes.iter()));
        let desired = world.desired();
        let drifted = drifted(&mut Dice(bytes.iter().rev().copied().collect::<Vec<_>>().iter()), &applied);
        let plan = plan(&desired, &applied, &policy(&drifted));
        let expected = expect(&world, &applied, &drifted, &BTreeSet::new());
        check_contents(&plan, &expected);
        check_order(&plan, &expected);
        check_triggers(&plan, &expected);
        check_reasons(&plan, &expected, &drifted);
        check_held(&plan, &expected);
        check_nothing_is_left(&plan, &desired, &mut applied, &Policy::default());
    }

    /// Removal runs in reverse.
    #[test]
    fn removes_dependents_first(bytes in bytes()) {
        let mut dice = Dice(bytes.iter());
        let earlier = World::any(&mut dice, 12, NODES);
        let world = earlier.changed(&mut dice, true);
        let applied = AppliedState::of(&earlier.desired());
        check_removals(&run(&world.desired(), &applied), &expect(&world, &applied, &BTreeSet::new(), &BTreeSet::new()));
    }

    /// What is applied needs no plan; and the order of the input does not change the plan, byte for byte.
    #[test]
    fn is_idempotent_and_deterministic(bytes in bytes()) {
        let (world, applied) = situation(&bytes);
        let desired = world.desired();
        let nothing = run(&desired, &AppliedState::of(&desired));
        prop_assert!(nothing.is_empty() && nothing.nodes.is_empty());

        let mut shuffled = world.clone();
        for task in &mut shuffled.tasks {
            task.edges.reverse();
            let n = task.edges.len();
            task.edges.rotate_left(n / 2);
        }
        let nodes = applied.nodes.iter().rev().map(|(n, a)| (n.clone(), a.clone())).collect();
        let other = AppliedState { nodes, ..AppliedState::default() };
        let (a, b) = (run(&desired, &applied), run(&shuffled.desired(), &other));
        prop_assert_eq!(format!("{a:?}"), format!("{b:?}"));
    }
}
