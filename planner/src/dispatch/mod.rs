//! The loop that owns all of the planner's state: a dull shell around the core.
//!
//! In: tips of the branch, messages of the broker, questions of the API, the time. Out: signed messages, answers, events. What comes
//! in together is taken together: its effects go to the store in one group, and only what is on the disk is then published and
//! acknowledged. All decisions are the core's; what is decided here is only when to ask it.
//! Never plans while another planner does, never publishes what is not stored, never believes an unsigned word.

mod answers;
mod blobs;
mod commits;
mod drift;
pub(crate) mod exec;
mod hosts;
mod knowledge;
mod leader;
mod messages;
mod node;
mod planning;
mod running;
mod words;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    time::{Duration, Instant, SystemTime},
};

use groundplan_core::DesiredState;
use groundplan_protocol::{
    VERSION,
    envelope::{self, SigningKey},
    ids::{CommitId, InstanceId, NodeId, SiteName},
    presence::PlannerPresence,
    report::TaskReport,
    topic::{self, NodeTopic, Topic},
};
use tokio::sync::{broadcast, mpsc, oneshot};

use self::{
    leader::{Leader, Order},
    node::NodeRecord,
    running::Running,
};
use crate::{
    api::{
        event::Event,
        exec::NodeOutcome,
        server::{Answer, Question},
        types::{BrokerStatus, Role},
    },
    repository::{Repository, watch::Seen},
    serve::ServeConfig,
    site,
    store::{Contents, Group, Meta, Store},
    transport::{self, Incoming, Receipt, Transport, TransportError},
    trust::NodeKeys,
};

/// How many events a slow listener may fall behind.
pub(crate) const EVENTS: usize = 4096;

/// How many inputs are taken together at most.
const TOGETHER: usize = 1024;

/// How long to wait for more nodes with news before planning again, at first and at most.
const DEBOUNCE: [Duration; 2] = [Duration::from_millis(30), Duration::from_millis(500)];

/// How often what may be lost without harm is written.
const TIDY: Duration = Duration::from_secs(2);

/// How long the farewell may take.
const FAREWELL: Duration = Duration::from_millis(2500);

/// What comes in from outside of this process.
pub(crate) struct Inputs {
    pub(crate) tips: mpsc::Receiver<Seen>,
    pub(crate) questions: mpsc::Receiver<(Question, oneshot::Sender<Answer>)>,
    pub(crate) stop: oneshot::Receiver<()>,
}

/// One thing that came in.
enum Input {
    Tip(Seen),
    Broker(Incoming),
    Question(Question, oneshot::Sender<Answer>),
    Time,
    Stop,
}

/// What is done once the group is on the disk.
enum Effect {
    Publish {
        topic: Topic,
        payload: Vec<u8>,
        retain: bool,
    },
    /// Where every message counts, and not only the last of its topic.
    Order {
        topic: Topic,
        payload: Vec<u8>,
        /// Whether it holds on a later connection too.
        late: bool,
    },
    Acknowledge(Receipt),
    Tell(Box<Event>),
}

/// Planning that is due.
struct Due {
    at: Instant,
    latest: Instant,
}

/// All of it.
pub(crate) struct Dispatcher {
    config: ServeConfig,
    branch: String,
    state_dir: PathBuf,
    key: SigningKey,
    keys: NodeKeys,
    repository: Repository,
    repository_error: Option<String>,
    /// The branch's tip, if it could not be read; tried again after a while.
    unread: Option<CommitId>,
    store: Store,
    meta: Meta,
    group: Group,
    effects: Vec<Effect>,
    /// Whether the store failed last time; then nothing goes out.
    store_failed: bool,
    nodes: BTreeMap<NodeId, NodeRecord>,
    ignored: u64,
    cache: site::Cache,
    loaded: Option<commits::InForce>,
    running: Option<Running>,
    /// The commit for which there is or was a rollout, or nothing to do; planned from every node's base.
    planned_commit: Option<CommitId>,
    due: Option<Due>,
    /// What nodes have told and the commit in force is not resolved with yet.
    learned: Option<knowledge::Learned>,
    commands: exec::Commands,
    /// Whether it says good-bye: what is to be sent goes out now or never.
    parting: bool,
    /// When changed facts last had it resolved anew.
    facts_learned: Option<Instant>,
    /// What was desired before, for reasons that know the values before.
    earlier: Option<DesiredState>,
    leader: Leader,
    broker: BrokerStatus,
    /// Whether the broker lost what we published.
    republish: bool,
    transport: Option<(Transport, tokio::task::JoinHandle<()>)>,
    incoming: (mpsc::Sender<Incoming>, mpsc::Receiver<Incoming>),
    events: broadcast::Sender<Event>,
    idle_told: bool,
    /// Whether anything happened to the rollout since its progress was looked at.
    stirred: bool,
    /// Tasks that finished since then, for those who listen.
    finished: Vec<(InstanceId, TaskReport)>,
    tidied: Instant,
}

