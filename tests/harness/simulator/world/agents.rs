//! Agents: what their shell does around the machine, with kills between any two effects.

use std::{
    sync::{Arc, LazyLock},
    time::Duration,
};

use groundplan_agent::machine::{self as agent, Effect, JobDone, Machine, Promise, Start, Write};
use groundplan_protocol::{
    VERSION,
    encryption::EncryptionKey,
    envelope::SigningKey,
    ids::{Generation, Sequence, SessionId, SiteName, TaskId},
    presence::Presence,
    report::{Outcome, ReportBatch},
};

use super::{
    super::{
        broker::{Conn, Down, Message, Payload, Up},
        host::{Progress, link},
        process::{Job, Pump, Slot, burn},
        sabotage::Sabotage,
    },
    Event, Owner, World,
    network::short,
};

/// After a connection to a session that was kept, plans are held until none came for this long (`agent/src/shell/settle.rs`).
const QUIET: Duration = Duration::from_millis(50);
/// Batches of reports on their way at a time, and reports in each.
const BATCHES: usize = 4;
const BATCH: usize = 256;

pub(super) fn site() -> SiteName {
    SiteName::new("simulated").expect("a name")
}

/// The key of every node: messages are handed on as they are.
fn encryption_key() -> EncryptionKey {
    static KEY: LazyLock<EncryptionKey> = LazyLock::new(|| SigningKey::from_seed([1; 32]).decryption().public());
    *KEY
}

impl World {
    fn settings(&self, slot: usize) -> agent::Settings {
        let agent = &self.agents[slot];
        agent::Settings {
            site: site(),
            node: agent.node.clone(),
            agent: "0".to_owned(),
            encryption_key: encryption_key(),
            max_parallel: 2,
            max_blob: 1 << 20,
            max_blobs: 1 << 20,
            boot: format!("boot {}", agent.boot),
        }
    }

    pub(super) fn agent_presence(&mut self, slot: usize, online: bool) -> Message {
        let agent = &self.agents[slot];
        let presence = Presence {
            trouble: None,
            version: VERSION,
            site: site(),
            node: agent.node.clone(),
            online,
            agent: "0".to_owned(),
            ledger: agent.disk.ledger.clone(),
            session: agent.session.clone().filter(|_| online),
        };
        let address = (Some(agent.node.clone()), "presence");
        Message { address, payload: Payload::Presence(Arc::new(presence)), retain: true }
    }

    /// Starts an agent from what is on its disk.
    pub(super) fn start_agent(&mut self, slot: usize) {
        let now = self.clock();
        let agent = &mut self.agents[slot];
        if agent.machine.is_some() || !agent.exists {
            return;
        }
        if agent.away_until > self.now {
            let at = agent.away_until;
            return self.at(at, Event::StartAgent(slot));
        }
        agent.incarnation += 1;
        agent.fuel = None;
        agent.wake_at = None;
        agent.subscribed = false;
        agent.session = None;
        (agent.presence, agent.state) = (Slot::default(), Slot::default());
        agent.batches.clear();
        agent.pump = Pump { next: Sequence(1), to: Sequence(0), announce: false };
        (agent.settling, agent.held) = (None, None);
        let mut snapshot = agent.disk.clone();
        if self.sabotaged(Sabotage::ForgetObligations) {
            snapshot.obligations.clear();
        }
        let settings = self.settings(slot);
        let node = settings.node.clone();
        self.note(|| format!("{node} starts"));
        let (machine, effects) = match Machine::restore(settings, snapshot, now) {
            Ok(restored) => restored,
            Err(error) => return self.violate("a ledger can be read", || error.to_string()),
        };
        let agent = &mut self.agents[slot];
        // As the agent's shell does: with what the machine has put on record of jobs of which no end is known.
        agent.host.adopt(machine.applied().map(|(task, spec)| (task, &spec.params)));
        agent.machine = Some(machine);
        if !self.carry_out_agent(slot, effects) {
            return;
        }
        let incarnation = self.agents[slot].incarnation;
        let facts = self.agents[slot].facts.clone();
        if self.handle_agent(slot, agent::Event::Tick) && self.handle_agent(slot, agent::Event::Facts(facts)) {
            self.connect_later(Owner::Agent(slot), incarnation);
        }
    }

