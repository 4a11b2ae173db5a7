//! The shell: the dull loop that connects the machine with ledger, broker, blob store and host.
//!
//! In: signals of the connection, ends of jobs, the clock, a wish to stop. Out: the machine's effects, carried out in
//! their order. Decides nothing but how long to wait before it tries a failed write again; while the ledger cannot be
//! written nothing else happens, for nothing else may.

mod carry_out;
mod drift;
mod settle;
mod stop;

use std::{collections::VecDeque, fs, io, path::PathBuf, sync::Arc, time::Duration};

use groundplan_protocol::{
    VERSION,
    envelope::seal,
    ids::{LedgerId, NodeId, Sequence, SessionId, SiteName},
    plan::{NodePlan, NodePlanRef},
    presence::Presence,
    topic::{NodeTopic, Topic, agent_client, agent_filters},
};
use ring::rand::{SecureRandom as _, SystemRandom};
use tokio::task::JoinSet;

pub use self::stop::Stops;
use self::{
    drift::DriftChecks,
    settle::{Offered, Settling},
};
use crate::{
    blobs::{Blobs, Heard},
    clock::Clock,
    commands::Commands,
    config::Config,
    facts,
    host::{self, Host, job::Canceller},
    ledger::{Journal, Ledger, LedgerError},
    log,
    machine::{Event, JobDone, Machine, Settings, UnreadablePlan},
    transport::{Inbound, Link, Outlet, Reader, Signal, TlsError},
};

/// How long the end may take to tell the planner and say good-bye.
const FAREWELL: Duration = Duration::from_secs(3);
/// How long a predecessor may hold the ledger: one that was killed is gone, but a child that it was just making may hold the lock a
/// moment longer.
const PREDECESSOR: Duration = Duration::from_secs(2);
/// How long cancelled jobs may take to end.
const CANCELLED: Duration = Duration::from_secs(15);

