//! The planner's shell: reads, calls the machine, writes and sends. Decides nothing.
//!
//! One loop: what came in together is given to the machine together; what the machine wants persisted goes to the store in one group;
//! only then is anything published or acknowledged. Git, rendering, planning, signatures and content are on threads of their own
//! (`workers`, `shipper`, `inbox`, `outbox`), readers get a snapshot (`handle`). While the store fails, nothing leaves, and all of it is tried again.

mod content;
mod handle;
mod inbox;
mod outbox;
mod shipper;
mod shipping;
mod site;
mod workers;

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, mpsc as std_mpsc},
    thread,
    time::{Duration, Instant},
};

use groundplan_machine::{
    Machine,
    command::CommandEvent,
    ids::{JobId, RequestId},
    io::{Effect, Input, Level, Problem, Reply, Settings},
    write::Stored,
};
use groundplan_protocol::{
    envelope::{self, SigningKey},
    ids::{CommitId, ExecId, SiteName},
    presence::PlannerPresence,
    time::Now,
    topic,
};
use tokio::{
    sync::{broadcast, mpsc, oneshot},
    task::JoinHandle,
};

use self::{
    handle::Arrival,
    inbox::{Receipts, Received},
    outbox::Outgoing,
    shipper::{Route, Shipper},
    workers::{Answer, FastForward},
};
pub(crate) use self::{
    handle::{Handle, Stopping},
    inbox::{HeldKeys, Keys},
    site::Site,
};
use crate::{
    api::{event::Event, stream::EventSender},
    clock::wall_ms,
    config::ServeConfig,
    repository::{Repository, follow::Follow, watch::Seen},
    store::{Group, Store},
    transport::{self, Transport, TransportError},
    view::{self, PlannerInfo, Snapshot, StoreFault},
};

/// How many events a slow client may fall behind.
const EVENTS: usize = 4096;

/// How many inputs are taken together at most.
const TOGETHER: usize = 1024;

/// How many messages may wait for a plan under way before no more are taken from the broker.
const HELD: usize = 4096;

/// How long the shutdown of the connection may take.
const SHUTDOWN: Duration = Duration::from_millis(2500);

/// A snapshot is taken at most every so often, and at most a tenth of the loop's time goes into them.
const SNAPSHOT_EVERY: Duration = Duration::from_millis(1);
const SNAPSHOT_SHARE: u32 = 10;

/// How long a group for which nothing waits may grow before it is written.
const GROUP_WAIT: Duration = Duration::from_millis(20);

/// How long the loop waits after the store failed before it tries again.
const STORE_AGAIN: Duration = Duration::from_secs(1);

/// What comes from outside of this process beside the broker and the API.
pub(crate) struct Sources {
    /// Tips of the branch.
    pub(crate) tips: mpsc::Receiver<Seen>,
    /// Resolves when the planner is to stop.
    pub(crate) stop: oneshot::Receiver<()>,
}

/// The connection to the broker, once there is a site.
struct Connection {
    transport: Transport,
    task: JoinHandle<()>,
    outgoing: mpsc::UnboundedSender<Outgoing>,
}

/// A client that follows a command.
struct Follower {
    events: EventSender,
    /// Reports that the client no longer reads.
    watch: JoinHandle<()>,
}

