//! Commands of operators (`groundplan exec`): no part of any plan, and stored nowhere after the agent has stopped.
//!
//! In: orders for this agent, each for one connection; goes, each with the nonce that an order was answered with; the time. Out: nonces,
//! numbered messages with what the commands print and how they end, at most one every `PAUSE` for each command unless there is much to
//! send. An order for another connection is refused; one that came before is ignored. What gets no go in time, or none on the same
//! connection, never runs. While there is no connection commands continue, and their output waits in bounded memory. It never touches
//! what tasks run.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use groundplan_protocol::{
    VERSION,
    encryption::{EncryptionKey, UnusableKey},
    envelope::{SigningKey, seal, seal_for},
    exec::{Exec, ExecEnd, ExecOutcome, ExecOutput, ExecReady, Order, PIECE_LIMIT, READY_LIMIT, RunOrder},
    ids::{ExecId, NodeId, Nonce, SessionId, SiteName},
};
use tokio::{
    sync::Notify,
    task::{JoinError, JoinSet},
};

use crate::{
    host::{
        Host,
        cancel::Canceller,
        process::{BATCH, Spool},
    },
    log,
};

/// Most commands at a time.
const MOST: usize = 8;
/// Most orders that wait for their go.
const MOST_READY: usize = 32;
/// Most refused orders that wait to be answered, beside those.
const MOST_REFUSED: usize = 64;
/// How many order ids are kept, so that none is carried out twice.
const KNOWN: usize = 1024;
/// How long to gather small output before it is sent.
const PAUSE: Duration = Duration::from_millis(100);

/// The commands that run, and the output of each that waits to be sent.
#[derive(Debug)]
pub struct Commands {
    site: SiteName,
    node: NodeId,
    /// Commands until their end has been handed over.
    commands: BTreeMap<ExecId, Command>,
    /// Orders that wait for their go.
    ready: BTreeMap<ExecId, Ready>,
    /// Those of them whose nonce is to be sent, in this order.
    answers: VecDeque<ExecId>,
    tasks: JoinSet<(ExecId, ExecOutcome, Duration)>,
    known: VecDeque<ExecId>,
    news: Arc<Notify>,
    /// The command whose output was sent last: the next one in order follows.
    last: Option<ExecId>,
    /// Whether the agent is shutting down.
    ending: bool,
}

#[derive(Debug)]
struct Ready {
    run: RunOrder,
    nonce: Nonce,
    /// Until when its go counts, by the clock that goes on while the host is suspended.
    until: Duration,
}

/// A message to the planner.
#[derive(Debug)]
pub enum CommandMessage {
    /// An order waits for its go.
    Ready(ExecReady),
    /// What a command prints, and how it ended.
    Output(ExecOutput),
}

impl CommandMessage {
    /// The message in an envelope that is signed with `key`; output is encrypted to the planners.
    ///
    /// # Errors
    /// Nothing can be encrypted to that key.
    pub fn seal(&self, key: &SigningKey, planners: &EncryptionKey) -> Result<Vec<u8>, UnusableKey> {
        match self {
            Self::Ready(ready) => Ok(seal(key, ready)),
            Self::Output(output) => seal_for(key, planners, output),
        }
    }
}

#[derive(Debug)]
struct Command {
    spool: Arc<Spool>,
    stop: Canceller,
    /// The number of its next message.
    number: u64,
    /// When small output may be sent again.
    pause: Duration,
    end: Option<(ExecOutcome, Duration)>,
}

impl Commands {
    /// Starts with no command; `site` and `node` are those that its messages name.
    pub fn new(site: SiteName, node: NodeId) -> Self {
        Self {
            site,
            node,
            commands: BTreeMap::new(),
            ready: BTreeMap::new(),
            answers: VecDeque::new(),
            tasks: JoinSet::new(),
            known: VecDeque::new(),
            news: Arc::default(),
            last: None,
            ending: false,
        }
    }