/// Why the agent cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum ShellError {
    /// The ledger.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// What it holds.
    #[error(transparent)]
    UnreadablePlan(#[from] UnreadablePlan),
    /// TLS.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// A directory.
    #[error("{path}")]
    Io {
        /// Where.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The kernel's random numbers.
    #[error("the kernel gives no random numbers")]
    Random,
    /// A fault in this program.
    #[error("a job broke off: a fault in groundplan-agent")]
    Job(#[source] tokio::task::JoinError),
    /// Asked to stop while the ledger could not be written.
    #[error("stopped before the ledger could be written")]
    Unwritten,
}

/// Topics of this node.
struct Topics {
    report: String,
    want: String,
    subscribe: Vec<String>,
}

/// Stored reports that are to be sent.
struct Pump {
    next: Sequence,
    to: Sequence,
    /// Tell what runs even if there are none.
    announce: bool,
}

/// See the module.
pub struct Shell {
    config: Config,
    clock: Clock,
    machine: Machine,
    ledger: Ledger,
    journal: Journal,
    blobs: Blobs,
    host: Arc<Host>,
    link: Link,
    outlet: Outlet,
    reader: Reader,
    topics: Topics,
    pump: Pump,
    plan_ref: Option<NodePlanRef>,
    chunk_filter: Option<String>,
    /// Each with whether it came to begin.
    jobs: JoinSet<(bool, JobDone)>,
    canceller: Canceller,
    commands: Commands,
    drift: DriftChecks,
    facts: facts::Watch,
    inbox: VecDeque<Event>,
    settling: Settling,
    stops: Stops,
    stop_at: Option<Duration>,
    down_told: bool,
    subscribed: bool,
    /// The connection, while there is one.
    session: Option<SessionId>,
    stopped: bool,
}

impl Shell {
    /// Opens everything, and takes up where the ledger left off.
    pub async fn open(config: Config, stops: Stops) -> Result<Self, ShellError> {
        let clock = Clock::start();
        let at = |path: &PathBuf| {
            let path = path.clone();
            move |source| ShellError::Io { path, source }
        };
        let mut random = [0; 24];
        SystemRandom::new().fill(&mut random).map_err(|_| ShellError::Random)?;
        let (id, seed) = random.split_at(16);
        let seed = seed.iter().fold(0, |seed, byte| seed << 8 | u64::from(*byte));
        let give_up = clock.now().mono + PREDECESSOR;
        let (ledger, journal, snapshot) = loop {
            match Ledger::open(&config.state_dir, || new_ledger_id(id)) {
                Err(LedgerError::InUse { .. }) if clock.now().mono < give_up => {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
                opened => break opened?,
            }
        };
        let blob_dir = config.state_dir.join("blobs");
        let blobs = Blobs::open(blob_dir.clone()).map_err(at(&blob_dir))?;
        fs::create_dir_all(&config.root).map_err(at(&config.root))?;
        let (site, node) = (config.site.clone(), config.node.clone());
        let surroundings =
            host::Settings::new(config.root.clone(), config.state_dir.clone(), site.clone(), node.clone());
        let host = Arc::new(Host::new(surroundings).map_err(at(&config.root))?);
        let settings = Settings {
            site: site.clone(),
            node: node.clone(),
            agent: env!("CARGO_PKG_VERSION").to_owned(),
            max_parallel: config.max_parallel,
            max_blob: config.max_blob,
            max_blobs: config.max_blobs,
            boot: facts::boot_id(),
        };
        let (machine, effects) = Machine::restore(settings, snapshot, clock.now())?;
        let topic = |topic| Topic::Node(node.clone(), topic).name(&site);
        let offline = presence(&config, machine.ledger(), None);
        let link = Link::start(
            &config.broker,
            agent_client(&site, &node),
            config.keep_alive,
            (topic(NodeTopic::Presence), offline),
            seed,
        )?;
        let mut shell = Self {
            outlet: Outlet::new(
                topic(NodeTopic::State),
                topic(NodeTopic::Presence),
                topic(NodeTopic::Drift),
                topic(NodeTopic::Output),
            ),
            topics: Topics {
                report: topic(NodeTopic::Report),
                want: topic(NodeTopic::Want),
                subscribe: agent_filters(&site, &node),
            },
            commands: Commands::new(site.clone(), node.clone()),
            reader: Reader { site, node, trusted: config.planner_keys.clone() },
            pump: Pump { next: Sequence(1), to: Sequence(0), announce: false },
            plan_ref: None,
            chunk_filter: None,
            jobs: JoinSet::new(),
            canceller: Canceller::new(),
            drift: DriftChecks::new(&config.node, clock.now()),
            facts: facts::Watch::start(config.facts_dir.clone()).map_err(at(&config.facts_dir))?,
            inbox: VecDeque::new(),
            settling: Settling::default(),
            stop_at: None,
            down_told: false,
            subscribed: false,
            session: None,
            stopped: false,
            config,
            clock,
            machine,
            ledger,
            journal,
            blobs,
            host,
            link,
            stops,
        };
        let applied: Vec<_> = shell.machine.applied().map(|(task, spec)| (task.clone(), spec.params.clone())).collect();
        shell.host.adopt(&applied).await;
        drop(applied);
        shell.carry_out(effects).await?;
        shell.handle(Event::Tick).await?;
        Ok(shell)
    }

    /// Is the agent, until it is asked to stop.
    pub async fn run(mut self) -> Result<(), ShellError> {
        for filter in self.topics.subscribe.clone() {
            self.outlet.subscribe(filter);
        }
        log::info(format_args!(
            "node {} of site {} at generation {}; ledger {}",
            self.config.node,
            self.config.site,
            self.machine.generation(),
            self.machine.ledger()
        ));
        while !self.stopped {
            self.step().await?;
        }
        self.put_down();
        self.end_commands().await;
        self.drift.end().await;
        self.farewell().await;
        Ok(())
    }

    /// Waits for one thing to happen, and deals with it.
    async fn step(&mut self) -> Result<(), ShellError> {
        let now = self.clock.now().mono;
        if self.outlet.stalls_at().is_some_and(|at| at <= now) {
            log::warn("the broker has stopped answering; connecting anew");
            self.link.restart();
            self.disconnected().await?;
        }
        if self.stop_at.is_some_and(|at| at <= now) {
            return self.cancel_jobs().await;
        }
        if let Some((event, publish)) = self.settling.settled(now) {
            self.handle(event).await?;
            self.acknowledge(publish);
        }
        self.ask_for_chunks().await?;
        self.check_drift();
        self.outlet.pump(now);
        self.send_reports()?;
        self.send_output();
        let due = [
            self.machine.deadline(),
            self.outlet.stalls_at(),
            self.stop_at,
            self.chunks_due(),
            self.settling.at(),
            self.output_due(),
            self.drift.deadline(),
        ];
        let due = due.into_iter().flatten().min();
        let due = due.map(|mono| self.clock.instant(mono).into());
        tokio::select! {
            signal = self.link.signal() => match signal {
                Some(signal) => self.hear(signal).await,
                None => Ok(()),
            },
            Some(done) = self.jobs.join_next() => {
                let (_, done) = done.map_err(ShellError::Job)?;
                self.drift.task_ran(&done.task);
                self.handle(Event::Finished(Box::new(done))).await
            }
            stirred = self.commands.stirred() => stirred.map_err(ShellError::Job),
            Some(ended) = self.drift.ended() => {
                self.checked(ended.map_err(ShellError::Job)?);
                Ok(())
            }
            facts = self.facts.changed() => self.handle(Event::Facts(facts)).await,
            () = self.stops.wait() => self.stop().await,
            () = sleep_until(due) => self.handle(Event::Tick).await,
        }
    }

    /// Takes something from the connection.
    async fn hear(&mut self, signal: Signal) -> Result<(), ShellError> {
        let now = self.clock.now().mono;
        match signal {
            Signal::Up { client, session_present } => {
                log::info("connected to the broker");
                self.down_told = false;
                self.settling.connected(session_present, now);
                // A new process asks for what is retained even if the broker still knows its session.
                let fresh = !(session_present && self.subscribed);
                self.subscribed = true;
                self.outlet.up(client, fresh);
                self.blobs.reconnected();
                let session = new_session()?;
                self.outlet.presence(presence(&self.config, self.machine.ledger(), Some(&session)));
                self.session = Some(session);
                self.commands.connected(true);
                self.handle(Event::Connected { session_present: !fresh }).await
            }
            Signal::Down(reason) => {
                if !self.down_told {
                    log::warn(format_args!("no connection to the broker: {reason}"));
                    self.down_told = true;
                }
                self.disconnected().await
            }
            Signal::Sent(pkid) => {
                self.outlet.sent(pkid);
                Ok(())
            }
            Signal::Confirmed(pkid) => {
                self.outlet.confirmed(pkid, now);
                Ok(())
            }
            Signal::Received(publish) => {
                let done = match self.reader.read(&publish.topic, &publish.payload) {
                    Inbound::Nothing => Some(publish),
                    Inbound::Exec(exec) => {
                        if exec.node == self.config.node {
                            self.commands.take(exec, self.session.as_ref(), &self.host);
                        } else {
                            let reason = format!("it is for node {}", exec.node);
                            self.handle(Event::Refused { topic: "exec", generation: None, reason }).await?;
                        }
                        Some(publish)
                    }
                    Inbound::CheckRequest(request) => {
                        self.request_drift_check(&request);
                        Some(publish)
                    }
                    Inbound::Event(event) => match self.settling.offer(event, publish, now) {
                        Offered::Handle(event, publish) => {
                            self.handle(event).await?;
                            Some(publish)
                        }
                        Offered::Held(outdated) => outdated,
                    },
                    Inbound::Chunk(digest, n) => {
                        if let Some(heard) = self.blobs.chunk(&digest, n, &publish.payload, now) {
                            self.heard(heard).await?;
                        }
                        Some(publish)
                    }
                };
                if let Some(publish) = done {
                    self.acknowledge(publish);
                }
                Ok(())
            }
        }
    }

    async fn disconnected(&mut self) -> Result<(), ShellError> {
        self.outlet.down();
        self.session = None;
        self.commands.connected(false);
        self.handle(Event::Disconnected).await
    }

    /// Tells the broker, now that the ledger has what it said. Its bytes are not needed for that.
    fn acknowledge(&mut self, publish: rumqttc::Publish) {
        self.outlet.acknowledge(rumqttc::Publish { payload: Default::default(), ..publish });
    }

    /// Lets the machine take an event, and all that follow from it.
    async fn handle(&mut self, event: Event) -> Result<(), ShellError> {
        self.inbox.push_back(event);
        while let Some(event) = self.inbox.pop_front() {
            let effects = self.machine.handle(event, self.clock.now());
            self.carry_out(effects).await?;
        }
        Ok(())
    }

    /// Takes word of a blob: it may be the plan itself.
    async fn heard(&mut self, heard: Heard) -> Result<(), ShellError> {
        match heard {
            Heard::Trouble { blob, reason } => self.handle(Event::BlobFailed { blob, reason }).await,
            Heard::Ready(digest) => {
                if let Some(reference) = self.plan_ref.take_if(|r| r.plan.sha256 == digest) {
                    let event = match self.read_plan(&reference) {
                        Ok(plan) => Event::Plan(plan),
                        Err(reason) => Event::Refused { topic: "plan", generation: Some(reference.generation), reason },
                    };
                    self.handle(event).await?;
                }
                self.handle(Event::BlobReady(digest)).await
            }
        }
    }

    fn read_plan(&self, reference: &NodePlanRef) -> Result<Box<NodePlan>, String> {
        let bytes = fs::read(self.blobs.path(&reference.plan.sha256)).map_err(|e| e.to_string())?;
        let plan: NodePlan = serde_json::from_slice(&bytes).map_err(|e| format!("the blob is no node plan: {e}"))?;
        // Its digest was signed together with these; it must say the same.
        if (plan.version, &plan.site, plan.generation) != (VERSION, &reference.site, reference.generation) {
            return Err("the blob is a plan of another version, site or generation".to_owned());
        }
        Ok(Box::new(plan))
    }
}

async fn sleep_until(at: Option<tokio::time::Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

/// Online on this connection, or offline.
fn presence(config: &Config, ledger: &LedgerId, session: Option<&SessionId>) -> Vec<u8> {
    let (site, node): (SiteName, NodeId) = (config.site.clone(), config.node.clone());
    let (online, session) = (session.is_some(), session.cloned());
    let agent = env!("CARGO_PKG_VERSION").to_owned();
    seal(&config.key, &Presence { version: VERSION, site, node, online, agent, ledger: ledger.clone(), session })
}

fn new_session() -> Result<SessionId, ShellError> {
    let mut random = [0; 8];
    SystemRandom::new().fill(&mut random).map_err(|_| ShellError::Random)?;
    Ok(SessionId::new(hex(&random)).expect("8 bytes are 16 hexadecimal digits"))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn new_ledger_id(random: &[u8]) -> LedgerId {
    LedgerId::new(hex(random)).expect("16 bytes are 32 hexadecimal digits")
}
