//! The state of a site: repository, commit, planner, rollout, and a table of nodes with their problems below it.

use std::fmt::Write as _;

use groundplan_inventory::Lifecycle;
use groundplan_protocol::{ids::NodeId, state::Phase};

use super::{
    Cell, Style, Table,
    format::{ago, count, first_line, took},
    rollout,
};
use crate::api::{
    park::Parked,
    types::{
        Fault, FetchStatus, NodeCondition, NodePresence, NodeStatus, RefusedCommit, RepositoryStatus, Role, Status,
    },
};

/// How many tasks of one node are named that have failed, and how many that cannot be planned yet.
const NAMED: usize = 5;

/// How long a fetch may take before it is mentioned, in milliseconds.
const SLOW_MS: u64 = 2000;

pub(crate) fn text(status: &Status, now_ms: u64, color: bool) -> String {
    let mut out = String::new();
    head(&mut out, status, now_ms, color);
    if let Some(refused) = &status.refused {
        out.push('\n');
        out.push_str(&refusal(refused, status.commit.is_some(), color));
    }
    if status.nodes.is_empty() {
        out.push_str("\nno node is declared, and no agent has reported\n");
        return out;
    }
    let mut table = Table::new(&["NODE", "AGENT", "PLAN", "STATE", "TASKS", "SEEN"]);
    for node in &status.nodes {
        let (agent, style) = presence(node.presence);
        let plan = match node.generation.0 {
            0 => "-".to_owned(),
            n => n.to_string(),
        };
        let (state, state_style) = state(node);
        table.row([
            node.node.to_string().into(),
            Cell::styled(agent, style),
            plan.into(),
            Cell::styled(state, state_style),
            node.applied.to_string().into(),
            node.last_seen_ms.map(|ms| ago(ms, now_ms)).unwrap_or_default().into(),
        ]);
    }
    let _ = write!(out, "\n{}", table.render(color));
    status.nodes.iter().for_each(|node| troubles(&mut out, node, now_ms, color));
    if status.ignored > 0 {
        let _ =
            writeln!(out, "{} on the broker ignored: not from groundplan", count(status.ignored as usize, "message"));
    }
    out
}

fn head(out: &mut String, status: &Status, now_ms: u64, color: bool) {
    let label = |word: &str| Style::Dim.paint(&format!("{word:<9}"), color);
    let site = status.site.as_ref().map_or("no valid commit yet", |site| site.as_str());
    let repository = &status.repository;
    let _ = writeln!(
        out,
        "{} {}  {} of {}",
        label("site"),
        Style::Bold.paint(site, color),
        if repository.branch.is_empty() { "the default branch" } else { &repository.branch },
        repository.location
    );
    for line in behind(repository, now_ms) {
        let _ = writeln!(out, "{} {}", label(""), Style::Bad.paint(&line, color));
    }
    if let Some(commit) = &status.commit {
        let when = ago((commit.time.max(0) as u64) * 1000, now_ms);
        let _ = writeln!(out, "{} {}  by {}, {when}", label("commit"), rollout::commit(commit), commit.author);
    }
    let planner = &status.planner;
    let role = match &planner.role {
        Role::Starting => "starting".to_owned(),
        Role::Planning => "planning".to_owned(),
        Role::Standby { planner } => format!("standby, {planner} leads"),
    };
    let broker = match (&planner.broker.connected, &planner.broker.error) {
        (true, _) => format!("connected to {}", planner.broker.address),
        (false, error) => {
            let why = error.as_ref().map(|e| format!(": {e}")).unwrap_or_default();
            Style::Bad.paint(&format!("not connected to {}{why}", planner.broker.address), color)
        }
    };
    let _ = writeln!(out, "{} {role}, {broker}", label("planner"));
    if let Some(error) = &planner.store_error {
        let text = format!("its store cannot be written; nothing is published until it can: {error}");
        let _ = writeln!(out, "{} {}", label(""), Style::Bad.paint(&text, color));
    }
    if let Some(rollout) = &status.rollout {
        let text = rollout::line(rollout, now_ms, color);
        let _ = writeln!(out, "{} {}  {text}", label("rollout"), rollout.generation);
    }
    if status.nodes.len() > 1 {
        let _ = writeln!(out, "{} {}", label("nodes"), conditions(&status.nodes));
    }
}

