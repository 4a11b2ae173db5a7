//! Rollouts and their instances as text, shared by `status`, `history`, `show`, `why`, `recheck` and `up`.

use std::fmt::Write as _;

use groundplan_protocol::report::Outcome;

use super::{
    Cell, Style, Table,
    format::{ago, count, first_line, indent, printed, short, took},
    reason,
};
use crate::api::types::{
    Commit, Counts, InstanceRecord, InstanceState, Rewind, RolloutDetail, RolloutResult, RolloutSummary,
};

/// A commit as its short id and subject.
pub(crate) fn commit(commit: &Commit) -> String {
    let rewinds = commit.rewinds.as_ref().map(|rewinds| format!(" ({})", rewind(rewinds))).unwrap_or_default();
    format!("{} {}{rewinds}", short(commit.id.as_str()), commit.subject)
}

/// That a commit is no fast-forward.
fn rewind(Rewind { from, commits }: &Rewind) -> String {
    let what = commits.map_or("commits".to_owned(), |commits| count(commits, "commit"));
    format!("no fast-forward: takes back {what} of {}", short(from.as_str()))
}

/// The state of a rollout in one word.
pub(crate) fn result(result: RolloutResult) -> (&'static str, Style) {
    match result {
        RolloutResult::Running => ("running", Style::Warn),
        RolloutResult::Waiting => ("waiting", Style::Warn),
        RolloutResult::Succeeded => ("succeeded", Style::Good),
        RolloutResult::Failed => ("failed", Style::Bad),
        RolloutResult::Superseded => ("superseded", Style::Dim),
    }
}

/// How many instances are in which state, worst first, without the zeros: `3 changed, 1 waiting`.
pub(crate) fn counts(counts: &Counts) -> String {
    let parts = [
        (counts.failed, "failed"),
        (counts.blocked, "blocked"),
        (counts.running, "running"),
        (counts.waiting, "waiting"),
        (counts.pending, "pending"),
        (counts.changed, "changed"),
        (counts.unchanged, "unchanged"),
        (counts.superseded, "superseded"),
    ];
    let counted: Vec<String> = parts.iter().filter(|(n, _)| *n > 0).map(|(n, word)| format!("{n} {word}")).collect();
    if counted.is_empty() { "nothing to do".to_owned() } else { counted.join(", ") }
}

/// How long a rollout took and when it ended; if it is not over, how long it has taken so far.
pub(crate) fn time(rollout: &RolloutSummary, now_ms: u64) -> String {
    match rollout.finished_ms {
        Some(end) => format!("in {}, {}", took(end.saturating_sub(rollout.started_ms)), ago(end, now_ms)),
        None => format!("for {}", took(now_ms.saturating_sub(rollout.started_ms))),
    }
}

/// A rollout in one line, without its commit: state, counts, nodes, time.
pub(crate) fn line(rollout: &RolloutSummary, now_ms: u64, color: bool) -> String {
    let (word, style) = result(rollout.result);
    let nodes = count(rollout.nodes, "node");
    let mut line =
        format!("{}: {} on {nodes}, {}", style.paint(word, color), counts(&rollout.counts), time(rollout, now_ms));
    if rollout.degraded > 0 {
        line += &Style::Bad.paint(&format!("; {} degraded since", rollout.degraded), color);
    }
    if rollout.unplanned > 0 {
        let n = count(rollout.unplanned, "node");
        line += &Style::Warn.paint(&format!("; {n} not planned for yet"), color);
    }
    line
}

/// The state of an instance in a few words. An outcome with details may have several lines.
pub(crate) fn state(state: &InstanceState) -> (String, Style) {
    match state {
        InstanceState::Pending => ("pending".to_owned(), Style::Dim),
        InstanceState::Waiting { on, others, unknown } => {
            let all: Vec<String> = unknown.iter().cloned().chain(on.iter().map(ToString::to_string)).collect();
            let first = all.first().cloned().unwrap_or_default();
            let more = all.len().saturating_sub(1) + others;
            let more = if more > 0 { format!(" and {more} more") } else { String::new() };
            (format!("waits for {first}{more}"), Style::Warn)
        }
        InstanceState::Running => ("running".to_owned(), Style::Warn),
        InstanceState::Finished { outcome } => (outcome.to_string(), outcome_style(outcome)),
    }
}

/// The colour of an outcome.
pub(crate) fn outcome_style(outcome: &Outcome) -> Style {
    match outcome {
        Outcome::Done { changed: true, .. } => Style::Good,
        Outcome::Failed { .. } | Outcome::Interrupted | Outcome::Blocked { .. } => Style::Bad,
        Outcome::Done { changed: false, .. } | Outcome::Skipped | Outcome::Superseded => Style::Dim,
    }
}

/// A table of all instances of a rollout, with the full error and output of those that failed below it.
pub(crate) fn detail(detail: &RolloutDetail, now_ms: u64, color: bool) -> String {
    let summary = &detail.summary;
    let mut out = format!(
        "rollout {}  {}\n{}  {}\n\n",
        summary.generation,
        line(summary, now_ms, color),
        Style::Dim.paint("commit", color),
        commit(&summary.commit),
    );
    let mut table = Table::new(&["NODE", "TASK", "ACTION", "OUTCOME", "TOOK", "BECAUSE"]);
    for record in &detail.instances {
        let (text, style) = state(&record.state);
        table.row([
            record.instance.node.to_string().into(),
            record.instance.task.to_string().into(),
            record.action.to_string().into(),
            Cell::styled(first_line(&text), style),
            record.duration_ms.map(took).unwrap_or_default().into(),
            Cell::styled(reason::chain(&record.reasons), Style::Dim),
        ]);
    }
    for pending in &detail.pending {
        table.row([
            pending.instance.node.to_string().into(),
            pending.instance.task.to_string().into(),
            "?".into(),
            Cell::styled(format!("waits for {}", pending.waits_for.join(", ")), Style::Warn),
            String::new().into(),
            String::new().into(),
        ]);
    }
    out.push_str(&table.render(color));
    for record in &detail.instances {
        if let Some(text) = trouble(record) {
            let _ = write!(out, "\n{}\n{text}", Style::Bad.paint(&record.instance.to_string(), color));
        }
    }
    out
}

/// The complete error of an instance that failed, with its output.
fn trouble(record: &InstanceRecord) -> Option<String> {
    let InstanceState::Finished { outcome } = &record.state else { return None };
    let printed = record.output.as_ref().map(printed).unwrap_or_default();
    let failed = matches!(outcome, Outcome::Failed { .. });
    failed.then(|| indent(&format!("{outcome}\n{printed}")))
}