/// The loop's own state; only the loop's thread touches it.
pub(crate) struct Shell {
    config: ServeConfig,
    key: Arc<SigningKey>,
    planner: String,
    machine: Machine,
    started: Instant,
    store: Store,
    group: Group,
    /// Since when it holds anything.
    group_since: Option<Instant>,
    /// Effects that wait until the group is on the disk.
    waiting: VecDeque<Effect>,
    /// When the store failed last, while it fails.
    store_failed: Option<Instant>,
    /// Why, and since when, for readers.
    store_fault: Option<StoreFault>,
    handle: Handle,
    arrivals: mpsc::Receiver<Arrival>,
    received: (mpsc::Sender<Received>, mpsc::Receiver<Received>),
    receipts: Receipts,
    answers: mpsc::UnboundedReceiver<Answer>,
    loads: std_mpsc::Sender<Box<groundplan_machine::io::LoadJob>>,
    plans: std_mpsc::Sender<(Box<groundplan_machine::planning::PlanJob>, Arc<Site>)>,
    shipper: Shipper,
    /// What was loaded and is not active yet.
    loaded: HashMap<JobId, Arc<Site>>,
    /// What is active.
    active: Option<Arc<Site>>,
    connection: Option<Connection>,
    replies: HashMap<RequestId, oneshot::Sender<Result<Reply, Problem>>>,
    last_request: u64,
    followers: HashMap<ExecId, Follower>,
    listeners: bool,
    /// Readers that wait for a snapshot.
    readers: Vec<oneshot::Sender<Arc<Snapshot>>>,
    /// When the next snapshot may be taken.
    snapshot_at: Instant,
    /// The branch's tip, as it was read last.
    tip: Option<CommitId>,
    fast_forward: Arc<FastForward>,
}

impl Shell {
    /// As the planner was when it ended; `stored.meta.planner` is its id, and `seed` was drawn at random.
    pub(crate) fn new(
        config: ServeConfig,
        follow: Arc<Follow>,
        key: Arc<SigningKey>,
        repository: Repository,
        (store, mut stored): (Store, Stored),
        seed: [u8; 16],
    ) -> Self {
        let (arrive, arrivals) = mpsc::channel(64);
        let (events, _) = broadcast::channel(EVENTS);
        let reader = store.reader();
        let info = PlannerInfo {
            planner: stored.meta.planner.clone(),
            key: key.public(),
            location: config.repository.clone(),
            follow,
            broker: config.broker.to_string(),
        };
        let handle = Handle {
            arrivals: arrive,
            events,
            store: reader.clone(),
            keys: Arc::new(Keys::new(&config.state_dir)),
            info: Arc::new(info),
        };
        let (answer, answers) = mpsc::unbounded_channel();
        let ((loads, load_jobs), (plans, plan_jobs)) = (std_mpsc::channel(), std_mpsc::channel());
        let answer_load = answer.clone();
        let fast_forward = Arc::new(FastForward::new(config.fast_forward_only));
        let rule = fast_forward.clone();
        thread::spawn(move || workers::load(&repository, &rule, &load_jobs, &answer_load));
        thread::spawn(move || workers::plan(&plan_jobs, &answer));
        let shipper = Shipper::start(reader, key.clone(), &config.state_dir);
        let (planner, started) = (stored.meta.planner.clone(), Instant::now());
        let now = Now { mono: Duration::ZERO, wall_ms: wall_ms() };
        stored.meta.generation = stored.meta.generation.max(config.generation);
        Self {
            machine: Machine::restore(&Settings::new(seed), stored, now),
            config,
            key,
            planner,
            started,
            store,
            group: Group::default(),
            group_since: None,
            waiting: VecDeque::new(),
            store_failed: None,
            store_fault: None,
            handle,
            arrivals,
            received: mpsc::channel(TOGETHER),
            receipts: Receipts::default(),
            answers,
            loads,
            plans,
            shipper,
            loaded: HashMap::new(),
            active: None,
            connection: None,
            replies: HashMap::new(),
            last_request: 0,
            followers: HashMap::new(),
            listeners: false,
            readers: Vec::new(),
            snapshot_at: started,
            tip: None,
            fast_forward,
        }
    }

    /// A handle for the API. Once the loop has ended, requests through it are answered with [`handle::Stopping`].
    pub(crate) fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// Runs until it is to stop.
    ///
    /// # Errors
    /// There is no way to connect to a broker as configured.
    pub(crate) async fn run(mut self, mut sources: Sources) -> Result<(), TransportError> {
        // What was active is loaded first.
        let mut inputs = vec![Input::Tick];
        loop {
            self.round(inputs)?;
            if self.machine.is_stopped() {
                self.commit();
                self.shut_down().await;
                return Ok(());
            }
            inputs = self.next(&mut sources).await;
        }
    }