    /// Ends an agent's process as it stands; jobs that run come as far as chance has it.
    pub(super) fn kill_agent(&mut self, slot: usize, power: bool) {
        if self.agents[slot].machine.take().is_none() {
            return;
        }
        self.counts.kills += 1;
        let node = self.agents[slot].node.clone();
        self.note(|| format!("{node} {}", if power { "loses its power" } else { "is killed" }));
        if let Some(conn) = self.agents[slot].link.conn.take() {
            self.abandon(conn);
        }
        self.agents[slot].link.up = false;
        let jobs = std::mem::take(&mut self.agents[slot].jobs);
        for job in jobs.into_values() {
            let progress = [Progress::Nothing, Progress::Applied, Progress::All][self.rng.below(3)];
            self.work(slot, &job, progress);
        }
        let agent = &mut self.agents[slot];
        // Of what was written without fsync, what was written first is there first.
        let kept = self.rng.below(agent.unsynced.len() + 1);
        for write in std::mem::take(&mut agent.unsynced).into_iter().take(kept) {
            agent.disk.apply(&write);
            agent.write_outbox(&write);
        }
        if power {
            agent.boot += 1;
            let kept = self.rng.below(agent.disk.started.len() + 1);
            agent.disk.started.truncate(kept);
        }
        let delay = match self.rng.below(10) {
            0..6 => self.millis(5, 300),
            6..9 => self.millis(300, 3000),
            _ => self.millis(3000, 20_000),
        };
        self.after(if self.faulty { delay } else { Duration::from_millis(100) }, Event::StartAgent(slot));
    }

    /// Has the machine take an event. False if the agent was killed.
    pub(super) fn handle_agent(&mut self, slot: usize, event: agent::Event) -> bool {
        let now = self.clock();
        let Some(machine) = &mut self.agents[slot].machine else { return false };
        let effects = machine.handle(event, now);
        if !self.carry_out_agent(slot, effects) {
            return false;
        }
        self.pump_agent(slot);
        self.wake_agent_later(slot);
        true
    }

    fn wake_agent_later(&mut self, slot: usize) {
        let agent = &mut self.agents[slot];
        let deadline = agent.machine.as_ref().and_then(Machine::deadline);
        let due = [deadline, agent.settling].into_iter().flatten().min();
        let Some(due) = due.map(|due| due.max(self.now)) else { return };
        if agent.wake_at.is_none_or(|at| due < at) {
            agent.wake_at = Some(due);
            let incarnation = agent.incarnation;
            self.at(due, Event::WakeAgent(slot, incarnation));
        }
    }

    pub(super) fn wake_agent(&mut self, slot: usize, incarnation: u32) {
        let agent = &mut self.agents[slot];
        if agent.incarnation != incarnation || agent.machine.is_none() || agent.wake_at != Some(self.now) {
            return;
        }
        agent.wake_at = None;
        if agent.settling.is_some_and(|until| until <= self.now) {
            agent.settling = None;
            if let Some((_, event, conn, id)) = agent.held.take() {
                if !self.handle_agent(slot, *event) {
                    return;
                }
                self.confirm(conn, id);
            }
        }
        self.handle_agent(slot, agent::Event::Tick);
    }

    /// Whether the agent goes on after one more effect.
    fn burn(&mut self, slot: usize) -> bool {
        let alive = burn(&mut self.agents[slot].fuel);
        if !alive {
            self.kill_agent(slot, false);
        }
        alive
    }

