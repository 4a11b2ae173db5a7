//! Where the parts meet: each input is given to the parts that it concerns, and what follows is settled once for all inputs of a round.

mod damp;
mod elect;
mod forget;
mod messages;
mod orders;
mod park;
mod plans;
mod prevented;
mod requests;
mod retained;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
    time::Duration,
};

use groundplan_core::{Knowledge, desired::Elected};
use groundplan_protocol::{
    VERSION,
    effect::Action,
    ids::{Generation, InstanceId, NodeId, Nonce},
    presence::{HEARTBEAT, PlannerPresence},
    report::{Outcome, SKIPPED, TaskReport},
    time::Now,
};

use crate::{
    command::{Commands, NodeOutcome},
    commit::{Refusal, RefusedCommit},
    deployment::{Deployment, Job, LoadReason},
    drift::Drift,
    fleet::Fleet,
    ids::{JobId, Receipt},
    io::{Effect, Event, Input, Level, LoadJob, LoadOutcome, Message, NodeMessage, Problem, Settings},
    leadership::{LeaderAction, Leadership, Role},
    record::Meta,
    retained::Retained,
    rollout::ActiveRollout,
    view::View,
    write::{Stored, Write},
};

/// How often what may be lost without harm is written: nodes' states and the progress of commands.
const WRITE_EVERY: Duration = Duration::from_secs(2);

/// See the crate.
#[derive(Debug)]
pub struct Machine {
    meta: Meta,
    fleet: Fleet,
    deployment: Deployment,
    rollout: Option<Arc<ActiveRollout>>,
    drift: Drift,
    commands: Commands,
    leadership: Leadership,
    retained: Retained,
    /// Whether there is a connection to the broker; if not, why.
    broker: Result<(), Option<String>>,
    /// Whether the connection was asked for.
    connecting: bool,
    /// Whether the broker lost what was published.
    republish: bool,
    /// Payloads that were not ours, since the start.
    ignored: u64,
    /// Whether any client reads events.
    listeners: bool,
    idle_reported: bool,
    /// Whether anything happened to the rollout since its progress was worked out.
    rollout_dirty: bool,
    /// Tasks that finished since then, for clients that follow.
    finished: Vec<Finished>,
    /// Messages that change what a plan under way started from: taken when it is there.
    held: VecDeque<(Receipt, NodeId, NodeMessage)>,
    write_at: Duration,
    /// When plans that were not taken are offered again, by the monotonic clock.
    renew_at: Duration,
    /// Nodes that have announced another key: when they may be offered their plans, by the monotonic clock, and whether they are to be.
    rekeyed: BTreeMap<NodeId, (Duration, bool)>,
    /// When agents are next shown that this planner is there, by the monotonic clock.
    beat_at: Duration,
    /// The outcome of elections that the active commit was last to be resolved with.
    asked: Vec<Elected>,
    /// When elections were last looked at, by the monotonic clock.
    looked_at: Duration,
    /// When the wait of a node that contradicted itself is over.
    release_at: Option<Duration>,
    stopping: bool,
    out: Vec<Effect>,
}

/// A task that finished, for [`Event::TaskFinished`].
#[derive(Debug)]
struct Finished {
    instance: InstanceId,
    action: Action,
    outcome: Outcome,
    duration_ms: u64,
    skipped: bool,
}

impl Finished {
    fn of(node: &NodeId, report: &TaskReport) -> Self {
        Self {
            instance: report.task.at(node),
            action: report.action,
            outcome: report.outcome.clone(),
            duration_ms: report.duration_ms,
            skipped: report.output.as_ref().is_some_and(|output| output.head.starts_with(SKIPPED)),
        }
    }
}

