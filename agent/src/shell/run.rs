//! The loop: waits for one thing to happen, and handles it.

use std::{fs, time::Duration};

use groundplan_protocol::{
    digest::Digest,
    ids::Generation,
    plan::{PlanBody, PlanOffer, PlanText},
};

use super::{
    catch_up::Offered,
    error::ShellError,
    open::{new_nonce, new_session, presence},
    state::Shell,
};
use crate::{
    blobs::BlobEvent,
    log,
    machine::Event,
    transport::{Inbound, Signal},
};

impl Shell {
    /// Runs the agent until it is signalled to stop.
    pub async fn run(mut self) -> Result<(), ShellError> {
        for filter in self.topics.subscribe.clone() {
            self.outlet.subscribe(filter);
        }
        log::info(format_args!(
            "node {} of site {} at generation {}; ledger {}",
            self.config.node,
            self.config.site,
            self.machine.generation(),
            self.machine.ledger()
        ));
        // No planner has ever accepted it: its key may have to be given to one.
        if self.machine.generation() == Generation(0) {
            let (node, key) = (&self.config.node, self.config.key.public());
            log::info(format_args!(
                "no plan has come yet; if the planner does not know this node's key: groundplan trust {node} {key}"
            ));
        }
        while !self.stopped {
            self.step().await?;
        }
        // The order matters: first everything durable, then commands and checks, which may still report, then the connection.
        self.sync();
        self.end_commands().await;
        self.drift.end().await;
        self.shut_down().await;
        Ok(())
    }

    /// Waits for one thing to happen, and handles it.
    async fn step(&mut self) -> Result<(), ShellError> {
        let now = self.clock.now().mono;
        if self.outlet.stalls_at().is_some_and(|at| at <= now) {
            log::warn("the broker has stopped answering; reconnecting");
            // TCP may take many minutes to notice a peer that vanished.
            self.link.restart();
            self.disconnected().await?;
        }
        if self.stop_at.is_some_and(|at| at <= now) {
            return self.cancel_jobs().await;
        }
        if let Some((event, publish)) = self.catch_up.due(now) {
            self.handle(event).await?;
            self.acknowledge(publish);
        }
        // Before it waits, all that the last event made possible: each of these does nothing if there is nothing to do.
        self.request_chunks().await?;
        self.check_drift();
        self.check_units();
        if self.freshness.falls_silent(now) {
            log::warn(self.freshness.trouble().unwrap_or_default());
            self.publish_presence();
        }
        self.outlet.pump(now);
        self.send_reports()?;
        self.send_output();
        let due = [
            self.machine.deadline(),
            self.outlet.stalls_at(),
            self.stop_at,
            self.chunks_due(),
            self.catch_up.at(),
            self.output_due(),
            self.drift.deadline(),
            self.units.due(),
            self.freshness.deadline(),
        ];
        let due = due.into_iter().flatten().min();
        let due = due.map(|mono| self.clock.instant(mono).into());
        tokio::select! {
            signal = self.link.signal() => match signal {
                Some(signal) => self.receive(signal).await,
                None => Ok(()),
            },
            Some(done) = self.jobs.join_next() => {
                let (_, done) = done.map_err(ShellError::Job)?;
                // Findings about a task that has just run may no longer hold.
                self.drift.task_ran(&done.task);
                self.units.job_ended();
                self.host.unit_job_ended(&done.task);
                self.host.found_reported(&done.found);
                self.handle(Event::Finished(Box::new(done))).await
            }
            changed = self.commands.changed() => changed.map_err(ShellError::Job),
            Some(ended) = self.drift.ended() => {
                self.checked(ended.map_err(ShellError::Job)?);
                Ok(())
            }
            degraded = self.host.degraded_changed() => self.handle(Event::Degraded(degraded)).await,
            facts = self.facts.changed() => self.handle(Event::Facts(facts)).await,
            () = self.stop_signals.wait() => self.stop().await,
            () = sleep_until(due) => self.handle(Event::Tick).await,
        }
    }

    /// Handles a signal of the connection.
    async fn receive(&mut self, signal: Signal) -> Result<(), ShellError> {
        let now = self.clock.now().mono;
        match signal {
            Signal::Up { client, session_present } => {
                log::info("connected to the broker");
                self.down_logged = false;
                self.catch_up.connected(session_present, now);
                // A new process subscribes again even if the broker kept the session: only then does the broker send what is retained.
                // And one that was refused subscribes again too: it may be granted now.
                let fresh = !session_present || !self.subscribed || self.unsubscribed;
                self.subscribed = true;
                self.outlet.up(client, fresh);
                self.blobs.reconnected();
                // A new id for each connection: orders to run a command that were meant for an earlier one are refused.
                let session = new_session()?;
                self.session = Some(session);
                self.unsubscribed = false;
                self.publish_presence();
                self.commands.connected(true);
                self.handle(Event::Connected { session_present: !fresh }).await
            }
            Signal::Down(reason) => {
                if self.session.is_none() {
                    // The broker may have made a new session and its answer was lost: then the next one is reported as kept, and has no
                    // subscriptions.
                    self.subscribed = false;
                }
                // Once for each outage, not for each attempt.
                if !self.down_logged {
                    log::warn(format_args!("no connection to the broker: {reason}"));
                    self.down_logged = true;
                }
                self.disconnected().await
            }
            Signal::Subscribed { refused } => {
                self.outlet.subscribed();
                if refused && !std::mem::replace(&mut self.unsubscribed, true) {
                    self.publish_presence();
                }
                Ok(())
            }
            Signal::Sent(pkid) => {
                self.outlet.sent(pkid);
                Ok(())
            }
            Signal::Confirmed(pkid) => {
                self.outlet.confirmed(pkid, now);
                Ok(())
            }
            Signal::Received(publish) => self.take_message(publish, now).await,
        }
    }

