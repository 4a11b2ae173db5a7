//! The world: one broker, hosts with agents, planners, a branch, and one clock for all of them.
//!
//! In: a seed, by way of a [`Setup`]. Out: a [`Verdict`]. Everything happens as an event at a virtual time; what is random comes from the
//! seed. `network` moves packets, `agents` and `planners` carry out the machines' effects, `faults` does what goes wrong, `checks` holds
//! the invariants, `settle` lets the world come to rest and judges it.

mod agents;
mod checks;
mod faults;
mod network;
mod planners;
mod settle;

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet, BinaryHeap, VecDeque},
    fmt,
    sync::Arc,
    time::Duration,
};

use groundplan_core::DesiredState;
use groundplan_machine::{ids::JobId, io::LoadOutcome, planning::Planned};
use groundplan_protocol::{
    digest::Digest,
    ids::{LedgerId, NodeId, TaskId},
    presence::PlannerPresence,
    time::Now,
};

use super::{
    branch::Branch,
    broker::{Broker, Client, Conn, Down, Up},
    process::{Agent, Planner, facts},
    record::{Edges, Record},
    rng::Rng,
    sabotage::Sabotage,
    schedule::{Fault, Op, Profile},
    site::Sketch,
};

/// How many lines of the trace are kept.
const TRACE: usize = 5000;

/// The time of day at which every world begins, in milliseconds since the Unix epoch.
const EPOCH_MS: u64 = 1_700_000_000_000;

/// Which world to run.
#[derive(Debug, Clone)]
pub(super) struct Setup {
    pub(super) seed: u64,
    pub(super) profile: Profile,
    pub(super) ops: Vec<Op>,
    pub(super) sabotage: Option<Sabotage>,
    pub(super) tracing: bool,
}

/// What became of a world.
#[derive(Debug, Clone, Default)]
pub(super) struct Verdict {
    pub(super) events: u64,
    pub(super) faults: BTreeMap<Fault, u64>,
    pub(super) counts: Counts,
    pub(super) violation: Option<Violation>,
    pub(super) trace: Vec<String>,
}

/// Numbers that show whether a world had anything to do.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Counts {
    pub(super) commits: u64,
    pub(super) refused: u64,
    pub(super) plans: u64,
    pub(super) jobs: u64,
    pub(super) changes: u64,
    pub(super) effects: u64,
    /// Effects that nothing called for.
    pub(super) needless: u64,
    pub(super) failures: u64,
    pub(super) kills: u64,
}

/// An invariant that did not hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Violation {
    /// Which.
    pub(super) invariant: &'static str,
    pub(super) details: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.invariant, self.details)
    }
}

/// What happens at a time.
enum Event {
    Up(Conn, Up),
    Down(Conn, Down),
    /// The client notices that its connection is gone; the broker notices.
    ClientLost(Conn),
    BrokerLost(Conn),
    Pump(Client),
    Connect(Owner, u32),
    WakeAgent(usize, u32),
    StartAgent(usize),
    JobEnd(usize, u32, TaskId, u64),
    WakePlanner(usize, u32),
    StartPlanner(usize),
    Round(usize, u32),
    Loaded(usize, u32, JobId, Box<LoadOutcome>),
    Planned(usize, u32, Box<Planned>),
    Poll(usize, u32),
    Op(usize),
    /// A presence of a planner comes again, and so many more do.
    Replay(u64),
}

/// The process at the client's end of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Owner {
    Agent(usize),
    Planner(usize),
}

/// A connection, as the network sees it.
struct Wire {
    owner: Owner,
    client: Client,
    /// When the last packet of each direction arrives: none overtakes another.
    up: Duration,
    down: Duration,
    client_open: bool,
    broker_open: bool,
}

