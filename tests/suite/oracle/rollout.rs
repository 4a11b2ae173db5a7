//! Rollouts, carried out by simulated agents.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use groundplan_core::{
    AppliedState, Belief, Plan, Policy, Rollout, plan,
    plan::Gate,
    rollout::{StateFold, Status, Verdict},
};
use groundplan_protocol::{
    effect::Action,
    ids::{Generation, InstanceId, NodeId, Sequence},
    plan::NodePlan,
};
use proptest::prelude::*;

use super::{
    agents::{Agent, Done},
    naive::expect,
    world::{Dice, World, node_id},
};

/// Probabilities of what may go wrong, in percent.
#[derive(Clone, Copy)]
struct Luck {
    failures: usize,
    absences: usize,
    restores: usize,
    commits: usize,
    /// Commits with values that are unknown for some instances.
    unknowns: usize,
}

struct Simulation {
    world: World,
    agents: Vec<Agent>,
    beliefs: BTreeMap<NodeId, Belief>,
    /// How many reports of each agent have arrived.
    received: Vec<usize>,
    plan: Plan,
    rollout: Rollout,
    messages: BTreeMap<NodeId, NodePlan>,
    log: Vec<Done>,
    stale: bool,
}

impl Simulation {
    fn new(earlier: &World, world: World) -> Self {
        let mut applied = AppliedState::of(&earlier.desired());
        let mut known = |node: &NodeId| applied.nodes.remove(node).unwrap_or_default();
        let agents: Vec<_> = world
            .nodes
            .iter()
            .map(|n| node_id(*n))
            .map(|n| (n.clone(), Arc::unwrap_or_clone(known(&n).tasks)))
            .collect();
        let mut agents: Vec<_> = agents.into_iter().map(|(node, tasks)| Agent::new(node, tasks)).collect();
        let mut beliefs: BTreeMap<NodeId, Belief> = BTreeMap::new();
        for agent in &mut agents {
            let state = agent.state();
            beliefs.entry(agent.node.clone()).or_default().fold_state(&state);
        }
        let received = vec![0; agents.len()];
        let rollout = Rollout::new(&Plan::default(), Generation(0));
        let (plan, messages) = (Plan::default(), BTreeMap::new());
        let mut new = Self { world, agents, beliefs, received, plan, rollout, messages, log: Vec::new(), stale: false };
        new.supersede();
        new
    }

    fn base(&self) -> AppliedState {
        let mut applied = AppliedState::default();
        for (node, belief) in &self.beliefs {
            applied.insert(node.clone(), belief);
        }
        self.rollout.carry_obligations(&mut applied, |_| true);
        applied
    }

    fn supersede(&mut self) {
        let desired = self.world.desired();
        let mut base = self.base();
        self.rollout.carry_late_changes(&desired, &mut base);
        self.plan = plan(&desired, &base, &Policy::default());
        let generation = self.rollout.generation().next();
        let mut rollout = Rollout::new(&self.plan, generation);
        rollout.take_over_turns(&self.rollout, &desired);
        self.rollout = rollout;
        let commit: groundplan_protocol::ids::CommitId = "0".repeat(40).parse().unwrap();
        for agent in &self.agents {
            let part = self.plan.nodes.get(&agent.node).cloned().unwrap_or_default();
            let whose = (agent.node.clone(), Some(agent.ledger()));
            let message = part.node_plan(desired.site.clone(), whose, generation, commit.clone());
            self.messages.insert(agent.node.clone(), message);
            self.rollout.presence(&agent.node, agent.online);
        }
        self.rollout.advance();
        self.stale = false;
    }

    /// One event. Returns whether it was possible.
    fn step(&mut self, dice: &mut Dice<'_>, luck: Luck) -> bool {
        let i = dice.below(self.agents.len());
        let what = dice.below(6);
        if dice.chance(luck.absences) {
            self.agents[i].online = !self.agents[i].online;
            self.rollout.presence(&self.agents[i].node, self.agents[i].online);
            self.rollout.advance();
        }
        if dice.chance(luck.restores) {
            let snapshot = serde_json::to_string(&self.rollout).unwrap();
            self.rollout = serde_json::from_str(&snapshot).unwrap();
        }
        if dice.chance(luck.commits) {
            self.world = self.world.changed(dice, false);
            self.world = if dice.chance(luck.unknowns) { self.world.unsure(dice) } else { self.world.sure() };
            self.supersede();
        }
        let moved = self.happen(i, what, dice, luck);
        self.check();
        moved
    }