/// How many nodes stand how: `1000: 19 converged, 981 unknown`.
fn conditions(nodes: &[NodeStatus]) -> String {
    let words = [
        (NodeCondition::Failed, "failed"),
        (NodeCondition::Degraded, "degraded"),
        (NodeCondition::Unknown, "unknown"),
        (NodeCondition::Pending, "pending"),
        (NodeCondition::Drifted, "drifted"),
        (NodeCondition::Converged, "converged"),
        (NodeCondition::NotDeclared, "not declared"),
    ];
    let counted = words.iter().filter_map(|(condition, word)| {
        let n = nodes.iter().filter(|node| node.condition == *condition).count();
        (n > 0).then(|| format!("{n} {word}"))
    });
    format!("{}: {}", nodes.len(), counted.collect::<Vec<_>>().join(", "))
}

/// Why commits may be missing, in lines; none while the repository is read and fetched without trouble.
pub(super) fn behind(repository: &RepositoryStatus, now_ms: u64) -> Vec<String> {
    let fetching = repository.fetch.iter().flat_map(|fetch| fetching(fetch, now_ms));
    repository.error.iter().cloned().chain(fetching).collect()
}

fn fetching(fetch: &FetchStatus, now_ms: u64) -> Vec<String> {
    let mut lines = Vec::new();
    if let Some(error) = &fetch.error {
        let since = fetch.failing_since_ms.map_or(String::new(), |ms| format!(" since {}", ago(ms, now_ms)));
        let next = fetch
            .next_ms
            .map_or(String::new(), |ms| format!("; next try in {} s", ms.saturating_sub(now_ms).div_ceil(1000)));
        lines.push(format!("fetching fails{since}{next}: {error}"));
    }
    let slow = |since: &u64| fetch.error.is_some() || fetch.fetched_ms.is_none() || since + SLOW_MS <= now_ms;
    if let Some(since) = fetch.since_ms.filter(slow) {
        let progress = fetch.progress.as_ref().map_or(String::new(), |progress| format!(": {progress}"));
        lines.push(format!("a fetch is under way, begun {}{progress}", ago(since, now_ms)));
    }
    lines
}

/// A refused commit with all its errors; `active` is whether an earlier one is active.
pub(crate) fn refusal(refused: &RefusedCommit, active: bool, color: bool) -> String {
    let n = count(refused.diagnostics.len(), "error");
    let commit = rollout::commit(&refused.commit);
    let mut out = Style::Bad.paint(&format!("commit {commit} is refused: {n}"), color) + "\n";
    refused.diagnostics.iter().for_each(|fault| out.push_str(&self::fault(fault)));
    out.push_str(if active {
        "the previous commit stays active\n"
    } else {
        "no commit is active: nothing is deployed\n"
    });
    out
}

fn fault(fault: &Fault) -> String {
    let place = fault.at.as_ref().map(|at| match (at.line, at.column) {
        (Some(line), Some(column)) => format!("{}:{line}:{column}: ", at.file),
        _ => format!("{}: ", at.file),
    });
    let mut out = format!("  {}{}\n", place.unwrap_or_default(), fault.message);
    if let Some(text) = fault.at.as_ref().and_then(|at| at.text.as_ref()) {
        let _ = writeln!(out, "      {}", text.trim());
    }
    if let Some(hint) = &fault.hint {
        let _ = writeln!(out, "    → {hint}");
    }
    out
}

fn presence(presence: NodePresence) -> (&'static str, Style) {
    match presence {
        NodePresence::Online => ("online", Style::Good),
        NodePresence::Offline => ("offline", Style::Warn),
        NodePresence::Unknown => ("unknown", Style::Bad),
    }
}

/// The most urgent thing about a node, in a few words.
fn state(node: &NodeStatus) -> (String, Style) {
    match node.condition {
        NodeCondition::NotDeclared if node.applied > 0 => {
            (format!("orphaned: {} left running", count(node.applied, "task")), Style::Warn)
        }
        NodeCondition::NotDeclared => ("not declared".to_owned(), Style::Warn),
        NodeCondition::Converged if node.state == Lifecycle::Decommissioned => {
            ("decommissioned: nothing is left on it".to_owned(), Style::Good)
        }
        NodeCondition::Failed => (rollout::counts(&node.counts), Style::Bad),
        NodeCondition::Unknown => {
            let why = match (node.presence, node.last_seen_ms) {
                (NodePresence::Unknown, None) => "never reported",
                (NodePresence::Unknown, Some(_)) => "not seen since the planner started",
                _ => "no state received",
            };
            (format!("unknown: {why}"), Style::Warn)
        }
        NodeCondition::Degraded => (format!("{} degraded", count(node.degraded.len(), "task")), Style::Bad),
        NodeCondition::Pending => (pending(node), Style::Warn),
        NodeCondition::Drifted => (format!("{} drifted", count(node.drifted, "task")), Style::Warn),
        NodeCondition::Converged => ("converged".to_owned(), Style::Good),
    }
}

