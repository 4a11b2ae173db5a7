//! Planners: what their shell does around the machine. All writes of a round are one group, on the disk before anything else of the
//! round is carried out; kills come before the group, after it, and between any two effects.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use groundplan_core::plan::ReasonReport;
use groundplan_machine::{
    Effect, Input, Machine,
    ids::{JobId, Receipt},
    io::{self, Incoming, LoadOutcome, NodeMessage, OFFER_VALID, Settings},
    planning::{PlanJob, Planned},
    write::Write,
};
use groundplan_protocol::{
    VERSION,
    digest::Digest,
    envelope::SigningKey,
    plan::{NodePlan, PlanOffer, PlanText},
    presence::PlannerPresence,
};

use super::{
    super::{
        broker::{Conn, Down, Message, Payload, Up},
        process::{Planner, burn},
        record::{Record, held_back_of, links_of, tasks_of},
        sabotage::Sabotage,
    },
    Event, Owner, World,
    agents::site,
    network::short,
};

fn is_asked(reason: &ReasonReport) -> bool {
    matches!(reason, ReasonReport::Asked { .. })
}

impl World {
    pub(super) fn planner_will(&self, slot: usize) -> Message {
        let planner = &self.planners[slot];
        let presence = PlannerPresence {
            version: VERSION,
            site: site(),
            planner: planner.name.clone(),
            challenge: None,
            answer: None,
            revision: 0,
            online: false,
            term: 0,
            generation: planner.disk.meta.generation,
            forget: Vec::new(),
            parked: Vec::new(),
        };
        Message { address: (None, "planner"), payload: Payload::Planner(presence), retain: true }
    }

    pub(super) fn start_planner(&mut self, slot: usize) {
        let now = self.clock();
        let planner = &mut self.planners[slot];
        if planner.machine.is_some() || !planner.wanted {
            return;
        }
        planner.incarnation += 1;
        planner.fuel = None;
        (planner.connects, planner.subscribed, planner.open, planner.round_due) = (false, false, false, false);
        planner.outbox.clear();
        planner.inbox.clear();
        planner.receipts.clear();
        (planner.wake_at, planner.tip) = (None, None);
        // Another one for each process, as if it were drawn at random.
        let process = format!("{} {}", planner.name, planner.incarnation);
        let mut seed = [0; 16];
        seed.copy_from_slice(&Digest::of(process.as_bytes()).as_bytes()[..16]);
        let machine = Machine::restore(&Settings::new(seed), planner.disk.stored(), now);
        let name = planner.name.clone();
        self.note(|| format!("{name} starts"));
        self.check_restored(slot, &machine);
        self.planners[slot].machine = Some(machine);
        let incarnation = self.planners[slot].incarnation;
        self.take_inputs(slot, vec![Input::Tick]);
        self.poll(slot, incarnation);
    }

    /// What was published before a kill follows from what is on the disk.
    fn check_restored(&mut self, slot: usize, machine: &Machine) {
        let view = machine.view();
        let Some(rollout) = &view.rollout else { return };
        let lost = self.planners[slot].gates.iter().find(|(node, gates)| {
            let planned = view.nodes.get(*node).map(|node| node.planned_generation());
            let open = rollout.rollout.open_gates(node);
            planned == Some(gates.generation)
                && rollout.head.generation == gates.generation
                && gates.open.iter().any(|(gate, was)| open.get(gate) != Some(was))
        });
        if let Some((node, gates)) = lost {
            let (node, gates) = (node.clone(), gates.clone());
            self.violate("nothing is published before it is on the disk", || {
                format!(
                    "gates of {node} after a restart: {:?} were {:?}",
                    rollout.rollout.open_gates(&node),
                    gates.open
                )
            });
        }
    }

    /// Ends a planner's process as it stands.
    pub(super) fn kill_planner(&mut self, slot: usize) {
        if self.planners[slot].machine.take().is_none() {
            return;
        }
        self.counts.kills += 1;
        let name = self.planners[slot].name.clone();
        self.note(|| format!("{name} is killed"));
        self.end_planner(slot);
        let delay = if self.faulty && self.rng.chance(30) { self.millis(500, 9000) } else { self.millis(5, 300) };
        self.after(delay, Event::StartPlanner(slot));
    }

    fn end_planner(&mut self, slot: usize) {
        self.planners[slot].link.up = false;
        if let Some(conn) = self.planners[slot].link.conn.take() {
            self.abandon(conn);
        }
    }

