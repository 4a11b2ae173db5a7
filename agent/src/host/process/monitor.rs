//! The monitor of one supervised process: starts it, waits for its end, starts it again.
//!
//! In: requests, and the end of the process. Out: its state, for all that watch it, and that it ends by itself, until it runs on. A
//! process leads a session of its own; signals to end it go to its whole group, and whatever of the group outlives it is ended before the
//! next start. A process that an earlier agent started is not a child of this one: its end is detected by a pidfd.

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
    log::ProcessLog,
    pidfd::PidFd,
    proc::{self, group_runs},
    record::{ProcessIdentity, Record},
    spawn::{Prepared, Program, Setup, not_started},
    state::{ProcessState, Shared, SupervisorError},
};

/// How often the size of the log is checked.
const TRIM: Duration = Duration::from_secs(30);

/// How often a group that got a signal to end is checked, and how long one that got KILL may take to vanish.
const POLL: Duration = Duration::from_millis(20);
const KILL_LIMIT: Duration = Duration::from_secs(5);

/// How long a process must run on after a signal to reload.
const RELOADED: Duration = Duration::from_millis(100);

type Reply<T> = oneshot::Sender<Result<T, SupervisorError>>;

/// What counts as a successful start.
#[derive(Debug, Clone, Copy)]
pub(crate) struct StartTerms {
    /// How long the process must run.
    pub(crate) settle: Duration,
    /// Whether it is started again, with back-off, when the first start fails.
    pub(crate) retry: bool,
}

/// What a reload came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Reloaded {
    /// The process runs on, and got the signal.
    Signalled,
    /// It was started again instead.
    Restarted { why: String },
}

/// A request to a monitor. Each is answered once it has been carried out.
#[derive(Debug)]
pub(crate) enum Request {
    /// Start the process as described, in place of the one that runs.
    Start { process: Process, terms: StartTerms, reply: Reply<()> },
    /// Take the new description without touching the process.
    Amend { process: Process, reply: Reply<()> },
    /// Signal the process to read its configuration.
    Reload { terms: StartTerms, reply: Reply<Reloaded> },
    /// Stop the process and end the monitor; answers whether it ran.
    Stop { reply: Reply<bool> },
}

/// The state of one monitor, which runs as a task of its own.
pub(crate) struct ProcessMonitor {
    shared: Shared,
    task: TaskId,
    log: ProcessLog,
    requests: mpsc::UnboundedReceiver<Request>,
    state: watch::Sender<(Process, ProcessState)>,
    process: Process,
    running: Option<Running>,
    /// When it is started again.
    retry: Option<Instant>,
    /// When it no longer counts as one that ends by itself.
    recovers: Option<Instant>,
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
    /// Length of the log at its start, so that only its own lines go into an error.
    log_from: u64,
}

/// How the end of a process is detected.
enum Waiter {
    Child(Child),
    /// Started by an earlier agent.
    Adopted(PidFd),
    /// Adopted on a kernel without pidfd (before 5.3).
    Poll,
}

/// What the monitor wakes up for.
enum Event {
    Request(Request),
    Ended(Option<ExitStatus>),
    Retry,
    Recovered,
    Trim,
    /// The supervisor was dropped.
    Retire,
}

impl ProcessMonitor {
    /// A monitor without a process yet, and its state to watch.
    pub(crate) fn new(
        shared: Shared,
        task: TaskId,
        log: ProcessLog,
        requests: mpsc::UnboundedReceiver<Request>,
        process: Process,
    ) -> (Self, watch::Receiver<(Process, ProcessState)>) {
        let down = ProcessState::Down { why: "has not been started yet".to_owned() };
        let (state, watcher) = watch::channel((process.clone(), down));
        let monitor = Self {
            shared,
            task,
            log,
            requests,
            state,
            process,
            running: None,
            retry: None,
            recovers: None,
            since: SystemTime::now(),
            restarts: 0,
            ends: 0,
        };
        (monitor, watcher)
    }