/// See the module.
pub(super) struct World {
    setup: Setup,
    now: Duration,
    queue: BinaryHeap<Reverse<Entry>>,
    last_event: u64,
    events: u64,
    at_this_moment: u32,
    rng: Rng,
    broker: Broker,
    wires: BTreeMap<Conn, Wire>,
    last_conn: Conn,
    agents: Vec<Agent>,
    planners: Vec<Planner>,
    branch: Branch,
    good: Vec<usize>,
    records: Vec<Record>,
    edges: Vec<(Arc<DesiredState>, Arc<Edges>)>,
    /// Tasks that ended well, by the digest of the message that they were part of.
    done: BTreeMap<Digest, BTreeSet<TaskId>>,
    /// The record of the latest plan that a planner has taken up.
    current: Option<usize>,
    /// What planners have published of their presence, where it comes again.
    presences: Vec<PlannerPresence>,
    /// Before this generation turns of rolling restarts were lost with a planner's disk.
    turns_known_from: u64,
    /// Whether a plan was taken up while nodes were busy with the one before.
    overlapped: bool,
    /// Whether a plan was made with parked nodes.
    parked: bool,
    last_change: u64,
    last_job: u64,
    last_name: usize,
    /// Whether things still go wrong.
    faulty: bool,
    counts: Counts,
    faults: BTreeMap<Fault, u64>,
    violation: Option<Violation>,
    trace: VecDeque<String>,
}

struct Entry {
    at: Duration,
    number: u64,
    event: Event,
}

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        self.number == other.number
    }
}

impl Eq for Entry {}

impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Entry {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.number).cmp(&(other.at, other.number))
    }
}

impl World {
    pub(super) fn new(setup: Setup) -> Self {
        let mut rng = Rng::new(setup.seed);
        let sketch = Sketch::any(&mut rng);
        let names: Vec<String> = sketch.nodes.iter().map(|node| node.name.clone()).collect();
        let mut world = Self {
            now: Duration::from_secs(1),
            queue: BinaryHeap::new(),
            last_event: 0,
            events: 0,
            at_this_moment: 0,
            broker: Broker::new(setup.profile.drops),
            wires: BTreeMap::new(),
            last_conn: 0,
            agents: Vec::new(),
            planners: Vec::new(),
            branch: Branch::new(sketch),
            good: Vec::new(),
            records: Vec::new(),
            edges: Vec::new(),
            done: BTreeMap::new(),
            current: None,
            presences: Vec::new(),
            turns_known_from: 0,
            overlapped: false,
            parked: false,
            last_change: 0,
            last_job: 0,
            last_name: names.len(),
            faulty: true,
            counts: Counts::default(),
            faults: BTreeMap::new(),
            violation: None,
            trace: VecDeque::new(),
            rng,
            setup,
        };
        world.note_files();
        for name in names {
            let late = if world.rng.chance(15) { world.rng.between(1, 8000) } else { world.rng.between(1, 300) };
            world.add_host(&name, Duration::from_millis(late));
        }
        world.add_planner();
        let delay = world.rng.between(1, 400);
        world.planners[0].wanted = true;
        world.after(Duration::from_millis(delay), Event::StartPlanner(0));
        for i in 0..world.setup.ops.len() {
            let at = world.setup.ops[i].at;
            world.after(at, Event::Op(i));
        }
        world
    }

    /// Runs the world to its end.
    pub(super) fn run(mut self) -> Verdict {
        let last = self.setup.ops.last().map_or(Duration::ZERO, |op| op.at);
        self.run_until(self.now + last + Duration::from_secs(2));
        self.settle();
        self.verdict()
    }

    fn verdict(self) -> Verdict {
        Verdict {
            events: self.events,
            faults: self.faults,
            counts: self.counts,
            violation: self.violation,
            trace: self.trace.into(),
        }
    }

