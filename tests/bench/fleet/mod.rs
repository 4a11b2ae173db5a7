//! A fleet of simulated agents against a real planner, in a process of its own, with a real repository and broker.
//!
//! In: how many nodes, which broker, what orders the nodes. Out: for each phase how long it takes from the commit, or from what else begins
//! it, until the last agent has its last report acknowledged, what the planner needs for it, and what crosses the wire; and how long the
//! planner's readers wait meanwhile. Agents, broker and planner share the machine.

mod password;
mod process;
mod readers;

use std::time::{Duration, Instant};

use groundplan_protocol::ids::NodeId;
use groundplan_tests::{
    brokers::{Kind, Options as BrokerOptions, TestBroker},
    fleet::{Fleet, SITE},
    simulated::{
        Settings, SimulatedAgents,
        site::{Shape, Site},
    },
};

use self::{process::Process, readers::Readers};
use crate::table::{Row, quantile};

/// How long a phase may take.
const PATIENCE: Duration = Duration::from_secs(600);
/// How often the line of one node is changed.
const SINGLE: usize = 5;
/// The design's goals for 10 000 nodes, of which a smaller fleet gets its share, and for any number of nodes.
const GOAL_SECONDS: f64 = 10.0;
const GOAL_NODES: f64 = 10_000.0;
const GOAL_MIB: f64 = 500.0;
const GOAL_READ_MS: f64 = 100.0;

/// What to measure.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Options {
    broker: Kind,
    shape: Shape,
    nodes: usize,
    tasks: usize,
    /// How many messages Mosquitto holds for a client; 0 for any number.
    queue: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self { broker: Kind::Mosquitto, shape: Shape::Plain, nodes: 1000, tasks: 30, queue: 200_000 }
    }
}

/// For the usage.
pub(crate) const USAGE: &str = "\
  fleet takes --nodes N (1000), --tasks N (30), --broker mosquitto|embedded, --shape plain|barrier|rolling, and
  --queue N: how many messages Mosquitto holds for a client (200000, as `groundplan broker config` writes it; Debian has 1000)";

impl Options {
    /// Takes an option and its value. Nothing if it is none of these, or the value is not one of its.
    pub(crate) fn take(&mut self, name: &str, value: &str) -> Option<()> {
        match (name, value) {
            ("--broker", "mosquitto") => self.broker = Kind::Mosquitto,
            ("--broker", "embedded") => self.broker = Kind::Embedded,
            ("--shape", "plain") => self.shape = Shape::Plain,
            ("--shape", "barrier") => self.shape = Shape::Barrier,
            ("--shape", "rolling") => self.shape = Shape::Rolling,
            ("--nodes", _) => self.nodes = value.parse().ok().filter(|nodes| *nodes > 0)?,
            ("--tasks", _) => self.tasks = value.parse().ok().filter(|tasks| *tasks >= 4)?,
            ("--queue", _) => self.queue = value.parse().ok()?,
            _ => return None,
        }
        Some(())
    }
}

pub(crate) fn run(options: Options) -> Vec<Row> {
    let mut bench = Bench::start(options);
    let site = bench.site;
    bench.first_plan();
    bench.phase("one line for all nodes", None, |bench| bench.commit(&[site.text("one")], "a line for all"));
    bench.single();
    bench.phase("all agents new at once", Some(GOAL_SECONDS), |bench| bench.agents.begin_again());
    bench.wipe();
    bench.finish()
}

struct Bench {
    options: Options,
    site: Site,
    fleet: Fleet,
    agents: SimulatedAgents,
    readers: Readers,
    planner: Process,
    rows: Vec<Row>,
}

impl Bench {
    /// Everything up to the moment when the planner has the state of each node.
    fn start(options: Options) -> Self {
        let Options { broker, shape, nodes, tasks, queue } = options;
        let site = Site { shape, nodes, tasks };
        let running = TestBroker::start_with(
            Kind::Mosquitto,
            BrokerOptions { mosquitto_queue: queue, ..BrokerOptions::default() },
        );
        let mut fleet = Fleet::around(running, &texts_of(&site.inventory()));
        if broker == Kind::Embedded {
            fleet.embed_broker();
        }
        let secret = (broker == Kind::Embedded).then(|| {
            // The first call makes the secret from which all passwords follow.
            fleet.password("observer");
            std::fs::read(fleet.planner_state("one").join("broker.secret")).expect("the secret")
        });
        let password = |node: &NodeId| Some(password::of(secret.as_ref()?, node.as_str()));
        let agents = SimulatedAgents::start(Settings {
            broker: fleet.embedded_address().unwrap_or_else(|| fleet.broker.address()),
            site: SITE.parse().expect("a name"),
            planner: Fleet::planner_key().public(),
            nodes: site.agents(password),
        });
        let began = Instant::now();
        fleet.start_planner("one");
        let socket = fleet.planner_state("one").join("planner.sock");
        let readers = Readers::new(&socket);
        let planner = Process::of(fleet.planner_pid("one"));
        readers.wait_until_known(nodes, PATIENCE);
        let known = Row::new(
            bench_name(&options, "start of the planner to all states known"),
            began.elapsed().as_secs_f64(),
            "s",
        );
        Self { options, site, fleet, agents, readers, planner, rows: vec![known] }
    }