    /// Gives inputs to the machine, and carries out what it wants.
    fn round(&mut self, mut inputs: Vec<Input>) -> Result<(), TransportError> {
        // Events of single tasks are made only while a client follows them. The machine is informed before the inputs,
        // so that a new client misses none of what they cause.
        let listeners = self.handle.events.receiver_count() > 0;
        if std::mem::replace(&mut self.listeners, listeners) != listeners {
            inputs.insert(0, Input::Listeners(listeners));
        }
        let now = self.now();
        for effect in self.machine.handle_all(inputs, now) {
            match effect {
                Effect::Persist(write) => self.group.push(write),
                // A reply claims nothing of the disk; a client must not wait for a store that fails.
                Effect::Reply(request, reply) => {
                    if let Some(sender) = self.replies.remove(&request) {
                        let _ = sender.send(reply);
                    }
                }
                // These leave nothing: whatever follows from them comes back as an input first.
                effect @ (Effect::Load(_) | Effect::Activate(_) | Effect::Plan(_) | Effect::Log(..)) => {
                    self.carry_out(effect)?;
                }
                effect => self.waiting.push_back(effect),
            }
        }
        if !self.group.is_empty() {
            self.group_since.get_or_insert_with(Instant::now);
        }
        // With nothing that waits for it, a group may grow for a moment: a commit and the plan of it are one transaction then.
        let due = !self.waiting.is_empty() || self.group_since.is_some_and(|since| since.elapsed() >= GROUP_WAIT);
        // Effects of earlier rounds come first: while the store failed they waited, and their order is the order in
        // which they must leave.
        if due && self.commit() {
            while let Some(effect) = self.waiting.pop_front() {
                self.carry_out(effect)?;
            }
        }
        self.serve_readers();
        Ok(())
    }

    /// Writes the group. Returns whether it is on the disk.
    fn commit(&mut self) -> bool {
        match self.store.commit(&self.group) {
            Ok(()) => {
                self.group = Group::default();
                self.group_since = None;
                self.store_fault = None;
                if self.store_failed.take().is_some() {
                    tracing::info!("the store works again");
                }
                true
            }
            Err(error) => {
                let since_ms = self.store_fault.take().map_or_else(wall_ms, |fault| fault.since_ms);
                self.store_fault = Some(StoreFault { error: chain(&error), since_ms });
                if self.store_failed.is_none() {
                    let error = &error as &dyn std::error::Error;
                    tracing::error!(error, "the store cannot be written; nothing is published until it can");
                }
                self.store_failed = Some(Instant::now());
                false
            }
        }
    }

    fn carry_out(&mut self, effect: Effect) -> Result<(), TransportError> {
        match effect {
            Effect::Persist(_) | Effect::Reply(..) => unreachable!("carried out by the round"),
            Effect::Acknowledge(receipt) => {
                if let Some(receipt) = self.receipts.take(receipt) {
                    self.send(Outgoing::Acknowledge(receipt));
                }
            }
            Effect::Connect(site) => self.connect(site)?,
            Effect::OpenOutbox => self.send(Outgoing::Open),
            Effect::Publish(message) => self.send(Outgoing::Publish(message)),
            Effect::Replay(nodes) => self.send(Outgoing::Replay(nodes)),
            Effect::Ship(node, want) => {
                if let Some(connection) = &self.connection {
                    let (site, transport) = (self.active.clone(), connection.transport.clone());
                    let route = Route { name: want.site.clone(), site, transport };
                    self.shipper.ship(node, want, route);
                }
            }
            Effect::Load(job) => drop(self.loads.send(job)),
            Effect::Activate(job) => {
                // What else was loaded is stale: the machine activates only the answer to its latest job.
                let site = self.loaded.remove(&job);
                self.loaded.clear();
                if let Some(site) = site {
                    self.handle.keys.activate(site.clone());
                    self.active = Some(site);
                }
            }
            Effect::Plan(job) => {
                if let Some(site) = &self.active {
                    let _ = self.plans.send((job, site.clone()));
                }
            }
            Effect::Event(event) => drop(self.handle.events.send(Event::from(*event))),
            Effect::CommandEvent(id, event) => self.command_event(id, event),
            Effect::Log(level, text) => match level {
                Level::Debug => tracing::debug!("{text}"),
                Level::Info => tracing::info!("{text}"),
                Level::Warn => tracing::warn!("{text}"),
            },
        }
        Ok(())
    }