impl Machine {
    /// As it was when the planner ended; empty for a new one. `stored.meta.planner` must be set.
    pub fn restore(settings: &Settings, mut stored: Stored, now: Now) -> Self {
        // Used up by a node that made one up, for a planner of before: plans go on from the middle, which all other nodes take.
        if !stored.meta.generation.is_valid() {
            stored.meta.generation = Generation(Generation::LIMIT.0 / 2);
        }
        let fleet = Fleet::restore(&mut stored, settings.strangers, now);
        let (log, rollout) = (stored.log, stored.rollout);
        let rollout = rollout.map(|(head, rollout)| Arc::new(ActiveRollout::restore(head, rollout, log)));
        let active = stored.meta.active.as_ref().filter(|_| stored.meta.site.is_some());
        let planned = rollout.as_ref().map(|rollout| rollout.head.commit.id.clone());
        Self {
            deployment: Deployment::new(active.map(|commit| commit.id.clone()), planned),
            leadership: Leadership::new(stored.meta.planner.clone(), stored.meta.term, settings.seed),
            commands: Commands::interrupted(stored.commands, now),
            meta: stored.meta,
            fleet,
            rollout,
            drift: Drift::default(),
            retained: Retained::new(),
            broker: Err(None),
            connecting: false,
            republish: true,
            ignored: 0,
            listeners: false,
            idle_reported: false,
            rollout_dirty: true,
            finished: Vec::new(),
            held: VecDeque::new(),
            write_at: now.mono + WRITE_EVERY,
            renew_at: now.mono,
            rekeyed: BTreeMap::new(),
            beat_at: now.mono,
            asked: Vec::new(),
            looked_at: now.mono,
            release_at: None,
            stopping: false,
            out: Vec::new(),
        }
    }

    /// Takes one input; returns what is to be done.
    pub fn handle(&mut self, input: Input, now: Now) -> Vec<Effect> {
        self.handle_all([input], now)
    }

    /// Takes what came in together; returns what is to be done, of which all that is persisted is one group.
    ///
    /// What follows from a rollout's progress is worked out once for all of it, which is what makes a burst of reports cheap.
    pub fn handle_all(&mut self, inputs: impl IntoIterator<Item = Input>, now: Now) -> Vec<Effect> {
        for input in inputs {
            self.take(input, now);
        }
        if self.stopping {
            self.shut_down(now);
        } else {
            self.settle(now);
        }
        std::mem::take(&mut self.out)
    }

    /// When the next [`Input::Tick`] is due, by the monotonic clock.
    pub fn deadline(&self) -> Duration {
        let deadlines = [
            self.leadership.deadline(),
            self.deployment.deadline(self.leadership.plans()),
            self.commands.deadline(),
            self.election_deadline(),
            self.release_at,
            self.retained.deadline(),
            Some(self.write_at),
            Some(self.renew_at.min(self.beat_at)).filter(|_| self.leadership.plans()),
            self.rekeyed.values().map(|(at, _)| *at).min().filter(|_| self.leadership.plans()),
        ];
        deadlines.into_iter().flatten().min().unwrap_or(self.write_at)
    }

    /// How many messages wait for a plan under way. Above a few thousand, take no more from the broker until it is there.
    pub fn held(&self) -> usize {
        self.held.len()
    }

    /// Whether it ended: after [`Input::Stop`].
    pub fn is_stopped(&self) -> bool {
        self.stopping
    }

    /// A snapshot for readers.
    pub fn view(&self) -> View {
        View {
            meta: self.meta.clone(),
            active: self.deployment.active().cloned(),
            role: self.role(),
            term: self.leadership.term(),
            due: self.deployment.is_due(),
            broker: self.broker.clone(),
            repository_error: self.deployment.repository_error.clone(),
            ignored: self.ignored,
            nodes: self.fleet.nodes().clone(),
            awaited: self.retained.awaited(),
            drift: self.drift.nodes().clone(),
            rollout: self.rollout.clone(),
            commands: self.commands.running(),
        }
    }

