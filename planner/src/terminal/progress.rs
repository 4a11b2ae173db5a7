//! Progress of `groundplan up`: a line for each event, and on a terminal a live line for each node below them.
//!
//! In: events and statuses of the planner. Out: lines on standard output. Write errors are ignored: a closed pipe or terminal does not
//! stop the site.

use std::{
    collections::{BTreeMap, HashMap},
    io::Write as _,
    time::Duration,
};

use groundplan_protocol::{
    ids::{InstanceId, NodeId},
    report::Outcome,
};
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::{
    Style,
    format::{count, indent, printed, took},
    reason, rollout, safe, status,
};
use crate::api::{
    event::Event,
    trouble::Trouble,
    types::{NodeCondition, NodePresence, RefusedCommit, Role, RolloutDetail, RolloutResult, RolloutSummary, Status},
};

/// The interval of the spinner.
const TICK: Duration = Duration::from_millis(120);

fn style(busy: bool) -> ProgressStyle {
    let template = if busy { "{prefix:.bold} {spinner} {wide_msg}" } else { "{prefix:.bold} · {wide_msg}" };
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_spinner())
}

/// The display of one run.
pub(crate) struct Progress {
    color: bool,
    live: Option<Live>,
    /// Suggestions, shown once when the site has converged for the first time.
    try_next: Option<String>,
    /// The chain of reasons of each instance of the current rollout.
    reasons: HashMap<InstanceId, String>,
    /// The widths of the node and task columns.
    widths: (usize, usize),
    /// A new commit, until a rollout begins or it turns out to change nothing.
    commit: Option<String>,
    /// Whether any commit is active.
    active: bool,
    /// A refused commit that was shown before its event came.
    refused: Option<RefusedCommit>,
    /// Whether the site has converged once.
    settled: bool,
    presence: BTreeMap<NodeId, NodePresence>,
    /// What was wrong at the last call of `troubles`.
    troubles: Vec<Trouble>,
}

/// The lines that are redrawn, on a terminal only.
struct Live {
    all: MultiProgress,
    nodes: BTreeMap<NodeId, ProgressBar>,
}

impl Progress {
    /// Shows events with or without colour; with live lines if standard output is a terminal.
    pub(crate) fn new(color: bool, terminal: bool, try_next: Option<String>) -> Self {
        let live = || Live {
            all: MultiProgress::with_draw_target(ProgressDrawTarget::stdout_with_hz(10)),
            nodes: BTreeMap::new(),
        };
        Self {
            color,
            live: terminal.then(live),
            try_next,
            reasons: HashMap::new(),
            widths: (0, 0),
            commit: None,
            active: false,
            refused: None,
            settled: false,
            presence: BTreeMap::new(),
            troubles: Vec::new(),
        }
    }

    /// Prints a line above the live lines.
    pub(crate) fn line(&self, text: &str) {
        let text = safe(text.trim_end_matches('\n'));
        match &self.live {
            Some(live) => drop(live.all.println(text)),
            None => drop(writeln!(std::io::stdout().lock(), "{text}")),
        }
    }

    fn paint(&self, style: Style, text: &str) -> String {
        style.paint(text, self.color)
    }

    /// Prints a line about a problem.
    pub(crate) fn problem(&self, text: &str) {
        self.line(&self.paint(Style::Bad, text));
    }

    /// Adapts the live lines to the nodes that the site declares now.
    pub(crate) fn nodes(&mut self, nodes: &[NodeId]) {
        let width = nodes.iter().map(|n| n.as_str().len()).max().unwrap_or(0);
        self.widths.0 = width;
        let Some(live) = &mut self.live else { return };
        live.nodes.retain(|node, bar| {
            let stays = nodes.contains(node);
            if !stays {
                bar.finish_and_clear();
            }
            stays
        });
        for node in nodes {
            if !live.nodes.contains_key(node) {
                let bar = live.all.add(ProgressBar::no_length());
                bar.set_style(style(true));
                bar.set_prefix(format!("{:<width$}", node.as_str()));
                bar.set_message("starting");
                bar.enable_steady_tick(TICK);
                live.nodes.insert(node.clone(), bar);
            }
        }
    }

