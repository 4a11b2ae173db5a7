//! The keeper of one supervised process: starts it, waits for its end, starts it again.
//!
//! In: orders, and the end of the process. Out: its life, for whoever watches. A process leads a session of its own;
//! signals to end it go to its whole group, and whatever of the group outlives it is ended before the next start.
//! Processes that an earlier agent started are no children of ours: a pidfd tells when they end.

use std::{
    io,
    os::unix::process::ExitStatusExt,
    process::ExitStatus,
    time::{Duration, SystemTime},
};

use groundplan_protocol::{
    ids::TaskId,
    kinds::{self, Process},
};
use nix::{
    sys::{
        signal::{Signal, kill, killpg},
        wait::{WaitPidFlag, WaitStatus, waitpid},
    },
    unistd::Pid,
};
use tokio::{
    process::Child,
    sync::{mpsc, oneshot, watch},
    time::{Instant, sleep, sleep_until, timeout},
};

use super::{
    exec::status_text,
    journal::Journal,
    pidfd::PidFd,
    proc::group_runs,
    record::{ProcessIdentity, Record},
    spawn::{Program, Setup, not_started},
    supervisor::{Life, Shared, SupervisorError},
};

/// How often the log's size is looked at.
const TRIM: Duration = Duration::from_secs(30);

/// How often a group that was told to end is looked at, and how long one that got KILL may take to vanish.
const POLL: Duration = Duration::from_millis(20);
const KILL_LIMIT: Duration = Duration::from_secs(5);

type Reply<T> = oneshot::Sender<Result<T, SupervisorError>>;

/// What counts as started.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Terms {
    /// How long it must run.
    pub(crate) settle: Duration,
    /// Whether it is tried again when it fails.
    pub(crate) insist: bool,
}

/// What a keeper is told. Each is answered once it is done.
#[derive(Debug)]
pub(crate) enum Order {
    /// Start it as described, in place of what runs.
    Start { process: Process, terms: Terms, reply: Reply<()> },
    /// Take note of the description.
    Amend { process: Process, reply: Reply<()> },
    /// Signal it to read its configuration.
    Reload { reply: Reply<()> },
    /// Stop it and retire; whether it ran.
    Stop { reply: Reply<bool> },
}

/// The keeper.
pub(crate) struct Keeper {
    shared: Shared,
    task: TaskId,
    journal: Journal,
    orders: mpsc::UnboundedReceiver<Order>,
    state: watch::Sender<(Process, Life)>,
    process: Process,
    running: Option<Running>,
    /// When it is started again.
    retry: Option<Instant>,
    since: SystemTime,
    restarts: u32,
    /// How often in a row it ended before it was healthy.
    ends: u32,
}

/// A process that runs.
struct Running {
    identity: ProcessIdentity,
    waiter: Waiter,
    up: Instant,
    /// Length of the log at its start.
    log_from: u64,
}

/// How its end is learnt.
enum Waiter {
    Child(Child),
    Stranger(PidFd),
    /// On kernels without pidfd (before 5.3): by looking.
    Look,
}

/// What a keeper wakes for.
enum Event {
    Order(Order),
    Ended(Option<ExitStatus>),
    Retry,
    Trim,
    Retire,
}

impl Keeper {
    /// A keeper without a process yet.
    pub(crate) fn new(
        shared: Shared,
        task: TaskId,
        journal: Journal,
        orders: mpsc::UnboundedReceiver<Order>,
        process: Process,
    ) -> (Self, watch::Receiver<(Process, Life)>) {
        let down = Life::Down { why: "has not been started yet".to_owned() };
        let (state, watcher) = watch::channel((process.clone(), down));
        let keeper = Self {
            shared,
            task,
            journal,
            orders,
            state,
            process,
            running: None,
            retry: None,
            since: SystemTime::now(),
            restarts: 0,
            ends: 0,
        };
        (keeper, watcher)
    }

    /// A keeper of a process that runs already.
    pub(crate) fn adopt(
        shared: Shared,
        task: TaskId,
        journal: Journal,
        orders: mpsc::UnboundedReceiver<Order>,
        mut record: Record,
        identity: ProcessIdentity,
    ) -> (Self, watch::Receiver<(Process, Life)>) {
        let (mut keeper, watcher) = Self::new(shared, task, journal, orders, record.process.clone());
        keeper.since = SystemTime::UNIX_EPOCH + Duration::from_millis(record.since_ms);
        keeper.restarts = record.restarts;
        let waiter = PidFd::open(identity.pid()).map_or(Waiter::Look, Waiter::Stranger);
        keeper.running = Some(Running { identity, waiter, up: Instant::now(), log_from: u64::MAX });
        if record.identity.is_none() {
            record.identity = Some(identity);
            keeper.write(&record);
        }
        keeper.tell_up(identity.pid());
        (keeper, watcher)
    }