    /// Stops a planner in good order.
    pub(super) fn stop_planner(&mut self, slot: usize) {
        if self.planners[slot].machine.is_none() {
            return;
        }
        let name = self.planners[slot].name.clone();
        self.note(|| format!("{name} stops"));
        self.take_inputs(slot, vec![Input::Stop]);
        if self.planners[slot].machine.take().is_none() {
            return;
        }
        if let Some(conn) = self.planners[slot].link.conn {
            self.send_up(conn, Up::Disconnect);
        }
        let planner = &mut self.planners[slot];
        planner.link.up = false;
        if let Some(conn) = planner.link.conn.take()
            && let Some(wire) = self.wires.get_mut(&conn)
        {
            wire.client_open = false;
            let delay = Duration::from_secs(5);
            self.after(delay, Event::BrokerLost(conn));
        }
    }

    /// An input for a planner: it is taken with whatever else comes in meanwhile.
    pub(super) fn offer(&mut self, slot: usize, input: Input) {
        let planner = &mut self.planners[slot];
        if planner.machine.is_none() {
            return;
        }
        planner.inbox.push(input);
        if !std::mem::replace(&mut planner.round_due, true) {
            let incarnation = planner.incarnation;
            let delay = if self.rng.chance(5) { self.millis(0, 60) } else { self.millis(0, 2) };
            self.after(delay, Event::Round(slot, incarnation));
        }
    }

    pub(super) fn round(&mut self, slot: usize, incarnation: u32) {
        let planner = &mut self.planners[slot];
        if planner.incarnation != incarnation || planner.machine.is_none() {
            return;
        }
        planner.round_due = false;
        let inputs = std::mem::take(&mut planner.inbox);
        self.take_inputs(slot, inputs);
    }

    fn take_inputs(&mut self, slot: usize, inputs: Vec<Input>) {
        let now = self.clock();
        let Some(machine) = &mut self.planners[slot].machine else { return };
        let effects = machine.handle_all(inputs, now);
        self.check_rollout_end(slot, &effects);
        if self.carry_out_planner(slot, effects) {
            self.pump_planner(slot);
            self.wake_planner_later(slot);
        }
    }

    fn wake_planner_later(&mut self, slot: usize) {
        let planner = &mut self.planners[slot];
        let Some(machine) = &planner.machine else { return };
        let due = machine.deadline().max(self.now);
        if planner.wake_at.is_none_or(|at| due < at) {
            planner.wake_at = Some(due);
            let incarnation = planner.incarnation;
            self.at(due, Event::WakePlanner(slot, incarnation));
        }
    }

    pub(super) fn wake_planner(&mut self, slot: usize, incarnation: u32) {
        let planner = &mut self.planners[slot];
        if planner.incarnation == incarnation && planner.machine.is_some() && planner.wake_at == Some(self.now) {
            planner.wake_at = None;
            self.take_inputs(slot, vec![Input::Tick]);
        }
    }

    /// Reads the branch's tip, as the planner's watch does.
    pub(super) fn poll(&mut self, slot: usize, incarnation: u32) {
        let planner = &mut self.planners[slot];
        if planner.incarnation != incarnation || planner.machine.is_none() {
            return;
        }
        if planner.tip != Some(self.branch.tip) {
            if self.faulty && self.rng.chance(5) {
                self.offer(slot, Input::Tip(Err("the repository is being repacked".to_owned())));
            } else {
                self.planners[slot].tip = Some(self.branch.tip);
                let tip = self.branch.tip_id();
                self.offer(slot, Input::Tip(Ok(tip)));
            }
        }
        let delay = self.millis(20, 250);
        self.after(delay, Event::Poll(slot, incarnation));
    }

    pub(super) fn loaded(&mut self, slot: usize, incarnation: u32, job: JobId, outcome: LoadOutcome) {
        if self.planners[slot].incarnation == incarnation {
            self.offer(slot, Input::Loaded { job, outcome });
        }
    }

    pub(super) fn planned(&mut self, slot: usize, incarnation: u32, planned: Box<Planned>) {
        if self.planners[slot].incarnation == incarnation {
            self.offer(slot, Input::Planned(planned));
        }
    }

    /// Whether the planner goes on after one more effect.
    fn burn_planner(&mut self, slot: usize) -> bool {
        let alive = burn(&mut self.planners[slot].fuel);
        if !alive {
            self.kill_planner(slot);
        }
        alive
    }

