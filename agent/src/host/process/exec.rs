//! Runs a program to its end: in a process group of its own, its output captured, its time limited.
//!
//! Standard output and standard error go through one pipe, interleaved as they come, into bounded memory. When time is up or
//! the job is cancelled, the whole group gets TERM and, after a grace period, KILL. When the program ends by itself, processes that
//! it left in its group, such as a daemon, continue to run, and their end of the pipe is not waited for: only output within
//! `LINGER` after the end is captured. No thread, no signal handler: a pidfd and a pipe.

use std::{
    fs::File,
    io,
    os::{fd::OwnedFd, unix::process::ExitStatusExt},
    process::ExitStatus,
    time::Duration,
};

use groundplan_protocol::{kinds::Run, report::Output};
use nix::{
    sys::signal::{Signal, killpg},
    unistd::Pid,
};
use tokio::{
    io::AsyncReadExt,
    net::unix::pipe::Receiver,
    process::Child,
    time::{Instant, sleep_until, timeout},
};

use super::{
    capture::{Capture, last_lines},
    proc::group_runs,
    spawn::{Environment, Prepared, Program, Setup, SpawnError, not_started},
};
use crate::host::cancel::Cancel;

/// How long output of processes that a program left running is awaited after its own end.
pub(super) const LINGER: Duration = Duration::from_millis(200);

/// How often a group that got TERM is checked, and how long one that got KILL may take to vanish.
const POLL: Duration = Duration::from_millis(20);
const KILL_LIMIT: Duration = Duration::from_secs(5);

/// Why a program did not end successfully by itself.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ExecError {
    #[error(transparent)]
    Spawn(#[from] SpawnError),
    #[error("{run} took longer than {}, and was ended", seconds(*limit))]
    Timeout { run: String, limit: Duration },
    #[error("{run} was ended, because the agent is stopping or the job was cancelled")]
    Cancelled { run: String },
    #[error("{run} wrote more than {most} bytes, and was ended")]
    TooMuchOutput { run: String, most: usize },
    #[error("{run} does not end, not even by KILL")]
    Unkillable { run: String },
    #[error("{run} {}", ending(*status, last))]
    Status { run: String, status: ExitStatus, last: String },
    #[error("cannot follow {run}")]
    Io { run: String, source: io::Error },
}

impl ExecError {
    /// The same about what is called `name`.
    pub(crate) fn about(mut self, name: String) -> Self {
        match &mut self {
            Self::Spawn(_) => {}
            Self::Timeout { run, .. }
            | Self::Cancelled { run }
            | Self::TooMuchOutput { run, .. }
            | Self::Unkillable { run }
            | Self::Status { run, .. }
            | Self::Io { run, .. } => *run = name,
        }
        self
    }
}

/// A time limit, and its whole length for messages.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limit {
    pub(crate) until: Instant,
    pub(crate) whole: Duration,
}

impl Limit {
    /// A limit of `whole` from now.
    pub(crate) fn of(whole: Duration) -> Self {
        Self { until: Instant::now() + whole, whole }
    }
}

/// How a program ended, and what it printed.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) end: Result<ExitStatus, ExecError>,
    pub(crate) output: Option<Output>,
}

impl Ran {
    fn failed(error: impl Into<ExecError>) -> Self {
        Self { end: Err(error.into()), output: None }
    }

    /// The end, with any exit status but 0 as an error.
    pub(crate) fn success(self, run: &Run) -> (Result<(), ExecError>, Option<Output>) {
        let end = self.end.and_then(|status| {
            let last = self.output.as_ref().map(last_lines).unwrap_or_default();
            if status.success() { Ok(()) } else { Err(ExecError::Status { run: named(run), status, last }) }
        });
        (end, self.output)
    }
}

/// Runs `program` to its end.
pub(crate) async fn run(
    environment: &Environment,
    program: &Program<'_>,
    limit: Limit,
    grace: Duration,
    cancel: &Cancel,
) -> Ran {
    match start(environment, program, None, None, Setup::default()) {
        Ok((reader, child)) => Running::new(child, Some(reader)).follow(program.run, limit, grace, cancel).await,
        Err(e) => Ran::failed(e),
    }
}

/// How standard output is read apart from standard error.
#[derive(Debug)]
pub(crate) struct Apart {
    /// The program's standard input.
    pub(crate) stdin: Option<File>,
    /// How many bytes of standard output are kept; and one more, if there is more.
    pub(crate) most: usize,
    /// Whether more than that ends the program; otherwise the rest is read and dropped.
    pub(crate) ends: bool,
}

