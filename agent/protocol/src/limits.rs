//! What a node's message may hold: agents keep to it, and planners hold every message to it before it is logged, stored or shown.
//!
//! In: a message whose signature is good. Out: the same with its texts for people cut and escaped, or the limit that it exceeds. A text that
//! is cut is still of use; facts and published values are data, of which a part would be another value, so the message is refused. What
//! programs printed is cut and otherwise left as it is: it is made safe where it is shown.
//!
//! The limits of single fields stand beside them: [`FACTS_LIMIT`], [`FOUND_LIMIT`], [`EXPORT_LIMIT`], [`OUTPUT_LIMIT`], [`TEXT_LIMIT`],
//! [`CONTENTS_LIMIT`], [`WANT_LIMIT`]. Those of whole messages are in the topic table.

use std::{collections::BTreeMap, io};

use serde_json::Value;

use crate::{
    blob::{WANT_LIMIT, Want},
    drift::{CONTENTS_LIMIT, Difference, DriftReport, TEXT_LIMIT},
    exec::{ExecOutcome, ExecOutput, ExecReady},
    kinds::EXPORT_LIMIT,
    presence::Presence,
    report::{OUTPUT_LIMIT, Outcome, Output, ReportBatch},
    state::{FACTS_LIMIT, FOUND_LIMIT, NodeState},
    text::{cut, is_hostile},
};

/// Most of a text for people, such as why a task failed, in characters.
pub const REASON_LIMIT: usize = 4000;

/// Most of a name or version that is text, in characters.
const NAME: usize = 200;

/// Which limit a message exceeds. Without the length that was found, so that it is one reason however often it comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Exceeded {
    /// The facts are too long.
    #[error("its facts have more than {} KiB", FACTS_LIMIT / 1024)]
    Facts,
    /// A published value is too long.
    #[error("it publishes a value of more than {} KiB", EXPORT_LIMIT / 1024)]
    Export,
    /// No message can be encrypted to the key that it announces: what was queued for the node would fail each time.
    #[error("it announces a key that nothing can be encrypted to")]
    Key,
}

/// A message of a node.
pub trait Bounded {
    /// Cuts and escapes its texts.
    ///
    /// # Errors
    /// What cannot be cut is too long.
    fn bound(&mut self) -> Result<(), Exceeded>;
}

/// Length of facts as JSON, in bytes.
pub fn facts_length(facts: &BTreeMap<String, Value>) -> usize {
    /// Counts what is written to it.
    struct Count(usize);
    impl io::Write for Count {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0 += bytes.len();
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let mut count = Count(0);
    match serde_json::to_writer(&mut count, facts) {
        Ok(()) => count.0,
        Err(_) => usize::MAX,
    }
}

/// A text for people: lines and tabs stay.
fn text(text: &mut String, most: usize) {
    let is_fine = |c: char| !(c.is_control() || is_hostile(c)) || c == '\n' || c == '\t';
    if text.len() > most || !text.chars().all(is_fine) {
        *text = cut(text, most, "\n\t");
    }
}

/// A text for one line.
fn name(text: &mut String) {
    if text.len() > NAME || text.chars().any(|c| c.is_control() || is_hostile(c)) {
        *text = cut(text, NAME, "");
    }
}

fn reason(reason: &mut String) {
    text(reason, REASON_LIMIT);
}

/// At most so many bytes of `text`, cut between characters. Returns how many were cut off.
pub fn truncate(text: &mut String, most: usize) -> u64 {
    let end = (0..=most.min(text.len())).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
    let rest = text.len() - end;
    text.truncate(end);
    rest as u64
}

fn output(output: &mut Output) {
    if output.head.len().saturating_add(output.tail.len()) > OUTPUT_LIMIT {
        // All of it in `head` is nothing left out; only the two halves fit together in any case.
        let most = if output.tail.is_empty() { OUTPUT_LIMIT } else { OUTPUT_LIMIT / 2 };
        let rest = truncate(&mut output.head, most) + truncate(&mut output.tail, most);
        output.omitted = output.omitted.saturating_add(rest);
    }
}

fn exports<'a>(mut values: impl Iterator<Item = &'a String>) -> Result<(), Exceeded> {
    if values.any(|value| value.len() > EXPORT_LIMIT) { Err(Exceeded::Export) } else { Ok(()) }
}