    /// Keeps the process until it is told to stop it, or until the supervisor is gone.
    pub(crate) async fn keep(mut self) {
        loop {
            let event = tokio::select! {
                order = self.orders.recv() => order.map_or(Event::Retire, Event::Order),
                status = ended(self.running.as_mut()) => Event::Ended(status),
                () = at(self.retry) => Event::Retry,
                () = sleep(TRIM), if self.running.is_some() => Event::Trim,
            };
            match event {
                Event::Retire => return,
                Event::Order(Order::Stop { reply }) => {
                    let stopped = self.stop().await;
                    let retire = stopped.is_ok();
                    let _ = reply.send(stopped);
                    if retire {
                        return;
                    }
                }
                Event::Order(order) => self.obey(order).await,
                Event::Ended(status) => {
                    if let Some(why) = self.clear(status).await {
                        self.retry_later(why);
                    }
                }
                Event::Retry => {
                    self.restarts += 1;
                    self.try_again();
                }
                Event::Trim => {
                    if let Err(e) = self.journal.trim() {
                        crate::log::warn(format_args!("{}: cannot cut its log: {e}", self.task));
                    }
                }
            }
        }
    }

    async fn obey(&mut self, order: Order) {
        // Whoever gave the order may have gone; it is carried out all the same.
        match order {
            Order::Start { process, terms, reply } => {
                let _ = reply.send(self.start_afresh(process, terms).await);
            }
            Order::Amend { process, reply } => {
                let _ = reply.send(self.amend(process));
            }
            Order::Reload { reply } => {
                let _ = reply.send(self.reload());
            }
            Order::Stop { reply } => {
                let _ = reply.send(self.stop().await);
            }
        }
    }

    async fn start_afresh(&mut self, process: Process, terms: Terms) -> Result<(), SupervisorError> {
        self.stop().await?;
        self.process = process;
        (self.since, self.restarts, self.ends) = (SystemTime::now(), 0, 0);
        let result = match self.start() {
            Ok(()) => match timeout(terms.settle, ended(self.running.as_mut())).await {
                Err(_) => return Ok(()),
                Ok(status) => Err(SupervisorError::Ended(self.clear(status).await.unwrap_or_default())),
            },
            Err(e) => Err(e),
        };
        if let (true, Err(e)) = (terms.insist, &result) {
            self.retry_later(crate::log::chain(e));
        }
        result
    }

    fn amend(&mut self, process: Process) -> Result<(), SupervisorError> {
        self.process = process.clone();
        if let Some(running) = &self.running {
            let mut record = self.shared.records.intent(process, millis(self.since), self.restarts);
            record.identity = Some(running.identity);
            self.try_write(&record)?;
            self.tell_up(running.identity.pid());
        }
        Ok(())
    }

    fn reload(&mut self) -> Result<(), SupervisorError> {
        let Some(running) = &self.running else {
            // It will read its configuration when it comes back, which may as well be now.
            self.retry = None;
            return self.start();
        };
        let pid = running.identity.pid();
        kill(pid, signal(self.process.reload_signal.unwrap_or_default())).map_err(|e| SupervisorError::Signal(pid, e))
    }

    /// Ends what runs; whether anything did.
    async fn stop(&mut self) -> Result<bool, SupervisorError> {
        self.retry = None;
        let Some(mut running) = self.running.take() else { return Ok(false) };
        let pid = running.identity.pid();
        let until = Instant::now() + Duration::from(self.process.stop_timeout());
        let _ = killpg(pid, Signal::SIGTERM);
        if timeout(until.saturating_duration_since(Instant::now()), running.end()).await.is_err() {
            let _ = killpg(pid, Signal::SIGKILL);
            if timeout(KILL_LIMIT, running.end()).await.is_err() {
                self.running = Some(running);
                return Err(SupervisorError::Unkillable(pid));
            }
        }
        clear_group(pid, until).await;
        self.tell_down("was stopped".to_owned());
        Ok(true)
    }

    /// Clears up after one that ended by itself; how it ended, with its last words.
    async fn clear(&mut self, status: Option<ExitStatus>) -> Option<String> {
        let running = self.running.take()?;
        let mut why = status.map_or_else(|| "ended".to_owned(), status_text);
        let last = self.journal.last_lines(running.log_from);
        self.journal.say(&why);
        if !last.is_empty() {
            why = format!("{why}: {last}");
        }
        if running.up.elapsed() >= self.shared.backoff.healthy {
            self.ends = 0;
        }
        self.tell_down(why.clone());
        clear_group(running.identity.pid(), Instant::now() + Duration::from(self.process.stop_timeout())).await;
        Some(why)
    }

    fn retry_later(&mut self, why: String) {
        self.ends = self.ends.saturating_add(1);
        let wait = self.shared.backoff.after(self.ends);
        self.retry = Some(Instant::now() + wait);
        let again = format!("started again in {:.1}s", wait.as_secs_f32());
        self.journal.say(&again);
        crate::log::warn(format_args!("{}: {why}; {again}", self.task));
        self.tell_down(why);
    }

    fn try_again(&mut self) {
        self.retry = None;
        if let Err(e) = self.start() {
            self.retry_later(format!("could not be started: {}", crate::log::chain(&e)));
        }
    }