    /// Takes an order; `session` is the id of the current connection, `boot` the time since the host was booted, which goes on while it is
    /// suspended, and `nonce` one that was never given to this function before.
    pub fn take(&mut self, exec: Exec, session: Option<&SessionId>, host: &Arc<Host>, boot: Duration, nonce: Nonce) {
        self.expire(boot);
        // The broker may deliver an order again, also after the command has ended.
        let known = self.known.contains(&exec.id);
        if !known {
            self.known.push_back(exec.id.clone());
            self.known.drain(..self.known.len().saturating_sub(KNOWN));
        }
        match exec.order {
            // A stop that comes before its command prevents the command: the id is known by then.
            Order::Stop => {
                if self.ready.remove(&exec.id).is_some() {
                    self.refuse(exec.id, "it was stopped before it began".to_owned());
                } else if let Some(command) = self.commands.get(&exec.id) {
                    command.stop.cancel();
                }
            }
            // The planner has not got the answer, or not yet. It is the same nonce: time goes on from when it was made.
            Order::Run(_) if self.ready.contains_key(&exec.id) => {
                if !self.answers.contains(&exec.id) {
                    self.answers.push_back(exec.id);
                }
            }
            Order::Run(_) if known => {}
            Order::Run(run) => match self.refusal(&run, session) {
                Some(reason) => self.refuse(exec.id, reason),
                None if self.ready.len() >= MOST_READY => {
                    let reason = format!("{MOST_READY} commands wait on this node already to be begun by the planner");
                    self.refuse(exec.id, reason);
                }
                None => {
                    log::info(format_args!("command {} is ready, and waits for its go", exec.id));
                    self.answers.push_back(exec.id.clone());
                    self.ready.insert(exec.id, Ready { run: *run, nonce, until: boot + READY_LIMIT.into() });
                }
            },
            Order::Go { nonce } => self.go(exec.id, &nonce, known, session, host),
        }
    }

    fn go(&mut self, id: ExecId, nonce: &Nonce, known: bool, session: Option<&SessionId>, host: &Arc<Host>) {
        match self.ready.remove(&id) {
            Some(ready) if ready.nonce == *nonce => match self.refusal(&ready.run, session) {
                Some(reason) => self.refuse(id, reason),
                None => self.start(id, ready.run, host),
            },
            // No planner answers what it was not sent.
            Some(ready) => drop(self.ready.insert(id, ready)),
            // It runs, has ended, or was answered already: what the planner does not have of that is on its way.
            None if known || self.commands.contains_key(&id) => {}
            None => self.end_unrun(id, ExecOutcome::Unknown),
        }
    }

    /// Refuses orders whose go has not come in time; `boot` as for [`Self::take`].
    pub fn expire(&mut self, boot: Duration) {
        let late = |ready: &Ready| ready.until <= boot;
        let reason = || format!("the planner did not confirm within {READY_LIMIT} that it is to be run");
        self.refuse_ready(late, reason);
    }

    fn refuse_ready(&mut self, which: impl Fn(&Ready) -> bool, reason: impl Fn() -> String) {
        let ids: Vec<ExecId> = self.ready.iter().filter(|(_, ready)| which(ready)).map(|(id, _)| id.clone()).collect();
        for id in ids {
            self.ready.remove(&id);
            self.refuse(id, reason());
        }
    }

    fn refusal(&self, run: &RunOrder, session: Option<&SessionId>) -> Option<String> {
        if session != Some(&run.session) {
            return Some("the order was for an earlier connection of this agent and came late".to_owned());
        }
        if self.ending {
            return Some("the agent is shutting down".to_owned());
        }
        let full = self.tasks.len() >= MOST;
        full.then(|| format!("{MOST} commands run on this node already; wait for one of them, or stop it"))
    }

    fn refuse(&mut self, id: ExecId, reason: String) {
        log::info(format_args!("command {id} is refused: {reason}"));
        self.end_unrun(id, ExecOutcome::Refused { reason });
    }

    /// Answers for a command that was not run.
    fn end_unrun(&mut self, id: ExecId, outcome: ExecOutcome) {
        // Beyond that many, orders come from a fault or an attack, and get no answer.
        if self.commands.len() < MOST + MOST_REFUSED {
            let spool = Arc::new(Spool::new(0, self.news.clone()));
            self.add(id, spool, Some((outcome, Duration::ZERO)));
        }
    }

    fn start(&mut self, id: ExecId, run: RunOrder, host: &Arc<Host>) {
        // Without the command itself, which may hold secrets.
        log::info(format_args!("command {id} starts"));
        let spool = Arc::new(Spool::new(run.output_limit, self.news.clone()));
        let command = self.add(id.clone(), spool.clone(), None);
        let (host, stop) = (Arc::clone(host), command.stop.listen());
        self.tasks.spawn(async move {
            let (outcome, took) = host.exec(&run, &stop, &spool).await;
            (id, outcome, took)
        });
    }

    fn add(&mut self, id: ExecId, spool: Arc<Spool>, end: Option<(ExecOutcome, Duration)>) -> &Command {
        let new = || Command { spool, stop: Canceller::new(), number: 0, pause: Duration::ZERO, end };
        self.commands.entry(id).or_insert_with(new)
    }