    fn carry_out_planner(&mut self, slot: usize, effects: Vec<Effect>) -> bool {
        let (mut writes, mut rest) = (Vec::new(), Vec::new());
        for effect in effects {
            match effect {
                Effect::Persist(write) => writes.push(write),
                other => rest.push(other),
            }
        }
        let late = self.sabotaged(Sabotage::PublishFirst);
        if !late && !self.commit(slot, std::mem::take(&mut writes)) {
            return false;
        }
        for effect in rest {
            if !self.burn_planner(slot) {
                return false;
            }
            self.carry_out_one(slot, effect);
            if late {
                self.pump_planner(slot);
            }
        }
        self.commit(slot, writes)
    }

    /// Commits a group.
    fn commit(&mut self, slot: usize, writes: Vec<Write>) -> bool {
        if writes.is_empty() {
            return true;
        }
        if !self.burn_planner(slot) {
            return false;
        }
        for write in writes {
            match &write {
                Write::Rollout(head, _) => {
                    let ours = |record: &Record| record.planner == slot && record.generation == head.generation;
                    let number = self.records.iter().rposition(ours);
                    self.planners[slot].record = number;
                    if let Some(number) = number {
                        let (name, record) = (self.planners[slot].name.clone(), &self.records[number]);
                        let actions: Vec<String> = record.actions.iter().map(|(i, a)| format!("{i}:{a}")).collect();
                        let line = format!(
                            "{name} plans g{} for commit {}: {}{}",
                            record.generation,
                            self.branch.number(&record.commit).unwrap_or_default(),
                            actions.join(" "),
                            if record.without_memory.is_some() { " (without memory)" } else { "" }
                        );
                        self.note(|| line);
                        self.plan_taken_up(number);
                    }
                }
                Write::Log(_) if self.sabotaged(Sabotage::DropLog) => continue,
                Write::Log(groundplan_machine::record::LogEntry::Reports { .. })
                    if self.sabotaged(Sabotage::LoseReports) =>
                {
                    continue;
                }
                _ => {}
            }
            self.planners[slot].disk.apply(write);
        }
        true
    }

    fn carry_out_one(&mut self, slot: usize, effect: Effect) {
        match effect {
            Effect::Acknowledge(receipt) => {
                if let Some((conn, id)) = self.planners[slot].receipts.remove(&receipt.0)
                    && self.planners[slot].link.conn == Some(conn)
                {
                    self.send_up(conn, Up::Confirm(id));
                }
            }
            Effect::Connect(_) => {
                self.planners[slot].connects = true;
                let incarnation = self.planners[slot].incarnation;
                let delay = self.millis(1, 20);
                self.after(delay, Event::Connect(Owner::Planner(slot), incarnation));
            }
            Effect::OpenOutbox => {
                let planner = &mut self.planners[slot];
                planner.open = planner.link.up;
            }
            Effect::Publish(message) => self.publish(slot, message),
            Effect::Replay(nodes) => {
                if let Some(conn) = self.planners[slot].link.conn.filter(|_| self.planners[slot].link.up) {
                    self.send_up(conn, Up::Replay(nodes));
                }
            }
            Effect::Load(job) => {
                let unreadable = self.faulty && self.rng.chance(3);
                let outcome = match unreadable {
                    true => LoadOutcome::Unreadable("the repository is locked".to_owned()),
                    false => self.branch.load(&job),
                };
                match &outcome {
                    LoadOutcome::Good { .. } => {
                        let number = self.branch.number(&job.commit);
                        self.good.extend(number.filter(|number| !self.good.contains(number)));
                    }
                    LoadOutcome::Refused(refused) => {
                        self.counts.refused += 1;
                        let faults: Vec<String> = refused.faults.iter().map(|fault| fault.message.clone()).collect();
                        self.note(|| format!("a commit is refused: {}", faults.join("; ")));
                    }
                    LoadOutcome::Unreadable(_) => {}
                }
                let delay = if self.rng.chance(10) { self.millis(50, 900) } else { self.millis(1, 30) };
                let incarnation = self.planners[slot].incarnation;
                self.after(delay, Event::Loaded(slot, incarnation, job.job, Box::new(outcome)));
            }
            Effect::Plan(job) => self.plan(slot, *job),
            Effect::Log(_, line) => {
                let name = self.planners[slot].name.clone();
                self.note(|| format!("{name}: {line}"));
            }
            Effect::Persist(_)
            | Effect::Ship(..)
            | Effect::Activate(_)
            | Effect::Reply(..)
            | Effect::Event(_)
            | Effect::CommandEvent(..) => {}
        }
    }