    /// A monitor of a process that runs already, and its state to watch.
    pub(crate) fn adopt(
        shared: Shared,
        task: TaskId,
        log: ProcessLog,
        requests: mpsc::UnboundedReceiver<Request>,
        mut record: Record,
        identity: ProcessIdentity,
    ) -> (Self, watch::Receiver<(Process, ProcessState)>) {
        let (mut monitor, watcher) = Self::new(shared, task, log, requests, record.process.clone());
        monitor.since = SystemTime::UNIX_EPOCH + Duration::from_millis(record.since_ms);
        monitor.restarts = record.restarts;
        let waiter = PidFd::open(identity.pid()).map_or(Waiter::Poll, Waiter::Adopted);
        // Nothing is known of how long its log was at the start: none of it is shown as its own.
        monitor.running = Some(Running { identity, waiter, up: Instant::now(), log_from: u64::MAX });
        if record.identity.is_none() {
            // The agent that started it was killed before it could complete the record.
            record.identity = Some(identity);
            monitor.write(&record);
        }
        monitor.set_up(identity.pid());
        (monitor, watcher)
    }

    /// Monitors the process until it is stopped by a request, or until the supervisor is dropped.
    pub(crate) async fn run(mut self) {
        loop {
            let event = tokio::select! {
                request = self.requests.recv() => request.map_or(Event::Retire, Event::Request),
                status = ended(self.running.as_mut()) => Event::Ended(status),
                () = at(self.retry) => Event::Retry,
                () = at(self.recovers) => Event::Recovered,
                () = sleep(TRIM), if self.running.is_some() => Event::Trim,
            };
            match event {
                // The process continues to run: the next supervisor adopts it by its record.
                Event::Retire => return,
                Event::Request(Request::Stop { reply }) => {
                    let stopped = self.stop().await;
                    let retire = stopped.is_ok();
                    let _ = reply.send(stopped);
                    if retire {
                        return;
                    }
                }
                Event::Request(request) => self.handle(request).await,
                Event::Ended(status) => {
                    if let Some(why) = self.clear(status).await {
                        self.retry_later(why);
                    }
                }
                Event::Retry => {
                    self.restarts += 1;
                    self.try_again();
                }
                Event::Recovered => {
                    self.recovers = None;
                    self.shared.health.works(&self.task);
                }
                Event::Trim => {
                    if let Err(e) = self.log.trim() {
                        crate::log::warn(format_args!("{}: cannot cut its log: {e}", self.task));
                    }
                }
            }
        }
    }

    async fn handle(&mut self, request: Request) {
        // The sender may have given up waiting; the request is carried out all the same.
        match request {
            Request::Start { process, terms, reply } => {
                let _ = reply.send(self.start_afresh(process, terms).await);
            }
            Request::Amend { process, reply } => {
                let _ = reply.send(self.amend(process));
            }
            Request::Reload { terms, reply } => {
                let _ = reply.send(self.reload(terms).await);
            }
            Request::Stop { reply } => {
                let _ = reply.send(self.stop().await);
            }
        }
    }

    async fn start_afresh(&mut self, process: Process, terms: StartTerms) -> Result<(), SupervisorError> {
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
        if let (true, Err(e)) = (terms.retry, &result) {
            self.retry_later(crate::log::chain(e));
        }
        result
    }

    fn amend(&mut self, process: Process) -> Result<(), SupervisorError> {
        self.process = process.clone();
        if let Some(running) = &self.running {
            // On the disk as well, or the next agent would adopt the process with the old description.
            let mut record = self.shared.records.intent(process, millis(self.since), self.restarts);
            record.identity = Some(running.identity);
            self.try_write(&record)?;
            self.set_up(running.identity.pid());
        }
        Ok(())
    }

