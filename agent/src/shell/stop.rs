//! Coming to an end: on SIGTERM or SIGINT, or when whoever started the agent is gone.

use std::{io, os::fd::AsFd as _, time::Duration};

use tokio::{
    io::AsyncReadExt as _,
    net::unix::pipe,
    signal::unix::{Signal as Stream, SignalKind, signal},
};

use super::{CANCELLED, FAREWELL, Shell, ShellError, presence, sleep_until};
use crate::{
    log,
    machine::{self, Event, Write},
    transport::Signal,
};

/// The wishes to stop.
#[derive(Debug)]
pub struct Stops {
    terminate: Stream,
    interrupt: Stream,
    parent: Option<pipe::Receiver>,
}

impl Stops {
    /// Listens to SIGTERM and SIGINT, and with `parent` to the end of standard input, which must be a pipe then.
    pub fn listen(parent: bool) -> io::Result<Self> {
        let parent = match parent {
            true => Some(pipe::Receiver::from_owned_fd(io::stdin().as_fd().try_clone_to_owned()?)?),
            false => None,
        };
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())?, parent })
    }

    /// Returns when the next wish comes.
    pub async fn wait(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
            () = closed(&mut self.parent) => {}
        }
    }
}

/// Returns once when the pipe is closed; never if there is none.
async fn closed(parent: &mut Option<pipe::Receiver>) {
    let Some(pipe) = parent else { return std::future::pending().await };
    let mut buffer = [0; 64];
    while let Ok(1..) = pipe.read(&mut buffer).await {}
    *parent = None;
}

impl Shell {
    /// The first wish lets running tasks end; the second does not wait for them.
    pub(super) async fn stop(&mut self) -> Result<(), ShellError> {
        if self.stop_at.is_some() {
            return self.cancel_jobs().await;
        }
        if self.host.is_going_down() {
            // It is the host that stops us, because a task asked it to: that task does not end before.
            self.handle(Event::Stop).await?;
            return self.cancel_jobs().await;
        }
        log::info(format_args!("stopping; {} tasks still run", self.jobs.len()));
        // Nobody needs what they do for a plan.
        self.commands.end();
        self.stop_at = Some(self.clock.now().mono + self.config.stop_timeout);
        self.handle(Event::Stop).await
    }

    /// Ends what runs. It is not reported: the next start finds it in the journal, as it finds what a crash cut off.
    pub(super) async fn cancel_jobs(&mut self) -> Result<(), ShellError> {
        log::warn(format_args!("ending {} tasks that still run", self.jobs.len()));
        self.canceller.cancel();
        let (mut held_back, mut cut_off) = (Vec::new(), Vec::new());
        let ended = async {
            while let Some(ended) = self.jobs.join_next().await {
                match ended {
                    Ok((false, done)) => held_back.push(done.task),
                    Ok((true, done)) => cut_off.push(done),
                    Err(_) => {}
                }
            }
        };
        if tokio::time::timeout(CANCELLED, ended).await.is_err() {
            self.jobs.abort_all();
        }
        // How a task found things is known to nobody else.
        for done in cut_off {
            self.handle(Event::Aborted(Box::new(done))).await?;
        }
        // What waited for its turn has done nothing, whatever its policy says of what was cut off.
        if let Err(e) = self.journal.withdraw(self.machine.generation(), held_back.iter()) {
            log::warn(format_args!("the journal of started tasks cannot be written: {e}"));
        }
        self.stopped = true;
        Ok(())
    }

    /// Puts on the disk all that was written, so that the next start can trust it even if the host goes down now.
    pub(super) fn put_down(&mut self) {
        let synced = self.journal.sync().map_err(|e| e.to_string());
        let told = synced.and_then(|()| {
            let writes = [Write::Boot(machine::SYNCED.to_owned())];
            self.ledger.write(&writes, true).map_err(|e| log::chain(&e))
        });
        if let Err(e) = told {
            log::warn(format_args!("not all is on the disk: {e}"));
        }
    }

    /// Sees commands to their end, and tells it before the node is said to be offline. A further wish to stop does not wait for them.
    pub(super) async fn end_commands(&mut self) {
        self.commands.end();
        let limit = Some(tokio::time::Instant::now() + CANCELLED);
        loop {
            self.send_output();
            let told = !self.outlet.is_up() || self.commands.is_empty() && self.outlet.has_told_output();
            if self.commands.running() == 0 && told {
                return;
            }
            let now = self.clock.now().mono;
            tokio::select! {
                _ = self.commands.stirred() => {}
                () = self.stops.wait() => self.commands.kill(),
                () = sleep_until(limit) => return self.commands.kill(),
                signal = self.link.signal() => match signal {
                    Some(Signal::Sent(pkid)) => self.outlet.sent(pkid),
                    Some(Signal::Confirmed(pkid)) => self.outlet.confirmed(pkid, now),
                    Some(Signal::Down(_)) | None => {
                        self.outlet.down();
                        self.commands.connected(false);
                    }
                    // Too late for a new connection.
                    Some(Signal::Up { .. } | Signal::Received(_)) => {}
                },
            }
        }
    }

    /// Delivers what is stored, says that the node goes offline, and good-bye.
    pub(super) async fn farewell(&mut self) {
        if self.config.stop_processes_on_exit {
            self.host.stop_processes().await;
        } else {
            self.host.leave_processes();
        }
        let offline = presence(&self.config, self.machine.ledger(), None);
        self.outlet.presence(offline);
        let until = self.clock.instant(self.clock.now().mono + FAREWELL).into();
        let mut parting = false;
        while self.outlet.is_up() {
            let now = self.clock.now().mono;
            self.outlet.pump(now);
            if let Err(e) = self.send_reports() {
                log::warn(log::chain(&e));
            }
            self.send_output();
            if !parting && self.commands.is_empty() && self.outlet.is_empty() && self.pump.next > self.pump.to {
                parting = true;
                self.outlet.disconnect();
            }
            let limit =
                if parting { Some(tokio::time::Instant::now() + Duration::from_millis(200)) } else { Some(until) };
            tokio::select! {
                signal = self.link.signal() => match signal {
                    Some(Signal::Sent(pkid)) => self.outlet.sent(pkid),
                    Some(Signal::Confirmed(pkid)) => self.outlet.confirmed(pkid, now),
                    Some(Signal::Up { .. } | Signal::Received(_)) => {}
                    Some(Signal::Down(_)) | None => return,
                },
                () = sleep_until(limit) => return,
            }
        }
    }
}