impl Bounded for NodeState {
    fn bound(&mut self) -> Result<(), Exceeded> {
        if facts_length(&self.facts) > FACTS_LIMIT {
            return Err(Exceeded::Facts);
        }
        exports(self.exports.values())?;
        if self.encryption_key.is_some_and(|key| !key.is_usable()) {
            return Err(Exceeded::Key);
        }
        name(&mut self.agent);
        self.degraded.values_mut().for_each(reason);
        self.applied.values_mut().filter_map(|applied| applied.destroys.as_mut()).for_each(reason);
        self.found.first.truncate(FOUND_LIMIT);
        for thing in &mut self.found.first {
            text(&mut thing.claim, REASON_LIMIT);
            text(&mut thing.what, REASON_LIMIT);
        }
        if let Some(refused) = &mut self.refused {
            name(&mut refused.topic);
            reason(&mut refused.reason);
        }
        Ok(())
    }
}

impl Bounded for ReportBatch {
    fn bound(&mut self) -> Result<(), Exceeded> {
        exports(self.reports.iter().filter_map(|report| report.export.as_ref()))?;
        for report in &mut self.reports {
            report.plan.iter_mut().for_each(name);
            if let Outcome::Failed { error } = &mut report.outcome {
                reason(error);
            }
            report.output.iter_mut().for_each(output);
        }
        Ok(())
    }
}

impl Bounded for Presence {
    fn bound(&mut self) -> Result<(), Exceeded> {
        name(&mut self.agent);
        self.trouble.iter_mut().for_each(reason);
        Ok(())
    }
}

impl Bounded for DriftReport {
    fn bound(&mut self) -> Result<(), Exceeded> {
        self.failed.values_mut().for_each(reason);
        let mut room = CONTENTS_LIMIT;
        for difference in self.drifted.values_mut().flat_map(|drifted| &mut drifted.differences) {
            let Difference { what, expected, found, content } = difference;
            text(what, TEXT_LIMIT);
            [expected, found].into_iter().flatten().for_each(|value| text(value, TEXT_LIMIT));
            if let Some(content) = content {
                match content.inline_length() {
                    length if length <= room => room -= length,
                    _ => content.replace_by_name(),
                }
            }
        }
        Ok(())
    }
}

impl Bounded for ExecOutput {
    fn bound(&mut self) -> Result<(), Exceeded> {
        match self.end.as_mut().map(|end| &mut end.outcome) {
            Some(ExecOutcome::Killed { signal }) => name(signal),
            Some(ExecOutcome::Refused { reason: why } | ExecOutcome::Failed { error: why }) => reason(why),
            Some(ExecOutcome::Exited { .. } | ExecOutcome::TimedOut | ExecOutcome::Stopped | ExecOutcome::Unknown)
            | None => {}
        }
        Ok(())
    }
}

/// Ids have limits of their own.
impl Bounded for ExecReady {
    fn bound(&mut self) -> Result<(), Exceeded> {
        Ok(())
    }
}