    /// Publishes that the agent is connected, and what keeps it from its work.
    pub(super) fn publish_presence(&mut self) {
        let Some(session) = &self.session else { return };
        let refused = || self.unsubscribed.then(|| "the broker refuses a subscription of it".to_owned());
        let trouble = self.unwritten.clone().or_else(refused).or_else(|| self.freshness.trouble());
        self.outlet.presence(presence(&self.config, self.machine.ledger(), Some(session), trouble));
        self.outlet.pump(self.clock.now().mono);
    }

    /// Takes a message of the broker, and acknowledges it once its effect is in the ledger.
    async fn take_message(&mut self, publish: rumqttc::Publish, now: Duration) -> Result<(), ShellError> {
        let done = match self.reader.read(&publish.topic, &publish.payload) {
            Inbound::Nothing => Some(publish),
            Inbound::Exec(exec) => {
                if exec.node == self.config.node {
                    let (boot, nonce) = (self.clock.since_boot(), new_nonce()?);
                    self.commands.take(exec, self.session.as_ref(), &self.host, boot, nonce);
                } else {
                    let reason = format!("it is for node {}", exec.node);
                    self.handle(Event::Refused { topic: "exec", generation: None, reason }).await?;
                }
                Some(publish)
            }
            Inbound::CheckRequest(request) => {
                self.request_drift_check(&request);
                Some(publish)
            }
            Inbound::Heartbeat(beat) => {
                match self.freshness.heard(&beat, self.clock.now()) {
                    Ok(true) => {
                        log::info("a planner is heard again");
                        self.publish_presence();
                    }
                    Ok(false) => {}
                    Err(error) => log::warn(format_args!("that a planner was heard cannot be written down: {error}")),
                }
                self.publish_unsent_state();
                self.send_unsent_drift();
                Some(publish)
            }
            Inbound::Event(event) => {
                // Also of an offer that the machine knows: another planner gives other keys, and one that was started again has none left.
                if let Event::Plan(offer) = &event {
                    self.blobs.learn(offer.generation, &offer.keys);
                }
                match self.catch_up.offer(event, publish, now) {
                    Offered::Handle(event, publish) => {
                        self.handle(event).await?;
                        Some(publish)
                    }
                    // A message that is held is acknowledged when it is handled: until then the broker repeats it.
                    Offered::Held(outdated) => outdated,
                }
            }
            Inbound::Chunk(digest, n) => {
                if let Some(event) = self.blobs.chunk(&digest, n, &publish.payload, now) {
                    self.blob_event(event).await?;
                }
                Some(publish)
            }
        };
        if let Some(publish) = done {
            self.acknowledge(publish);
        }
        Ok(())
    }

    async fn disconnected(&mut self) -> Result<(), ShellError> {
        self.outlet.down();
        self.session = None;
        self.commands.connected(false);
        self.handle(Event::Disconnected).await
    }

    /// Acknowledges a message to the broker, now that the ledger has what follows from it. The payload is not needed for that, and
    /// would pin the read buffer.
    fn acknowledge(&mut self, publish: rumqttc::Publish) {
        self.outlet.acknowledge(rumqttc::Publish { payload: Default::default(), ..publish });
    }

    /// Has the machine handle an event, and all events that follow from it.
    pub(super) async fn handle(&mut self, event: Event) -> Result<(), ShellError> {
        // Carrying out an effect may cause further events; one at a time, so that the machine is never entered twice.
        self.inbox.push_back(event);
        while let Some(event) = self.inbox.pop_front() {
            let effects = self.machine.handle(event, self.clock.now());
            self.carry_out(effects).await?;
        }
        Ok(())
    }

    /// Handles what happened to a blob, which may be the plan itself.
    pub(super) async fn blob_event(&mut self, event: BlobEvent) -> Result<(), ShellError> {
        match event {
            BlobEvent::Failed { blob, reason } => self.handle(Event::BlobFailed { blob, reason }).await,
            BlobEvent::Ready(digest) => {
                if let Some(offer) = self.to_fetch.take_if(|offer| offer.receipt.plan == digest) {
                    let generation = Some(offer.generation);
                    let event = match self.read_plan(&digest) {
                        Ok(text) => Event::Plan(Box::new(PlanOffer { body: PlanBody::Inline(text), ..*offer })),
                        Err(reason) => Event::Refused { topic: "plan", generation, reason },
                    };
                    self.handle(event).await?;
                }
                self.handle(Event::BlobReady(digest)).await
            }
        }
    }

    fn read_plan(&self, digest: &Digest) -> Result<PlanText, String> {
        let json = fs::read(self.blobs.path(digest)).map_err(|e| e.to_string())?;
        PlanText::from_json(json).map_err(|e| format!("the blob is not a node plan: {e}"))
    }
}

pub(super) async fn sleep_until(at: Option<tokio::time::Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}