    fn plan(&mut self, slot: usize, mut job: PlanJob) {
        if self.sabotaged(Sabotage::WaitForParked) {
            job.policy.parked.clear();
        }
        let (generation, desired) = (job.generation, job.active.desired.clone());
        let commit = job.active.commit.id.clone();
        let without_memory = job.before.is_none().then(|| {
            let nodes = job.applied.nodes.iter();
            nodes
                .flat_map(|(node, known)| known.obligations.keys().map(move |task| task.at(node)))
                .collect::<BTreeSet<_>>()
        });
        let by_site = desired.nodes.iter().filter(|node| desired.is_parked(node));
        let parked: BTreeSet<_> = job.policy.parked.iter().chain(by_site).cloned().collect();
        self.parked |= !parked.is_empty();
        let known = job.applied.nodes.keys().cloned().collect();
        let nodes = self.planners[slot].machine.as_ref().map(|machine| machine.view().nodes).unwrap_or_default();
        let reported = nodes.iter().map(|(node, known)| (node.clone(), known.belief.sequence)).collect();
        let planned = job.run(&mut |instance, reason| ReasonReport::chain(instance, reason, &mut |_| None));
        let plans =
            planned.plans.iter().map(|(_, plan)| serde_json::from_slice(&plan.json).expect("the JSON of a plan"));
        let plans: Vec<NodePlan> = plans.collect();
        let edges = self.edges_of(&desired);
        self.records.push(Record {
            planner: slot,
            generation,
            commit,
            edges,
            actions: planned.actions.iter().map(|planned| (planned.instance.clone(), planned.action)).collect(),
            is_asked: planned.actions.iter().all(|planned| planned.reasons.iter().all(is_asked)),
            held_back: held_back_of(&planned.rollout),
            ids: planned.plans.iter().map(|(node, plan)| (node.clone(), plan.note.id)).collect(),
            declared: desired.nodes.iter().cloned().collect(),
            parked,
            known,
            reported,
            kept: planned.kept.clone(),
            tasks: plans.iter().map(|plan| (plan.node.clone(), tasks_of(plan))).collect(),
            links: links_of(&desired),
            without_memory,
        });
        let delay = if self.rng.chance(10) { self.millis(30, 600) } else { self.millis(1, 20) };
        let incarnation = self.planners[slot].incarnation;
        self.after(delay, Event::Planned(slot, incarnation, Box::new(planned)));
    }

    fn publish(&mut self, slot: usize, message: io::Message) {
        let planner = &self.planners[slot];
        let disk = &planner.disk;
        let (address, payload, retain) = match message {
            io::Message::Presence { presence, retain } => {
                if presence.term > disk.meta.term {
                    let (term, known) = (presence.term, disk.meta.term);
                    self.violate("nothing is published before it is on the disk", || {
                        format!("term {term}, not {known}")
                    });
                }
                if self.setup.profile.replays && (self.faulty || presence.online) {
                    self.presences.push(presence.clone());
                }
                let message = Message { address: (None, "planner"), payload: Payload::Planner(presence), retain };
                return self.planners[slot].outbox.push_urgent(message);
            }
            io::Message::Heartbeat(_) => return,
            io::Message::Plan(node, term, _) => match disk.plans.get(&node) {
                Some(plan) => {
                    let site = disk.meta.site.clone().expect("a planner with plans has a site");
                    let text = PlanText::from_json(plan.json.clone()).expect("the JSON of a plan");
                    let of = (site, node.clone(), plan.note.generation);
                    let issued_ms = self.clock().wall_ms;
                    let times = (issued_ms, issued_ms + OFFER_VALID.as_millis() as u64);
                    let offer = PlanOffer::new(&SigningKey::from_seed([1; 32]), term, of, text, times);
                    ((Some(node), "plan"), Payload::Plan(Arc::new(offer)), true)
                }
                None => return,
            },
            io::Message::Gates(mut gates) => {
                if disk.plans.get(&gates.node).is_some_and(|plan| plan.note.generation < gates.generation) {
                    let gates = gates.clone();
                    self.violate("nothing is published before it is on the disk", || format!("{gates:?}"));
                }
                self.planners[slot].gates.insert(gates.node.clone(), gates.clone());
                if self.sabotaged(Sabotage::ForgetFired) {
                    gates.open.values_mut().for_each(|open| open.fired = false);
                }
                ((Some(gates.node.clone()), "gates"), Payload::Gates(Arc::new(gates)), true)
            }
            io::Message::Ack(ack) => {
                let known = disk.acks.get(&ack.node);
                // One of a ledger that the node had before may go out with the first of its new one.
                if known.is_none_or(|(ledger, sequence)| *ledger == ack.ledger && *sequence < ack.sequence) {
                    let ack = ack.clone();
                    self.violate("nothing is published before it is on the disk", || format!("{ack:?}"));
                }
                ((Some(ack.node.clone()), "ack"), Payload::Ack(ack), false)
            }
            io::Message::Clear(node, topic) => ((Some(node), topic.name()), Payload::Nothing, true),
            io::Message::Check(_) | io::Message::Exec(..) => return,
        };
        self.planners[slot].outbox.push(Message { address, payload, retain });
    }

