//! The output of a command on its nodes, line by line as it arrives, with a status line below it on a terminal.
//!
//! In: events. Out: complete lines, each prefixed with its node's name; standard error goes to standard error. A last line without
//! newline is shown when the node has ended. Buffers at most `LINE` bytes of an incomplete line.

use std::{borrow::Cow, collections::BTreeMap, io::IsTerminal as _, time::Instant};

use groundplan_protocol::{
    exec::Stream,
    ids::{ExecId, NodeId},
    kinds::Run,
};

use super::{
    ESCAPE, Failure, Output,
    format::{count, took},
    redraw, safe,
};
use crate::api::{
    exec::{ExecEvent, ExecNode, ExecRecord, ExecResult, NodeOutcome, Standing, TIMEOUT},
    types::VERSION,
};

/// The longest incomplete line that is buffered, in bytes; a longer one is shown in pieces.
const LINE: usize = 64 * 1024;
/// Colours of node names (ECMA-48, SGR), without red and yellow, which mean errors and warnings.
const COLORS: [&str; 6] = ["36", "35", "34", "32", "96", "95"];
/// How many running nodes the status line names.
const NAMED: usize = 4;

/// How the output is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shown {
    /// Each line as it comes.
    Lines,
    /// A node's lines together, when it has ended.
    Grouped,
    /// Not at all; only the summary is.
    Nothing,
    /// All events, as one JSON object a line.
    Events {
        /// Without the output events.
        quiet: bool,
    },
}

/// The display of one command, from its start to its record.
pub(crate) struct Live<'a> {
    shown: Shown,
    /// Whether a terminal gets the output as it is.
    raw: bool,
    out: &'a mut Output,
    record: ExecRecord,
    width: usize,
    lines: BTreeMap<NodeId, Lines>,
    began: Instant,
    drawn: bool,
}

/// The part of a node's output that has not been shown.
#[derive(Default)]
struct Lines {
    /// The incomplete line of each stream.
    partial: [String; 2],
    /// Complete lines that are held until the node has ended.
    kept: Vec<(Stream, String)>,
    since: Option<Instant>,
}

impl<'a> Live<'a> {
    pub(crate) fn new(shown: Shown, raw: bool, now_ms: u64, out: &'a mut Output) -> Self {
        let record = ExecRecord {
            version: VERSION,
            id: ExecId::new("00000000").expect("8 hexadecimal digits"),
            by: String::new(),
            on: String::new(),
            run: Run::Shell(String::new()),
            user: None,
            cwd: None,
            env: Default::default(),
            timeout: TIMEOUT,
            started_ms: now_ms,
            finished_ms: None,
            result: ExecResult::Running,
            nodes: BTreeMap::new(),
        };
        Self { shown, raw, out, record, width: 0, lines: BTreeMap::new(), began: Instant::now(), drawn: false }
    }

    /// Whether the output is not read any more.
    pub(crate) fn is_unread(&self) -> bool {
        self.out.is_closed()
    }

    /// The id of the command, once the planner has started it.
    pub(crate) fn id(&self) -> Option<&ExecId> {
        (!self.record.nodes.is_empty()).then_some(&self.record.id)
    }

    /// Shows an event and adds it to the record.
    pub(crate) fn take(&mut self, event: ExecEvent) -> Result<(), Failure> {
        if let Shown::Events { quiet } = self.shown
            && !(quiet && matches!(event, ExecEvent::Output { .. }))
        {
            self.clear();
            self.out.json_line(&event)?;
        }
        match event {
            ExecEvent::Started { id, nodes, .. } => {
                self.record.id = id;
                self.width = nodes.keys().map(|node| node.as_str().chars().count()).max().unwrap_or_default();
                let waiting =
                    || ExecNode { outcome: NodeOutcome::Waiting, duration_ms: None, omitted: 0, output: None };
                self.record.nodes = nodes.into_keys().map(|node| (node, waiting())).collect();
            }
            ExecEvent::Begun { node } => {
                self.lines.entry(node.clone()).or_default().since.get_or_insert_with(Instant::now);
                self.set(&node, NodeOutcome::Running, None, 0);
            }
            ExecEvent::Output { node, stream, text } => self.output(&node, stream, &text)?,
            ExecEvent::Missed { node, bytes } => {
                self.remark(&node, &format!("{bytes} bytes of output omitted: they arrived faster than they were read"))
            }
            ExecEvent::NodeEnded { node, outcome, duration_ms, omitted } => {
                self.flush(&node)?;
                if outcome.standing() != Standing::Good {
                    self.remark(&node, &outcome.to_string());
                }
                self.set(&node, outcome, duration_ms, omitted);
                if omitted > 0 {
                    self.remark(
                        &node,
                        &format!("{omitted} bytes of output omitted; raise the limit with --output-limit"),
                    );
                }
            }
            ExecEvent::Finished { record } => self.record = *record,
        }
        Ok(())
    }

    fn set(&mut self, node: &NodeId, outcome: NodeOutcome, duration_ms: Option<u64>, omitted: u64) {
        if let Some(entry) = self.record.nodes.get_mut(node) {
            (entry.outcome, entry.duration_ms, entry.omitted) = (outcome, duration_ms, omitted);
        }
    }