    /// Sets the text of a node's live line, with a spinner while it is busy.
    fn set(&self, node: &NodeId, busy: bool, text: String) {
        let Some(bar) = self.live.as_ref().and_then(|live| live.nodes.get(node)) else { return };
        if busy {
            bar.enable_steady_tick(TICK);
        } else {
            bar.disable_steady_tick();
        }
        bar.set_style(style(busy));
        bar.set_message(safe(&text).into_owned());
    }

    /// A rollout began; `detail` has the reasons of its instances, which are shown when they finish.
    pub(crate) fn rollout(&mut self, detail: &RolloutDetail) {
        self.reasons = detail.instances.iter().map(|r| (r.instance.clone(), reason::chain(&r.reasons))).collect();
        self.widths.1 = detail.instances.iter().map(|r| r.instance.task.to_string().len()).max().unwrap_or(0);
        let summary = &detail.summary;
        self.commit = None;
        let n = count(detail.instances.len(), "action");
        self.line(&format!(
            "\n{}  {n} on {}",
            self.paint(Style::Bold, &format!("rollout {}: {}", summary.generation, rollout::commit(&summary.commit))),
            count(summary.nodes, "node")
        ));
    }

    /// Shows an event. For those that carry too little to show, the caller queries the planner and calls another method.
    pub(crate) fn event(&mut self, event: &Event) {
        match event {
            // Once: the planner may have refused it after the events began and before it was asked for its status.
            Event::Refused { refused } if self.refused.take().as_ref() == Some(refused) => {}
            Event::Refused { refused } => self.refusal(refused),
            Event::Commit { commit } => {
                (self.commit, self.active) = (Some(rollout::commit(commit)), true);
            }
            Event::TaskStarted { instance } => self.set(&instance.node, true, format!("{} …", instance.task)),
            Event::TaskFinished { instance, outcome, duration_ms, .. } => {
                self.finished(instance, outcome, *duration_ms);
                let text = outcome.to_string();
                self.set(
                    &instance.node,
                    true,
                    format!("{} {}", instance.task, text.lines().next().unwrap_or_default()),
                );
            }
            Event::RolloutFinished { rollout } => self.rollout_finished(rollout),
            Event::Node { node, presence } => self.node(node, *presence),
            Event::Degraded { instance, why: Some(why) } => self.problem(&format!("{instance} is degraded: {why}")),
            Event::Degraded { instance, why: None } => self.line(&format!("{instance} works again")),
            Event::Role { role: Role::Standby { planner } } => {
                self.problem(&format!("another planner ({planner}) leads this site; this one is on standby"));
            }
            Event::Missed { count } => {
                self.problem(&format!("{count} events omitted: they arrived faster than they were shown"))
            }
            Event::Hello { .. } | Event::RolloutStarted { .. } | Event::Role { .. } | Event::Idle => {}
        }
    }

    /// The status at the start, which no event repeats: a refused commit, and whether another one is active.
    pub(crate) fn begin(&mut self, status: &Status) {
        self.active = status.commit.is_some();
        if let Some(refused) = &status.refused {
            self.refusal(refused);
            self.refused = Some(refused.clone());
        }
    }

    fn refusal(&self, refused: &RefusedCommit) {
        self.line(&format!("\n{}", status::refusal(refused, self.active, self.color)));
    }

    fn finished(&self, instance: &InstanceId, outcome: &Outcome, duration_ms: u64) {
        let (nodes, tasks) = self.widths;
        let text = outcome.to_string();
        let (first, rest) = text.split_once('\n').unwrap_or((&text, ""));
        let first = self.paint(rollout::outcome_style(outcome), &format!("{first:<10}"));
        let reason = self.reasons.get(instance).map(|r| self.paint(Style::Dim, r)).unwrap_or_default();
        let line = format!(
            "  {:<nodes$}  {:<tasks$}  {first}  {:>7}  {reason}",
            instance.node.as_str(),
            instance.task.to_string(),
            took(duration_ms),
        );
        self.line(line.trim_end());
        if !rest.is_empty() {
            self.line(&indent(&indent(rest)));
        }
    }

