//! The end of a world: faults stop, everything comes to rest, and what is then there is judged.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use groundplan_agent::machine::Write;
use groundplan_core::{AppliedState, DesiredState, NodeApplied, Policy, plan, rollout::Status};
use groundplan_machine::{
    Input, Machine, View,
    ids::RequestId,
    io::{Request, Settings},
};
use groundplan_protocol::{
    ids::{Generation, NodeId, Sequence, TaskId},
    kinds::TaskParams,
    state::Phase,
};

use super::{
    super::{broker::Client, process::Agent, record::links_of},
    Event, World,
};

/// The longest that a world may take to come to rest, in virtual time.
const PATIENCE: Duration = Duration::from_secs(400);
/// For how long it must stay at rest.
const REST: u32 = 4;
/// Most ledgers of a node that a planner remembers.
const PAST: usize = 16;

impl World {
    pub(super) fn settle(&mut self) {
        if self.violation.is_some() {
            return;
        }
        self.note(|| "=== faults stop".to_owned());
        self.faulty = false;
        for slot in 0..self.agents.len() {
            self.agents[slot].away_until = Duration::ZERO;
            self.agents[slot].fuel = None;
            self.agents[slot].link.partitioned_until = Duration::ZERO;
            self.after(Duration::from_millis(10), Event::StartAgent(slot));
        }
        for slot in 0..self.planners.len() {
            self.planners[slot].fuel = None;
            self.planners[slot].link.partitioned_until = Duration::ZERO;
        }
        if !self.planners.iter().any(|planner| planner.wanted) {
            self.planners[0].wanted = true;
        }
        for slot in 0..self.planners.len() {
            self.after(Duration::from_millis(10), Event::StartPlanner(slot));
        }
        if self.setup.profile.replays {
            // For longer than the world may take: what keeps a planner from taking over must not last.
            self.presences.retain(|presence| presence.online);
            self.replay(10 * PATIENCE.as_secs());
        }
        self.run_until(self.now + Duration::from_secs(5));
        let views = self.planners.iter().filter_map(|planner| planner.machine.as_ref()).map(Machine::view);
        if views.into_iter().all(|view| view.active.is_none()) {
            // Planners that lost their disks while the tip has a fault know of no commit before it.
            self.commit_good();
        }
        self.add_absent_hosts();
        self.come_to_rest();
        if self.violation.is_some() {
            return;
        }
        // What failed waits for another commit.
        let leader = self.leader().and_then(|slot| self.planners[slot].machine.as_ref()).map(Machine::view);
        let active = leader.as_ref().and_then(|view| view.active.clone());
        let open = active.is_none_or(|active| !self.is_applied(&active.desired));
        let excuse = self.counts.failures > 0 || self.counts.kills > 0;
        if open && excuse {
            self.commit_good();
            self.add_absent_hosts();
            self.come_to_rest();
        }
        // Where presences come again, one planner may still take over from another, and the operator's request is lost with the other.
        if self.violation.is_none() && self.setup.profile.parks && !self.setup.profile.replays {
            self.go_on_without_parked();
        }
        if self.violation.is_none() {
            self.judge();
        }
    }