/// As [`run`], with standard output read apart as bytes. A flood of output takes no memory and does not block the program.
pub(crate) async fn run_apart(
    environment: &Environment,
    program: &Program<'_>,
    Apart { stdin, most, ends }: Apart,
    limit: Limit,
    grace: Duration,
    cancel: &Cancel,
) -> (Ran, Vec<u8>) {
    let mut kept = Vec::new();
    let failed = |source| Ran::failed(ExecError::Io { run: named(program.run), source });
    let piped = io::pipe().and_then(|(reader, writer)| Ok((Receiver::from_owned_fd(reader.into())?, writer)));
    let (mut stdout, writer) = match piped {
        Ok(piped) => piped,
        Err(e) => return (failed(e), kept),
    };
    let (reader, child) = match start(environment, program, stdin, Some(writer.into()), Setup::default()) {
        Ok(started) => started,
        Err(e) => return (Ran::failed(e), kept),
    };
    let (ran, end) = {
        let mut running = std::pin::pin!(Running::new(child, Some(reader)).follow(program.run, limit, grace, cancel));
        let mut reading = std::pin::pin!(gather(&mut stdout, &mut kept, most, ends));
        tokio::select! {
            // What is still in the pipe belongs to the output; a process that was left running does not prolong the reading.
            ran = &mut running => (ran, timeout(LINGER, reading).await.unwrap_or(Ok(false))),
            end = &mut reading => match end {
                // Its group gets KILL when `running` is dropped.
                Ok(true) => (Ran { end: Err(ExecError::TooMuchOutput { run: named(program.run), most }), output: None }, Ok(true)),
                end => (running.await, end),
            },
        }
    };
    match end {
        Ok(_) => (ran, kept),
        Err(e) => (failed(e), kept),
    }
}

/// Reads to the end and keeps `most` bytes and one more; with `ends`, reads no further than that. Whether it stopped there.
async fn gather(reader: &mut Receiver, kept: &mut Vec<u8>, most: usize, ends: bool) -> io::Result<bool> {
    let mut buffer = [0; 4096];
    loop {
        let n = reader.read(&mut buffer).await?;
        if n == 0 {
            return Ok(false);
        }
        let room = most.saturating_add(1).saturating_sub(kept.len());
        kept.extend_from_slice(&buffer[..n.min(room)]);
        if ends && kept.len() > most {
            return Ok(true);
        }
    }
}

/// Starts `program`. Standard error goes to the returned pipe, and so does standard output unless `stdout` is given.
pub(super) fn start(
    environment: &Environment,
    program: &Program<'_>,
    stdin: Option<File>,
    stdout: Option<OwnedFd>,
    setup: Setup,
) -> Result<(Receiver, Child), SpawnError> {
    let failed = |e| not_started(program.run, e);
    let Prepared { mut command, dir: _dir } = environment.command(program, setup)?;
    let (reader, writer) = io::pipe().map_err(failed)?;
    match stdout {
        Some(stdout) => command.stdout(stdout),
        None => command.stdout(writer.try_clone().map_err(failed)?),
    };
    command.stderr(writer);
    if let Some(stdin) = stdin {
        command.stdin(stdin);
    }
    let reader = Receiver::from_owned_fd(reader.into()).map_err(failed)?;
    // The command holds the agent's copies of the pipe's other end; once it is dropped, only the program has it.
    let child = tokio::process::Command::from(command).spawn().map_err(failed)?;
    Ok((reader, child))
}

/// What is being waited for.
#[derive(Debug, Clone, Copy)]
enum Phase {
    /// The end of the program, until the limit.
    Running,
    /// The last of its output: it has ended.
    Draining,
    /// The end of its group, which got TERM.
    Ending { kill: Instant, cancelled: bool },
    /// The end of its group, which got KILL.
    Killed { until: Instant, cancelled: bool },
}

/// A program that runs.
pub(super) struct Running {
    child: Child,
    group: Group,
    /// Where its output is captured from; `None` if the caller reads it.
    reader: Option<Receiver>,
    capture: Capture,
    /// Whether any process still holds the other end of the pipe.
    open: bool,
    status: Option<ExitStatus>,
}

impl Running {
    /// A program that has just been started.
    pub(super) fn new(child: Child, reader: Option<Receiver>) -> Self {
        let group = Group(child.id().and_then(|id| i32::try_from(id).ok()).map(Pid::from_raw));
        let open = reader.is_some();
        Self { child, group, reader, capture: Capture::default(), open, status: None }
    }

    /// Waits for its end, and ends it at the limit. Dropped before that, its group gets KILL.
    pub(super) async fn follow(mut self, run: &Run, limit: Limit, grace: Duration, cancel: &Cancel) -> Ran {
        let end = self.wait_for_end(run, limit, grace, cancel).await;
        if self.status.is_some() {
            // It ended by itself, or its whole group has ended: no KILL on drop.
            self.group.0 = None;
        }
        Ran { end, output: self.capture.finish() }
    }

