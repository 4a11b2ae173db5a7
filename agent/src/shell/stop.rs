//! Stopping: on a signal to stop, or when the process that started the agent has ended.

use std::time::Duration;

use super::{
    error::ShellError,
    limits::{CANCEL_LIMIT, SHUTDOWN_LIMIT},
    open::presence,
    run::sleep_until,
    state::Shell,
};
use crate::{
    log,
    machine::{self, Event, Write},
    transport::Signal,
};

impl Shell {
    /// The first signal lets running tasks end; the second does not wait for them.
    pub(super) async fn stop(&mut self) -> Result<(), ShellError> {
        if self.stop_at.is_some() {
            return self.cancel_jobs().await;
        }
        if self.host.is_going_down() {
            // The host itself is going down, because a task asked it to: that task does not end before the agent does.
            self.handle(Event::Stop).await?;
            return self.cancel_jobs().await;
        }
        log::info(format_args!("stopping; {} tasks are still running", self.jobs.len()));
        // Operators' commands are no part of a plan: they are not waited for.
        self.commands.end();
        self.stop_at = Some(self.clock.now().mono + self.config.stop_timeout);
        self.handle(Event::Stop).await
    }

    /// Ends running jobs. They are not reported: the next start finds them in the journal, like those that a crash interrupted.
    pub(super) async fn cancel_jobs(&mut self) -> Result<(), ShellError> {
        log::warn(format_args!("cancelling {} running tasks", self.jobs.len()));
        self.canceller.cancel();
        let (mut not_begun, mut aborted) = (Vec::new(), Vec::new());
        let ended = async {
            while let Some(ended) = self.jobs.join_next().await {
                match ended {
                    Ok((false, done)) => not_begun.push(done.task),
                    Ok((true, done)) => aborted.push(done),
                    Err(_) => {}
                }
            }
        };
        if tokio::time::timeout(CANCEL_LIMIT, ended).await.is_err() {
            self.jobs.abort_all();
        }
        // Their memory, such as how a task found things, exists nowhere else.
        for done in aborted {
            self.host.found_reported(&done.found);
            self.handle(Event::Aborted(Box::new(done))).await?;
        }
        // A job that waited for its turn has done nothing: its task counts as not started, whatever its `on_interrupt` is.
        if let Err(e) = self.journal.withdraw(self.machine.generation(), not_begun.iter()) {
            log::warn(format_args!("the journal of started tasks cannot be written: {e}"));
        }
        self.stopped = true;
        Ok(())
    }

    /// Syncs all that was written to the disk, so that the next start can trust it even if the host goes down now.
    pub(super) fn sync(&mut self) {
        let synced = self.journal.sync().map_err(|e| e.to_string());
        let recorded = synced.and_then(|()| {
            let writes = [Write::Boot(machine::SYNCED.to_owned())];
            self.ledger.write(&writes, true).map_err(|e| log::chain(&e))
        });
        if let Err(e) = recorded {
            log::warn(format_args!("the ledger and the journal could not be synced to the disk: {e}"));
        }
    }

    /// Waits until commands have ended and their ends are sent, before the node is published as offline. A further signal to stop
    /// kills them.
    pub(super) async fn end_commands(&mut self) {
        self.commands.end();
        let limit = Some(tokio::time::Instant::now() + CANCEL_LIMIT);
        loop {
            self.send_output();
            let sent = !self.outlet.is_up() || self.commands.is_empty() && self.outlet.has_delivered_output();
            if self.commands.running() == 0 && sent {
                return;
            }
            let now = self.clock.now().mono;
            tokio::select! {
                _ = self.commands.changed() => {}
                () = self.stop_signals.wait() => self.commands.kill(),
                () = sleep_until(limit) => return self.commands.kill(),
                signal = self.link.signal() => match signal {
                    Some(Signal::Sent(pkid)) => self.outlet.sent(pkid),
                    Some(Signal::Confirmed(pkid)) => self.outlet.confirmed(pkid, now),
                    Some(Signal::Down(_)) | None => {
                        self.outlet.down();
                        self.commands.connected(false);
                    }
                    // A new connection is of no use any more.
                    Some(Signal::Up { .. } | Signal::Received(_) | Signal::Subscribed { .. }) => {}
                },
            }
        }
    }

    /// Delivers what is stored, publishes that the node is offline, and disconnects.
    pub(super) async fn shut_down(&mut self) {
        if self.config.stop_processes_on_exit {
            self.host.stop_processes().await;
        } else {
            self.host.leave_processes();
        }
        let offline = presence(&self.config, self.machine.ledger(), None, None);
        self.outlet.presence(offline);
        let until = self.clock.instant(self.clock.now().mono + SHUTDOWN_LIMIT).into();
        let mut disconnecting = false;
        while self.outlet.is_up() {
            let now = self.clock.now().mono;
            self.outlet.pump(now);
            if let Err(e) = self.send_reports() {
                log::warn(log::chain(&e));
            }
            self.send_output();
            if !disconnecting && self.commands.is_empty() && self.outlet.is_empty() && self.cursor.next > self.cursor.to
            {
                disconnecting = true;
                self.outlet.disconnect();
            }
            let limit = if disconnecting {
                Some(tokio::time::Instant::now() + Duration::from_millis(200))
            } else {
                Some(until)
            };
            tokio::select! {
                signal = self.link.signal() => match signal {
                    Some(Signal::Sent(pkid)) => self.outlet.sent(pkid),
                    Some(Signal::Confirmed(pkid)) => self.outlet.confirmed(pkid, now),
                    Some(Signal::Up { .. } | Signal::Received(_) | Signal::Subscribed { .. }) => {}
                    Some(Signal::Down(_)) | None => return,
                },
                () = sleep_until(limit) => return,
            }
        }
    }
}