    /// Signals the process. One that the signal would end, or that ends by it, is started again: it reads its configuration
    /// then, and what was asked for is done.
    async fn reload(&mut self, terms: StartTerms) -> Result<Reloaded, SupervisorError> {
        let signal = signal(self.process.reload_signal.unwrap_or_default());
        let why = match &self.running {
            None => "it did not run".to_owned(),
            Some(running) => {
                let pid = running.identity.pid();
                if proc::ends_by(pid, signal) {
                    format!("the program has no handler for {}, which would end it", signal.as_str())
                } else {
                    kill(pid, signal).map_err(|e| SupervisorError::Signal(pid, e))?;
                    match timeout(RELOADED, ended(self.running.as_mut())).await {
                        Err(_) => return Ok(Reloaded::Signalled),
                        Ok(status) => {
                            let why = self.clear(status).await.unwrap_or_default();
                            format!("at {}, it {why}", signal.as_str())
                        }
                    }
                }
            }
        };
        self.start_afresh(self.process.clone(), terms).await?;
        Ok(Reloaded::Restarted { why })
    }

    /// Ends the process and its group; whether it ran.
    async fn stop(&mut self) -> Result<bool, SupervisorError> {
        self.retry = None;
        self.recovers = None;
        self.shared.health.works(&self.task);
        let Some(mut running) = self.running.take() else { return Ok(false) };
        let pid = running.identity.pid();
        let until = Instant::now() + Duration::from(self.process.stop_timeout());
        let _ = killpg(pid, Signal::SIGTERM);
        if timeout(until.saturating_duration_since(Instant::now()), running.end()).await.is_err() {
            let _ = killpg(pid, Signal::SIGKILL);
            if timeout(KILL_LIMIT, running.end()).await.is_err() {
                // It hangs in the kernel. It is still monitored: a second one must not be started beside it.
                self.running = Some(running);
                return Err(SupervisorError::Unkillable(pid));
            }
        }
        // The rest of its group has what is left of the same time.
        clear_group(pid, until).await;
        self.set_down("was stopped".to_owned());
        Ok(true)
    }

    /// Cleans up after the process ended by itself; how it ended, with the last lines of its log.
    async fn clear(&mut self, status: Option<ExitStatus>) -> Option<String> {
        let running = self.running.take()?;
        self.recovers = None;
        let mut why = status.map_or_else(|| "ended".to_owned(), status_text);
        // Read before the monitor adds a line of its own.
        let last = self.log.last_lines(running.log_from);
        self.log.add(&why);
        if !last.is_empty() {
            why = format!("{why}: {last}");
        }
        if running.up.elapsed() >= self.shared.backoff.healthy {
            self.ends = 0;
        }
        // A job that waits for readiness learns of it at once, while the group may still take its time to end.
        self.set_down(why.clone());
        clear_group(running.identity.pid(), Instant::now() + Duration::from(self.process.stop_timeout())).await;
        Some(why)
    }

    fn retry_later(&mut self, why: String) {
        self.ends = self.ends.saturating_add(1);
        let wait = self.shared.backoff.after(self.ends);
        self.retry = Some(Instant::now() + wait);
        let again = format!("started again in {:.1}s", wait.as_secs_f32());
        self.log.add(&again);
        crate::log::warn(format_args!("{}: {why}; {again}", self.task));
        self.shared.health.fails(&self.task, &format!("the process {why}"));
        self.set_down(why);
    }

    fn try_again(&mut self) {
        self.retry = None;
        if let Err(e) = self.start() {
            self.retry_later(format!("could not be started: {}", crate::log::chain(&e)));
        }
    }