    fn take(&mut self, input: Input, now: Now) {
        match input {
            Input::Stop => self.stopping = true,
            Input::Tick => {}
            Input::Listeners(any) => self.listeners = any,
            Input::Connected { fresh } => {
                self.broker = Ok(());
                self.republish |= fresh;
                self.leadership.ready(now.mono);
                self.retained.connected(now.mono);
            }
            Input::Disconnected { error } => {
                if self.broker.as_ref() != Err(&Some(error.clone())) {
                    self.log(Level::Warn, format!("no connection to the broker: {error}"));
                }
                self.broker = Err(Some(error));
                self.leadership.lost();
                self.retained.lost();
            }
            Input::Message { receipt, message } => {
                self.leadership.message_received(now.mono);
                self.take_message(receipt, message, now);
            }
            Input::Tip(Ok(id)) => {
                if self.deployment.tip(id) {
                    self.meta.refused = None;
                    self.write_meta();
                }
            }
            Input::Tip(Err(error)) => {
                self.log(Level::Warn, format!("the repository cannot be read: {error}"));
                self.deployment.repository_error = Some(error);
            }
            Input::Loaded { job, outcome } => self.take_loaded(job, outcome, now),
            Input::Planned(planned) => self.take_planned(*planned, now),
            Input::Request(id, request) => self.take_request(id, request, now),
            Input::ClientGone(id) => {
                // It may have ended meanwhile.
                let _ = self.commands.stop(&id, now);
            }
        }
        self.take_command_outcomes();
    }

    /// What follows from all that was taken.
    fn settle(&mut self, now: Now) {
        let actions = self.leadership.tick(now.mono);
        self.obey(actions, now);
        self.end_parks(now);
        self.elect(now);
        self.release_damped(now);
        self.looked_at = now.mono;
        self.ask_for_retained(now);
        self.start_jobs(now);
        self.progress(now);
        self.commands.tick(now);
        if now.mono >= self.write_at {
            self.write_at = now.mono + WRITE_EVERY;
            self.write_nodes();
            self.commands.write();
        }
        if now.mono >= self.renew_at && self.leadership.plans() {
            self.renew_offers(now);
        }
        if self.leadership.plans() {
            self.offer_rekeyed(now);
        }
        if now.mono >= self.beat_at && self.leadership.plans() {
            self.beat_at = now.mono + HEARTBEAT;
            self.publish(Message::Heartbeat(self.leadership.term()));
        }
        self.take_command_outcomes();
    }

    fn start_jobs(&mut self, now: Now) {
        // A load of news comes before the plan that is due with it: at most two jobs start in one round.
        while let Some(job) = self.deployment.start(self.leadership.plans(), now) {
            match job {
                Job::Load { job, commit, misfit } => {
                    let present = self.fleet.nodes().keys().filter(|node| self.is_present(node)).cloned().collect();
                    let elected = self.meta.elected.clone();
                    let knowledge = Knowledge { elected, not_given_up: true, present, ..self.fleet.knowledge(misfit) };
                    let (site, active) = (self.meta.site.clone(), self.deployment.active().cloned());
                    let base = self.meta.active.clone();
                    self.out.push(Effect::Load(Box::new(LoadJob { job, commit, knowledge, site, active, base })));
                }
                Job::Plan { job } => self.start_plan(job),
            }
        }
    }