    /// Prints the last lines of the output of a task that failed.
    pub(crate) fn output(&self, output: &groundplan_protocol::report::Output) {
        const LINES: usize = 8;
        let text = printed(output);
        let lines: Vec<&str> = text.lines().collect();
        let tail = lines[lines.len().saturating_sub(LINES)..].join("\n");
        if !tail.trim().is_empty() {
            self.line(&indent(&indent(&tail)));
        }
    }

    fn rollout_finished(&mut self, rollout: &RolloutSummary) {
        let time = took(rollout.finished_ms.unwrap_or(rollout.started_ms).saturating_sub(rollout.started_ms));
        let summary = format!("{} on {}", rollout::counts(&rollout.counts), count(rollout.nodes, "node"));
        self.line(&match rollout.result {
            RolloutResult::Succeeded => format!("{} in {time}: {summary}", self.paint(Style::Good, "converged")),
            RolloutResult::Superseded => format!("superseded by a newer commit after {time}: {summary}"),
            RolloutResult::Failed => {
                format!(
                    "{} after {time}: {summary}; the next commit, or `groundplan retry`, tries again",
                    self.paint(Style::Bad, "failed")
                )
            }
            RolloutResult::Running | RolloutResult::Waiting => return,
        });
    }

    fn node(&mut self, node: &NodeId, presence: NodePresence) {
        let before = self.presence.insert(node.clone(), presence);
        match (presence, before) {
            (NodePresence::Online, Some(NodePresence::Offline)) => self.line(&format!("{node}: agent online again")),
            (NodePresence::Offline, Some(NodePresence::Online)) => {
                self.set(node, false, "offline".to_owned());
                self.line(&format!("{node}: agent offline"));
            }
            _ => {}
        }
    }

    /// The site has converged: reports a commit that changed nothing and, the first time, prints the suggestions.
    pub(crate) fn settled(&mut self, status: &Status) {
        for node in &status.nodes {
            self.presence.insert(node.node.clone(), node.presence);
            let bad = node.condition == NodeCondition::Failed;
            let text =
                if bad { rollout::counts(&node.counts) } else { format!("converged, {}", count(node.applied, "task")) };
            self.set(&node.node, false, text);
        }
        if let Some(commit) = self.commit.take() {
            let nothing = self.paint(Style::Good, "nothing to do");
            self.line(&format!("\n{}  {nothing}: no node is touched", self.paint(Style::Bold, &commit)));
        }
        if !self.settled {
            self.settled = true;
            let rollout = status.rollout.as_ref().filter(|_| self.reasons.is_empty());
            if let Some(rollout) = rollout {
                self.line(&format!(
                    "\nresuming after rollout {}: {}",
                    rollout.generation,
                    rollout::commit(&rollout.commit)
                ));
                self.rollout_finished(rollout);
            }
            let branch = &status.repository.branch;
            match self.try_next.take() {
                Some(text) => self.line(&format!("\n{text}")),
                None => {
                    self.line(&format!("\nfollowing branch {branch}: commit to it to deploy. Ctrl-C stops everything."))
                }
            }
        }
    }

    /// Prints what is wrong with the planner or an agent and was not so at the last call, and what no longer is. Other troubles have
    /// events of their own.
    pub(crate) fn troubles(&mut self, troubles: &[Trouble]) {
        let shown = |trouble: &&Trouble| {
            matches!(
                trouble,
                Trouble::Store { .. } | Trouble::Broker { .. } | Trouble::Repository { .. } | Trouble::Agent { .. }
            )
        };
        let now: Vec<Trouble> = troubles.iter().filter(shown).cloned().collect();
        let before = std::mem::replace(&mut self.troubles, now);
        for new in self.troubles.iter().filter(|trouble| !before.contains(trouble)) {
            self.problem(&new.to_string());
        }
        for over in before.iter().filter(|trouble| !self.troubles.contains(trouble)) {
            self.line(&format!("no longer: {over}"));
        }
    }

    /// Removes the live lines; what was printed above them stays.
    pub(crate) fn end(&mut self) {
        if let Some(live) = self.live.take() {
            live.nodes.values().for_each(ProgressBar::finish_and_clear);
        }
    }
}