impl Dispatcher {
    pub(crate) fn new(
        config: ServeConfig,
        branch: String,
        key: SigningKey,
        repository: Repository,
        (store, contents): (Store, Contents),
        events: broadcast::Sender<Event>,
    ) -> Self {
        let Contents { meta, nodes, mut acks, plans, rollout, log, execs } = contents;
        let (commands, interrupted) = exec::Commands::interrupted(execs);
        let restore = |(node, stored)| {
            let acked = acks.remove(&node);
            (node, NodeRecord::restore(stored, acked))
        };
        let mut nodes: BTreeMap<NodeId, NodeRecord> = nodes.into_iter().map(restore).collect();
        for (node, planned) in plans {
            nodes.entry(node).or_default().planned = Some(planned);
        }
        messages::refold(&mut nodes, &log);
        let mut running = rollout.map(|(head, rollout)| Running::restore(head, rollout, log));
        if let Some(running) = &mut running {
            // Its end, if it came, is in the history only.
            let known = store.rollout(running.head.generation).ok().flatten();
            running.head.ended_ms = known.and_then(|detail| detail.summary.finished_ms);
        }
        let broker = BrokerStatus { address: config.broker.to_string(), ..BrokerStatus::default() };
        Self {
            state_dir: config.state_dir.clone(),
            keys: NodeKeys::new(&config.state_dir),
            leader: Leader::new(meta.planner.clone(), meta.term),
            planned_commit: running.as_ref().map(|r| r.head.commit.id.clone()),
            incoming: mpsc::channel(TOGETHER),
            config,
            branch,
            key,
            repository,
            repository_error: None,
            unread: None,
            store,
            meta,
            group: Group { execs: interrupted, ..Group::default() },
            commands,
            parting: false,
            effects: Vec::new(),
            store_failed: false,
            nodes,
            ignored: 0,
            cache: site::Cache::default(),
            loaded: None,
            running,
            due: None,
            learned: None,
            facts_learned: None,
            earlier: None,
            broker,
            republish: true,
            transport: None,
            events,
            idle_told: false,
            stirred: true,
            finished: Vec::new(),
            tidied: Instant::now(),
        }
    }

    /// Runs until told to stop.
    ///
    /// # Errors
    /// There is no way to connect to a broker as configured.
    pub(crate) async fn run(mut self, mut inputs: Inputs) -> Result<(), TransportError> {
        self.restore_site()?;
        loop {
            let first = self.next(&mut inputs).await;
            let mut stop = self.take(first)?;
            for _ in 0..TOGETHER {
                let Some(input) = self.next_at_hand(&mut inputs) else { break };
                stop |= self.take(input)?;
            }
            self.settle(Instant::now())?;
            self.flush();
            if stop {
                self.farewell().await;
                return Ok(());
            }
        }
    }

    async fn next(&mut self, inputs: &mut Inputs) -> Input {
        let now = Instant::now();
        let (due, learned) = (self.due.as_ref().map(|d| d.at), self.learned.as_ref().map(|l| l.at));
        let learned = learned.filter(|_| self.leader.plans());
        let due = due.filter(|_| self.leader.plans());
        let commands = self.commands.deadline(now);
        let deadlines = [self.leader.deadline(), due, learned, commands, Some(self.tidied + TIDY)];
        let deadline = deadlines.into_iter().flatten().min().unwrap_or(now + TIDY);
        tokio::select! {
            biased;
            _ = &mut inputs.stop => Input::Stop,
            Some(seen) = inputs.tips.recv() => Input::Tip(seen),
            Some((question, answer)) = inputs.questions.recv() => Input::Question(question, answer),
            Some(incoming) = self.incoming.1.recv() => Input::Broker(incoming),
            () = tokio::time::sleep_until(deadline.into()) => Input::Time,
        }
    }

