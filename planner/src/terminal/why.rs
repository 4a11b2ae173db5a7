//! What is to become of one task on one node, with its chain of reasons.

use std::fmt::Write as _;

use super::{
    Style,
    format::{indent, printed, took},
    reason, rollout,
};
use crate::api::types::{InstanceState, NodePresence, Why, WhyApplied};

pub(crate) fn text(why: &Why, now_ms: u64, color: bool) -> String {
    let mut out = format!("{} on {}\n", Style::Bold.paint(&why.instance.task.to_string(), color), why.instance.node);
    let unsure = !why.waits_for.is_empty();
    let standing = match (why.desired, why.applied) {
        (_, WhyApplied::Not) if unsure => "is not applied, and cannot be planned yet",
        _ if unsure => "stays as it is applied: it cannot be planned yet",

        (true, WhyApplied::AsDesired) => "is applied as the commit in force asks",
        (true, WhyApplied::Otherwise) => "is applied, but not yet as the commit in force asks",
        (true, WhyApplied::Not) => "is asked for by the commit in force, but not applied yet",
        (false, WhyApplied::Not) => "is neither asked for nor applied",
        (false, WhyApplied::AsDesired | WhyApplied::Otherwise) => "is applied, but no longer asked for",
    };
    let agent = match why.presence {
        NodePresence::Online => "",
        NodePresence::Offline => "; its node is offline, and gets its part when it is back",
        NodePresence::Unknown => "; its node was never heard of: is its agent running, and its key trusted?",
    };
    let _ = writeln!(out, "  {standing}{agent}");
    for what in &why.waits_for {
        let _ = writeln!(out, "    waits for {}", Style::Warn.paint(what, color));
    }
    if let Some(off) = &why.off {
        let _ = writeln!(out, "  when is false there: {off}");
    }
    if let Some(effect) = why.obligation {
        let _ = writeln!(out, "  {}", Style::Warn.paint(&format!("a {effect} is still owed"), color));
    }
    let (Some(rollout), Some(record)) = (&why.rollout, &why.record) else {
        out.push_str("  no rollout has touched it: nothing that it names, and nothing that acts on it, has changed\n");
        return out;
    };
    let (state, style) = rollout::state(&record.state);
    let time = record.duration_ms.map(|ms| format!(" in {}", took(ms))).unwrap_or_default();
    let _ = writeln!(
        out,
        "  rollout {} ({}), {}\n  {} → {}{time}",
        rollout.generation,
        rollout::commit(&rollout.commit),
        rollout::line(rollout, now_ms, color),
        record.action,
        style.paint(&state, color),
    );
    if let InstanceState::Waiting { on, unknown } = &record.state {
        let unknown = unknown.iter().filter(|unknown| !why.waits_for.contains(unknown));
        for what in unknown.cloned().chain(on.iter().map(ToString::to_string)) {
            let _ = writeln!(out, "    waits for {what}");
        }
    }
    for (depth, reason) in record.reasons.iter().enumerate() {
        let link = if depth == 0 { "because" } else { "because of" };
        let _ = writeln!(
            out,
            "  {:indent$}{} {}",
            "",
            Style::Dim.paint(link, color),
            reason::report(reason),
            indent = depth * 2
        );
    }
    if let Some(output) = &record.output {
        let _ = write!(out, "  it printed\n{}", indent(&indent(&printed(output))));
    }
    out
}
