//! Carrying out the machine's effects, and sending what it has stored.

use std::{sync::Arc, time::Duration};

use groundplan_protocol::{
    VERSION,
    blob::{self, Want},
    envelope::{seal, seal_for},
    ids::{Generation, Sequence},
    plan::PlanBody,
    report::ReportBatch,
    state::NodeState,
    topic::Topic,
};

use super::{error::ShellError, state::Shell};
use crate::{
    blobs::BlobEvent,
    clock::wall_ms,
    host::job::{Content, Job, Work as HostWork},
    log,
    machine::{self, Effect, JobDone, Start, Work, Write},
};

/// Most reports in a batch, and most bytes of their JSON.
const BATCH: usize = 256;
const BATCH_BYTES: usize = 512 * 1024;
/// The first wait after a failed write; doubled each time, up to `RETRY_MAX`.
const RETRY: Duration = Duration::from_millis(500);
const RETRY_MAX: Duration = Duration::from_secs(30);

impl Shell {
    pub(super) async fn carry_out(&mut self, effects: Vec<Effect>) -> Result<(), ShellError> {
        for effect in effects {
            match effect {
                Effect::Persist { writes, durable } => self.persist(&writes, durable).await?,
                Effect::ResetJournal => {
                    if let Err(e) = self.journal.reset() {
                        // Entries too many only make the next start more careful.
                        log::warn(format_args!("the journal cannot be emptied: {e}"));
                    }
                    if let Err(e) = self.host.found_settled() {
                        log::warn(format_args!("the notes of what was found cannot be emptied: {e}"));
                    }
                }
                Effect::Promise(promises) => self.host.promise(&promises),
                Effect::Start(generation, starts) => self.start(generation, starts).await?,
                Effect::State(state) => self.publish_state(*state),
                Effect::Reports { from, to } => self.queue_reports(from, to),
                Effect::Fetch(blobs) => {
                    let ready = self.blobs.fetch(blobs);
                    self.inbox.extend(ready.into_iter().map(machine::Event::BlobReady));
                }
                Effect::FetchPlan(offer) => {
                    let PlanBody::Blob(blob) = offer.body.clone() else { continue };
                    // An older one that comes again: the planner ships the newest plan alone.
                    if self.to_fetch.as_ref().is_some_and(|newer| newer.generation > offer.generation) {
                        continue;
                    }
                    // Blobs are fetched one after the other: all others would wait for one that comes no more.
                    let earlier = self.to_fetch.replace(offer).map(|earlier| earlier.receipt.plan);
                    if let Some(earlier) = earlier.filter(|earlier| *earlier != blob.sha256) {
                        self.blobs.forget(&earlier);
                    }
                    if let Some(digest) = self.blobs.fetch(vec![blob]).pop() {
                        Box::pin(self.blob_event(BlobEvent::Ready(digest))).await?;
                    }
                }
                Effect::KeepBlobs(mut digests) => {
                    // A plan that is still being fetched is none of the machine's blobs yet; unless a newer one was taken meanwhile, which
                    // the planner ships in its place.
                    let generation = self.machine.generation();
                    self.to_fetch.take_if(|offer| offer.generation <= generation);
                    digests.extend(self.to_fetch.iter().map(|offer| offer.receipt.plan));
                    self.blobs.keep(&digests);
                }
                Effect::Log(text) => log::info(text),
                Effect::Stopped => self.stopped = true,
            }
        }
        Ok(())
    }

