//! Reasons as text: each is the cause of the one before it, down to a named input of a named file.

use groundplan_core::{plan::ReasonReport, reason::UNKNOWN};
use groundplan_protocol::ids::TaskId;

/// A place in the form that editors open: `site.toml:7`, or the file alone.
fn place(file: &str, line: Option<impl std::fmt::Display>) -> String {
    line.map_or_else(|| file.to_owned(), |line| format!("{file}:{line}"))
}

fn changed(input: &str, before: Option<&str>, after: Option<&str>, place: &str) -> String {
    match (before, after) {
        (Some(before), Some(after)) => format!("{input} {before} → {after} ({place})"),
        (None, Some(after)) => format!("{input} → {after} ({place})"),
        (Some(before), None) => format!("{input} removed, was {before} ({place})"),
        (None, None) => format!("{input} changed ({place})"),
    }
}

fn drifted(what: &str) -> String {
    format!("drifted on its node: {what}")
}

const RECHECK: &str = "recheck requested";

fn off(when: &str, input: Option<&str>, before: Option<&str>, after: Option<&str>, place: &str) -> String {
    let what = match (input, before, after) {
        (Some(input), Some(before), Some(after)) if before != after => format!(": {input} {before} → {after}"),
        (Some(input), _, Some(after)) => format!(": {input} is {after}"),
        (Some(input), ..) => format!(": by {input}"),
        (None, ..) => String::new(),
    };
    format!("when `{when}` is false{what} ({place})")
}

/// That an operator asked for something, and why.
pub(crate) fn asked(by: &str, why: &str) -> String {
    if why.is_empty() { format!("{by} asked for it") } else { format!("{by} asked for it: {why}") }
}

/// Task ids with commas between them.
pub(crate) fn list(tasks: &[TaskId]) -> String {
    tasks.iter().map(TaskId::to_string).collect::<Vec<_>>().join(", ")
}

/// One reason as a line for people, with its place.
pub(crate) fn report(reason: &ReasonReport) -> String {
    match reason {
        ReasonReport::Added { input, at } => format!("{input} is new ({})", place(&at.file, at.line)),
        ReasonReport::Changed { input, before, after, at } => {
            changed(input, before.as_deref(), after.as_deref(), &place(&at.file, at.line))
        }
        ReasonReport::Off { when, input, before, after, at } => {
            off(when, input.as_deref(), before.as_deref(), after.as_deref(), &place(&at.file, at.line))
        }
        ReasonReport::TakesOver { from, change, at, .. } => {
            let change = match change.as_deref() {
                None => "nothing else changes".to_owned(),
                Some(UNKNOWN) => "it changes as well".to_owned(),
                Some(input) => format!("{input} changed"),
            };
            format!("takes over from {}; {change} ({})", list(from), place(&at.file, at.line))
        }
        ReasonReport::Replaces { from, at, .. } => {
            format!("replaces {}, which ends first ({})", list(from), place(&at.file, at.line))
        }
        ReasonReport::HandsOver { to, whole, at } => {
            let part = if *whole { "" } else { " in part" };
            format!("handed over{part} to {} ({})", list(to), place(&at.file, at.line))
        }
        // The node is there, or nothing would be done on it.
        ReasonReport::Removed { input, at } if input.starts_with("node ") => {
            format!("{input} is in no group with the service any more ({})", place(&at.file, at.line))
        }
        ReasonReport::Removed { input, at } => format!("{input} was removed ({})", place(&at.file, at.line)),
        ReasonReport::Decommissioned { input, at } => {
            format!("{input} is decommissioned ({})", place(&at.file, at.line))
        }
        ReasonReport::Elected { input, node, at } => {
            format!("{input} runs once, and on {node} from now on ({})", place(&at.file, at.line))
        }
        ReasonReport::Forgotten { by, why, .. } => asked(by, why),
        ReasonReport::Triggered { by, .. } => by.to_string(),
        ReasonReport::Drifted { what, .. } => drifted(what),
        ReasonReport::Asked { .. } => RECHECK.to_owned(),
        ReasonReport::Obligation { effect, .. } => format!("{effect} pending since an earlier plan"),
    }
}

/// A chain of reasons in one line: `app.config@beta ← var db_port 17432 → 17433 (site.toml:6)`.
pub(crate) fn chain(reasons: &[ReasonReport]) -> String {
    reasons.iter().map(report).collect::<Vec<_>>().join(" ← ")
}

#[cfg(test)]
mod tests {
    use groundplan_protocol::effect::Effect;

    use super::*;
    use groundplan_core::plan::Position;

    #[test]
    fn a_chain_reads_from_effect_to_cause() {
        let at = Position { file: "site.toml".into(), line: Some(6), column: Some(11) };
        let changed = ReasonReport::Changed {
            input: "var db_port".into(),
            before: Some("17432".into()),
            after: Some("17433".into()),
            at,
        };
        let by = "app.config@beta".parse().unwrap();
        let reasons = [ReasonReport::Triggered { by, effect: Effect::Restart }, changed];
        assert_eq!(chain(&reasons), "app.config@beta ← var db_port 17432 → 17433 (site.toml:6)");
    }
}