    fn name(&self, what: &str) -> String {
        bench_name(&self.options, what)
    }

    fn commit(&self, files: &[(String, String)], message: &str) {
        self.fleet.commit(&texts_of(files), message);
    }

    fn first_plan(&mut self) {
        let services = self.site.services();
        self.phase("first plan", Some(GOAL_SECONDS), |bench| bench.commit(&services, "tasks"));
    }

    /// From `begin` until all nodes have done a newer plan.
    fn phase(&mut self, what: &str, goal: Option<f64>, begin: impl FnOnce(&mut Self)) {
        let (mark, cpu, traffic) = (self.agents.mark(), self.planner.cpu_seconds(), self.agents.traffic());
        self.planner.forget_peak();
        let own = Process::of(std::process::id());
        let own_cpu = own.cpu_seconds();
        self.readers.begin();
        let began = Instant::now();
        begin(self);
        let nodes = self.options.nodes;
        let Some(took) = self.agents.wait_for(nodes, &mark, began, PATIENCE) else {
            let done = self.agents.settled_since(&mark);
            panic!("{what}: {done} of {nodes} nodes after {PATIENCE:?}\n{}", self.fleet.logged("planner-one"));
        };
        let mut reads = self.readers.end();
        let wire = self.agents.traffic();
        let seconds = Row::new(self.name(what), took.as_secs_f64(), "s");
        let share = |goal: f64| (goal * nodes as f64 / GOAL_NODES).max(0.1);
        let seconds = match goal {
            Some(goal) => seconds.at_most(share(goal)),
            None => seconds,
        };
        let megabytes = |bytes: u64| bytes as f64 / 1e6;
        let row = |what: &str, value: f64, unit| Row::new(format!("  {what}"), value, unit);
        self.rows.push(seconds);
        self.rows.push(row("planner, CPU", self.planner.cpu_seconds() - cpu, "s"));
        self.rows.push(row("agents, CPU", own.cpu_seconds() - own_cpu, "s"));
        self.rows.push(row("planner, peak resident", self.planner.peak_mib(), "MiB").at_most(GOAL_MIB));
        self.rows.push(row("from agents", megabytes(wire.published_bytes - traffic.published_bytes), "MB"));
        self.rows.push(row("to agents", megabytes(wire.received_bytes - traffic.received_bytes), "MB"));
        for (query, samples) in &mut reads {
            if !samples.is_empty() {
                let longest = quantile(samples, 1.0);
                self.rows
                    .push(row(&format!("{query}, longest of {}", samples.len()), longest, "ms").at_most(GOAL_READ_MS));
            }
        }
    }

    /// A line of one node, several times.
    fn single(&mut self) {
        let mut samples = Vec::new();
        for round in 0..SINGLE {
            let mark = self.agents.mark();
            let began = Instant::now();
            self.commit(&[self.site.own(&format!("round {round}"))], "a line for one");
            let took = self.agents.wait_for(1, &mark, began, PATIENCE).expect("the node has its plan");
            samples.push(took.as_secs_f64());
        }
        let name = self.name(&format!("one line for one node, median of {SINGLE}"));
        self.rows.push(Row::new(name, quantile(&mut samples, 0.5), "s"));
    }

    /// The broker comes back without anything that it had kept, while a commit waits. The embedded one ends with its planner.
    fn wipe(&mut self) {
        let what = match self.options.broker {
            Kind::Mosquitto => "broker back empty, a commit waits",
            Kind::Embedded => "planner with its broker killed, a commit waits",
        };
        let line = self.site.text("two");
        match self.options.broker {
            Kind::Mosquitto => {
                self.fleet.broker.stop();
                self.commit(&[line], "while the broker is down");
                self.phase(what, None, |bench| bench.fleet.broker.restart_wiped());
            }
            Kind::Embedded => {
                self.fleet.kill_planner("one");
                self.commit(&[line], "while the planner is down");
                // The process that is measured does not exist yet: so its start is not part of what is measured, but all that follows is.
                self.fleet.start_planner("one");
                self.planner = Process::of(self.fleet.planner_pid("one"));
                self.phase(what, None, |_| {});
            }
        }
    }

    fn finish(self) -> Vec<Row> {
        self.readers.stop();
        self.rows
    }
}

fn bench_name(options: &Options, what: &str) -> String {
    let Options { broker, shape, nodes, tasks, .. } = options;
    format!("{nodes} nodes × {tasks}, {shape:?}, {broker:?}: {what}").to_lowercase()
}

fn texts_of(files: &[(String, String)]) -> Vec<(&str, &str)> {
    files.iter().map(|(path, text)| (path.as_str(), text.as_str())).collect()
}
