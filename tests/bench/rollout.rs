//! A fleet's rollout inside the planner's machine, without broker, store or signatures: plan, take it up, fold every report, answer
//! `status` and `why` meanwhile. Agents report each batch of tasks in a message of its own, as those of a large fleet do.
//!
//! Each shape is measured at three sizes. The baseline is what growth in proportion to the nodes would give, from the smallest size: a
//! cost that grows with the square of the nodes shows as ten times its baseline.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    sync::Arc,
    time::{Duration, Instant},
};

use groundplan::site::{Cache, load};
use groundplan_core::{
    AppliedState, Knowledge, Policy, SourceTree as _,
    locate::Locator,
    plan::{NodePart, ReasonReport, plan},
    source::MemoryTree,
};
use groundplan_machine::{
    Effect, Input, Machine, Settings,
    commit::{ActiveCommit, Commit, DriftSettings},
    ids::Receipt,
    io::{Incoming, LoadOutcome, Message, NodeMessage},
    planning::{PlanJob, Planned},
    write::Stored,
};
use groundplan_protocol::{
    VERSION,
    ids::{CommitId, GateId, Generation, InstanceId, LedgerId, NodeId, Sequence, SiteName, TaskId},
    plan::OpenGate,
    presence::Presence,
    report::{Outcome, ReportBatch, TaskReport},
    state::{NodeState, Phase},
    time::Now,
};

use crate::table::{Row, millis};

const SIZES: [usize; 3] = [300, 1000, 3000];