    // The connection.

    pub(super) fn planner_receives(&mut self, slot: usize, conn: Conn, packet: Down) {
        let planner = &mut self.planners[slot];
        let name = planner.name.clone();
        match packet {
            Down::Connected { session_present } => {
                if !session_present {
                    planner.outbox.clear();
                }
                if session_present && planner.subscribed {
                    self.planner_ready(slot, false);
                } else {
                    planner.subscribed = false;
                    self.send_up(conn, Up::Subscribe);
                }
            }
            Down::Subscribed => {
                planner.subscribed = true;
                self.planner_ready(slot, true);
            }
            Down::Confirm(id) => planner.outbox.confirmed(id),
            Down::Publish(id, message) => {
                self.note(|| format!("{name} receives {}", short(&message)));
                let planner = &mut self.planners[slot];
                planner.last_receipt += 1;
                planner.receipts.insert(planner.last_receipt, (conn, id));
                let receipt = Receipt(planner.last_receipt);
                let node = message.address.0.clone();
                let message = match (node, message.payload) {
                    (Some(node), Payload::State(state)) => {
                        Incoming::Node(node, NodeMessage::State(Box::new((*state).clone())))
                    }
                    (Some(node), Payload::Reports(batch)) => {
                        Incoming::Node(node, NodeMessage::Reports((*batch).clone()))
                    }
                    (Some(node), Payload::Presence(presence)) => {
                        Incoming::Node(node, NodeMessage::Presence((*presence).clone()))
                    }
                    (None, Payload::Planner(presence)) => Incoming::Planner(presence),
                    _ => Incoming::Empty,
                };
                self.offer(slot, Input::Message { receipt, message });
            }
        }
    }

    fn planner_ready(&mut self, slot: usize, fresh: bool) {
        let planner = &mut self.planners[slot];
        planner.link.up = true;
        let name = planner.name.clone();
        self.note(|| format!("{name} is connected, fresh: {fresh}"));
        self.offer(slot, Input::Connected { fresh });
        self.pump_planner(slot);
    }

    pub(super) fn planner_disconnected(&mut self, slot: usize, conn: Conn) {
        let planner = &mut self.planners[slot];
        if planner.link.conn != Some(conn) {
            return;
        }
        planner.link.conn = None;
        planner.subscribed &= planner.link.up;
        (planner.link.up, planner.open) = (false, false);
        planner.outbox.disconnected();
        let (incarnation, name) = (planner.incarnation, planner.name.clone());
        self.note(|| format!("{name} loses its connection"));
        self.offer(slot, Input::Disconnected { error: "the connection broke".to_owned() });
        self.connect_later(Owner::Planner(slot), incarnation);
    }

    /// Sends what waits, as far as the connection takes it.
    fn pump_planner(&mut self, slot: usize) {
        let planner = &mut self.planners[slot];
        let (true, Some(conn)) = (planner.link.up, planner.link.conn) else { return };
        let mut out = Vec::new();
        while let Some(message) = planner.outbox.take(planner.open) {
            let id = planner.link.next_id();
            planner.outbox.sent(id, message.clone());
            out.push((id, message));
        }
        let name = planner.name.clone();
        for (id, message) in out {
            self.note(|| format!("{name} sends {}", short(&message)));
            self.send_up(conn, Up::Publish(id, message));
        }
    }

    /// The planner that plans, if one does and is connected.
    pub(super) fn leader(&self) -> Option<usize> {
        let plans = |planner: &Planner| {
            let view = planner.machine.as_ref()?.view();
            (planner.link.up && view.role == groundplan_machine::leadership::Role::Planning).then_some(())
        };
        self.planners.iter().position(|planner| plans(planner).is_some())
    }
}