    fn next_at_hand(&mut self, inputs: &mut Inputs) -> Option<Input> {
        if let Ok(seen) = inputs.tips.try_recv() {
            return Some(Input::Tip(seen));
        }
        self.incoming.1.try_recv().ok().map(Input::Broker)
    }

    /// Takes one input. Returns whether to stop.
    fn take(&mut self, input: Input) -> Result<bool, TransportError> {
        let now = Instant::now();
        match input {
            Input::Stop => return Ok(true),
            Input::Time => {}
            Input::Tip(seen) => self.on_tip(seen)?,
            Input::Question(question, answer) => drop(answer.send(self.answer(question))),
            Input::Broker(Incoming::Ready { fresh, replay }) => {
                tracing::info!(broker = %self.config.broker, fresh, replay, "connected");
                self.broker = BrokerStatus { connected: true, error: None, ..self.broker.clone() };
                self.republish |= fresh;
                self.leader.ready(now);
            }
            Input::Broker(Incoming::Lost { error }) => {
                if self.broker.error.as_ref() != Some(&error) {
                    tracing::warn!(broker = %self.config.broker, error, "no connection to the broker");
                }
                self.broker = BrokerStatus { connected: false, error: Some(error), ..self.broker.clone() };
                self.leader.lost();
            }
            Input::Broker(Incoming::Message { topic, payload, receipt }) => {
                self.leader.stir(now);
                self.on_message(&topic, &payload, now);
                self.effects.push(Effect::Acknowledge(receipt));
            }
        }
        Ok(false)
    }

    /// What follows from all that was taken.
    fn settle(&mut self, now: Instant) -> Result<(), TransportError> {
        let orders = self.leader.tick(now);
        self.obey(orders);
        // Who stands by resolves when it is its turn to plan.
        let news = self.learned.as_ref().is_some_and(|learned| now >= learned.at) && self.leader.plans();
        if news && self.resolve_anew() {
            self.plan_soon(now, true);
        }
        if self.due.as_ref().is_some_and(|due| now >= due.at) && self.leader.plans() {
            self.plan_now();
        }
        self.progress();
        self.tick_execs(now);
        if now >= self.tidied + TIDY {
            self.tidied = now;
            self.write_nodes();
            self.write_execs();
            if let Some(tip) = self.unread.take() {
                self.on_tip(Ok(tip))?;
            }
        }
        Ok(())
    }

    fn obey(&mut self, orders: Vec<Order>) {
        for order in orders {
            match order {
                Order::Claim { term } => {
                    self.meta.term = term;
                    self.group.meta = Some(self.meta.clone());
                    // On the disk before anybody hears of it.
                    self.flush();
                    self.say_presence(true, true);
                }
                Order::Republish => self.say_presence(true, true),
                Order::Probe => self.say_presence(false, false),
                Order::Begin => self.begin(),
                Order::StandBy { of } => {
                    tracing::info!(planner = of, "another planner plans; standing by");
                    self.due = None;
                    self.end_execs(&NodeOutcome::Interrupted);
                    self.tell(Event::Role { role: Role::Standby { planner: of } });
                }
            }
        }
    }

    /// This planner plans from now on.
    fn begin(&mut self) {
        tracing::info!(term = self.leader.term(), "planning");
        if let Some((transport, _)) = &self.transport {
            transport.open();
        }
        self.tell(Event::Role { role: Role::Planning });
        // Plans of another planner, or of one that had this store's successor, are out there.
        let foreign = self.leader.seen_generation() > self.meta.generation;
        let same = self.loaded.as_ref().is_some_and(|l| self.planned_commit.as_ref() == Some(&l.commit.id));
        if same && !foreign {
            self.resume();
            // What nodes told last may not be planned with yet.
            if self.loaded.as_ref().is_some_and(|l| !l.loaded.desired.asked.is_empty()) {
                self.plan_soon(Instant::now(), true);
            }
        } else {
            if foreign {
                self.drop_stale();
            }
            self.plan_soon(Instant::now(), true);
        }
        if std::mem::take(&mut self.republish) {
            self.publish_everything();
        }
        self.stop_orphans();
        self.publish_looks(&BTreeSet::new());
        self.choose_all();
    }