    fn take_loaded(&mut self, job: JobId, outcome: LoadOutcome, now: Now) {
        let Some(reason) = self.deployment.loaded(job) else { return };
        let outcome = match outcome {
            // What is active stays so, whatever nodes have reported since: its plan leaves alone what must not be removed.
            LoadOutcome::Good { commit, same } if reason == LoadReason::Tip => {
                let faults = prevented::faults(&commit, self.deployment.active().map(AsRef::as_ref), &self.fleet);
                match faults.is_empty() {
                    true => LoadOutcome::Good { commit, same },
                    false => LoadOutcome::Refused(RefusedCommit { commit: commit.commit.clone(), faults }),
                }
            }
            outcome => outcome,
        };
        match outcome {
            LoadOutcome::Good { commit, same } => {
                self.asked.clear();
                self.out.push(Effect::Activate(job));
                // At a start, the commit that was active may come as the branch's tip as well.
                let is_other = self.meta.active.as_ref().is_none_or(|before| before.id != commit.commit.id);
                match reason {
                    LoadReason::Tip => {
                        self.log(
                            Level::Info,
                            format!("commit {} is active: {}", commit.commit.id, commit.commit.subject),
                        );
                        self.meta.site = Some(commit.site.clone());
                        self.meta.active = Some(commit.commit.clone());
                        self.meta.refused = None;
                        self.write_meta();
                        self.event(|| Event::Commit(commit.commit.clone()));
                    }
                    LoadReason::News if self.meta.refused.as_ref().is_some_and(|r| r.commit.id == commit.commit.id) => {
                        // With what nodes report now it has no fault any more.
                        self.meta.refused = None;
                        self.write_meta();
                    }
                    LoadReason::News | LoadReason::Restored => {}
                }
                self.deployment.accept(commit, same, now);
                if reason != LoadReason::News {
                    self.retained.declared(now.mono);
                }
                if reason == LoadReason::Tip {
                    if is_other {
                        self.fleet.commit_is_active();
                    }
                    self.publish_checks(&BTreeSet::new(), now);
                    self.choose_all(now);
                    if self.leadership.plans() {
                        self.deployment.plan_soon(now, true);
                    }
                }
                self.release_held(now);
            }
            LoadOutcome::Refused(refused) => {
                self.deployment.not_accepted(None, now);
                let (id, faults) = (&refused.commit.id, refused.faults.len());
                if reason == LoadReason::Restored {
                    self.log(
                        Level::Warn,
                        format!("this release refuses commit {id}, which was active: {faults} faults"),
                    );
                } else {
                    self.log(
                        Level::Warn,
                        format!("commit {id} is refused with {faults} faults; the one before it stays active"),
                    );
                    // Another start, or news of a node, may lead to the same refusal: the history has it once.
                    if self.meta.refused.as_ref() != Some(&refused) {
                        let refusal = Refusal { at_ms: now.wall_ms, refused: refused.clone() };
                        self.persist(Write::Refusal(Box::new(refusal)));
                    }
                    self.meta.refused = Some(refused.clone());
                    self.write_meta();
                    self.event(|| Event::Refused(refused));
                }
            }
            LoadOutcome::Unreadable(error) => {
                self.log(Level::Warn, format!("the commit cannot be read: {error}"));
                self.deployment.not_accepted(Some(error), now);
            }
        }
        self.connect();
    }

    /// Connects once there is a site.
    fn connect(&mut self) {
        if let Some(site) = self.meta.site.clone().filter(|_| !self.connecting) {
            self.connecting = true;
            self.out.push(Effect::Connect(site));
        }
    }

    fn obey(&mut self, actions: Vec<LeaderAction>, now: Now) {
        for action in actions {
            match action {
                LeaderAction::Claim { term, after_another } => {
                    self.meta.term = term;
                    if after_another {
                        self.drift.end_requests();
                    }
                    self.write_meta();
                    self.publish_presence(true, None);
                }
                LeaderAction::Republish => self.publish_presence(true, None),
                LeaderAction::Challenge(nonce) => self.publish_presence(false, Some(nonce)),
                LeaderAction::Begin => self.begin(now),
                LeaderAction::StandBy { of } => self.stand_by(of, now),
            }
        }
    }

    /// This planner plans from now on.
    fn begin(&mut self, now: Now) {
        self.log(Level::Info, format!("planning in term {}", self.leadership.term()));
        self.out.push(Effect::OpenOutbox);
        self.event(|| Event::Role(Role::Planning));
        // Plans of another planner, or of one that had this store's successor, were published.
        // One that stands by takes their numbers over from the nodes' states, so they are compared with what it planned itself.
        let own = self.rollout.as_ref().map_or(self.meta.generation, |rollout| rollout.head.generation);
        let foreign = self.leadership.seen_generation().max(self.meta.generation) > own;
        let active =
            self.deployment.active().map(|active| (active.commit.id.clone(), active.desired.node_inputs.is_empty()));
        match active {
            Some((id, asks_nothing)) if !foreign && self.deployment.planned_commit.as_ref() == Some(&id) => {
                self.resume(now);
                // What nodes reported last may not be planned with yet.
                if !asks_nothing {
                    self.deployment.plan_soon(now, true);
                }
            }
            _ => {
                if foreign {
                    // Another planner may have elected others: what nodes have applied shows where tasks with `once` are.
                    self.meta.elected.clear();
                    self.drop_stale(now);
                }
                self.deployment.plan_soon(now, true);
            }
        }
        (self.renew_at, self.beat_at) = (now.mono, now.mono);
        if std::mem::take(&mut self.republish) {
            self.publish_everything(now);
        }
        self.commands.stop_orphans();
        self.publish_checks(&BTreeSet::new(), now);
        self.choose_all(now);
    }

