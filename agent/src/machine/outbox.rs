//! The outbox of reports: numbered without gaps, stored before they are sent, repeated until the planner has them.
//!
//! In: reports, acknowledgements, the time. Out: writes, and effects that send what is stored. The reports themselves are in
//! the ledger; here are only their numbers, and the reports of the group that is not persisted yet. Outcomes are never
//! dropped; outputs are, the oldest first, when too much of them waits.

use std::{collections::VecDeque, time::Duration};

use groundplan_protocol::{ids::Sequence, report::TaskReport, time::Now};

use super::{io::Effect, snapshot::Write};

/// Most reports that are sent ahead of the last acknowledgement.
const WINDOW: u64 = 2048;
/// Without an acknowledgement for this long they are sent again; doubled each time, up to `RESEND_MAX`.
const RESEND: Duration = Duration::from_secs(5);
const RESEND_MAX: Duration = Duration::from_secs(60);
/// Most waiting reports that keep their output, and most bytes that these outputs have together.
const OUTPUTS: usize = 10_000;
const OUTPUT_BYTES: usize = 16 * 1024 * 1024;

/// The numbers of the reports, and those reports that are not on disk yet.
#[derive(Debug)]
pub(super) struct Outbox {
    /// The last number given.
    last: Sequence,
    /// The last on disk.
    stored: Sequence,
    /// The last sent on this connection.
    sent: Sequence,
    /// The last acknowledged.
    acked: Sequence,
    /// Numbered and not on disk yet.
    group: Vec<(Sequence, Box<TaskReport>)>,
    /// Waiting reports with an output, and its length in bytes; oldest first.
    outputs: VecDeque<(Sequence, usize)>,
    output_bytes: usize,
    resend_at: Option<Duration>,
    /// How long the next acknowledgement is waited for.
    patience: Duration,
    connected: bool,
}

impl Outbox {
    /// The outbox of a ledger that holds the reports after `acked` up to `last`, with these outputs.
    pub(super) fn new(last: Sequence, acked: Sequence, outputs: Vec<(Sequence, usize)>) -> Self {
        Self {
            last,
            stored: last,
            sent: acked,
            acked,
            group: Vec::new(),
            output_bytes: outputs.iter().map(|(_, len)| len).sum(),
            outputs: outputs.into(),
            resend_at: None,
            patience: RESEND,
            connected: false,
        }
    }

    /// The last report that is on disk.
    pub(super) fn stored(&self) -> Sequence {
        self.stored
    }

    /// The last number given: on disk, or of the group that follows.
    pub(super) fn last(&self) -> Sequence {
        self.last
    }

    /// The last number that a planner has acknowledged.
    pub(super) fn acked(&self) -> Sequence {
        self.acked
    }

    pub(super) fn push(&mut self, report: TaskReport) {
        self.last = Sequence(self.last.0 + 1);
        if let Some(output) = &report.output {
            let len = output.head.len() + output.tail.len();
            self.outputs.push_back((self.last, len));
            self.output_bytes += len;
        }
        self.group.push((self.last, Box::new(report)));
    }

    pub(super) fn is_clean(&self) -> bool {
        self.group.is_empty()
    }

    /// Moves the group's writes into `writes`, and those that keep the outputs within their bounds.
    pub(super) fn take(&mut self, writes: &mut Vec<Write>) {
        writes.extend(self.group.drain(..).map(|(number, report)| Write::Report(number, report)));
        while self.outputs.len() > OUTPUTS || self.output_bytes > OUTPUT_BYTES {
            let Some((number, len)) = self.outputs.pop_front() else { break };
            self.output_bytes -= len;
            writes.push(Write::DropOutput(number));
        }
    }

    /// The group is on disk.
    pub(super) fn persisted(&mut self, connected: bool, now: Now, out: &mut Vec<Effect>) {
        self.stored = self.last;
        self.connected = connected;
        self.send(now, out);
    }

    fn send(&mut self, now: Now, out: &mut Vec<Effect>) {
        let to = Sequence(self.stored.0.min(self.acked.0 + WINDOW));
        if !self.connected || self.sent >= to {
            return;
        }
        out.push(Effect::Reports { from: Sequence(self.sent.0 + 1), to });
        self.sent = to;
        self.resend_at.get_or_insert(now.mono + self.patience);
    }

    /// Has the running tasks announced, in a batch without reports.
    pub(super) fn announce(&self, out: &mut Vec<Effect>) {
        out.push(Effect::Reports { from: Sequence(self.sent.0 + 1), to: self.sent });
    }

    pub(super) fn connected(&mut self, now: Now, out: &mut Vec<Effect>) {
        self.connected = true;
        // What was sent and not acknowledged on the last connection may have been lost with it.
        self.sent = self.acked;
        self.resend_at = None;
        self.patience = RESEND;
        self.send(now, out);
    }

    pub(super) fn disconnected(&mut self) {
        self.connected = false;
        self.resend_at = None;
    }

    pub(super) fn acknowledge(&mut self, to: Sequence, now: Now, out: &mut Vec<Effect>) {
        // Beyond what is stored it cannot be about these reports: the planner may know a ledger that this one replaced.
        if to <= self.acked || to > self.stored {
            return;
        }
        self.acked = to;
        self.sent = self.sent.max(to);
        self.patience = RESEND;
        self.resend_at = (self.sent > self.acked).then_some(now.mono + self.patience);
        while let Some(&(number, len)) = self.outputs.front()
            && number <= to
        {
            self.output_bytes -= len;
            self.outputs.pop_front();
        }
        // If a power loss undoes it, the reports are sent once more, and acknowledged once more.
        out.push(Effect::Persist { writes: vec![Write::Acknowledged(to)], durable: false });
        self.send(now, out);
    }

    pub(super) fn resend_at(&self) -> Option<Duration> {
        self.resend_at
    }

    pub(super) fn tick(&mut self, now: Now, out: &mut Vec<Effect>) {
        if !self.connected || self.resend_at.is_none_or(|at| at > now.mono) {
            return;
        }
        self.patience = (self.patience * 2).min(RESEND_MAX);
        self.resend_at = None;
        self.sent = self.acked;
        self.send(now, out);
    }
}