    fn start(&mut self) -> Result<(), SupervisorError> {
        let mut record = self.shared.records.intent(self.process.clone(), millis(self.since), self.restarts);
        self.try_write(&record)?;
        let running = match self.spawn() {
            Ok(running) => running,
            Err(e) => {
                // Nothing runs; an intent left behind could be taken for whatever gets the same id one day.
                let forgotten = self.shared.records.forget(&self.task);
                return Err(forgotten.err().map_or(e, |e| self.state_error(e)));
            }
        };
        record.identity = Some(running.identity);
        // It runs and is known by its intent; a record that cannot be completed is no reason to end it.
        self.write(&record);
        self.tell_up(running.identity.pid());
        self.running = Some(running);
        Ok(())
    }

    fn spawn(&self) -> Result<Running, SupervisorError> {
        let state = |e| self.state_error(e);
        let (log, log_from) = self.journal.open().map_err(state)?;
        let Process { run, env, cwd, user, .. } = &self.process;
        let program = Program { run, env, cwd: cwd.as_deref(), user: user.as_deref() };
        let pid_file = Some(self.shared.records.pid_file(&self.task).map_err(state)?);
        let setup = Setup { session: true, pid_file, ..Setup::default() };
        let mut command = self.shared.surroundings.command(&program, setup)?;
        command.stdout(log.try_clone().map_err(state)?).stderr(log);
        let child = tokio::process::Command::from(command).spawn().map_err(|e| not_started(run, e))?;
        let pid = Pid::from_raw(child.id().and_then(|id| i32::try_from(id).ok()).unwrap_or_default());
        // A child that has ended already is still there to be looked at.
        let identity = ProcessIdentity::of(pid).ok_or(SupervisorError::Gone)?;
        Ok(Running { identity, waiter: Waiter::Child(child), up: Instant::now(), log_from })
    }

    fn tell_up(&self, pid: Pid) {
        let life = Life::Up { pid, since: self.since, restarts: self.restarts };
        self.state.send_replace((self.process.clone(), life));
    }

    fn tell_down(&self, why: String) {
        self.state.send_replace((self.process.clone(), Life::Down { why }));
    }

    fn try_write(&self, record: &Record) -> Result<(), SupervisorError> {
        self.shared.records.write(&self.task, record).map_err(|e| self.state_error(e))
    }

    fn state_error(&self, source: io::Error) -> SupervisorError {
        SupervisorError::State(self.task.clone(), source)
    }

    fn write(&self, record: &Record) {
        if let Err(e) = self.try_write(record) {
            crate::log::warn(format_args!("{}: {}", self.task, crate::log::chain(&e)));
        }
    }
}

impl Running {
    /// Returns once it has ended; how, if it can be known. May be dropped and called again.
    async fn end(&mut self) -> Option<ExitStatus> {
        match &mut self.waiter {
            Waiter::Child(child) => child.wait().await.ok(),
            Waiter::Stranger(pidfd) => {
                if pidfd.ended().await.is_err() {
                    self.look().await;
                }
                self.reap()
            }
            Waiter::Look => {
                self.look().await;
                self.reap()
            }
        }
    }

    async fn look(&self) {
        while self.identity.is_alive() {
            sleep(Duration::from_secs(1)).await;
        }
    }

    /// It may be a child of ours after all, when this agent replaced another one by exec.
    fn reap(&self) -> Option<ExitStatus> {
        match waitpid(self.identity.pid(), Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::Exited(_, code)) => Some(ExitStatus::from_raw(code << 8)),
            Ok(WaitStatus::Signaled(_, signal, _)) => Some(ExitStatus::from_raw(signal as i32)),
            _ => None,
        }
    }
}

async fn ended(running: Option<&mut Running>) -> Option<ExitStatus> {
    match running {
        Some(running) => running.end().await,
        None => std::future::pending().await,
    }
}

async fn at(instant: Option<Instant>) {
    match instant {
        Some(instant) => sleep_until(instant).await,
        None => std::future::pending().await,
    }
}

/// Ends what is left of the group of a leader that has ended: TERM, then KILL at `until`.
///
/// The id cannot pass to another group meanwhile: the kernel gives out none that a group still has.
async fn clear_group(group: Pid, until: Instant) {
    let mut told = false;
    while group_runs(group) {
        if Instant::now() >= until {
            let _ = killpg(group, Signal::SIGKILL);
            return;
        }
        if !told {
            let _ = killpg(group, Signal::SIGTERM);
            told = true;
        }
        sleep(POLL).await;
    }
}

fn signal(signal: kinds::Signal) -> Signal {
    match signal {
        kinds::Signal::Hup => Signal::SIGHUP,
        kinds::Signal::Int => Signal::SIGINT,
        kinds::Signal::Usr1 => Signal::SIGUSR1,
        kinds::Signal::Usr2 => Signal::SIGUSR2,
        kinds::Signal::Winch => Signal::SIGWINCH,
    }
}

fn millis(time: SystemTime) -> u64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