    fn carry_out_agent(&mut self, slot: usize, effects: Vec<Effect>) -> bool {
        for effect in effects {
            if !self.burn(slot) {
                return false;
            }
            match effect {
                Effect::Persist { writes, durable } => self.persist_agent(slot, writes, durable),
                Effect::ResetJournal => self.agents[slot].disk.started.clear(),
                Effect::Promise(promises) => {
                    let path = |promise: &Promise| {
                        Some(((promise.task.clone(), link(&promise.params)?.to_owned()), promise.plan))
                    };
                    self.agents[slot].host.promised = promises.iter().filter_map(path).collect();
                }
                Effect::Start(generation, starts) => {
                    if !self.sabotaged(Sabotage::SkipJournal) {
                        let marks = starts.iter().map(|start| (generation, start.task.clone()));
                        self.agents[slot].disk.started.extend(marks);
                    }
                    if !self.burn(slot) {
                        return false;
                    }
                    starts.into_iter().for_each(|start| self.start_job(slot, generation, start));
                }
                Effect::State(mut state) => {
                    self.check_state(slot, &state);
                    if self.sabotaged(Sabotage::ForgetClaims) {
                        state.applied.values_mut().for_each(|applied| applied.claims.clear());
                    }
                    self.agents[slot].state.put(*state);
                }
                Effect::Reports { from, to } => {
                    let agent = &mut self.agents[slot];
                    let pump = &mut agent.pump;
                    if to > agent.disk.sequence {
                        self.violate("reports are stored before they are sent", || format!("{to}"));
                    } else if from > to {
                        pump.announce = true;
                    } else if from.0 == pump.to.0 + 1 && pump.next <= pump.to {
                        pump.to = to;
                    } else {
                        (pump.next, pump.to) = (from, to);
                    }
                }
                Effect::Log(line) => {
                    let node = self.agents[slot].node.clone();
                    self.note(|| format!("{node}: {line}"));
                }
                Effect::Fetch(_) | Effect::FetchPlan(_) => {
                    self.violate("made-up sites ship no content", || "something is fetched".to_owned());
                }
                Effect::KeepBlobs(_) | Effect::Stopped => {}
            }
        }
        true
    }

    fn persist_agent(&mut self, slot: usize, writes: Vec<Write>, durable: bool) {
        let reports =
            |writes: &[Write]| writes.iter().filter(|write| matches!(write, Write::Report(..))).count() as u64;
        let unsaved = reports(&self.agents[slot].unsynced) + reports(&writes);
        for write in &writes {
            self.check_agent_write(slot, write, unsaved);
        }
        let skips = self.sabotaged(Sabotage::SkipSync);
        let agent = &mut self.agents[slot];
        agent.unsynced.extend(writes);
        let durable = durable && !skips;
        if durable {
            for write in std::mem::take(&mut agent.unsynced) {
                agent.disk.apply(&write);
                agent.write_outbox(&write);
            }
        }
    }

    fn start_job(&mut self, slot: usize, generation: Generation, start: Start) {
        let rolling = self.check_start(slot, generation, &start);
        self.last_job += 1;
        self.counts.jobs += 1;
        let number = self.last_job;
        let node = self.agents[slot].node.clone();
        self.note(|| {
            let work = match &start.work {
                agent::Work::Apply { .. } => "applies",
                agent::Work::Remove { .. } => "removes",
                agent::Work::Forget { .. } => "forgets",
                agent::Work::Trigger { .. } => "acts on",
            };
            let effect = start.effect.map(|effect| format!(" +{effect}")).unwrap_or_default();
            format!("{node} {work} {} for g{generation}{effect}", start.task)
        });
        let (task, seen) = (start.task.clone(), self.last_change);
        let job = Job { start, number, seen, generation, rolling };
        let agent = &mut self.agents[slot];
        let incarnation = agent.incarnation;
        if agent.jobs.insert(task.clone(), job).is_some() {
            self.violate("one job of a task at a time", || format!("{task} on {node}"));
        }
        self.check_limits(slot, &task);
        let duration = match self.rng.below(100) {
            0..70 => self.millis(1, 60),
            70..95 => self.millis(60, 500),
            _ => self.millis(500, 4000),
        };
        self.after(duration, Event::JobEnd(slot, incarnation, task, number));
    }

    /// Does to the host what a job does, as far as it came.
    fn work(&mut self, slot: usize, job: &Job, progress: Progress) -> super::super::host::Did {
        let did = self.agents[slot].host.run(&job.start, job.generation, job.seen, progress);
        self.counts.needless += u64::from(did.needless);
        self.counts.effects += u64::from(did.outcome.effect.is_some());
        for path in &did.took_away {
            self.check_taken_away(slot, job, path);
        }
        if did.needless {
            self.needless(slot, job);
        }
        if did.outcome.changed {
            self.counts.changes += 1;
            self.changed(slot, job);
        }
        did
    }