    fn start(&mut self) -> Result<(), SupervisorError> {
        // The intent is on the disk before the process exists: an agent that is killed in between finds it again.
        let mut record = self.shared.records.intent(self.process.clone(), millis(self.since), self.restarts);
        self.try_write(&record)?;
        let running = match self.spawn() {
            Ok(running) => running,
            Err(e) => {
                // Nothing runs; an intent left behind could be taken for whatever process gets the same id one day.
                let forgotten = self.shared.records.forget(&self.task);
                return Err(forgotten.err().map_or(e, |e| self.record_error(e)));
            }
        };
        record.identity = Some(running.identity);
        // It runs and can be found by its intent; a record that cannot be completed is not a reason to end it.
        self.write(&record);
        self.set_up(running.identity.pid());
        self.running = Some(running);
        self.recovers = Some(Instant::now() + self.recovery());
        Ok(())
    }

    /// How long it must run to be no longer reported as one that ends by itself: the longer, the more often it has done so in a row, or
    /// one that lives a little longer than it must would be reported as well and broken by turns.
    fn recovery(&self) -> Duration {
        let settle = Duration::from(self.process.settle());
        let factor = 1_u32.checked_shl(self.ends).unwrap_or(u32::MAX);
        settle.saturating_mul(factor).min(self.shared.backoff.healthy.max(settle))
    }

    fn spawn(&self) -> Result<Running, SupervisorError> {
        let failed = |e| self.record_error(e);
        let (log, log_from) = self.log.open().map_err(failed)?;
        let Process { run, env, cwd, user, .. } = &self.process;
        let program = Program { run, env, cwd: cwd.as_deref(), user: user.as_deref() };
        let pid_file = Some(self.shared.records.pid_file(&self.task).map_err(failed)?);
        let setup = Setup { session: true, pid_file, ..Setup::default() };
        let Prepared { mut command, dir: _dir } = self.shared.environment.command(&program, setup)?;
        command.stdout(log.try_clone().map_err(failed)?).stderr(log);
        let child = tokio::process::Command::from(command).spawn().map_err(|e| not_started(run, e))?;
        let pid = Pid::from_raw(child.id().and_then(|id| i32::try_from(id).ok()).unwrap_or_default());
        // /proc still has a child that has ended already: nothing has waited for it yet.
        let identity = ProcessIdentity::of(pid).ok_or(SupervisorError::NotSupervised)?;
        Ok(Running { identity, waiter: Waiter::Child(child), up: Instant::now(), log_from })
    }

    fn set_up(&self, pid: Pid) {
        let state = ProcessState::Up { pid, since: self.since, restarts: self.restarts };
        self.state.send_replace((self.process.clone(), state));
    }

    fn set_down(&self, why: String) {
        self.state.send_replace((self.process.clone(), ProcessState::Down { why }));
    }

    fn try_write(&self, record: &Record) -> Result<(), SupervisorError> {
        self.shared.records.write(&self.task, record).map_err(|e| self.record_error(e))
    }

    fn record_error(&self, source: io::Error) -> SupervisorError {
        SupervisorError::Record(self.task.clone(), source)
    }

    fn write(&self, record: &Record) {
        if let Err(e) = self.try_write(record) {
            crate::log::warn(format_args!("{}: {}", self.task, crate::log::chain(&e)));
        }
    }
}

impl Running {
    /// Returns once the process has ended; how, if that can be found out. May be dropped and called again.
    async fn end(&mut self) -> Option<ExitStatus> {
        match &mut self.waiter {
            Waiter::Child(child) => child.wait().await.ok(),
            Waiter::Adopted(pidfd) => {
                if pidfd.ended().await.is_err() {
                    self.poll().await;
                }
                self.reap()
            }
            Waiter::Poll => {
                self.poll().await;
                self.reap()
            }
        }
    }

    async fn poll(&self) {
        while self.identity.is_alive() {
            sleep(Duration::from_secs(1)).await;
        }
    }

    /// An adopted process may be a child after all, when this agent replaced another one by exec.
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
    let mut signalled = false;
    while group_runs(group) {
        if Instant::now() >= until {
            let _ = killpg(group, Signal::SIGKILL);
            return;
        }
        if !signalled {
            let _ = killpg(group, Signal::SIGTERM);
            signalled = true;
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