    fn command_event(&mut self, id: ExecId, event: CommandEvent) {
        let last = matches!(event, CommandEvent::Finished { .. });
        if let Some(follower) = self.followers.get_mut(&id) {
            follower.events.send(view::command_event(&id, event));
        }
        // Nothing follows the last event. Without its sender the client's stream ends, and the watch would report a
        // client that disconnects.
        if last && let Some(follower) = self.followers.remove(&id) {
            follower.watch.abort();
        }
    }

    fn send(&self, outgoing: Outgoing) {
        if let Some(connection) = &self.connection {
            // The task ends only after `Stop`, when nothing matters any more.
            let _ = connection.outgoing.send(outgoing);
        }
    }

    fn connect(&mut self, site: SiteName) -> Result<(), TransportError> {
        let client = topic::planner_client(&site, &self.planner, &self.key);
        if let Some(embedded) = &self.config.embedded {
            embedded.policy.name(site.clone());
        }
        let will = PlannerPresence {
            version: groundplan_protocol::VERSION,
            site: site.clone(),
            planner: self.planner.clone(),
            challenge: None,
            answer: None,
            revision: 0,
            online: false,
            term: 0,
            generation: self.machine.view().meta.generation,
            forget: Vec::new(),
            parked: Vec::new(),
        };
        let settings = transport::Settings::new(&self.config, &site, client, envelope::seal(&self.key, &will))?;
        let (incoming, inbox) = mpsc::channel(TOGETHER);
        let (transport, task) = transport::start(settings, incoming);
        let keys = self.handle.keys.clone();
        let (planner_key, decryption) = (self.key.public(), self.key.decryption());
        let verifier = inbox::Verifier { site: site.clone(), planner_key, decryption, keys };
        tokio::spawn(inbox::run(verifier, transport.clone(), inbox, self.received.0.clone()));
        let (outgoing, outbox) = mpsc::unbounded_channel();
        let (key, store) = (self.key.clone(), self.handle.store.clone());
        tokio::spawn(outbox::run(site, key, store, transport.clone(), outbox));
        self.connection = Some(Connection { transport, task, outgoing });
        Ok(())
    }

    /// What comes in next, and all that is at hand with it.
    async fn next(&mut self, sources: &mut Sources) -> Vec<Input> {
        let mut inputs = Vec::new();
        // A store that failed is not tried again at once, and until then nothing that is due could leave.
        let mut deadline = self.started + self.machine.deadline();
        if !self.readers.is_empty() {
            deadline = deadline.min(self.snapshot_at);
        }
        if let Some(since) = self.group_since {
            deadline = deadline.min(since + GROUP_WAIT);
        }
        if let Some(failed) = self.store_failed {
            deadline = deadline.max(failed + STORE_AGAIN);
        }
        // Messages that come while a plan is worked out are held by the machine. Beyond that many they stay in the
        // channel, which holds back the broker.
        let takes_messages = self.machine.held() < HELD;
        tokio::select! {
            biased;
            _ = &mut sources.stop => inputs.push(Input::Stop),
            Some(answer) = self.answers.recv() => inputs.push(self.answered(answer)),
            Some(seen) = sources.tips.recv() => inputs.push(self.seen(seen)),
            Some(arrival) = self.arrivals.recv() => inputs.extend(self.arrived(arrival)),
            Some(received) = self.received.1.recv(), if takes_messages => {
                inputs.push(received.into_input(&mut self.receipts));
            }
            () = tokio::time::sleep_until(deadline.into()) => inputs.push(Input::Tick),
        }
        // All that is at hand shares one transaction, up to a bound that keeps a round short. In the same order of
        // importance as above: a flood of messages delays neither answers nor operators.
        for _ in 0..TOGETHER {
            if let Ok(answer) = self.answers.try_recv() {
                inputs.push(self.answered(answer));
            } else if let Ok(seen) = sources.tips.try_recv() {
                inputs.push(self.seen(seen));
            } else if let Ok(arrival) = self.arrivals.try_recv() {
                inputs.extend(self.arrived(arrival));
            } else if let Some(received) = takes_messages.then(|| self.received.1.try_recv().ok()).flatten() {
                inputs.push(received.into_input(&mut self.receipts));
            } else {
                break;
            }
        }
        inputs
    }