    /// A node is parked and stays away: all others come to what a further commit asks for. Then it is back.
    fn go_on_without_parked(&mut self) {
        let Some(leader) = self.leader() else { return };
        let active = self.planners[leader].machine.as_ref().map(Machine::view).and_then(|view| view.active);
        let Some(active) = active.filter(|active| self.is_applied(&active.desired)) else { return };
        let slots = 0..self.agents.len();
        let here = slots.filter(|slot| self.agents[*slot].exists && active.declares(&self.agents[*slot].node));
        let here: Vec<usize> = here.collect();
        if here.len() < 2 {
            return;
        }
        let slot = *self.rng.pick(&here);
        let node = self.agents[slot].node.clone();
        self.note(|| format!("=== {node} is parked, and away"));
        self.agents[slot].away_until = self.now + 2 * PATIENCE;
        self.kill_agent(slot, true);
        let request = Request::Park { node: node.clone(), by: "operator".into(), reason: "repair".into(), span: None };
        self.offer(leader, Input::Request(RequestId(1), request));
        self.run_until(self.now + Duration::from_secs(2));
        let mut rng = self.rng.clone();
        let sketch = self.branch.sketch().changed(&mut rng);
        self.branch.push(sketch);
        self.note_files();
        self.come_to_rest();
        let leader = self.leader().filter(|_| self.violation.is_none());
        let view = leader.and_then(|slot| self.planners[slot].machine.as_ref()).map(Machine::view);
        let Some((leader, active)) = leader.zip(view.and_then(|view| view.active)) else { return };
        let policy = Policy { parked: [node.clone()].into(), ..Policy::default() };
        let left = plan(&active.desired, &self.applied(&active.desired), &policy);
        let left: Vec<String> = left.due().map(|action| action.instance.to_string()).collect();
        if !left.is_empty() {
            return self.violate("nothing waits for a parked node that is away", || {
                format!("{node} is parked, and {} is not done", left.join(" "))
            });
        }
        self.note(|| format!("=== {node} is back"));
        self.agents[slot].away_until = Duration::ZERO;
        self.after(Duration::from_millis(10), Event::StartAgent(slot));
        self.offer(leader, Input::Request(RequestId(2), Request::Unpark(node)));
        self.come_to_rest();
    }

    /// An operator commits what the last good commit asks for.
    fn commit_good(&mut self) {
        let good = self.good.last().copied().unwrap_or_default();
        self.note(|| format!("=== one more commit, as commit {good}"));
        self.branch.tip = good;
        let sketch = self.branch.sketch().touched();
        self.branch.push(sketch);
    }

    /// Nodes that are declared, and whose hosts have other names by now, get new hosts.
    fn add_absent_hosts(&mut self) {
        let leader = self.leader().and_then(|slot| self.planners[slot].machine.as_ref()).map(Machine::view);
        let active = leader.and_then(|view| view.active).map(|active| active.desired.nodes.clone()).unwrap_or_default();
        let mut declared: BTreeSet<String> = self.branch.sketch().nodes.iter().map(|node| node.name.clone()).collect();
        declared.extend(active.iter().map(ToString::to_string));
        for name in declared {
            if !self.agents.iter().any(|agent| agent.exists && agent.node.as_str() == name) {
                self.note(|| format!("=== a host for {name}"));
                self.add_host(&name, Duration::from_millis(10));
            }
        }
    }

    fn come_to_rest(&mut self) {
        let until = self.now + PATIENCE;
        let (mut quiet, mut declared) = (0, false);
        let mut why = String::new();
        let mut leader = self.leader();
        while self.violation.is_none() && quiet < REST {
            self.run_until(self.now + Duration::from_secs(1));
            // Another one takes over, and is only about to write down what it has received.
            let changed = std::mem::replace(&mut leader, self.leader()) != leader;
            match self.restless().or_else(|| changed.then(|| "another planner leads".to_owned())) {
                None => quiet += 1,
                Some(reason) => (quiet, why) = (0, reason),
            }
            if self.now + PATIENCE / 2 > until && !std::mem::replace(&mut declared, true) {
                self.add_absent_hosts();
            }
            if self.now > until {
                let open = self.open_instances();
                self.violate("the world comes to rest", || format!("{why}; open: {open}"));
            }
        }
    }

    /// What the latest rollout waits for.
    fn open_instances(&self) -> String {
        let machine = self.leader().and_then(|slot| self.planners[slot].machine.as_ref());
        let Some(rollout) = machine.and_then(|machine| machine.view().rollout) else { return String::new() };
        let open = rollout.rollout.statuses().filter_map(|(instance, action, status)| {
            let open = matches!(status, Status::Waiting(_) | Status::Running | Status::Blocked { .. });
            open.then(|| format!("{instance}:{action} {status:?}"))
        });
        open.collect::<Vec<_>>().join("; ")
    }

