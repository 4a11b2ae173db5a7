//! What goes wrong: each operation of the schedule, and what is broken on purpose.

use std::{sync::Arc, time::Duration};

use groundplan_agent::machine::Snapshot;
use groundplan_machine::{Input, ids::RequestId, io::Request};
use groundplan_protocol::{
    envelope::SigningKey,
    ids::{Generation, LedgerId, NodeId},
    plan::{NodePlan, OpenGate, PlanBody, PlanOffer, PlanText},
};

use super::{
    super::{
        broker::Payload,
        host::Host,
        process::{Planner, facts},
        rng::Rng,
        sabotage::Sabotage,
        schedule::{Fault, Op},
        site::SketchNode,
    },
    Event, World,
};

impl World {
    /// Carries out an operation of the schedule.
    pub(super) fn operate(&mut self, i: usize) {
        let Op { fault, salt, .. } = self.setup.ops[i];
        let mut rng = Rng::new(salt);
        self.note(|| format!("--- {fault:?}"));
        *self.faults.entry(fault).or_default() += 1;
        let slot = rng.below(self.agents.len());
        let planner = rng.below(self.planners.len());
        match fault {
            Fault::Cut => {
                let open: Vec<u64> =
                    self.wires.iter().filter(|(_, wire)| wire.client_open).map(|(conn, _)| *conn).collect();
                if !open.is_empty() {
                    let conn = *rng.pick(&open);
                    self.cut(conn);
                }
            }
            Fault::Partition => {
                let until = self.now + Duration::from_millis(rng.between(200, 15_000));
                let link = match rng.chance(30) {
                    true => &mut self.planners[planner].link,
                    false => &mut self.agents[slot].link,
                };
                link.partitioned_until = until;
                if let Some(conn) = link.conn {
                    self.cut(conn);
                }
            }
            Fault::KillAgent => match rng.below(3) {
                0 => self.kill_agent(slot, false),
                _ => self.agents[slot].fuel = Some(rng.below(12)),
            },
            Fault::PowerLoss => self.kill_agent(slot, true),
            Fault::KillPlanner => match rng.below(3) {
                0 => self.kill_planner(planner),
                _ => self.planners[planner].fuel = Some(rng.below(25)),
            },
            Fault::StopPlanner => {
                self.stop_planner(planner);
                self.after(Duration::from_millis(rng.between(10, 4000)), Event::StartPlanner(planner));
            }
            Fault::LoseDisk => {
                self.kill_planner(planner);
                let name = format!("p{planner}-{}", rng.hex(4));
                let Planner { incarnation, wanted, .. } = self.planners[planner];
                self.planners[planner] = Planner { incarnation, wanted, ..Planner::new(name) };
            }
            Fault::WipeBroker => {
                for conn in self.broker.wipe() {
                    self.close_at_broker(conn);
                }
            }
            Fault::Contend => self.contend(&mut rng),
            Fault::RenameTask => self.push(|sketch, rng| sketch.rename_task(rng), &mut rng),
            Fault::Exchange => self.push(|sketch, rng| sketch.exchange(rng), &mut rng),
            Fault::MoveTask => self.push(|sketch, rng| sketch.move_task(rng), &mut rng),
            Fault::Commit => self.push(|sketch, rng| *sketch = sketch.changed(rng), &mut rng),
            Fault::BadCommit => self.push(|sketch, _| sketch.fault = true, &mut rng),
            Fault::ForcePush => {
                self.branch.tip = rng.below(self.branch.len());
                self.counts.commits += 1;
            }
            Fault::Revert => {
                let tip = self.branch.tip;
                self.branch.tip = rng.below(self.branch.len());
                let before = self.branch.sketch().touched();
                self.branch.tip = tip;
                self.push(|sketch, _| *sketch = before, &mut rng);
            }
            Fault::NewNode => {
                let name = self.new_name();
                let delay = Duration::from_millis(rng.between(0, 3000));
                self.add_host(&name, delay);
                self.push(|sketch, rng| sketch.add_node(&name, rng), &mut rng);
            }
            Fault::RemoveNode => {
                let name = self.agents[slot].node.to_string();
                if self.branch.sketch().nodes.len() > 2 {
                    self.push(|sketch, _| sketch.remove_node(&name), &mut rng);
                }
            }
            Fault::RenameNode => {
                let (name, new) = (self.agents[slot].node.to_string(), self.new_name());
                self.kill_agent(slot, false);
                let agent = &mut self.agents[slot];
                agent.node = NodeId::new(&new).expect("a name");
                // What other nodes' changes call for here, the planner knows under the old name.
                let dirt = agent.host.dirt.values_mut().flatten();
                dirt.filter(|(source, _)| source.node.as_str() != name).for_each(|(_, dirt)| dirt.must = false);
                self.agents[slot].broken.clear();
                self.push(|sketch, _| sketch.rename_node(&name, &new), &mut rng);
            }
            Fault::Rebuild => {
                self.kill_agent(slot, true);
                let agent = &mut self.agents[slot];
                let ledger = LedgerId::new(rng.hex(32)).expect("32 hexadecimal digits");
                agent.disk = Snapshot::empty(ledger);
                agent.host = Host::default();
                agent.plans_before = self.records.iter().map(|record| record.generation).max().unwrap_or_default();
                agent.outbox.clear();
                agent.accepted.clear();
                agent.broken.clear();
            }
            Fault::Away => {
                self.agents[slot].away_until = self.now + Duration::from_millis(rng.between(3000, 40_000));
                self.kill_agent(slot, true);
            }
            Fault::Facts => {
                self.agents[slot].facts = facts(rng.between(1, 3));
                let facts = self.agents[slot].facts.clone();
                self.handle_agent(slot, groundplan_agent::machine::Event::Facts(facts));
            }
            Fault::Replay => self.replay(rng.between(5, 60)),
            Fault::Park => self.park(slot, salt, &mut rng),
            Fault::Lifecycle => {
                let name = self.agents[slot].node.to_string();
                let state = *rng.pick(&[None, Some("parked"), Some("parked"), Some("decommissioned")]);
                let set = |node: &mut SketchNode| node.state = state;
                self.push(|sketch, _| sketch.node_mut(&name).into_iter().for_each(set), &mut rng);
            }
            Fault::Recheck => {
                let nodes = [self.agents[slot].node.clone()].into();
                let request = Request::Recheck { nodes, services: [].into(), tasks: [].into() };
                self.offer(planner, Input::Request(RequestId(salt), request));
            }
        }
    }