/// A site, as a function of how many nodes it has.
type Shape = (&'static str, fn(usize) -> MemoryTree);

const SHAPES: [Shape; 3] = [("plain", plain), ("a barrier", barrier), ("a barrier and turns", turns)];

pub(crate) fn run() -> Vec<Row> {
    let mut rows = Vec::new();
    for (name, shape) in SHAPES {
        let mut smallest: Option<Vec<(&str, f64)>> = None;
        for nodes in SIZES {
            let measured = Fleet::new(shape(nodes)).measure();
            let first = smallest.get_or_insert_with(|| measured.clone());
            for ((what, value), (_, least)) in measured.iter().zip(first.iter()) {
                let linear = least * (nodes / SIZES[0]) as f64;
                let row = Row::new(format!("{name}, {nodes} nodes: {what}"), *value, "ms");
                rows.push(row.against("linear growth", linear));
            }
        }
    }
    rows
}

/// Two services of 5 tasks on every node, all nodes in one file. The rest is added to each of the services.
fn site(nodes: usize, base: &str, app: &str) -> MemoryTree {
    let mut inventory = "[groups.all]\nservices = [\"base\", \"app\"]\n".to_owned();
    (0..nodes).for_each(|n| writeln!(inventory, "\n[nodes.n{n:05}]").expect("a string grows"));
    let service = |name: &str, rest: &str| {
        let mut text = format!("{rest}\n");
        for t in 0..4 {
            let file = format!("file = {{ path = \"/etc/{name}-{t}\", content = \"{{{{ value }}}}\" }}");
            writeln!(text, "[[task]]\nid = \"t{t}\"\n{file}\n").expect("a string grows");
        }
        let run = format!("process = {{ run = [\"{name}\"] }}\nprovides = [\"up/{name}\"]\nrestart_on = [\"t0\"]");
        format!("{text}[[task]]\nid = \"run\"\n{run}\n")
    };
    MemoryTree::new([
        ("site.toml", "name = \"site\"\n[vars]\nvalue = \"one\"\n".to_owned()),
        ("inventory/nodes.toml", inventory),
        ("services/base/service.toml", service("base", base)),
        ("services/app/service.toml", service("app", app)),
    ])
}

fn plain(nodes: usize) -> MemoryTree {
    site(nodes, "", "")
}

fn barrier(nodes: usize) -> MemoryTree {
    site(nodes, "", "[service]\nrequires = [\"up/base\"]\n")
}

/// A tenth of the nodes at a time.
fn turns(nodes: usize) -> MemoryTree {
    let app = format!("[service]\nrequires = [\"up/base\"]\n\n[rollout]\nmax_unavailable = {}\n", nodes / 10);
    site(nodes, "", &app)
}

/// The machine with what stands around it: nodes that report at once whatever their gates let them do.
struct Fleet {
    machine: Machine,
    now: Now,
    tree: MemoryTree,
    active: Arc<ActiveCommit>,
    nodes: BTreeMap<NodeId, Agent>,
    receipt: u64,
    plan: Option<Box<PlanJob>>,
    /// Nodes whose gates have changed since they were last given a turn.
    woken: BTreeSet<NodeId>,
    cache: Cache,
    /// What was measured so far.
    figures: Vec<(&'static str, f64)>,
}

#[derive(Default)]
struct Agent {
    part: NodePart,
    done: BTreeSet<TaskId>,
    open: BTreeMap<GateId, OpenGate>,
    sequence: u64,
}

fn ledger(node: &NodeId) -> LedgerId {
    let digest = groundplan_protocol::digest::Digest::of(node.as_str().as_bytes()).to_string();
    LedgerId::new(&digest[digest.len() - 32..]).expect("hexadecimal digits")
}

impl Fleet {
    fn new(tree: MemoryTree) -> Self {
        let mut figures = Vec::new();
        let mut cache = Cache::default();
        let read = || load(&tree, &Knowledge::default(), &mut cache).expect("a good site");
        let loaded = timed(&mut figures, "parse and resolve the tree", read);
        let id = CommitId::new("0123456789012345678901234567890123456789").expect("an object id");
        let commit = Commit { id, subject: "all".to_owned(), author: "bench".to_owned(), time: 0, rewinds: None };
        let (site, desired) = (loaded.site.name.clone(), loaded.desired.clone());
        let drift = DriftSettings::default();
        let active = Arc::new(ActiveCommit { commit, site, desired, drift, fast_forward_only: false });
        let mut stored = Stored::default();
        stored.meta.planner = "one".to_owned();
        let now = Now::default();
        let machine = Machine::restore(&Settings::new([1; 16]), stored, now);
        let nodes = active.desired.nodes.iter().map(|node| (node.clone(), Agent::default())).collect();
        Self { machine, now, tree, active, nodes, receipt: 0, plan: None, woken: BTreeSet::new(), cache, figures }
    }

    /// Takes a round of inputs, and carries out what follows at once, but for plans.
    fn take(&mut self, inputs: Vec<Input>) {
        let mut inputs = inputs;
        while !inputs.is_empty() {
            let effects = self.machine.handle_all(std::mem::take(&mut inputs), self.now);
            for effect in effects {
                match effect {
                    Effect::Publish(Message::Presence { presence, retain: true }) => {
                        self.receipt += 1;
                        let receipt = Receipt(self.receipt);
                        inputs.push(Input::Message { receipt, message: Incoming::Planner(presence) });
                    }
                    Effect::Publish(Message::Gates(gates)) => {
                        self.woken.insert(gates.node.clone());
                        self.nodes.get_mut(&gates.node).expect("a declared node").open = gates.open;
                    }
                    Effect::Load(job) => {
                        let commit = self.active.clone();
                        inputs.push(Input::Loaded { job: job.job, outcome: LoadOutcome::Good { commit, same: false } });
                    }
                    Effect::Plan(job) => self.plan = Some(job),
                    _ => {}
                }
            }
        }
    }

    fn message(&mut self, node: &NodeId, message: NodeMessage) -> Input {
        self.receipt += 1;
        Input::Message { receipt: Receipt(self.receipt), message: Incoming::Node(node.clone(), message) }
    }

    fn tick(&mut self) {
        self.now.mono = self.machine.deadline().max(self.now.mono + Duration::from_millis(1));
        self.take(vec![Input::Tick]);
    }

    /// Until a plan of all nodes is to be worked out.
    fn start(&mut self) -> Box<PlanJob> {
        let id = self.active.commit.id.clone();
        self.take(vec![Input::Listeners(true), Input::Tip(Ok(id)), Input::Connected { fresh: true }]);
        let names: Vec<NodeId> = self.nodes.keys().cloned().collect();
        let mut inputs = Vec::new();
        for node in names {
            let (site, ledger) = (self.active.site.clone(), ledger(&node));
            let presence = Presence {
                version: VERSION,
                site: site.clone(),
                node: node.clone(),
                online: true,
                agent: "0".to_owned(),
                ledger: ledger.clone(),
                session: None,
                trouble: None,
            };
            inputs.push(self.message(&node, NodeMessage::Presence(presence)));
            let state = NodeState { phase: Phase::Idle, ..NodeState::empty(site, node.clone(), ledger) };
            inputs.push(self.message(&node, NodeMessage::State(Box::new(state))));
        }
        self.take(inputs);
        loop {
            self.tick();
            if let Some(job) = self.plan.take().filter(|job| job.applied.nodes.len() == self.nodes.len()) {
                return job;
            }
        }
    }

    fn work_out(&self, job: Box<PlanJob>) -> Planned {
        let mut locator = Locator::of_tree(&self.tree);
        job.run(&mut |instance, reasons| ReasonReport::chain(instance, reasons, &mut |at| locator.find(at)))
    }

    /// What a node's agent does next: the batch of all that it can do, in one message.
    fn batch(&mut self, node: &NodeId, generation: Generation, site: &SiteName) -> Option<Input> {
        let agent = self.nodes.get_mut(node)?;
        let mut reports = Vec::new();
        for task in &agent.part.tasks {
            let free = task.after.iter().all(|task| agent.done.contains(task))
                && task.gates.iter().all(|gate| agent.open.contains_key(gate));
            if free && agent.done.insert(task.task.clone()) {
                reports.push(TaskReport {
                    generation,
                    plan: None,
                    task: task.task.clone(),
                    action: task.action,
                    outcome: Outcome::Done { changed: true, effect: None },
                    fingerprint: task.fingerprint(),
                    claims: Vec::new(),
                    contends: Vec::new(),
                    started_ms: 1,
                    duration_ms: 1,
                    output: None,
                    export: None,
                });
            }
        }
        let first = Sequence(agent.sequence + 1);
        agent.sequence += reports.len() as u64;
        let last = Sequence(agent.sequence);
        let batch = ReportBatch {
            version: VERSION,
            site: site.clone(),
            node: node.clone(),
            ledger: ledger(node),
            first,
            generation,
            reports,
            running: Vec::new(),
            last,
            acked: Sequence(first.0 - 1),
        };
        (!batch.reports.is_empty()).then(|| self.message(node, NodeMessage::Reports(batch)))
    }

    /// The figures, each with what it is of, in milliseconds.
    fn measure(mut self) -> Vec<(&'static str, f64)> {
        let mut figures = std::mem::take(&mut self.figures);
        let job = self.start();
        let generation = job.generation;
        let planned = timed(&mut figures, "plan, with the lines of its reasons", || self.work_out(job));
        let parts = planned.parts.clone();
        for (node, part) in &*parts {
            self.nodes.get_mut(node).expect("a declared node").part = part.clone();
        }
        timed(&mut figures, "take up the plan", || self.take(vec![Input::Planned(Box::new(planned))]));
        self.questions(&mut figures, ["status at the start", "why at the start"]);

        let site = self.active.site.clone();
        let mut next: BTreeSet<NodeId> = self.nodes.keys().cloned().collect();
        let (mut spent, mut batches) = (Duration::ZERO, 0);
        let mut half = Vec::new();
        let count = next.len();
        while !next.is_empty() {
            for node in next {
                let Some(input) = self.batch(&node, generation, &site) else { continue };
                // What a view shares is copied when it changes.
                let view = (batches == count / 2).then(|| self.machine.view());
                let began = Instant::now();
                self.take(vec![input]);
                let took = began.elapsed();
                match view {
                    Some(_) => half.push(("a batch of reports, a view in use", millis(took))),
                    None => spent += took,
                }
                batches += 1;
                if batches == count / 2 {
                    self.questions(&mut half, ["status half-way", "why half-way"]);
                }
            }
            next = std::mem::take(&mut self.woken);
        }
        let view = self.machine.view();
        let rollout = view.rollout.as_ref().expect("a rollout");
        assert!(rollout.is_over(), "{:?}", rollout.summary().counts);
        figures.extend(half);
        figures.push(("all reports", millis(spent)));
        self.one_node(&mut figures);
        figures
    }

    /// One line for one node, once all is applied.
    fn one_node(&mut self, figures: &mut Vec<(&'static str, f64)>) {
        let path = "inventory/nodes.toml";
        let text = self.tree.read(path).expect("it was written");
        // The last table of the file is that of the last node.
        let changed = [&text, &b"vars = { value = \"two\" }\n"[..]].concat();
        self.tree.write(path, changed);
        let (tree, cache) = (&self.tree, &mut self.cache);
        let read = || load(tree, &Knowledge::default(), cache).expect("a good site");
        let loaded = timed(figures, "one line for one node: parse and resolve the tree", read);
        let applied = AppliedState::of(&self.active.desired);
        let policy = Policy::default();
        let plan = timed(figures, "one line for one node: plan", || plan(&loaded.desired, &applied, &policy));
        assert_eq!(plan.nodes.len(), 1, "one node is touched");
    }

    /// What `status` and `why` ask of a view.
    fn questions(&self, figures: &mut Vec<(&'static str, f64)>, [status, why]: [&'static str; 2]) {
        let view = self.machine.view();
        let rollout = view.rollout.as_ref().expect("a rollout");
        let states = timed(figures, status, || {
            rollout.summary();
            rollout.states(&|instance| view.runs(instance)).map(|(_, state)| state).collect::<Vec<_>>()
        });
        let (planned, _) = rollout.head.actions.iter().zip(&states).next_back().expect("actions");
        let instance: InstanceId = planned.instance.clone();
        let chain = timed(figures, why, || {
            rollout.detail(&|instance| view.runs(instance));
            rollout.rollout.why(&instance)
        });
        assert!(!chain.is_empty());
    }
}

fn timed<T>(figures: &mut Vec<(&'static str, f64)>, what: &'static str, run: impl FnOnce() -> T) -> T {
    let began = Instant::now();
    let result = run();
    figures.push((what, millis(began.elapsed())));
    result
}