    pub(super) fn end_job(&mut self, slot: usize, incarnation: u32, task: &TaskId, number: u64) {
        let agent = &mut self.agents[slot];
        if agent.incarnation != incarnation || agent.jobs.get(task).is_none_or(|job| job.number != number) {
            return;
        }
        // Work on one claim excludes other work on it, as in the agent's `host/claims.rs`.
        let own: Vec<String> = agent.jobs.get(task).map(|job| paths(&job.start)).unwrap_or_default();
        let before = |job: &Job| job.number < number && paths(&job.start).iter().any(|path| own.contains(path));
        if agent.jobs.values().any(before) {
            return self.after(Duration::from_millis(1), Event::JobEnd(slot, incarnation, task.clone(), number));
        }
        let Some(job) = agent.jobs.remove(task) else { return };
        let fails = self.faulty && self.rng.chance(self.setup.profile.failures);
        let node = self.agents[slot].node.clone();
        let (did, result) = if fails {
            self.counts.failures += 1;
            let progress = [Progress::Nothing, Progress::Applied, Progress::All][self.rng.below(3)];
            let mut did = self.work(slot, &job, progress);
            did.export = None;
            (did, Err("made to fail".to_owned()))
        } else {
            let did = self.work(slot, &job, Progress::All);
            let outcome = did.outcome;
            self.agents[slot].host.settle(&job.start);
            (did, Ok(outcome))
        };
        self.note(|| match &result {
            Ok(outcome) => format!("{node} ends {task}: changed {}, effect {:?}", outcome.changed, outcome.effect),
            Err(_) => format!("{node} ends {task}: failed"),
        });
        self.job_ended(slot, &job, result.is_ok());
        let memory = did.export.clone().map(serde_json::Value::String);
        let done = JobDone {
            task: task.clone(),
            result,
            touched: did.touched,
            output: None,
            memory,
            export: did.export,
            found: Vec::new(),
            started_ms: 0,
            duration_ms: 0,
        };
        self.handle_agent(slot, agent::Event::Finished(Box::new(done)));
    }

    // The connection.

    pub(super) fn agent_receives(&mut self, slot: usize, conn: Conn, packet: Down) {
        let node = self.agents[slot].node.clone();
        match packet {
            Down::Connected { session_present } => {
                let session = SessionId::new(self.rng.hex(16)).expect("16 hexadecimal digits");
                let agent = &mut self.agents[slot];
                agent.settling = session_present.then_some(self.now + QUIET);
                agent.held = None;
                let fresh = !(session_present && agent.subscribed);
                agent.subscribed &= !fresh;
                agent.link.up = true;
                agent.session = Some(session);
                self.note(|| format!("{node} is connected, session kept: {session_present}"));
                if fresh {
                    self.send_up(conn, Up::Subscribe);
                }
                let presence = self.agent_presence(slot, true);
                if let Payload::Presence(presence) = presence.payload {
                    self.agents[slot].presence.put((*presence).clone());
                }
                self.handle_agent(slot, agent::Event::Connected { session_present: !fresh });
            }
            Down::Subscribed => self.agents[slot].subscribed = true,
            Down::Confirm(id) => {
                let agent = &mut self.agents[slot];
                agent.presence.confirmed(id);
                agent.state.confirmed(id);
                agent.batches.remove(&id);
                self.pump_agent(slot);
            }
            Down::Publish(id, message) => {
                self.note(|| format!("{node} receives {}", short(&message)));
                self.deliver(slot, conn, id, message);
            }
        }
    }

    fn deliver(&mut self, slot: usize, conn: Conn, id: u16, message: Message) {
        let event = match self.tamper(slot, message.payload) {
            Payload::Plan(offer) => agent::Event::Plan(Box::new((*offer).clone())),
            Payload::Gates(gates) => agent::Event::Gates((*gates).clone()),
            Payload::Ack(ack) => agent::Event::Ack(ack),
            _ => return self.confirm(conn, id),
        };
        let agent = &mut self.agents[slot];
        if let (agent::Event::Plan(offer), Some(_)) = (&event, agent.settling) {
            agent.settling = Some(self.now + QUIET);
            let generation = offer.generation;
            let outdated = match &agent.held {
                Some((held, ..)) if *held > generation => Some((conn, id)),
                _ => agent.held.replace((generation, Box::new(event), conn, id)).map(|(.., conn, id)| (conn, id)),
            };
            if let Some((conn, id)) = outdated {
                self.confirm(conn, id);
            }
            return self.wake_agent_later(slot);
        }
        if self.handle_agent(slot, event) {
            self.confirm(conn, id);
        }
    }