    /// What is still under way, if anything is.
    fn restless(&self) -> Option<String> {
        let Some(slot) = self.leader() else { return Some("no planner plans".to_owned()) };
        let machine = self.planners[slot].machine.as_ref()?;
        let view = machine.view();
        if view.due {
            return Some("something is due to be loaded or planned".to_owned());
        }
        let refused = view.meta.refused.as_ref().map(|refused| &refused.commit.id);
        let tip = self.branch.tip_id();
        if view.meta.active.as_ref().map(|commit| &commit.id) != Some(&tip) && refused != Some(&tip) {
            return Some("the tip is neither active nor refused".to_owned());
        }
        if machine.held() > 0 || self.planners[slot].outbox.len() > 0 {
            let waiting = self.planners[slot].outbox.topics().count();
            return Some(format!("{} messages are held, {waiting} wait", machine.held()));
        }
        if self.broker.waiting(&Client::Planner(self.planners[slot].name.clone())) > 0 {
            return Some("messages wait for the planner".to_owned());
        }
        for agent in self.agents.iter().filter(|agent| agent.exists) {
            let node = &agent.node;
            // Nothing waits for one that is parked.
            if agent.away_until > self.now {
                continue;
            }
            let Some(machine) = &agent.machine else { return Some(format!("{node} does not run")) };
            if !agent.link.up {
                return Some(format!("{node} is not connected"));
            }
            if !agent.jobs.is_empty() {
                return Some(format!("{node} runs jobs"));
            }
            if agent.state.value.is_some() || agent.presence.value.is_some() || !agent.batches.is_empty() {
                return Some(format!("{node} has something to send"));
            }
            if self.broker.waiting(&Client::Agent(node.clone())) > 0 {
                return Some(format!("messages wait for {node}"));
            }
            let declared = view.active.as_ref().is_some_and(|active| active.declares(node));
            if acked(agent) != agent.disk.sequence {
                return Some(format!("{node} has reports that are not acknowledged"));
            }
            if declared && view.nodes.get(node).is_none_or(|known| known.planned_generation() > machine.generation()) {
                return Some(format!("{node} has not taken its plan"));
            }
            let waits = machine.phase_is_idle();
            if declared && !waits && !self.waits_for_good(&view) {
                return Some(format!("{node} is not idle"));
            }
        }
        let rollout = view.rollout.as_ref()?;
        if !rollout.is_over() && !self.waits_for_good(&view) {
            let counts = rollout.summary().counts;
            return Some(format!("rollout {} is under way: {counts:?}", rollout.head.generation));
        }
        None
    }

    /// Whether what is open waits for something that failed, or that no node will report.
    fn waits_for_good(&self, view: &View) -> bool {
        let Some(rollout) = &view.rollout else { return false };
        let result = rollout.summary().result;
        use groundplan_machine::rollout::RolloutResult::{Failed, Waiting};
        matches!(result, Failed | Waiting)
    }

    /// What the agents of declared nodes have applied, and their obligations, by their ledgers.
    fn applied(&self, desired: &DesiredState) -> AppliedState {
        let mut applied = AppliedState::default();
        for agent in &self.agents {
            if let Some(machine) = agent.machine.as_ref().filter(|_| desired.node(&agent.node).is_some()) {
                let state = machine.node_state();
                let known = NodeApplied { tasks: Arc::new(state.applied), obligations: state.obligations };
                applied.nodes.insert(agent.node.clone(), known);
            }
        }
        applied
    }

    /// Whether nothing is to be done any more for a desired state.
    fn is_applied(&self, desired: &DesiredState) -> bool {
        plan(desired, &self.applied(desired), &Policy::default()).is_empty()
    }

    fn judge(&mut self) {
        let Some(slot) = self.leader() else { return };
        let Some(machine) = &self.planners[slot].machine else { return };
        let view = machine.view();
        let Some(active) = view.active.clone() else {
            return self.violate("the branch's last good commit is active", || "no commit is".to_owned());
        };
        let pending: usize = active.desired.graph.tasks.iter().map(|task| task.pending.len()).sum();
        if pending > 0 {
            return self.judge_pending(&view);
        }
        self.judge_hosts(&active.desired);
        self.judge_effects(&active.desired);
        self.judge_books(slot, &view);
        self.judge_idempotence(slot, &active.desired);
    }