    fn happen(&mut self, i: usize, what: usize, dice: &mut Dice<'_>, luck: Luck) -> bool {
        let agent = &mut self.agents[i];
        match what {
            0 if agent.online => {
                let message = &self.messages[&agent.node];
                let gates = self.rollout.open_gates(&agent.node);
                let news = message.generation > agent.generation || agent.gates != gates;
                agent.accept(message);
                agent.gates = gates;
                news
            }
            1 | 2 => {
                let ready = agent.ready();
                let Some(task) = ready.get(dice.below(ready.len())) else { return false };
                agent.start(*task);
                true
            }
            3 if !agent.running.is_empty() => {
                let task = dice.below(agent.running.len());
                self.log.extend(agent.finish(task, dice, luck.failures));
                true
            }
            4 if agent.online && self.received[i] < agent.reports.len() => {
                self.receive(i, self.received[i]);
                self.received[i] += 1;
                if dice.chance(20) {
                    let again = dice.below(self.received[i]);
                    self.receive(i, again);
                }
                self.rollout.advance();
                true
            }
            5 if agent.online && self.received[i] == agent.reports.len() => {
                let state = agent.state();
                let running: Vec<_> = agent.running.iter().map(|(_, task)| task.task.clone()).collect();
                self.rollout.running(&agent.node, &running);
                self.rollout.accepted(&agent.node, agent.generation, &running);
                self.rollout.advance();
                let fold = self.beliefs.get_mut(&agent.node).unwrap().fold_state(&state);
                self.stale |= fold == StateFold::Differs;
                false
            }
            _ => false,
        }
    }

    fn receive(&mut self, i: usize, number: usize) {
        let agent = &self.agents[i];
        let report = &agent.reports[number];
        let ours = report.generation == self.rollout.generation();
        let part = self.plan.nodes.get(&agent.node).filter(|_| ours);
        let planned = part.and_then(|part| part.tasks.iter().find(|task| task.task == report.task));
        let belief = self.beliefs.get_mut(&agent.node).unwrap();
        belief.fold_report(&agent.ledger(), Sequence(number as u64 + 1), report, planned);
        if number >= self.received[i] || ours {
            self.rollout.fold(&agent.node, report);
        }
    }

    /// All nodes are connected and nothing else goes wrong: continues until nothing happens any more.
    fn settle(&mut self, luck: Luck) {
        for i in 0..self.agents.len() {
            self.agents[i].online = true;
            self.rollout.presence(&self.agents[i].node, true);
        }
        self.rollout.advance();
        loop {
            let mut moved = false;
            for i in 0..self.agents.len() {
                for what in 0..6 {
                    while self.happen(i, what, &mut Dice([].iter()), luck) {
                        moved = true;
                        self.check();
                    }
                }
            }
            if !moved {
                return;
            }
        }
    }

    fn check(&mut self) {
        // What the rollout keeps as reports come is what going through all of it would find.
        let verdict = self.rollout.verdict();
        let over = matches!(verdict, Verdict::Succeeded | Verdict::Failed);
        assert_eq!(self.rollout.has_run(), over, "{verdict:?}");
        for (service, limit) in &self.world.limits {
            let name = format!("rolling/s{service}.");
            let disturbed = |agent: &&Agent| {
                agent.running.iter().any(|(_, task)| task.gates.iter().any(|g| g.as_str().starts_with(&name)))
            };
            let count = self.agents.iter().filter(disturbed).count();
            assert!(count <= *limit as usize, "s{service} is disturbed on {count} nodes at once");
        }
    }

    fn is_applied(&mut self) -> bool {
        let mut applied = AppliedState::default();
        for agent in &mut self.agents {
            let state = agent.state();
            let belief = &self.beliefs[&agent.node];
            assert_eq!(*belief.applied.tasks, state.applied, "belief of {}", agent.node);
            applied.nodes.entry(agent.node.clone()).or_default().tasks = Arc::new(state.applied);
        }
        let plan = plan(&self.world.desired(), &applied, &Policy::default());
        plan.is_empty() && plan.nodes.is_empty()
    }
}

fn bytes() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(any::<u8>(), 300..3000)
}