    pub(super) fn confirm(&mut self, conn: Conn, id: u16) {
        self.send_up(conn, Up::Confirm(id));
    }

    pub(super) fn agent_disconnected(&mut self, slot: usize, conn: Conn) {
        let agent = &mut self.agents[slot];
        if agent.link.conn != Some(conn) {
            return;
        }
        agent.link.conn = None;
        agent.subscribed &= agent.link.up;
        agent.link.up = false;
        agent.session = None;
        agent.batches.clear();
        (agent.presence.flying, agent.state.flying) = (None, None);
        let (incarnation, node) = (agent.incarnation, agent.node.clone());
        self.note(|| format!("{node} loses its connection"));
        if self.handle_agent(slot, agent::Event::Disconnected) {
            self.connect_later(Owner::Agent(slot), incarnation);
        }
    }

    /// Sends what waits, as far as the connection takes it.
    fn pump_agent(&mut self, slot: usize) {
        let agent = &mut self.agents[slot];
        let (true, Some(conn)) = (agent.link.up, agent.link.conn) else { return };
        let node = Some(agent.node.clone());
        let mut out = Vec::new();
        if let (Some(presence), None) = (&agent.presence.value, agent.presence.flying) {
            let id = agent.link.next_id();
            agent.presence.flying = Some(id);
            let payload = Payload::Presence(Arc::new(presence.clone()));
            out.push((id, Message { address: (node.clone(), "presence"), payload, retain: true }));
        }
        if let (Some(state), None) = (&agent.state.value, agent.state.flying) {
            let id = agent.link.next_id();
            agent.state.flying = Some(id);
            let payload = Payload::State(Arc::new(state.clone()));
            out.push((id, Message { address: (node.clone(), "state"), payload, retain: true }));
        }
        while (agent.pump.next <= agent.pump.to || agent.pump.announce) && agent.batches.len() < BATCHES {
            let range = agent.outbox.range(agent.pump.next..).take_while(|(number, _)| **number <= agent.pump.to);
            let stored: Vec<_> = range.take(BATCH).map(|(number, report)| (*number, report.clone())).collect();
            if stored.is_empty() && !agent.pump.announce {
                agent.pump.next = Sequence(agent.pump.to.0 + 1);
                break;
            }
            let Some(machine) = &agent.machine else { break };
            let first = stored.first().map_or(agent.pump.next, |(number, _)| *number);
            let next = stored.last().map_or(agent.pump.next, |(number, _)| Sequence(number.0 + 1));
            let batch = ReportBatch {
                version: VERSION,
                site: site(),
                node: agent.node.clone(),
                ledger: machine.ledger().clone(),
                first,
                generation: machine.generation(),
                reports: stored.into_iter().map(|(_, report)| report).collect(),
                running: machine.running(),
                last: machine.last_report(),
                acked: machine.acked_report(),
            };
            let id = agent.link.next_id();
            agent.batches.insert(id);
            (agent.pump.next, agent.pump.announce) = (next, false);
            let payload = Payload::Reports(Arc::new(batch));
            out.push((id, Message { address: (node.clone(), "report"), payload, retain: false }));
        }
        for (id, message) in out {
            self.note(|| {
                format!("{} sends {}", message.address.0.as_ref().map_or("", |n| n.as_str()), short(&message))
            });
            self.send_up(conn, Up::Publish(id, message));
        }
    }
}

/// The paths of the links that a job works on.
fn paths(start: &Start) -> Vec<String> {
    let (agent::Work::Apply { spec, .. }
    | agent::Work::Remove { spec, .. }
    | agent::Work::Trigger { spec }
    | agent::Work::Forget { spec, .. }) = &start.work;
    let previous = match &start.work {
        agent::Work::Apply { previous, .. } => previous.as_ref().map(|previous| &previous.params),
        _ => None,
    };
    let earlier = start.earlier.iter().map(|earlier| &earlier.params);
    [&spec.params].into_iter().chain(previous).chain(earlier).filter_map(link).map(str::to_owned).collect()
}

/// Whether a report is a good end.
pub(super) fn is_good(outcome: &Outcome) -> bool {
    outcome.is_success()
}