    fn run_until(&mut self, until: Duration) {
        while self.violation.is_none() {
            match self.queue.peek() {
                Some(Reverse(entry)) if entry.at <= until => {}
                _ => break,
            }
            let Some(Reverse(entry)) = self.queue.pop() else { break };
            self.at_this_moment = if entry.at > self.now { 0 } else { self.at_this_moment + 1 };
            self.now = self.now.max(entry.at);
            self.events += 1;
            if self.at_this_moment > 20_000 {
                self.violate("time goes on", || "a process asks to be woken without end".to_owned());
            }
            self.happen(entry.event);
        }
        self.now = self.now.max(until);
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Up(conn, packet) => self.at_broker(conn, packet),
            Event::Down(conn, packet) => self.at_client(conn, packet),
            Event::ClientLost(conn) => self.client_lost(conn),
            Event::BrokerLost(conn) => self.broker_lost(conn),
            Event::Pump(client) => self.pump_broker(&client),
            Event::Connect(owner, incarnation) => self.connect(owner, incarnation),
            Event::WakeAgent(slot, incarnation) => self.wake_agent(slot, incarnation),
            Event::StartAgent(slot) => self.start_agent(slot),
            Event::JobEnd(slot, incarnation, task, number) => self.end_job(slot, incarnation, &task, number),
            Event::WakePlanner(slot, incarnation) => self.wake_planner(slot, incarnation),
            Event::StartPlanner(slot) => self.start_planner(slot),
            Event::Round(slot, incarnation) => self.round(slot, incarnation),
            Event::Loaded(slot, incarnation, job, outcome) => self.loaded(slot, incarnation, job, *outcome),
            Event::Planned(slot, incarnation, planned) => self.planned(slot, incarnation, planned),
            Event::Poll(slot, incarnation) => self.poll(slot, incarnation),
            Event::Op(i) => self.operate(i),
            Event::Replay(more) => self.replay(more),
        }
    }

    fn after(&mut self, delay: Duration, event: Event) {
        self.at(self.now + delay, event);
    }

    fn at(&mut self, at: Duration, event: Event) {
        self.last_event += 1;
        self.queue.push(Reverse(Entry { at, number: self.last_event, event }));
    }

    fn clock(&self) -> Now {
        Now { mono: self.now, wall_ms: EPOCH_MS + self.now.as_millis() as u64 }
    }

    fn millis(&mut self, low: u64, high: u64) -> Duration {
        Duration::from_micros(self.rng.between(low * 1000, high * 1000))
    }

    /// A host with an agent that starts after a while.
    fn add_host(&mut self, name: &str, after: Duration) {
        let ledger = LedgerId::new(self.rng.hex(32)).expect("32 hexadecimal digits");
        let node = NodeId::new(name).expect("a name");
        let mut agent = Agent::new(node, ledger);
        let rack = self.rng.between(1, 3);
        agent.facts = facts(rack);
        // Another host may have had this name: see the field.
        let earlier = self.records.iter().filter(|record| record.ids.contains_key(&agent.node));
        agent.plans_before = earlier.map(|record| record.generation).max().unwrap_or_default();
        self.agents.push(agent);
        let slot = self.agents.len() - 1;
        self.after(after, Event::StartAgent(slot));
    }

    fn add_planner(&mut self) {
        let name = format!("p{}-{}", self.planners.len(), self.rng.hex(4));
        self.planners.push(Planner::new(name));
    }

    fn note(&mut self, line: impl FnOnce() -> String) {
        if self.setup.tracing {
            if self.trace.len() >= TRACE {
                self.trace.pop_front();
            }
            let line = format!("{:9.3} {}", self.now.as_secs_f64() - 1.0, line());
            self.trace.push_back(line);
        }
    }

    /// The files of the tip, for the trace.
    fn note_files(&mut self) {
        if self.setup.tracing {
            let text = self.branch.sketch().text();
            text.lines().for_each(|line| self.note(|| format!("    {line}")));
        }
    }

    fn violate(&mut self, invariant: &'static str, details: impl FnOnce() -> String) {
        if self.violation.is_none() {
            let violation = Violation { invariant, details: details() };
            self.note(|| format!("VIOLATED {violation}"));
            self.violation = Some(violation);
        }
    }

    fn sabotaged(&self, by: Sabotage) -> bool {
        self.setup.sabotage == Some(by)
    }
}
