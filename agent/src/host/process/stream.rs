//! Runs an operator's command, and passes on its output as it comes, standard output and standard error apart.
//!
//! As `exec` runs programs of tasks: a process group of its own, TERM when time is up or it is stopped, KILL after a grace period.
//! It needs no turn among jobs, blocks none, and is killed with the agent. While its output is not taken it is not read, and the
//! command blocks on its pipe, within its time limit.

use std::{io, process::ExitStatus, time::Duration};

use groundplan_protocol::exec::{ExecOutcome, RunOrder, Stream, TIMEOUT_MAX};
use nix::sys::signal::Signal;
use std::os::unix::process::ExitStatusExt as _;
use tokio::{
    net::unix::pipe::Receiver,
    time::{Instant, timeout_at},
};

use super::{
    exec::{ExecError, LINGER, Limit, Running, named, readable, start},
    spawn::{Environment, Program, Setup},
    spool::Spool,
};
use crate::host::{cancel::Cancel, shared::Host};

/// Most that is read after a command has ended and `LINGER` is over: what its pipes may hold.
const REST: usize = 256 * 1024;

impl Host {
    /// Runs the command to its end, with its output into `spool`; returns how it ended and how long it ran.
    pub async fn exec(&self, order: &RunOrder, stop: &Cancel, spool: &Spool) -> (ExecOutcome, Duration) {
        if self.is_going_down() {
            return (ExecOutcome::Refused { reason: "the host is going down".to_owned() }, Duration::ZERO);
        }
        let RunOrder { run, user, cwd, env, .. } = order;
        let program = Program { run, env, cwd: cwd.as_deref(), user: user.as_deref() };
        let limit = Limit::of(Duration::from(order.timeout).min(TIMEOUT_MAX.into()));
        let begun = Instant::now();
        let (end, ended) = stream(&self.environment, &program, limit, self.stop_grace, stop, spool).await;
        spool.close();
        (outcome(end), ended - begun)
    }
}

fn outcome(end: Result<ExitStatus, ExecError>) -> ExecOutcome {
    match end {
        Ok(status) => match (status.code(), status.signal()) {
            (Some(code), _) => ExecOutcome::Exited { code },
            (None, signal) => {
                let number = signal.unwrap_or_default();
                let name = Signal::try_from(number).map(|signal| signal.to_string());
                ExecOutcome::Killed { signal: name.unwrap_or_else(|_| number.to_string()) }
            }
        },
        Err(ExecError::Timeout { .. }) => ExecOutcome::TimedOut,
        Err(ExecError::Cancelled { .. }) => ExecOutcome::Stopped,
        Err(error) => ExecOutcome::Failed { error: crate::log::chain(&error) },
    }
}

/// How the program ended, and when; passing on its output may take longer.
async fn stream(
    environment: &Environment,
    program: &Program<'_>,
    limit: Limit,
    grace: Duration,
    stop: &Cancel,
    spool: &Spool,
) -> (Result<ExitStatus, ExecError>, Instant) {
    let piped = io::pipe().and_then(|(reader, writer)| Ok((Receiver::from_owned_fd(reader.into())?, writer)));
    let (out, writer) = match piped {
        Ok(piped) => piped,
        Err(source) => return (Err(ExecError::Io { run: named(program.run), source }), Instant::now()),
    };
    let setup = Setup { with_agent: true, ..Setup::default() };
    let (err, child) = match start(environment, program, None, Some(writer.into()), setup) {
        Ok(started) => started,
        Err(e) => return (Err(e.into()), Instant::now()),
    };
    let mut pipes = Pipes { out: Some(out), err: Some(err) };
    let end = {
        // Both at once: a command whose output is not read would block on its pipe, and never end.
        let mut running = std::pin::pin!(Running::new(child, None).follow(program.run, limit, grace, stop));
        loop {
            tokio::select! {
                ran = &mut running => break ran.end,
                _ = pipes.pass_on(spool), if pipes.are_open() => {}
            }
        }
    };
    let ended = Instant::now();
    // Processes that it left running may keep the pipes open.
    // A pipe that is still open after `LINGER` is read no further than what it may have held when the command ended.
    let mut rest = REST;
    while pipes.are_open() {
        spool.room().await;
        let Ok(read) = timeout_at(ended + LINGER, pipes.pass_on(spool)).await else { break };
        if Instant::now() > ended + LINGER {
            rest = rest.saturating_sub(read);
            if rest == 0 {
                break;
            }
        }
    }
    (end, ended)
}

/// The read ends of a command's output.
struct Pipes {
    out: Option<Receiver>,
    err: Option<Receiver>,
}

impl Pipes {
    /// Whether any of them is still open.
    fn are_open(&self) -> bool {
        self.out.is_some() || self.err.is_some()
    }

    /// Reads a piece, once the spool has room; returns its length. May be dropped while it waits.
    async fn pass_on(&mut self, spool: &Spool) -> usize {
        spool.room().await;
        let (stream, ready) = tokio::select! {
            ready = readable(&self.out) => (Stream::Out, ready),
            ready = readable(&self.err) => (Stream::Err, ready),
        };
        let pipe = match stream {
            Stream::Out => &mut self.out,
            Stream::Err => &mut self.err,
        };
        let mut buffer = [0; 8192];
        match ready.and_then(|()| pipe.as_ref().map_or(Ok(0), |pipe| pipe.try_read(&mut buffer))) {
            Ok(n) if n > 0 => {
                spool.push(stream, &buffer[..n]);
                n
            }
            Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => 0,
            Ok(_) | Err(_) => {
                *pipe = None;
                0
            }
        }
    }
}