    async fn wait_for_end(
        &mut self,
        run: &Run,
        limit: Limit,
        grace: Duration,
        cancel: &Cancel,
    ) -> Result<ExitStatus, ExecError> {
        let (mut phase, mut wake) = (Phase::Running, limit.until);
        let mut buffer = [0; 4096];
        let mut cancelled = std::pin::pin!(cancel.cancelled());
        let mut alarm = std::pin::pin!(sleep_until(limit.until));
        loop {
            // Both are needed: the status alone may come before the last output is read.
            if let (Phase::Running | Phase::Draining, Some(status), false) = (phase, self.status, self.open) {
                return Ok(status);
            }
            if alarm.deadline() != wake {
                alarm.as_mut().reset(wake);
            }
            let now = Instant::now();
            tokio::select! {
                // In this order, so that endless output cannot keep the cancellation or the alarm from being handled.
                biased;
                () = &mut cancelled, if matches!(phase, Phase::Running) => {
                    self.group.signal(Signal::SIGTERM);
                    (phase, wake) = (Phase::Ending { kill: now + grace, cancelled: true }, now);
                }
                () = &mut alarm => match phase {
                    Phase::Running => {
                        self.group.signal(Signal::SIGTERM);
                        (phase, wake) = (Phase::Ending { kill: wake + grace, cancelled: false }, wake + POLL);
                    }
                    // A process that the program left running holds the pipe: do not wait for that one.
                    Phase::Draining => self.open = false,
                    // The whole group, not only the program: a child that goes on would interfere with the next attempt.
                    Phase::Ending { cancelled, .. } | Phase::Killed { cancelled, .. } if self.has_ended() => {
                        let run = named(run);
                        return Err(match cancelled {
                            true => ExecError::Cancelled { run },
                            false => ExecError::Timeout { run, limit: limit.whole },
                        });
                    }
                    Phase::Ending { kill, cancelled } if wake >= kill => {
                        self.group.signal(Signal::SIGKILL);
                        (phase, wake) = (Phase::Killed { until: wake + KILL_LIMIT, cancelled }, wake + POLL);
                    }
                    // For example in an uninterruptible system call on a network file system.
                    Phase::Killed { until, .. } if wake >= until => {
                        return Err(ExecError::Unkillable { run: named(run) });
                    }
                    Phase::Ending { .. } | Phase::Killed { .. } => wake = Instant::now() + POLL,
                },
                ready = readable(&self.reader), if self.open => self.read(ready, &mut buffer),
                status = self.child.wait(), if self.status.is_none() => {
                    let status = status.map_err(|source| ExecError::Io { run: named(run), source })?;
                    self.status = Some(status);
                    // Not while the group is being ended: the limit applies to all of it.
                    if matches!(phase, Phase::Running) {
                        (phase, wake) = (Phase::Draining, Instant::now() + LINGER);
                    }
                }
            }
        }
    }

    /// Whether neither the program nor its group runs any more.
    fn has_ended(&self) -> bool {
        self.status.is_some() && self.group.is_empty()
    }

    /// Reads one piece; the loop comes back for more, so that a flood of output delays neither the limit nor other jobs.
    fn read(&mut self, ready: io::Result<()>, buffer: &mut [u8]) {
        match ready.and_then(|()| self.reader.as_ref().map_or(Ok(0), |reader| reader.try_read(buffer))) {
            Ok(0) => self.open = false,
            Ok(n) => self.capture.push(&buffer[..n]),
            Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {}
            Err(_) => self.open = false,
        }
    }
}

pub(super) async fn readable(pipe: &Option<Receiver>) -> io::Result<()> {
    match pipe {
        Some(pipe) => pipe.readable().await,
        None => std::future::pending().await,
    }
}

/// A process group; one that is dropped before it has ended gets KILL.
struct Group(Option<Pid>);

impl Group {
    fn signal(&self, signal: Signal) {
        if let Some(group) = self.0 {
            // It may have ended meanwhile.
            let _ = killpg(group, signal);
        }
    }

    fn is_empty(&self) -> bool {
        self.0.is_none_or(|group| !group_runs(group))
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.signal(Signal::SIGKILL);
    }
}

/// `run` in an error: without a shell line or arguments, which may hold what parameters keep secret.
pub(crate) fn named(run: &Run) -> String {
    match run {
        Run::Shell(_) => "the command".to_owned(),
        Run::Args(args) => format!("`{}`", args.first().map_or("", String::as_str)),
    }
}

/// `run` with its arguments, for programs that the agent itself chooses.
pub(crate) fn shorten(run: &Run) -> String {
    const MOST: usize = 80;
    let text = run.to_string();
    let line = text.lines().next().unwrap_or_default();
    if line.len() == text.len() && text.chars().count() <= MOST {
        return text;
    }
    line.chars().take(MOST).chain(['…']).collect()
}

/// How a program ended, for people: `exited with 3` or `was killed by SIGSEGV`.
pub(crate) fn status_text(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exited with {code}"),
        (None, Some(signal)) => match Signal::try_from(signal) {
            Ok(signal) => format!("was killed by {signal}"),
            Err(_) => format!("was killed by signal {signal}"),
        },
        (None, None) => "ended".to_owned(),
    }
}

fn ending(status: ExitStatus, last: &str) -> String {
    let status = status_text(status);
    if last.is_empty() { status } else { format!("{status}: {last}") }
}

fn seconds(span: Duration) -> String {
    groundplan_protocol::duration::Span::millis(u64::try_from(span.as_millis()).unwrap_or(u64::MAX)).to_string()
}
