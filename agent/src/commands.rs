//! Commands of operators (`groundplan exec`): no part of any plan, and stored nowhere after the agent has stopped.
//!
//! In: orders for this agent, each for one connection; the time. Out: numbered messages with what the commands print and how they
//! end, at most one every `PAUSE` for each command unless there is much to send. An order for another connection is refused; one
//! that came before is ignored. While there is no connection commands continue, and their output waits in bounded memory. It
//! never touches what tasks run.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use groundplan_protocol::{
    VERSION,
    exec::{Exec, ExecEnd, ExecOutcome, ExecOutput, Order, PIECE_LIMIT, RunOrder},
    ids::{ExecId, NodeId, SessionId, SiteName},
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
    tasks: JoinSet<(ExecId, ExecOutcome, Duration)>,
    known: VecDeque<ExecId>,
    news: Arc<Notify>,
    /// The command whose output was sent last: the next one in order follows.
    last: Option<ExecId>,
    /// Whether the agent is shutting down.
    ending: bool,
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
            tasks: JoinSet::new(),
            known: VecDeque::new(),
            news: Arc::default(),
            last: None,
            ending: false,
        }
    }

    /// Takes an order; `session` is the id of the current connection.
    pub fn take(&mut self, exec: Exec, session: Option<&SessionId>, host: &Arc<Host>) {
        // The broker may deliver an order again, also after the command has ended.
        let known = self.known.contains(&exec.id);
        if !known {
            self.known.push_back(exec.id.clone());
            self.known.drain(..self.known.len().saturating_sub(KNOWN));
        }
        match exec.order {
            // A stop that comes before its command prevents the command: the id is known by then.
            Order::Stop => {
                if let Some(command) = self.commands.get(&exec.id) {
                    command.stop.cancel();
                }
            }
            Order::Run(_) if known => {}
            Order::Run(run) => match self.refusal(&run, session) {
                Some(reason) => self.refuse(exec.id, reason),
                None => self.start(exec.id, *run, host),
            },
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
        // Beyond that many, orders come from a fault or an attack, and get no answer.
        if self.commands.len() < MOST + MOST_REFUSED {
            let end = Some((ExecOutcome::Refused { reason }, Duration::ZERO));
            self.add(id, Arc::new(Spool::new(0, self.news.clone())), end);
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
        self.commands.values().filter_map(Command::due).min()
    }

    /// The next message, if one is due.
    pub fn next(&mut self, now: Duration) -> Option<ExecOutput> {
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

    /// Whether there is a connection: then commands wait until their output has been taken; else the middle of it is dropped.
    pub fn connected(&mut self, connected: bool) {
        self.commands.values().for_each(|command| command.spool.set_lossy(!connected));
    }

    /// The agent is shutting down: all commands get TERM, then KILL, and no more start.
    pub fn end(&mut self) {
        self.ending = true;
        self.commands.values().for_each(|command| command.stop.cancel());
    }

    /// Kills those that still run; their ends are not sent.
    pub fn kill(&mut self) {
        self.tasks.abort_all();
        self.commands.clear();
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
