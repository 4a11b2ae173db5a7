//! One agent: the agent's machine, with its reports in memory and a host on which every job succeeds at once.
//!
//! In: payloads of the broker, connections, the time. Out: signed payloads to publish. Its ledger is never read back: an agent that begins
//! again has an empty one.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use groundplan_agent::{
    machine::{self, Effect, Event, Facts, JobDone, JobOutcome, Machine, Snapshot, Start, Work, Write},
    transport::{Inbound, Reader},
};
use groundplan_protocol::{
    VERSION,
    digest::Digest,
    encryption::EncryptionKey,
    envelope::{seal, seal_for},
    ids::{NodeId, Sequence, SessionId},
    presence::Presence,
    report::{ReportBatch, TaskReport},
    topic::{NodeTopic, Topic, agent_client, agent_filters},
};
use serde_json::json;

use super::shared::{Shared, SimulatedNode, ledger};

/// Something to publish.
pub(super) struct Outgoing {
    pub(super) topic: String,
    pub(super) payload: Vec<u8>,
    pub(super) retain: bool,
}

/// See the module.
pub(super) struct Agent {
    shared: Arc<Shared>,
    number: usize,
    identity: SimulatedNode,
    reader: Reader,
    life: u32,
    machine: Machine,
    reports: BTreeMap<Sequence, TaskReport>,
    /// How often it has connected, for the names of its connections.
    connections: u32,
    /// The key that the planners announce, and reports that wait for it.
    planners: Option<EncryptionKey>,
    unsent: Option<(Sequence, Sequence)>,
    out: Vec<Outgoing>,
}

impl Agent {
    pub(super) fn new(shared: Arc<Shared>, number: usize, identity: SimulatedNode) -> Self {
        let (site, node, trusted) = (shared.site.clone(), identity.node.clone(), vec![shared.planner]);
        let reader = Reader { site, node, trusted, decryption: identity.key.decryption() };
        let (machine, effects) = empty(&shared, &identity, 0);
        let mut agent = Self {
            shared,
            number,
            identity,
            reader,
            life: 0,
            machine,
            reports: BTreeMap::new(),
            connections: 0,
            planners: None,
            unsent: None,
            out: Vec::new(),
        };
        agent.begin(effects);
        agent
    }

    /// Begins again with an empty ledger, unless it is in that life already.
    pub(super) fn live(&mut self, life: u32) {
        if self.life != life {
            let (machine, effects) = empty(&self.shared, &self.identity, life);
            (self.life, self.machine) = (life, machine);
            self.reports.clear();
            self.begin(effects);
        }
    }

    fn begin(&mut self, effects: Vec<Effect>) {
        self.out.clear();
        let mut events = VecDeque::from([Event::Tick, Event::Facts(facts(&self.identity.node))]);
        self.carry_out(effects, &mut events);
        self.handle_all(events);
    }

    pub(super) fn client(&self) -> String {
        agent_client(&self.shared.site, &self.identity.node, &self.identity.key)
    }

    /// User name and password, at a broker that asks for them.
    pub(super) fn login(&self) -> Option<(String, String)> {
        Some((self.identity.node.to_string(), self.identity.password.clone()?))
    }

    pub(super) fn filters(&self) -> Vec<String> {
        agent_filters(&self.shared.site, &self.identity.node)
    }

    /// Its last will.
    pub(super) fn will(&self) -> Outgoing {
        self.presence(None)
    }

    /// The broker has accepted its connection, on which it has subscribed.
    pub(super) fn connected(&mut self, kept: bool) {
        self.connections += 1;
        let name = Digest::of(format!("{} {} {}", self.identity.node, self.life, self.connections).as_bytes());
        let session = SessionId::new(name.short()).expect("16 hexadecimal digits");
        // What did not leave on the last connection: the machine sends it again where it matters.
        self.out.clear();
        let presence = self.presence(Some(session));
        self.out.push(presence);
        self.handle_all([Event::Connected { session_present: kept }].into());
    }

    pub(super) fn disconnected(&mut self) {
        self.handle_all([Event::Disconnected].into());
    }

    pub(super) fn tick(&mut self) {
        self.handle_all([Event::Tick].into());
    }

    /// When [`Self::tick`] is due.
    pub(super) fn deadline(&self) -> Option<Duration> {
        self.machine.deadline()
    }

    /// Takes a message of the broker.
    pub(super) fn receive(&mut self, topic: &str, payload: &[u8]) {
        Shared::count(&self.shared.received, payload.len());
        if let Some(event) = self.open(topic, payload) {
            self.handle_all([event].into());
        }
    }

    /// What a payload asks of the machine: the one place where messages of planners are opened.
    fn open(&mut self, topic: &str, payload: &[u8]) -> Option<Event> {
        match self.reader.read(topic, payload) {
            Inbound::Event(event) => Some(event),
            Inbound::Heartbeat(beat) => {
                self.planners = beat.encryption_key;
                if let Some((from, to)) = self.unsent.take() {
                    self.report(from, to);
                }
                None
            }
            // Drift checks, commands and content are no affair of an agent without a host.
            Inbound::Chunk(..) | Inbound::CheckRequest(_) | Inbound::Exec(_) | Inbound::Nothing => None,
        }
    }

    /// What it has to publish.
    pub(super) fn take_outgoing(&mut self) -> Vec<Outgoing> {
        std::mem::take(&mut self.out)
    }

