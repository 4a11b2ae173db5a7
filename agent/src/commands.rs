//! Commands that somebody wants run now: no part of any plan, and remembered by nobody once the agent ends.
//!
//! In: orders for this agent, each for one connection; the time. Out: numbered words on what the commands print and how they end,
//! at most one every `PAUSE` for each command unless there is much to tell. An order for another connection is refused; one that
//! is known already is nothing new. While the connection is away commands go on, and their words wait in bounded memory.
//! Never touches what tasks run.

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
    host::{BATCH, Host, Spool, job::Canceller},
    log,
};

/// Most commands at a time.
const MOST: usize = 8;
/// Most that wait to be told that they were refused, beside those.
const MOST_TOLD: usize = 64;
/// How many orders are remembered, so that none is carried out twice.
const KNOWN: usize = 1024;
/// How long to gather small output before it is sent.
const PAUSE: Duration = Duration::from_millis(100);

/// See the module.
#[derive(Debug)]
pub struct Commands {
    site: SiteName,
    node: NodeId,
    /// Until their end has been handed over.
    commands: BTreeMap<ExecId, Command>,
    tasks: JoinSet<(ExecId, ExecOutcome, Duration)>,
    known: VecDeque<ExecId>,
    news: Arc<Notify>,
    /// Whose turn it is to be sent next: the one after this.
    last: Option<ExecId>,
    /// The agent is about to end.
    ending: bool,
}

#[derive(Debug)]
struct Command {
    spool: Arc<Spool>,
    stop: Canceller,
    /// The number of its next word.
    number: u64,
    /// When small output may be sent again.
    pause: Duration,
    end: Option<(ExecOutcome, Duration)>,
}

impl Commands {
    /// None yet.
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

    /// Takes an order; `session` is the connection there is.
    pub fn take(&mut self, exec: Exec, session: Option<&SessionId>, host: &Arc<Host>) {
        let known = self.known.contains(&exec.id);
        if !known {
            self.known.push_back(exec.id.clone());
            self.known.drain(..self.known.len().saturating_sub(KNOWN));
        }
        match exec.order {
            // One that comes before what it is to stop holds for that, too: then the order is known.
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
            return Some("the agent is about to end".to_owned());
        }
        let full = self.tasks.len() >= MOST;
        full.then(|| format!("{MOST} commands run on this node already; wait for one of them, or stop it"))
    }

    fn refuse(&mut self, id: ExecId, reason: String) {
        log::info(format_args!("command {id} is refused: {reason}"));
        // Nobody asks so much; whoever does has no answer.
        if self.commands.len() < MOST + MOST_TOLD {
            let end = Some((ExecOutcome::Refused { reason }, Duration::ZERO));
            self.add(id, Arc::new(Spool::new(0, self.news.clone())), end);
        }
    }

    fn start(&mut self, id: ExecId, run: RunOrder, host: &Arc<Host>) {
        // Not what it is: that may hold what a journal is not for.
        log::info(format_args!("command {id} begins"));
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

    /// Returns when there is more to tell.
    ///
    /// # Errors
    /// A fault of this program.
    pub async fn stirred(&mut self) -> Result<(), JoinError> {
        let (id, outcome, took) = tokio::select! {
            () = self.news.notified() => return Ok(()),
            Some(ended) = self.tasks.join_next() => ended?,
        };
        let outcome = match outcome {
            ExecOutcome::Stopped if self.ending => {
                ExecOutcome::Failed { error: "it was ended, because the agent ends".to_owned() }
            }
            outcome => outcome,
        };
        log::info(format_args!("command {id}: {outcome}"));
        if let Some(command) = self.commands.get_mut(&id) {
            command.end = Some((outcome, took));
        }
        Ok(())
    }

    /// When there is something to tell, by the monotonic clock.
    pub fn due(&self) -> Option<Duration> {
        self.commands.values().filter_map(Command::due).min()
    }

    /// The next word, if one is due.
    pub fn next(&mut self, now: Duration) -> Option<ExecOutput> {
        let due = |(id, command): (&ExecId, &Command)| command.due().filter(|at| *at <= now).map(|_| id.clone());
        let later = self.last.as_ref().and_then(|last| self.commands.iter().filter(|(id, _)| *id > last).find_map(due));
        let id = later.or_else(|| self.commands.iter().find_map(due))?;
        let command = self.commands.get_mut(&id)?;
        let pieces = command.spool.take(PIECE_LIMIT);
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

    /// The connection is there, or gone: whether commands are to wait until their output has been taken.
    pub fn connected(&mut self, connected: bool) {
        self.commands.values().for_each(|command| command.spool.set_lossy(!connected));
    }

    /// The agent is about to end: all get TERM, then KILL, and no more begin.
    pub fn end(&mut self) {
        self.ending = true;
        self.commands.values().for_each(|command| command.stop.cancel());
    }

    /// Ends at once those that still run; their ends are not told.
    pub fn kill(&mut self) {
        self.tasks.abort_all();
        self.commands.clear();
    }

    /// How many run.
    pub fn running(&self) -> usize {
        self.tasks.len()
    }

    /// Whether nothing is left to tell.
    pub fn is_empty(&self) -> bool {
        self.commands.is_empty()
    }
}

impl Command {
    fn due(&self) -> Option<Duration> {
        match self.spool.held() {
            // The first word says that it has begun.
            _ if self.number == 0 || self.end.is_some() => Some(Duration::ZERO),
            0 => None,
            BATCH.. => Some(Duration::ZERO),
            _ => Some(self.pause),
        }
    }
}