impl Bounded for Want {
    fn bound(&mut self) -> Result<(), Exceeded> {
        self.chunks.truncate(WANT_LIMIT);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const IDS: &str = r#""version":1,"site":"s","node":"n","ledger":"0123456789abcdef0123456789abcdef""#;

    fn parse<T: serde::de::DeserializeOwned>(rest: &Value) -> T {
        let rest = rest.to_string();
        serde_json::from_str(&format!("{{{IDS},{}", &rest[1..])).unwrap()
    }

    fn state(more: Value) -> NodeState {
        let mut all = json!({ "revision": 1, "generation": 1, "phase": "idle", "sequence": 0, "agent": "1" });
        all.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        parse(&all)
    }

    #[test]
    fn facts_and_values_above_their_limit_are_refused() {
        // `{"a":"…"}` takes 8 bytes more than the value.
        let facts = |length: usize| state(json!({ "facts": { "a": "x".repeat(length - 8) } })).bound();
        assert_eq!(facts(FACTS_LIMIT), Ok(()));
        assert_eq!(facts(FACTS_LIMIT + 1), Err(Exceeded::Facts));
        let export = |length: usize| state(json!({ "exports": { "s.e": "x".repeat(length) } })).bound();
        assert_eq!(export(EXPORT_LIMIT), Ok(()));
        assert_eq!(export(EXPORT_LIMIT + 1), Err(Exceeded::Export));
        let report = json!({ "generation": 1, "task": "s.e", "action": "create", "outcome": { "is": "interrupted" },
            "started_ms": 0, "duration_ms": 0, "export": "x".repeat(EXPORT_LIMIT + 1) });
        let mut batch: ReportBatch = parse(&json!({ "first": 1, "generation": 1, "reports": [report] }));
        assert_eq!(batch.bound(), Err(Exceeded::Export));
    }

    #[test]
    fn texts_are_cut_and_escaped() {
        let long = format!("a\u{1b}[2J\n{}", "ü".repeat(9000));
        let mut state = state(json!({
            "degraded": { "s.t": long }, "agent": long,
            "refused": { "topic": long, "reason": long, "at_ms": 0 },
            "found": { "total": 1, "bytes": 1, "first": vec![json!({ "claim": long, "what": long, "size": 1 }); 300] },
        }));
        state.bound().unwrap();
        let refused = state.refused.as_ref().unwrap();
        let degraded = &state.degraded[&"s.t".parse().unwrap()];
        assert!(degraded.starts_with("a\\u{1b}[2J\nüü") && degraded.ends_with("ü…"), "{degraded}");
        assert_eq!(state.found.first.len(), FOUND_LIMIT);
        for text in [degraded, &refused.reason, &state.found.first[0].what, &state.found.first[0].claim] {
            assert!(text.chars().count() <= REASON_LIMIT + 10, "{}", text.len());
        }
        for text in [&state.agent, &refused.topic] {
            assert!(text.chars().count() <= NAME + 10 && !text.contains('\n'), "{text}");
        }
    }

    #[test]
    fn outputs_are_cut_and_otherwise_left() {
        let report = |output: Value| {
            let report = json!({ "generation": 1, "task": "s.t", "action": "create", "started_ms": 0, "duration_ms": 0,
                "outcome": { "is": "failed", "error": "\u{202e}".repeat(9000) }, "output": output });
            let mut batch: ReportBatch = parse(&json!({ "first": 1, "generation": 1, "reports": [report] }));
            batch.bound().unwrap();
            batch.reports.remove(0)
        };
        let Outcome::Failed { error } = report(json!({ "head": "" })).outcome else { panic!() };
        assert!(error.starts_with("\\u{202e}\\u{202e}") && error.len() < 9 * REASON_LIMIT);
        let of = |output: Value| report(output).output.unwrap();
        assert_eq!(of(json!({ "head": "\u{1b}[1mx" })).head, "\u{1b}[1mx");
        let fits = "x".repeat(OUTPUT_LIMIT);
        assert_eq!(of(json!({ "head": fits })).head, fits);
        let cut = of(json!({ "head": "ä".repeat(OUTPUT_LIMIT), "omitted": 5, "tail": "ä".repeat(OUTPUT_LIMIT) }));
        assert_eq!((cut.head.len() + cut.tail.len(), cut.omitted), (OUTPUT_LIMIT, 5 + 3 * OUTPUT_LIMIT as u64));
    }

    #[test]
    fn contents_of_drift_are_named_beyond_the_limit() {
        let difference = |length: usize| json!({ "what": "content", "found": "\u{1b}".repeat(5000), "content": { "text": "x".repeat(length) } });
        let drifted = json!({ "fingerprint": "ab".repeat(32), "since_ms": 0,
            "differences": [difference(CONTENTS_LIMIT - 1), difference(1), difference(1)] });
        let mut report: DriftReport = parse(&json!({ "revision": 1, "asked": 0, "generation": 1, "at_ms": 0,
            "duration_ms": 0, "checked": 1, "left_out": 0, "drifted": { "s.t": drifted } }));
        report.bound().unwrap();
        let differences = &report.drifted.values().next().unwrap().differences;
        let kept: Vec<bool> = differences.iter().map(|d| d.content.as_ref().unwrap().blob().is_none()).collect();
        assert_eq!(kept, [true, true, false]);
        assert!(differences[0].found.as_ref().unwrap().starts_with("\\u{1b}\\u{1b}"));
    }

    #[test]
    fn a_request_for_content_names_few_chunks() {
        let blob = json!({ "sha256": "ab".repeat(32), "size": 1 });
        let mut want: Want = parse(&json!({ "blob": blob, "chunks": vec![7; 5000] }));
        want.bound().unwrap();
        assert_eq!(want.chunks.len(), WANT_LIMIT);
    }
}
