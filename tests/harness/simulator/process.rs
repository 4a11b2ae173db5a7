//! The processes of the simulation: an agent on its host and a planner with its disk, each with what its shell holds around the machine.
//!
//! Plain values; what happens to them is in `world`. They survive their own crashes: `machine` is none while a process is down.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::Duration,
};

use groundplan_agent::machine::{self as agent, Facts, Snapshot, Start, Write};
use groundplan_machine::{Input, Machine};
use groundplan_protocol::{
    digest::Digest,
    ids::{Generation, LedgerId, NodeId, Sequence, ServiceId, SessionId, TaskId},
    plan::Gates,
    presence::Presence,
    report::TaskReport,
    state::NodeState,
};
use serde_json::json;

use super::{
    broker::{Address, Conn, Message},
    disk::PlannerDisk,
    host::Host,
};

/// Facts of a host in this rack.
pub(super) fn facts(rack: u64) -> Facts {
    BTreeMap::from([("local".to_owned(), json!({ "rack": format!("r{rack}") }))])
}

/// A client's side of its connection.
#[derive(Debug, Default)]
pub(super) struct Link {
    /// The connection, from the attempt on.
    pub(super) conn: Option<Conn>,
    /// Whether the broker has accepted it.
    pub(super) up: bool,
    /// The network lets nothing through before.
    pub(super) partitioned_until: Duration,
    last_id: u16,
}

impl Link {
    pub(super) fn next_id(&mut self) -> u16 {
        self.last_id = self.last_id % u16::MAX + 1;
        self.last_id
    }
}

/// A retained message that an agent has to publish: the last one, until the broker has confirmed it.
#[derive(Debug)]
pub(super) struct Slot<T> {
    pub(super) value: Option<T>,
    pub(super) flying: Option<u16>,
}

impl<T> Default for Slot<T> {
    fn default() -> Self {
        Self { value: None, flying: None }
    }
}

impl<T> Slot<T> {
    pub(super) fn put(&mut self, value: T) {
        *self = Self { value: Some(value), flying: None };
    }

    pub(super) fn confirmed(&mut self, id: u16) {
        if self.flying == Some(id) {
            *self = Self::default();
        }
    }
}

/// A job under way on a host.
#[derive(Debug, Clone)]
pub(super) struct Job {
    pub(super) start: Start,
    pub(super) number: u64,
    /// How many changes had happened when it began.
    pub(super) seen: u64,
    pub(super) generation: Generation,
    /// The service whose rolling limit it is under, with the limit.
    pub(super) rolling: Option<(ServiceId, u32)>,
}

/// Stored reports that are to be sent.
#[derive(Debug)]
pub(super) struct Pump {
    pub(super) next: Sequence,
    pub(super) to: Sequence,
    pub(super) announce: bool,
}

/// A host with its agent.
pub(super) struct Agent {
    pub(super) node: NodeId,
    pub(super) host: Host,
    pub(super) facts: Facts,
    /// Whether the host is part of the world at all.
    pub(super) exists: bool,
    /// Until when the host is away on purpose.
    pub(super) away_until: Duration,
    pub(super) machine: Option<agent::Machine>,
    pub(super) incarnation: u32,
    /// What is surely on the disk.
    pub(super) disk: Snapshot,
    /// What was written since without fsync.
    pub(super) unsynced: Vec<Write>,
    /// Reports in the ledger that no planner has acknowledged.
    pub(super) outbox: BTreeMap<Sequence, TaskReport>,
    pub(super) boot: u32,
    pub(super) jobs: BTreeMap<TaskId, Job>,
    /// Effects that can be carried out before it is killed.
    pub(super) fuel: Option<usize>,
    pub(super) wake_at: Option<Duration>,
    pub(super) link: Link,
    pub(super) subscribed: bool,
    pub(super) session: Option<SessionId>,
    pub(super) presence: Slot<Presence>,
    pub(super) state: Slot<NodeState>,
    /// Batches of reports on their way.
    pub(super) batches: BTreeSet<u16>,
    pub(super) pump: Pump,
    pub(super) settling: Option<Duration>,
    pub(super) held: Option<(Generation, Box<agent::Event>, Conn, u16)>,
    /// Plans that this ledger has accepted.
    pub(super) accepted: BTreeMap<Generation, Digest>,
    /// Those that were made without its last reports.
    pub(super) outdated: BTreeSet<Generation>,
    /// The last generation that was planned before the host was built again, or got the name that another one had: such a plan may come
    /// with gates that are open for what the host before had done.
    pub(super) plans_before: Generation,
    /// Tasks under a rolling limit that failed and were not repaired.
    pub(super) broken: BTreeMap<TaskId, (ServiceId, Generation)>,
    /// By which plan a service was last repaired in which such a task had failed.
    pub(super) repairs: BTreeMap<ServiceId, Generation>,
}