    /// Values that no node will report: an export on a node without a host, or one that does not fit. Only bounds are judged.
    fn judge_pending(&mut self, view: &View) {
        let declared: Vec<NodeId> = view.active.as_ref().map(|active| active.desired.nodes.clone()).unwrap_or_default();
        let absent = declared.iter().any(|node| self.slot_of(node).is_none());
        let misfit = view.meta.refused.is_some();
        if !absent && !misfit {
            let names: Vec<String> = view
                .active
                .iter()
                .flat_map(|active| active.desired.graph.tasks.iter())
                .filter(|task| !task.pending.is_empty())
                .map(|task| task.id.to_string())
                .collect();
            self.violate("nothing stays pending", || names.join(", "));
        }
    }

    fn judge_hosts(&mut self, desired: &DesiredState) {
        let (wanted, links) = (wanted(desired), links_of(desired));
        for slot in 0..self.agents.len() {
            let agent = &self.agents[slot];
            if desired.node(&agent.node).is_none() {
                continue;
            }
            let node = agent.node.clone();
            let links = links.get(&node).cloned().unwrap_or_default();
            if agent.host.links != links {
                let found = agent.host.links.clone();
                self.violate("every reachable node is as desired", || format!("{node} has {found:?}, not {links:?}"));
            }
            let agent = &self.agents[slot];
            let wanted = wanted.get(&node).cloned().unwrap_or_default();
            if agent.host.tasks != wanted {
                let (found, wanted): (Vec<_>, Vec<_>) =
                    (agent.host.tasks.keys().cloned().collect(), wanted.into_keys().collect());
                self.violate("every reachable node is as desired", || format!("{node} has {found:?}, not {wanted:?}"));
            }
        }
    }

    /// Whatever changed, all that it triggers has acted since.
    fn judge_effects(&mut self, desired: &DesiredState) {
        for slot in 0..self.agents.len() {
            let agent = &self.agents[slot];
            let node = agent.node.clone();
            if desired.node(&node).is_none() {
                continue;
            }
            let missing = agent.host.dirt.iter().find_map(|(task, dirt)| {
                let (source, dirt) = dirt.iter().find(|(_, dirt)| dirt.must)?;
                Some((task.clone(), source.clone(), *dirt))
            });
            if let Some((task, source, dirt)) = missing {
                self.violate("every effect that is due happened", || {
                    format!(
                        "{task} on {node} was never {} after {source} changed (change {})",
                        dirt.effect, dirt.number
                    )
                });
            }
            let agent = &self.agents[slot];
            if !agent.disk.obligations.is_empty() {
                let left = format!("{:?}", agent.disk.obligations);
                self.violate("no obligation is left at rest", || format!("{node}: {left}"));
            }
        }
    }

    /// Store, ledgers and views agree, and nothing has grown.
    fn judge_books(&mut self, slot: usize, view: &View) {
        let restored =
            Machine::restore(&Settings::new([0; 16]), self.planners[slot].disk.stored(), self.clock()).view();
        let Some(active) = &view.active else { return };
        for number in 0..self.agents.len() {
            let agent = &self.agents[number];
            let node = agent.node.clone();
            let Some(machine) = agent.machine.as_ref().filter(|_| active.declares(&node)) else { continue };
            let state = machine.node_state();
            for (of, view) in [("view", view), ("store", &restored)] {
                let Some(known) = view.nodes.get(&node) else {
                    self.violate("store, ledgers and views agree", || format!("{node} is not in the {of}"));
                    return;
                };
                let same = *known.belief.applied.tasks == state.applied
                    && known.belief.ledger.as_ref() == Some(&state.ledger)
                    && known.belief.generation == state.generation;
                if !same {
                    let belief = known.belief.clone();
                    return self.violate("store, ledgers and views agree", || {
                        format!("{node}, {of}: {belief:?}, not {state:?}")
                    });
                }
            }
            let agent = &self.agents[number];
            let sketchy = agent.disk.applied.keys().ne(agent.host.tasks.keys());
            let outbox = agent.outbox.keys().filter(|sequence| **sequence > acked(agent)).count();
            let past = self.planners[slot].disk.nodes.get(&node).map_or(0, |stored| stored.past.len());
            if sketchy {
                self.violate("store, ledgers and views agree", || format!("{node}: the ledger is not as the host"));
            }
            if outbox > 0 || past > PAST {
                self.violate("nothing grows without bound", || format!("{node}: {outbox} reports, {past} ledgers"));
            }
        }
    }