/// What is still to be carried out on a node.
fn pending(node: &NodeStatus) -> String {
    if node.phase == Some(Phase::Fetching) {
        "fetching content".to_owned()
    } else if node.counts.open() > 0 {
        rollout::counts(&node.counts)
    } else if !node.waiting.is_empty() {
        format!("{} cannot be planned yet", count(node.waiting.len(), "task"))
    } else if node.planned > node.generation {
        format!("behind: plan {} not received yet", node.planned)
    } else {
        format!("{} pending", count(node.obligations.len(), "action"))
    }
}

/// What keeps the agent of a node from its work, and which tasks do not work, with the reasons.
pub(super) fn faults(node: &NodeStatus) -> impl Iterator<Item = String> {
    let trouble = node.trouble.iter().map(|trouble| format!("its agent cannot go on: {trouble}"));
    trouble.chain(node.degraded.iter().map(|(task, why)| format!("{task} is degraded: {why}")))
}

/// Which tasks of its part of the latest rollout have failed, with the errors.
pub(super) fn failures(node: &NodeStatus) -> impl Iterator<Item = String> {
    node.failed.iter().map(|(task, error)| format!("{task} failed: {}", first_line(error)))
}

/// That a node is parked, and why.
pub(crate) fn parked_text(parked: &Parked, now_ms: u64) -> String {
    let why = match parked {
        Parked::Inventory => "by the inventory".to_owned(),
        Parked::Operator { operator, reason, since_ms, until_ms } => {
            let left =
                until_ms.map_or_else(String::new, |until| format!(", for {} more", took(until.saturating_sub(now_ms))));
            format!("by {operator} {}{left}: {reason}", ago(*since_ms, now_ms))
        }
    };
    format!("parked {why}; nothing on other nodes waits for it")
}

/// What to do about a key of a node that is held.
pub(crate) fn confirm(node: &NodeId) -> String {
    format!(
        "if its host was set up again, and this is its new key: `groundplan trust {node}`; else take the commit back"
    )
}

/// The problems of a node that do not fit into the table, each on its own line.
fn troubles(out: &mut String, node: &NodeStatus, now_ms: u64, color: bool) {
    let name = &node.node;
    if let Some(parked) = &node.parked {
        let _ = writeln!(out, "{name}: {}", Style::Warn.paint(&parked_text(parked, now_ms), color));
    }
    if let Some(unsteady) = &node.unsteady {
        let secs = unsteady.until_ms.saturating_sub(now_ms).div_ceil(1000);
        let text = format!("{name}: it {unsteady} for another {secs} s, or until a commit changes it");
        let _ = writeln!(out, "{}", Style::Bad.paint(&text, color));
    }
    if let Some(held) = &node.held_key {
        let _ = writeln!(out, "{}", Style::Bad.paint(&format!("{name}: {held}"), color));
        let _ = writeln!(out, "  → {}", confirm(name));
    }
    for fault in faults(node) {
        let _ = writeln!(out, "{}", Style::Bad.paint(&format!("{name}: {fault}"), color));
    }
    for failure in failures(node).take(NAMED) {
        let _ = writeln!(out, "{}", Style::Bad.paint(&format!("{name}: {failure}"), color));
    }
    if let Some(more @ 1..) = node.failed.len().checked_sub(NAMED) {
        let _ = writeln!(out, "{name}: {more} more tasks failed; `groundplan show {name}` lists them");
    }
    for (task, waits_for) in node.waiting.iter().take(NAMED) {
        let _ = writeln!(out, "{name}: {task} waits for {}", waits_for.join(", "));
    }
    if let Some(more @ 1..) = node.waiting.len().checked_sub(NAMED) {
        let _ = writeln!(out, "{name}: {more} more tasks wait");
    }
    for (task, effect) in &node.obligations {
        let _ = writeln!(out, "{name}: {effect} of {task} pending");
    }
    if let Some(refused) = &node.refused {
        let when = ago(refused.at_ms, now_ms);
        let text = format!("{name}: the agent refused a message on `{}`: {}", refused.topic, refused.reason);
        let _ = writeln!(out, "{} ({when})", Style::Bad.paint(&text, color));
    }
    if let Some(rejected) = &node.rejected {
        let text =
            format!("{name}: the planner refused {}: {}", count(rejected.count as usize, "message"), rejected.reason);
        let _ = writeln!(out, "{}\n  → {}", Style::Bad.paint(&text, color), rejected.hint);
    }
    if node.ignored > 0 {
        let _ = writeln!(out, "{name}: the agent ignored {}", count(node.ignored as usize, "message"));
    }
}