    /// An operator asks the planner that plans to park a node, or to take that back.
    fn park(&mut self, slot: usize, salt: u64, rng: &mut Rng) {
        let Some(leader) = self.leader() else { return };
        let machine = self.planners[leader].machine.as_ref();
        let parked = machine.map(|machine| machine.view().meta.parked.clone()).unwrap_or_default();
        if !parked.is_empty() && rng.chance(40) {
            let all: Vec<NodeId> = parked.into_keys().collect();
            let request = Request::Unpark(rng.pick(&all).clone());
            return self.offer(leader, Input::Request(RequestId(salt), request));
        }
        let span = rng.chance(50).then(|| Duration::from_millis(rng.between(500, 20_000)));
        let (node, by) = (self.agents[slot].node.clone(), "operator".to_owned());
        let request = Request::Park { node, by, reason: "waits for a disk".to_owned(), span };
        self.offer(leader, Input::Request(RequestId(salt), request));
        if self.setup.profile.rough && rng.chance(60) {
            self.agents[slot].away_until = self.now + Duration::from_millis(rng.between(1000, 30_000));
            self.kill_agent(slot, true);
        }
    }

    fn push(&mut self, change: impl FnOnce(&mut super::Sketch, &mut Rng), rng: &mut Rng) {
        let mut sketch = self.branch.sketch().clone();
        sketch.fault = false;
        change(&mut sketch, rng);
        self.branch.push(sketch);
        self.counts.commits += 1;
        self.note_files();
    }

    fn new_name(&mut self) -> String {
        self.last_name += 1;
        format!("n{}", self.last_name - 1)
    }

    /// A second planner begins, or one of two ends.
    fn contend(&mut self, rng: &mut Rng) {
        let wanted: Vec<usize> = (0..self.planners.len()).filter(|slot| self.planners[*slot].wanted).collect();
        if wanted.len() > 1 {
            let slot = *rng.pick(&wanted);
            self.planners[slot].wanted = false;
            if rng.chance(50) {
                return self.kill_planner(slot);
            }
            return self.stop_planner(slot);
        }
        let idle = (0..self.planners.len()).find(|slot| !self.planners[*slot].wanted);
        let slot = idle.unwrap_or_else(|| {
            self.add_planner();
            self.planners.len() - 1
        });
        self.planners[slot].wanted = true;
        self.after(Duration::from_millis(10), Event::StartPlanner(slot));
    }

    /// What an agent is given in place of a message, if something is broken on purpose.
    pub(super) fn tamper(&mut self, slot: usize, payload: Payload) -> Payload {
        let Some(sabotage) = self.setup.sabotage else { return payload };
        match (sabotage, payload) {
            (Sabotage::RollBack, Payload::Plan(offer)) => {
                let at = self.agents[slot].accepted.last_key_value().map_or(Generation(0), |(at, _)| *at);
                let (PlanBody::Inline(text), true) = (&offer.body, offer.generation < at) else {
                    return Payload::Plan(offer);
                };
                let plan = NodePlan { generation: at.next(), ..text.parse().expect("the JSON of a plan") };
                let of = (offer.site.clone(), offer.node.clone(), plan.generation);
                let times = (offer.issued_ms, offer.not_after_ms);
                let (key, term) = (SigningKey::from_seed([1; 32]), offer.receipt.term);
                Payload::Plan(Arc::new(PlanOffer::new(&key, term, of, PlanText::of(&plan), times)))
            }
            (Sabotage::OpenGatesEarly | Sabotage::IgnoreLimits, Payload::Gates(gates)) => {
                let rolling = sabotage == Sabotage::IgnoreLimits;
                let mut gates = (*gates).clone();
                let plan = self.agents[slot].disk.plan.as_ref().and_then(|plan| plan.json.as_ref());
                let plan = plan.and_then(|json| serde_json::from_slice::<NodePlan>(json).ok());
                for gate in plan.iter().flat_map(|plan| &plan.tasks).flat_map(|task| &task.gates) {
                    if !rolling || gate.as_str().starts_with("rolling/") {
                        gates.open.entry(gate.clone()).or_insert(OpenGate { fired: false });
                    }
                }
                Payload::Gates(Arc::new(gates))
            }
            (_, payload) => payload,
        }
    }
}