    fn handle_all(&mut self, mut events: VecDeque<Event>) {
        while let Some(event) = events.pop_front() {
            let effects = self.machine.handle(event, self.shared.now());
            self.carry_out(effects, &mut events);
        }
        let is_done = self.machine.is_idle() && self.machine.acked_report() == self.machine.last_report();
        let settled = if is_done { self.machine.generation().0 } else { 0 };
        // A plan that is under way does not take back that the one before was done.
        if settled > 0 {
            self.shared.settled[self.number].store(settled, Ordering::Relaxed);
        }
    }

    fn carry_out(&mut self, effects: Vec<Effect>, events: &mut VecDeque<Event>) {
        for effect in effects {
            match effect {
                Effect::Persist { writes, .. } => writes.into_iter().for_each(|write| self.persist(write)),
                Effect::Start(_, starts) => events.extend(starts.into_iter().map(|start| done(start, &self.shared))),
                Effect::State(state) => {
                    let payload = seal(&self.identity.key, &*state);
                    self.publish(NodeTopic::State, payload);
                }
                Effect::Reports { from, to } => self.report(from, to),
                Effect::Fetch(_) | Effect::FetchPlan(_) => {
                    self.shared.fail(format!("simulated agents fetch nothing, and {} is to", self.identity.node));
                }
                Effect::ResetJournal | Effect::Promise(_) | Effect::KeepBlobs(_) | Effect::Log(_) | Effect::Stopped => {
                }
            }
        }
    }

    fn persist(&mut self, write: Write) {
        match write {
            Write::Report(number, report) => drop(self.reports.insert(number, *report)),
            Write::Acknowledged(to) => self.reports.retain(|number, _| *number > to),
            _ => {}
        }
    }

    fn report(&mut self, from: Sequence, to: Sequence) {
        let Some(planners) = self.planners else {
            self.unsent = Some((from, to));
            return;
        };
        let reports: Vec<TaskReport> = match from <= to {
            true => self.reports.range(from..=to).map(|(_, report)| report.clone()).collect(),
            // An announcement of what runs.
            false => Vec::new(),
        };
        let batch = ReportBatch {
            version: VERSION,
            site: self.shared.site.clone(),
            node: self.identity.node.clone(),
            ledger: self.machine.ledger().clone(),
            first: from,
            generation: self.machine.generation(),
            reports,
            running: self.machine.running(),
            last: self.machine.last_report(),
            acked: self.machine.acked_report(),
        };
        let payload = seal_for(&self.identity.key, &planners, &batch).expect("a key that can be encrypted to");
        self.publish(NodeTopic::Report, payload);
    }

    fn presence(&self, session: Option<SessionId>) -> Outgoing {
        let presence = Presence {
            version: VERSION,
            site: self.shared.site.clone(),
            node: self.identity.node.clone(),
            online: session.is_some(),
            agent: env!("CARGO_PKG_VERSION").to_owned(),
            ledger: self.machine.ledger().clone(),
            session,
            trouble: None,
        };
        self.outgoing(NodeTopic::Presence, seal(&self.identity.key, &presence))
    }

    fn publish(&mut self, topic: NodeTopic, payload: Vec<u8>) {
        let outgoing = self.outgoing(topic, payload);
        self.out.push(outgoing);
    }

    fn outgoing(&self, topic: NodeTopic, payload: Vec<u8>) -> Outgoing {
        let name = Topic::Node(self.identity.node.clone(), topic).name(&self.shared.site);
        Outgoing { topic: name, payload, retain: topic.spec().is_retained() }
    }
}

/// The machine of an empty ledger, and what it wants done at first.
fn empty(shared: &Shared, identity: &SimulatedNode, life: u32) -> (Machine, Vec<Effect>) {
    let settings = machine::Settings {
        site: shared.site.clone(),
        node: identity.node.clone(),
        agent: env!("CARGO_PKG_VERSION").to_owned(),
        encryption_key: identity.key.decryption().public(),
        max_parallel: 4,
        max_blob: 1 << 20,
        max_blobs: 1 << 20,
        boot: "simulated".to_owned(),
    };
    Machine::restore(settings, Snapshot::empty(ledger(&identity.node, life)), shared.now())
        .expect("an empty ledger can be read")
}

/// A job that has ended as soon as it began: it changed what it was to change.
fn done(start: Start, shared: &Shared) -> Event {
    let changed = match &start.work {
        Work::Apply { spec, previous, .. } => {
            previous.as_ref().is_none_or(|before| before.params != spec.params || spec.content.is_some())
                || start.effect.is_some()
        }
        Work::Remove { .. } | Work::Trigger { .. } => true,
        Work::Forget { .. } => false,
    };
    // Applying has restarted it already.
    let effect = start.effect.filter(|_| matches!(start.work, Work::Trigger { .. }));
    Event::Finished(Box::new(JobDone {
        task: start.task,
        result: Ok(JobOutcome { changed, effect }),
        touched: true,
        output: None,
        memory: None,
        export: None,
        found: Vec::new(),
        started_ms: shared.now().wall_ms,
        duration_ms: 0,
    }))
}

/// As many facts as a host has, about.
fn facts(node: &NodeId) -> Facts {
    let facts = json!({
        "arch": "x86_64", "cpus": 4, "hostname": node.as_str(), "kernel": "6.1.0-42-amd64", "memory": 8_329_146_368_u64,
        "os": { "id": "debian", "version": "12", "name": "Debian GNU/Linux 12 (bookworm)" },
        "local": { "rack": "r1", "room": "3" },
    });
    facts.as_object().expect("an object").clone().into_iter().collect()
}