    /// Another planner has planned since: its plans are out there, and what became of ours is known to the nodes alone.
    fn drop_stale(&mut self) {
        if let Some(stale) = self.running.take() {
            self.group.history.push(stale.superseded(now_ms()));
        }
        for (node, record) in self.nodes.iter_mut().filter(|(_, record)| record.planned.is_some()) {
            record.planned = None;
            self.group.plans.push((node.clone(), None));
        }
        // Before anything is read from there again.
        self.flush();
    }

    /// Writes the group; then does what had to wait for that. If the store fails, nothing goes out until it works again.
    fn flush(&mut self) {
        match self.store.commit(&self.group) {
            Ok(()) => {
                self.group = Group::default();
                if std::mem::take(&mut self.store_failed) {
                    tracing::info!("the store works again");
                }
            }
            Err(error) => {
                if !std::mem::replace(&mut self.store_failed, true) {
                    tracing::error!(
                        error = &error as &dyn std::error::Error,
                        "nothing is published until this is mended"
                    );
                }
                return;
            }
        }
        for effect in std::mem::take(&mut self.effects) {
            match effect {
                Effect::Tell(event) => drop(self.events.send(*event)),
                Effect::Acknowledge(receipt) => {
                    if let Some((transport, _)) = &self.transport {
                        transport.acknowledge(receipt);
                    }
                }
                Effect::Publish { topic, payload, retain } => {
                    if let (Some((transport, _)), Some(site)) = (&self.transport, &self.meta.site) {
                        transport.publish(topic.name(site), payload, retain);
                    }
                }
                Effect::Order { topic, payload, late } => {
                    if let (Some((transport, _)), Some(site)) = (&self.transport, &self.meta.site) {
                        match self.parting {
                            true => transport.publish_urgent(topic.name(site), payload, false),
                            false => transport.publish_each(topic.name(site), payload, late),
                        }
                    }
                }
            }
        }
    }

    fn publish(&mut self, topic: Topic, payload: Vec<u8>, retain: bool) {
        if self.leader.plans() {
            self.effects.push(Effect::Publish { topic, payload, retain });
        }
    }

    fn publish_node(&mut self, node: &NodeId, topic: NodeTopic, payload: Vec<u8>, retain: bool) {
        self.publish(Topic::Node(node.clone(), topic), payload, retain);
    }

    fn tell(&mut self, event: Event) {
        if !matches!(event, Event::Idle) {
            self.idle_told = false;
        }
        if self.events.receiver_count() > 0 {
            self.effects.push(Effect::Tell(Box::new(event)));
        }
    }

    fn presence(&self, site: &SiteName, online: bool) -> Vec<u8> {
        let presence = PlannerPresence {
            version: VERSION,
            site: site.clone(),
            planner: self.meta.planner.clone(),
            online,
            term: if online { self.meta.term } else { 0 },
            generation: self.meta.generation,
        };
        envelope::seal(&self.key, &presence)
    }

    fn say_presence(&self, online: bool, retain: bool) {
        if let (Some((transport, _)), Some(site)) = (&self.transport, &self.meta.site) {
            transport.publish_urgent(Topic::Planner.name(site), self.presence(site, online), retain);
        }
    }

    /// Starts the connection once there is a site.
    fn connect(&mut self, site: &SiteName) -> Result<(), TransportError> {
        if self.transport.is_none() {
            let client = topic::planner_client(site, &self.meta.planner);
            let will = self.presence(site, false);
            let settings = transport::Settings::new(&self.config, site, client, will)?;
            self.transport = Some(transport::start(settings, self.incoming.0.clone()));
        }
        Ok(())
    }

    /// Says that it is gone, and waits until the broker knows.
    async fn farewell(&mut self) {
        self.write_nodes();
        self.parting = true;
        self.end_execs(&NodeOutcome::Stopped);
        self.flush();
        let planned = self.leader.plans();
        if let (Some((transport, task)), Some(site)) = (self.transport.take(), self.meta.site.clone()) {
            if planned {
                transport.publish_urgent(Topic::Planner.name(&site), self.presence(&site, false), true);
            }
            transport.stop();
            // Somebody has to take what still comes in, or the connection waits for room.
            let drain = async { while self.incoming.1.recv().await.is_some() {} };
            tokio::select! {
                _ = tokio::time::timeout(FAREWELL, task) => {}
                () = drain => {}
            }
        }
    }
}

/// Milliseconds since the Unix epoch.
fn now_ms() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |d| d.as_millis() as u64)
}
