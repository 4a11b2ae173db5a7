//! Rollouts and their instances in words, as `status`, `history`, `show`, `why` and `up` share them.

use groundplan_protocol::report::Outcome;

use super::{
    output::Style,
    table::{ago, count, short, took},
};
use crate::api::types::{Commit, Counts, InstanceState, RolloutResult, RolloutSummary};

/// A commit: its short id and its subject.
pub(crate) fn commit(commit: &Commit) -> String {
    format!("{} {}", short(commit.id.as_str()), commit.subject)
}

/// How a rollout stands, in a word.
pub(crate) fn result(result: RolloutResult) -> (&'static str, Style) {
    match result {
        RolloutResult::Running => ("running", Style::Warn),
        RolloutResult::Waiting => ("waiting", Style::Warn),
        RolloutResult::Succeeded => ("succeeded", Style::Good),
        RolloutResult::Failed => ("failed", Style::Bad),
        RolloutResult::Superseded => ("superseded", Style::Dim),
    }
}

/// What has become of its instances: `3 changed, 1 waiting`; those that are none are left out.
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
    let told: Vec<String> = parts.iter().filter(|(n, _)| *n > 0).map(|(n, word)| format!("{n} {word}")).collect();
    if told.is_empty() { "nothing to do".to_owned() } else { told.join(", ") }
}

/// When it was and how long it took.
pub(crate) fn time(rollout: &RolloutSummary, now_ms: u64) -> String {
    match rollout.finished_ms {
        Some(end) => format!("in {}, {}", took(end.saturating_sub(rollout.started_ms)), ago(end, now_ms)),
        None => format!("for {}", took(now_ms.saturating_sub(rollout.started_ms))),
    }
}

/// A rollout in one line without its commit.
pub(crate) fn line(rollout: &RolloutSummary, now_ms: u64, color: bool) -> String {
    let (word, style) = result(rollout.result);
    let nodes = count(rollout.nodes, "node");
    format!("{}: {} on {nodes}, {}", style.paint(word, color), counts(&rollout.counts), time(rollout, now_ms))
}

/// What has become of an instance, in a few words.
pub(crate) fn state(state: &InstanceState) -> (String, Style) {
    match state {
        InstanceState::Pending => ("pending".to_owned(), Style::Dim),
        InstanceState::Waiting { on, unknown } => {
            let all: Vec<String> = unknown.iter().cloned().chain(on.iter().map(ToString::to_string)).collect();
            let first = all.first().cloned().unwrap_or_default();
            let more = if all.len() > 1 { format!(" and {} more", all.len() - 1) } else { String::new() };
            (format!("waits for {first}{more}"), Style::Warn)
        }
        InstanceState::Running => ("running".to_owned(), Style::Warn),
        InstanceState::Finished { outcome } => (outcome.to_string(), outcome_style(outcome)),
    }
}

/// How an outcome is set off.
pub(crate) fn outcome_style(outcome: &Outcome) -> Style {
    match outcome {
        Outcome::Done { changed: true, .. } => Style::Good,
        Outcome::Failed { .. } | Outcome::Interrupted | Outcome::Blocked { .. } => Style::Bad,
        Outcome::Done { changed: false, .. } | Outcome::Skipped | Outcome::Superseded => Style::Dim,
    }
}