fn start(dice: &mut Dice<'_>) -> (World, Simulation) {
    let nodes = 2 + dice.below(4);
    let mut earlier = World::any(dice, 9, nodes);
    earlier.limits = (0..3).filter(|_| dice.chance(60)).collect::<Vec<_>>().into_iter().map(|s| (s, 1)).collect();
    if dice.chance(30) {
        earlier.limits.values_mut().for_each(|limit| *limit = 2);
    }
    let mut world = earlier.changed(dice, true);
    if dice.chance(30) {
        earlier.tasks.clear();
    }
    world.tasks.iter_mut().for_each(|t| t.on.values_mut().for_each(|v| *v = v.wrapping_add(u8::from(dice.chance(20)))));
    let simulation = Simulation::new(&earlier, world);
    (earlier, simulation)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, ..ProptestConfig::default() })]

    /// Without failures a rollout finishes, whatever the limits; each task of it is carried out once, and effects reach exactly the targets of
    /// triggers that fired.
    #[test]
    fn finishes_and_acts_once(bytes in bytes()) {
        let mut dice = Dice(bytes.iter());
        let (_, mut sim) = start(&mut dice);
        let luck = Luck { failures: 0, absences: 5, restores: 3, commits: 0, unknowns: 0 };
        let expected = expect(&sim.world, &sim.base(), &Default::default(), &Default::default());
        while !dice.0.as_slice().is_empty() {
            sim.step(&mut dice, luck);
        }
        sim.settle(luck);
        prop_assert_eq!(sim.rollout.verdict(), Verdict::Succeeded);
        prop_assert!(sim.is_applied());
        let done: BTreeMap<&InstanceId, &Done> = sim.log.iter().map(|done| (&done.instance, done)).collect();
        prop_assert_eq!(done.len(), sim.log.len());
        prop_assert_eq!(done.len(), expected.actions.len());
        for (i, action) in &expected.actions {
            let fired = |(from, to, effect): &(InstanceId, InstanceId, _)| (to == i && done.get(from)?.changed).then_some(*effect);
            let must = expected.triggers.iter().filter_map(fired).max();
            prop_assert!(*action == Action::Remove || done[i].effect == must, "{i}: {:?}, not {must:?}", done[i].effect);
        }
    }

    /// What failed blocks what depends on it, and nothing else but the turns that it keeps.
    #[test]
    fn stops_at_the_damage(bytes in bytes()) {
        let mut dice = Dice(bytes.iter());
        let (_, mut sim) = start(&mut dice);
        let luck = Luck { failures: 15, absences: 5, restores: 3, commits: 0, unknowns: 0 };
        while !dice.0.as_slice().is_empty() {
            sim.step(&mut dice, luck);
        }
        sim.settle(luck);
        let statuses: BTreeMap<_, _> = sim.rollout.statuses().map(|(i, _, status)| (i, status)).collect();
        let failed: BTreeSet<_> = statuses.iter().filter(|(_, s)| matches!(s, Status::Failed { .. })).map(|(i, _)| i.clone()).collect();
        let verdict = if failed.is_empty() { Verdict::Succeeded } else { Verdict::Failed };
        prop_assert_eq!(sim.rollout.verdict(), verdict);
        for (i, status) in &statuses {
            match status {
                Status::Done { .. } | Status::Skipped | Status::Failed { .. } => {}
                Status::Blocked { by } => prop_assert!(failed.contains(by), "{i} is blocked by {by}, which did not fail"),
                other => prop_assert!(false, "{i} is left {other:?}"),
            }
            prop_assert!(!sim.rollout.why(i).is_empty());
        }
        let order = sim.plan.nodes.iter().flat_map(|(n, p)| p.tasks.iter().map(move |t| (t.task.at(n), t)));
        for (i, task) in order.filter(|(i, _)| matches!(statuses[i], Status::Blocked { .. })) {
            let local = task.after.iter().map(|t| t.at(&i.node));
            let gates = task.gates.iter().filter_map(|gate| match &sim.plan.gates[gate] {
                Gate::Done { waits_for, .. } => Some(waits_for.clone()),
                Gate::Turn { .. } | Gate::Unknown => None,
            });
            let good = |i: &InstanceId| matches!(statuses[i], Status::Done { .. } | Status::Skipped);
            let held = !local.chain(gates.flatten()).all(|i| good(&i));
            let limited = task.gates.iter().any(|gate| matches!(sim.plan.gates[gate], Gate::Turn { .. }));
            prop_assert!(held || limited, "{i} is blocked though all before it is done");
        }
    }

    /// Newer commits during a rollout lose no obligation: whatever changed, each target of a trigger on it acts after that.
    #[test]
    fn newer_plans_lose_nothing(bytes in bytes()) {
        let mut dice = Dice(bytes.iter());
        let (_, mut sim) = start(&mut dice);
        let luck = Luck { failures: 4, absences: 5, restores: 3, commits: 4, unknowns: 40 };
        let triggers = expect(&sim.world, &sim.base(), &Default::default(), &Default::default()).triggers;
        while !dice.0.as_slice().is_empty() {
            sim.step(&mut dice, luck);
        }
        let unsure = !sim.world.tasks.iter().all(|task| task.pending.is_empty());
        let calm = Luck { failures: 0, absences: 0, restores: 0, commits: 0, unknowns: 0 };
        let mut rounds = 0;
        sim.settle(calm);
        prop_assert!(!unsure || sim.rollout.verdict() != Verdict::Succeeded);
        sim.world = sim.world.sure();
        if unsure {
            sim.supersede();
            sim.settle(calm);
        }
        while sim.stale || sim.rollout.is_outdated() || sim.rollout.verdict() != Verdict::Succeeded {
            sim.supersede();
            sim.settle(calm);
            rounds += 1;
            prop_assert!(rounds < 5, "it comes to no end: {:?}", sim.plan.actions);
        }
        prop_assert!(sim.is_applied());
        let base = sim.base();
        prop_assert!(base.nodes.values().all(|node| node.obligations.is_empty()), "{base:?}");
        for (n, done) in sim.log.iter().enumerate().filter(|(_, done)| done.changed) {
            for (_, to, _) in triggers.iter().filter(|(from, ..)| *from == done.instance) {
                let acted = sim.log[n..].iter().any(|later| later.instance == *to && later.changed);
                prop_assert!(acted, "{} changed at {:?}, and {to} never acted", done.instance, done.generation);
            }
        }
    }
}