    /// Writes to the ledger, and does not give up: the agent may do nothing that it would not remember.
    async fn persist(&mut self, writes: &[Write], durable: bool) -> Result<(), ShellError> {
        let mut wait = RETRY;
        while let Err(error) = self.ledger.write(writes, durable) {
            let reason = log::chain(&error);
            log::warn(format_args!("{reason}; trying again"));
            self.report_unwritten(Some(reason));
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = self.stop_signals.wait() => return Err(ShellError::Unwritten),
            }
            wait = (wait * 2).min(RETRY_MAX);
            if let Err(error) = self.ledger.reopen() {
                log::warn(log::chain(&error));
            }
        }
        self.report_unwritten(None);
        Ok(())
    }

    /// Reports why the agent waits, or that it goes on. The presence holds nothing that would have to be in the ledger first.
    fn report_unwritten(&mut self, reason: Option<String>) {
        if self.unwritten != reason {
            self.unwritten = reason;
            self.publish_presence();
        }
    }

    async fn start(&mut self, generation: Generation, starts: Vec<Start>) -> Result<(), ShellError> {
        // In the journal before the first starts: after a crash it shows what may have been done.
        let mut wait = RETRY;
        while let Err(error) = self.journal.start(generation, starts.iter().map(|s| &s.task)) {
            let reason = format!("the journal of started tasks cannot be written: {error}");
            log::warn(format_args!("{reason}; trying again"));
            self.report_unwritten(Some(reason));
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = self.stop_signals.wait() => return Err(ShellError::Unwritten),
            }
            wait = (wait * 2).min(RETRY_MAX);
        }
        self.report_unwritten(None);
        for start in starts {
            let (host, cancel) = (Arc::clone(&self.host), self.canceller.listen());
            let job = self.job(start, generation);
            self.jobs.spawn(async move {
                let task = job.task.clone();
                let done = host.run(job, cancel).await;
                let begun = done.begun;
                let done = JobDone {
                    task,
                    result: done.result,
                    touched: done.touched,
                    output: done.output,
                    memory: done.notes.memory,
                    export: done.notes.export,
                    found: done.notes.found,
                    started_ms: wall_ms(done.started),
                    duration_ms: done.duration.as_millis() as u64,
                };
                (begun, done)
            });
        }
        // They are spawned before the next fsync of the ledger blocks this thread.
        tokio::task::yield_now().await;
        Ok(())
    }

    fn job(&self, start: Start, plan: Generation) -> Job {
        let Start { task, work, effect, memory, earlier, yielding, touched, on_remove } = start;
        let mut others = Vec::new();
        let work = match work {
            Work::Apply { spec, previous, from } => {
                others = from;
                let blob = spec.content.as_ref().and_then(blob::Content::blob);
                let content = blob.map(|blob| Content::File(self.blobs.path(&blob.sha256)));
                HostWork::Apply { spec, content, previous: previous.map(|p| *p) }
            }
            Work::Remove { spec, into } => {
                others = into;
                HostWork::Remove { spec }
            }
            Work::Forget { spec } => HostWork::Forget { spec },
            Work::Trigger { spec } => HostWork::Trigger { spec },
        };
        Job { task, work, effect, memory, earlier, others, yielding, on_remove, touched, plan }
    }

    /// Publishes the last state that waited for the planners' key, if there is one by now.
    pub(super) fn publish_unsent_state(&mut self) {
        if let Some(state) = self.unsent.take() {
            self.publish_state(*state);
        }
    }

    fn publish_state(&mut self, mut state: NodeState) {
        let Some(planners) = self.freshness.encryption_key() else {
            self.unsent = Some(Box::new(state));
            return;
        };
        let mut fits = |state: &NodeState| {
            let encrypted = state.clone().encrypted(&planners);
            encrypted.is_ok_and(|state| self.outlet.state(seal(&self.config.key, &state)))
        };
        if fits(&state) {
            return;
        }
        log::warn("the node's state is too large for one message; leaving out the inputs of applied tasks");
        // The planner needs them only to explain changes: fingerprints and edges decide what it plans.
        state.applied.values_mut().for_each(|applied| applied.inputs.clear());
        if !fits(&state) {
            log::warn("the node's state is still too large, and is not published");
        }
    }

    fn queue_reports(&mut self, from: Sequence, to: Sequence) {
        let cursor = &mut self.cursor;
        if from > to {
            // An empty range asks for a batch without reports, which names the running tasks.
            cursor.announce = true;
        } else if from.0 == cursor.to.0 + 1 && cursor.next <= cursor.to {
            // They continue what is still to be sent.
            cursor.to = to;
        } else {
            // After a new connection or a lost acknowledgement: what is still to be sent is in the new range, which
            // begins after the last acknowledged one.
            (cursor.next, cursor.to) = (from, to);
        }
    }

    /// Sends stored reports, as many as the connection takes.
    pub(super) fn send_reports(&mut self) -> Result<(), ShellError> {
        let Some(planners) = self.freshness.encryption_key() else { return Ok(()) };
        while (self.cursor.next <= self.cursor.to || self.cursor.announce) && self.outlet.takes_reports() {
            let stored = self.ledger.reports(self.cursor.next, self.cursor.to, BATCH, BATCH_BYTES)?;
            if stored.is_empty() && !self.cursor.announce {
                // They were acknowledged meanwhile, and are not in the ledger any more.
                self.cursor.next = Sequence(self.cursor.to.0 + 1);
                break;
            }
            let first = stored.first().map_or(self.cursor.next, |(number, _)| *number);
            let next = stored.last().map_or(self.cursor.next, |(number, _)| Sequence(number.0 + 1));
            let batch = ReportBatch {
                version: VERSION,
                site: self.config.site.clone(),
                node: self.config.node.clone(),
                ledger: self.machine.ledger().clone(),
                first,
                generation: self.machine.generation(),
                reports: stored.into_iter().map(|(_, report)| report).collect(),
                running: self.machine.running(),
                last: self.machine.last_report(),
                acked: self.machine.acked_report(),
            };
            let Ok(payload) = seal_for(&self.config.key, &planners, &batch) else { break };
            if !self.outlet.reports(&self.topics.report, payload, self.clock.now().mono) {
                break;
            }
            self.cursor.next = next;
            self.cursor.announce = false;
        }
        Ok(())
    }

    /// Sends output of commands, as much as the connection takes.
    pub(super) fn send_output(&mut self) {
        let now = self.clock.now().mono;
        self.commands.expire(self.clock.since_boot());
        while let Some(planners) = self.freshness.encryption_key().filter(|_| self.outlet.takes_output()) {
            let Some(message) = self.commands.next(now) else { break };
            match message.seal(&self.config.key, &planners) {
                Ok(payload) => self.outlet.output(payload),
                Err(_) => log::warn("a command's output cannot be encrypted to the key that the planner announces"),
            }
        }
        self.outlet.pump(now);
    }

    /// When there is output to send and a connection that takes it, or a command waits no longer for its go, by the monotonic clock.
    pub(super) fn output_due(&self) -> Option<Duration> {
        let takes = self.outlet.takes_output() && self.freshness.encryption_key().is_some();
        let output = self.commands.due().filter(|_| takes);
        let expiry = self.commands.expires_in(self.clock.since_boot()).map(|span| self.clock.now().mono + span);
        output.into_iter().chain(expiry).min()
    }

    /// When chunks are to be requested, by the monotonic clock.
    pub(super) fn chunks_due(&self) -> Option<Duration> {
        self.blobs.deadline().filter(|_| self.outlet.is_up())
    }

    /// Requests chunks of the blob that is being fetched, if it is time.
    pub(super) async fn request_chunks(&mut self) -> Result<(), ShellError> {
        let site = &self.config.site;
        let filter = self.blobs.active().map(|blob| Topic::every_chunk(site, &blob.sha256));
        if filter != self.chunk_filter {
            if let Some(old) = self.chunk_filter.take() {
                self.outlet.unsubscribe(&old);
            }
            if let Some(filter) = &filter {
                self.outlet.subscribe(filter.clone());
            }
            self.chunk_filter = filter;
        }
        let now = self.clock.now().mono;
        if !self.outlet.is_up() {
            return Ok(());
        }
        // The subscription goes out before the request, or the answer could miss it.
        self.outlet.pump(now);
        match self.blobs.want(now) {
            Ok(None) => {}
            Ok(Some((blob, chunks))) => {
                let (site, node) = (site.clone(), self.config.node.clone());
                let want = Want { version: VERSION, site, node, blob, chunks };
                let payload = seal(&self.config.key, &want);
                self.outlet.want(&self.topics.want, payload, now);
            }
            Err(event) => self.blob_event(event).await?,
        }
        Ok(())
    }
}