    /// Returns when there is more to send.
    ///
    /// # Errors
    /// If a command's task panicked: a fault in this program.
    pub async fn changed(&mut self) -> Result<(), JoinError> {
        let (id, outcome, took) = tokio::select! {
            () = self.news.notified() => return Ok(()),
            Some(ended) = self.tasks.join_next() => ended?,
        };
        let outcome = match outcome {
            ExecOutcome::Stopped if self.ending => {
                ExecOutcome::Failed { error: "it was ended because the agent is shutting down".to_owned() }
            }
            outcome => outcome,
        };
        log::info(format_args!("command {id}: {outcome}"));
        if let Some(command) = self.commands.get_mut(&id) {
            command.end = Some((outcome, took));
        }
        Ok(())
    }

    /// When there is something to send, by the monotonic clock.
    pub fn due(&self) -> Option<Duration> {
        let answer = (!self.answers.is_empty()).then_some(Duration::ZERO);
        self.commands.values().filter_map(Command::due).chain(answer).min()
    }

    /// In how long [`Self::expire`] is to be called; `boot` as for [`Self::take`].
    pub fn expires_in(&self, boot: Duration) -> Option<Duration> {
        self.ready.values().map(|ready| ready.until.saturating_sub(boot)).min()
    }

    /// The next message, if one is due.
    pub fn next(&mut self, now: Duration) -> Option<CommandMessage> {
        // What has ended meanwhile, such as by a stop, is not ready any more.
        while let Some(id) = self.answers.pop_front() {
            if let Some(Ready { nonce, .. }) = self.ready.get(&id) {
                let (site, node, nonce) = (self.site.clone(), self.node.clone(), nonce.clone());
                return Some(CommandMessage::Ready(ExecReady { version: VERSION, site, node, id, nonce }));
            }
        }
        self.next_output(now).map(CommandMessage::Output)
    }

    fn next_output(&mut self, now: Duration) -> Option<ExecOutput> {
        let due = |(id, command): (&ExecId, &Command)| command.due().filter(|at| *at <= now).map(|_| id.clone());
        // In turn, so that a command that prints without pause does not hold up the others.
        let later = self.last.as_ref().and_then(|last| self.commands.iter().filter(|(id, _)| *id > last).find_map(due));
        let id = later.or_else(|| self.commands.iter().find_map(due))?;
        let command = self.commands.get_mut(&id)?;
        let pieces = command.spool.take(PIECE_LIMIT);
        // The end goes with the last output: it is the last message of the command.
        let end = command.end.take_if(|_| command.spool.held() == 0);
        let end = end.map(|(outcome, took)| ExecEnd {
            outcome,
            duration_ms: u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
            omitted: command.spool.omitted(),
        });
        let number = command.number;
        (command.number, command.pause) = (number + 1, now + PAUSE);
        if end.is_some() {
            self.commands.remove(&id);
        }
        self.last = Some(id.clone());
        Some(ExecOutput { version: VERSION, site: self.site.clone(), node: self.node.clone(), id, number, pieces, end })
    }

    /// Whether there is a connection: then commands wait until their output has been taken; else the middle of it is dropped. What waits
    /// for its go on a connection that has ended is refused: its go would be late.
    pub fn connected(&mut self, connected: bool) {
        self.refuse_ready(|_| true, || "the connection ended before the planner had it run".to_owned());
        self.commands.values().for_each(|command| command.spool.set_lossy(!connected));
    }

    /// The agent is shutting down: all commands get TERM, then KILL, and no more start.
    pub fn end(&mut self) {
        self.ending = true;
        self.refuse_ready(|_| true, || "the agent is shutting down".to_owned());
        self.commands.values().for_each(|command| command.stop.cancel());
    }

    /// Kills those that still run; their ends are not sent.
    pub fn kill(&mut self) {
        self.tasks.abort_all();
        self.commands.clear();
        self.ready.clear();
    }

    /// How many commands run.
    pub fn running(&self) -> usize {
        self.tasks.len()
    }

    /// Whether nothing is left to send.
    pub fn is_empty(&self) -> bool {
        self.commands.is_empty()
    }
}

impl Command {
    fn due(&self) -> Option<Duration> {
        match self.spool.held() {
            // The first message shows that it has started.
            _ if self.number == 0 || self.end.is_some() => Some(Duration::ZERO),
            0 => None,
            BATCH.. => Some(Duration::ZERO),
            _ => Some(self.pause),
        }
    }
}