    fn output(&mut self, node: &NodeId, stream: Stream, text: &str) -> Result<(), Failure> {
        if !matches!(self.shown, Shown::Lines | Shown::Grouped) {
            return Ok(());
        }
        let lines = self.lines.entry(node.clone()).or_default();
        let partial = &mut lines.partial[usize::from(stream == Stream::Err)];
        partial.push_str(text);
        // Up to the last newline; a line that grows past the limit is shown as it is, or memory would grow with it.
        let end = if partial.len() > LINE { partial.len() } else { partial.rfind('\n').map_or(0, |at| at + 1) };
        let whole: String = partial.drain(..end).collect();
        let whole = whole.lines().map(|line| (stream, line.to_owned()));
        if self.shown == Shown::Grouped {
            lines.kept.extend(whole);
            return Ok(());
        }
        let whole: Vec<_> = whole.collect();
        self.print(node, &whole)
    }

    /// Shows the rest of a node's output, incomplete lines included.
    fn flush(&mut self, node: &NodeId) -> Result<(), Failure> {
        let Some(lines) = self.lines.get_mut(node) else { return Ok(()) };
        let mut rest = std::mem::take(&mut lines.kept);
        for (stream, partial) in [Stream::Out, Stream::Err].into_iter().zip(&mut lines.partial) {
            rest.extend(std::mem::take(partial).lines().map(|line| (stream, line.to_owned())));
        }
        self.print(node, &rest)
    }

    fn print(&mut self, node: &NodeId, lines: &[(Stream, String)]) -> Result<(), Failure> {
        if lines.is_empty() {
            return Ok(());
        }
        self.clear();
        let [plain, error] = [self.out.color(), self.out.error_color()].map(|color| self.prefix(node, color));
        // Consecutive lines of one stream are written together: one write for a burst, and the streams stay in order.
        for same in lines.chunk_by(|a, b| a.0 == b.0) {
            let prefix = if same[0].0 == Stream::Out { &plain } else { &error };
            let prefix = safe(prefix);
            // A file or a program gets the output as it is; a terminal only if that was asked for.
            let (stdout, stderr) = (std::io::stdout(), std::io::stderr());
            let is_out = same[0].0 == Stream::Out;
            let shown = !self.raw && if is_out { stdout.is_terminal() } else { stderr.is_terminal() };
            let line = |line| if shown { safe(line) } else { Cow::Borrowed(line) };
            let text: String = same.iter().map(|(_, text)| format!("{prefix}{}\n", line(text))).collect();
            match same[0].0 {
                Stream::Out => self.out.raw(&text)?,
                Stream::Err => self.out.raw_note(&text),
            }
        }
        Ok(())
    }

    /// The prefix of a node's lines: its name, padded, in a colour of its own.
    fn prefix(&self, node: &NodeId, color: bool) -> String {
        let width = self.width;
        let name = format!("{:width$} |", node.as_str());
        let number = self.record.nodes.keys().position(|known| known == node).unwrap_or_default();
        match color {
            true => format!("{ESCAPE}[{}m{name}{ESCAPE}[0m ", COLORS[number % COLORS.len()]),
            false => format!("{name} "),
        }
    }

    /// A remark about a node among its lines.
    fn remark(&mut self, node: &NodeId, text: &str) {
        if matches!(self.shown, Shown::Lines | Shown::Grouped) {
            let prefix = self.prefix(node, self.out.error_color());
            self.note(&format!("{prefix}… {text}\n"));
        }
    }

    /// Writes to standard error, above the status line.
    pub(crate) fn note(&mut self, text: &str) {
        self.clear();
        self.out.note(text);
    }

    /// Draws the status line: how many nodes have ended, and which still run for how long.
    pub(crate) fn draw(&mut self, now: Instant) {
        let open: Vec<&NodeId> = self.record.nodes.iter().filter(|(_, n)| is_open(n)).map(|(node, _)| node).collect();
        if open.is_empty() {
            return;
        }
        let running = |node: &NodeId| self.record.nodes.get(node).is_some_and(|n| n.outcome == NodeOutcome::Running);
        let since = |node: &NodeId| self.lines.get(node).and_then(|lines| lines.since);
        let name = |node: &NodeId| match since(node).filter(|_| running(node)) {
            Some(since) => format!("{node} {}", seconds(now, since)),
            None => format!("{node} waits"),
        };
        let mut named: Vec<String> = open.iter().take(NAMED).map(|node| name(node)).collect();
        if open.len() > NAMED {
            named.push(format!("{} more", open.len() - NAMED));
        }
        let all = self.record.nodes.len();
        let line = format!(
            "{} of {} ended, {}: {}",
            all - open.len(),
            count(all, "node"),
            seconds(now, self.began),
            named.join(", ")
        );
        redraw(&line);
        self.drawn = true;
    }

    fn clear(&mut self) {
        if std::mem::take(&mut self.drawn) && std::io::stderr().is_terminal() {
            redraw("");
        }
    }

    /// Shows the remaining output and returns the record. Nodes without an end count as interrupted: the planner is no longer there to
    /// report it.
    pub(crate) fn close(mut self, now_ms: u64) -> Result<ExecRecord, Failure> {
        for node in self.lines.keys().cloned().collect::<Vec<_>>() {
            self.flush(&node)?;
        }
        self.clear();
        self.record.finished_ms.get_or_insert(now_ms);
        for node in self.record.nodes.values_mut().filter(|node| is_open(node)) {
            node.outcome = NodeOutcome::Interrupted;
        }
        Ok(self.record)
    }
}

fn is_open(node: &ExecNode) -> bool {
    node.outcome.standing() == Standing::Open
}

fn seconds(now: Instant, since: Instant) -> String {
    took(now.saturating_duration_since(since).as_secs() * 1000)
}