    /// Planning what is applied is empty, and nothing happens any more, even after a restart of the planner.
    fn judge_idempotence(&mut self, slot: usize, desired: &Arc<DesiredState>) {
        let applied = self.applied(desired);
        let absent = desired.nodes.iter().any(|node| !applied.nodes.contains_key(node));
        let again = plan(desired, &applied, &Policy::default());
        // A planner that was started again while a plan was under way takes the edges of what is reported then to be as desired.
        let edges_may_lag = self.counts.kills > 0 && again.is_empty();
        let nothing = again.is_empty() && again.nodes.is_empty();
        if !absent && !edges_may_lag && !nothing {
            let actions: Vec<String> = again.actions.iter().map(|a| format!("{}:{}", a.instance, a.action)).collect();
            let edges = again.nodes.iter().flat_map(|(node, part)| {
                let known = applied.nodes.get(node);
                part.edges.iter().map(move |(task, edges)| {
                    let before = known.and_then(|known| known.tasks.get(task)).map(|applied| &applied.edges);
                    format!("{}: {edges:?}, not {before:?}", task.at(node))
                })
            });
            let edges: Vec<String> = edges.collect();
            return self.violate("planning what is applied is empty", || {
                format!("{}; edges of {}", actions.join(" "), edges.join(" "))
            });
        }
        let generation = |world: &Self| world.planners[slot].disk.meta.generation;
        let (jobs, plans) = (self.last_job, self.records.len());
        let before = generation(self);
        if self.rng.chance(30) {
            self.kill_planner(slot);
        }
        self.run_until(self.now + Duration::from_secs(20));
        let after = self.planners.iter().map(|planner| planner.disk.meta.generation).max().unwrap_or(Generation(0));
        // A planner that was away while a commit was the tip, and finds a bad one there, stays at an older commit than another.
        let active = |planner: &super::super::process::Planner| {
            planner.disk.meta.active.as_ref().map(|commit| commit.id.clone())
        };
        let agree = self.planners.iter().all(|planner| active(planner) == active(&self.planners[slot]));
        // One that takes over carries out the recheck that was asked of it, and of which it has not seen the end.
        let taken_up = &self.records[plans..];
        let is_owed = self.planners.len() > 1 && !taken_up.is_empty() && taken_up.iter().all(|record| record.is_asked);
        let quiet = (self.last_job == jobs || is_owed) && (after == before || self.planners.len() > 1);
        if self.violation.is_none() && agree && !quiet {
            self.violate("nothing happens at rest", || format!("generation {before}, then {after}"));
        }
    }
}

/// The last report that was acknowledged, as the agent has it.
fn acked(agent: &Agent) -> Sequence {
    let unsynced = agent.unsynced.iter().filter_map(|write| match write {
        Write::Acknowledged(to) => Some(*to),
        _ => None,
    });
    unsynced.max().unwrap_or_default().max(agent.disk.acked)
}

/// What each node is to have, by its parameters.
fn wanted(desired: &DesiredState) -> BTreeMap<NodeId, BTreeMap<TaskId, TaskParams>> {
    let mut wanted: BTreeMap<NodeId, BTreeMap<TaskId, TaskParams>> = BTreeMap::new();
    for task in &desired.graph.tasks {
        for instance in &task.instances {
            let node = &desired.nodes[instance.node.0 as usize];
            let params = instance.resolved.spec.params.clone();
            wanted.entry(node.clone()).or_default().insert(task.id.clone(), params);
        }
    }
    wanted
}

/// Whether an agent has nothing to do.
trait Idle {
    fn phase_is_idle(&self) -> bool;
}

impl Idle for groundplan_agent::machine::Machine {
    fn phase_is_idle(&self) -> bool {
        self.phase() == Phase::Idle
    }
}