    /// Another planner has planned since: its plans were published, and what became of ours is known to the nodes alone.
    fn drop_stale(&mut self, now: Now) {
        if let Some(stale) = self.rollout.take() {
            self.persist(Write::History(Box::new(stale.superseded(now.wall_ms))));
        }
        let planned: Vec<NodeId> =
            self.fleet.nodes().iter().filter(|(_, n)| n.planned.is_some()).map(|(id, _)| id.clone()).collect();
        for node in planned {
            if let Some(known) = self.fleet.get_mut(&node) {
                known.planned = None;
            }
            self.persist(Write::Plan(node, None));
        }
    }

    fn stand_by(&mut self, of: String, now: Now) {
        self.log(Level::Info, format!("planner {of} plans; standing by"));
        for recheck in self.deployment.stand_by() {
            let problem = Problem::NotPlanning { planner: Some(of.clone()) };
            self.out.push(Effect::Reply(recheck.request, Err(problem)));
        }
        self.commands.end_all(&NodeOutcome::Interrupted, now);
        self.event(|| Event::Role(Role::Standby { planner: of }));
        self.release_held(now);
    }

    /// Writes down what is in memory, ends what runs, and leaves.
    fn shut_down(&mut self, now: Now) {
        self.write_nodes();
        self.commands.end_all(&NodeOutcome::Stopped, now);
        self.take_command_outcomes();
        for recheck in self.deployment.stand_by() {
            self.out.push(Effect::Reply(recheck.request, Err(Problem::NotPlanning { planner: None })));
        }
        if self.leadership.plans() {
            self.publish_presence(false, None);
        }
    }

    fn role(&self) -> Role {
        match self.leadership.standby_of() {
            Some(planner) => Role::Standby { planner: planner.to_owned() },
            None if self.leadership.plans() => Role::Planning,
            None => Role::Starting,
        }
    }

    /// Publishes this planner's presence: retained, or as a challenge.
    fn publish_presence(&mut self, online: bool, challenge: Option<Nonce>) {
        let retain = challenge.is_none();
        let (revision, answer) = self.leadership.stamp();
        let Some(site) = self.meta.site.clone() else { return };
        let presence = PlannerPresence {
            version: VERSION,
            site,
            challenge,
            answer: answer.filter(|_| online),
            revision,
            planner: self.meta.planner.clone(),
            online,
            // One that is not online claims nothing.
            term: if online { self.meta.term } else { 0 },
            generation: self.meta.generation,
            forget: if online { self.pending_forgets() } else { Vec::new() },
            parked: if online { self.parked_nodes() } else { Vec::new() },
        };
        self.out.push(Effect::Publish(Message::Presence { presence, retain }));
    }

    fn publish(&mut self, message: Message) {
        if self.leadership.plans() {
            self.out.push(Effect::Publish(message));
        }
    }

    fn persist(&mut self, write: Write) {
        self.out.push(Effect::Persist(write));
    }

    fn write_meta(&mut self) {
        self.persist(Write::Meta(Box::new(self.meta.clone())));
    }

    fn write_nodes(&mut self) {
        let writes = self.fleet.unstored();
        self.out.extend(writes.into_iter().map(Effect::Persist));
    }

    fn event(&mut self, event: impl FnOnce() -> Event) {
        self.idle_reported = false;
        if self.listeners {
            self.out.push(Effect::Event(Box::new(event())));
        }
    }

    fn log(&mut self, level: Level, text: String) {
        self.out.push(Effect::Log(level, text));
    }
}