    fn seen(&mut self, seen: Seen) -> Input {
        self.tip = seen.as_ref().ok().cloned().or(self.tip.take());
        tip(seen)
    }

    fn answered(&mut self, answer: Answer) -> Input {
        match answer {
            Answer::Loaded(job, outcome, site) => {
                if let Some(site) = site {
                    self.loaded.insert(job, site);
                }
                Input::Loaded { job, outcome }
            }
            Answer::Planned(planned) => Input::Planned(planned),
        }
    }

    fn arrived(&mut self, arrival: Arrival) -> Option<Input> {
        match arrival {
            Arrival::Snapshot(reader) => {
                self.readers.push(reader);
                None
            }
            Arrival::Request(request, reply) => Some(Input::Request(self.expect_reply(reply), request)),
            Arrival::Command(request, events, reply) => {
                let (id, closed, arrivals) = (request.id.clone(), events.closed(), self.handle.arrivals.clone());
                let client_of = id.clone();
                // A client that disconnects stops its command, also while the command prints nothing and so nothing is
                // sent to the client.
                let watch = tokio::spawn(async move {
                    closed.await;
                    let _ = arrivals.send(Arrival::ClientGone(client_of)).await;
                });
                self.followers.insert(id, Follower { events, watch });
                let request = groundplan_machine::io::Request::RunCommand(request);
                Some(Input::Request(self.expect_reply(reply), request))
            }
            Arrival::Accept(commit, reply) => {
                // Only the tip: what the branch was at before must not come back by this.
                let is_tip = self.tip.as_ref() == Some(&commit);
                let _ = reply.send(is_tip);
                if !is_tip {
                    return None;
                }
                tracing::info!(%commit, "an operator accepts a commit that is no fast-forward");
                self.fast_forward.accept(commit.clone());
                Some(Input::Tip(Ok(commit)))
            }
            Arrival::ClientGone(id) => {
                self.followers.remove(&id);
                Some(Input::ClientGone(id))
            }
        }
    }

    fn expect_reply(&mut self, reply: oneshot::Sender<Result<Reply, Problem>>) -> RequestId {
        self.last_request += 1;
        let id = RequestId(self.last_request);
        self.replies.insert(id, reply);
        id
    }

    /// Gives all readers that wait one snapshot, if it is time for one.
    fn serve_readers(&mut self) {
        let begun = Instant::now();
        if self.readers.is_empty() || begun < self.snapshot_at {
            return;
        }
        let snapshot = Arc::new(Snapshot {
            view: self.machine.view(),
            site: self.active.clone(),
            info: self.handle.info.clone(),
            store: self.store_fault.clone(),
            held: self.handle.keys.held(),
        });
        for reader in self.readers.drain(..) {
            let _ = reader.send(snapshot.clone());
        }
        // Readers may come faster than snapshots can be taken: a share of the time keeps the loop for its own work.
        self.snapshot_at = begun + (begun.elapsed() * SNAPSHOT_SHARE).max(SNAPSHOT_EVERY);
    }

    fn now(&self) -> Now {
        Now { mono: self.started.elapsed(), wall_ms: wall_ms() }
    }

    /// Disconnects in good order.
    async fn shut_down(&mut self) {
        self.send(Outgoing::Stop);
        if let Some(connection) = self.connection.take() {
            // What still comes in has to be taken, or the connection waits for room.
            let drain = async { while self.received.1.recv().await.is_some() {} };
            tokio::select! {
                _ = tokio::time::timeout(SHUTDOWN, connection.task) => {}
                () = drain => {}
            }
        }
    }
}

/// An error with its causes.
fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

fn tip(seen: Seen) -> Input {
    Input::Tip(seen.map_err(|error| {
        let hint = error.hint().map_or(String::new(), |hint| format!(" ({hint})"));
        format!("{error}{hint}")
    }))
}