impl Agent {
    pub(super) fn new(node: NodeId, ledger: LedgerId) -> Self {
        Self {
            node,
            host: Host::default(),
            facts: Facts::new(),
            exists: true,
            away_until: Duration::ZERO,
            machine: None,
            incarnation: 0,
            disk: Snapshot::empty(ledger),
            unsynced: Vec::new(),
            outbox: BTreeMap::new(),
            boot: 1,
            jobs: BTreeMap::new(),
            fuel: None,
            wake_at: None,
            link: Link::default(),
            subscribed: false,
            session: None,
            presence: Slot::default(),
            state: Slot::default(),
            batches: BTreeSet::new(),
            pump: Pump { next: Sequence(1), to: Sequence(0), announce: false },
            settling: None,
            held: None,
            accepted: BTreeMap::new(),
            outdated: BTreeSet::new(),
            plans_before: Generation(0),
            broken: BTreeMap::new(),
            repairs: BTreeMap::new(),
        }
    }

    /// What a write changes beside the snapshot.
    pub(super) fn write_outbox(&mut self, write: &Write) {
        match write {
            Write::Report(number, report) => drop(self.outbox.insert(*number, (**report).clone())),
            Write::Acknowledged(to) => self.outbox.retain(|number, _| number > to),
            _ => {}
        }
    }
}

/// A planner with its disk.
pub(super) struct Planner {
    pub(super) name: String,
    pub(super) disk: PlannerDisk,
    pub(super) machine: Option<Machine>,
    pub(super) incarnation: u32,
    /// Whether it is to run.
    pub(super) wanted: bool,
    pub(super) fuel: Option<usize>,
    pub(super) connects: bool,
    pub(super) subscribed: bool,
    pub(super) open: bool,
    pub(super) link: Link,
    pub(super) outbox: Outbox,
    pub(super) inbox: Vec<Input>,
    pub(super) round_due: bool,
    pub(super) wake_at: Option<Duration>,
    pub(super) receipts: BTreeMap<u64, (Conn, u16)>,
    pub(super) last_receipt: u64,
    pub(super) tip: Option<usize>,
    /// The gates that it published last.
    pub(super) gates: BTreeMap<NodeId, Gates>,
    /// Number of the record of its latest plan.
    pub(super) record: Option<usize>,
}

impl Planner {
    pub(super) fn new(name: String) -> Self {
        let mut disk = PlannerDisk::default();
        disk.meta.planner.clone_from(&name);
        Self {
            name,
            disk,
            machine: None,
            incarnation: 0,
            wanted: false,
            fuel: None,
            connects: false,
            subscribed: false,
            open: false,
            link: Link::default(),
            outbox: Outbox::default(),
            inbox: Vec::new(),
            round_due: false,
            wake_at: None,
            receipts: BTreeMap::new(),
            last_receipt: 0,
            tip: None,
            gates: BTreeMap::new(),
            record: None,
        }
    }
}

/// What a planner has to publish: one message a topic, the latest, as in its transport.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    urgent: VecDeque<Message>,
    waiting: VecDeque<Message>,
    sent: Vec<(u16, Message)>,
}

impl Outbox {
    pub(super) fn push(&mut self, message: Message) {
        self.waiting.retain(|waiting| waiting.address != message.address);
        self.waiting.push_back(message);
    }

    pub(super) fn push_urgent(&mut self, message: Message) {
        self.urgent.push_back(message);
    }

    /// The next message to leave.
    pub(super) fn take(&mut self, open: bool) -> Option<Message> {
        self.urgent.pop_front().or_else(|| if open { self.waiting.pop_front() } else { None })
    }

    pub(super) fn sent(&mut self, id: u16, message: Message) {
        self.sent.push((id, message));
    }

    pub(super) fn confirmed(&mut self, id: u16) {
        self.sent.retain(|(sent, _)| *sent != id);
    }

    /// What was on its way waits again, but where a later message of its topic waits.
    pub(super) fn disconnected(&mut self) {
        self.urgent.clear();
        let rest: Vec<Message> = std::mem::take(&mut self.waiting).into();
        let again: Vec<Message> = std::mem::take(&mut self.sent).into_iter().map(|(_, message)| message).collect();
        again.into_iter().chain(rest).for_each(|message| self.push(message));
    }

    /// The broker has forgotten everything: all of it will be published again.
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    pub(super) fn len(&self) -> usize {
        self.urgent.len() + self.waiting.len() + self.sent.len()
    }

    /// Topics that wait, for the trace.
    pub(super) fn topics(&self) -> impl Iterator<Item = &Address> {
        self.waiting.iter().map(|message| &message.address)
    }
}

/// Uses one effect's worth of fuel; whether the process goes on. Without a bound it always does.
pub(super) fn burn(fuel: &mut Option<usize>) -> bool {
    match fuel {
        None => true,
        Some(0) => false,
        Some(fuel) => {
            *fuel -= 1;
            true
        }
    }
}
